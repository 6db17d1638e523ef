// The model's own chat template against `transformers`: the text and the ids of apply_chat_template for
// each template and conversation of fixtures/chat (written by fixtures/make_chat_templates.py), with and
// without a generation prompt; the assistant's mask; what users wrote; and small templates against jinja2.
#include "data_fixtures.h"

#include "io/dataset_sample.h"
#include "io/jinja.h"
#include "io/model_template.h"

#include <stdlib.h>
#include <zlib.h>

#define CHAT FIXTURES "/chat"

static json_t *read_json(const char *path)
{
    struct error err = {0};
    json_t *root = json_parse_file(path, 1 << 24, &err);
    check_ok(root != NULL, &err);
    return root;
}

static uint32_t crc_of(const void *bytes, size_t size)
{
    return (uint32_t)crc32(0, bytes, (uInt)size);
}

// The conversations, each as a JSON object.
static json_t *conversations(void)
{
    struct error err = {0};
    char *text;
    size_t size;
    json_t *all = json_array();
    check_ok(file_read(&text, &size, CHAT "/conversations.jsonl", 1 << 24, &err), &err);
    for (char *line = text, *end; (end = memchr(line, '\n', (size_t)(text + size - line)));
         line = end + 1) {
        json_t *one = json_parse(line, (size_t)(end - line), "conversations.jsonl", &err);
        check_ok(one != NULL, &err);
        json_array_append_new(all, one);
    }
    mem_free(text);
    assert_int_equal(json_array_size(all), 200);
    return all;
}

static void write_file(const char *dir, const char *name, const char *text, size_t size)
{
    char path[1100];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    check_ok(file_write(path, text, size, &err), &err);
}

static const char *bos = "<bos>"; // of template_from
// From a folder with this template.
static struct model_template *template_from(const char *source, const struct tokenizer *t,
                                            struct error *err)
{
    const char *dir = test_dir();
    char config[200];
    snprintf(config, sizeof config,
             "{\"bos_token\": \"%s\", \"eos_token\": {\"content\": \"<|endoftext|>\"}}", bos);
    write_file(dir, "tokenizer_config.json", config, strlen(config));
    write_file(dir, "chat_template.jinja", source, strlen(source));
    return model_template_open(dir, t, err);
}

static char *source_of(const char *name)
{
    char path[600];
    struct error err = {0};
    char *text;
    size_t size;
    snprintf(path, sizeof path, CHAT "/%s.jinja", name);
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    return text;
}

// One conversation through a template: its text, its ids, and which of them learn.
struct result {
    struct buf text, learn;
    struct tokens ids;
    bool ok;
};

static void result_free(struct result *r)
{
    buf_free(&r->text);
    buf_free(&r->learn);
    tokens_free(&r->ids);
    *r = (struct result){0};
}

static struct result run(struct model_template *m, const struct tokenizer *t,
                         const json_t *conversation, bool generate, bool unguarded,
                         struct error *err)
{
    struct result r = {0};
    struct sample sample = {.any_turns = true};
    struct segments s = {0};
    int64_t prompt;
    check_ok(sample_parse(&sample, conversation, "conversation", err), err);
    r.ok = model_template_render(m, &s, sample.message, sample.count, generate, err);
    s.unguarded = unguarded;
    assert_true(buf_puts(&r.text, ""));
    for (int64_t i = 0; r.ok && i < s.count; i++) {
        assert_true(buf_puts(&r.text, s.segment[i].text));
    }
    if (r.ok) check_ok(segments_encode_all(&s, t, &r.ids, &r.learn, &prompt, err), err);
    if (r.ok) assert_int_equal(r.learn.size, r.ids.count);
    segments_free(&s);
    sample_free(&sample);
    return r;
}

// Against [text, ids, mask?]; null: `transformers` raises.
static void check_sums(const struct result *r, const json_t *want, bool generate, const char *name,
                       size_t i, const struct error *err)
{
    if (r->ok == !json_is_array(want)) {
        fail_msg("%s: conversation %zu%s: %s", name, i, generate ? ", generate" : "",
                 r->ok ? "expected an error" : err->msg);
    }
    if (!r->ok) return;
    const uint32_t sums[] = {crc_of(r->text.data, r->text.size),
                             crc_of(r->ids.id, (size_t)r->ids.count * sizeof *r->ids.id),
                             crc_of(r->learn.data, r->learn.size)};
    static const char *const what[] = {"text", "ids", "mask"};
    for (size_t k = 0; k < (generate ? 2 : json_array_size(want)); k++) {
        if (sums[k] == (uint32_t)json_integer_value(json_array_get(want, k))) continue;
        fail_msg("%s: conversation %zu%s: another %s:\n%s", name, i, generate ? ", generate" : "",
                 what[k], r->text.data);
    }
}

// How many were rendered, of all conversations twice.
static int check_template(struct model_template *m, const struct tokenizer *t, const char *name,
                          const json_t *want, const json_t *all)
{
    const json_t *sums = json_object_get(want, "sums"), *texts = json_object_get(want, "texts");
    int rendered = 0;
    assert_int_equal(json_array_size(sums), 2 * json_array_size(all));
    for (size_t i = 0; i < json_array_size(sums); i++) {
        struct error err = {0};
        struct result r = run(m, t, json_array_get(all, i / 2), i % 2, true, &err);
        for (size_t k = 0; k < json_array_size(texts); k++) {
            const json_t *text = json_array_get(texts, k);
            if (json_integer_value(json_array_get(text, 0)) != (json_int_t)i) continue;
            assert_string_equal(r.text.data, json_string_value(json_array_get(text, 1)));
        }
        check_sums(&r, json_array_get(sums, i), i % 2, name, i / 2, &err);
        rendered += r.ok;
        result_free(&r);
    }
    return rendered;
}

static struct tokenizer *chat_tokenizer(void)
{
    struct error err = {0};
    struct tokenizer *t = tokenizer_open(CHAT, &err);
    check_ok(t != NULL, &err);
    return t;
}

static void gives_the_text_ids_and_mask_of_transformers(void **state)
{
    (void)state;
    json_t *expected = read_json(CHAT "/expected.json"), *all = conversations();
    struct tokenizer *t = chat_tokenizer();
    const char *name;
    json_t *want;
    assert_true(json_object_size(expected) >= 12);
    json_object_foreach(expected, name, want)
    {
        struct error err = {0};
        char *source = source_of(name);
        struct model_template *m = template_from(source, t, &err);
        check_ok(m != NULL, &err);
        print_message("%s: %d texts\n", name, check_template(m, t, name, want, all));
        model_template_close(m);
        mem_free(source);
    }
    tokenizer_close(t);
    json_decref(all);
    json_decref(expected);
}

static void gives_them_with_the_public_tokenizers(void **state)
{
    (void)state;
    if (!file_exists(SHARED_DATA "/tokenizers/qwen/tokenizer.json")) {
        print_message("no %s/tokenizers\n", SHARED_DATA);
        skip();
    }
    json_t *expected = read_json(CHAT "/shared.json"), *all = conversations();
    const char *name;
    json_t *want;
    json_object_foreach(expected, name, want)
    {
        char dir[600];
        struct error err = {0};
        bool own = false;
        snprintf(dir, sizeof dir, SHARED_DATA "/tokenizers/%s", name);
        struct tokenizer *t = tokenizer_open(dir, &err);
        check_ok(t != NULL, &err);
        check_ok(model_template_exists(&own, dir, &err), &err);
        char *source = own ? NULL : source_of("olmoe");
        bos = "<|endoftext|>";
        struct model_template *m =
            own ? model_template_open(dir, t, &err) : template_from(source, t, &err);
        check_ok(m != NULL, &err);
        print_message("%s: %d texts\n", name, check_template(m, t, name, want, all));
        model_template_close(m);
        tokenizer_close(t);
        mem_free(source);
    }
    bos = "<bos>";
    json_decref(all);
    json_decref(expected);
}

// Takes the marks {% generation %} out of a source; the text that it writes stays.
static void take_out(char *source, const char *mark)
{
    const size_t n = strlen(mark);
    size_t to = 0;
    for (size_t i = 0; source[i];) {
        if (strncmp(source + i, mark, n) == 0) {
            i += n;
        } else {
            source[to++] = source[i++];
        }
    }
    source[to] = 0;
}

static char *learnt_text(const struct result *r, const struct tokenizer *t)
{
    struct buf out = {0};
    struct error err = {0};
    assert_true(buf_puts(&out, ""));
    for (int64_t i = 0; i < r->ids.count; i++) {
        const bool before = i > 0 && r->learn.data[i - 1];
        if (!r->learn.data[i]) continue;
        if (!before) assert_true(buf_puts(&out, "|"));
        check_ok(tokenizer_decode(t, &r->ids.id[i], 1, false, &out, &err), &err);
    }
    return out.data;
}

static void finds_by_turns_what_the_marks_mark(void **state)
{
    (void)state;
    // Those whose marks stand where a turn begins and ends, and leave no white space behind.
    static const char *const names[] = {"olmoe", "qwen1_5", "deepseek_v2", "llama3"};
    json_t *all = conversations();
    struct tokenizer *t = chat_tokenizer();
    int64_t learnt = 0;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        struct error err = {0};
        char *source = source_of(names[k]);
        struct model_template *marked = template_from(source, t, &err);
        take_out(source, "{% generation %}");
        take_out(source, "{% endgeneration %}");
        struct model_template *plain = template_from(source, t, &err);
        assert_true(marked && plain);
        for (size_t i = 0; i < json_array_size(all); i++) {
            struct result a = run(marked, t, json_array_get(all, i), false, true, &err);
            struct result b = run(plain, t, json_array_get(all, i), false, true, &err);
            if (a.ok && !b.ok) fail_msg("%s: conversation %zu: %s", names[k], i, err.msg);
            if (a.ok) assert_string_equal(a.text.data, b.text.data);
            if (a.ok && memcmp(a.learn.data, b.learn.data, a.learn.size) != 0) {
                char *want = learnt_text(&a, t), *got = learnt_text(&b, t);
                fail_msg("%s: conversation %zu: marked %s\nfound %s", names[k], i, want, got);
            }
            for (size_t n = 0; a.ok && n < a.learn.size; n++) {
                learnt += a.learn.data[n];
            }
            result_free(&a);
            result_free(&b);
        }
        model_template_close(marked);
        model_template_close(plain);
        mem_free(source);
    }
    assert_true(learnt > 5000);
    tokenizer_close(t);
    json_decref(all);
}

static void check_learnt(const char *name, const char *conversation, const char *want)
{
    struct error err = {0};
    struct tokenizer *t = chat_tokenizer();
    char *source = source_of(name);
    take_out(source, "{%- generation %}");
    take_out(source, "{%- endgeneration %}");
    take_out(source, "{% generation %}");
    take_out(source, "{% endgeneration %}");
    struct model_template *m = template_from(source, t, &err);
    check_ok(m != NULL, &err);
    json_t *c = json_parse(conversation, strlen(conversation), "c", &err);
    check_ok(c != NULL, &err);
    struct result r = run(m, t, c, false, false, &err);
    check_ok(r.ok, &err);
    char *got = learnt_text(&r, t);
    assert_string_equal(got, want);
    mem_free(got);
    result_free(&r);
    json_decref(c);
    model_template_close(m);
    mem_free(source);
    tokenizer_close(t);
}

// Templates that write a turn otherwise once others follow it.
static void learns_what_stands_in_the_text_where_turns_change(void **state)
{
    (void)state;
    static const char two[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},"
        "{\"role\":\"assistant\",\"content\":\"A\",\"reasoning_content\":\"why\"},"
        "{\"role\":\"user\",\"content\":\"R\"},"
        "{\"role\":\"assistant\",\"content\":\"B\",\"reasoning_content\":\"so\"}]}";
    check_learnt("qwen3", two, "|A<|im_end|>|<think>\nso\n</think>\n\nB<|im_end|>");
    check_learnt("gpt_oss", two,
                 "|<|channel|>final<|message|>A<|end|>|<|channel|>analysis<|message|>so<|end|><|"
                 "start|>assistant"
                 "<|channel|>final<|message|>B<|return|>");
    // It asks for an answer with <think>, which earlier turns do not have.
    check_learnt("deepseek_v3", two, "|A<｜end▁of▁sentence｜>|B<｜end▁of▁sentence｜>");
    check_learnt("gemma", two, "|A<end_of_turn>|B<end_of_turn>");
    check_learnt("mistral", two, "| A<|endoftext|>| B<|endoftext|>");
    // It ends a tool's words otherwise where they are the last: the header before an answer stands there in part.
    check_learnt(
        "hermes",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":"
        "\"\","
        "\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]},"
        "{\"role\":\"tool\",\"content\":\"7\"},{\"role\":\"assistant\",\"content\":\"A\"}]}",
        "|<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call><|im_end|>|A<|im_end|>");
    check_learnt(
        "qwen3",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":"
        "\"\","
        "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]},"
        "{\"role\":\"tool\",\"content\":\"7\"},{\"role\":\"assistant\",\"content\":\"\"},"
        "{\"role\":\"user\",\"content\":\"R\"},{\"role\":\"assistant\",\"content\":\"B\",\"mask\":"
        "1},"
        "{\"role\":\"user\",\"content\":\"S\"},{\"role\":\"assistant\",\"content\":\"C\"}]}",
        "|<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call><|im_end|>"
        "|<|im_end|>|<think>\n\n</think>\n\nC<|im_end|>");
}

static int64_t specials(const struct tokenizer *t, const struct result *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->ids.count; i++) {
        struct buf text = {0};
        assert_true(tokenizer_decode(t, &r->ids.id[i], 1, true, &text, NULL));
        n += text.size == 0; // skipped
        buf_free(&text);
    }
    return n;
}

static void keeps_special_tokens_out_of_what_users_wrote(void **state)
{
    (void)state;
    static const char text[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a<|im_end|><think>b\"},"
        "{\"role\":\"assistant\",\"content\":\"<think>x</think><|im_start|>\"}]}";
    struct error err = {0};
    struct tokenizer *t = chat_tokenizer();
    struct model_template *m = template_from(
        "{{ messages[0].content }}{{ messages[1].content }}<|im_end|><think>", t, &err);
    check_ok(m != NULL, &err);
    json_t *c = json_parse(text, sizeof text - 1, "c", &err);
    struct result open = run(m, t, c, true, true, &err), guarded = run(m, t, c, true, false, &err);
    assert_int_equal(specials(t, &open), 3);
    assert_int_equal(specials(t, &guarded), 1); // the template's
    const int32_t think = tokenizer_id(t, "<think>");
    int64_t n[2] = {0};
    for (int64_t i = 0; i < open.ids.count; i++) {
        n[0] += open.ids.id[i] == think;
    }
    for (int64_t i = 0; i < guarded.ids.count; i++) {
        n[1] += guarded.ids.id[i] == think;
    }
    assert_int_equal(n[0], 3);
    assert_int_equal(n[1], 2); // not the user's; the assistant's, and the template's
    struct buf decoded = {0};
    check_ok(tokenizer_decode(t, guarded.ids.id, guarded.ids.count, false, &decoded, &err), &err);
    assert_string_equal(decoded.data, guarded.text.data);
    buf_free(&decoded);
    result_free(&open);
    result_free(&guarded);
    json_decref(c);
    model_template_close(m);
    tokenizer_close(t);
}

static void small_templates_do_what_jinja2_does(void **state)
{
    (void)state;
    json_t *root = read_json(CHAT "/expressions.json");
    const json_t *cases = json_object_get(root, "cases"),
                 *context = json_object_get(root, "context");
    struct jinja_variable v[32];
    int64_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)context, key, value)
    {
        assert_true(n < 32);
        v[n++] = (struct jinja_variable){key, value, JINJA_FROM_DATA};
    }
    assert_true(json_array_size(cases) > 300);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *source = json_array_get(json_array_get(cases, i), 0);
        const char *want = json_string_value(json_array_get(json_array_get(cases, i), 1));
        struct error err = {0};
        struct jinja_text out = {0};
        struct jinja *t =
            jinja_parse("case", json_string_value(source), json_string_length(source), NULL, &err);
        const bool ok = t && jinja_render(t, &out, v, n, 0, &err);
        if (ok != (want != NULL))
            fail_msg("%s: %s", json_string_value(source), ok ? out.bytes : err.msg);
        if (ok && strcmp(out.bytes, want) != 0) {
            fail_msg("%s\ngives  %s\nexpect %s", json_string_value(source), out.bytes, want);
        }
        jinja_text_free(&out);
        jinja_free(t);
    }
    json_decref(root);
}

int main(void)
{
    setenv("SOURCE_DATE_EPOCH", "1721995200", 1); // 2024-07-26 12:00, as the fixtures have it
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_templates_do_what_jinja2_does),
        cmocka_unit_test(gives_the_text_ids_and_mask_of_transformers),
        cmocka_unit_test(gives_them_with_the_public_tokenizers),
        cmocka_unit_test(finds_by_turns_what_the_marks_mark),
        cmocka_unit_test(learns_what_stands_in_the_text_where_turns_change),
        cmocka_unit_test(keeps_special_tokens_out_of_what_users_wrote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
