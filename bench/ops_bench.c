// bench/ops_bench.c - how fast the CPU backend's ops are, as a share of the rate of a large product that is
// measured in turn with them. Usage: ops_bench [threads] [rows] [experts] [banks|attention|rest|states]. Time is
// the processor's own, of all threads, so that other programs disturb less; medians of several rounds.
#include "ops/cpu/cpu.h"
#include "ops/cpu/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 9, REPEAT = 4, SIDE = 1024 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct tensor make(enum dtype t, int64_t rows, int64_t cols)
{
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    x.data = cpu_ops.allocate(tensor_bytes(x));
    if (!x.data) exit(1);
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        state = state * 1664525U + 1013904223U;
        const float f = (float)(state >> 8) * 0x1p-24f - 0.5f;
        if (t == DTYPE_F32) data_f32(x)[i] = f;
        if (t == DTYPE_BF16) ((uint16_t *)x.data)[i] = bf16_from_f32(f);
        if (t == DTYPE_I32) data_i32(x)[i] = 0;
    }
    return x;
}

static void drop(struct tensor x)
{
    cpu_ops.release(x.data, tensor_bytes(x));
}

struct job {
    void (*run)(const struct job *j);
    struct tensor x, y, z, offsets, span;
    struct matrices w;
    struct attention_saved saved;
    struct attention_grads grads;
    int64_t m, n, k;
};

static double seconds(const struct job *j)
{
    const double start = now();
    j->run(j);
    return now() - start;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x)
{
    qsort(x, ROUNDS, sizeof *x, compare);
    return x[ROUNDS / 2];
}

static struct job reference;

// Between two runs of the reference product, because the machine's speed changes with its neighbours.
static void report(const char *name, const struct job *j, double flop)
{
    double rate[ROUNDS], share[ROUNDS];
    seconds(j);
    for (int i = 0; i < ROUNDS; i++) {
        const double before = seconds(&reference), taken = seconds(j), after = seconds(&reference);
        rate[i] = flop / taken * 1e-9;
        share[i] = rate[i] * (before + after) /
                   (2 * 2e-9 * (double)((int64_t)REPEAT * SIDE * SIDE * SIDE));
    }
    const double middle = median(rate); // sorts
    printf("%-36s %7.1f GFLOP/s a thread (best %6.1f)  %5.2f of the product's\n", name, middle,
           rate[ROUNDS - 1], median(share));
}

static void report_bytes(const char *name, const struct job *j, double bytes)
{
    double taken[ROUNDS];
    seconds(j);
    for (int i = 0; i < ROUNDS; i++) {
        taken[i] = seconds(j);
    }
    const double s = median(taken);
    printf("%-44s %8.2f GB/s a thread  %8.3f ms\n", name, bytes / s * 1e-9, s * 1e3);
}

static void run_product(const struct job *j)
{
#pragma omp parallel for num_threads(cpu_threads())
    for (int i = 0; i < REPEAT; i++) {
        const struct product p = {.m = SIDE,
                                  .n = SIDE,
                                  .k = SIDE,
                                  .a = j->x.data,
                                  .b = j->y.data,
                                  .c = row_f32(j->z, i * SIDE),
                                  .lda = SIDE,
                                  .ldb = SIDE,
                                  .ldc = SIDE,
                                  .transposed_b = true};
        product_f32(&p, 1.0f);
    }
}

static void run_forward(const struct job *j)
{
    cpu_ops.matmul_forward(j->y, j->x, &j->w, j->offsets, false);
}

static void run_dinput(const struct job *j)
{
    cpu_ops.matmul_dinput(j->x, j->y, &j->w, j->offsets, false);
}

static void run_dweight(const struct job *j)
{
    cpu_ops.matmul_dweight(&j->w, j->y, j->x, j->offsets);
}

static void bank(int64_t R, int64_t G, int64_t rows, int64_t cols, enum dtype a, enum dtype t)
{
    struct job j = {.x = make(a, R, cols), .y = make(a, R, rows), .z = make(t, G * rows, cols)};
    void **data = malloc((size_t)G * sizeof *data);
    j.offsets = make(DTYPE_I32, 1, G + 1);
    for (int64_t g = 0; data && g < G; g++) { // sizes R/G/2 .. 3R/G/2, as a router gives
        const int64_t size =
            g % 2 ? R / G - g * R / G / (2 * G) : R / G + (g + 1) * R / G / (2 * G);
        const int64_t end = data_i32(j.offsets)[g] + size;
        data_i32(j.offsets)[g + 1] = (int32_t)(g == G - 1 ? R : min_i64(end, R));
        data[g] = (char *)j.z.data + (size_t)(g * rows * cols) * dtype_size(t);
    }
    j.w = (struct matrices){G, rows, cols, t, data};
    const double flop = 2.0 * (double)R * (double)rows * (double)cols;
    char name[96];
    snprintf(name, sizeof name, "%d x (%d, %d) w %s x %s", (int)G, (int)rows, (int)cols,
             dtype_name(t), dtype_name(a));
    puts(name);
    j.run = run_forward;
    report("  forward", &j, flop);
    j.run = run_dinput;
    report("  dinput", &j, flop);
    j.run = run_dweight;
    if (t == DTYPE_F32) report("  dweight", &j, flop);
    drop(j.x), drop(j.y), drop(j.z), drop(j.offsets);
    free(data);
}

static void run_attention_forward(const struct job *j)
{
    cpu_ops.attention_forward(j->saved.o, j->saved.lse, j->saved.q, j->saved.k, j->saved.v, j->span,
                              j->k, 0.09f);
}

static void run_attention_backward(const struct job *j)
{
    cpu_ops.attention_backward(&j->grads, &j->saved, j->span, j->k, 0.09f);
}

static void attention(int64_t T, int64_t B, int64_t H, int64_t D)
{
    const int64_t N = T * B, C = H * D;
    struct job j = {.k = D, .span = make(DTYPE_I32, N, 2)};
    struct tensor *const all[] = {&j.saved.dout, &j.saved.o,  &j.saved.q,  &j.saved.k,
                                  &j.saved.v,    &j.grads.dq, &j.grads.dk, &j.grads.dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i] = make(DTYPE_F32, N, C);
    }
    j.saved.lse = make(DTYPE_F32, N, H);
    for (int64_t n = 0; n < N; n++) {
        data_i32(j.span)[2 * n] = (int32_t)(n / T * T);
        data_i32(j.span)[2 * n + 1] = (int32_t)n;
    }
    const double product = (double)B * (double)H * (double)T * (double)T * (double)D; // causal half
    printf("attention: %d sequences of %d, H %d, D %d\n", (int)B, (int)T, (int)H, (int)D);
    j.run = run_attention_forward;
    report("  forward", &j, 2 * product);
    j.run = run_attention_backward;
    report("  backward", &j, 5 * product);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        drop(*all[i]);
    }
    drop(j.span), drop(j.saved.lse);
}

static void one_update(const struct adamw_leaf *x, const struct adamw *p)
{
    struct adamw_leaf leaf = *x;
    float scale = 1;
    const struct leaf_list list = {.leaf = &leaf, .count = 1}; // the CPU asks for no more
    cpu_ops.adamw(&list, p, tensor_1d(&scale, DTYPE_F32, 1), 1, 2);
}

static void run_adamw(const struct job *j)
{
    const struct adamw p = {1e-4, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001};
    one_update(
        &(struct adamw_leaf){
            .w = j->x, .m = j->y, .v = j->z, .copy = j->offsets, .grad = j->span, .decays = true},
        &p);
}

static void run_rmsnorm(const struct job *j)
{
    cpu_ops.rmsnorm_forward(j->y, tensor_absent(), j->x, j->z, 1e-5f);
}

static void run_swiglu(const struct job *j)
{
    cpu_ops.swiglu_forward(j->z, j->x, j->y, tensor_absent(), NULL);
}

static void run_swiglu_backward(const struct job *j)
{
    const struct swiglu_grads out = {j->x, j->y, j->z, tensor_absent()};
    cpu_ops.swiglu_backward(&out, j->z, j->x, j->y, tensor_absent(), NULL);
}

static void run_cross_entropy(const struct job *j)
{
    cpu_ops.cross_entropy(j->y, j->x, j->z, 1e-3f);
}

static void run_decode(const struct job *j)
{
    cpu_ops.matmul_forward(j->y, j->x, &j->w, tensor_absent(), false);
}

static void bandwidth_bound(void)
{
    const int64_t n = 1 << 23, N = 4096, C = 2048;
    struct job j = {.run = run_adamw,
                    .x = make(DTYPE_F32, 1, n),
                    .y = make(DTYPE_F32, 1, n),
                    .z = make(DTYPE_F32, 1, n),
                    .offsets = make(DTYPE_BF16, 1, n),
                    .span = make(DTYPE_F32, 1, n)};
    cpu_ops.zero(j.z);
    report_bytes("adamw", &j, 34.0 * (double)n);
    j.x = tensor_2d(j.x.data, DTYPE_F32, N, C);
    j.y = tensor_2d(j.y.data, DTYPE_F32, N, C);
    j.z = tensor_2d(j.z.data, DTYPE_F32, 1, C);
    j.run = run_rmsnorm;
    report_bytes("rmsnorm_forward", &j, 8.0 * (double)(N * C));
    j.z = tensor_2d(j.z.data, DTYPE_F32, N, C);
    j.run = run_swiglu;
    report_bytes("swiglu_forward", &j, 12.0 * (double)(N * C));
    j.run = run_swiglu_backward;
    report_bytes("swiglu_backward", &j, 24.0 * (double)(N * C));
    const int64_t V = 50304, rows = 128;
    const struct job loss = {.run = run_cross_entropy,
                             .x = tensor_2d(j.x.data, DTYPE_F32, rows, V),
                             .y = make(DTYPE_F32, 1, rows),
                             .z = make(DTYPE_I32, 1, rows)};
    report_bytes("cross_entropy", &loss, 8.0 * (double)(rows * V));
    for (int64_t few = 1; few <= 32; few *= 2) {
        char name[64];
        snprintf(name, sizeof name, "matmul_forward, BF16 weights, %d rows", (int)few);
        void *data[] = {j.x.data};
        struct job decode = {.run = run_decode,
                             .x = make(DTYPE_BF16, few, C),
                             .y = make(DTYPE_BF16, few, 8192),
                             .w = {1, 8192, C, DTYPE_BF16, data}};
        report_bytes(name, &decode, 2.0 * 8192 * (double)C);
        drop(decode.x), drop(decode.y);
    }
}

static struct adamw_leaf reduced;

static void run_adamw_reduced(const struct job *j)
{
    const struct adamw p = {1e-4, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001};
    (void)j;
    one_update(&reduced, &p);
}

// AdamW with each of the ways to keep a leaf, in turn with float32 throughout: ns an element.
static void states(void)
{
    const int64_t n = 1 << 23;
    static const struct {
        const char *name;
        enum dtype w, states;
    } all[] = {{"master f32, states bf16", DTYPE_F32, DTYPE_BF16},
               {"master f32, states 8bit", DTYPE_F32, DTYPE_U8},
               {"master none, states f32", DTYPE_BF16, DTYPE_F32},
               {"master none, states bf16", DTYPE_BF16, DTYPE_BF16},
               {"master none, states 8bit", DTYPE_BF16, DTYPE_U8}};
    const struct job whole = {.run = run_adamw,
                              .x = make(DTYPE_F32, 1, n),
                              .y = make(DTYPE_F32, 1, n),
                              .z = make(DTYPE_F32, 1, n),
                              .offsets = make(DTYPE_BF16, 1, n),
                              .span = make(DTYPE_F32, 1, n)};
    const struct job less = {.run = run_adamw_reduced};
    cpu_ops.zero(whole.z);
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        double f32[ROUNDS], taken[ROUNDS];
        reduced =
            (struct adamw_leaf){.w = all[k].w == DTYPE_F32 ? whole.x : whole.offsets,
                                .m = make(all[k].states, 1, n),
                                .v = make(all[k].states, 1, n),
                                .m_scale = make(DTYPE_F32, 1, n / 256),
                                .v_scale = make(DTYPE_F32, 1, n / 256),
                                .copy = all[k].w == DTYPE_F32 ? whole.offsets : tensor_absent(),
                                .grad = whole.span,
                                .decays = true};
        cpu_ops.zero(reduced.v);
        seconds(&less);
        for (int i = 0; i < ROUNDS; i++) {
            f32[i] = seconds(&whole);
            taken[i] = seconds(&less);
        }
        const double a = median(f32), b = median(taken);
        printf("adamw, %-34s %8.2f ns an element, f32 %8.2f, ratio %5.2f\n", all[k].name,
               b / (double)n * 1e9, a / (double)n * 1e9, b / a);
        drop(reduced.m), drop(reduced.v), drop(reduced.m_scale), drop(reduced.v_scale);
    }
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 1;
    const int64_t R = argc > 2 ? atoi(argv[2]) : 8192, G = argc > 3 ? atoi(argv[3]) : 16;
    const char *part = argc > 4 ? argv[4] : "";
    cpu_configure(threads, CPU_PRODUCTS_AUTO);
    reference = (struct job){.run = run_product,
                             .x = make(DTYPE_F32, SIDE, SIDE),
                             .y = make(DTYPE_F32, SIDE, SIDE),
                             .z = make(DTYPE_F32, REPEAT * SIDE, SIDE)};
    seconds(&reference);
    if (!*part || !strcmp(part, "banks")) {
        bank(R, G, 1024, 2048, DTYPE_F32, DTYPE_F32);
        bank(R, G, 1024, 2048, DTYPE_F32, DTYPE_BF16);
        bank(R, G, 2048, 1024, DTYPE_F32, DTYPE_BF16);
        bank(R, G, 2048, 1024, DTYPE_BF16, DTYPE_BF16);
        bank(2048, 1, 2048, 2048, DTYPE_F32, DTYPE_BF16);
    }
    if (!*part || !strcmp(part, "attention")) {
        attention(1024, 2, 16, 128);
        attention(256, 4, 16, 128);
    }
    if (!*part || !strcmp(part, "rest")) bandwidth_bound();
    if (!*part || !strcmp(part, "states")) states();
    return 0;
}
