// tests/cli/test_experts.c - `experts` from its options to its lines of JSON and its CSV, against what
// fixtures/make_experts.py computes with the models of transformers: use, gini, covers, pruning, drift and likeness,
// under every routing that routes otherwise. Limits: 1e-5 of a figure, of losses too; counts and choices are equal.
#include "pairs.h"

#include "cli/experts.h"

#include <unistd.h>

static const char *const models[] = {"olmoe", "qwen-norm"};
enum { MODELS = 2, TOKENS = 1 << 20 };
static const double limit = 1e-5;

static char model_name[64];

static const char *in(const char *folder, const char *name)
{
    static char path[4][1024];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s/%s/%s", FIXTURES, folder, model_name, name);
    return path[turn];
}

// BIAS and BASE of a case's options stand for paths.
static void put_options(struct buf *b, const char *args)
{
    while (*args) {
        const size_t n = strcspn(args, " ");
        if (n == 4 && !strncmp(args, "BASE", 4)) {
            buf_puts(b, in("routing", "v5"));
        } else if (n == 4 && !strncmp(args, "BIAS", 4)) {
            buf_puts(b, in("experts", "moe_bias_states.json"));
        } else {
            buf_append(b, args, n);
        }
        args += n;
        args += strspn(args, " ");
        buf_puts(b, " ");
    }
}

static enum status command(const char *line, FILE *result, struct error *err)
{
    struct options o;
    FILE *null = fopen("/dev/null", "w");
    struct output io = {.result = result ? result : null,
                        .people = null,
                        .status = null,
                        .quiet = true,
                        .json = result != NULL};
    check_ok(pairs_options(&o, COMMAND_EXPERTS, line, err), err);
    const enum status status = command_experts(&o, &io, err);
    options_close(&o);
    fclose(null);
    return status;
}

static enum status run(const char *more, FILE *result, struct error *err)
{
    struct buf line = {0};
    buf_printf(&line, "--model %s --data %s --dtype f32 --batch-tokens 100 --tokens 0 ",
               in("experts", "tuned"), in("experts", "data.jsonl"));
    put_options(&line, more);
    const enum status status = command(line.data, result, err);
    buf_free(&line);
    return status;
}

static void check_value(const char *what, const json_t *got, const json_t *want)
{
    if (!json_is_number(got)) fail_msg("%s: missing", what);
    const double x = json_number_value(got), y = json_number_value(want);
    if (!(fabs(x - y) <= limit)) fail_msg("%s: %.9g, %.9g expected", what, x, y);
}

// All that the reference has: numbers within the limit, lists of ids the same.
static void check_object(const char *where, const json_t *got, const json_t *want)
{
    const char *key;
    json_t *value;
    char what[256];
    if (!json_is_object(got)) fail_msg("%s: missing", where);
    json_object_foreach((json_t *)(uintptr_t)want, key, value)
    {
        const json_t *mine = json_object_get(got, key);
        snprintf(what, sizeof what, "%s.%s", where, key);
        if (json_is_object(value)) {
            check_object(what, mine, value);
        } else if (json_is_array(value)) {
            assert_int_equal(json_array_size(mine), json_array_size(value));
            for (size_t i = 0; i < json_array_size(value); i++) {
                check_value(what, json_array_get(mine, i), json_array_get(value, i));
            }
        } else {
            check_value(what, mine, value);
        }
    }
}

static void check_point(const json_t *got, const json_t *want)
{
    static const char *const keys[] = {"percent", "dropped", "loss", "accuracy"};
    char what[64];
    const char *order = json_string_value(json_array_get(want, 0));
    assert_string_equal(json_string_value(json_object_get(got, "prune")), order);
    for (size_t i = 0; i < 4; i++) {
        snprintf(what, sizeof what, "%s, %g %%: %s", order,
                 json_number_value(json_array_get(want, 1)), keys[i]);
        check_value(what, json_object_get(got, keys[i]), json_array_get(want, i + 1));
    }
}

static void check_lines(FILE *f, const json_t *want)
{
    const json_t *layers = json_object_get(want, "layers"), *prune = json_object_get(want, "prune");
    char *line = NULL, number[32];
    size_t size = 0, seen = 0, points = 0;
    rewind(f);
    while (getline(&line, &size, f) > 0) {
        json_t *got = json_loads(line, 0, NULL);
        assert_non_null(got);
        const json_t *layer = json_object_get(got, "layer");
        if (layer) {
            snprintf(number, sizeof number, "%d", (int)json_integer_value(layer));
            check_object(number, got, json_object_get(layers, number));
            // Nothing is told that was not asked for.
            assert_int_equal(json_object_get(got, "kl") != NULL,
                             json_object_get(json_object_get(layers, number), "kl") != NULL);
            seen++;
        } else {
            check_point(got, json_array_get(prune, points++));
        }
        json_decref(got);
    }
    free(line); // getline's own allocation
    assert_int_equal(seen, json_object_size(layers));
    assert_int_equal(points, json_array_size(prune));
}

// The CSV says what the lines of JSON say.
static void check_csv(const char *path, FILE *f)
{
    struct error err = {0};
    char *text, *line = NULL, row[256];
    size_t bytes, size = 0;
    check_ok(file_read(&text, &bytes, path, 1 << 24, &err), &err);
    assert_int_equal(strncmp(text, "kind,layer,expert,percent,name,value\n", 37), 0);
    rewind(f);
    while (getline(&line, &size, f) > 0) {
        json_t *got = json_loads(line, 0, NULL), *by = json_object_get(got, "by_gate");
        if (by) {
            const json_t *share = json_object_get(by, "share");
            const int l = (int)json_integer_value(json_object_get(got, "layer"));
            for (size_t e = 0; e < json_array_size(share); e++) {
                snprintf(row, sizeof row, "\nexpert,%d,%d,,gate_share,%.9g\n", l, (int)e,
                         json_number_value(json_array_get(share, e)));
                if (!strstr(text, row)) fail_msg("not in the CSV: %s", row);
            }
            snprintf(row, sizeof row, "\nlayer,%d,,,token_cover80,%d\n", l,
                     (int)json_array_size(json_object_get(
                         json_object_get(json_object_get(got, "by_token"), "super"), "80")));
        } else {
            snprintf(row, sizeof row, "\nprune-%s,,,%g,loss,%.9g\n",
                     json_string_value(json_object_get(got, "prune")),
                     json_number_value(json_object_get(got, "percent")),
                     json_number_value(json_object_get(got, "loss")));
        }
        if (!strstr(text, row)) fail_msg("not in the CSV: %s", row);
        json_decref(got);
    }
    free(line);
    mem_free(text);
}

static void figures_are_those_of_transformers(void **state)
{
    (void)state;
    const char *dir = test_dir();
    for (int m = 0; m < MODELS; m++) {
        struct error err = {0};
        char more[2048], csv[512], page[512];
        snprintf(model_name, sizeof model_name, "%s", models[m]);
        json_t *cases = json_parse_file(in("experts", "expected.json"), 1 << 24, &err);
        check_ok(cases != NULL, &err);
        assert_true(json_array_size(cases) >= 6);
        snprintf(csv, sizeof csv, "%s/%s.csv", dir, models[m]);
        snprintf(page, sizeof page, "%s/%s.html", dir, models[m]);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *want = json_array_get(cases, i);
            FILE *f = tmpfile();
            assert_non_null(f);
            snprintf(more, sizeof more, "%s --correlation-tokens %d --csv %s --charts %s",
                     json_string_value(json_object_get(want, "args")), TOKENS, csv, page);
            print_message("%s %s\n", models[m], more);
            check_ok(run(more, f, &err) == STATUS_DONE, &err);
            check_lines(f, want);
            check_csv(csv, f);
            assert_true(file_exists(page));
            fclose(f);
        }
        json_decref(cases);
    }
}

// A model beside itself has not moved; the figures do not depend on how the data are cut into micro-batches.
static void a_model_beside_itself(void **state)
{
    (void)state;
    struct error err = {0};
    char more[1024], *line = NULL;
    size_t size = 0, layers = 0;
    snprintf(model_name, sizeof model_name, "olmoe");
    FILE *f = tmpfile();
    snprintf(more, sizeof more, "--base %s --correlation both", in("experts", "tuned"));
    check_ok(run(more, f, &err) == STATUS_DONE, &err);
    rewind(f);
    while (getline(&line, &size, f) > 0) {
        json_t *got = json_loads(line, 0, NULL);
        assert_true(json_number_value(json_object_get(got, "kl")) == 0);
        assert_true(json_number_value(json_object_get(got, "changed")) == 0);
        assert_true(fabs(json_number_value(json_object_get(got, "weights_kept")) - 1) < 1e-6);
        assert_true(fabs(json_number_value(json_object_get(got, "outputs_kept")) - 1) < 1e-6);
        json_decref(got);
        layers++;
    }
    assert_int_equal(layers, 2);
    free(line);
    fclose(f);
}

static void train_adapter(const char *tuning)
{
    struct options o;
    struct job j;
    struct train_result r;
    struct error err = {0};
    char line[512];
    snprintf(line, sizeof line,
             "--model base --data base/data.jsonl --dtype f32 --tuning %s --lora-rank 3 --out run "
             "--overwrite --batch-tokens 60 --lr 5e-2 --max-steps 4 --threads 1",
             tuning);
    check_ok(pairs_options(&o, COMMAND_TRAIN, line, &err), &err);
    check_ok(job_open(&j, &o, "run", NULL, &err) && trainer_run(j.trainer, &r, &err), &err);
    job_close(&j);
    options_close(&o);
}

// A model with an adapter and the two folded into one have the same figures.
static void an_adapter_counts_as_merged(void **state)
{
    (void)state;
    static const char *const adapters[] = {"lora", "dora"};
    static const char usual[] = "--data base/data.jsonl --dtype f32 --batch-tokens 60 --prune most "
                                "--base base --correlation both";
    struct toy t;
    toy_open(&t);
    pairs_write_data(&t);
    assert_int_equal(chdir(toy_path(t.base, "..")), 0);
    for (int i = 0; i < 2; i++) {
        struct error err = {0};
        char line[512], *text[2] = {NULL, NULL};
        size_t size[2] = {0};
        FILE *f[2] = {tmpfile(), tmpfile()};
        train_adapter(adapters[i]);
        check_ok(dir_remove("merged", &err), &err);
        pairs_merge("--model base --adapter run/adapter --out merged");
        snprintf(line, sizeof line, "--model base --adapter run/adapter %s", usual);
        check_ok(command(line, f[0], &err) == STATUS_DONE, &err);
        snprintf(line, sizeof line, "--model merged %s", usual);
        check_ok(command(line, f[1], &err) == STATUS_DONE, &err);
        rewind(f[0]), rewind(f[1]);
        int lines = 0;
        while (getline(&text[0], &size[0], f[0]) > 0 && getline(&text[1], &size[1], f[1]) > 0) {
            json_t *a = json_loads(text[0], 0, NULL), *b = json_loads(text[1], 0, NULL);
            json_object_del(b, "prune");
            check_object(adapters[i], a, b);
            const json_t *kept = json_object_get(a, "weights_kept");
            if (!lines) assert_true(json_number_value(kept) < 0.9999); // something moved
            lines++;
            json_decref(a);
            json_decref(b);
        }
        assert_true(lines > 2);
        free(text[0]), free(text[1]); // getline's own allocations
        fclose(f[0]), fclose(f[1]);
    }
    toy_close(&t);
}

// The n-th allocation fails, for every n: an error each time, and at last all is there.
static void no_memory_is_an_error(void **state)
{
    (void)state;
    struct error err = {0};
    struct options o;
    char line[2048];
    const char *dir = test_dir();
    FILE *null = fopen("/dev/null", "w");
    struct output io = {
        .result = null, .people = null, .status = null, .quiet = true, .json = true};
    snprintf(model_name, sizeof model_name, "olmoe");
    snprintf(line, sizeof line,
             "--model %s --base %s --data %s --dtype f32 --limit 3 --prune most --prune-at 0,30 "
             "--correlation both --csv %s/a.csv --charts %s/a.html",
             in("experts", "tuned"), in("routing", "v5"), in("experts", "data.jsonl"), dir, dir);
    check_ok(pairs_options(&o, COMMAND_EXPERTS, line, &err), &err);
    int64_t failures = 0;
    for (int64_t n = 1;; n++) {
        const int64_t before = mem_count();
        json_begin();
        mem_fail_at(n, false);
        const enum status status = command_experts(&o, &io, &err);
        const bool reached = mem_count() - before >= n;
        mem_fail_at(0, false);
        if (!reached) { // nothing failed
            check_ok(status == STATUS_DONE, &err);
            break;
        }
        failures += status != STATUS_DONE;
    }
    assert_true(failures > 100);
    options_close(&o);
    fclose(null);
}

static void what_does_not_go_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *more, *words;
    } bad[] = {
        {"--prune most --prune-at 0,70",
         "--prune-at: 70 % of 7 experts leaves 3, but a token takes 4"},
        {"--prune least --prune-at 10,5", "ascending numbers from 0 to 100"},
        {"--prune least --prune-at 10,x", "--prune-at: found '10,x'"},
        {"--prune least --prune-at 10,", "--prune-at: found '10,'"},
        {"--prune least --prune-at 110", "--prune-at: found '110'"},
    };
    struct error err = {0};
    char more[1024];
    snprintf(model_name, sizeof model_name, "qwen-norm");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_error(run(bad[i].more, NULL, &err) == STATUS_DONE, &err, bad[i].words);
    }
    snprintf(more, sizeof more, "--base %s/routing/qwen/v5", FIXTURES);
    check_error(run(more, NULL, &err) == STATUS_DONE, &err, "layers, but");
    snprintf(more, sizeof more, "--base %s/parity/llama/v4", FIXTURES);
    check_error(run(more, NULL, &err) == STATUS_DONE, &err, "the same expected");
    snprintf(more, sizeof more, "--model %s/parity/llama/v4", FIXTURES);
    check_error(run(more, NULL, &err) == STATUS_DONE, &err, "the model has no experts");
    snprintf(more, sizeof more, "--csv %s/no/such/folder.csv", test_dir());
    check_error(run(more, NULL, &err) == STATUS_DONE, &err, "folder.csv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_transformers),
        cmocka_unit_test(a_model_beside_itself),
        cmocka_unit_test(an_adapter_counts_as_merged),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(what_does_not_go_is_refused),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
