// tests/cli/test_pairs.c - every routing with every tuning, through the options as a user gives them, on a toy:
// the pair trains, its gradients are slopes of the surrogate that it differentiates, a run that was stopped
// in the middle ends with the same bytes, and the merged result scores as the unmerged.
#include "pairs.h"

#include <signal.h>
#include <unistd.h>

// What keeps each tuning small enough for the toy.
static const struct {
    const char *tuning, *options;
} small[] = {
    {"esft", "--esft-tokens 150 --esft-top-p 0.4"},
    {"smt", "--smt-block 5 --smt-warmup-steps 2 --smt-attention-blocks 6 --smt-mlp-blocks 20"},
    {"lora", "--lora-rank 3 --lora-alpha 6"},
    {"dora", "--lora-rank 3 --lora-alpha 6"},
};

static const char *small_options(const char *tuning)
{
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        if (!strcmp(small[i].tuning, tuning)) return small[i].options;
    }
    return "";
}

struct listening {
    struct job job;
    int64_t stop_at, check_at; // steps; 0: never
    const char *tuning;
    bool compared;
    double first, last;
};

static void stepped(void *user, const struct train_step *s)
{
    struct listening *l = user;
    if (!(l->first > 0)) l->first = s->loss;
    l->last = s->loss;
    if (s->step == l->stop_at) raise(SIGTERM);
    if (s->step != l->check_at) return;
    pairs_check_gradients(trainer_model(l->job.trainer), !strcmp(l->tuning, "dora"));
    l->compared = true;
}

// One run of a pair; returns its result.
static struct train_result run_pair(struct listening *l, const char *out, const char *routing,
                                    const char *tuning, const char *more)
{
    struct options o;
    struct error err = {0};
    struct train_result r;
    char line[2048];
    const struct train_listener listener = {.user = l, .step = stepped};
    l->tuning = tuning;
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --out %s --dtype f32 --routing %s --tuning %s "
             "--batch-tokens 60 --max-steps 4 --lr 2e-2 --schedule constant --warmup-ratio 0 "
             "--bias-rate 1e-2 --threads 1 --save-every 3 %s %s",
             out, routing, tuning, small_options(tuning), more);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, &err), &err);
    check_ok(job_open(&l->job, &o, out, &listener, &err), &err);
    check_ok(trainer_run(l->job.trainer, &r, &err), &err);
    job_close(&l->job);
    options_close(&o);
    return r;
}

static double score(const char *model, const char *adapter, const char *routing)
{
    char line[2048];
    snprintf(line, sizeof line, "--model %s %s %s --data base/data.jsonl --dtype f32 --routing %s",
             model, adapter ? "--adapter" : "", adapter ? adapter : "", routing);
    return pairs_loss(line);
}

// The merged folder scores as base and adapter do.
static void check_merged(const char *run, const char *adapter, const char *routing)
{
    char merged[128], line[2048];
    snprintf(merged, sizeof merged, "%s/merged", run);
    snprintf(line, sizeof line, "--model base --adapter %s --out %s --routing %s", adapter, merged,
             routing);
    pairs_merge(line);
    const double apart = score("base", adapter, routing);
    const double together = score(merged, NULL, routing);
    if (!(fabs(apart - together) < 1e-6 * fabs(apart))) {
        fail_msg("%s: %.9g apart, %.9g merged", adapter, apart, together);
    }
}

static void check_pair(const char *routing, const char *tuning)
{
    struct listening l = {0};
    char straight[64], stopped[64], checked[64]; // in the test's own folder
    snprintf(straight, sizeof straight, "%.20s-%.20s", routing, tuning);
    snprintf(stopped, sizeof stopped, "%.41s-stopped", straight);
    snprintf(checked, sizeof checked, "%.41s-checked", straight);
    const struct train_result r = run_pair(&l, straight, routing, tuning, "");
    assert_int_equal(r.outcome, TRAIN_DONE);
    assert_int_equal(r.skipped, 0);
    assert_true(l.last < l.first);

    for (int64_t at = 1; at < r.steps; at++) { // in every stage, and at the change
        l = (struct listening){.stop_at = at};
        assert_int_equal(run_pair(&l, stopped, routing, tuning, "--overwrite").outcome,
                         TRAIN_STOPPED);
        l = (struct listening){0};
        const struct train_result again = run_pair(&l, stopped, routing, tuning, "--resume");
        assert_int_equal(again.outcome, TRAIN_DONE);
        check_same_folder(r.exported, again.exported);
    }

    l = (struct listening){.check_at = r.steps};
    run_pair(&l, checked, routing, tuning, "");
    assert_true(l.compared);
    const size_t n = strlen(r.exported), m = strlen("adapter");
    if (n > m && !strcmp(r.exported + n - m, "adapter"))
        check_merged(straight, r.exported, routing);
    print_message("%s x %s: loss %.3f -> %.3f in %d steps\n", routing, tuning, l.first, l.last,
                  (int)r.steps);
}

static void every_pair(void **state)
{
    (void)state;
    struct toy t;
    toy_open(&t);
    pairs_write_data(&t);
    assert_int_equal(chdir(toy_path(t.base, "..")), 0);
    for (int i = 0; routings[i]; i++) {
        for (int k = 0; tunings[k]; k++) {
            check_pair(routings[i]->name, tunings[k]->name);
        }
    }
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_pair)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
