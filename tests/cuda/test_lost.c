// tests/cuda/test_lost.c - what only looks at a model ends with 1, and with one line, when the device is lost in the
// middle: its figures would be no numbers. Over the emulated device alone.
#include "../cli/pairs.h"
#include "device.h"

#include "eval/loglik.h"

#ifdef EMULATED
static struct toy toy;

static enum status run(enum command c, const char *line, struct error *err)
{
    struct options o;
    FILE *nowhere = fopen("/dev/null", "w");
    struct output io = {
        .result = nowhere, .people = nowhere, .status = nowhere, .json = true, .quiet = true};
    check_ok(pairs_options(&o, c, line, err), err);
    const enum status status = commands[c].run(&o, &io, err);
    options_close(&o);
    fclose(nowhere);
    return status;
}

// Runs once, and again over a device that is lost `before` launches before the end of what the first run did.
static void check_lost(enum command c, const char *more, int64_t before)
{
    char line[1024];
    struct error err = {""};
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --dtype f32 --threads 1 --device cuda %s", more);
    assert_int_equal(run(c, line, &err), STATUS_DONE); // opens the device
    const int64_t start = emulate_launches();
    assert_int_equal(run(c, line, &err), STATUS_DONE);
    emulate_fail_at(emulate_launches() - start - before);
    assert_int_equal(run(c, line, &err), STATUS_FAILED);
    check_error(false, &err, "emulated: ");
    assert_null(strchr(err.msg, '\n'));
}

static void experts_routes(void **state)
{
    (void)state;
    check_lost(COMMAND_EXPERTS, "", 2);
}

static void experts_weights(void **state)
{
    (void)state;
    check_lost(COMMAND_EXPERTS, "--correlation weights", 1);
}

static void experts_pruned(void **state)
{
    (void)state;
    check_lost(COMMAND_EXPERTS, "--prune least --prune-at 0,20", 1);
}

static void eval_loss(void **state)
{
    (void)state;
    check_lost(COMMAND_EVAL, "--task loss", 1);
}

static void likelihoods(void **state)
{
    (void)state;
    struct options o;
    struct model_setup setup;
    struct model m;
    struct loglik_score score;
    struct error err = {""};
    int32_t ids[] = {1, 2, 3, 4, 5, 6};
    struct loglik_choice choice[] = {
        {.first = 0, .n = 3, .context = 1, .characters = 1, .bytes = 1},
        {.first = 3, .n = 3, .context = 1, .characters = 1, .bytes = 1}};
    struct loglik_item item = {.choice = choice, .n_choices = 2};
    struct loglik_data d = {
        .item = &item, .count = 1, .longest = 3, .ids = {.id = ids, .count = 6}};
    check_ok(pairs_options(&o, COMMAND_EVAL,
                           "--model base --data base/data.jsonl --dtype f32 --device cuda", &err),
             &err);
    check_ok(setup_model(&setup, &o, false, &err), &err);
    setup.max_tokens = 64;
    check_ok(model_open(&m, &setup, &err) && model_allocate(&m, &err), &err);
    check_ok(loglik_score(&score, &m, &d, NULL, &err), &err);
    emulate_fail_at(3);
    check_error(loglik_score(&score, &m, &d, NULL, &err), &err, "emulated: ");
    model_close(&m);
    options_close(&o);
}

static bool open_toy(void)
{
    toy_open(&toy);
    pairs_write_data(&toy);
    return chdir(toy_path(toy.base, "..")) == 0;
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_toy};
    add_test(&t, "experts: routes", "", experts_routes, NULL, NULL);
    add_test(&t, "experts: weights", "", experts_weights, NULL, NULL);
    add_test(&t, "experts: pruned", "", experts_pruned, NULL, NULL);
    add_test(&t, "eval: loss", "", eval_loss, NULL, NULL);
    add_test(&t, "likelihoods", "", likelihoods, NULL, NULL);
    return run_in_children(&t, argc > 1 ? argv[1] : NULL);
}
#else
int main(void)
{
    printf("skipped: only an emulated device can be lost when asked\n");
    return SKIP;
}
#endif
