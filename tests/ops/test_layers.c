// Embedding, norm, rotation, SwiGLU, loss and the optimizer against torch in float64.
#include "ops_test.h"

static struct tensor absent(void)
{
    return tensor_absent();
}

static void embedding(struct fixture *ref, enum dtype t)
{
    const struct tensor ids = get(ref, "ids"), table = get(ref, "table");
    const struct tensor y = like(t, get(ref, "y")), dtable = like(DTYPE_F32, table);
    cpu_ops.embedding_forward(y, table, ids);
    check_close("y", y, get(ref, "y"), limit_of[t]);
    cpu_ops.embedding_forward(y, as(DTYPE_F16, table), ids);
    check_close("y of an F16 table", y, get(ref, "y"), 6e-3);

    const struct tensor room =
        make(DTYPE_F32, 1, tensor_count(table) + 1); // as a mapped file may lie
    char *odd = (char *)room.data + 1;
    memcpy(odd, table.data, tensor_bytes(table));
    cpu_ops.embedding_forward(y, tensor_make(odd, DTYPE_F32, 2, table.dim), ids);
    check_close("y of an unaligned table", y, get(ref, "y"), limit_of[t]);

    fill(dtable, 1);
    cpu_ops.embedding_backward(dtable, as(t, get(ref, "dy")), ids);
    check_close("dtable", minus(dtable, 1), get(ref, "dtable"), limit_of[t]);
}

static void test_embedding(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/embedding.safetensors");
    embedding(&ref, DTYPE_F32);
    embedding(&ref, DTYPE_BF16);
    fixture_close(&ref);
}

static void rmsnorm(struct fixture *ref, enum dtype t)
{
    const struct tensor x = as(t, get(ref, "x")), w = get(ref, "w"), dy = as(t, get(ref, "dy"));
    const struct tensor y = like(t, x), rstd = make(DTYPE_F32, x.dim[0], 1), dx = like(t, x);
    const struct tensor dw = like(DTYPE_F32, w);
    cpu_ops.rmsnorm_forward(y, rstd, x, w, 1e-5f);
    check_close("y", y, get(ref, "y"), limit_of[t]);
    check_close("rstd", rstd, get(ref, "rstd"), limit_of[t]);
    const struct tensor in_place = as(t, x);
    cpu_ops.rmsnorm_forward(in_place, absent(), in_place, w, 1e-5f);
    assert_true(same_bytes(in_place, y));

    fill(dx, NAN);
    fill(dw, 1);
    cpu_ops.rmsnorm_backward(dx, dw, dy, x, w, rstd);
    check_close("dx", dx, get(ref, "dx"), limit_of[t]);
    check_close("dw", minus(dw, 1), get(ref, "dw"), limit_of[t]);
    const struct tensor over = as(t, dy), dw_only = like(DTYPE_F32, w);
    fill(dw_only, 1);
    cpu_ops.rmsnorm_backward(absent(), dw_only, dy, x, w, rstd);
    assert_true(same_bytes(dw_only, dw));
    cpu_ops.rmsnorm_backward(over, absent(), over, x, w, rstd);
    assert_true(same_bytes(over, dx));
}

static void test_rmsnorm(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/rmsnorm.safetensors");
    rmsnorm(&ref, DTYPE_F32);
    rmsnorm(&ref, DTYPE_BF16);
    fixture_close(&ref);
}

static void test_rope(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/rope.safetensors");
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        const struct tensor x = get(&ref, "x"), y = as(t, x), back = as(t, x);
        cpu_ops.rope(y, get(&ref, "positions"), get(&ref, "table"), 10, false);
        cpu_ops.rope(back, get(&ref, "positions"), get(&ref, "table"), 10, true);
        check_close("rope", y, get(&ref, "y"), limit_of[t]);
        check_close("inverse", back, get(&ref, "inverse"), limit_of[t]);
    }
    fixture_close(&ref);
}

// R rows of a tensor that has room for more, as a real one has: the rest must not be touched.
static struct tensor with_room(enum dtype t, struct tensor x)
{
    struct tensor y = make(t, x.dim[0] + 2, x.dim[1]);
    fill(y, NAN);
    const struct tensor copy = as(t, x);
    memcpy(y.data, copy.data, tensor_bytes(copy));
    return y;
}

static void swiglu(struct fixture *ref, enum dtype t)
{
    const struct tensor expert = get(ref, "expert"), weight = get(ref, "weight");
    const int64_t R = get(ref, "g").dim[0], slots = tensor_count(expert);
    const struct dispatch d = {make(DTYPE_I32, 1, 5), make(DTYPE_I32, 1, slots),
                               like(DTYPE_I32, expert)};
    cpu_ops.dispatch(&d, expert, weight, false, 0);
    const struct tensor g = with_room(t, get(ref, "g")), u = with_room(t, get(ref, "u"));
    const struct tensor da = with_room(t, get(ref, "da")), a = with_room(t, get(ref, "a"));
    fill(a, NAN);
    cpu_ops.swiglu_forward(a, g, u, weight, &d);
    check_close("a", tensor_rows(a, 0, R), get(ref, "a"), limit_of[t]);
    assert_true(isnan(*block_load((float[1]){0}, a, R * a.dim[1], 1)));

    struct swiglu_grads out = {like(t, g), like(t, g), like(t, g), like(DTYPE_F32, weight)};
    fill(out.dweight, NAN);
    cpu_ops.swiglu_backward(&out, da, g, u, weight, &d);
    check_close("dg", tensor_rows(out.dg, 0, R), get(ref, "dg"), limit_of[t]);
    check_close("du", tensor_rows(out.du, 0, R), get(ref, "du"), limit_of[t]);
    check_close("a again", tensor_rows(out.a, 0, R), get(ref, "a"), limit_of[t]);
    check_close("dweight", out.dweight, get(ref, "dweight"), limit_of[t] * 2);

    struct swiglu_grads none = {absent(), absent(), absent(), like(DTYPE_F32, weight)};
    cpu_ops.swiglu_backward(&none, da, g, u, weight, &d);
    assert_true(same_bytes(none.dweight, out.dweight));
    struct swiglu_grads over = {g, u, da, absent()};
    cpu_ops.swiglu_backward(&over, da, g, u, weight, &d);
    assert_true(same_bytes(tensor_rows(g, 0, R), tensor_rows(out.dg, 0, R)));
    assert_true(same_bytes(tensor_rows(u, 0, R), tensor_rows(out.du, 0, R)));
    assert_true(same_bytes(tensor_rows(da, 0, R), tensor_rows(out.a, 0, R)));
}

static void swiglu_plain(struct fixture *ref, enum dtype t)
{
    const struct tensor g = as(t, get(ref, "g")), u = as(t, get(ref, "u")), a = like(t, g);
    cpu_ops.swiglu_forward(a, g, u, absent(), NULL);
    check_close("a", a, get(ref, "plain"), limit_of[t]);
    const struct swiglu_grads out = {like(t, g), like(t, g), absent(), absent()};
    cpu_ops.swiglu_backward(&out, as(t, get(ref, "da")), g, u, absent(), NULL);
    check_close("dg", out.dg, get(ref, "plain_dg"), limit_of[t]);
    check_close("du", out.du, get(ref, "plain_du"), limit_of[t]);
}

static void test_swiglu(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/swiglu.safetensors");
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        swiglu(&ref, t);
        swiglu_plain(&ref, t);
    }
    fixture_close(&ref);
}

static void test_cross_entropy(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/cross_entropy.safetensors");
    const struct tensor targets = get(&ref, "targets"), loss = make(DTYPE_F32, 1, targets.dim[0]);
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        // BF16 moves a logit of 100 by up to 0.25, so that row counts for little in the mean.
        const struct tensor logits = as(t, get(&ref, "logits")), before = as(t, logits);
        cpu_ops.cross_entropy(loss, logits, targets, 0);
        assert_true(same_bytes(logits, before));
        check_close("loss", loss, get(&ref, "loss"), t == DTYPE_F32 ? 1e-6 : 1e-2);
        fill(loss, NAN);
        cpu_ops.cross_entropy(loss, logits, targets, 0.37f);
        check_close("loss", loss, get(&ref, "loss"), t == DTYPE_F32 ? 1e-6 : 1e-2);
        check_close("dlogits", logits, get(&ref, "dlogits"), t == DTYPE_F32 ? 1e-6 : 0.1);
    }
    fixture_close(&ref);
}

static void test_adamw(void **state)
{
    (void)state;
    struct fixture ref;
    fixture_open(&ref, "ops/adamw.safetensors");
    const struct tensor w = get(&ref, "w"), grads = get(&ref, "grads");
    const struct tensor m = like(DTYPE_F32, w), v = like(DTYPE_F32, w), copy = like(DTYPE_BF16, w);
    for (int step = 1; step <= (int)grads.dim[0]; step++) {
        const struct adamw p = {.lr = 3e-3,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.1,
                                .correction1 = 1 - pow(0.9, step),
                                .correction2 = 1 - pow(0.999, step)};
        const struct adamw_leaf x = {.w = w,
                                     .m = m,
                                     .v = v,
                                     .copy = copy,
                                     .grad = tensor_rows(grads, step - 1, 1),
                                     .decays = true};
        adamw_one(&x, &p, 0.5f, 0, 0);
    }
    check_close("w", w, get(&ref, "w_after"), 1e-7);
    check_close("m", m, get(&ref, "m"), 2e-7);
    check_close("v", v, get(&ref, "v"), 2e-7);
    assert_true(same_bytes(copy, as(DTYPE_BF16, w)));
    fixture_close(&ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_embedding, release_all),
        cmocka_unit_test_teardown(test_rmsnorm, release_all),
        cmocka_unit_test_teardown(test_rope, release_all),
        cmocka_unit_test_teardown(test_swiglu, release_all),
        cmocka_unit_test_teardown(test_cross_entropy, release_all),
        cmocka_unit_test_teardown(test_adamw, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
