// The optimizer's ops over lists of leaves: what they do to each is what they do to it alone, and what a step's
// gradients are multiplied by.
#include "ops_test.h"

#include "base/codes.h"

enum { LEAVES = 9 };

// Odd and unequal; empty, of one element, a chunk and its neighbours. All ways to keep a leaf.
static const struct {
    int64_t n;
    enum dtype w, states, copy; // copy I32: none
    bool decays;
} kinds[LEAVES] = {
    {1, DTYPE_F32, DTYPE_F32, DTYPE_BF16, true},
    {0, DTYPE_F32, DTYPE_F32, DTYPE_I32, true},
    {LEAF_CHUNK, DTYPE_F32, DTYPE_F32, DTYPE_F16, false},
    {LEAF_CHUNK + 1, DTYPE_F32, DTYPE_F32, DTYPE_BF16, true},
    {733, DTYPE_F32, DTYPE_U8, DTYPE_BF16, true},
    {2 * LEAF_CHUNK - 1, DTYPE_BF16, DTYPE_BF16, DTYPE_I32, false},
    {0, DTYPE_F32, DTYPE_U8, DTYPE_I32, true},
    {257, DTYPE_BF16, DTYPE_U8, DTYPE_I32, true},
    {5, DTYPE_BF16, DTYPE_F32, DTYPE_I32, true},
};

static void make_leaves(struct adamw_leaf *leaf)
{
    for (int i = 0; i < LEAVES; i++) {
        const int64_t n = kinds[i].n, blocks = ceil_div(n, CODE_BLOCK);
        const enum dtype states = kinds[i].states, copy = kinds[i].copy;
        const bool codes = states == DTYPE_U8;
        leaf[i] =
            (struct adamw_leaf){.w = random_tensor(kinds[i].w, 1, n, (uint32_t)i),
                                .m = make(states, 1, n),
                                .v = make(states, 1, n),
                                .m_scale = codes ? make(DTYPE_F32, 1, blocks) : tensor_absent(),
                                .v_scale = codes ? make(DTYPE_F32, 1, blocks) : tensor_absent(),
                                .copy = copy == DTYPE_I32 ? tensor_absent() : make(copy, 1, n),
                                .grad = random_tensor(DTYPE_F32, 1, n, 77 + (uint32_t)i),
                                .decays = kinds[i].decays,
                                .stream = (uint64_t)(i + 5)};
    }
}

static void check_same_leaves(const struct adamw_leaf *a, const struct adamw_leaf *b)
{
    for (int i = 0; i < LEAVES; i++) {
        const bool codes = a[i].m_scale.data;
        assert_true(same_bytes(a[i].w, b[i].w));
        assert_true(same_bytes(a[i].m, b[i].m) && same_bytes(a[i].v, b[i].v));
        assert_true(!a[i].copy.data || same_bytes(a[i].copy, b[i].copy));
        assert_true(!codes || same_bytes(a[i].m_scale, b[i].m_scale));
        assert_true(!codes || same_bytes(a[i].v_scale, b[i].v_scale));
        for (int64_t k = 0; k < kinds[i].n; k++) {
            assert_true(data_f32(a[i].grad)[k] == 0 && data_f32(b[i].grad)[k] == 0);
        }
    }
}

static void a_list_is_its_leaves(void **state)
{
    (void)state;
    struct adamw_leaf alone[LEAVES], together[LEAVES], still[LEAVES];
    struct leaf_list list, bad;
    struct error err = {0};
    float scale = 0.7F, nothing = NAN;
    const struct adamw p = {1e-2, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05};
    make_leaves(alone), make_leaves(together), make_leaves(still);
    check_ok(leaf_list_open(&list, &cpu_ops, together, LEAVES, &err), &err);
    check_ok(leaf_list_open(&bad, &cpu_ops, together, LEAVES, &err), &err);
    assert_int_equal(list.chunks, 9);
    for (uint64_t n = 1; n <= 2; n++) {
        for (int i = 0; i < LEAVES; i++) {
            fill_random(alone[i].grad, (uint32_t)n), fill_random(together[i].grad, (uint32_t)n);
            adamw_one(&alone[i], &p, scale, 3, n);
        }
        cpu_ops.adamw(&list, &p, tensor_1d(&scale, DTYPE_F32, 1), 3, n);
    }
    check_same_leaves(alone, together);
    assert_false(same_bytes(together[0].w, still[0].w));
    for (int i = 0; i < LEAVES; i++) {
        fill_random(together[i].grad, 9);
    }
    cpu_ops.adamw(&bad, &p, tensor_1d(&nothing, DTYPE_F32, 1), 3, 3);
    check_same_leaves(alone, together);
    leaf_list_close(&list, &cpu_ops);
    leaf_list_close(&bad, &cpu_ops);
}

// The moments of zero gradients are zero: what a weight loses is its decay alone.
static void only_what_decays_decays(void **state)
{
    (void)state;
    const struct adamw p = {0.5, 0, 0, 1, 0.5, 1, 1};
    struct adamw_leaf x = {.w = make(DTYPE_F32, 1, 3),
                           .m = make(DTYPE_F32, 1, 3),
                           .v = make(DTYPE_F32, 1, 3),
                           .grad = make(DTYPE_F32, 1, 3)};
    fill(x.w, 1);
    adamw_one(&x, &p, 1, 0, 0);
    assert_true(data_f32(x.w)[2] == 1);
    x.decays = true;
    adamw_one(&x, &p, 1, 0, 0);
    assert_true(data_f32(x.w)[2] == 0.75F);
}

static void squares_of_all_gradients(void **state)
{
    (void)state;
    struct adamw_leaf leaf[LEAVES];
    struct leaf_list list;
    struct error err = {0};
    double out = 2, expected = 2;
    make_leaves(leaf);
    check_ok(leaf_list_open(&list, &cpu_ops, leaf, LEAVES, &err), &err);
    for (int i = 0; i < LEAVES; i++) {
        for (int64_t k = 0; k < kinds[i].n; k++) {
            const double g = (double)data_f32(leaf[i].grad)[k];
            expected += g * g;
        }
    }
    cpu_ops.grad_squares(tensor_1d(&out, DTYPE_F64, 1), &list);
    assert_true(fabs(out - expected) < 1e-12 * expected);
    leaf_list_close(&list, &cpu_ops);
}

// From squares 1e60 the norm is 1e30: its own squares do not fit a float, scaled to 1 they do.
static void gradients_are_clipped_or_not_used(void **state)
{
    (void)state;
    const double inf = (double)INFINITY, nan = (double)NAN;
    const struct {
        double squares, loss, clip, scale;
    } cases[] = {{0.25, 3, 1, 1},   {1e18, 3, 0, 1},  {16, 0, 1, 0.25},  {16, -1, 2, 0.5},
                 {0, 0, 1, 1},      {1e60, 3, 1, 0},  {1e60, 3, 0, nan}, {nan, 3, 1, nan},
                 {inf, 3, 1, nan},  {nan, 3, 0, nan}, {16, nan, 1, nan}, {16, inf, 0, nan},
                 {16, -inf, 1, nan}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double squares = cases[i].squares, loss = cases[i].loss;
        float scale = -7;
        const struct tensor to = tensor_1d(&scale, DTYPE_F32, 1);
        const struct tensor from = tensor_1d(&squares, DTYPE_F64, 1);
        cpu_ops.clip_scale(to, from, tensor_1d(&loss, DTYPE_F64, 1), cases[i].clip);
        if (isnan(cases[i].scale)) {
            assert_true(isnan(scale));
        } else {
            assert_true(fabs((double)scale - cases[i].scale) < 1e-6);
        }
        if (isnan(loss) || isinf(loss)) { // not asked
            cpu_ops.clip_scale(to, from, tensor_absent(), cases[i].clip);
            assert_true(!isnan(scale));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_list_is_its_leaves, release_all),
        cmocka_unit_test_teardown(only_what_decays_decays, release_all),
        cmocka_unit_test_teardown(squares_of_all_gradients, release_all),
        cmocka_unit_test_teardown(gradients_are_clipped_or_not_used, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
