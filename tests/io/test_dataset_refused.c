// tests/io/test_dataset_refused.c - data files and options that are refused: each is named with its file,
// its line, what was found and what was expected.
#include "data_fixtures.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/dataset_source.h"

#include <string.h>

static struct tokenizer *tokenizer; // the fixtures'; opened once, as it does not change

static int open_tokenizer(void **state)
{
    (void)state;
    tokenizer = small_tokenizer();
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static void bad_examples_are_named(void **state)
{
    (void)state;
    static const char good[] = "{\"text\":\"ok\"}\n";
    static const struct {
        const char *line, *names;
    } cases[] = {
        {"{\"text\":\"a\",\"text\":\"b\"}", ":2: not valid JSON"},
        {"{\"text\":\"a\"} x", ":2: not valid JSON"},
        {"{\"text\":\"\\ud800\"}", ":2: not valid JSON"},
        {"{\"text\":\"\xff\"}", ":2: not valid JSON"},
        {"[3]", "found an array, expected an object"},
        {"3", "not valid JSON"},
        {"{\"id\":1,\"answer\":\"x\"}", "found id, answer, expected input_ids, messages"},
        {"{}", "found nothing, expected"},
        {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}", "g, h, ...,"},
        {"{\"text\":1.5}", ":2: text: found a number, expected text"},
        {"{\"text\":false}", ":2: text: found true or false, expected text"},
        {"{\"text\":null}", ":2: text: found null, expected text"},
        {"{\"prompt\":\"a\",\"id\":3}", "completion: missing beside 'prompt' (found prompt, id)"},
        {"{\"completion\":\"a\"}", "prompt: missing beside 'completion'"},
        {"{\"prompt\":\"a\",\"completion\":4}", "completion: found an integer, expected text"},
        {"{\"question\":\"a\"}", "answer: missing"},
        {"{\"instruction\":\"a\",\"output\":\"b\",\"input\":[]}", "input: found an array"},
        {"{\"instruction\":\"a\",\"input\":\"b\"}", "output: missing"},
        {"{\"messages\":{}}", "messages: found an object, expected an array"},
        {"{\"messages\":[]}", "found an empty array"},
        {"{\"messages\":[3]}", "messages[0]: found an integer"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0]: content: missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "content: found an array"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]}", "found 'tool', expected system"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"mask\":2}]}", "mask: found"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"mask\":\"1\"}]}",
         "mask: found text"},
        {"{\"conversations\":[{\"role\":\"user\",\"content\":\"\"}]}", "[0]: from: missing"},
        {"{\"conversations\":[{\"from\":\"bot\",\"value\":\"\"}]}", "found 'bot', expected system"},
        {"{\"input_ids\":[1]}", "labels: found nothing, expected an array"},
        {"{\"input_ids\":[1,2],\"labels\":[1]}", "found 1 elements, expected 2"},
        {"{\"input_ids\":[1,2],\"labels\":[1,3]}", "labels[1]: found an integer 3, expected -100"},
        {"{\"input_ids\":[1,-2],\"labels\":[1,-2]}", "input_ids[1]"},
        {"{\"input_ids\":[1,99999],\"labels\":[1,99999]}", "token id 99999, expected one below"},
        {"{\"input_ids\":[],\"labels\":[]}", "found no elements"},
        {"{\"input_ids\":[1,2],\"labels\":[1,2],\"attention_mask\":[1,0]}", "attention_mask[1]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        snprintf(text, sizeof text, "%s%s\n%s", good, cases[i].line, good);
        const char *file = file_of(text);
        struct dataset_options o = small_options(&file, "plain");
        struct dataset d;
        struct error err = {0};
        check_error(dataset_open(&d, &o, tokenizer, &err), &err, cases[i].names);
        assert_non_null(strstr(err.msg, "data.jsonl:2"));
        o.skip_bad = true;
        check_ok(dataset_open(&d, &o, tokenizer, &err), &err);
        assert_int_equal(d.count, 2);
        assert_int_equal(d.bad, 1);
        dataset_close(&d);
    }
}

static void bad_files_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *names;
    } cases[] = {
        {"", "no examples"},
        {" \n\n", "no examples"},
        {"[]", "no examples"},
        {"[", "the file ends within the array, expected an object or ']'"},
        {"[{\"text\":\"a\"}\n", ":2: the file ends within the array, expected ',' or ']'"},
        {"[{\"text\":\"a\"},\n]", ":2: found ']', expected an object"},
        {"[{\"text\":\"a\"}\n{}]", ":2: found '{', expected ',' or ']'"},
        {"[{\"text\":\"a\"}] 3", "found '3', expected nothing after the array"},
        {"[\n3]", ":2: found '3', expected an object"},
        {"[{\"text\":\"a", "expected '}'"},
        {"[{\"text\":\"a\"},\n\n{\"text\":\"}\\\"]\",\"b\":[}]", ":3: not valid JSON"},
        {"{\"prompt\":\"a\",\"completion\":\"b\"", ":1: not valid JSON"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "1 examples without a target"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *file = file_of(cases[i].text);
        const struct dataset_options o = small_options(&file, "plain");
        struct dataset d;
        struct error err = {0};
        check_error(dataset_open(&d, &o, tokenizer, &err), &err, cases[i].names);
    }
    const char *missing = "/nonexistent/data.jsonl";
    const struct dataset_options o = small_options(&missing, "plain");
    struct dataset d;
    struct error err = {0};
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, missing);
}

static void wrong_options_are_errors(void **state)
{
    (void)state;
    const char *file = file_of("{\"prompt\":\"q\",\"completion\":\"xyz\"}");
    struct dataset_options o = small_options(&file, "plain");
    struct dataset d;
    struct error err = {0};
    o.vocab = 50;
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, "vocabulary's 50");
    o = small_options(&file, "plain");
    strcpy(o.special.eos, "<none>");
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, "'<none>' is no token");
    o = small_options(&file, "plain");
    o.max_length = -1;
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, "expected at least 2");
    o = small_options(&file, "plain");
    check_error(dataset_open(&d, &o, NULL, &err), &err, "no tokenizer");
    o.n_files = 0;
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, "no file");

    const char *second = file_of("\n");
    char first[1200], want[1300];
    snprintf(first, sizeof first, "%s.first", second);
    check_ok(file_write(first, "[]", 2, &err), &err);
    const char *const both[] = {first, second};
    o = small_options(both, "plain");
    o.n_files = 2;
    snprintf(want, sizeof want, "%s: no examples", first);
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, want);
    static const char untaught[] = "{\"input_ids\":[1,2],\"labels\":[-100,-100]}";
    check_ok(file_write(first, untaught, strlen(untaught), &err), &err);
    snprintf(want, sizeof want, "%s: no token carries loss", first);
    check_error(dataset_open(&d, &o, tokenizer, &err), &err, want);
}

static void no_memory_is_an_error_not_a_crash(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "/mixed.jsonl"};
    struct dataset_options o = small_options(files, "chatml");
    o.keep_prompts = true;
    for (int64_t n = 1;; n++) {
        struct dataset d, held = {0};
        struct error err = {0};
        mem_fail_at(n, true);
        const bool opened = dataset_open(&d, &o, tokenizer, &err);
        const bool ok = opened && dataset_split(&d, &held, 0.5, 1, &err);
        mem_fail_at(0, false);
        assert_true(ok || *err.msg);
        dataset_close(&held);
        if (opened) dataset_close(&d);
        if (ok) return;
        assert_true(n < 100000);
    }
}

// Of a line beyond the limit no more is looked at than shows it, and the next one begins behind its end.
static void a_line_beyond_the_limit_is_passed_over(void **state)
{
    (void)state;
    const size_t n = (size_t)EXAMPLE_LIMIT + 4096;
    char *bytes = mem_alloc(n);
    assert_non_null(bytes);
    memset(bytes, 'x', n);
    memcpy(bytes + n - 6, "\n{}\n{}", 6);
    struct dataset_source s;
    struct error err;
    const char *text;
    size_t size;
    int64_t line;
    dataset_source_over(&s, "d.jsonl", bytes, n);
    assert_true(dataset_source_next(&s, &text, &size, &line, &err));
    assert_int_equal(size, (size_t)EXAMPLE_LIMIT + 1);
    assert_int_equal(line, 1);
    for (int i = 2; i < 4; i++) {
        assert_true(dataset_source_next(&s, &text, &size, &line, &err));
        assert_int_equal(size, 2);
        assert_memory_equal(text, "{}", 2);
        assert_int_equal(line, i);
    }
    assert_false(dataset_source_next(&s, &text, &size, &line, &err));
    assert_string_equal(err.msg, "");
    memcpy(bytes, "[{\"a\":\"", 7); // in an array the end is not known
    dataset_source_over(&s, "d.json", bytes, n);
    check_error(dataset_source_next(&s, &text, &size, &line, &err), &err,
                "d.json:1: more than 67108864 bytes without its '}'");
    mem_free(bytes);
}

static void other_formats_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *bytes, *words;
    } cases[] = {
        {"x.parquet", "PAR1...", "x.parquet: Parquet; what is read is JSON"},
        {"x.arrow", "ARROW1..", "Arrow"},
        {"x.jsonl.gz", "\x1f\x8b\x08", "compressed by gzip"},
        {"x.bz2", "BZh9", "compressed by bzip2"},
        {"x.xz", "\xfd\x37zXZ", "compressed by xz"},
        {"x.zst", "\x28\xb5\x2f\xfd.", "compressed by zstd"},
        {"x.zip", "PK\3\4", "a zip archive"},
        {"x.jsonl", "\xff\xfe{", "UTF-16"},
        {"y.jsonl", "\xfe\xff{", "UTF-16"},
        {"x.csv", "prompt,completion\n",
         "x.csv: a table; what is read is JSON in UTF-8: an object"},
        {"x.tsv", "prompt\tcompletion\n", "a table"},
    };
    const char *dir = test_dir();
    struct dataset_source s;
    struct error err;
    char path[2048];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, cases[i].name);
        check_ok(file_write(path, cases[i].bytes, strlen(cases[i].bytes), &err), &err);
        check_error(dataset_source_open(&s, path, &err), &err, cases[i].words);
        dataset_source_close(&s);
    }
    static const char *const good[] = {"{\"text\":\"a\"}\n", "[]", ""};
    for (int i = 0; i < 3; i++) { // whatever its name
        snprintf(path, sizeof path, "%s/good.csv", dir);
        check_ok(file_write(path, good[i], strlen(good[i]), &err), &err);
        check_ok(dataset_source_open(&s, path, &err), &err);
        dataset_source_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(bad_examples_are_named),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(wrong_options_are_errors),
        cmocka_unit_test(no_memory_is_an_error_not_a_crash),
        cmocka_unit_test(a_line_beyond_the_limit_is_passed_over),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
