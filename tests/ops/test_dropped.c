// The linear of x and of dropout(x) at once, against dropout and a product of its own, in F32 from the same values.
#include "ops_test.h"

struct sizes {
    int64_t tokens, slots, experts, rows, cols; // experts 0: one matrix, row r is token r
    float p;
};

static const struct sizes cases[] = {
    {37, 1, 0, 33, 131, 0.05f},   {600, 1, 0, 70, 257, 0.1f}, {41, 2, 5, 65, 77, 0.5f},
    {23, 3, 4, 200, 2100, 0.05f}, {9, 1, 0, 8, 8, 0.9f},      {19, 2, 3, 64, 64, 0},
};

// What one case works on. wide: the same values in F32.
struct job {
    struct dispatch d;
    struct dropout drop;
    struct tensor offsets;
    int64_t rows; // in use
    void *data[8], *wide_data[8];
    struct matrices w, wide;
};

static void dispatch(struct dispatch *d, const struct sizes *s)
{
    const int64_t N = s->tokens, S = s->slots;
    const struct tensor expert = make(DTYPE_I32, N, S), weight = make(DTYPE_F32, N, S);
    for (int64_t i = 0; i < N * S; i++) { // expert 1 has no token; some slots have no row
        const int32_t e = (int32_t)((i / S * 2 + i % S) % s->experts);
        data_i32(expert)[i] = e == 1 ? 0 : e;
        data_f32(weight)[i] = i % 7 != 0;
    }
    *d = (struct dispatch){make(DTYPE_I32, 1, s->experts + 1), make(DTYPE_I32, 1, N * S),
                           make(DTYPE_I32, N, S)};
    cpu_ops.dispatch(d, expert, weight, false, 0);
}

static void prepare(struct job *j, const struct sizes *s, enum dtype t)
{
    const int64_t G = s->experts ? s->experts : 1;
    *j = (struct job){.drop = {.key = 77, .p = s->p}, .rows = s->tokens};
    j->offsets = tensor_absent();
    if (s->experts) {
        dispatch(&j->d, s);
        j->drop.rows = &j->d;
        j->offsets = j->d.offsets;
        j->rows = data_i32(j->d.offsets)[G];
    }
    const struct tensor w = random_tensor(t, G * s->rows, s->cols, 3), wide = as(DTYPE_F32, w);
    for (int64_t g = 0; g < G; g++) {
        j->data[g] = tensor_rows(w, g * s->rows, s->rows).data;
        j->wide_data[g] = tensor_rows(wide, g * s->rows, s->rows).data;
    }
    j->w = (struct matrices){G, s->rows, s->cols, t, j->data};
    j->wide = (struct matrices){G, s->rows, s->cols, DTYPE_F32, j->wide_data};
}

// a += sign * b, of any types, a F32
static struct tensor plus(struct tensor a, struct tensor b, float sign)
{
    const struct tensor wide = as(DTYPE_F32, b);
    for (int64_t i = 0; i < tensor_count(a); i++) {
        data_f32(a)[i] += sign * data_f32(wide)[i];
    }
    return a;
}

static void forward(const struct sizes *s, enum dtype t)
{
    struct job j;
    prepare(&j, s, t);
    const int64_t R = s->tokens * s->slots;
    const struct tensor x = random_tensor(t, R, s->cols, 1), wide = as(DTYPE_F32, x);
    const struct tensor y = make(t, R, s->rows), u = make(t, R, s->rows);
    cpu_ops.matmul_forward(y, x, &j.w, j.offsets, false);
    cpu_ops.dropped_forward(u, y, x, &j.w, &j.drop);

    const struct tensor dropped = like(DTYPE_F32, x), want = make(DTYPE_F32, R, s->rows);
    cpu_ops.dropout(dropped, wide, &j.drop, false);
    cpu_ops.matmul_forward(want, dropped, &j.wide, j.offsets, false);
    check_close("of dropout(x)", tensor_rows(u, 0, j.rows), tensor_rows(want, 0, j.rows),
                3 * limit_of[t]);
    cpu_ops.matmul_forward(want, wide, &j.wide, j.offsets, false);
    const struct tensor both = plus(plus(make(DTYPE_F32, R, s->rows), y, 1), u, 1);
    check_close("both", tensor_rows(both, 0, j.rows), tensor_rows(want, 0, j.rows),
                3 * limit_of[t]);
}

static void dinput(const struct sizes *s, enum dtype t)
{
    struct job j;
    prepare(&j, s, t);
    const int64_t R = s->tokens * s->slots;
    const struct tensor dy = random_tensor(t, R, s->rows, 2), wide = as(DTYPE_F32, dy);
    const struct tensor dx = random_tensor(t, R, s->cols, 4), want = as(DTYPE_F32, dx);
    const struct tensor before = as(DTYPE_F32, dx), full = make(DTYPE_F32, R, s->cols);
    cpu_ops.dropped_dinput(dx, dy, &j.w, &j.drop);

    const struct tensor ones = like(DTYPE_F32, full), kept = like(DTYPE_F32, full);
    fill(ones, 1);
    cpu_ops.dropout(kept, ones, &j.drop, false);
    cpu_ops.matmul_dinput(full, wide, &j.wide, j.offsets, false);
    const struct tensor got = as(DTYPE_F32, dx);
    for (int64_t i = 0; i < j.rows * s->cols; i++) {
        if (data_f32(kept)[i] == 0) {
            data_f32(want)[i] -= data_f32(full)[i];
        } else {
            assert_true(data_f32(got)[i] == data_f32(before)[i]);
        }
    }
    check_close("left out", tensor_rows(dx, 0, j.rows), tensor_rows(want, 0, j.rows),
                3 * limit_of[t]);
}

static void each(void (*test)(const struct sizes *, enum dtype))
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
            test(&cases[i], t);
            release_all(NULL);
        }
    }
}

static void test_forward(void **state)
{
    (void)state;
    each(forward);
}

static void test_dinput(void **state)
{
    (void)state;
    each(dinput);
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_forward, release_all),
        cmocka_unit_test_teardown(test_dinput, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
