// tests/io/test_tokenizer_decode.c - each step of a decoder by itself: tokens in, text out.
#include "support.h"

#include "base/mem.h"
#include "io/tokenizer.h"

#include <stdio.h>
#include <string.h>

#define ADDED(id, content, special)                                                                \
    "{\"id\":" id ",\"content\":\"" content "\",\"special\":" special                              \
    ",\"normalized\":false,\"lstrip\":false,\"rstrip\":false,\"single_word\":false}"

// Ids 0 to 9 are the model's; 10 and 11 were added, one of them special.
static struct tokenizer *open_with(const char *decoder)
{
    static const char form[] = "{\"version\":\"1.0\",\"decoder\":%s,\"added_tokens\":[" ADDED(
        "10", "<s>",
        "true") "," ADDED("11", "tool",
                          "false") "],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"xxa\":1,"
                                   "\"axx\":2,\"_b\":3,\"_\":4,\"<0x41>\":5,\"<0xE2>\":6,"
                                   "\"<0x82>\":7,\"<0xAC>\":8,\"\u0120c\":9},\"merges\":[]}}";
    char json[2048];
    struct error err = {0};
    snprintf(json, sizeof json, form, decoder);
    struct tokenizer *t = tokenizer_parse(json, strlen(json), "t.json", &err);
    check_ok(t != NULL, &err);
    return t;
}

static void check_text(const char *decoder, const int32_t *id, int64_t n, bool skip,
                       const char *want)
{
    struct tokenizer *t = open_with(decoder);
    struct error err = {0};
    struct buf text = {0};
    check_ok(tokenizer_decode(t, id, n, skip, &text, &err), &err);
    if (strcmp(text.data, want) != 0) fail_msg("%s: '%s', expected '%s'", decoder, text.data, want);
    buf_free(&text);
    tokenizer_close(t);
}
#define CHECK(decoder, want, ...)                                                                  \
    check_text(decoder, (const int32_t[]){__VA_ARGS__},                                            \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), false, want)

static void without_a_decoder_spaces_stand_between(void **state)
{
    (void)state;
    CHECK("null", "a", 0);
    CHECK("null", "a _b a", 0, 3, 0);
    CHECK("null", "<s> a tool", 10, 0, 11);
    check_text("null", (const int32_t[]){10, 0, 11}, 3, true,
               "a tool"); // specials alone are skipped
    check_text("null", (const int32_t[]){0}, 0, false, "");
}

static void strip_takes_so_many_from_each_end(void **state)
{
    (void)state;
#define STRIP(start, stop)                                                                         \
    "{\"type\":\"Strip\",\"content\":\"x\",\"start\":" start ",\"stop\":" stop "}"
    CHECK(STRIP("0", "0"), "xxaaxx", 1, 2);
    CHECK(STRIP("1", "0"), "xaaxx", 1, 2);
    CHECK(STRIP("2", "0"), "aaxx", 1, 2);
    CHECK(STRIP("3", "0"), "aaxx", 1, 2);
    CHECK(STRIP("0", "1"), "xxaax", 1, 2);
    CHECK(STRIP("0", "5"), "xxaa", 1, 2);
    CHECK(STRIP("1", "1"), "xaax", 1, 2);
#undef STRIP
}

static void metaspace_is_a_space(void **state)
{
    (void)state;
#define META(scheme)                                                                               \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme "\"}"
    CHECK(META("always"), "b b", 3, 3); // the first loses its own
    CHECK(META("first"), "b b ", 3, 3, 4);
    CHECK(META("never"), " b b", 3, 3);
    CHECK(META("always"), "a b", 0, 3);
    CHECK(META("always"), " ", 4, 4);
#undef META
}

static void bytes_become_characters_where_they_are_some(void **state)
{
    (void)state;
    static const char fallback[] = "{\"type\":\"ByteFallback\"}";
    CHECK(fallback, "A", 5);
    CHECK(fallback, "aAa", 0, 5, 0);
    CHECK(fallback, "\xE2\x82\xAC", 6, 7, 8);
    CHECK(fallback, "\xEF\xBF\xBD\xEF\xBF\xBD", 6, 7); // one for each byte of what is none
    CHECK(fallback,
          "\xEF\xBF\xBD"
          "a\xEF\xBF\xBD",
          6, 0, 8);
    CHECK(fallback, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 6, 7, 8, 6);
}

static void byte_level_is_the_alphabet_of_bytes(void **state)
{
    (void)state;
    static const char level[] = "{\"type\":\"ByteLevel\"}";
    CHECK(level, "a c", 0, 9);
    CHECK(level, " ctool", 9, 11);
    CHECK("{\"type\":\"Fuse\"}",
          "a\xC4\xA0"
          "c",
          0, 9);
}

static void replace_and_sequences(void **state)
{
    (void)state;
#define REPLACE(pattern, content)                                                                  \
    "{\"type\":\"Replace\",\"pattern\":" pattern ",\"content\":\"" content "\"}"
    CHECK(REPLACE("{\"String\":\"x\"}", "-"), "--aa--", 1, 2);
    CHECK(REPLACE("{\"Regex\":\"x+\"}", "-"), "-aa-", 1, 2);
    CHECK(REPLACE("{\"String\":\"_\"}", ""), "bb", 3, 3);
    CHECK("{\"type\":\"Sequence\",\"decoders\":[" REPLACE(
              "{\"String\":\"_\"}", " ") ","
                                         "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
                                         "\",\"start\":1,\"stop\":0}]}",
          "b b", 3, 3); // fused first, so that one space goes
    CHECK("{\"type\":\"Sequence\",\"decoders\":[" REPLACE(
              "{\"String\":\"_\"}",
              " ") ","
                   "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
          "bb", 3, 3);
#undef REPLACE
}

static void ids_that_are_none(void **state)
{
    (void)state;
    struct tokenizer *t = open_with("null");
    struct error err = {0};
    struct buf text = {0};
    const int32_t beyond = 12, last = 11;
    assert_int_equal(tokenizer_size(t), 12);
    check_error(tokenizer_decode(t, &beyond, 1, false, &text, &err), &err,
                "tokenizer: id 12, expected 0 to 11");
    check_ok(tokenizer_decode(t, &last, 1, false, &text, &err), &err);
    assert_string_equal(text.data, "tool");
    buf_free(&text);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_decoder_spaces_stand_between),
        cmocka_unit_test(strip_takes_so_many_from_each_end),
        cmocka_unit_test(metaspace_is_a_space),
        cmocka_unit_test(bytes_become_characters_where_they_are_some),
        cmocka_unit_test(byte_level_is_the_alphabet_of_bytes),
        cmocka_unit_test(replace_and_sequences),
        cmocka_unit_test(ids_that_are_none),
    };
    return cmocka_run_group_tests_name("tokenizer decode", tests, NULL, NULL);
}
