// tests/cli/test_esft_runs.c - ESFT from the options to the result, on a toy in both layouts of experts: what moves,
// what a checkpoint and an adapter hold, that the command `experts` chooses as training does, that a plan is an
// upper bound, that training goes on from an adapter, and which adapters are refused.
#include "pairs.h"

#include "tuning/esft.h"

#include <unistd.h>

static const char usual[] = "--model base --data base/data.jsonl --dtype f32 --tuning esft "
                            "--batch-tokens 60 --lr 2e-2 --threads 1 --esft-tokens 150 "
                            "--esft-top-p 0.4 --max-steps 3";

// One run; `plan` (may be NULL) is what was planned before it.
static bool train(const char *out, const char *more, struct plan *plan, struct error *err)
{
    struct options o;
    struct job j;
    struct train_result r;
    char line[2048];
    snprintf(line, sizeof line, "%s --out %s %s", usual, out, more);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, err), err);
    bool ok = job_open(&j, &o, out, NULL, err);
    if (ok && plan) *plan = j.plan;
    if (ok && plan) plan->module = NULL; // the job's
    ok = ok && trainer_run(j.trainer, &r, err);
    job_close(&j);
    options_close(&o);
    return ok;
}

static void read_choice(struct esft_selection *s, const char *path)
{
    struct error err = {0};
    struct model_config c = {.n_layers = 2, .n_experts = 6, .moe_layer = {true, true}};
    check_ok(esft_selection_read(s, path, &c, &err), &err);
}

static bool is_chosen(const struct esft_selection *s, int64_t layer, int64_t expert)
{
    for (int64_t i = 0; i < s->count[layer]; i++) {
        if (s->expert[layer * s->experts + i] == expert) return true;
    }
    return false;
}

// Bytes of one matrix [first, first + n) of a tensor.
static void check_moved(const struct tensor *was, const struct tensor *is, size_t first, size_t n,
                        bool moves, const char *name)
{
    const bool same = !memcmp((const char *)was->data + first, (const char *)is->data + first, n);
    if (same == moves) fail_msg("%s: %s", name, same ? "did not move" : "moved");
}

// The merged model: chosen experts moved, the bytes of all else are the base's.
static void check_only_chosen_moved(const char *run, const struct esft_selection *s)
{
    struct safetensors a, b;
    struct error err = {0};
    char path[2][256];
    int64_t fused = 0;
    snprintf(path[0], sizeof path[0], "base/model.safetensors");
    snprintf(path[1], sizeof path[1], "%s/model/model.safetensors", run);
    check_ok(safetensors_open(&a, path[0], &err) && safetensors_open(&b, path[1], &err), &err);
    assert_int_equal(a.count, b.count);
    for (int64_t i = 0; i < a.count; i++) {
        const struct tensor *was = &a.entry[i].tensor, *is = &b.entry[i].tensor;
        int layer = 0, expert = -1;
        assert_string_equal(a.entry[i].name, b.entry[i].name);
        sscanf(a.entry[i].name, "model.layers.%d.mlp.experts.%d", &layer, &expert);
        const size_t bytes = tensor_bytes(*was);
        if (was->rank < 3) {
            check_moved(was, is, 0, bytes, expert >= 0 && is_chosen(s, layer, expert),
                        a.entry[i].name);
            continue;
        }
        fused++;
        for (int64_t e = 0; e < 6; e++) {
            check_moved(was, is, bytes / 6 * (size_t)e, bytes / 6, is_chosen(s, layer, e),
                        a.entry[i].name);
        }
    }
    assert_true(fused == 0 || fused == 4);
    safetensors_close(&a);
    safetensors_close(&b);
}

// Tensors of a file, all of them matrices of chosen experts.
static void check_file(const char *path, const struct esft_selection *s)
{
    struct safetensors st;
    struct error err = {0};
    check_ok(safetensors_open(&st, path, &err), &err);
    assert_int_equal(st.count, 3 * esft_selection_total(s));
    for (int64_t i = 0; i < st.count; i++) {
        int layer, expert;
        assert_int_equal(
            sscanf(st.entry[i].name, "model.layers.%d.mlp.experts.%d", &layer, &expert), 2);
        assert_true(is_chosen(s, layer, expert));
    }
    safetensors_close(&st);
}

static void enter(struct toy *t)
{
    toy_open(t);
    pairs_write_data(t);
    assert_int_equal(chdir(toy_path(t->base, "..")), 0);
}

static void fuse(void)
{
    struct error err = {0};
    const struct model_init_options o = {.config = "base.json",
                                         .out = "base",
                                         .dtype = "f32",
                                         .seed = 11,
                                         .fused = true,
                                         .overwrite = true};
    check_ok(model_init(&o, &err), &err);
}

static void only_what_is_chosen_moves(void **state)
{
    (void)state;
    for (int fused = 0; fused < 2; fused++) {
        struct toy t;
        struct error err = {0};
        struct plan before;
        struct esft_selection s;
        enter(&t);
        if (fused) fuse();
        check_ok(train("run", "", &before, &err), &err);
        read_choice(&s, "run/expert_cfg.json");
        assert_true(esft_selection_total(&s) >= 2 && esft_selection_total(&s) <= 6);
        check_same_file("run/expert_cfg.json", "run/adapter/expert_cfg.json");
        check_file("run/adapter/model.safetensors", &s);
        check_file("run/checkpoint-6/values.safetensors", &s);
        assert_true(before.at_most);
        assert_true(before.learning >= esft_selection_total(&s) * 3 * 12 * 16);
        check_ok(train("merged", "--merge", NULL, &err), &err);
        check_only_chosen_moved("merged", &s);
        esft_selection_close(&s);
        toy_close(&t);
    }
}

// The memory of the run as it really is, when nothing is left to be chosen.
static void the_plan_is_an_upper_bound(void **state)
{
    (void)state;
    struct toy t;
    struct error err = {0};
    struct plan before, after;
    enter(&t);
    check_ok(train("run", "", &before, &err), &err);
    check_ok(train("again", "--esft-config run/expert_cfg.json", &after, &err), &err);
    assert_true(before.at_most && !after.at_most);
    assert_true(before.learning > after.learning); // at top_p 0.4 the toy needs less than the most
    for (int p = 0; p < PURPOSE_COUNT; p++) {
        assert_true(before.by_purpose[p] >= after.by_purpose[p]);
    }
    assert_true(before.total > after.total && before.disk > after.disk);
    check_ok(train("run", "--overwrite", &after, &err), &err); // the old choice says nothing
    assert_int_equal(after.learning, before.learning);
    check_ok(train("run", "--resume", &after, &err), &err); // it is the run's own
    assert_true(!after.at_most && after.learning < before.learning);
    toy_close(&t);
}

static enum status experts(const char *line, struct error *err)
{
    struct options o;
    FILE *null = fopen("/dev/null", "w");
    struct output io = {
        .result = null, .people = null, .status = null, .quiet = true, .json = true};
    check_ok(pairs_options(&o, COMMAND_EXPERTS, line, err), err);
    const enum status status = command_experts(&o, &io, err);
    options_close(&o);
    fclose(null);
    return status;
}

static void experts_chooses_as_training_does(void **state)
{
    (void)state;
    static const char *const scores[] = {"token", "gate"};
    for (int i = 0; i < 2; i++) {
        struct toy t;
        struct error err = {0};
        char more[256];
        enter(&t);
        snprintf(more, sizeof more, "--esft-score %s --esft-shared-experts", scores[i]);
        check_ok(train("run", more, NULL, &err), &err);
        snprintf(more, sizeof more,
                 "--model base --data base/data.jsonl --dtype f32 --batch-tokens 60 --tokens 150 "
                 "--select esft --score %s --top-p 0.4 --shared-experts --out chosen.json",
                 scores[i]);
        check_ok(experts(more, &err) == STATUS_DONE, &err);
        check_same_file("run/expert_cfg.json", "chosen.json");
        // Scored before or in the run: the same result.
        check_ok(train("given", "--esft-config chosen.json", NULL, &err), &err);
        check_same_file("run/adapter/model.safetensors", "given/adapter/model.safetensors");
        toy_close(&t);
    }
}

static double loss(const char *adapter)
{
    char line[512];
    snprintf(line, sizeof line, "--model base --data base/data.jsonl --dtype f32 --adapter %s",
             adapter);
    return pairs_loss(line);
}

static void training_goes_on_from_an_adapter(void **state)
{
    (void)state;
    struct toy t;
    struct error err = {0};
    struct esft_selection s;
    enter(&t);
    check_ok(train("run", "", NULL, &err), &err);
    read_choice(&s, "run/expert_cfg.json");
    check_ok(train("more", "--adapter run/adapter", NULL, &err), &err);
    check_same_file("run/adapter/expert_cfg.json", "more/adapter/expert_cfg.json");
    check_file("more/adapter/model.safetensors", &s);
    assert_true(loss("more/adapter") < loss("run/adapter"));
    assert_false(file_exists("more/expert_cfg.json")); // nothing was scored

    // What is frozen now came with the adapter, and goes with the next one as it was.
    check_ok(train("part", "--adapter run/adapter --freeze *.layers.0.*", NULL, &err), &err);
    check_file("part/adapter/model.safetensors", &s);
    struct safetensors a, b;
    check_ok(safetensors_open(&a, "run/adapter/model.safetensors", &err), &err);
    check_ok(safetensors_open(&b, "part/adapter/model.safetensors", &err), &err);
    for (int64_t i = 0; i < a.count; i++) {
        check_moved(&a.entry[i].tensor, &b.entry[i].tensor, 0, tensor_bytes(a.entry[i].tensor),
                    !strstr(a.entry[i].name, ".layers.0."), a.entry[i].name);
    }
    safetensors_close(&a);
    safetensors_close(&b);
    check_error(
        train("both", "--adapter run/adapter --esft-config run/expert_cfg.json", NULL, &err), &err,
        "one of both expected");
    esft_selection_close(&s);
    toy_close(&t);
}

// The adapter's tensors under other names (`cut` bytes off, the prefix in front), in a file of another name.
static void rename_tensors(const char *dir, int cut, const char *prefix)
{
    struct safetensors st;
    struct st_named named[64];
    char name[64][256], path[256];
    struct error err = {0};
    check_ok(safetensors_open(&st, "run/adapter/model.safetensors", &err), &err);
    assert_in_range(st.count, 1, 64);
    for (int64_t i = 0; i < st.count; i++) {
        snprintf(name[i], sizeof name[i], "%s%s", prefix, st.entry[i].name + cut);
        named[i] = (struct st_named){name[i], st.entry[i].tensor};
    }
    snprintf(path, sizeof path, "%s/old.safetensors", dir);
    check_ok(dir_make(dir, &err) && safetensors_write(path, named, st.count, NULL, &err), &err);
    snprintf(path, sizeof path, "%s/expert_cfg.json", dir);
    check_ok(file_copy(path, "run/adapter/expert_cfg.json", &err), &err);
    safetensors_close(&st);
}

static bool open_adapter(const char *adapter, struct error *err)
{
    struct options o;
    struct model m = {0};
    struct model_setup setup;
    char line[512];
    snprintf(line, sizeof line, "--model base --data x --dtype f32 --adapter %s", adapter);
    check_ok(pairs_options(&o, COMMAND_EVAL, line, err), err);
    bool ok = setup_model(&setup, &o, false, err);
    setup.max_tokens = 8;
    ok = ok && model_open(&m, &setup, err) && model_allocate(&m, err);
    model_close(&m);
    options_close(&o);
    return ok;
}

static void adapters_are_read_or_refused(void **state)
{
    (void)state;
    struct toy t;
    struct error err = {0};
    enter(&t);
    check_ok(train("run", "", NULL, &err), &err);
    rename_tensors("old", (int)strlen("model."), ""); // as the first released ones
    assert_true(loss("old") == loss("run/adapter"));
    rename_tensors("wrong", (int)strlen("model."), "base.");
    check_error(open_adapter("wrong", &err), &err, "has no place in base");
    check_ok(file_copy("old/second.safetensors", "old/old.safetensors", &err), &err);
    check_error(open_adapter("old", &err), &err, "2 other safetensors files");
    check_ok(dir_make("empty", &err), &err);
    check_error(open_adapter("empty", &err), &err, "an empty folder");

    // Another base: by its own word, and without that by shapes and by the choice.
    char *text, *at;
    size_t size;
    check_ok(file_read(&text, &size, "base.json", 1 << 20, &err), &err);
    at = strstr(text, "\"intermediate_size\": 12");
    assert_non_null(at);
    at[strlen("\"intermediate_size\": 1")] = '0';
    check_ok(file_write("base.json", text, size, &err), &err);
    fuse();
    check_error(open_adapter("run/adapter", &err), &err, "made on another base");
    assert_int_equal(unlink("run/adapter/moetune_adapter.json"), 0);
    check_error(open_adapter("run/adapter", &err), &err, "not of the shape");
    mem_free(text);
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_chosen_moves),
        cmocka_unit_test(the_plan_is_an_upper_bound),
        cmocka_unit_test(experts_chooses_as_training_does),
        cmocka_unit_test(training_goes_on_from_an_adapter),
        cmocka_unit_test(adapters_are_read_or_refused),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
