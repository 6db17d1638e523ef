// ops/cuda/dispatch.cu - tokens to experts and back: a stable sort of slots by expert, and the moves of rows
// that follow from it.
#include "ops/cuda/sort.cuh"

struct expert_of_slot { // counted from `first`; -1: the slot gets no row
    const int32_t *expert;
    const float *weight;
    int64_t first, experts;
    bool zeros;
    __device__ int operator()(int64_t i) const
    {
        const int64_t e = expert[i] - first;
        return e >= 0 && e < experts && (weight[i] == 0.0f) == zeros ? (int)e : -1;
    }
};
struct place_slot {
    int32_t *slot, *row; // row NULL: not wanted
    __device__ void operator()(int64_t i, int32_t rank) const
    {
        if (rank >= 0) slot[rank] = (int32_t)i;
        if (row) row[i] = rank;
    }
};

void cuda_dispatch(const struct dispatch *d, struct tensor expert, struct tensor weight, bool zeros,
                   int64_t first)
{
    const int64_t E = tensor_count(d->offsets) - 1, slots = tensor_count(expert);
    void *memory = cuda_scratch(CUDA_SCRATCH_A, sorting_bytes(slots, E));
    if (!memory) return;
    stable_sort(slots, E,
                expert_of_slot{data<int32_t>(expert), data<float>(weight), first, E, zeros},
                place_slot{data<int32_t>(d->slot), data<int32_t>(d->row)},
                data<int32_t>(d->offsets), memory);
}

// ---- rows, as words of 16, 4 or 2 bytes

struct all_rows { // row m of the one is row index[m] / per of the other, for m < *count or M
    const int32_t *index, *count;
    int64_t M, per;
};

template <typename W>
static __global__ void move_rows(W *to, const W *from, all_rows rows, int64_t words, bool scatter)
{
    const int64_t m = blockIdx.x;
    if (rows.count && m >= *rows.count) return;
    const int64_t n = rows.index[m] / rows.per;
    const W *source = from + (scatter ? m : n) * words;
    W *target = to + (scatter ? n : m) * words;
    for (int64_t i = threadIdx.x; i < words; i += blockDim.x) {
        target[i] = source[i];
    }
}

static void move(struct tensor to, struct tensor from, all_rows rows, bool scatter)
{
    const size_t bytes = (size_t)from.dim[1] * dtype_size(from.dtype);
    assert(to.dtype == from.dtype && to.dim[1] == from.dim[1]);
    const uintptr_t all = bytes | (uintptr_t)to.data | (uintptr_t)from.data; // where words begin
    const auto run = [&](auto word) {
        using W = decltype(word);
        const int64_t words = (int64_t)(bytes / sizeof(W));
        LAUNCH((move_rows<W>), (unsigned)rows.M, cuda_threads(words), 0, data<W>(to), data<W>(from),
               rows, words, scatter);
    };
    if (all % 16 == 0) {
        run(uint4{});
    } else if (all % 4 == 0) {
        run(uint32_t{});
    } else {
        run(uint16_t{});
    }
}

void cuda_gather_tokens(struct tensor y, struct tensor x, const struct dispatch *d)
{
    const int64_t E = tensor_count(d->offsets) - 1, slots = tensor_count(d->slot);
    const all_rows rows = {data<int32_t>(d->slot), data<int32_t>(d->offsets) + E,
                           slots < y.dim[0] ? slots : y.dim[0], d->row.dim[1]};
    move(y, x, rows, false);
}

void cuda_gather_rows(struct tensor y, struct tensor x, struct tensor index)
{
    move(y, x, {data<int32_t>(index), nullptr, tensor_count(index), 1}, false);
}

void cuda_place_rows(struct tensor x, struct tensor y, struct tensor index)
{
    move(x, y, {data<int32_t>(index), nullptr, tensor_count(index), 1}, true);
}

void cuda_scatter_rows(struct tensor x, struct tensor y, struct tensor index)
{
    cuda_zero(x);
    cuda_place_rows(x, y, index);
}

// A block a token: its slots' rows in order.
template <int V, typename T>
static __global__ void combine_slots(T *y, const T *ys, const int32_t *row, int64_t S, int64_t C,
                                     bool accumulate)
{
    const int64_t n = blockIdx.x;
    for (int64_t c = (int64_t)threadIdx.x * V; c < C; c += (int64_t)blockDim.x * V) {
        float sum[V] = {0};
        if (accumulate) load_many(sum, y + n * C + c);
        for (int64_t s = 0; s < S; s++) {
            const int64_t r = row[n * S + s];
            if (r < 0) continue;
            float x[V];
            load_many(x, ys + r * C + c);
            for (int k = 0; k < V; k++) {
                sum[k] += x[k];
            }
        }
        store_many(y + n * C + c, sum);
    }
}

void cuda_combine_slots(struct tensor y, struct tensor ys, const struct dispatch *d,
                        bool accumulate)
{
    const int64_t N = y.dim[0], C = y.dim[1], S = d->row.dim[1];
    assert(ys.dim[1] == C && d->row.dim[0] == N && ys.dtype == y.dtype);
    with_activation(y.dtype, [&](auto zero) {
        using T = decltype(zero);
        with_width(wide_rows(C, data<T>(y), data<T>(ys)), [&](auto v) {
            constexpr int V = decltype(v)::value;
            LAUNCH((combine_slots<V, T>), (unsigned)N, cuda_threads(C / V), 0, data<T>(y),
                   data<T>(ys), data<int32_t>(d->row), S, C, accumulate);
        });
    });
}
