// tests/cli/test_smt_runs.c - whole runs of smt through the options as a user gives them: both warm-ups, channels,
// going on from an adapter, a router that learns besides, and what is refused.
#include "pairs.h"

#include "io/json.h"

#include <signal.h>
#include <unistd.h>

static const char common[] = "--data base/data.jsonl --dtype f32 --tuning smt --batch-tokens 60 "
                             "--max-steps 4 --lr 2e-2 --schedule constant --warmup-ratio 0 "
                             "--threads 1 --smt-warmup-steps 3";
static const char blocks[] = "--smt-block 5 --smt-attention-blocks 6 --smt-mlp-blocks 20";

struct listening {
    int64_t stop_at;
};

static void stepped(void *user, const struct train_step *s)
{
    const struct listening *l = user;
    if (s->step == l->stop_at) raise(SIGTERM);
}

static bool try_run(struct train_result *r, const char *out, int64_t stop_at, const char *more,
                    struct error *err)
{
    struct job j = {0};
    struct options o;
    char line[2048];
    struct listening l = {stop_at};
    const struct train_listener listener = {.user = &l, .step = stepped};
    const char *base = strstr(more, "--model") ? "" : "--model base";
    snprintf(line, sizeof line, "%s %s --out %s %s", base, common, out, more);
    bool ok = pairs_options(&o, COMMAND_TRAIN, line, err);
    ok = ok && job_open(&j, &o, out, &listener, err);
    ok = ok && trainer_run(j.trainer, r, err);
    job_close(&j);
    options_close(&o);
    return ok;
}

static struct train_result run(const char *out, int64_t stop_at, const char *more)
{
    struct train_result r;
    struct error err = {0};
    check_ok(try_run(&r, out, stop_at, more, &err), &err);
    return r;
}

static void check_run_refused(const char *more, const char *needle)
{
    struct train_result r;
    struct error err = {0};
    check_error(try_run(&r, "refused", 0, more, &err), &err, needle);
    assert_false(file_exists("refused/metrics.jsonl")); // before step 1
}

static double score(const char *line)
{
    char all[1024];
    snprintf(all, sizeof all, "--data base/data.jsonl --dtype f32 %s", line);
    return pairs_loss(all);
}

// Stopped after every step, in both stages, it ends with the same bytes.
static void check_stops(const char *options, const char *kind)
{
    char straight[64], stopped[64], more[512];
    snprintf(straight, sizeof straight, "%s-straight", kind);
    snprintf(stopped, sizeof stopped, "%s-stopped", kind);
    const struct train_result r = run(straight, 0, options);
    assert_int_equal(r.steps, 7);
    for (int64_t at = 1; at < r.steps; at++) {
        snprintf(more, sizeof more, "%s --overwrite", options);
        assert_int_equal(run(stopped, at, more).outcome, TRAIN_STOPPED);
        snprintf(more, sizeof more, "%s --resume", options);
        const struct train_result again = run(stopped, 0, more);
        assert_int_equal(again.outcome, TRAIN_DONE);
        check_same_folder(r.exported, again.exported);
        check_same_file(toy_path(straight, "smt_selection.json"),
                        toy_path(stopped, "smt_selection.json"));
    }
}

static void warm_up_by_training(void **state)
{
    (void)state;
    char options[512];
    snprintf(options, sizeof options, "%s --smt-warmup train --smt-score l1 --save-every 2",
             blocks);
    check_stops(options, "train");
    // What the warm-up moved stays moved: the result is a whole model, apart from the base in every weight
    // and from the warmed-up one in the blocks.
    assert_true(file_exists("train-straight/model/config.json"));
    assert_true(file_exists("train-straight/warmed-up/config.json"));
    const double base = score("--model base"), warm = score("--model train-straight/warmed-up");
    const double last = score("--model train-straight/model");
    assert_true(warm < base && last < warm);
}

static void channels_by_activation(void **state)
{
    (void)state;
    check_stops("--smt-select activation --smt-channels 7 --save-every 2", "activation");
    assert_true(score("--model base --adapter activation-straight/adapter") <
                score("--model base"));
}

static void blocks_by_scores(void **state)
{
    (void)state;
    char options[512];
    snprintf(options, sizeof options, "%s --smt-scope all --smt-score l2 --recompute", blocks);
    check_stops(options, "score");
    // The whole and the parts again, with the choice as a file.
    snprintf(options, sizeof options,
             "%s --smt-scope all --smt-selection score-straight/smt_selection.json", blocks);
    const struct train_result r = run("given", 0, options);
    assert_int_equal(r.steps, 4);
    check_same_file("given/adapter/smt_blocks.safetensors",
                    "score-straight/adapter/smt_blocks.safetensors");
}

// A run that goes on from an adapter has no stage of choosing, and its blocks begin where the adapter's ended.
static void goes_on_from_an_adapter(void **state)
{
    (void)state;
    char options[512];
    snprintf(options, sizeof options, "%s --train *.mlp.gate.weight", blocks);
    run("first", 0, options);
    const struct train_result r = run("second", 0, "--adapter first/adapter --lr 0");
    assert_int_equal(r.steps, 4);
    struct safetensors a = {.path = "first/adapter/smt_blocks.safetensors"}, b = a;
    struct error err = {0};
    check_ok(safetensors_open(&a, a.path, &err), &err);
    b.path = "second/adapter/smt_blocks.safetensors";
    check_ok(safetensors_open(&b, b.path, &err), &err);
    assert_int_equal(a.count, 26 + 2); // and the routers of two layers
    assert_int_equal(b.count, a.count);
    for (int64_t i = 0; i < b.count; i++) {
        const struct st_entry *e = safetensors_find(&a, b.entry[i].name);
        assert_non_null(e);
        assert_memory_equal(e->tensor.data, b.entry[i].tensor.data, tensor_bytes(e->tensor));
    }
    safetensors_close(&a);
    safetensors_close(&b);
    check_run_refused("--adapter first/adapter --tuning full", "--tuning is full");
}

// A choice of the same shape as that of the file: a lone block of a matrix lies elsewhere in its column.
static void move_a_block(const char *path)
{
    struct error err = {0};
    json_t *file = json_parse_file(path, 1 << 20, &err), *list;
    const char *module;
    bool moved = false;
    assert_non_null(file);
    json_object_foreach(json_object_get(file, "blocks"), module, list)
    {
        json_t *block = json_array_get(list, 0);
        const json_int_t row = json_integer_value(json_array_get(block, 0));
        if (moved || json_array_size(list) > 1 || row > 5) continue;
        json_array_set_new(block, 0, json_integer(5 - row));
        moved = true;
    }
    assert_true(moved);
    check_ok(json_write_file(path, file, &err), &err);
    json_decref(file);
}

static void old_files_are_not_trusted(void **state)
{
    (void)state;
    struct error err = {0};
    struct train_result r;
    char options[512];
    snprintf(options, sizeof options, "%s --save-every 1", blocks);
    run("trusted", 5, options);
    move_a_block("trusted/smt_selection.json");
    snprintf(options, sizeof options, "%s --save-every 1 --resume", blocks);
    check_error(try_run(&r, "trusted", 0, options, &err), &err, "other blocks learn");
    // A run over an old one with blocks of another size.
    run("trusted", 0, "--smt-block 4 --smt-blocks 3 --overwrite");
}

static void bad_input_is_refused(void **state)
{
    (void)state;
    struct options o;
    struct error err = {0};
    struct output io = {.quiet = true};
    check_run_refused("--smt-block 5 --smt-attention-blocks 999", "999 blocks asked for");
    check_run_refused("", "nothing to learn"); // 0.84 % of a toy
    check_run_refused("--smt-selection nowhere.json", "nowhere.json");
    check_run_refused("--smt-attention-targets *.q_proj,k_prj --smt-block 5 --smt-blocks 1",
                      "k_prj");
    check_run_refused("--smt-select activation --smt-warmup train", "--smt-warmup score");
    check_run_refused("--smt-block 5 --smt-blocks 2 --smt-attention-blocks 1",
                      "exclude each other");
    const char *batch = "{\"input_ids\": [[1, 2, 3]], \"labels\": [[1, 2, 3]]}";
    check_ok(file_write("batch.json", batch, strlen(batch), &err), &err);
    check_ok(pairs_options(&o, COMMAND_DUMP,
                           "--model base --batch batch.json --out dump.safetensors --gradients "
                           "--tuning smt",
                           &err),
             &err);
    check_error(command_dump(&o, &io, &err) == STATUS_DONE, &err, "chosen on data");
    options_close(&o);
}

int main(void)
{
    struct toy t;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_by_training),       cmocka_unit_test(channels_by_activation),
        cmocka_unit_test(blocks_by_scores),          cmocka_unit_test(goes_on_from_an_adapter),
        cmocka_unit_test(old_files_are_not_trusted), cmocka_unit_test(bad_input_is_refused),
    };
    toy_open(&t);
    pairs_write_data(&t);
    if (chdir(toy_path(t.base, "..")) != 0) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    toy_close(&t);
    return failed;
}
