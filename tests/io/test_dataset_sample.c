// tests/io/test_dataset_sample.c - one object of a data file by itself: which format it is taken for, what of it
// becomes a turn or an id, and the words that refuse it.
#include "support.h"

#include "io/dataset_sample.h"

#include <string.h>

static json_t *object_of(const char *text)
{
    json_error_t e;
    json_t *o = json_loads(text, JSON_DECODE_ANY, &e);
    if (!o) fail_msg("%s: %s", text, e.text);
    return o;
}

// role:content of the turns, with their marks: /m (masked), /v (verbatim), +input.
static void describe(char *out, size_t size, const struct sample *s)
{
    size_t n = 0;
    *out = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const struct message *m = &s->message[i];
        n += (size_t)snprintf(out + n, size - n, "%s%s:%s%s%s%s%s", i ? " " : "", m->role,
                              m->content, m->mask == 1 ? "/m" : "", m->verbatim ? "/v" : "",
                              m->input ? "+" : "", m->input ? m->input : "");
    }
}

static void formats_become_turns(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{'prompt':'a','completion':'b'}", "user:a/v assistant:b"},
        {"{'completion':'b','prompt':'a','text':'t'}", "user:a/v assistant:b"},
        {"{'prompt':'','completion':''}", "user:/v assistant:"},
        {"{'question':'a','answer':'b'}", "user:a assistant:b"},
        {"{'instruction':'a','output':'b'}", "user:a assistant:b"},
        {"{'instruction':'a','input':'c','output':'b'}", "user:a+c assistant:b"},
        {"{'instruction':'a','input':null,'output':'b'}", "user:a assistant:b"},
        {"{'instruction':'a','output':'b','prompt':'p','text':'t'}", "user:a assistant:b"},
        {"{'messages':[{'role':'system','content':'s'},{'role':'user','content':'u'},"
         "{'role':'assistant','content':'a'}]}",
         "system:s user:u assistant:a"},
        {"{'messages':[{'role':'user','content':'u','mask':1},{'role':'user','content':'w',"
         "'mask':true},{'role':'user','content':'x','mask':0},{'role':'user','content':'y',"
         "'mask':false},{'role':'user','content':'z','mask':null}]}",
         "user:u/m user:w/m user:x user:y user:z"},
        {"{'conversations':[{'from':'system','value':'s'},{'from':'human','value':'h'},"
         "{'from':'gpt','value':'g'},{'from':'user','value':'u'},{'from':'assistant','value':'a'}]"
         "}",
         "system:s user:h assistant:g user:u assistant:a"},
        {"{'messages':[{'role':'user','content':'m'}],'conversations':[]}", "user:m"},
    };
    struct sample s = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024], got[512];
        struct error err = {0};
        snprintf(text, sizeof text, "%s", cases[i][0]);
        for (char *p = text; *p; p++) {
            if (*p == '\'') *p = '"';
        }
        json_t *o = object_of(text);
        check_ok(sample_parse(&s, o, "f:1", &err), &err); // the same sample, again and again
        assert_int_equal(s.kind, SAMPLE_CHAT);
        describe(got, sizeof got, &s);
        assert_string_equal(got, cases[i][1]);
        json_decref(o);
    }
    sample_free(&s);
    sample_free(&s); // twice is safe
}

static void masks_are_told_apart_from_none(void **state)
{
    (void)state;
    struct sample s = {0};
    struct error err = {0};
    json_t *o = object_of("{\"messages\":[{\"role\":\"user\",\"content\":\"\"},"
                          "{\"role\":\"user\",\"content\":\"\",\"mask\":0},"
                          "{\"role\":\"user\",\"content\":\"\",\"mask\":1}]}");
    check_ok(sample_parse(&s, o, "f:1", &err), &err);
    assert_int_equal(s.message[0].mask, -1);
    assert_int_equal(s.message[1].mask, 0);
    assert_int_equal(s.message[2].mask, 1);
    json_decref(o);
    sample_free(&s);
}

static void ids_are_taken_as_they_are(void **state)
{
    (void)state;
    struct sample s = {0};
    struct error err = {0};
    static const char *const texts[] = {
        "{\"input_ids\":[0,7,2147483647],\"labels\":[-100,7,2147483647]}",
        "{\"input_ids\":[5],\"labels\":[5],\"attention_mask\":[1],\"text\":\"no\"}",
        "{\"input_ids\":[5,6],\"labels\":[-100,-100],\"attention_mask\":null}"};
    static const int32_t ids[][3] = {{0, 7, INT32_MAX}, {5}, {5, 6}};
    static const char learn[][3] = {{0, 1, 1}, {1}, {0, 0}};
    static const int64_t count[] = {3, 1, 2};
    for (int i = 0; i < 3; i++) {
        json_t *o = object_of(texts[i]);
        check_ok(sample_parse(&s, o, "f:1", &err), &err);
        assert_int_equal(s.kind, SAMPLE_IDS);
        assert_int_equal(s.ids.count, count[i]);
        assert_int_equal(s.learn.size, count[i]);
        assert_memory_equal(s.ids.id, ids[i], (size_t)count[i] * sizeof **ids);
        assert_memory_equal(s.learn.data, learn[i], (size_t)count[i]);
        json_decref(o);
    }
    sample_free(&s);
}

static void a_text_is_a_text(void **state)
{
    (void)state;
    struct sample s = {0};
    struct error err = {0};
    json_t *o = object_of("{\"text\":\"t\",\"answer\":\"a\"}");
    check_ok(sample_parse(&s, o, "f:1", &err), &err);
    assert_int_equal(s.kind, SAMPLE_TEXT);
    assert_string_equal(s.text, "t");
    json_decref(o);
    sample_free(&s);
}

// The model's own template takes any role and any content, and sees the object around.
static void any_turn_is_handed_on(void **state)
{
    (void)state;
    struct sample s = {.any_turns = true};
    struct error err = {0};
    json_t *o = object_of("{\"messages\":[{\"role\":\"tool\",\"content\":[1]},{\"role\":\"x\"},"
                          "{\"role\":\"user\",\"content\":\"c\",\"mask\":1}],\"tools\":[]}");
    check_ok(sample_parse(&s, o, "f:1", &err), &err);
    assert_int_equal(s.count, 3);
    assert_string_equal(s.message[0].role, "tool");
    assert_string_equal(s.message[0].content, "");
    assert_string_equal(s.message[1].content, "");
    assert_string_equal(s.message[2].content, "c");
    assert_int_equal(s.message[2].mask, 1);
    assert_ptr_equal(s.message[0].conversation, o);
    assert_null(s.message[1].conversation);
    for (size_t i = 0; i < 3; i++) {
        assert_ptr_equal(s.message[i].json, json_array_get(json_object_get(o, "messages"), i));
    }
    json_decref(o);
    json_t *bad = object_of("{\"messages\":[{\"content\":\"c\"}]}");
    check_error(sample_parse(&s, bad, "f:1", &err), &err, "f:1: messages[0]: role: missing beside");
    json_decref(bad);
    json_t *speaker = object_of("{\"conversations\":[{\"from\":\"tool\",\"value\":\"v\"}]}");
    check_error(sample_parse(&s, speaker, "f:1", &err), &err,
                "from: found 'tool', expected system");
    json_decref(speaker);
    sample_free(&s);
}

static const char turns[] = "expected an array of turns";
static const char *const refused[][2] = {
    {"[]", "f:1: found an array, expected an object"},
    {"\"x\"", "f:1: found text, expected an object"},
    {"null", "f:1: found null, expected an object"},
    {"1", "f:1: found an integer, expected an object"},
    {"1.5", "f:1: found a number, expected an object"},
    {"true", "f:1: found true or false, expected an object"},
    {"{}", "found nothing, expected input_ids, messages, conversations, instruction"},
    {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1}",
     "found a, b, c, d, e, f, g, h, expected"},
    {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}",
     "found a, b, c, d, e, f, g, h, ..., expected"},
    {"{\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\":1}",
     "found abcdefghijklmnopqrstuvwxyzabcdef, expected"},
    {"{\"messages\":3}", turns},
    {"{\"messages\":[]}", "messages: found an empty array, expected an array of turns"},
    {"{\"conversations\":\"x\"}", "conversations: found text, expected an array of turns"},
    {"{\"messages\":[{\"role\":3,\"content\":\"\"}]}", "messages[0]: role: found an integer"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"},[]]}",
     "messages[1]: found an array, expected an object"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"mask\":-1}]}",
     "mask: found another integer, expected 1 (no loss) or 0"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"mask\":2}]}", "another integer"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"mask\":1.0}]}",
     "mask: found a number, expected 1"},
    {"{\"prompt\":3}", "prompt: found an integer, expected text"},
    {"{\"completion\":\"a\"}", "prompt: missing beside 'completion' (found completion)"},
    {"{\"prompt\":\"a\"}", "completion: missing beside 'prompt' (found prompt)"},
    {"{\"instruction\":\"a\"}", "output: missing beside 'instruction' (found instruction)"},
    {"{\"instruction\":1,\"output\":\"\"}", "instruction: found an integer, expected text"},
    {"{\"instruction\":\"\",\"output\":\"\",\"input\":2}",
     "input: found an integer, expected text"},
    {"{\"question\":\"a\"}", "answer: missing beside 'question' (found question)"},
    {"{\"question\":null}", "question: found null, expected text"},
    {"{\"text\":{}}", "text: found an object, expected text"},
    {"{\"input_ids\":{}}", "input_ids: found an object, expected an array of integers"},
    {"{\"input_ids\":[]}", "input_ids: found no elements, expected some"},
    {"{\"input_ids\":[1]}", "labels: found nothing, expected an array of integers"},
    {"{\"input_ids\":[-1],\"labels\":[-1]}", "input_ids[0]: found an integer -1, expected a token"},
    {"{\"input_ids\":[1,2147483648]}", "input_ids[1]: found an integer 2147483648, expected"},
    {"{\"input_ids\":[1,\"2\"]}", "input_ids[1]: found text 0, expected a token id"},
    {"{\"input_ids\":[1],\"labels\":[1,2]}",
     "labels: found 2 elements, expected 1 as in input_ids"},
    {"{\"input_ids\":[1],\"labels\":[]}", "labels: found 0 elements, expected 1"},
    {"{\"input_ids\":[1],\"labels\":[-99]}",
     "labels[0]: found an integer -99, expected -100 or the id 1"},
    {"{\"input_ids\":[1,2],\"labels\":[1,2.0]}", "labels[1]: found a number -1, expected -100"},
    {"{\"input_ids\":[1],\"labels\":[1],\"attention_mask\":1}",
     "attention_mask: found an integer, expected an array of integers"},
    {"{\"input_ids\":[1],\"labels\":[1],\"attention_mask\":[1,1]}",
     "attention_mask: found 2 elements, expected 1"},
    {"{\"input_ids\":[1,2],\"labels\":[1,2],\"attention_mask\":[0,1]}",
     "attention_mask[0]: expected 1 (examples without padding)"},
    {"{\"input_ids\":[1,2],\"labels\":[1,2],\"attention_mask\":[1,2]}", "attention_mask[1]:"},
};

static void what_is_refused_is_said(void **state)
{
    (void)state;
    struct sample s = {0};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct error err = {0};
        json_t *o = object_of(refused[i][0]);
        check_error(sample_parse(&s, o, "f:1", &err), &err, refused[i][1]);
        assert_memory_equal(err.msg, "f:1: ", 5);
        json_decref(o);
    }
    sample_free(&s);
}

// Keys of any number and length fit into a message.
static void a_list_of_keys_is_bounded(void **state)
{
    (void)state;
    struct sample s = {0};
    struct error err = {0};
    json_t *o = json_object();
    for (int i = 0; i < 20; i++) {
        char key[64];
        snprintf(key, sizeof key, "key number %02d of the object that has no format", i);
        json_object_set_new(o, key, json_null());
    }
    check_error(sample_parse(&s, o, "f:1", &err), &err,
                "key number 00 of the object that, key number");
    assert_non_null(strstr(err.msg, "key number 07 of the object that, ..., expected input_ids"));
    assert_null(strstr(err.msg, "key number 08"));
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_become_turns),
        cmocka_unit_test(masks_are_told_apart_from_none),
        cmocka_unit_test(ids_are_taken_as_they_are),
        cmocka_unit_test(a_text_is_a_text),
        cmocka_unit_test(any_turn_is_handed_on),
        cmocka_unit_test(what_is_refused_is_said),
        cmocka_unit_test(a_list_of_keys_is_bounded),
    };
    return cmocka_run_group_tests_name("dataset sample", tests, NULL, NULL);
}
