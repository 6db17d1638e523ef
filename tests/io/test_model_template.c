// tests/io/test_model_template.c - a model's own template: in which files it is found, what of them is refused and
// in which words, and the variables that it is given.
#include "data_fixtures.h"

#include "base/mem.h"
#include "io/model_template.h"

#include <stdlib.h>
#include <sys/stat.h>

static struct tokenizer *tokenizer; // the fixtures'

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

static void put(const char *dir, const char *name, const char *text)
{
    char path[1200];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

// The whole text of a conversation, free with mem_free; NULL and err.
static char *text_with(const char *dir, const struct message *m, int64_t n, struct error *err)
{
    struct model_template *own = model_template_open(dir, tokenizer, err);
    check_ok(own != NULL, err);
    struct segments s = {0};
    struct buf text = {0};
    bool ok = model_template_render(own, &s, m, n, true, err) && buf_puts(&text, "");
    for (int64_t i = 0; ok && i < s.count; i++) {
        ok = buf_puts(&text, s.segment[i].text);
    }
    segments_free(&s);
    model_template_close(own);
    if (!ok) buf_free(&text);
    return text.data;
}

static void check_text(const char *dir, const struct message *m, int64_t n, const char *want)
{
    struct error err = {0};
    char *text = text_with(dir, m, n, &err);
    check_ok(text != NULL, &err);
    assert_string_equal(text, want);
    mem_free(text);
}

static const struct message hello = {.role = "user", .content = "Hi", .mask = -1};

// A folder with this template in a file of its own.
static const char *folder(const char *template)
{
    const char *dir = test_dir();
    put(dir, "chat_template.jinja", template);
    return dir;
}

static void a_bad_entry_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"chat_template\":{\"default\":3}}", "chat_template: expected a text for 'default'"},
        {"{\"chat_template\":{\"default\":\"x\",\"rag\":null}}", "expected a text for 'rag'"},
        {"{\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"},{\"template\":\"y\"}]}",
         "chat_template[1]: expected an object with a name"},
        {"{\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"},"
         "{\"name\":\"default\",\"template\":\"y\"}]}",
         "chat_template: two of the name 'default'"},
        {"{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"x\"},"
         "{\"name\":\"tool_use\",\"template\":\"y\"}]}",
         "chat_template: two of the name 'tool_use'"},
        {"{\"chat_template\":{\"default\":\"x\",\"tool_use\":\"a\\n\\n{% if %}\"}}",
         "tokenizer_config.json: chat_template tool_use:3: "},
        {"{\"chat_template\":{\"default\":\"{% for %}\",\"tool_use\":\"x\"}}",
         "tokenizer_config.json: chat_template:1: "},
        {"{\"chat_template\":true}", "chat_template: expected a text or a list of named ones"},
        {"{\"chat_template\":null}", "has no chat_template, and there is no chat_template.jinja"},
        {"{\"chat_template\":", "tokenizer_config.json: not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = test_dir();
        struct error err = {0};
        put(dir, "tokenizer_config.json", cases[i][0]);
        struct model_template *own = model_template_open(dir, tokenizer, &err);
        check_error(own != NULL, &err, cases[i][1]);
    }
}

static void names_that_nothing_uses_do_no_harm(void **state)
{
    (void)state;
    const char *dir = test_dir();
    put(dir, "tokenizer_config.json",
        "{\"chat_template\":{\"rag\":\"{% if %}\",\"default\":\"a\",\"other\":\"b\"}}");
    check_text(dir, &hello, 1, "a");
}

static void a_bad_file_is_named(void **state)
{
    (void)state;
    struct error err = {0};
    const char *dir = folder("a\n{% if %}");
    check_error(model_template_open(dir, tokenizer, &err) != NULL, &err, "chat_template.jinja:2: ");

    char path[1200];
    dir = folder("plain {{ messages[0].content }}");
    snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
    check_ok(dir_make(path, &err), &err);
    check_text(dir, &hello, 1, "plain Hi");
    put(dir, "additional_chat_templates/tool_use.jinja", "{% endif %}");
    check_error(model_template_open(dir, tokenizer, &err) != NULL, &err, "tool_use.jinja:1: ");

    dir = test_dir(); // a folder of that name cannot be read
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    check_error(model_template_open(dir, tokenizer, &err) != NULL, &err, "chat_template.jinja");
}

// With tools in the conversation that has the second template; without, the first.
static void tools_have_a_template_of_their_own(void **state)
{
    (void)state;
    static const struct {
        const char *conversation, *want;
    } cases[] = {{"{\"tools\":[{\"name\":\"f\"}]}", "tools f"},
                 {"{\"tools\":null}", "plain"},
                 {"{}", "plain"}};
    char path[1200];
    struct error err = {0};
    const char *dir = folder("plain");
    snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
    check_ok(dir_make(path, &err), &err);
    put(dir, "additional_chat_templates/tool_use.jinja", "tools {{ tools[0].name }}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct message m = hello;
        json_t *around = json_loads(cases[i].conversation, 0, NULL);
        assert_non_null(around);
        m.conversation = around;
        check_text(dir, &m, 1, cases[i].want);
        json_decref(around);
    }
}

static void the_template_has_the_model_s_tokens(void **state)
{
    (void)state;
    const char *dir = folder("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|"
                             "{{ sep_token }}|{{ cls_token }}|{{ mask_token }}|{{ nosuch_token }}");
    check_text(dir, &hello, 1, "|||||||");
    put(dir, "special_tokens_map.json",
        "{\"bos_token\":\"late\",\"sep_token\":\"S\",\"mask_token\":{\"content\":\"M\"}}");
    put(dir, "tokenizer_config.json",
        "{\"bos_token\":{\"content\":\"<bos>\"},\"eos_token\":\"<e>\",\"pad_token\":null,"
        "\"unk_token\":7,\"cls_token\":\"C\",\"nosuch_token\":\"x\"}");
    check_text(dir, &hello, 1, "<bos>|<e>|||S|C|M|"); // the first file speaks first
    struct error err = {0};
    put(dir, "special_tokens_map.json", "{");
    check_error(model_template_open(dir, tokenizer, &err) != NULL, &err, "special_tokens_map.json");
}

static void a_conversation_brings_its_own_variables(void **state)
{
    (void)state;
    const char *dir = folder("{{ documents[0] }} {{ thinking }} {{ add_generation_prompt }} "
                             "{{ messages | length }}");
    struct message m[2] = {hello, {.role = "assistant", .content = "x", .mask = -1}};
    json_t *around = json_loads("{\"documents\":[\"d\"],\"chat_template_kwargs\":{\"thinking\":4,"
                                "\"other\":5},\"unknown\":6}",
                                0, NULL);
    m[0].conversation = around;
    check_text(dir, m, 2, "d 4 True 2");
    json_decref(around);
}

// More than there is room for are left out, not written beyond it.
static void many_variables_are_cut(void **state)
{
    (void)state;
    const char *dir = folder("{{ v0 }} {{ messages[0].content }}");
    struct message m = hello;
    json_t *many = json_object();
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "v%d", i);
        json_object_set_new(many, name, json_integer(i));
    }
    json_t *around = json_pack("{s:o}", "chat_template_kwargs", many);
    m.conversation = around;
    check_text(dir, &m, 1, "0 Hi");
    json_decref(around);
}

static void a_turn_is_handed_on_as_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *turn, *want;
    } cases[] = {
        {"{\"role\":\"user\",\"content\":\"Hi\",\"name\":\"N\"}", "Hi|N|||no"},
        {"{\"role\":\"user\",\"content\":\"Hi\",\"name\":null}",
         "Hi||||no"}, // as if it was not there
        {"{\"role\":\"user\",\"content\":\"Hi\",\"mask\":1}", "Hi||||no"},
        {"{\"role\":\"user\",\"content\":\"Hi\",\"reasoning\":\"r\"}", "Hi||r|r|yes"},
        {"{\"role\":\"user\",\"content\":\"Hi\",\"thinking\":\"t\"}", "Hi||t|t|yes"},
        {"{\"role\":\"user\",\"content\":\"Hi\",\"reasoning_content\":\"c\",\"reasoning\":\"r\"}",
         "Hi||c|c|yes"},
        {"{\"role\":\"user\",\"content\":\"Hi\",\"reasoning_content\":null,\"reasoning\":\"r\"}",
         "Hi||r|r|yes"},
    };
    const char *dir =
        folder("{% set m = messages[0] %}{{ m.content }}|{{ m.name }}|{{ m.thinking }}|"
               "{{ m.reasoning_content }}|{% if m.thinking is defined %}yes{% else %}no{% endif %}"
               "{% if m.mask is defined %}mask{% endif %}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *turn = json_loads(cases[i].turn, 0, NULL);
        assert_non_null(turn);
        const struct message m = {.role = "user", .content = "Hi", .mask = -1, .json = turn};
        check_text(dir, &m, 1, cases[i].want);
        json_decref(turn);
    }
    const struct message instruction = {
        .role = "user", .content = "Do", .input = "this", .mask = -1};
    check_text(dir, &instruction, 1, "Do\nthis||||no");
    const struct message empty = {.role = "user", .content = "Do", .input = "", .mask = -1};
    check_text(dir, &empty, 1, "Do||||no");
}

static void the_day_can_be_pinned(void **state)
{
    (void)state;
    const char *dir = folder("{{ strftime_now('%Y-%m-%d') }}");
    assert_int_equal(setenv("SOURCE_DATE_EPOCH", "86400", 1), 0);
    check_text(dir, &hello, 1, "1970-01-02");
    assert_int_equal(setenv("SOURCE_DATE_EPOCH", "", 1), 0); // says nothing
    struct error err = {0};
    char *text = text_with(dir, &hello, 1, &err);
    assert_non_null(text);
    assert_true(strcmp(text, "2024") > 0);
    mem_free(text);
    assert_int_equal(unsetenv("SOURCE_DATE_EPOCH"), 0);
}

static void a_folder_has_one_or_not(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        bool found;
    } cases[] = {{"{}", false},
                 {"{\"chat_template\":null}", false},
                 {"{\"chat_template\":\"\"}", true},
                 {"{\"chat_template\":7}", true}}; // refused when it is opened
    const char *dir = test_dir();
    struct error err = {0};
    bool found = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(dir, "tokenizer_config.json", cases[i].config);
        check_ok(model_template_exists(&found, dir, &err), &err);
        assert_int_equal(found, cases[i].found);
    }
    put(dir, "tokenizer_config.json", "{");
    check_error(model_template_exists(&found, dir, &err), &err, "tokenizer_config.json");
    put(dir, "chat_template.jinja", "");
    check_ok(model_template_exists(&found, dir, &err), &err); // the other file is not asked
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_entry_is_named),
        cmocka_unit_test(names_that_nothing_uses_do_no_harm),
        cmocka_unit_test(a_bad_file_is_named),
        cmocka_unit_test(tools_have_a_template_of_their_own),
        cmocka_unit_test(the_template_has_the_model_s_tokens),
        cmocka_unit_test(a_conversation_brings_its_own_variables),
        cmocka_unit_test(many_variables_are_cut),
        cmocka_unit_test(a_turn_is_handed_on_as_it_is),
        cmocka_unit_test(the_day_can_be_pinned),
        cmocka_unit_test(a_folder_has_one_or_not),
    };
    return cmocka_run_group_tests_name("model template", tests, open_tokenizer, close_tokenizer);
}
