// test_options.c - the table of options and what reads it: defaults, argv, YAML, run.json, --help.
#include "support.h"

#include "base/mem.h"
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Options of one command, or the error that parsing gives.
static bool parse(struct options *o, enum command c, const char *line, struct error *err)
{
    static char text[4096];
    char *argv[64];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " ")) {
        argv[argc++] = p;
    }
    return options_parse(o, c, argc, argv, err);
}

static void check_parse_error(enum command c, const char *line, const char *needle)
{
    struct options o;
    struct error err = {""};
    check_error(parse(&o, c, line, &err), &err, needle);
    assert_null(strchr(err.msg, '\n'));
}

static bool read_yaml(struct options *o, const char *text, struct error *err)
{
    return options_read_yaml(o, text, strlen(text), "run.yaml", err);
}

static void check_yaml_error(const char *text, const char *needle)
{
    struct options o;
    struct error err = {""};
    options_defaults(&o, COMMAND_TRAIN);
    check_error(read_yaml(&o, text, &err), &err, needle);
    options_close(&o);
}

static void names_are_unique_in_a_command(void **state)
{
    (void)state;
    assert_true(option_count() <= OPTION_ROWS);
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *a = option_at(i);
        assert_true(a->commands != 0);
        assert_true((a->required & ~a->commands) == 0);
        for (int64_t j = 0; j < i; j++) {
            const struct option *b = option_at(j);
            if (!strcmp(a->name, b->name)) assert_int_equal(a->commands & b->commands, 0);
        }
        assert_true(strlen(a->name) < 48);
        assert_int_equal(strspn(a->name, "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(a->name));
        assert_true(strncmp(a->name, "no-", 3) != 0);
    }
}

static void foreign_names_lead_to_options(void **state)
{
    (void)state;
    const char *there, *here, *before = "";
    for (int64_t i = 0; (there = foreign_at(i, &here)); i++) {
        assert_true(strcmp(before, there) < 0); // sorted, once
        before = there;
        assert_non_null(option_find(COMMAND_TRAIN, here));
        assert_null(option_find(COMMAND_TRAIN, there));
        assert_string_equal(foreign_option(COMMAND_TRAIN, there), here);
    }
    assert_null(foreign_option(COMMAND_INSPECT, "learning_rate"));
}

static void rows_are_whole(void **state)
{
    (void)state;
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        assert_non_null(row->help);
        assert_true((row->type == OPTION_CHOICE) == (row->choices != NULL));
        assert_true((row->type == OPTION_NAME || row->type == OPTION_NAMES) == !!row->registry);
        const bool number = row->type == OPTION_INT || row->type == OPTION_REAL;
        if (number) assert_true(row->min < row->max);
        if (row->type != OPTION_BOOL && row->type != OPTION_CHOICE) assert_non_null(row->unit);
        if (number || row->type == OPTION_BOOL || row->type == OPTION_CHOICE) {
            assert_non_null(row->value);
        }
    }
}

// "lora, dora": names of the group's registry, and nothing else.
static void readers_are_methods(void **state)
{
    (void)state;
    int64_t seen = 0;
    for (int64_t i = 0; i < option_count(); i++) {
        const struct option *row = option_at(i);
        if (!row->of) continue;
        seen++;
        assert_true(row->group == GROUP_ROUTING || row->group == GROUP_TUNING);
        const struct registry *r =
            row->group == GROUP_ROUTING ? &routing_registry : &tuning_registry;
        char list[64];
        snprintf(list, sizeof list, "%s", row->of);
        for (char *at = NULL, *word = strtok_r(list, ", ", &at); word;
             word = strtok_r(NULL, ", ", &at)) {
            int64_t k = 0;
            while (r->name(k) && strcmp(r->name(k), word) != 0) {
                k++;
            }
            if (!r->name(k)) fail_msg("--%s is of %s, which is no method", row->name, word);
        }
    }
    assert_true(seen > 30);
}

static void every_default_parses(void **state)
{
    (void)state;
    for (int c = 0; c < COMMAND_COUNT; c++) {
        struct options o;
        struct error err = {""};
        options_defaults(&o, (enum command)c);
        for (int64_t i = 0; i < option_count(); i++) {
            const struct option *row = option_at(i);
            if (!row->value || !option_in(row, (enum command)c)) continue;
            check_ok(option_store(&o, row, row->value, row->name, &err), &err);
        }
        options_close(&o);
    }
}

static char *help_text(enum command c)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    help_command(f, c);
    fclose(f);
    return text;
}

// Is the name there, and not as the beginning of a longer one?
static bool shows(const char *text, const char *name)
{
    const char *at = text;
    while ((at = strstr(at, name))) {
        at += strlen(name);
        if (*at == ' ' || *at == '\n') return true;
    }
    return false;
}

static void help_shows_every_option(void **state)
{
    (void)state;
    for (int c = 0; c < COMMAND_COUNT; c++) {
        char *text = help_text((enum command)c), needle[80];
        for (int64_t i = 0; i < option_count(); i++) {
            const struct option *row = option_at(i);
            snprintf(needle, sizeof needle, row->type == OPTION_BOOL ? "\n  --[no-]%s" : "\n  --%s",
                     row->name);
            assert_true(shows(text, needle) == (option_find((enum command)c, row->name) != NULL));
        }
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
            if (strlen(line) > 108) fail_msg("too wide: %s", line);
        }
        free(text);
    }
    char *train = help_text(COMMAND_TRAIN);
    for (int i = 0; routings[i]; i++) {
        assert_non_null(strstr(train, routings[i]->help));
    }
    assert_non_null(strstr(train, "[1e-5]"));
    free(train);
}

static void flags_reach_their_fields(void **state)
{
    (void)state;
    struct options o;
    struct error err = {""};
    check_ok(parse(&o, COMMAND_TRAIN,
                   "--model m --data a b --data c --out o --lr=2.5e-4 --max-steps 7 --no-shuffle "
                   "--schedule linear --dtype f32 --too-long drop --freeze *.gate.weight --resume",
                   &err),
             &err);
    const struct run_config *c = &o.config;
    assert_string_equal(c->model, "m");
    assert_int_equal(c->data.count, 3);
    assert_string_equal(c->data.item[2], "c");
    assert_true(c->train.lr > 2.4e-4 && c->train.lr < 2.6e-4);
    assert_int_equal(c->train.max_steps, 7);
    assert_false(c->train.shuffle);
    assert_int_equal(c->train.schedule, SCHEDULE_LINEAR);
    assert_int_equal(c->dtype, DTYPE_F32);
    assert_int_equal(c->dataset.too_long, TOO_LONG_DROP);
    assert_string_equal(c->tuning_options.freeze, "*.gate.weight");
    assert_true(c->resume && c->recompute && !c->overwrite);
    assert_true(options_given(&o, "lr") && !options_given(&o, "clip"));
    options_close(&o);
}

static void bad_flags_are_named(void **state)
{
    (void)state;
    const char *base = "--model m --data a --out o";
    char line[256];
    static const struct {
        const char *flags, *needle;
    } cases[] = {
        {"--lerning-rate 1", "unknown option --lerning-rate"},
        {"--epoch 1", "did you mean --epochs?"},
        {"--hlep", "did you mean --help?"},
        {"--learning_rate 1", "unknown option --learning_rate; did you mean --lr?"},
        {"--per-device-train-batch-size=4", "did you mean --batch-sequences?"},
        {"--learning_rates 1", "see moetune train --help"},
        {"--temperature 1", "it belongs to generate"},
        {"--lr x", "--lr: found 'x', expected a number from 0 to 1000"},
        {"--lr 1e999", "--lr: found '1e999'"},
        {"--lr 0x10", "--lr: found '0x10'"},
        {"--lr inf", "--lr: found 'inf'"},
        {"--lr 1,5", "--lr: found '1,5'"},
        {"--lr -1", "--lr: found '-1'"},
        {"--max-steps 1.5", "--max-steps: found '1.5', expected a whole number"},
        {"--max-steps 99999999999999999999", "--max-steps: found"},
        {"--accumulate 0", "from 1 to"},
        {"--schedule cosin", "expected one of: constant, linear, cosine, cosine-floor"},
        {"--routing best", "--routing: found 'best', expected one of: topk"},
        {"--lr", "--lr needs a value"},
        {"--lr --max-steps 3", "--lr needs a value"},
        {"--no-shuffle=true", "takes no value"},
        {"--shuffle=maybe", "expected true or false"},
        {"--no-lr", "unknown option --no-lr"},
        {"-x", "they begin with two dashes"},
        {"--out=", "--out: found nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(line, sizeof line, "%s %s", base, cases[i].flags);
        check_parse_error(COMMAND_TRAIN, line, cases[i].needle);
    }
    check_parse_error(COMMAND_TRAIN, "--model m --out o", "train needs --data");
    check_parse_error(COMMAND_EVAL, "--model m", "eval needs --data");
    check_parse_error(COMMAND_GENERATE, "--model m --prompt p stray", "found 'stray'");
    check_parse_error(COMMAND_BENCH, "--config c --routing topk,best", "found 'best'");
}

static void yaml_is_read(void **state)
{
    (void)state;
    struct options o;
    struct error err = {""};
    options_defaults(&o, COMMAND_TRAIN);
    check_ok(read_yaml(&o,
                       "# a comment\nmodel: base\ndata:\n- a b.jsonl\n- \"c\\u00e9\"\nlr: 3e-4\n"
                       "shuffle: false\nmax_steps: 12\nvalidation: one.jsonl\nout: ~\n",
                       &err),
             &err);
    assert_string_equal(o.config.model, "base");
    assert_int_equal(o.config.data.count, 2);
    assert_string_equal(o.config.data.item[1], "c\xc3\xa9");
    assert_int_equal(o.config.train.max_steps, 12);
    assert_int_equal(o.config.validation.count, 1);
    assert_false(o.config.train.shuffle);
    assert_null(o.config.out);
    options_close(&o);
}

static void bad_yaml_is_named_by_line(void **state)
{
    (void)state;
    check_yaml_error("num_train_epochs: 3\n",
                     "run.yaml:1: unknown option 'num_train_epochs'; did you mean epochs?");
    check_yaml_error("hepl: 1\n", "run.yaml:1: unknown option 'hepl'");
    check_yaml_error("lr: 1\nlrr: 2\n", "run.yaml:2: unknown option 'lrr'; did you mean lr?");
    check_yaml_error("max-steps: 2\n",
                     "run.yaml:1: unknown option 'max-steps'; did you mean max_steps?");
    check_yaml_error("config: x\n", "unknown option 'config'");
    check_yaml_error("lr: 1\n\nlr: 2\n", "run.yaml:3: lr is given twice, first on line 1");
    check_yaml_error("lr: fast\n", "run.yaml:1: lr: found 'fast', expected a number");
    check_yaml_error("lr: [1, 2]\n", "lr: found a list");
    check_yaml_error("lr: {a: 1}\n", "nested mapping");
    check_yaml_error("data: [[a]]\n", "nested mapping or list");
    check_yaml_error("data: &x [a]\n", "an anchor");
    check_yaml_error("model: &x a\n", "an anchor");
    check_yaml_error("model: a\nout: *x\n", "run.yaml:2");
    check_yaml_error("model: &a b\nout: *a\n", "an anchor");
    check_yaml_error("model: !!str a\n", "a tag");
    check_yaml_error("- a\n- b\n", "expected a mapping");
    check_yaml_error("a", "expected a mapping");
    check_yaml_error("model: a\n---\nmodel: b\n", "a second document");
    check_yaml_error("model: \"a\\0b\"\n", "a NUL byte");
    check_yaml_error("lr: 1\nmodel: \"a\n", "run.yaml:3");
    check_yaml_error("shuffle: yes\n", "expected true or false");
    check_yaml_error("model: \xff\xfe\n", "run.yaml");
}

static void write_text(const char *path, const char *text)
{
    struct error err = {""};
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static void a_flag_beats_the_file(void **state)
{
    (void)state;
    char path[1100], line[2400];
    struct options o;
    struct error err = {""};
    snprintf(path, sizeof path, "%s/run.yaml", test_dir());
    write_text(path, "model: file\ndata: [x, y]\nlr: 1e-3\nclip: 2\nout: o\n");
    snprintf(line, sizeof line, "--lr 5e-4 --config %s --data z", path);
    check_ok(parse(&o, COMMAND_TRAIN, line, &err), &err);
    assert_string_equal(o.config.model, "file");
    assert_int_equal(o.config.data.count, 1);
    assert_string_equal(o.config.data.item[0], "z");
    assert_true(o.config.train.lr < 6e-4 && o.config.train.clip > 1.9);
    options_close(&o);
    write_text(path, "model: file\ndata: [x]\nlr: bad\nout: o\n");
    check_parse_error(COMMAND_TRAIN, line, "run.yaml:3: lr: found 'bad'");
}

// What run.json says is read back as what it was, and --resume finds it by itself.
static void run_json_comes_back(void **state)
{
    (void)state;
    char path[1100], line[2400];
    struct options a, b;
    struct error err = {""};
    snprintf(line, sizeof line,
             "--model m --data x y --out %s --lr 0.1 --eps 3.3e-9 --no-shuffle --train *.gate.*",
             test_dir());
    check_ok(parse(&a, COMMAND_TRAIN, line, &err), &err);
    json_t *first = options_json(&a, false);
    assert_true(json_is_real(json_object_get(first, "lr")));
    assert_true(json_is_integer(json_object_get(first, "max_steps")));
    assert_true(json_is_null(json_object_get(first, "freeze")));
    assert_true(json_is_array(json_object_get(first, "data")));
    assert_true(json_is_false(json_object_get(first, "shuffle")));
    char *text = json_dumps(first, JSON_INDENT(2));
    snprintf(path, sizeof path, "%s/run.json", a.config.out);
    write_text(path, text);
    snprintf(line, sizeof line, "--resume --out %s --max-steps 9", a.config.out);
    check_ok(parse(&b, COMMAND_TRAIN, line, &err), &err);
    assert_int_equal(b.config.train.max_steps, 9);
    b.config.train.max_steps = 0;
    json_t *second = options_json(&b, false);
    assert_true(json_equal(first, second));
    free(text);
    json_decref(first);
    json_decref(second);
    options_close(&a);
    options_close(&b);
}

static void deciding_options_decide(void **state)
{
    (void)state;
    struct options o;
    options_defaults(&o, COMMAND_TRAIN);
    json_t *d = options_json(&o, true);
    assert_non_null(json_object_get(d, "lr"));
    assert_non_null(json_object_get(d, "seed"));
    assert_non_null(json_object_get(d, "routing"));
    assert_null(json_object_get(d, "threads"));
    assert_null(json_object_get(d, "recompute"));
    assert_null(json_object_get(d, "save_every"));
    json_decref(d);
    options_close(&o);
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 40; n++) {
        struct options o;
        struct error err = {""};
        mem_fail_at(n, true);
        const bool ok =
            parse(&o, COMMAND_BENCH, "--config c --routing topk,topk --tuning full", &err);
        mem_fail_at(0, false);
        if (!ok) {
            assert_non_null(strstr(err.msg, "memory"));
            continue;
        }
        options_close(&o);
        assert_true(n > 3);
        return;
    }
    fail_msg("never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique_in_a_command),
        cmocka_unit_test(foreign_names_lead_to_options),
        cmocka_unit_test(rows_are_whole),
        cmocka_unit_test(readers_are_methods),
        cmocka_unit_test(every_default_parses),
        cmocka_unit_test(help_shows_every_option),
        cmocka_unit_test(flags_reach_their_fields),
        cmocka_unit_test(bad_flags_are_named),
        cmocka_unit_test(yaml_is_read),
        cmocka_unit_test(bad_yaml_is_named_by_line),
        cmocka_unit_test(a_flag_beats_the_file),
        cmocka_unit_test(run_json_comes_back),
        cmocka_unit_test(deciding_options_decide),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
