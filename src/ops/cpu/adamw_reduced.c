// ops/cpu/adamw_reduced.c - AdamW over a leaf whose moments, or whose value, are kept in fewer bits: a block
// is widened, moved as adamw.c does, and rounded back.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include "base/codes.h"
#include "base/rng.h"

#include <assert.h>
#include <pthread.h>

// The nearest code by a table: a cell holds all values of one sign, exponent and upper 7 bits of mantissa,
// from 2^-23 (below lies the code of 0 alone) up to 1; no cell holds more than one border between two codes.
enum { LOWEST = (127 - 23) << 7, CELLS = 23 * 128 + 1 };
_Static_assert(BLOCK % CODE_BLOCK == 0, "a task computes whole blocks of codes");

struct nearest {
    const float *code;
    float border[CODES];     // between a code and the next; above the last: none
    uint8_t zero;            // the code of 0
    uint8_t first[2][CELLS]; // by sign: the code of the cell's lowest value
};
static struct nearest signed_codes, unsigned_codes;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint8_t search(const struct nearest *c, float x)
{
    int low = 0, high = CODES - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (x > c->border[middle]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (uint8_t)low;
}

static void open_table(struct nearest *c, const float *code)
{
    c->code = code;
    for (int i = 0; i + 1 < CODES; i++) {
        c->border[i] = (float)(((double)code[i] + (double)code[i + 1]) / 2);
    }
    c->border[CODES - 1] = INFINITY;
    c->zero = search(c, 0);
    for (uint32_t i = 0; i < CELLS; i++) {
        const uint32_t bits = (LOWEST + i) << 16;
        c->first[0][i] = search(c, f32_from_bits(bits));
        c->first[1][i] = search(c, -f32_from_bits(bits | 0xffffU));
    }
}

static void open_tables(void)
{
    open_table(&signed_codes, codes_signed());
    open_table(&unsigned_codes, codes_unsigned());
}

// Of x within [-1, 1].
static inline uint8_t nearest_code(const struct nearest *c, float x)
{
    const uint32_t bits = f32_bits(x);
    const int64_t cell = (int64_t)(bits << 1 >> 17) - LOWEST;
    if (cell < 0) return c->zero;
    const uint8_t first = c->first[bits >> 31][cell < CELLS ? cell : CELLS - 1];
    return (uint8_t)(first + (x > c->border[first]));
}

static void load_codes(float *out, const struct nearest *c, const uint8_t *in, const float *scale,
                       int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = c->code[in[i]] * scale[i / CODE_BLOCK];
    }
}

static float largest(const float *x, int64_t n)
{
    int32_t most = 0; // magnitudes are in the order of their bits
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = (int32_t)(f32_bits(x[i]) & 0x7fffffffU);
        most = bits > most ? bits : most;
    }
    return f32_from_bits((uint32_t)most);
}

// The codes of m never lose a sign to 0, those of v (all of them 0 or above) no value.
static void store_block(uint8_t *restrict out, const struct nearest *c, const float *restrict x,
                        float most, int64_t n)
{
    const uint8_t zero = c->zero;
    const bool is_signed = zero != 0;
    float unit[CODE_BLOCK];
    for (int64_t i = 0; i < n; i++) {
        unit[i] = x[i] / most;
    }
    for (int64_t i = 0; i < n; i++) {
        const uint8_t code = nearest_code(c, unit[i]);
        const bool lost = code == zero && (is_signed ? x[i] < 0 : x[i] > 0);
        out[i] = (uint8_t)(code + (is_signed ? -lost : lost));
    }
}

static void store_codes(uint8_t *out, float *scale, const struct nearest *c, const float *x,
                        int64_t n)
{
    for (int64_t first = 0; first < n; first += CODE_BLOCK) {
        const int64_t count = min_i64(CODE_BLOCK, n - first);
        const float most = largest(x + first, count);
        scale[first / CODE_BLOCK] = most;
        if (most > 0) {
            store_block(out + first, c, x + first, most, count);
        } else {
            memset(out + first, c->zero, (size_t)count);
        }
    }
}

// Where random bits come from: one of the arrays of a leaf.
struct draw {
    uint64_t seed, stream;
};

// Elements [first, first + n), first a multiple of 4.
static void round_random(uint16_t *restrict out, const float *restrict x, const struct draw *d,
                         int64_t first, int64_t n)
{
    uint64_t words[BLOCK / 4];
    uint16_t random[BLOCK];
    rng_fill(words, ceil_div(n, 4), d->seed, d->stream, (uint64_t)first / 4);
    memcpy(random, words, (size_t)n * sizeof *random); // little-endian: the low end comes first
    for (int64_t i = 0; i < n; i++) {
        out[i] = bf16_from_f32_random(x[i], random[i]);
    }
}

// One of the moments, elements [first, first + n).
struct moment {
    struct tensor x, scale;
    const struct nearest *codes;
    struct draw draw;
};

static float *load_moment(float *buffer, const struct moment *m, int64_t first, int64_t n)
{
    if (m->x.dtype == DTYPE_F32) return data_f32(m->x) + first;
    if (m->x.dtype == DTYPE_BF16) {
        to_f32(buffer, element_at(m->x, first), DTYPE_BF16, n);
    } else {
        load_codes(buffer, m->codes, (const uint8_t *)m->x.data + first,
                   data_f32(m->scale) + first / CODE_BLOCK, n);
    }
    return buffer;
}

static void store_moment(const struct moment *m, const float *values, int64_t first, int64_t n)
{
    if (m->x.dtype == DTYPE_BF16) {
        round_random((uint16_t *)m->x.data + first, values, &m->draw, first, n);
    } else if (m->x.dtype == DTYPE_U8) {
        store_codes((uint8_t *)m->x.data + first, data_f32(m->scale) + first / CODE_BLOCK, m->codes,
                    values, n);
    }
}

static void check(const struct adamw_leaf *x)
{
    const int64_t count = tensor_count(x->w);
    assert(tensor_count(x->m) == count && tensor_count(x->v) == count);
    assert(tensor_count(x->grad) == count && x->m.dtype == x->v.dtype);
    assert(x->w.dtype == DTYPE_F32 || (x->w.dtype == DTYPE_BF16 && !x->copy.data));
    (void)x, (void)count;
}

void adamw_reduced(const struct adamw_leaf *x, struct adamw_factors f, uint64_t seed,
                   uint64_t stream)
{
    const int64_t count = tensor_count(x->w);
    const struct moment m = {x->m, x->m_scale, &signed_codes, {seed, stream}};
    const struct moment v = {x->v, x->v_scale, &unsigned_codes, {seed, stream + 1}};
    const struct draw own = {seed, stream + 2};
    const bool bare = x->w.dtype == DTYPE_BF16;
    check(x);
    pthread_once(&once, open_tables);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        float buffer[3][BLOCK], *grad = data_f32(x->grad) + first;
        float *pm = load_moment(buffer[0], &m, first, n),
              *pv = load_moment(buffer[1], &v, first, n);
        float *pw = block_target(buffer[2], x->w, first);
        if (bare) to_f32(pw, element_at(x->w, first), DTYPE_BF16, n);
        adamw_update(pw, pm, pv, grad, n, f);
        store_moment(&m, pm, first, n);
        store_moment(&v, pv, first, n);
        if (bare) round_random((uint16_t *)x->w.data + first, pw, &own, first, n);
        if (x->copy.data) block_store(x->copy, first, pw, n);
        memset(grad, 0, (size_t)n * sizeof *grad);
    }
}
