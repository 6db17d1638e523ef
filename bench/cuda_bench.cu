// bench/cuda_bench.cu - how fast the CUDA backend's products and attention are, in TFLOP/s, in one run beside
// what the library does: one dense product of the same size (cuBLASLt, the fastest of its suggestions) and a
// loop of one cuBLAS call a group with group sizes known to the host, which a training step could only have
// by waiting for the device. Usage: cuda_bench [tokens]. Medians of several rounds; random data. Before its time
// counts each result is compared: products with the loop's, experts' joined ops with the single ones, attention in BF16
// with that in F32. Ends with 1 if one was wrong.
#include "cuda_bench.h"

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

void expect(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "cuda_bench: %s failed\n", what);
    exit(1);
}

// Median milliseconds of a piece of work on the backend's stream.
double milliseconds(const std::function<void()> &work)
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

struct tensor make(enum dtype t, int64_t rows, int64_t cols)
{
    static uint32_t seed;
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    x.data = cuda_ops.allocate(tensor_bytes(x));
    expect(x.data != NULL, "allocation");
    if (t == DTYPE_BF16) LAUNCH(fill<bf16>, 1024, 256, 0, data<bf16>(x), rows * cols, ++seed);
    if (t == DTYPE_F32) LAUNCH(fill<float>, 1024, 256, 0, data<float>(x), rows * cols, ++seed);
    return x;
}

void drop(struct tensor x)
{
    cuda_ops.release(x.data, tensor_bytes(x));
}

struct tensor copy_of(struct tensor x, enum dtype t)
{
    struct tensor y = x;
    y.dtype = t;
    y.data = cuda_ops.allocate(tensor_bytes(y));
    expect(y.data != NULL, "allocation");
    cuda_ops.convert(y, x);
    return y;
}

void poison(struct tensor x)
{
    expect(cudaMemsetAsync(x.data, 0xff, tensor_bytes(x), cuda_stream()) == cudaSuccess, "poison");
}

// sums += { |x - want|^2, |want|^2 }
template <class T>
static __global__ void distances(double *sums, const T *x, const T *want, int64_t count)
{
    double apart = 0, all = 0;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        const double a = (double)to_float(x[i]), b = (double)to_float(want[i]);
        apart += (a - b) * (a - b);
        all += b * b;
    }
    apart = block_sum(apart);
    all = block_sum(all);
    if (threadIdx.x) return;
    atomicAdd(&sums[0], apart);
    atomicAdd(&sums[1], all);
}

static int wrong;

int failures(void)
{
    return wrong;
}

bool same(const char *what, struct tensor x, struct tensor want, double limit)
{
    double sums[2] = {0, 0};
    struct tensor t = make(DTYPE_F64, 1, 2);
    cuda_ops.zero(t);
    with_activation(want.dtype, [&](auto zero) {
        using T = decltype(zero);
        LAUNCH((distances<T>), 1024, 256, 0, data<double>(t), data<T>(x), data<T>(want),
               tensor_count(want));
    });
    cuda_ops.download(sums, t.data, sizeof sums);
    drop(t);
    const double off = sqrt(sums[0] / sums[1]);
    if (off <= limit) return true; // not a number is not
    printf("FAILED %s: off by %.2g, at most %.2g expected\n", what, off, limit);
    wrong++;
    return false;
}

enum product { FORWARD, DINPUT, DWEIGHT };
static const char *const product_names[] = {"forward", "dinput", "dweight"};

struct tensor make_table(struct tensor w, int64_t G)
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
void open_bank(struct bank *b, int64_t R, int64_t G, int64_t rows, int64_t cols)
{
    *b = {};
    b->R = R, b->G = G, b->rows = rows, b->cols = cols;
    b->x = make(DTYPE_BF16, R, cols);
    b->y = make(DTYPE_BF16, R, rows);
    b->dx = make(DTYPE_BF16, R, cols);
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

void close_bank(struct bank *b)
{
    for (struct tensor t : {b->x, b->y, b->dx, b->w, b->dw, b->offsets, b->table, b->dtable}) {
        drop(t);
    }
}

static void run_own(const struct bank *b, enum product p)
{
    if (p == FORWARD) cuda_ops.matmul_forward(b->y, b->x, &b->values, b->offsets, false);
    if (p == DINPUT) cuda_ops.matmul_dinput(b->dx, b->y, &b->values, b->offsets, false);
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
    uint16_t *dx = (uint16_t *)b->dx.data + first * K;
    uint16_t *w = (uint16_t *)b->w.data + g * N * K;
    float *dw = (float *)b->dw.data + g * N * K;
    if (p == FORWARD)
        return {CUBLAS_OP_T, CUBLAS_OP_N, N, rows, K, K, K, N, w, x, y, CUDA_R_16BF, 0};
    if (p == DINPUT)
        return {CUBLAS_OP_N, CUBLAS_OP_N, K, rows, N, K, N, K, w, y, dx, CUDA_R_16BF, 0};
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

// The kernels of both families against the library.
static void compare(const char *name, const struct bank *b, enum product p)
{
    const struct tensor out = p == FORWARD ? b->y : p == DINPUT ? b->dx : b->dw;
    cuda_ops.zero(out);
    run_loop(b, p);
    const struct tensor want = copy_of(out, out.dtype);
    for (int portable = 0; portable < 2; portable++) {
        char what[96];
        snprintf(what, sizeof what, "%s, %s", name, portable ? "mma.sync" : "own");
        cuda_configure_products(portable ? CUDA_PRODUCTS_PORTABLE : CUDA_PRODUCTS_AUTO);
        p == DWEIGHT ? cuda_ops.zero(out) : poison(out); // weights' gradients are added to
        run_own(b, p);
        same(what, out, want, p == DWEIGHT ? 1e-4 : 4e-3);
    }
    drop(want);
}

// The three products of one bank; their times are added to `sum` `times` times.
static void measure_bank(const char *name, const struct bank *b, struct times *sum, int times)
{
    const double flop = 2.0 * (double)b->R * (double)b->rows * (double)b->cols;
    for (int p = FORWARD; p <= DWEIGHT; p++) {
        const enum product kind = (enum product)p;
        struct times t = {};
        char line[64];
        snprintf(line, sizeof line, "%s %s", name, product_names[p]);
        compare(line, b, kind);
        cuda_configure_products(CUDA_PRODUCTS_PORTABLE);
        t.portable = milliseconds([&] { run_own(b, kind); });
        cuda_configure_products(CUDA_PRODUCTS_AUTO);
        t.own = milliseconds([&] { run_own(b, kind); });
        t.loop = milliseconds([&] { run_loop(b, kind); });
        t.dense = dense(b, kind);
        print_times(line, flop, t);
        sum->own += times * t.own;
        sum->portable += times * t.portable;
        sum->loop += times * t.loop;
        sum->dense += times * t.dense;
    }
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
    measure_copies();
    measure_layer("OLMoE-1B-7B", tokens, 64, 8, 2048, 1024);
    measure_layer("Qwen3-30B-A3B", tokens, 128, 8, 2048, 768);
    for (int64_t D : {64, 128, 256}) {
        measure_attention(16384, 4096, 2048 / D, 2048 / D, D);
    }
    measure_attention(16384, 4096, 32, 4, 128);
    measure_attention(16384, 512, 32, 4, 128);
    expect(cuda_ops.check(&err), err.msg);
    return failures() != 0;
}
