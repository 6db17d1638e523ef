// tests/train/test_optimizer.c - clipping and AdamW over leaves against torch
// (fixtures/train_optimizer.safetensors, written by fixtures/make_train.py), and what is not finite.
#include "support.h"

#include "base/mem.h"
#include "train/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct setting {
    struct arena arena;
    struct leaves leaves;
    struct optimizer optimizer;
    struct leaf *matrix, *vector;
};

static void add_leaves(struct setting *s)
{
    const int64_t matrix[] = {5, 7}, vector[] = {3};
    struct error err = {0};
    s->leaves.count = 0;
    assert_non_null(leaves_add(&s->leaves, &s->arena, "matrix",
                               tensor_make(NULL, DTYPE_F32, 2, matrix), DTYPE_F32, &err));
    assert_non_null(leaves_add(&s->leaves, &s->arena, "vector",
                               tensor_make(NULL, DTYPE_F32, 1, vector), DTYPE_BF16, &err));
}

static void open_setting(struct setting *s)
{
    struct error err = {0};
    *s = (struct setting){0};
    add_leaves(s);
    s->arena.capacity = s->arena.used;
    s->arena.base = cpu_ops.allocate(s->arena.capacity);
    s->arena.used = 0;
    add_leaves(s);
    s->matrix = &s->leaves.leaf[0];
    s->vector = &s->leaves.leaf[1];
    check_ok(optimizer_open(&s->optimizer, &cpu_ops, &s->leaves, &err), &err);
}

static void close_setting(struct setting *s)
{
    optimizer_close(&s->optimizer);
    cpu_ops.release(s->arena.base, s->arena.capacity);
    leaves_free(&s->leaves);
}

static void copy_in(struct tensor to, const struct fixture *f, const char *name, int step)
{
    char key[64];
    snprintf(key, sizeof key, step < 0 ? "%s" : "%s.%d", name, step);
    memcpy(to.data, fixture_get(f, key).data, tensor_bytes(to));
}

static void matches_torch(void **unused)
{
    (void)unused;
    struct fixture f;
    struct setting s;
    fixture_open(&f, "train_optimizer.safetensors");
    open_setting(&s);
    copy_in(s.matrix->value, &f, "matrix", -1);
    copy_in(s.vector->value, &f, "vector", -1);
    const struct train_options o = {
        .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    for (int step = 0; step < 6; step++) {
        char key[64];
        double expected;
        copy_in(s.matrix->grad, &f, "matrix_grad", step);
        copy_in(s.vector->grad, &f, "vector_grad", step);
        memcpy(&expected, (const double *)fixture_get(&f, "norm").data + step, sizeof expected);
        double norm;
        optimizer_measure(&s.optimizer, tensor_absent(), o.clip);
        optimizer_update(&s.optimizer, &o, 0.01 / (step + 1), step + 1);
        assert_true(optimizer_outcome(&s.optimizer, &norm));
        assert_true(fabs(norm - expected) < 1e-6 * expected);
        snprintf(key, sizeof key, "matrix.%d", step);
        check_close(key, s.matrix->value, fixture_get(&f, key), 1e-6);
        snprintf(key, sizeof key, "vector.%d", step);
        check_close(key, s.vector->value, fixture_get(&f, key), 1e-6);
        check_close("working copy", s.vector->copy, s.vector->value, 4e-3);
        optimizer_measure(&s.optimizer, tensor_absent(), o.clip);
        assert_true(optimizer_outcome(&s.optimizer, &norm) && norm == 0);
    }
    close_setting(&s);
    fixture_close(&f);
}

// Of one gradient, or one loss, that is no number: no byte of any leaf moves, and gradients are 0 again.
static void what_is_not_usable_moves_nothing(void **unused)
{
    (void)unused;
    struct setting s;
    double norm, loss = 1;
    const struct tensor of_loss = tensor_1d(&loss, DTYPE_F64, 1);
    const struct train_options o = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    open_setting(&s);
    memset(s.arena.base, 1, s.arena.capacity); // small numbers everywhere
    for (int i = 0; i < 3; i++) {
        void *before = mem_alloc(s.arena.capacity);
        data_f32(s.matrix->grad)[34] = i == 0 ? NAN : 0;
        data_f32(s.vector->grad)[1] = i == 1 ? INFINITY : 0;
        loss = i == 2 ? (double)NAN : 1;
        optimizer_measure(&s.optimizer, of_loss, o.clip);
        assert_false(optimizer_outcome(&s.optimizer, &norm));
        assert_true(isfinite(norm) == (i == 2));
        cpu_ops.zero(s.matrix->grad), cpu_ops.zero(s.vector->grad);
        memcpy(before, s.arena.base, s.arena.capacity);
        data_f32(s.matrix->grad)[0] = data_f32(s.vector->grad)[2] = 7;
        optimizer_update(&s.optimizer, &o, 0.1, 1);
        assert_memory_equal(before, s.arena.base, s.arena.capacity);
        mem_free(before);
    }
    loss = 0;
    data_f32(s.matrix->grad)[0] = 7;
    optimizer_measure(&s.optimizer, of_loss, o.clip);
    optimizer_update(&s.optimizer, &o, 0.1, 1);
    assert_true(optimizer_outcome(&s.optimizer, &norm) && fabs(norm - 7) < 1e-12);
    assert_true(data_f32(s.matrix->value)[0] < -0.09F && data_f32(s.matrix->grad)[0] == 0);
    close_setting(&s);
}

static void names_what_is_not_finite(void **unused)
{
    (void)unused;
    struct setting s;
    open_setting(&s);
    assert_null(optimizer_not_finite(&s.optimizer, true));
    data_f32(s.matrix->value)[3] = 3e38F; // finite, though its square fits no float
    assert_null(optimizer_not_finite(&s.optimizer, true));
    data_f32(s.vector->v)[2] = INFINITY;
    assert_string_equal(optimizer_not_finite(&s.optimizer, true), "vector");
    data_f32(s.matrix->grad)[34] = NAN;
    close_setting(&s);
}

// Two leaves that are alike, moved once from the same state: their moments in bf16 differ from each other, from
// those of another update and of another seed, and not from those of the same one again.
struct alike {
    struct leaves leaves;
    struct arena arena;
    uint16_t m[2][4][600];
};

static void move_alike(struct alike *a, const struct optimizer *o, int at, uint64_t seed, int64_t n)
{
    const struct train_options t = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .seed = seed};
    optimizer_reset(o);
    for (int k = 0; k < 2; k++) {
        const struct leaf *f = &a->leaves.leaf[k];
        for (int i = 0; i < 600; i++) {
            data_f32(f->grad)[i] = 0.3F + (float)i / 1000;
        }
    }
    optimizer_measure(o, tensor_absent(), 0);
    optimizer_update(o, &t, 0.01, n);
    for (int k = 0; k < 2; k++) {
        memcpy(a->m[k][at], a->leaves.leaf[k].m.data, sizeof a->m[k][at]);
    }
}

static void rounding_draws_by_seed_update_and_leaf(void **unused)
{
    (void)unused;
    static struct alike a;
    struct optimizer o;
    struct error err = {0};
    const struct tensor shape = tensor_2d(NULL, DTYPE_F32, 20, 30);
    a.leaves.storage.states = STATES_BF16;
    for (int placing = 0; placing < 2; placing++) {
        a.leaves.count = 0;
        a.arena.used = 0;
        assert_non_null(leaves_add(&a.leaves, &a.arena, "a", shape, DTYPE_F32, &err));
        assert_non_null(leaves_add(&a.leaves, &a.arena, "b", shape, DTYPE_F32, &err));
        if (!placing) a.arena.base = cpu_ops.allocate(a.arena.used);
        if (!placing) a.arena.capacity = a.arena.used;
    }
    check_ok(optimizer_open(&o, &cpu_ops, &a.leaves, &err), &err);
    move_alike(&a, &o, 0, 5, 1);
    move_alike(&a, &o, 1, 5, 1);
    move_alike(&a, &o, 2, 5, 2);
    move_alike(&a, &o, 3, 6, 1);
    const size_t bytes = sizeof a.m[0][0];
    assert_memory_equal(a.m[0][0], a.m[0][1], bytes);
    assert_memory_not_equal(a.m[0][0], a.m[1][0], bytes);
    assert_memory_not_equal(a.m[0][0], a.m[0][2], bytes);
    assert_memory_not_equal(a.m[0][0], a.m[0][3], bytes);
    optimizer_close(&o);
    cpu_ops.release(a.arena.base, a.arena.capacity);
    leaves_free(&a.leaves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_torch),
        cmocka_unit_test(what_is_not_usable_moves_nothing),
        cmocka_unit_test(names_what_is_not_finite),
        cmocka_unit_test(rounding_draws_by_seed_update_and_leaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
