// tests/train/test_schedule.c - learning rates against those of `transformers`
// (fixtures/train_schedule.safetensors, written by fixtures/make_train.py).
#include "support.h"

#include "train/train.h"

#include <math.h>
#include <stdio.h>

static void matches_transformers(void **unused)
{
    (void)unused;
    static const int lengths[][2] = {{37, 0}, {37, 5}, {10, 10}, {3, 7}, {1, 0}};
    struct fixture f;
    fixture_open(&f, "train_schedule.safetensors");
    int compared = 0;
    for (int kind = SCHEDULE_CONSTANT; kind <= SCHEDULE_COSINE_FLOOR; kind++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            char name[64];
            const int steps = lengths[i][0], warmup = lengths[i][1];
            snprintf(name, sizeof name, "%s.%d.%d", schedule_name((enum schedule)kind), steps,
                     warmup);
            const struct tensor want = fixture_get(&f, name);
            const struct train_options o = {.lr = 1,
                                            .schedule = (enum schedule)kind,
                                            .min_lr_rate = 0.1,
                                            .warmup_steps = warmup};
            for (int64_t s = 0; s < tensor_count(want); s++, compared++) {
                double expected;
                memcpy(&expected, (const char *)want.data + (size_t)s * sizeof expected,
                       sizeof expected);
                const double found = schedule_lr(&o, s, steps);
                if (fabs(found - expected) > 1e-15) {
                    fail_msg("%s step %d: %.17g, %.17g expected", name, (int)s, found, expected);
                }
            }
        }
    }
    assert_int_equal(compared, 4 * (38 + 38 + 11 + 4 + 2));
    fixture_close(&f);
}

static void ratio_is_rounded_up(void **unused)
{
    (void)unused;
    const struct train_options ratio = {.lr = 3, .warmup_ratio = 0.1};
    assert_int_equal(schedule_warmup(&ratio, 31), 4);
    assert_int_equal(schedule_warmup(&ratio, 30), 3);
    const struct train_options both = {.lr = 3, .warmup_ratio = 0.1, .warmup_steps = 7};
    assert_int_equal(schedule_warmup(&both, 31), 7);
    assert_true(schedule_lr(&ratio, 0, 31) == 0);
    assert_true(fabs(schedule_lr(&ratio, 1, 31) - 0.75) < 1e-15);
}

static void unknown_name_is_refused(void **unused)
{
    (void)unused;
    struct error err = {0};
    enum schedule s = SCHEDULE_CONSTANT;
    check_error(schedule_find(&s, "cosin", &err), &err, "cosin");
    check_ok(schedule_find(&s, "cosine-floor", &err), &err);
    assert_int_equal(s, SCHEDULE_COSINE_FLOOR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_transformers),
        cmocka_unit_test(ratio_is_rounded_up),
        cmocka_unit_test(unknown_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
