// tests/cli/test_memory_options.c - every tuning with the ways to keep what learns, through the options as a user
// gives them, on a toy stored as bf16: a run that was stopped goes on to the same bytes, however many threads,
// and updates within the backward pass change none.
#include "pairs.h"

#include <signal.h>
#include <unistd.h>

static const char *const small[][2] = {
    {"full", ""},
    {"esft", "--esft-tokens 150 --esft-top-p 0.4 --esft-non-expert-modules"},
    {"smt", "--smt-block 5 --smt-warmup-steps 2 --smt-attention-blocks 6 --smt-mlp-blocks 20"},
    {"lora", "--lora-rank 3 --lora-alpha 6 --train *.mlp.gate.weight"},
    {"dora", "--lora-rank 3 --lora-alpha 6"},
    {"full",
     "--routing condenser --condenser-gate sigmoid --bias-rate 1e-2"}, // leaves of the routing
    {"full", "--routing densemixer --aux-coef 0.01"}, // experts are read in two passes
};

// The second changes no byte of the first.
static const char *const kept[][2] = {
    {"--optimizer-states bf16", "--optimizer-states bf16 --fused-backward"},
    {"--optimizer-states 8bit", "--optimizer-states 8bit --offload-states"},
    {"--master-weights none", "--master-weights none --fused-backward --no-recompute"},
    {"--master-weights none --optimizer-states 8bit",
     "--master-weights none --optimizer-states 8bit --fused-backward --offload-states"},
};

struct listening {
    int64_t stop_at; // step; 0: never
    double first, last;
};

static void stepped(void *user, const struct train_step *s)
{
    struct listening *l = user;
    if (!(l->first > 0)) l->first = s->loss;
    l->last = s->loss;
    if (s->step == l->stop_at) raise(SIGTERM);
}

static bool run(struct train_result *r, struct listening *l, const char *out, const char *more,
                struct error *err)
{
    struct job job;
    struct options o;
    char line[2048];
    const struct train_listener listener = {.user = l, .step = stepped};
    snprintf(
        line, sizeof line,
        "--model base --data base/data.jsonl --out %s --batch-tokens 60 --max-steps 5 --lr 2e-2 "
        "--schedule constant --warmup-ratio 0 --clip 0 --save-every 3 %s",
        out, more);
    bool ok = pairs_options(&o, COMMAND_TRAIN, line, err);
    if (!ok) return false;
    ok = job_open(&job, &o, out, &listener, err);
    ok = ok && trainer_run(job.trainer, r, err);
    job_close(&job);
    options_close(&o);
    return ok;
}

static struct train_result train(const char *out, int64_t stop_at, const char *tuning,
                                 const char *more, const char *again)
{
    struct train_result r;
    struct error err = {0};
    struct listening l = {.stop_at = stop_at};
    char options[1024];
    snprintf(options, sizeof options, "--tuning %s %s %s", tuning, more, again);
    check_ok(run(&r, &l, out, options, &err), &err);
    assert_int_equal(r.outcome, stop_at ? TRAIN_STOPPED : TRAIN_DONE);
    assert_int_equal(r.skipped, 0);
    if (!stop_at && !strstr(again, "--resume")) assert_true(l.last < l.first);
    return r;
}

static void check_kept(const char *const tuning[2], const char *const options[2])
{
    char more[2][512], name[64];
    for (int i = 0; i < 2; i++) {
        snprintf(more[i], sizeof more[i], "%s %s", tuning[1], options[i]);
    }
    const struct train_result r = train("straight", 0, tuning[0], more[0], "--threads 1");
    snprintf(name, sizeof name, "checkpoint-%d", (int)r.step);
    for (int64_t at = 1; at < r.steps; at += 2) {
        train("stopped", at, tuning[0], more[0], "--threads 7 --overwrite");
        const struct train_result s =
            train("stopped", 0, tuning[0], more[0], "--threads 2 --resume");
        check_same_folder(r.exported, s.exported);
        check_same_folder(toy_path("straight", name), toy_path("stopped", name));
    }
    train("other", 2, tuning[0], more[1], "--threads 7");
    const struct train_result s = train("other", 0, tuning[0], more[1], "--threads 1 --resume");
    check_same_folder(r.exported, s.exported);
    struct error err = {0};
    check_ok(dir_remove("straight", &err) && dir_remove("stopped", &err) &&
                 dir_remove("other", &err),
             &err);
}

static void enter(struct toy *t)
{
    struct error err = {0};
    toy_open(t);
    pairs_write_data(t);
    assert_int_equal(chdir(toy_path(t->base, "..")), 0);
    const struct model_init_options o = {
        .config = "base.json", .out = "new", .dtype = "bf16", .seed = 11};
    check_ok(model_init(&o, &err), &err);
    assert_int_equal(rename("new/model.safetensors", "base/model.safetensors"), 0);
}

static void every_tuning_with_every_way(void **state)
{
    (void)state;
    struct toy t;
    enter(&t);
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) {
            check_kept(small[i], kept[k]);
        }
        print_message("%s %s\n", small[i][0], small[i][1]);
    }
    toy_close(&t);
}

static void wrong_combinations_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"--fused-backward --accumulate 2", "--accumulate 1 expected, not 2"},
        {"--fused-backward --clip 0.5", "--clip 0 expected, not 0.5"},
        {"--fused-backward --tuning smt --smt-warmup train", "keeps no gradients"},
        {"--master-weights none --dtype f32", "--dtype bf16"},
    };
    struct toy t;
    struct error err = {0};
    struct train_result r;
    struct listening l = {.stop_at = 2};
    enter(&t);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_error(run(&r, &l, "out", wrong[i][0], &err), &err, wrong[i][1]);
    }
    check_ok(run(&r, &l, "out", "--optimizer-states bf16", &err), &err);
    check_error(run(&r, &l, "out", "--optimizer-states 8bit --resume", &err), &err,
                "option optimizer_states was \"bf16\" and is \"8bit\" now");
    check_error(run(&r, &l, "out", "--optimizer-states bf16 --master-weights none --resume", &err),
                &err, "option master_weights");
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tuning_with_every_way),
        cmocka_unit_test(wrong_combinations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
