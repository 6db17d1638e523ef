// tests/torture/test_numbers.c - numbers that stop being finite in the middle of a run (DESIGN, promise 5): the step
// is skipped and counted and moves nothing, three in a row end the run, and what is on the disk never holds
// any of it.
#include "bad_step.h"
#include "form.h"

#include <unistd.h>

static int64_t runs, skipped, refused;
static bool full;

static void last_checkpoint(char out[256], const char *run, int64_t step)
{
    snprintf(out, 256, "%s/checkpoint-%d", run, (int)step);
}

// One bad step k of a pair, against the run that has nothing to learn in it.
static void check_skip(const char *routing, const char *tuning, const char *more, int64_t k,
                       enum poison poison, int64_t which)
{
    struct bad_run silent = {.from = k, .to = k, .silent = true};
    struct bad_run bad = {.from = k, .to = k, .poison = poison, .which = which};
    char a[256], b[256], options[512];
    snprintf(options, sizeof options, "--overwrite %s", more);
    bad_run(&silent, "silent", routing, tuning, options);
    check_ok(silent.ok, &silent.err);
    bad_run(&bad, "bad", routing, tuning, options);
    print_message("%s x %s %s: %s at step %d of %d\n", routing, tuning, more, poison_names[poison],
                  (int)k, (int)bad.result.steps);
    check_ok(bad.ok, &bad.err);
    assert_int_equal(bad.result.skipped, 1);
    assert_int_equal(silent.result.skipped, 0);
    last_checkpoint(a, "silent", silent.result.step);
    last_checkpoint(b, "bad", bad.result.step);
    check_same_checkpoint(a, b, k == bad.result.step);
    check_same_folder(silent.result.exported, bad.result.exported);
    runs += 2;
    skipped++;
}

// The first step that can be broken: after that of the scoring stage, whose model is another, and the step that
// opens the next one.
static int64_t first_step(const char *tuning)
{
    return !strcmp(tuning, "esft") || !strcmp(tuning, "smt") ? 3 : 1;
}

static const char *const variants[] = {
    "",
    "--accumulate 3",
    "--fused-backward --clip 0",
    "--optimizer-states 8bit",
    "--optimizer-states bf16 --no-recompute",
    "--dtype bf16",
    "--dtype bf16 --products f32",
    "--bias-every micro-batch --bias-usage count --accumulate 2",
    "--bias-every micro-batch --clip 0",
    "--aux-coef 0.01 --z-coef 0.01",
};
enum { VARIANTS = sizeof variants / sizeof *variants };

// Not all goes with fused updates: a gradient that is bad where the loss is finite ends the run.
static bool applies(const char *options, enum poison p)
{
    const bool fused = strstr(options, "--fused-backward") != NULL;
    return !fused || p != GRADIENTS;
}

static void check_pair(const char *routing, const char *tuning, int64_t pair)
{
    const int64_t first = first_step(tuning), last = first + 2;
    for (int64_t p = 0; p < POISONS; p++) {
        for (int64_t v = 0; v < VARIANTS; v++) {
            const bool turn = v == (pair + 3 * p) % VARIANTS;
            if ((!full && !turn) || !applies(variants[v], (enum poison)p)) continue;
            for (int64_t k = full ? first : first + (pair + p) % 3; k <= last; k += full ? 1 : 3) {
                check_skip(routing, tuning, variants[v], k, (enum poison)p, pair + 7 * p + k);
            }
        }
    }
}

static void a_bad_step_moves_nothing(void **state)
{
    (void)state;
    int64_t pair = 0;
    for (int i = 0; routings[i]; i++) {
        for (int k = 0; tunings[k]; k++) {
            check_pair(routings[i]->name, tunings[k]->name, pair++);
        }
    }
}

// Three bad steps after a good checkpoint end the run; gone on with from there, without them, it is the
// run that never saw them.
static void three_in_a_row_leave_the_last_checkpoint(void **state)
{
    (void)state;
    int64_t turn = 0;
    struct bad_run clean = {0};
    for (int i = 0; routings[i]; i++) {
        for (int k = 0; tunings[k]; k++, turn++) {
            const char *routing = routings[i]->name, *tuning = tunings[k]->name;
            if (!full && turn % 3) continue;
            const int64_t saved = 3;
            char every[128];
            snprintf(every, sizeof every, "--max-steps 8 --save-every %d --keep-last 9 %s",
                     (int)saved, turn % 2 ? "--optimizer-states 8bit" : "--accumulate 2");
            char options[256];
            snprintf(options, sizeof options, "--overwrite %s", every);
            bad_run(&clean, "clean", routing, tuning, options);
            check_ok(clean.ok, &clean.err);

            struct bad_run bad = {.from = saved + 1, .to = saved + 3};
            bad.poison = (enum poison)(turn % POISONS);
            bad_run(&bad, "bad", routing, tuning, options);
            check_error(bad.ok, &bad.err, "3 steps in a row");
            assert_int_equal(bad.result.skipped, 3);
            assert_false(file_exists("bad/model") || file_exists("bad/adapter"));

            struct bad_run again = {0};
            snprintf(options, sizeof options, "--resume %s", every);
            bad_run(&again, "bad", routing, tuning, options);
            check_ok(again.ok, &again.err);
            char a[256], b[256];
            last_checkpoint(a, "clean", clean.result.step);
            last_checkpoint(b, "bad", again.result.step);
            assert_int_equal(again.result.skipped, 0);
            check_same_folder(a, b);
            check_same_folder(clean.result.exported, again.result.exported);
            runs += 3;
            refused++;
        }
    }
}

// A moment of the optimizer that is no number makes weights of the same kind, and all of it stays in memory.
static void bad_moments_are_never_saved(void **state)
{
    (void)state;
    static const char *const ways[] = {"", "--optimizer-states 8bit", "--optimizer-states bf16",
                                       "--fused-backward --clip 0"};
    for (int i = 0; routings[i]; i++) {
        for (int w = 0; w < 4; w++) {
            const char *routing = routings[i]->name, *tuning = w == 1 ? "lora" : "full";
            if (!full && w != i % 4) continue;
            char options[256];
            struct bad_run clean = {0}, bad = {.from = 2, .to = 2, .poison = MOMENT}, again = {0};
            snprintf(options, sizeof options, "--overwrite --save-every 1 --keep-last 9 %s",
                     ways[w]);
            bad_run(&clean, "clean", routing, tuning, options);
            check_ok(clean.ok, &clean.err);
            bad.which = i * 5;
            bad_run(&bad, "bad", routing, tuning, options);
            check_error(bad.ok, &bad.err, "no longer finite, which is not saved");
            assert_false(file_exists("bad/checkpoint-2"));
            snprintf(options, sizeof options, "--resume --save-every 1 --keep-last 9 %s", ways[w]);
            bad_run(&again, "bad", routing, tuning, options);
            check_ok(again.ok, &again.err);
            check_same_folder("clean/checkpoint-4", "bad/checkpoint-4");
            check_same_folder(clean.result.exported, again.result.exported);
            runs += 3;
            refused++;
        }
    }
}

// Gradients that are bad where the loss is finite, with updates within the pass: the run ends, the newest
// checkpoint stands, and goes on without fused updates.
static void fused_updates_end_the_run(void **state)
{
    (void)state;
    for (int i = 0; routings[i]; i++) {
        const char *routing = routings[i]->name;
        struct bad_run clean = {0}, again = {0};
        struct bad_run bad = {.from = 3, .to = 3, .poison = GRADIENTS, .which = 1 + i};
        bad_run(&clean, "clean", routing, "full",
                "--overwrite --save-every 2 --fused-backward --clip 0");
        check_ok(clean.ok, &clean.err);
        bad_run(&bad, "bad", routing, "full",
                "--overwrite --save-every 2 --fused-backward --clip 0");
        check_error(bad.ok, &bad.err, "--fused-backward has moved weights by it");
        assert_false(file_exists("bad/checkpoint-3") || file_exists("bad/model"));
        bad_run(&again, "bad", routing, "full",
                "--resume --save-every 2 --no-fused-backward --clip 0");
        check_ok(again.ok, &again.err);
        check_same_folder(clean.result.exported, again.result.exported);
        runs += 3;
        refused++;
    }
}

// A stage that only takes scores cannot take back what it saw.
static void bad_scores_choose_nothing(void **state)
{
    (void)state;
    static const char *const ways[][2] = {
        {"esft", ""}, {"esft", "--esft-score gate"}, {"smt", ""}, {"smt", "--smt-score l2"}};
    for (int w = 0; w < 4; w++) {
        for (int p = 0; p < GRADIENTS; p++) {
            struct bad_run bad = {.from = 1, .to = 1, .poison = (enum poison)p};
            char options[256];
            snprintf(options, sizeof options, "--overwrite --save-every 1 %s", ways[w][1]);
            bad_run(&bad, "bad", "topk", ways[w][0], options);
            check_error(bad.ok, &bad.err, "not finite while only scores are taken");
            assert_false(file_exists("bad/checkpoint-1") || file_exists("bad/expert_cfg.json") ||
                         file_exists("bad/smt_selection.json"));
            runs++;
            refused++;
        }
    }
}

// A token whose router overflows in the last layer and whose row predicts nothing: nothing that learns sees it, the
// experts' use does. A state that holds what JSON cannot is not saved.
static void a_bad_use_is_never_saved(void **state)
{
    (void)state;
    static const char *const ways[] = {"--bias-every step", "--bias-every micro-batch"};
    for (int i = 0; routings[i]; i++) {
        for (int w = 0; w < 2; w++) {
            char options[256];
            struct bad_run clean = {0}, bad = {.from = 2, .to = 2, .poison = LAST_ROUTER};
            struct bad_run again = {0};
            snprintf(options, sizeof options, "--overwrite --save-every 1 --freeze model.* %s",
                     ways[w]);
            bad_run(&clean, "clean", routings[i]->name, "full", options);
            check_ok(clean.ok, &clean.err);
            bad_run(&bad, "bad", routings[i]->name, "full", options);
            runs += 2;
            assert_int_equal(bad.result.skipped, 0);
            if (!routings[i]->after_step) { // nothing counts, and nothing else saw it
                check_ok(bad.ok, &bad.err);
                continue;
            }
            check_error(bad.ok, &bad.err, "not finite, which is not saved");
            assert_false(file_exists("bad/checkpoint-2") || file_exists("bad/checkpoint-2.tmp"));
            snprintf(options, sizeof options, "--resume --save-every 1 --freeze model.* %s",
                     ways[w]);
            bad_run(&again, "bad", routings[i]->name, "full", options);
            check_ok(again.ok, &again.err);
            check_same_folder(clean.result.exported, again.result.exported);
            runs++;
            refused++;
        }
    }
}

// The same while experts are scored by their gates: the sum is no number, although the loss is one.
static void bad_sums_of_scores_are_never_saved(void **state)
{
    (void)state;
    static const char *const ways[][2] = {
        {"esft", "--esft-score gate --esft-tokens 90"},
        {"smt", "--smt-select activation --smt-warmup-steps 3"},
    };
    for (int w = 0; w < 2; w++) {
        char options[256];
        struct bad_run bad = {.from = 2, .to = 2, .poison = LAST_ROUTER};
        snprintf(options, sizeof options, "--overwrite --save-every 1 %s", ways[w][1]);
        bad_run(&bad, "bad", "topk", ways[w][0], options);
        check_error(bad.ok, &bad.err, "not finite, which is not saved");
        assert_true(file_exists("bad/checkpoint-1"));
        assert_false(file_exists("bad/checkpoint-2") || file_exists("bad/checkpoint-2.tmp"));
        runs++;
        refused++;
    }
}

static int prepare(void **state)
{
    (void)state;
    static struct toy t;
    full = torture_full();
    toy_open(&t);
    pairs_write_data(&t);
    return chdir(toy_path(t.base, ".."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_step_moves_nothing),
        cmocka_unit_test(three_in_a_row_leave_the_last_checkpoint),
        cmocka_unit_test(bad_moments_are_never_saved),
        cmocka_unit_test(fused_updates_end_the_run),
        cmocka_unit_test(bad_scores_choose_nothing),
        cmocka_unit_test(a_bad_use_is_never_saved),
        cmocka_unit_test(bad_sums_of_scores_are_never_saved),
    };
    const int failed = cmocka_run_group_tests(tests, prepare, NULL);
    printf("torture: %d runs with numbers that are not finite: %d steps skipped without moving a "
           "byte, %d runs ended with the last checkpoint intact\n",
           (int)runs, (int)skipped, (int)refused);
    return failed;
}
