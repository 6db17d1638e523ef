// tests/eval/test_concentration.c - how unevenly a load lies: what must hold for any load, and the orders.
#include "support.h"

#include "base/rng.h"
#include "eval/concentration.h"
#include "eval/prune.h"

#include <math.h>

enum { MOST = 64 };

static struct concentration of(const double *use, int64_t E, int32_t *order, double *share)
{
    struct concentration c;
    concentration_of(&c, order, share, use, E);
    return c;
}

static void near(const char *what, double got, double want)
{
    if (!(fabs(got - want) < 1e-12)) fail_msg("%s: %.17g, %.17g expected", what, got, want);
}

static void level_and_single_loads(void **state)
{
    (void)state;
    int32_t order[MOST];
    double share[MOST], use[MOST];
    for (int64_t E = 1; E <= MOST; E++) {
        for (int64_t e = 0; e < E; e++) {
            use[e] = 3.5;
        }
        struct concentration c = of(use, E, order, share);
        near("gini of a level load", c.gini, 0);
        near("worth of a level load", c.effective, (double)E);
        near("entropy of a level load", c.entropy, E > 1 ? 1 : 0);
        for (int i = 0; i < COVER_COUNT; i++) {
            assert_int_equal(c.cover[i], (E * cover_percent[i] + 99) / 100);
        }
        for (int64_t e = 0; e < E; e++) {
            use[e] = 0;
            assert_int_equal(order[e], e); // ties: the lower id
        }
        use[E - 1] = 7;
        c = of(use, E, order, share);
        near("gini of one expert's load", c.gini, ((double)E - 1) / (double)E);
        near("worth of one expert's load", c.effective, 1);
        near("entropy of one expert's load", c.entropy, 0);
        assert_int_equal(c.unused, E - 1);
        assert_int_equal(order[0], E - 1);
        for (int i = 0; i < COVER_COUNT; i++) {
            assert_int_equal(c.cover[i], 1);
        }
    }
}

// Gini by its other formula, the mean difference of pairs; scale and order do not matter; a share moved from a busy
// expert to an idle one levels the load.
static void any_load(void **state)
{
    (void)state;
    struct rng rng = {.seed = 5};

    for (int round = 0; round < 300; round++) {
        const int64_t E = 2 + (int64_t)(rng_uniform(&rng) * (MOST - 2));
        double use[MOST], other[MOST], share[MOST], all = 0, pairs = 0;
        int32_t order[MOST];
        for (int64_t e = 0; e < E; e++) {
            use[e] = floor(10 * rng_uniform(&rng) * rng_uniform(&rng));
        }
        use[0]++;
        for (int64_t e = 0; e < E; e++) {
            all += use[e];
            for (int64_t f = 0; f < E; f++) {
                pairs += fabs(use[e] - use[f]);
            }
        }
        const struct concentration c = of(use, E, order, share);
        near("gini", c.gini, pairs / (2 * (double)E * all));
        assert_true(c.gini >= 0 && c.effective >= 1 - 1e-12 && c.effective <= (double)E + 1e-9);
        double held = 0;
        for (int64_t i = 0; i < E; i++) { // exactly as many as it takes
            if (i) assert_true(use[order[i - 1]] >= use[order[i]]);
            for (int k = 0; k < COVER_COUNT; k++) {
                assert_int_equal(i < c.cover[k], 100 * held < cover_percent[k] * all);
            }
            held += use[order[i]];
            other[i] = 0.25 * use[E - 1 - i];
        }
        const struct concentration scaled = of(other, E, order, share);
        near("gini of a scaled load", scaled.gini, c.gini);
        near("worth of a scaled load", scaled.effective, c.effective);
        assert_memory_equal(scaled.cover, c.cover, sizeof c.cover);
        of(use, E, order, share);
        if (use[order[0]] - use[order[E - 1]] < 2) continue;
        use[order[0]]--;
        use[order[E - 1]]++;
        assert_true(of(use, E, order, share).gini < c.gini);
    }
}

static void no_load(void **state)
{
    (void)state;
    const double use[4] = {0};
    int32_t order[4];
    double share[4];
    const struct concentration c = of(use, 4, order, share);
    assert_false(c.any);
    assert_true(c.gini == 0 && c.cover[0] == 0 && c.effective == 0);
}

static void orders(void **state)
{
    (void)state;
    const double use[] = {2, 5, 2, 0, 5, 1};
    const int32_t least[] = {3, 5, 0, 2, 1, 4}, most[] = {1, 4, 0, 2, 5, 3};
    int32_t order[6];
    experts_by_use(order, use, 6, true);
    assert_memory_equal(order, least, sizeof least);
    experts_by_use(order, use, 6, false);
    assert_memory_equal(order, most, sizeof most);
}

// Whole experts, rounded down; 70 % of 10 are 7 although 0.7 is less than seven tenths in binary.
static void shares_of_experts(void **state)
{
    (void)state;
    assert_int_equal(prune_count(0, 64), 0);
    assert_int_equal(prune_count(10, 64), 6);
    assert_int_equal(prune_count(90, 64), 57);
    assert_int_equal(prune_count(100, 7), 7);
    for (int percent = 0; percent <= 100; percent += 10) {
        assert_int_equal(prune_count(percent, 10), percent / 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(level_and_single_loads),
        cmocka_unit_test(any_load),
        cmocka_unit_test(no_load),
        cmocka_unit_test(orders),
        cmocka_unit_test(shares_of_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
