// ops/cpu/dropped.c - what dropout takes from a linear: x W^T over the elements of x that are left out, and dy W at
// those places alone. With p of 0.05 that is a twentieth of a product's work, in an irregular pattern: a strip of W is
// turned so that what an element needs lies side by side, and stays in the cache while rows pass by.
#include "ops/cpu/dropped.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/dropout.h"
#include "ops/cpu/vector.h"

#include <assert.h>

// Rows of a task, fewer where there are few groups to share out; bytes of a turned strip; columns that are turned at
// a time, whole lines of the cache; what keeps the rows of a strip out of each other's sets of it.
enum {
    ROWS = 1024,
    FEW_ROWS = 512,
    FEW_GROUPS = 8,
    STRIP_BYTES = 512 << 10,
    LINES = 64,
    PAD = 32,
    AHEAD = 16
};

// The rows of one task and what is left out of them: entries start[i] .. start[i + 1] belong to row first + i.
struct chunk {
    const struct matrices *w;
    int64_t group, first, count;
    bool bf16;   // turned strips are BF16, else F32
    float scale; // of what stays
    int32_t start[ROWS + 1];
    int32_t *column; // of W and of x
};

static void find(struct chunk *c, const struct dropout *d)
{
    c->column = scratch(SCRATCH_A, (size_t)(c->count * c->w->cols) * sizeof *c->column);
    c->start[0] = 0;
    for (int64_t i = 0; i < c->count; i++) {
        const struct row_bits bits = row_bits(d, c->first + i);
        const int64_t n = left_out(c->column + c->start[i], c->w->cols, bits);
        c->start[i + 1] = c->start[i] + (int32_t)n;
        c->scale = bits.scale;
    }
}

static size_t turned_size(const struct chunk *c)
{
    return c->bf16 ? sizeof(uint16_t) : sizeof(float);
}

// 8 x 8 values: thrice the rows of the upper half are laced with those of the lower half.
typedef uint16_t eight __attribute__((vector_size(16)));
static inline void lace(eight to[8], const eight from[8])
{
    for (int i = 0; i < 4; i++) {
        const eight a = from[i], b = from[i + 4];
        to[2 * i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        to[2 * i + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

static inline void turn_8x8(uint16_t *to, int64_t to_ld, const char *from, size_t from_ld)
{
    eight a[8], b[8];
    for (int i = 0; i < 8; i++) {
        memcpy(&a[i], from + (size_t)i * from_ld, sizeof a[i]);
    }
    lace(b, a);
    lace(a, b);
    lace(b, a);
    for (int i = 0; i < 8; i++) {
        memcpy(to + i * to_ld, &b[i], sizeof b[i]);
    }
}

// to[k][n], `ld` apart = W[first_row + n][first_column + k], for rows x columns of it
static void turn(void *to, int64_t ld, const struct chunk *c, int64_t first_row, int64_t rows,
                 int64_t first_column, int64_t columns)
{
    const size_t size = dtype_size(c->w->dtype), from_ld = (size_t)c->w->cols * size;
    const char *from = (const char *)c->w->data[c->group] + (size_t)first_row * from_ld +
                       (size_t)first_column * size;
    const int64_t whole_rows = c->bf16 ? rows / 8 * 8 : 0;
    const int64_t whole_columns = c->bf16 ? columns / 8 * 8 : 0;
    for (int64_t k = 0; k < whole_columns; k += LINES) {
        for (int64_t n = 0; n < whole_rows; n += 8) {
            const char *line = from + (size_t)n * from_ld;
            for (size_t r = AHEAD; r < AHEAD + 8; r++) { // W comes from far away, line by line
                __builtin_prefetch(line + r * from_ld + (size_t)k * size);
                __builtin_prefetch(line + r * from_ld + (size_t)(k + LINES / 2) * size);
            }
            for (int64_t i = k; i < min_i64(k + LINES, whole_columns); i += 8) {
                turn_8x8((uint16_t *)to + i * ld + n, ld, line + (size_t)i * size, from_ld);
            }
        }
    }
    for (int64_t n = 0; n < rows; n++) {
        const char *line = from + (size_t)n * from_ld;
        for (int64_t k = n < whole_rows ? whole_columns : 0; k < columns; k++) {
            if (c->bf16) {
                memcpy((uint16_t *)to + k * ld + n, line + (size_t)k * size, size);
            } else {
                to_f32((float *)to + k * ld + n, line + (size_t)k * size, c->w->dtype, 1);
            }
        }
    }
}

// As bf16_add_rows, of F32.
VECTOR_CLONES
static void add_rows(float *restrict sum, const float *strip, const int32_t *column, const float *x,
                     int64_t n)
{
    memset(sum, 0, STRIP * sizeof *sum);
    for (int64_t i = 0; i < n; i++) {
        const float *row = strip + (int64_t)column[i] * STRIP;
#pragma omp simd
        for (int64_t k = 0; k < STRIP; k++) {
            sum[k] += row[k] * x[i];
        }
    }
}

// u = scale * (y - sum), y -= u as it is stored, so that u + y is what y was: n columns from element `at` on
VECTOR_CLONES
static void split(struct tensor u, struct tensor y, int64_t at, const float *restrict sum,
                  float scale, int64_t n)
{
    float a[STRIP], b[STRIP];
    to_f32(a, element_at(y, at), y.dtype, n);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        b[i] = scale * (a[i] - sum[i]);
    }
    from_f32((char *)u.data + (size_t)at * dtype_size(u.dtype), u.dtype, b, n);
    to_f32(b, element_at(u, at), u.dtype, n);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        a[i] -= b[i];
    }
    from_f32((char *)y.data + (size_t)at * dtype_size(y.dtype), y.dtype, a, n);
}

// The elements of x that are left out, in the order of c->column.
static float *left_values(const struct chunk *c, struct tensor x)
{
    float *value = scratch_f32(SCRATCH_B, c->start[c->count]);
    for (int64_t i = 0; i < c->count; i++) {
        for (int32_t k = c->start[i]; k < c->start[i + 1]; k++) {
            to_f32(&value[k], element_at(x, (c->first + i) * x.dim[1] + c->column[k]), x.dtype, 1);
        }
    }
    return value;
}

static void forward_chunk(struct chunk *c, struct tensor u, struct tensor y, struct tensor x)
{
    const float *value = left_values(c, x);
    void *strip = scratch(SCRATCH_C, (size_t)(c->w->cols * STRIP) * turned_size(c));
    for (int64_t first = 0; first < c->w->rows; first += STRIP) {
        const int64_t columns = min_i64(STRIP, c->w->rows - first);
        turn(strip, STRIP, c, first, columns, 0, c->w->cols);
        for (int64_t i = 0; i < c->count; i++) {
            float sum[STRIP];
            const char *ahead = element_at(y, (c->first + i + AHEAD) * c->w->rows + first);
            __builtin_prefetch(ahead, 1);
            __builtin_prefetch(ahead + 64, 1);
            const int32_t at = c->start[i];
            const int64_t n = c->start[i + 1] - at;
            if (c->bf16) {
                bf16_add_rows(sum, strip, c->column + at, value + at, n);
            } else {
                add_rows(sum, strip, c->column + at, value + at, n);
            }
            split(u, y, (c->first + i) * c->w->rows + first, sum, c->scale, columns);
        }
    }
}

static void subtract(struct tensor x, int64_t at, float value)
{
    char *p = (char *)x.data + (size_t)at * dtype_size(x.dtype);
    float old;
    to_f32(&old, p, x.dtype, 1);
    old -= value;
    from_f32(p, x.dtype, &old, 1);
}

// From each of the columns (n) of a row of dx: its product of dy with the turned strip, which begins with `first`.
VECTOR_CLONES
static void subtract_dots(struct tensor dx, int64_t row, const float *dy, int64_t N,
                          const float *strip, int64_t first, const int32_t *column, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float *line = strip + (column[i] - first) * (N + PAD);
        subtract(dx, row * dx.dim[1] + column[i], dot_f32(dy, line, N));
    }
}

static void subtract_dots_bf16(struct tensor dx, int64_t row, const uint16_t *dy, int64_t N,
                               const uint16_t *strip, int64_t first, const int32_t *column,
                               int64_t n)
{
    for (int64_t i = 0; i < n; i += 2) { // the last of an odd number is computed twice
        const int32_t both[] = {column[i], column[min_i64(i + 1, n - 1)]};
        float sum[2];
        bf16_two_dots(sum, dy, strip + (both[0] - first) * (N + PAD),
                      strip + (both[1] - first) * (N + PAD), N);
        for (int64_t k = 0; k < min_i64(2, n - i); k++) {
            subtract(dx, row * dx.dim[1] + both[k], sum[k]);
        }
    }
}

// The strip of columns [first, end) meets row i, whose entries up to *next are done.
static void dinput_row(struct chunk *c, struct tensor dx, struct tensor dy, const void *strip,
                       int64_t first, int64_t end, int64_t i, int32_t *next)
{
    const int64_t row = c->first + i, N = c->w->rows;
    const int32_t *column = c->column + *next;
    int64_t n = 0;
    while (*next + n < c->start[i + 1] && column[n] < end) {
        n++;
    }
    *next += (int32_t)n;
    if (!n) return;
    if (c->bf16) {
        const uint16_t *values = (const uint16_t *)dy.data + row * N;
        subtract_dots_bf16(dx, row, values, N, strip, first, column, n);
    } else {
        const float *values = block_load(scratch_f32(SCRATCH_B, N), dy, row * N, N);
        subtract_dots(dx, row, values, N, strip, first, column, n);
    }
}

static void dinput_chunk(struct chunk *c, struct tensor dx, struct tensor dy)
{
    const int64_t N = c->w->rows, C = c->w->cols, line = (N + PAD) * (int64_t)turned_size(c);
    const int64_t width = min_i64(C, max_i64(8, STRIP_BYTES / line / 8 * 8));
    void *strip = scratch(SCRATCH_C, (size_t)(width * line));
    int32_t next[ROWS + 1];
    memcpy(next, c->start, sizeof next);
    for (int64_t first = 0; first < C; first += width) {
        const int64_t end = min_i64(first + width, C);
        turn(strip, N + PAD, c, 0, N, first, end - first);
        for (int64_t i = 0; i < c->count; i++) {
            dinput_row(c, dx, dy, strip, first, end, i, &next[i]);
        }
    }
}

static int64_t first_row(const struct dropout *d, int64_t group, int64_t rows)
{
    if (d->rows) return data_i32(d->rows->offsets)[group];
    return group ? rows : 0;
}

struct dropped {
    const struct matrices *w;
    const struct dropout *d;
    struct tensor u, y, x;
    int64_t rows, parts; // of a chunk; chunks of a group
    bool bf16;
};

static void task_of_dropped(const void *op, int64_t i)
{
    const struct dropped *o = op;
    const int64_t R = o->x.dim[0];
    struct chunk c = {.w = o->w, .group = i / o->parts, .bf16 = o->bf16};
    c.first = first_row(o->d, c.group, R) + i % o->parts * o->rows;
    c.count = min_i64(o->rows, first_row(o->d, c.group + 1, R) - c.first);
    if (c.count <= 0) return;
    find(&c, o->d);
    if (o->u.data) {
        forward_chunk(&c, o->u, o->y, o->x);
    } else {
        dinput_chunk(&c, o->y, o->x);
    }
}

// Calls one of the functions above for every chunk of every group; u absent: the backward pass.
static void run(const struct matrices *w, const struct dropout *d, struct tensor u, struct tensor y,
                struct tensor x)
{
    const int64_t R = x.dim[0], G = w->groups, rows = G < FEW_GROUPS ? FEW_ROWS : ROWS;
    const bool bf16 = w->dtype == DTYPE_BF16 && x.dtype == DTYPE_BF16 && bf16_dots_work();
    assert(d->p >= 0 && d->p < 1 && ROWS * w->cols < INT32_MAX);
    int64_t most = 0;
    for (int64_t g = 0; g < G; g++) {
        most = max_i64(most, first_row(d, g + 1, R) - first_row(d, g, R));
    }
    const struct dropped o = {w, d, u, y, x, rows, ceil_div(most, rows), bf16};
    cpu_tasks(G * o.parts, R * w->cols > SMALL_WORK, task_of_dropped, &o);
}

void cpu_dropped_forward(struct tensor u, struct tensor y, struct tensor x,
                         const struct matrices *w, const struct dropout *d)
{
    assert(x.dim[1] == w->cols && y.dim[1] == w->rows && u.dim[1] == w->rows);
    run(w, d, u, y, x);
}

void cpu_dropped_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                        const struct dropout *d)
{
    assert(dx.dim[1] == w->cols && dy.dim[1] == w->rows);
    run(w, d, tensor_absent(), dx, dy);
}
