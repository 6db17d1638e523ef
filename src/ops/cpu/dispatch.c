// ops/cpu/dispatch.c - tokens to experts and back: a stable counting sort of slots, and the moves of
// rows that follow from it.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// The expert of a slot that gets a row, counted from `first`; -1 for the other slots.
static int64_t expert_of(struct tensor expert, struct tensor weight, int64_t i, bool zeros,
                         int64_t first, int64_t E)
{
    const int64_t e = data_i32(expert)[i] - first;
    return e >= 0 && e < E && (data_f32(weight)[i] == 0.0f) == zeros ? e : -1;
}

void cpu_dispatch(const struct dispatch *d, struct tensor expert, struct tensor weight, bool zeros,
                  int64_t first)
{
    const int64_t E = tensor_count(d->offsets) - 1, slots = tensor_count(expert);
    int32_t *offset = data_i32(d->offsets), *slot = data_i32(d->slot), *row = data_i32(d->row);
    memset(offset, 0, (size_t)(E + 1) * sizeof *offset);
    for (int64_t i = 0; i < slots; i++) {
        const int64_t e = expert_of(expert, weight, i, zeros, first, E);
        if (e >= 0) offset[e + 1]++;
    }
    for (int64_t e = 0; e < E; e++) {
        offset[e + 1] += offset[e];
    }
    assert(offset[E] <= tensor_count(d->slot));
    for (int64_t i = 0; i < slots; i++) { // offset[e] moves to where expert e + 1 begins
        const int64_t e = expert_of(expert, weight, i, zeros, first, E);
        const int32_t r = e >= 0 ? offset[e]++ : -1;
        if (e >= 0) slot[r] = (int32_t)i;
        if (row) row[i] = r;
    }
    memmove(offset + 1, offset, (size_t)E * sizeof *offset);
    offset[0] = 0;
}

static int64_t row_count(const struct dispatch *d)
{
    return data_i32(d->offsets)[tensor_count(d->offsets) - 1];
}

static size_t row_bytes(struct tensor x)
{
    return x.dim[0] ? tensor_bytes(x) / (size_t)x.dim[0] : 0;
}

void cpu_gather_tokens(struct tensor y, struct tensor x, const struct dispatch *d)
{
    const int64_t R = row_count(d), S = d->row.dim[1];
    const size_t bytes = row_bytes(x);
    assert(y.dtype == x.dtype && R <= y.dim[0] && (R == 0 || row_bytes(y) == bytes));
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (R * x.dim[1] > SMALL_WORK)
    for (int64_t r = 0; r < R; r++) {
        const int64_t n = data_i32(d->slot)[r] / S;
        memcpy((char *)y.data + (size_t)r * bytes, (const char *)x.data + (size_t)n * bytes, bytes);
    }
}

// Columns [c, c + count) of one token.
static void combine_block(struct tensor y, struct tensor ys, const int32_t *row, int64_t S,
                          int64_t n, int64_t c, bool accumulate)
{
    const int64_t C = y.dim[1], count = min_i64(BLOCK, C - c);
    float sum[BLOCK], buffer[BLOCK];
    memset(sum, 0, sizeof sum);
    if (accumulate) to_f32(sum, element_at(y, n * C + c), y.dtype, count);
    for (int64_t s = 0; s < S; s++) {
        if (row[n * S + s] < 0) continue;
        const float *from = block_load(buffer, ys, row[n * S + s] * C + c, count);
        for (int64_t i = 0; i < count; i++) {
            sum[i] += from[i];
        }
    }
    block_store(y, n * C + c, sum, count);
}

void cpu_combine_slots(struct tensor y, struct tensor ys, const struct dispatch *d, bool accumulate)
{
    const int64_t N = y.dim[0], C = y.dim[1], S = d->row.dim[1];
    assert(ys.dim[1] == C && d->row.dim[0] == N);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (N * C > SMALL_WORK)
    for (int64_t n = 0; n < N; n++) {
        for (int64_t c = 0; c < C; c += BLOCK) {
            combine_block(y, ys, data_i32(d->row), S, n, c, accumulate);
        }
    }
}

void cpu_gather_rows(struct tensor y, struct tensor x, struct tensor index)
{
    const int64_t M = tensor_count(index);
    const size_t bytes = row_bytes(x);
    assert(y.dtype == x.dtype && M <= y.dim[0]);
    for (int64_t m = 0; m < M; m++) {
        const int64_t n = data_i32(index)[m];
        assert(n >= 0 && n < x.dim[0]);
        memcpy((char *)y.data + (size_t)m * bytes, (const char *)x.data + (size_t)n * bytes, bytes);
    }
}

void cpu_place_rows(struct tensor x, struct tensor y, struct tensor index)
{
    const int64_t M = tensor_count(index);
    const size_t bytes = row_bytes(x);
    assert(y.dtype == x.dtype && M <= y.dim[0]);
    for (int64_t m = 0; m < M; m++) {
        const int64_t n = data_i32(index)[m];
        assert(n >= 0 && n < x.dim[0]);
        memcpy((char *)x.data + (size_t)n * bytes, (const char *)y.data + (size_t)m * bytes, bytes);
    }
}

void cpu_scatter_rows(struct tensor x, struct tensor y, struct tensor index)
{
    cpu_zero(x);
    cpu_place_rows(x, y, index);
}
