// tests/torture/test_bad_weights.c - models and data that hold what is not a finite number, or overflow: whatever is
// wrong is said, before step 1 where it can be seen there, and every file that a run leaves is finite.
#include "bad_step.h"
#include "form.h"

#include "base/log.h"

#include <unistd.h>

static int64_t runs, refused, skipping, harmless, scanned;
static bool full;
static struct toy toy;

// The toy's model again, stored as `dtype`.
static void make_base(const char *dtype)
{
    struct error err = {0};
    const struct model_init_options o = {
        .config = "base.json", .out = "base", .dtype = dtype, .seed = 11, .overwrite = true};
    check_ok(model_init(&o, &err), &err);
}

// Elements [first, first + n) of a tensor of the base become `value`.
static void spoil(const char *name, int64_t first, int64_t n, float value)
{
    struct safetensors st;
    struct error err = {0};
    check_ok(safetensors_open(&st, "base/model.safetensors", &err), &err);
    const struct st_entry *e = safetensors_find(&st, name);
    assert_non_null(e);
    const enum dtype type = e->tensor.dtype;
    const int64_t count = tensor_count(e->tensor);
    const long at = (long)((const unsigned char *)e->tensor.data - st.map.data);
    safetensors_close(&st);
    if (n < 0) n = count;
    FILE *f = fopen("base/model.safetensors", "r+b");
    assert_non_null(f);
    fseek(f, at + (long)(first % count) * (long)dtype_size(type), SEEK_SET);
    for (int64_t i = 0; i < n; i++) {
        char bytes[8];
        const float signed_value = i % 3 ? value : -value;
        dtype_convert(bytes, type, &signed_value, DTYPE_F32, 1);
        assert_int_equal(fwrite(bytes, dtype_size(type), 1, f), 1);
    }
    fclose(f);
}

static void scan_file(const char *path)
{
    struct safetensors st;
    struct error err = {0};
    check_ok(safetensors_open(&st, path, &err), &err);
    for (int64_t i = 0; i < st.count; i++) {
        const struct tensor t = st.entry[i].tensor;
        for (int64_t k = 0; st.entry[i].known && t.dtype <= DTYPE_F64 && k < tensor_count(t); k++) {
            double value = 0;
            dtype_convert(&value, DTYPE_F64, (char *)t.data + (size_t)k * dtype_size(t.dtype),
                          t.dtype, 1);
            if (!isfinite(value)) fail_msg("%s: %s: %f", path, st.entry[i].name, value);
        }
    }
    safetensors_close(&st);
    scanned++;
}

// All tensors of a folder of a run's; what of the base is copied as it is may be as bad as the base.
static void scan(const char *dir)
{
    struct dir_names names;
    struct error err = {0};
    if (!file_exists(dir)) return;
    check_ok(dir_list(&names, dir, &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", dir, names.name[i]);
        if (strstr(path, ".safetensors")) scan_file(path);
        if (!strncmp(names.name[i], "checkpoint-", 11) || !strcmp(names.name[i], "adapter")) {
            scan(path);
        }
    }
    dir_names_free(&names);
}

// A run over what is bad: refused by name before it writes anything; ended; or to its end.
static void check_run(const char *what, const char *routing, const char *tuning, const char *more)
{
    struct bad_run r = {0};
    struct error err = {0};
    char options[512];
    check_ok(dir_remove("bad", &err), &err);
    snprintf(options, sizeof options, "--save-every 1 --keep-last 9 %s", more);
    bad_run(&r, "bad", routing, tuning, options);
    runs++;
    scan("bad");
    if (!r.ok) {
        const bool before = !file_exists("bad/run.json");
        const bool known = before ? strstr(r.err.msg, "not finite, and would learn") != NULL
                                  : strstr(r.err.msg, "finite") != NULL;
        // Where the squares overflow a norm gives 0, as torch's does: all experts look alike then. Or all steps of
        // phase 1 were skipped, fewer than three.
        const bool idle = strstr(r.err.msg, "the bias is zero everywhere") != NULL;
        if (!known && !idle) fail_msg("%s, %s x %s %s: %s", what, routing, tuning, more, r.err.msg);
        assert_false(file_exists("bad/model") || file_exists("bad/adapter"));
        refused++;
    } else if (r.result.skipped) {
        skipping++;
    } else {
        harmless++;
    }
}

static const struct {
    const char *tuning, *options;
} ways[] = {
    {"full", ""},
    {"lora", ""},
    {"full", "--freeze model.embed*,*.mlp.*"},
    {"esft", ""},
    {"smt", "--smt-select activation"},
    {"full", "--fused-backward --clip 0 --optimizer-states 8bit"},
    {"dora", "--accumulate 2"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static int64_t n_routings(void)
{
    int64_t n = 0;
    while (routings[n]) {
        n++;
    }
    return n;
}

static void spoil_each_tensor(const char *dtype, const float *value, int n_values, bool whole,
                              const char *more)
{
    struct safetensors st;
    struct error err = {0};
    make_base(dtype);
    check_ok(safetensors_open(&st, "base/model.safetensors", &err), &err);
    const int64_t count = st.count;
    char(*name)[128] = mem_alloc((size_t)count * sizeof *name);
    for (int64_t i = 0; i < count; i++) {
        snprintf(name[i], sizeof name[i], "%s", st.entry[i].name);
    }
    safetensors_close(&st);
    for (int64_t i = 0; i < count; i++) {
        for (int v = 0; v < n_values; v++) {
            make_base(dtype);
            spoil(name[i], 7 * i + v, whole ? -1 : 1, value[v]);
            for (int64_t w = 0; w < WAYS; w++) {
                char options[512];
                if (!full && w != (i + v) % WAYS) continue;
                const struct routing *r = routings[(i / WAYS + v + w) % n_routings()];
                snprintf(options, sizeof options, "%s %s", ways[w].options, more);
                check_run(name[i], r->name, ways[w].tuning, options);
            }
        }
    }
    mem_free(name);
}

static void one_bad_weight(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, 3e38F};
    spoil_each_tensor("f32", values, 3, false, "");
}

// Whole matrices that overflow in the activations, with products in bf16 and in f32.
static void huge_weights(void **state)
{
    (void)state;
    static const float huge[] = {1e38F}, large[] = {1e20F};
    spoil_each_tensor("bf16", huge, 1, true, "--dtype bf16");
    if (full) spoil_each_tensor("bf16", large, 1, true, "--dtype bf16 --products f32");
}

static void learn_and_refuse(const char *dtype, const char *tuning, const char *more)
{
    struct bad_run r = {0};
    struct error err = {0};
    check_ok(dir_remove("bad", &err), &err);
    make_base(dtype);
    bad_run(&r, "bad", "topk", tuning, more);
    runs++;
    check_error(r.ok, &r.err, "does not fit");
    assert_false(file_exists("bad/model") || file_exists("bad/adapter"));
    scan("bad");
    refused++;
}

// A weight that a float32 master holds and the stored type does not: nothing infinite is exported.
static void values_beyond_the_stored_type(void **state)
{
    (void)state;
    learn_and_refuse("f16", "full", "--max-steps 1 --lr 1e3 --clip 0 --weight-decay 1e3");
    learn_and_refuse("f16", "full",
                     "--max-steps 1 --lr 1e3 --clip 0 --freeze *.mlp.*"
                     " --weight-decay 1e3");
    learn_and_refuse("f16", "lora", "--max-steps 2 --lr 1e3 --clip 0 --merge");
    make_base("f32");
}

// The last token of every example is one whose embedding is no number. Its row predicts nothing, so that losses
// are finite; what counts or scores rows sees it.
static void end_in(int32_t token)
{
    for (int64_t i = 0; i < toy.data.count; i++) {
        const struct example *e = &toy.data.example[i];
        toy.data.id[e->first + e->count - 1] = token;
    }
    pairs_write_data(&toy);
}

static void a_bad_row_that_predicts_nothing(void **state)
{
    (void)state;
    static const char *const more[] = {
        "--freeze model.*",
        "--freeze model.embed*",
        "--freeze model.* --bias-every micro-batch",
        "--freeze model.* --bias-usage count",
        "--freeze model.* --fused-backward --clip 0",
        "--freeze model.* --aux-coef 0.01 --z-coef 0.01",
    };
    make_base("f32");
    spoil("model.embed_tokens.weight", (TOY_VOCAB - 1) * 16, 16, NAN);
    end_in(TOY_VOCAB - 1);
    for (int i = 0; routings[i]; i++) {
        for (size_t k = 0; k < sizeof more / sizeof *more; k++) {
            check_run("a last row", routings[i]->name, "full", more[k]);
        }
        check_run("a last row", routings[i]->name, "lora", "");
        check_run("a last row", routings[i]->name, "esft", "--esft-score gate");
        check_run("a last row", routings[i]->name, "esft", "--esft-score token");
        check_run("a last row", routings[i]->name, "smt", "");
        check_run("a last row", routings[i]->name, "smt", "--smt-select activation");
    }
    end_in(3);
    make_base("f32");
}

static int64_t said;

static void hear(enum log_level level, const char *line, void *user)
{
    (void)user;
    said += level == LOG_WARNING && strstr(line, "validation loss is not finite");
}

// Validation data with a token that the model cannot compute: said each time, and nothing else happens.
static void a_bad_validation_loss(void **state)
{
    (void)state;
    struct error err = {0};
    const char text[] = "{\"input_ids\": [1, 30, 3, 4], \"labels\": [1, 30, 3, 4]}\n";
    check_ok(file_write("base/validation.jsonl", text, strlen(text), &err), &err);
    spoil("model.embed_tokens.weight", (TOY_VOCAB - 1) * 16, 1, NAN);
    for (int i = 0; routings[i]; i++) {
        struct bad_run with = {0}, without = {0};
        const char *const frozen = "--overwrite --freeze model.embed*";
        char options[512];
        bad_run(&without, "clean", routings[i]->name, "full", frozen);
        check_ok(without.ok, &without.err);
        snprintf(options, sizeof options,
                 "%s --validation base/validation.jsonl --eval-every 1 --export best", frozen);
        said = 0;
        log_set_sink(hear, NULL);
        bad_run(&with, "bad", routings[i]->name, "full", options);
        log_set_sink(NULL, NULL);
        check_ok(with.ok, &with.err);
        assert_int_equal(said, with.result.steps + 1); // and before the first
        assert_int_equal(with.result.best_step, 0);
        check_same_folder(without.result.exported, with.result.exported);
        runs += 2;
    }
    make_base("f32");
}

static int prepare(void **state)
{
    (void)state;
    full = torture_full();
    toy_open(&toy);
    pairs_write_data(&toy);
    return chdir(toy_path(toy.base, ".."));
}

static int finish(void **state)
{
    (void)state;
    toy_close(&toy);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bad_weight),
        cmocka_unit_test(huge_weights),
        cmocka_unit_test(values_beyond_the_stored_type),
        cmocka_unit_test(a_bad_row_that_predicts_nothing),
        cmocka_unit_test(a_bad_validation_loss),
    };
    const int failed = cmocka_run_group_tests(tests, prepare, finish);
    printf(
        "torture: %d runs over bad weights and rows: %d ended with a reason, %d skipped steps, %d "
        "were not touched by it; all %d files of tensors that they left are finite\n",
        (int)runs, (int)refused, (int)skipping, (int)harmless, (int)scanned);
    return failed;
}
