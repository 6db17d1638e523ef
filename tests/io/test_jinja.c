// Templates that must fail: each with one line that names the template, the line and what was found; the
// limits; failing memory; and the forms in which a model's folder holds a template. What templates write is
// tested in test_chat_templates.c.
#include "data_fixtures.h"

#include "io/jinja.h"
#include "io/model_template.h"

static const char messages[] = "[{\"role\":\"user\",\"content\":\"Hi\"}]";

static bool render(const char *source, const struct jinja_limits *limits, struct jinja_text *out,
                   struct error *err)
{
    json_t *v = json_parse(messages, sizeof messages - 1, "messages", err);
    const struct jinja_variable variable = {"messages", v, JINJA_FROM_MESSAGES};
    struct jinja *t = jinja_parse("T", source, strlen(source), limits, err);
    const bool ok = t && jinja_render(t, out, &variable, 1, 0, err);
    jinja_free(t);
    json_decref(v);
    return ok;
}

static void refuses(const char *source, const char *line)
{
    struct jinja_text out = {0};
    struct error err = {0};
    const bool ok = render(source, NULL, &out, &err);
    jinja_text_free(&out);
    check_error(ok, &err, line);
    assert_null(strchr(err.msg, '\n'));
}

static void writes(const char *source, const char *want)
{
    struct jinja_text out = {0};
    struct error err = {0};
    check_ok(render(source, NULL, &out, &err), &err);
    assert_int_equal(out.size, strlen(want));
    assert_memory_equal(out.bytes, want, out.size);
    jinja_text_free(&out);
}

static void what_is_at_the_edge(void **state)
{
    (void)state;
    writes("{% for a in [1, 2, 3] %}{{ loop.previtem if loop.previtem is defined else '-' }}"
           "{{ loop.nextitem if loop.nextitem is defined else '-' }}{% endfor %}",
           "-2132-");
    writes("{% for a in [1, 2] %}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}", "|2;1|;");
    refuses("{% for a in [1] %}{{ loop.previtem.x }}{% endfor %}", "there is no previous item");
    refuses("{% for a in [1] %}{{ loop.nextitem.x }}{% endfor %}", "there is no next item");
    refuses("{% for a in [1] %}{{ loop.other.x }}{% endfor %}", "has no attribute 'other'");
    writes("{{ 2 ** 3 ** 2 }} {{ 2 * 3 ** 2 }} {{ 2 ** 'ab' | length }} {{ 2 ** -1 }}",
           "64 18 4 0.5");
    writes("{{ 'abcab'.removeprefix('ab') }} {{ 'xab'.removeprefix('ab') }}", "cab xab");
    writes("{{ '1_2' | int }} {{ '1__2' | int }} {{ '_1' | int }} {{ '1_' | int }}", "12 0 0 0");
    writes("{{ '1_2_3' | int }} {{ '-1_2' | int }} {{ '+_1' | int }} {{ '1_-2' | int }}",
           "123 -12 0 0");
    writes("{{ 'F_f' | int(base=16) }} {{ '0x_1' | int(base=16) }}", "255 1");
    refuses("{{ 'aa'.find('a', 1) }}", "find: a start is not implemented");
    refuses("{{ messages | tojson(indent=1.5) }}", "tojson: indent of type 'float'");
}

static void a_failure_is_one_line_with_its_place(void **state)
{
    (void)state;
    refuses("a\n{{ messages | nofilter }}", "T:2: no filter named 'nofilter'");
    refuses("{% if messages is notest %}{% endif %}", "T:1: no test named 'notest'");
    refuses("{{ 1 if 0 else messages | nofilter }}", "T:1: no filter named 'nofilter'");
    refuses("\n\n{{ raise_exception('roles\nmust alternate') }}", "T:3: roles must alternate");
    refuses("{{ x.y }}", "T:1: 'x' is undefined");
    refuses("{{ messages[0].zz.y }}", "T:1: 'dict object' has no attribute 'zz'");
    refuses("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe.");
    refuses("{{ messages[0].update({}) }}",
            "access to attribute 'update' of 'dict' object is unsafe.");
    refuses("{% for x in messages %}", "T:1: found the template's end, expected");
    refuses("{{ (1 }}", "T:1: '");
    refuses("\n{% include 'x' %}", "T:2: unknown statement 'include'");
    refuses("{{ 'abc", "T:1: a text without its closing '");
    refuses("{# abc", "T:1: a comment without its end");
    refuses("{{ 9223372036854775807 + 1 }}", "beyond 64 bits");
    refuses("{{ '\xff' }}", "not valid UTF-8 at byte 4");
    refuses("{{ range(100001) }}", "more than 100000 numbers");
    refuses("{{ namespace(_x=1) }}", "starts with _");
}

// The line of the part that fails, in whatever stands over several.
static void the_line_is_that_of_what_fails(void **state)
{
    (void)state;
    refuses("{% set\n\n a, b = [1, 2, 3] %}", "T:3: cannot unpack 3 values into 2 names");
    refuses("{% for\n\na, b in [[1]] %}{% endfor %}", "T:3: cannot unpack 1 values into 2 names");
    refuses("{{ [1,\n2,\n1 / 0] }}", "T:3: division by zero");
    refuses("\n{% if 1 %}\n{{ 1 / 0 }}{% endif %}", "T:3: division by zero");
    refuses("{% if 1 %}\n\n{% elif 1 %}{% endif %}{{\n'a'.index('b') }}", "T:4: substring");
    refuses("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}", "T:2: division by zero");
    refuses("{# a\nb #}{{ 1 / 0 }}", "T:2: division by zero");
    refuses("{{ 'a\nb' }}{{ 1 / 0 }}", "T:2: division by zero");
    refuses("{% raw %}\n\n{% endraw %}{{ 1 / 0 }}", "T:3: division by zero");
    refuses("a\r\nb\rc\n{{ 1 / 0 }}", "T:4: division by zero");
    refuses("{%- if 1 -%}\n\n{{ nothing\n.x.y }}{% endif %}", "T:3: 'nothing' is undefined");
    refuses("\n{{ 1 | nofilter(\n2) }}", "T:2: no filter named 'nofilter'");
    refuses("\n\n{% unknown\n %}", "T:3: unknown statement 'unknown'");
}

static void a_limit_ends_what_would_not_end(void **state)
{
    (void)state;
    static const char for_ever[] =
        "\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    static const char deep[] = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    static const char grows[] = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set "
                                "ns.x = ns.x * 2 %}{% endfor %}";
    struct buf nested = {0};
    refuses(for_ever, "T:2: more than 10000000 steps, the limit");
    refuses(deep, "T:1: nested more than 400 deep, the limit");
    refuses(grows, "T:1: more than 67108864 bytes of text, the limit");
    for (int i = 0; i < 100000; i++) {
        assert_true(buf_puts(&nested, i ? "(" : "{{ "));
    }
    for (int i = 0; i < 100000; i++) {
        assert_true(buf_puts(&nested, i < 99999 ? (i ? ")" : "1)") : " }}"));
    }
    refuses(nested.data, "T:1: nested more than 400 deep, the limit");
    buf_free(&nested);
}

static void limits_can_be_given(void **state)
{
    (void)state;
    static const struct jinja_limits small = {
        .steps = 200, .depth = 20, .output = 10, .memory = 1 << 20};
    struct jinja_text out = {0};
    struct error err = {0};
    check_ok(render("0123456789", &small, &out, &err), &err);
    assert_string_equal(out.bytes, "0123456789");
    assert_true(out.steps > 0 && out.steps <= small.steps);
    check_error(render("{{ '01234567890' ~ '' }}", &small, &out, &err), &err,
                "more than 10 bytes of text");
    check_error(render("{% for i in range(999) %}{% endfor %}", &small, &out, &err), &err,
                "more than 200 steps");
    jinja_text_free(&out);
}

// Every allocation of a parse and a render fails once.
static void runs_out_of_memory_cleanly(void **state)
{
    (void)state;
    static const char source[] =
        "{% for m in messages %}{{ m | tojson(indent=2) }}{{ 'x' * 300000 }}{% endfor %}";
    bool ok = false;
    for (int64_t n = 1; !ok && n < 100; n++) {
        struct jinja_text out = {0};
        struct error err = {0};
        mem_fail_at(n, false);
        ok = render(source, NULL, &out, &err);
        mem_fail_at(0, false);
        if (!ok) check_error(ok, &err, "memory");
        jinja_text_free(&out);
    }
    assert_true(ok);
}

static void tells_where_bytes_come_from(void **state)
{
    (void)state;
    struct jinja_text out = {0};
    struct error err = {0};
    check_ok(
        render("<{{ messages[0].role }}>{{ messages[0].content | upper ~ '!' }}", NULL, &out, &err),
        &err);
    assert_string_equal(out.bytes, "<user>HI!");
    for (size_t i = 0; i < out.size; i++) {
        assert_int_equal(out.origin[i],
                         i == 6 || i == 7); // of message 0; its role is the template's
    }
    jinja_text_free(&out);
}

// ---- the model's folder

static void put(const char *dir, const char *name, const char *text)
{
    char path[1100];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static void renders_from(const char *dir, bool tools, const char *want)
{
    struct error err = {0};
    struct tokenizer *t = small_tokenizer();
    struct segments s = {0};
    json_t *conversation = json_pack("{s:[]}", "tools");
    const struct message m = {
        .role = "user", .content = "Hi", .mask = -1, .conversation = tools ? conversation : NULL};
    struct model_template *own = model_template_open(dir, t, &err);
    check_ok(own != NULL, &err);
    const bool ok = model_template_render(own, &s, &m, 1, true, &err);
    if (want) {
        check_ok(ok, &err);
        assert_string_equal(s.segment[0].text, want);
    } else {
        check_error(ok, &err, "several chat templates (rag, tool_use), but none is called default");
    }
    segments_free(&s);
    model_template_close(own);
    json_decref(conversation);
    tokenizer_close(t);
}

static void finds_the_template_in_the_folder(void **state)
{
    (void)state;
    const char *dir = test_dir();
    struct error err = {0};
    bool found = true;
    check_ok(model_template_exists(&found, dir, &err), &err);
    assert_false(found);
    put(dir, "tokenizer_config.json", "{\"chat_template\":\"one\"}");
    check_ok(model_template_exists(&found, dir, &err), &err);
    assert_true(found);
    renders_from(dir, false, "one");
    put(dir, "tokenizer_config.json",
        "{\"chat_template\":[{\"name\":\"default\",\"template\":\"two\"},{\"name\":\"tool_use\","
        "\"template\":\"tools\"}]}");
    renders_from(dir, false, "two");
    renders_from(dir, true, "tools");
    put(dir, "tokenizer_config.json", "{\"chat_template\":{\"rag\":\"x\",\"tool_use\":\"tools\"}}");
    renders_from(dir, true, "tools");
    renders_from(dir, false, NULL);
    put(dir, "chat_template.jinja", "{{ 'file' }}\n"); // beats the others
    renders_from(dir, false, "file");
}

static void a_malformed_folder_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"chat_template\":7}", "expected a text or a list of named ones"},
        {"{\"chat_template\":[7]}", "chat_template[0]: expected an object with a name"},
        {"{\"chat_template\":[{\"name\":\"default\"}]}", "expected a text for 'default'"},
        {"{\"chat_template\":\"a\\n{% if %}\"}", "tokenizer_config.json: chat_template:2: "},
        {"{}", "has no chat_template"},
    };
    struct tokenizer *t = small_tokenizer();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = test_dir();
        struct error err = {0};
        put(dir, "tokenizer_config.json", cases[i][0]);
        check_error(model_template_open(dir, t, &err) != NULL, &err, cases[i][1]);
    }
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_at_the_edge),
        cmocka_unit_test(a_failure_is_one_line_with_its_place),
        cmocka_unit_test(the_line_is_that_of_what_fails),
        cmocka_unit_test(a_limit_ends_what_would_not_end),
        cmocka_unit_test(limits_can_be_given),
        cmocka_unit_test(runs_out_of_memory_cleanly),
        cmocka_unit_test(tells_where_bytes_come_from),
        cmocka_unit_test(finds_the_template_in_the_folder),
        cmocka_unit_test(a_malformed_folder_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
