// Small tokenizers of our own, one for each set of features, against what `tokenizers` makes of the same
// lines (fixtures/tokenizer/NAME/cases.json), and checksums over generated lines and all code points.
// Written by fixtures/make_tokenizer.py.
#include "io/json.h"
#include "tokenizer_lines.h"

static struct tokenizer *open_small(const char *name)
{
    char path[1024];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/tokenizer/%s", FIXTURES, name);
    struct tokenizer *t = tokenizer_open(path, &err);
    check_ok(t != NULL, &err);
    return t;
}

static json_t *open_json(const char *name)
{
    char path[1024];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/tokenizer/%s", FIXTURES, name);
    json_t *value = json_parse_file(path, 1 << 24, &err);
    check_ok(value != NULL, &err);
    return value;
}

static void check_ids(const char *name, size_t index, const struct tokens *got, const json_t *want)
{
    const int64_t n = (int64_t)json_array_size(want);
    for (int64_t i = 0; i < n && i < got->count; i++) {
        const json_int_t id = json_integer_value(json_array_get(want, (size_t)i));
        if (got->id[i] != id) {
            fail_msg("%s, case %zu: id %d at %d, expected %d", name, index, got->id[i], (int)i,
                     (int)id);
        }
    }
    if (got->count != n) {
        fail_msg("%s, case %zu: %d ids, expected %d", name, index, (int)got->count, (int)n);
    }
}

static const char *check_text(const char *name, size_t index, struct buf *got, const json_t *want,
                              const char *otherwise)
{
    const char *text = json_is_null(want) ? otherwise : json_string_value(want);
    if (got->size != strlen(text) || memcmp(got->data, text, got->size) != 0) {
        fail_msg("%s, case %zu: decoded '%.*s', expected '%s'", name, index, (int)got->size,
                 got->data, text);
    }
    return text;
}

static void check_cases(const char *name, const struct tokenizer *t)
{
    char path[256];
    snprintf(path, sizeof path, "%s/cases.json", name);
    json_t *cases = open_json(path);
    assert_true(json_array_size(cases) > 40);
    struct result r = {0};
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *text = json_string_value(json_array_get(c, 0));
        tokenize(&r, t, text, strlen(text));
        const json_t *ids = json_array_get(c, 1), *plain = json_array_get(c, 2);
        check_ids(name, i, &r.ids, ids);
        check_ids(name, i, &r.plain, json_is_null(plain) ? ids : plain);
        text = check_text(name, i, &r.decoded, json_array_get(c, 3), text);
        check_text(name, i, &r.skipped, json_array_get(c, 4), text);
    }
    result_free(&r);
    json_decref(cases);
}

static uint32_t sum_of_lines(const struct tokenizer *t)
{
    struct random r = {0};
    struct result result = {0};
    struct points points = {0};
    uint32_t total = 0;
    for (uint64_t i = 0; i < GENERATED; i++) {
        generate_line(&r, i);
        const uint32_t sum = checksum(&result, t, r.out.data, r.out.size);
        total = add_sum(total, &sum, sizeof sum);
    }
    while (point_line(&points, &r)) {
        const uint32_t sum = checksum(&result, t, r.out.data, r.out.size);
        total = add_sum(total, &sum, sizeof sum);
    }
    buf_free(&r.out);
    result_free(&result);
    return total;
}

static void small_tokenizers_match(void **state)
{
    (void)state;
    json_t *sums = open_json("sums.json");
    const char *name;
    json_t *want;
    json_object_foreach(sums, name, want)
    {
        struct tokenizer *t = open_small(name);
        check_cases(name, t);
        const uint32_t got = sum_of_lines(t);
        if (got != (uint32_t)json_integer_value(want)) {
            fail_msg("%s: checksum %08x over the generated lines, expected %08x", name, got,
                     (uint32_t)json_integer_value(want));
        }
        tokenizer_close(t);
    }
    json_decref(sums);
}

static void invalid_utf8_is_an_error(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",     "a\xC3",          "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
        "\xE2\x82", "ab\xF0\x9F\x98", "\xFF"};
    struct tokenizer *t = open_small("gpt2");
    struct tokens out = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        check_error(tokenizer_encode(t, bad[i], strlen(bad[i]), true, &out, &err), &err, "UTF-8");
    }
    tokens_free(&out);
    tokenizer_close(t);
}

static void a_nul_is_a_character(void **state)
{
    (void)state;
    struct tokenizer *t = open_small("gpt2");
    struct error err = {0};
    struct tokens ids = {0};
    struct buf text = {0};
    check_ok(tokenizer_encode(t, "a\0b", 3, true, &ids, &err), &err);
    assert_int_equal(ids.count, 3);
    check_ok(tokenizer_decode(t, ids.id, ids.count, false, &text, &err), &err);
    assert_int_equal(text.size, 3);
    assert_memory_equal(text.data, "a\0b", 3);
    tokens_free(&ids);
    buf_free(&text);
    tokenizer_close(t);
}

static void tokens_and_ids(void **state)
{
    (void)state;
    struct tokenizer *t = open_small("qwen");
    const int32_t end = tokenizer_id(t, "<|im_end|>"), word = tokenizer_id(t, "\xC4\xA0the");
    assert_true(end > 0 && word > 0);
    assert_string_equal(tokenizer_token(t, end), "<|im_end|>");
    assert_string_equal(tokenizer_token(t, word), "\xC4\xA0the");
    assert_int_equal(tokenizer_id(t, " the"), -1);
    assert_null(tokenizer_token(t, -1));
    assert_null(tokenizer_token(t, (int32_t)tokenizer_size(t)));
    assert_non_null(tokenizer_token(t, (int32_t)tokenizer_size(t) - 1));

    struct error err = {0};
    struct buf text = {0};
    const int32_t beyond = (int32_t)tokenizer_size(t), negative = -1;
    check_error(tokenizer_decode(t, &beyond, 1, false, &text, &err), &err, "id");
    check_error(tokenizer_decode(t, &negative, 1, false, &text, &err), &err, "id -1");
    buf_free(&text);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_tokenizers_match),
        cmocka_unit_test(invalid_utf8_is_an_error),
        cmocka_unit_test(a_nul_is_a_character),
        cmocka_unit_test(tokens_and_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
