// ops/cuda/embedding.cu - rows of a table by id, and the gradient that adds them up again: tokens are sorted by
// id, digit by digit, so that each id's rows are added in the order of tokens.
#include "ops/cuda/sort.cuh"

template <typename T, typename W>
static __global__ void embedding_forward(T *y, const W *table, const int32_t *ids, int64_t C)
{
    const int64_t n = blockIdx.x, id = ids[n];
    for (int64_t c = threadIdx.x; c < C; c += blockDim.x) {
        y[n * C + c] = from_float<T>(to_float(table[id * C + c]));
    }
}

void cuda_embedding_forward(struct tensor y, struct tensor table, struct tensor ids)
{
    const int64_t N = y.dim[0], C = y.dim[1];
    assert(table.dim[1] == C && tensor_count(ids) == N);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_floating(table.dtype, [&](auto other) {
            using W = decltype(other);
            LAUNCH((embedding_forward<T, W>), (unsigned)N, cuda_threads(C), 0, data<T>(y),
                   data<W>(table), data<int32_t>(ids), C);
        });
    });
}

constexpr int DIGIT_BITS = 9, DIGITS = 1 << DIGIT_BITS;

struct digit_of { // of the id of item i, which is token order[i] (order NULL: token i)
    const int32_t *ids, *order;
    int shift;
    __device__ int operator()(int64_t i) const
    {
        return ids[order ? order[i] : i] >> shift & (DIGITS - 1);
    }
};
struct place_token {
    int32_t *to;
    const int32_t *order;
    __device__ void operator()(int64_t i, int32_t rank) const
    {
        to[rank] = order ? order[i] : (int32_t)i;
    }
};

// A block for each place of the order: the first token of an id adds the rows of all that have it.
template <typename T>
static __global__ void embedding_backward(float *dtable, const T *dy, const int32_t *ids,
                                          const int32_t *order, int64_t N, int64_t C)
{
    const int64_t first = blockIdx.x, id = ids[order[first]];
    if (first && ids[order[first - 1]] == id) return;
    int64_t end = first + 1;
    while (end < N && ids[order[end]] == id) {
        end++;
    }
    for (int64_t c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0;
#pragma unroll 4
        for (int64_t i = first; i < end; i++) {
            sum += to_float(dy[order[i] * C + c]);
        }
        dtable[id * C + c] += sum;
    }
}

void cuda_embedding_backward(struct tensor dtable, struct tensor dy, struct tensor ids)
{
    const int64_t N = dy.dim[0], C = dy.dim[1];
    assert(dtable.dim[1] == C && tensor_count(ids) == N);
    const size_t order_bytes = (size_t)(2 * N + DIGITS + 1) * sizeof(int32_t);
    int32_t *a = (int32_t *)cuda_scratch(CUDA_SCRATCH_B, order_bytes);
    void *memory = cuda_scratch(CUDA_SCRATCH_A, sorting_bytes(N, DIGITS));
    if (!a || !memory || !N) return;
    int32_t *b = a + N, *offset = b + N, *order = nullptr;
    for (int shift = 0; shift == 0 || (dtable.dim[0] - 1) >> shift; shift += DIGIT_BITS) {
        int32_t *to = order == a ? b : a;
        stable_sort(N, DIGITS, digit_of{data<int32_t>(ids), order, shift}, place_token{to, order},
                    offset, memory);
        order = to;
    }
    with_activation(dy.dtype, [&](auto zero) {
        using T = decltype(zero);
        LAUNCH((embedding_backward<T>), (unsigned)N, cuda_threads(C), 0, data<float>(dtable),
               data<T>(dy), data<int32_t>(ids), order, N, C);
    });
}
