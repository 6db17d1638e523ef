// What tokenizer.json must not hold is refused in one line that names it, and no failed allocation
// does more than fail.
#include "base/mem.h"
#include "io/json.h"
#include "io/tokenizer.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

// Each part as JSON; NULL: the usual one.
struct parts {
    const char *normalizer, *pre_tokenizer, *decoder, *added, *model, *needle;
};

static const char usual_model[] =
    "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}";

static void write_json(char *out, size_t size, struct parts p)
{
    snprintf(out, size,
             "{\"version\":\"1.0\",\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,"
             "\"added_tokens\":%s,\"model\":%s}",
             p.normalizer ? p.normalizer : "null", p.pre_tokenizer ? p.pre_tokenizer : "null",
             p.decoder ? p.decoder : "null", p.added ? p.added : "[]",
             p.model ? p.model : usual_model);
}

static void check_refused(const char *json, const char *needle)
{
    struct error err = {0};
    struct tokenizer *t = tokenizer_parse(json, strlen(json), "t.json", &err);
    check_error(t != NULL, &err, needle);
    check_error(false, &err, "t.json");
    tokenizer_close(t);
}

#define REGEX(r)                                                                                   \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" r                                              \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define TOKEN(id, content)                                                                         \
    "{\"id\":" id ",\"content\":\"" content                                                        \
    "\",\"special\":false,\"normalized\":true,\"lstrip\":false,"                                   \
    "\"rstrip\":false,\"single_word\":false}"

static const struct parts refused[] = {
    {.normalizer = "{\"type\":\"Lowercase\"}", .needle = "normalizer \"Lowercase\""},
    {.normalizer =
         "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Nmt\"}]}",
     .needle = "normalizer[1]: normalizer \"Nmt\""},
    {.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}",
     .needle = "empty"},
    {.normalizer = "{\"type\":\"Replace\",\"pattern\":{},\"content\":\"x\"}", .needle = "pattern"},
    {.normalizer = "[]", .needle = "normalizer: no object"},
    {.pre_tokenizer = "{\"type\":\"BertPreTokenizer\"}", .needle = "\"BertPreTokenizer\""},
    {.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"Isolate\","
                      "\"invert\":false}",
     .needle = "behavior \"Isolate\""},
    {.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_"
                      "prefix_space\":false},"
                      "{\"type\":\"Digits\",\"individual_digits\":true}]}",
     .needle = "\"Digits\" after ByteLevel"},
    {.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"__\"}", .needle = "one character"},
    {.pre_tokenizer = REGEX("\\\\w+"), .needle = "\\w+"},
    {.pre_tokenizer = REGEX("\\\\h"), .needle = "\\h"},
    {.pre_tokenizer = REGEX("\\\\p{Greek}"), .needle = "\\p{Greek}"},
    {.pre_tokenizer = REGEX("(a)\\\\1"), .needle = "\\1"},
    {.pre_tokenizer = REGEX("a(?i)b"), .needle = "(?i)"},
    {.pre_tokenizer = REGEX("(?<x>a)"), .needle = "(?<x>"},
    {.pre_tokenizer = REGEX("a{,3}"), .needle = "{,3}"},
    {.pre_tokenizer = REGEX("a{2}+"), .needle = "{2}+"},
    {.pre_tokenizer = REGEX("[a[bc]]"), .needle = "[bc]"},
    {.pre_tokenizer = REGEX("[a-z&&b]"), .needle = "&&"},
    {.pre_tokenizer = REGEX("[a-z"), .needle = "without its ]"},
    {.pre_tokenizer = REGEX("(a"), .needle = "parenthesis"},
    {.pre_tokenizer = REGEX(""), .needle = "empty"},
    {.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"often\"}",
     .needle = "prepend_scheme \"often\""},
    {.pre_tokenizer = "{\"type\":\"Metaspace\"}", .needle = "replacement"},
    {.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":7},\"behavior\":\"Isolated\","
                      "\"invert\":false}",
     .needle = "String: found 7"},
    {.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}", .needle = "content"},
    {.pre_tokenizer = "{\"type\":\"Digits\"}", .needle = "individual_digits"},
    {.pre_tokenizer = "{\"type\":\"ByteLevel\"}", .needle = "add_prefix_space"},
    {.decoder = "{\"type\":\"CTC\"}", .needle = "decoder \"CTC\""},
    {.decoder = "{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}",
     .needle = "start"},
    {.model = "{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"merges\":[]}",
     .needle = "\"WordPiece\""},
    {.model = "{\"type\":\"BPE\",\"merges\":[]}", .needle = "model.vocab"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}",
     .needle = "duplicate"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}",
     .needle = "both have id 0"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}", .needle = "\"a\" has no id"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}",
     .needle = "\"a\" has no id"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}",
     .needle = "\"a\" has no id"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}",
     .needle = "\"ab\" is not in"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"ab\":1},\"merges\":[\"a b\"]}",
     .needle = "\"b\" is not in"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}",
     .needle = "merges[0] is no pair"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}",
     .needle = "merges[0] is no pair"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}",
     .needle = "merges[0] is no pair"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1},\"merges\":[\"a a\",[\"a\",\"a\"]]}",
     .needle = "mixes"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}",
     .needle = "merges is no array"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}",
     .needle = "unk_token \"u\""},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}",
     .needle = "dropout"},
    {.model =
         "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}",
     .needle = "end_of_word_suffix"},
    {.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"continuing_subword_prefix\":"
              "\"##\"}",
     .needle = "continuing_subword_prefix"},
    {.added = "[" TOKEN("4", "x") "]", .needle = "\"x\" has id 4, expected 3"},
    {.added = "[" TOKEN("1", "a") "]", .needle = "\"a\" has id 1, expected 0"},
    {.added = "[" TOKEN("3", "x") "," TOKEN("3", "x") "]",
     .needle = "added_tokens[1]: \"x\" is there twice"},
    {.added = "[" TOKEN("3", "") "]", .needle = "content of 0 bytes"},
    {.added = "[{\"id\":3,\"content\":\"x\"}]", .needle = "special"},
    {.added = "{}", .needle = "added_tokens is no array"},
    {.normalizer = "{\"type\":\"NFC\"}",
     .added = "[" TOKEN("3", "\xC3\xA9") "," TOKEN("4", "e\xCC\x81") "]",
     .needle = "another token once normalized"},
    {.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"}",
     .added = "[" TOKEN("3", "x") "]",
     .needle = "leaves nothing"},
};

static void what_is_not_implemented_is_named(void **state)
{
    (void)state;
    char json[4096];
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        write_json(json, sizeof json, refused[i]);
        check_refused(json, refused[i].needle);
    }
    check_refused("{\"version\":\"2.0\"}", "version \"2.0\"");
    check_refused("[]", "no object");
    check_refused("{\"version\":\"1.0\"", "JSON");
    check_refused("{\"version\":\"1.0\"}", "model");
}

static void nesting_and_length_are_bounded(void **state)
{
    (void)state;
    struct buf json = {0}, steps = {0};
    for (int i = 0; i < 40; i++) {
        buf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    }
    for (int i = 0; i < 40; i++) {
        buf_puts(&json, "]}");
    }
    for (int i = 0; i < 100; i++) {
        buf_puts(&steps, i ? ",{\"type\":\"NFC\"}" : "{\"type\":\"NFC\"}");
    }
    struct buf all = {0};
    buf_printf(&all, "{\"normalizer\":%s,\"model\":%s}", json.data, usual_model);
    check_refused(all.data, "nested too deeply");
    all.size = 0;
    buf_printf(&all, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s]},\"model\":%s}",
               steps.data, usual_model);
    check_refused(all.data, "more than 64 steps");
    all.size = steps.size = 0;
    for (int i = 0; i < 100; i++) {
        buf_puts(&steps, i ? ",{\"type\":\"Fuse\"}" : "{\"type\":\"Fuse\"}");
    }
    buf_printf(&all, "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[%s]},\"model\":%s}",
               steps.data, usual_model);
    check_refused(all.data, "more than 64 steps");
    buf_free(&json);
    buf_free(&steps);
    buf_free(&all);
}

static const struct parts everything = {
    .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},"
                  "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"c+\"},\"content\":\"ab\"},"
                  "{\"type\":\"Prepend\",\"prepend\":\"a\"}]}",
    .pre_tokenizer =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\",\"replacement\":\"_\"},"
        "{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"MergedWithNext\","
        "\"invert\":"
        "false},{\"type\":\"Digits\",\"individual_digits\":true},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]}",
    .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
               "\"_\"},\"content\":"
               "\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Strip\",\"content\":\" "
               "\",\"start\":1,\"stop\":1},"
               "{\"type\":\"Metaspace\",\"replacement\":\"_\"},{\"type\":\"Fuse\"},{\"type\":"
               "\"ByteLevel\"}]}",
    .added = "[" TOKEN("3", "<x>") "," TOKEN("4", "e\xCC\x81") "]",
};

static bool use(const char *json, struct error *err)
{
    static const char text[] =
        "ab<x>abab e\xCC\x81 1-2ccc \xCC\x81\xCC\x96\xF0\x91\x84\xB1 "
        "abababababababababababababababababababababababababababababababababababab";
    struct tokens ids = {0};
    struct buf out = {0};
    struct tokenizer *t = tokenizer_parse(json, strlen(json), "t.json", err);
    bool ok = t && tokenizer_encode(t, text, strlen(text), true, &ids, err) &&
              tokenizer_decode(t, ids.id, ids.count, false, &out, err);
    if (ok) assert_true(ids.count > 20);
    tokens_free(&ids);
    buf_free(&out);
    tokenizer_close(t);
    return ok;
}

static void a_failed_allocation_is_an_error(void **state)
{
    (void)state;
    char json[4096];
    struct error err = {0};
    write_json(json, sizeof json, everything);
    check_ok(use(json, &err), &err);
    int64_t before = mem_count();
    json_decref(json_parse(json, strlen(json), "t.json", &err));
    const int64_t parsing = mem_count() - before; // jansson asserts that these succeed
    before = mem_count();
    check_ok(use(json, &err), &err);
    const int64_t count = mem_count() - before;
    assert_true(count > parsing + 50);
    for (int64_t n = parsing + 1; n <= count; n++) {
        mem_fail_at(n, n % 2 == 0);
        err.msg[0] = 0;
        const bool ok = use(json, &err);
        mem_fail_at(0, false);
        if (ok) fail_msg("allocation %d of %d failed unseen", (int)n, (int)count);
        assert_true(err.msg[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_implemented_is_named),
        cmocka_unit_test(nesting_and_length_are_bounded),
        cmocka_unit_test(a_failed_allocation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
