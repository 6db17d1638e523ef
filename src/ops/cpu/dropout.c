// ops/cpu/dropout.c - see dropout.h and ops.h.
#include "ops/cpu/dropout.h"

#include "base/philox.h"
#include "base/rng.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>

enum { WORDS = BLOCK / 2 };

VECTOR_CLONES
static void mask_block(float *restrict a, float *restrict b, int64_t first, int64_t n,
                       struct row_bits bits)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const uint32_t z = row_word((uint32_t)(first + i), bits.low, bits.high);
        a[i] = (z & 0xffffU) < bits.threshold ? 0.0f : bits.scale;
        b[i] = (z >> 16) < bits.threshold ? 0.0f : bits.scale;
    }
}

VECTOR_CLONES
static void apply_mask(struct tensor y, struct tensor x, const float *mask, int64_t first,
                       int64_t n, bool accumulate)
{
    float in[WORDS], out[WORDS];
    const float *px = block_load(in, x, first, n);
    float *py = block_target(out, y, first);
    if (accumulate) {
        if (py == out) to_f32(out, element_at(y, first), y.dtype, n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            py[i] += px[i] * mask[i];
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            py[i] = px[i] * mask[i];
        }
    }
    block_store(y, first, py, n);
}

static void drop_row(struct tensor y, struct tensor x, int64_t r, struct row_bits bits,
                     bool accumulate)
{
    const int64_t C = x.dim[1], half = ceil_div(C, 2);
    float a[WORDS], b[WORDS];
    for (int64_t i = 0; i < half; i += WORDS) {
        const int64_t n = min_i64(WORDS, half - i), m = min_i64(n, C - half - i);
        mask_block(a, b, i, n, bits);
        apply_mask(y, x, a, r * C + i, n, accumulate);
        if (m > 0) apply_mask(y, x, b, r * C + half + i, m, accumulate);
    }
}

struct row_bits row_bits(const struct dropout *d, int64_t r)
{
    const struct tensor offsets = d->rows ? d->rows->offsets : tensor_absent();
    const int64_t token = d->rows ? data_i32(d->rows->slot)[r] / d->rows->row.dim[1] : r;
    const uint64_t group = (uint64_t)(d->first + group_of(offsets, r));
    const uint64_t random = rng_at(d->key, group, (uint64_t)token);
    return (struct row_bits){.low = (uint32_t)random,
                             .high = (uint32_t)(random >> 32),
                             .threshold = (uint32_t)lrintf(d->p * 65536.0f),
                             .scale = 1.0f / (1.0f - d->p)};
}

int64_t dropout_rows(const struct dropout *d, int64_t rows)
{
    return rows_in_use(d->rows ? d->rows->offsets : tensor_absent(), rows);
}

void cpu_dropout(struct tensor y, struct tensor x, const struct dropout *d, bool accumulate)
{
    const int64_t R = dropout_rows(d, x.dim[0]);
    assert(d->p >= 0 && d->p < 1 && R <= x.dim[0] && R <= y.dim[0] && y.dim[1] == x.dim[1]);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (R * x.dim[1] > SMALL_WORK)
    for (int64_t r = 0; r < R; r++) {
        drop_row(y, x, r, row_bits(d, r), accumulate);
    }
}

// 0xff where word `first` + i leaves its element of the lower half out, and of the upper half; n a multiple of 8.
VECTOR_CLONES
static void hits(uint8_t *restrict lower, uint8_t *restrict upper, int64_t first, int64_t n,
                 struct row_bits bits)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const uint32_t z = row_word((uint32_t)(first + i), bits.low, bits.high);
        lower[i] = (uint8_t)(0 - ((z & 0xffffU) < bits.threshold));
        upper[i] = (uint8_t)(0 - ((z >> 16) < bits.threshold));
    }
}

// Appends base + i for each hit of n.
static int64_t list_hits(int32_t *column, const uint8_t *hit, int64_t n, int64_t base)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, hit + i, sizeof eight);
        for (eight &= 0x0101010101010101U; eight; eight &= eight - 1) {
            column[count++] = (int32_t)(base + i + __builtin_ctzll(eight) / 8);
        }
    }
    return count;
}

int64_t left_out(int32_t *column, int64_t C, struct row_bits bits)
{
    const int64_t half = ceil_div(C, 2);
    int64_t count = 0,
            upper_count = 0; // the upper half's wait in the room that no more than half can fill
    for (int64_t first = 0; first < half; first += WORDS) {
        uint8_t lower[WORDS], upper[WORDS];
        const int64_t n = min_i64(WORDS, half - first), m = min_i64(n, C - half - first);
        hits(lower, upper, first, (n + 7) / 8 * 8, bits);
        memset(lower + n, 0, (size_t)(WORDS - n));
        memset(upper + m, 0, (size_t)(WORDS - m));
        count += list_hits(column + count, lower, n, first);
        upper_count += list_hits(column + half + upper_count, upper, m, half + first);
    }
    memmove(column + count, column + half, (size_t)upper_count * sizeof *column);
    return count + upper_count;
}
