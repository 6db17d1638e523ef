// Which bytes each id of a marked text stands for (tokenizer_encode_marked): by the ids' lengths where they spell the
// text, by what the text up to each change of marks becomes alone where they do not. And expressions that the machine's
// stack or the limit on steps ends.
#include "base/mem.h"
#include "io/tokenizer.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static struct tokenizer *tokenizer_of(const char *pre_tokenizer, const char *model)
{
    char json[1024];
    struct error err = {0};
    snprintf(json, sizeof json, "{\"pre_tokenizer\":%s,\"model\":%s}", pre_tokenizer, model);
    struct tokenizer *t = tokenizer_parse(json, strlen(json), "t.json", &err);
    check_ok(t != NULL, &err);
    return t;
}

static void check_marks(const struct tokenizer *t, const char *text, const char *flags,
                        const char *expected)
{
    static const uint8_t unguarded[64];
    struct tokens ids = {0}, plain = {0};
    struct buf out = {0};
    struct error err = {0};
    const struct text_marks marks = {.flags = (const uint8_t *)flags, .guard = unguarded};
    const size_t size = strlen(text);
    check_ok(tokenizer_encode_marked(t, text, size, &marks, &ids, &out, &err), &err);
    check_ok(tokenizer_encode(t, text, size, true, &plain, &err), &err);
    assert_int_equal(ids.count, plain.count); // marks change no id
    assert_memory_equal(ids.id, plain.id, (size_t)ids.count * sizeof *ids.id);
    assert_string_equal(out.data, expected);
    buf_free(&out);
    tokens_free(&ids);
    tokens_free(&plain);
}

static void ids_get_the_marks_of_their_bytes(void **state)
{
    (void)state;
    // A byte that has no token of its own, so that the ids' lengths say nothing.
    struct tokenizer *t =
        tokenizer_of("null", "{\"type\":\"BPE\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,"
                             "\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}");
    check_marks(t, "ab?ab", "11122", "112");
    check_marks(t, "ab?ab", "12222", "122"); // "a" alone is one id: the first is its
    check_marks(t, "ab?ab", "11112", "111"); // as is "a" behind them
    tokenizer_close(t);
    // Bytes as tokens: each is one long.
    t = tokenizer_of("null", "{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"<0xC3>\":0,"
                             "\"<0xA9>\":1,\"a\":2},\"merges\":[]}");
    check_marks(t,
                "\xC3\xA9"
                "aa",
                "1122", "1122");
    tokenizer_close(t);
}

static void a_character_is_not_cut_by_marks(void **state)
{
    (void)state;
    struct tokenizer *t =
        tokenizer_of("null,\"normalizer\":{\"type\":\"NFD\"}",
                     "{\"type\":\"BPE\",\"vocab\":{\"e\":0,\"\xCC\x81\":1,\"a\":2},\"merges\":[]}");
    check_marks(t,
                "a\xC3\xA9"
                "a",
                "1122", "1332");
    tokenizer_close(t);
}

static void escapes_by_number_are_characters(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of(
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\x{61}|\\\\u00e9\"},\"behavior\":"
        "\"Isolated\",\"invert\":false}",
        "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xC3\xA9\":3,\"b\xC3\xA9\":4},"
        "\"merges\":[\"a b\",\"b \xC3\xA9\"]}");
    struct tokens ids = {0};
    struct error err = {0};
    check_ok(tokenizer_encode(t, "ab\xC3\xA9", 4, false, &ids, &err), &err);
    assert_int_equal(ids.count, 3); // without the cuts one pair would be one id
    assert_true(ids.id[0] == 0 && ids.id[1] == 1 && ids.id[2] == 3);
    tokens_free(&ids);
    tokenizer_close(t);
}

static const char letters[] = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}";

static void a_long_match_gets_a_larger_stack(void **state)
{
    (void)state;
    enum { SIZE = 1 << 17 };
    struct tokenizer *t =
        tokenizer_of("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|b)*(?!\\\\S)"
                     "\"},\"behavior\":\"Isolated\",\"invert\":false}",
                     letters);
    struct tokens ids = {0};
    struct error err = {0};
    char *text = mem_alloc(SIZE);
    assert_non_null(text);
    memset(text, 'a', SIZE);
    check_ok(tokenizer_encode(t, text, SIZE, false, &ids, &err), &err);
    assert_int_equal(ids.count, SIZE);
    mem_free(text);
    tokens_free(&ids);
    tokenizer_close(t);
}

static void an_expression_that_goes_back_and_forth_gives_up(void **state)
{
    (void)state;
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    struct tokenizer *t =
        tokenizer_of("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|aa)+(?!\\\\S)"
                     "\"},\"behavior\":\"Isolated\",\"invert\":false}",
                     letters);
    struct tokens ids = {0};
    struct error err = {0};
    check_error(tokenizer_encode(t, text, sizeof text - 1, false, &ids, &err), &err,
                "regex gave up at byte 0 of 61: match limit exceeded");
    tokens_free(&ids);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_get_the_marks_of_their_bytes),
        cmocka_unit_test(a_character_is_not_cut_by_marks),
        cmocka_unit_test(escapes_by_number_are_characters),
        cmocka_unit_test(a_long_match_gets_a_larger_stack),
        cmocka_unit_test(an_expression_that_goes_back_and_forth_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
