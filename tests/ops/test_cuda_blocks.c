// The ops over blocks of matrices and the scores that blocks are chosen by, on the CUDA backend against the CPU's.
#include "cuda_test.h"

#include <stdlib.h>

enum { MOST = 64 };

struct scene {
    const char *name;
    int64_t G, rows, cols, height, width, step; // every step-th block of (height, width)
    int sizes[4];                               // rows of each group
    int count;                                  // without offsets
};

static const struct scene scenes[] = {
    {"small", 4, 70, 50, 16, 16, 3, {20, 0, 33, 1}, 0},
    {"edges", 2, 300, 140, 256, 256, 1, {37, 70}, 0},
    {"columns", 3, 90, 136, 90, 8, 5, {140, 2, 30}, 0},
    {"one matrix", 1, 64, 96, 32, 32, 2, {0}, 150},
    {"odd", 2, 45, 51, 7, 9, 4, {30, 60}, 0},
};
enum { SCENES = sizeof scenes / sizeof *scenes };

struct lists {
    struct matrix_block by_row[MOST], by_column[MOST];
    struct matrix_blocks host, device;
    int64_t values;
};

static int column_first(const void *a, const void *b)
{
    const struct matrix_block *p = a, *q = b;
    if (p->group != q->group) return p->group < q->group ? -1 : 1;
    if (p->column != q->column) return p->column < q->column ? -1 : 1;
    return (p->row > q->row) - (p->row < q->row);
}

// Groups are called first_group and up in the lists.
static void make_lists(struct lists *l, const struct scene *s, int64_t first_group)
{
    int64_t n = 0, turn = 0;
    l->values = 0;
    for (int64_t g = 0; g < s->G; g++) {
        for (int64_t r = 0; r < s->rows; r += s->height) {
            for (int64_t c = 0; c < s->cols; c += s->width) {
                if (turn++ % s->step) continue;
                assert_true(n < MOST);
                const int64_t rows = min_i64(s->height, s->rows - r),
                              columns = min_i64(s->width, s->cols - c);
                l->by_row[n++] =
                    (struct matrix_block){g + first_group, r, rows, c, columns, l->values};
                l->values += rows * columns;
            }
        }
    }
    memcpy(l->by_column, l->by_row, sizeof l->by_row);
    qsort(l->by_column, (size_t)n, sizeof *l->by_column, column_first);
    const size_t bytes = (size_t)n * sizeof *l->by_row;
    l->host = (struct matrix_blocks){n, first_group, l->by_row, l->by_column};
    l->device = (struct matrix_blocks){n, first_group, device_bytes(l->by_row, bytes),
                                       device_bytes(l->by_column, bytes)};
}

static void check(const struct scene *s, enum dtype t, const char *op, struct tensor got,
                  struct tensor want, double limit)
{
    char what[128];
    snprintf(what, sizeof what, "%s %s: %s", dtype_name(t), op, s->name);
    check_close(what, from_device(got), want, limit);
}

static void shares(const struct scene *s, const struct lists *l, enum dtype t,
                   struct tensor offsets, int64_t R)
{
    const struct tensor x = random_tensor(t, R, s->cols, 1), dy = random_tensor(t, R, s->rows, 2);
    const struct tensor delta = random_tensor(t, 1, l->values, 3),
                        y = random_tensor(t, R, s->rows, 4);
    const struct tensor dx = random_tensor(t, R, s->cols, 5),
                        dvalue = random_tensor(DTYPE_F32, 1, l->values, 6);
    const struct tensor x_on = on_device(x), dy_on = on_device(dy), delta_on = on_device(delta);
    const struct tensor y_on = on_device(y), dx_on = on_device(dx), dvalue_on = on_device(dvalue);
    const struct tensor on = on_device(offsets);
    cpu_ops.blocks_forward(y, x, delta, &l->host, offsets);
    device->blocks_forward(y_on, x_on, delta_on, &l->device, on);
    check(s, t, "y", y_on, y, rounding_of(t));
    cpu_ops.blocks_dinput(dx, dy, delta, &l->host, offsets);
    device->blocks_dinput(dx_on, dy_on, delta_on, &l->device, on);
    check(s, t, "dx", dx_on, dx, rounding_of(t));
    cpu_ops.blocks_dweight(dvalue, dy, x, &l->host, offsets);
    device->blocks_dweight(dvalue_on, dy_on, x_on, &l->device, on);
    check(s, t, "dvalue", dvalue_on, dvalue, rounding_of(DTYPE_F32));
}

static void deltas(const struct scene *s, const struct lists *l, enum dtype t, enum dtype weights)
{
    struct two_banks w;
    make_banks(&w, weights, s->G, s->rows, s->cols, weights == DTYPE_BF16 ? 1 : 0, -1);
    const struct tensor value = random_tensor(DTYPE_F32, 1, l->values, 7),
                        delta = make(t, 1, l->values);
    const struct tensor on = on_device(delta);
    cpu_ops.blocks_delta(delta, value, &w.host, &l->host);
    device->blocks_delta(on, on_device(value), &w.device, &l->device);
    check(s, t, "delta", on, delta, 1e-7);
}

static void scores(const struct scene *s, enum dtype t, enum dtype tx, struct tensor offsets,
                   int64_t R)
{
    const struct tensor x = random_tensor(tx, R, s->cols, 1), dy = random_tensor(t, R, s->rows, 2);
    const struct tensor x_on = on_device(x), dy_on = on_device(dy), on = on_device(offsets);
    const int64_t sizes[] = {16, 24, 64, 130, 256, 1000};
    for (int i = 0; i < 6; i++) {
        const enum block_sum kind = (enum block_sum)(i % 3);
        const int64_t size = sizes[i], blocks = ceil_div(s->rows, size) * ceil_div(s->cols, size);
        const struct tensor sums = make(DTYPE_F64, s->G, blocks), sums_on = on_device(sums);
        for (int twice = 0; twice < 2; twice++) { // added to what is there
            cpu_ops.block_scores(sums, dy, x, offsets, size, kind);
            device->block_scores(sums_on, dy_on, x_on, on, size, kind);
        }
        check(s, t, "block scores", sums_on, sums, 1e-5);
        const struct tensor columns = make(DTYPE_F64, s->G, s->cols),
                            columns_on = on_device(columns);
        cpu_ops.column_scores(columns, x, offsets, kind, i > 2);
        device->column_scores(columns_on, x_on, on, kind, i > 2);
        check(s, t, "column scores", columns_on, columns, 1e-12);
    }
}

static void test_scene(void **item)
{
    const enum dtype weights[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    const struct scene *s = *item;
    for (int i = 2 * (int)(s - scenes), end = i + 2; i < end; i++) {
        const enum dtype t = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        const struct tensor offsets = s->count ? tensor_absent() : offsets_of(s->sizes, s->G);
        const int64_t R = s->count ? s->count : data_i32(offsets)[s->G];
        struct lists l;
        set_mode(i % modes());
        make_lists(&l, s, i % 3 ? 0 : 5);
        shares(s, &l, t, offsets, R);
        scores(s, t, i % 4 == 2 ? DTYPE_BF16 : t, offsets, R);
        for (int w = 0; w < 3; w++) {
            deltas(s, &l, t, weights[w]);
        }
        release_device(item);
    }
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_device};
    for (int i = 0; i < SCENES; i++) {
        add_test(&t, "blocks", scenes[i].name, test_scene, release_device, &scenes[i]);
    }
    return run_device_tests(&t, argc, argv);
}
