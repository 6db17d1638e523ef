// bench/cuda_bench.cu - how fast the CUDA backend's products and attention are, in TFLOP/s, in one run beside
// what the library does: one dense product of the same size (cuBLASLt, the fastest of its suggestions) and a
// loop of one cuBLAS call a group with group sizes known to the host, which a training step could only have
// by waiting for the device. Usage: cuda_bench [tokens]. Medians of several rounds; random data.
#include "ops/cuda/matmul.h"

#include <cublasLt.h>
#include <cublas_v2.h>

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <functional>
#include <vector>

enum { ROUNDS = 9, WARM_UP = 2, SUGGESTIONS = 8 };
static const size_t WORKSPACE = (size_t)64 << 20;

static cublasHandle_t blas;
static cublasLtHandle_t lt;
static void *workspace;

static void expect(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "cuda_bench: %s failed\n", what);
    exit(1);
}

// Median milliseconds of a piece of work on the backend's stream.
static double milliseconds(const std::function<void()> &work)
{
    std::vector<double> all;
    cudaEvent_t begin, end;
    expect(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess,
           "cudaEventCreate");
    for (int i = 0; i < WARM_UP + ROUNDS; i++) {
        float ms = 0;
        cudaEventRecord(begin, cuda_stream());
        work();
        cudaEventRecord(end, cuda_stream());
        expect(cudaEventSynchronize(end) == cudaSuccess, "the work that is measured");
        cudaEventElapsedTime(&ms, begin, end);
        if (i >= WARM_UP) all.push_back(ms);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
}

// Elements that look random, in [-1, 1).
template <class T> static __global__ void fill(T *x, int64_t count, uint32_t seed)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761U + seed;
        h = (h ^ h >> 15) * 2246822519U;
        h ^= h >> 13;
        x[i] = from_float<T>((float)(int32_t)h * 0x1p-31f);
    }
}

static struct tensor make(enum dtype t, int64_t rows, int64_t cols)
{
    static uint32_t seed;
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    x.data = cuda_ops.allocate(tensor_bytes(x));
    expect(x.data != NULL, "allocation");
    if (t == DTYPE_BF16) LAUNCH(fill<bf16>, 1024, 256, 0, data<bf16>(x), rows * cols, ++seed);
    if (t == DTYPE_F32) LAUNCH(fill<float>, 1024, 256, 0, data<float>(x), rows * cols, ++seed);
    return x;
}

static void drop(struct tensor x)
{
    cuda_ops.release(x.data, tensor_bytes(x));
}

enum product { FORWARD, DINPUT, DWEIGHT };
static const char *const product_names[] = {"forward", "dinput", "dweight"};

// A bank and its rows: x (R, cols), y (R, rows), G matrices (rows, cols) and their gradients.
struct bank {
    int64_t R, G, rows, cols;
    struct tensor x, y, w, dw, offsets, table, dtable;
    std::vector<int32_t> at;
    struct matrices values, grads;
};

static struct tensor make_table(struct tensor w, int64_t G)
{
    std::vector<char *> p;
    for (int64_t g = 0; g < G; g++) {
        p.push_back((char *)w.data + tensor_bytes(w) / (size_t)G * (size_t)g);
    }
    struct tensor t = make(DTYPE_I64, 1, G);
    cuda_ops.upload(t.data, p.data(), p.size() * sizeof p[0]);
    return t;
}

// Group sizes from half to one and a half of the mean, as a router gives.
static void open_bank(struct bank *b, int64_t R, int64_t G, int64_t rows, int64_t cols)
{
    *b = {};
    b->R = R, b->G = G, b->rows = rows, b->cols = cols;
    b->x = make(DTYPE_BF16, R, cols);
    b->y = make(DTYPE_BF16, R, rows);
    b->w = make(DTYPE_BF16, G * rows, cols);
    b->dw = make(DTYPE_F32, G * rows, cols);
    b->at.push_back(0);
    for (int64_t g = 0; g < G; g++) {
        const int64_t off = (g / 2 + 1) * (R / G) / (G + 2),
                      size = g % 2 ? R / G - off : R / G + off;
        b->at.push_back(g == G - 1 ? (int32_t)R : (int32_t)(b->at.back() + size));
    }
    b->offsets = make(DTYPE_I32, 1, G + 1);
    cuda_ops.upload(b->offsets.data, b->at.data(), b->at.size() * sizeof b->at[0]);
    b->table = make_table(b->w, G);
    b->dtable = make_table(b->dw, G);
    b->values = {G, rows, cols, DTYPE_BF16, (void *const *)b->table.data};
    b->grads = {G, rows, cols, DTYPE_F32, (void *const *)b->dtable.data};
}

static void close_bank(struct bank *b)
{
    for (struct tensor t : {b->x, b->y, b->w, b->dw, b->offsets, b->table, b->dtable}) {
        drop(t);
    }
}

static void run_own(const struct bank *b, enum product p)
{
    if (p == FORWARD) cuda_ops.matmul_forward(b->y, b->x, &b->values, b->offsets, false);
    if (p == DINPUT) cuda_ops.matmul_dinput(b->x, b->y, &b->values, b->offsets, false);
    if (p == DWEIGHT) cuda_ops.matmul_dweight(&b->grads, b->y, b->x, b->offsets);
}

// A product as the column-major library sees it: c (m, n) = op(a) op(b) over k.
struct call {
    cublasOperation_t ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    cudaDataType_t c_type;
    float beta;
};

// Rows [first, first + rows) with matrix g.
static struct call library_call(const struct bank *b, enum product p, int64_t g, int64_t first,
                                int64_t rows)
{
    const int64_t N = b->rows, K = b->cols;
    uint16_t *x = (uint16_t *)b->x.data + first * K, *y = (uint16_t *)b->y.data + first * N;
    uint16_t *w = (uint16_t *)b->w.data + g * N * K;
    float *dw = (float *)b->dw.data + g * N * K;
    if (p == FORWARD)
        return {CUBLAS_OP_T, CUBLAS_OP_N, N, rows, K, K, K, N, w, x, y, CUDA_R_16BF, 0};
    if (p == DINPUT)
        return {CUBLAS_OP_N, CUBLAS_OP_N, K, rows, N, K, N, K, w, y, x, CUDA_R_16BF, 0};
    return {CUBLAS_OP_N, CUBLAS_OP_T, K, N, rows, K, N, K, x, y, dw, CUDA_R_32F, 1};
}

static void run_loop(const struct bank *b, enum product p)
{
    const float one = 1;
    for (int64_t g = 0; g < b->G; g++) {
        const struct call c = library_call(b, p, g, b->at[g], b->at[g + 1] - b->at[g]);
        expect(cublasGemmEx(blas, c.ta, c.tb, (int)c.m, (int)c.n, (int)c.k, &one, c.a, CUDA_R_16BF,
                            (int)c.lda, c.b, CUDA_R_16BF, (int)c.ldb, &c.beta, c.c, c.c_type,
                            (int)c.ldc, CUBLAS_COMPUTE_32F,
                            CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
               "cublasGemmEx");
    }
}

static cublasLtMatrixLayout_t layout(cudaDataType_t t, cublasOperation_t op, int64_t rows,
                                     int64_t cols, int64_t ld)
{
    cublasLtMatrixLayout_t l;
    const bool plain = op == CUBLAS_OP_N;
    expect(cublasLtMatrixLayoutCreate(&l, t, (uint64_t)(plain ? rows : cols),
                                      (uint64_t)(plain ? cols : rows), ld) == CUBLAS_STATUS_SUCCESS,
           "cublasLtMatrixLayoutCreate");
    return l;
}

// Milliseconds of all rows with one matrix, by the fastest of the library's suggestions.
static double dense(const struct bank *b, enum product p)
{
    const struct call c = library_call(b, p, 0, 0, b->R);
    const float one = 1;
    cublasLtMatmulDesc_t op;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[SUGGESTIONS];
    int count = 0;
    expect(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS,
           "cublasLt");
    cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &c.ta, sizeof c.ta);
    cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &c.tb, sizeof c.tb);
    const auto la = layout(CUDA_R_16BF, c.ta, c.m, c.k, c.lda),
               lb = layout(CUDA_R_16BF, c.tb, c.k, c.n, c.ldb);
    const auto lc = layout(c.c_type, CUBLAS_OP_N, c.m, c.n, c.ldc);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &WORKSPACE, sizeof WORKSPACE);
    expect(cublasLtMatmulAlgoGetHeuristic(lt, op, la, lb, lc, lc, preference, SUGGESTIONS, found,
                                          &count) == CUBLAS_STATUS_SUCCESS &&
               count > 0,
           "cublasLtMatmulAlgoGetHeuristic");
    double best = 1e30;
    for (int i = 0; i < count; i++) {
        best = std::min(best, milliseconds([&] {
                            cublasLtMatmul(lt, op, &one, c.a, la, c.b, lb, &c.beta, c.c, lc, c.c,
                                           lc, &found[i].algo, workspace, WORKSPACE, cuda_stream());
                        }));
    }
    for (cublasLtMatrixLayout_t l : {la, lb, lc}) {
        cublasLtMatrixLayoutDestroy(l);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(op);
    return best;
}

struct times {
    double own, portable, loop, dense;
};

static void print_times(const char *name, double flop, const struct times &t)
{
    const double scale = flop * 1e-9; // of a time in ms to TFLOP/s
    printf("  %-18s %8.3f ms  own %6.1f  mma.sync %6.1f  cuBLAS loop %6.1f  cuBLASLt dense %6.1f "
           "TFLOP/s\n",
           name, t.own, scale / t.own, scale / t.portable, scale / t.loop, scale / t.dense);
}

// The three products of one bank; their times are added to `sum` `times` times.
static void measure_bank(const char *name, const struct bank *b, struct times *sum, int times)
{
    const double flop = 2.0 * (double)b->R * (double)b->rows * (double)b->cols;
    for (int p = FORWARD; p <= DWEIGHT; p++) {
        const enum product kind = (enum product)p;
        struct times t = {};
        cuda_configure_products(CUDA_PRODUCTS_PORTABLE);
        t.portable = milliseconds([&] { run_own(b, kind); });
        cuda_configure_products(CUDA_PRODUCTS_AUTO);
        t.own = milliseconds([&] { run_own(b, kind); });
        t.loop = milliseconds([&] { run_loop(b, kind); });
        t.dense = dense(b, kind);
        char line[64];
        snprintf(line, sizeof line, "%s %s", name, product_names[p]);
        print_times(line, flop, t);
        sum->own += times * t.own;
        sum->portable += times * t.portable;
        sum->loop += times * t.loop;
        sum->dense += times * t.dense;
    }
}

// The experts of a layer: a route over the tokens, and the three banks, whose x and y are their rows.
struct experts {
    struct bank gate, up, down;
    struct tensor dg, du; // where up's rows would lie, which are gate's
    struct tensor x, dy, y, dx, expert, weight, dweight;
    struct dispatch d;
};

static void open_experts(struct experts *l, int64_t N, int64_t E, int64_t K, int64_t C, int64_t F)
{
    std::vector<int32_t> expert;
    for (int64_t n = 0; n < N; n++) { // K different ones, where E is no multiple of 3
        for (int64_t s = 0; s < K; s++) {
            expert.push_back((int32_t)((((uint32_t)n * 2654435761U >> 7) + 3 * s) % E));
        }
    }
    open_bank(&l->gate, N * K, E, F, C);
    open_bank(&l->up, N * K, E, F, C);
    open_bank(&l->down, N * K, E, C, F);
    expect(2 * F <= C, "experts of at most half the width");
    l->dg = tensor_2d(l->up.x.data, DTYPE_BF16, N * K, F);
    l->du = tensor_2d(data<uint16_t>(l->up.x) + N * K * F, DTYPE_BF16, N * K, F);
    l->x = make(DTYPE_BF16, N, C), l->dy = make(DTYPE_BF16, N, C);
    l->y = make(DTYPE_BF16, N, C), l->dx = make(DTYPE_BF16, N, C);
    l->expert = make(DTYPE_I32, N, K);
    cuda_ops.upload(l->expert.data, expert.data(), expert.size() * sizeof expert[0]);
    l->weight = make(DTYPE_F32, N, K), l->dweight = make(DTYPE_F32, N, K);
    l->d = {make(DTYPE_I32, 1, E + 1), make(DTYPE_I32, 1, N * K), make(DTYPE_I32, N, K)};
    cuda_ops.dispatch(&l->d, l->expert, l->weight, false, 0);
}

static void close_experts(struct experts *l)
{
    for (struct bank *b : {&l->gate, &l->up, &l->down}) {
        close_bank(b);
    }
    for (struct tensor t : {l->x, l->dy, l->y, l->dx, l->expert, l->weight, l->dweight,
                            l->d.offsets, l->d.slot, l->d.row}) {
        drop(t);
    }
}

// The parts of a layer that ops join, by those or by the single ones that they stand for (model/moe.c).
static void run_up(const struct experts *l, bool joined)
{
    const struct expert_hidden out = {l->gate.y, l->up.y, l->down.x};
    if (joined) {
        cuda_ops.expert_up(&out, l->x, &l->gate.values, &l->up.values, l->weight, &l->d);
        return;
    }
    cuda_ops.gather_tokens(l->gate.x, l->x, &l->d);
    cuda_ops.matmul_forward(out.g, l->gate.x, &l->gate.values, l->d.offsets, false);
    cuda_ops.matmul_forward(out.u, l->gate.x, &l->up.values, l->d.offsets, false);
    cuda_ops.swiglu_forward(out.a, out.g, out.u, l->weight, &l->d);
}

static void run_dhidden(const struct experts *l, bool joined)
{
    const struct swiglu_grads out = {l->dg, l->du, l->down.x, l->dweight};
    const struct tensor g = l->gate.y, u = l->up.y;
    if (joined) {
        cuda_ops.zero(l->dweight);
        cuda_ops.expert_dhidden(&out, l->dy, &l->down.values, g, u, l->weight, &l->d);
        return;
    }
    cuda_ops.gather_tokens(l->down.y, l->dy, &l->d);
    cuda_ops.matmul_dinput(out.a, l->down.y, &l->down.values, l->d.offsets, false);
    cuda_ops.swiglu_backward(&out, out.a, g, u, l->weight, &l->d);
}

static void run_dweights(const struct experts *l, bool joined) // after run_dhidden
{
    if (joined) {
        cuda_ops.expert_dweight(&l->down.grads, l->dy, l->down.x, &l->d, true);
        cuda_ops.expert_dweight(&l->gate.grads, l->dg, l->x, &l->d, false);
        cuda_ops.expert_dweight(&l->up.grads, l->du, l->x, &l->d, false);
        return;
    }
    cuda_ops.matmul_dweight(&l->down.grads, l->down.y, l->down.x, l->d.offsets);
    cuda_ops.gather_tokens(l->gate.x, l->x, &l->d);
    cuda_ops.matmul_dweight(&l->gate.grads, l->dg, l->gate.x, l->d.offsets);
    cuda_ops.matmul_dweight(&l->up.grads, l->du, l->gate.x, l->d.offsets);
}

static void run_experts(const struct experts *l, bool joined)
{
    cuda_ops.dispatch(&l->d, l->expert, l->weight, false, 0);
    run_up(l, joined);
    cuda_ops.matmul_forward(l->down.y, l->down.x, &l->down.values, l->d.offsets, false);
    cuda_ops.combine_slots(l->y, l->down.y, &l->d, false);
    run_dhidden(l, joined);
    run_dweights(l, joined);
    cuda_ops.matmul_dinput(l->gate.x, l->dg, &l->gate.values, l->d.offsets, false);
    cuda_ops.matmul_dinput(l->gate.x, l->du, &l->up.values, l->d.offsets, true);
    cuda_ops.combine_slots(l->dx, l->gate.x, &l->d, false);
}

// Without the router's own products.
static void measure_experts(int64_t N, int64_t E, int64_t K, int64_t C, int64_t F)
{
    static const struct {
        const char *name;
        void (*run)(const struct experts *l, bool joined);
        double products; // of (tokens K, C, F)
    } parts[] = {{"up", run_up, 2},
                 {"dhidden", run_dhidden, 1},
                 {"dweights", run_dweights, 3},
                 {"forward and backward", run_experts, 9}};
    struct experts l;
    open_experts(&l, N, E, K, C, F);
    for (const auto &part : parts) {
        const double flop = 2 * part.products * (double)(N * K) * (double)C * (double)F;
        const double joined = milliseconds([&] { part.run(&l, true); });
        const double single = milliseconds([&] { part.run(&l, false); });
        printf("  experts, %-20s joined ops %8.3f ms %6.1f, single ops %8.3f ms %6.1f TFLOP/s\n",
               part.name, joined, flop / joined * 1e-9, single, flop / single * 1e-9);
    }
    close_experts(&l);
}

// gate and up (F, C) and down (C, F) of E experts, K of them for each token.
static void measure_layer(const char *name, int64_t tokens, int64_t E, int64_t K, int64_t C,
                          int64_t F)
{
    struct times sum = {};
    struct bank b;
    printf("%s: %d tokens, %d of %d experts, %d x %d\n", name, (int)tokens, (int)K, (int)E, (int)C,
           (int)F);
    open_bank(&b, tokens * K, E, F, C);
    measure_bank("gate or up", &b, &sum, 2);
    close_bank(&b);
    open_bank(&b, tokens * K, E, C, F);
    measure_bank("down", &b, &sum, 1);
    close_bank(&b);
    print_times("all nine products", 18.0 * (double)(tokens * K) * (double)C * (double)F, sum);
    measure_experts(tokens, E, K, C, F);
}

static void measure_attention(int64_t N, int64_t T, int64_t H, int64_t G, int64_t D)
{
    const struct tensor q = make(DTYPE_BF16, N, H * D), k = make(DTYPE_BF16, N, G * D),
                        v = make(DTYPE_BF16, N, G * D);
    const struct tensor o = make(DTYPE_BF16, N, H * D), lse = make(DTYPE_F32, N, H),
                        dout = make(DTYPE_BF16, N, H * D);
    const struct tensor dq = make(DTYPE_BF16, N, H * D), dk = make(DTYPE_BF16, N, G * D);
    const struct tensor dv = make(DTYPE_BF16, N, G * D), span = make(DTYPE_I32, N, 2);
    std::vector<int32_t> spans;
    for (int64_t n = 0; n < N; n++) {
        spans.push_back((int32_t)(n / T * T));
        spans.push_back((int32_t)n);
    }
    cuda_ops.upload(span.data, spans.data(), spans.size() * sizeof spans[0]);
    const struct attention_grads d = {dq, dk, dv};
    const struct attention_saved s = {dout, o, lse, q, k, v};
    const float scale = 1.0f / sqrtf((float)D);
    const double product = (double)N * (double)T * (double)(H * D); // 2 N T D H, causal: half
    const double forward =
        milliseconds([&] { cuda_ops.attention_forward(o, lse, q, k, v, span, D, scale); });
    const double backward =
        milliseconds([&] { cuda_ops.attention_backward(&d, &s, span, D, scale); });
    printf("attention: %d rows in documents of %d, heads %d/%d of %d: forward %.3f ms %.1f, "
           "backward %.3f ms %.1f "
           "TFLOP/s\n",
           (int)N, (int)T, (int)H, (int)G, (int)D, forward, 2 * product / forward * 1e-9, backward,
           5 * product / backward * 1e-9);
    for (struct tensor t : {q, k, v, o, lse, dout, dq, dk, dv, span}) {
        drop(t);
    }
}

int main(int argc, char **argv)
{
    struct error err = {};
    const int64_t tokens = argc > 1 ? atoll(argv[1]) : 32768;
    if (!cuda_open(&err)) {
        printf("cuda_bench: %s\n", err.msg);
        return 0;
    }
    expect(tokens >= 128, "tokens >= 128");
    expect(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS &&
               cublasLtCreate(&lt) == CUBLAS_STATUS_SUCCESS,
           "cuBLAS");
    expect(cudaMalloc(&workspace, WORKSPACE) == cudaSuccess, "allocation");
    cublasSetStream(blas, cuda_stream());
    cublasSetWorkspace(blas, workspace, WORKSPACE);
    printf("%s, %d multiprocessors\n", cuda_ops.name, cuda_processors());
    measure_layer("OLMoE-1B-7B", tokens, 64, 8, 2048, 1024);
    measure_layer("Qwen3-30B-A3B", tokens, 128, 8, 2048, 768);
    for (int64_t D : {64, 128, 256}) {
        measure_attention(16384, 4096, 2048 / D, 2048 / D, D);
    }
    measure_attention(16384, 4096, 32, 4, 128);
    measure_attention(16384, 512, 32, 4, 128);
    expect(cuda_ops.check(&err), err.msg);
    return 0;
}
