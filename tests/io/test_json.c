// JSON is strict, and typed access names the file, the key, what was found and what was expected.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text, struct error *err)
{
    return json_parse(text, strlen(text), "file.json", err);
}

static void refuses_what_is_not_json(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "file.json: not valid JSON"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":1}x", "end of file"},
        {"{\"a\":1,}", "string or '}'"},
        {"{a:1}", "line 1"},
        {"{\n\"a\":tru}", "line 2"},
        {"{\"a\":01}", "line 1"},
        {"{\"a\":NaN}", "NaN"},
        {"{\"a\":1e999}", "real number overflow"},
        {"{\"a\":9223372036854775808}", "too big integer"},
        {"{\"a\":\"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\":\"\xed\xa0\x80\"}", "unable to decode byte 0xed"},
        {"{\"a\":\"\\u0000\"}", "u0000"},
        {"{\"a\":\"\\ud800\"}", "Unicode"},
        {"{\"a\":\"b", "line 1"},
        {"{\"a\":\"b\nc\"}", "unexpected newline"},
        {"// x\n{}", "file.json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        json_t *value = parse(bad[i].text, &err);
        check_error(value != NULL, &err, bad[i].error);
        assert_null(strchr(err.msg, '\n')); // one line
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    const size_t n = 1 << 20;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '[', n);
    struct error err;
    assert_null(json_parse(deep, n, "deep", &err));
    assert_non_null(strstr(err.msg, "depth"));
    free(deep);
}

// Values cost memory by the piece: 75 bytes for each of these three.
static void memory_is_bounded(void **state)
{
    (void)state;
    const size_t n = 12 << 20;
    char *many = malloc(n);
    assert_non_null(many);
    for (size_t i = 0; i < n; i += 3) {
        memcpy(many + i, "{},", 3);
    }
    many[0] = '[', many[1] = '1', many[n - 2] = ']', many[n - 1] = ' ', many[n - 3] = '1';
    struct error err;
    assert_null(json_parse(many, n, "many", &err));
    assert_non_null(strstr(err.msg, "many: 12582912 bytes of JSON that unfold"));
    json_t *value = json_parse(many + n - 3, 1, "one", &err); // and the next text begins anew
    assert_null(value);
    assert_null(strstr(err.msg, "unfold"));
    value = json_parse("[{}]", 4, "few", &err);
    assert_non_null(value);
    json_decref(value);
    free(many);
}

static void reads_typed_members(void **state)
{
    (void)state;
    struct error err;
    json_t *o = parse("{\"i\":-5,\"r\":2.5,\"t\":true,\"s\":\"te\u00e4xt\",\"n\":null}", &err);
    assert_non_null(o);
    int64_t i = 0, kept = 77;
    double r = 0, whole = 0;
    bool t = false;
    const char *s = NULL;
    check_ok(json_get_int(o, "i", -5, 5, true, &i, "f", &err), &err);
    check_ok(json_get_real(o, "r", 0, 3, true, &r, "f", &err), &err);
    check_ok(json_get_real(o, "i", -9, 3, true, &whole, "f", &err), &err); // an integer is a number
    check_ok(json_get_bool(o, "t", true, &t, "f", &err), &err);
    check_ok(json_get_text(o, "s", true, &s, "f", &err), &err);
    assert_true(i == -5 && r == 2.5 && whole == -5 && t);
    assert_string_equal(s, "te\u00e4xt");

    check_ok(json_get_int(o, "n", 0, 1, false, &kept, "f", &err), &err);       // null
    check_ok(json_get_int(o, "missing", 0, 1, false, &kept, "f", &err), &err); // not there
    assert_int_equal(kept, 77);
    check_error(json_get_int(o, "n", 0, 1, true, &kept, "f", &err), &err, "n: found null");
    check_error(json_get_bool(o, "missing", true, &t, "f", &err), &err, "missing: found nothing");
    check_error(json_get_int(o, "i", 0, 5, true, &i, "f", &err), &err,
                "f: i: found -5, expected an integer from 0 to 5");
    check_error(json_get_int(o, "i", 0, INT64_MAX, true, &i, "f", &err), &err, "at least 0");
    check_error(json_get_int(o, "i", -9, -6, true, &i, "f", &err), &err, "from -9 to -6");
    check_error(json_get_int(o, "r", 0, 5, true, &i, "f", &err), &err, "found 2.5");
    check_error(json_get_int(o, "t", 0, 5, true, &i, "f", &err), &err, "found true");
    check_error(json_get_real(o, "s", 0, 5, false, &r, "f", &err), &err, "found \"te");
    check_error(json_get_real(o, "r", 3, 5, false, &r, "f", &err), &err, "from 3 to 5");
    check_error(json_get_real(o, "i", 0, 1e308, false, &r, "f", &err), &err, "at least 0");
    check_error(json_get_bool(o, "i", false, &t, "f", &err), &err, "expected true or false");
    check_error(json_get_text(o, "i", false, &s, "f", &err), &err, "expected a string");
    assert_true(i == -5 && r == 2.5); // unchanged by failures
    json_decref(o);
    o = parse("{\"object\":{},\"array\":[1,2],\"no\":false,\"null\":null}", &err);
    check_error(json_get_int(o, "object", 0, 5, true, &i, "f", &err), &err, "found an object");
    check_error(json_get_int(o, "array", 0, 5, true, &i, "f", &err), &err, "found an array of 2");
    check_error(json_get_int(o, "no", 0, 5, true, &i, "f", &err), &err, "found false");
    check_error(json_get_int(o, "null", 0, 5, true, &i, "f", &err), &err, "found null");
    json_decref(o);
}

static void files_are_written_and_read(void **state)
{
    (void)state;
    struct error err;
    char path[2048];
    snprintf(path, sizeof path, "%s/x.json", test_dir());
    json_t *o = parse("{\"b\":[1,2],\"a\":{\"x\":0.1,\"y\":\"\u4e2d\"}}", &err);
    check_ok(json_write_file(path, o, &err), &err);
    json_t *again = json_parse_file(path, 1000, &err);
    assert_non_null(again);
    assert_true(json_equal(o, again));
    char *text;
    size_t size;
    check_ok(file_read(&text, &size, path, 1000, &err), &err);
    assert_true(text[size - 1] == '\n' && strstr(text, "\"b\"") < strstr(text, "\"a\""));
    mem_free(text);
    json_decref(again);
    assert_null(json_parse_file(path, size - 1, &err));
    assert_non_null(strstr(err.msg, "at most"));
    check_error(json_write_file("/nonexistent/x.json", o, &err), &err, "/nonexistent/x.json");
    json_decref(o);
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    struct error err;
    json_t *value = NULL;
    for (int64_t n = 1; !value; n++) {
        mem_fail_at(n, true);
        value = parse("{\"a\":[1,2.5,\"x\",{\"b\":null}],\"c\":\"longer text here\"}", &err);
        mem_fail_at(0, false);
        if (!value) assert_non_null(strstr(err.msg, "no memory"));
    }
    json_decref(value);
}

// Once, not for ever: a lexer that goes on has lost a byte of the token, which may be its last.
static void a_token_loses_no_byte(void **state)
{
    (void)state;
    struct error err;
    char text[400] = "[1234567890123456789, \"";
    memset(text + strlen(text), 'x', 200);
    strcpy(text + strlen(text), "\"]");
    json_t *value = NULL, *whole = parse(text, &err);
    for (int64_t n = 1; n < 40; n++) {
        mem_fail_at(n, false);
        value = parse(text, &err);
        mem_fail_at(0, false);
        if (value) assert_true(json_equal(value, whole));
        if (!value) assert_non_null(strstr(err.msg, "no memory"));
        json_decref(value);
    }
    assert_non_null(value);
    json_decref(whole);
}

static void a_lost_part_is_not_left_out_of_a_text(void **state)
{
    (void)state;
    char *text = NULL;
    for (int64_t n = 1; !text; n++) {
        json_t *o = json_object();
        mem_fail_at(n, false);
        json_object_set_new(o, "a", json_string("b")); // unchecked, as who builds many does
        json_object_set_new(o, "c", json_integer(1));
        text = json_text(o, JSON_COMPACT);
        mem_fail_at(0, false);
        json_decref(o);
        assert_true(n < 40);
    }
    assert_string_equal(text, "{\"a\":\"b\",\"c\":1}");
    mem_free(text);
}

// A value that is used as it is, and numbers that get no room on their way into one.
static void who_makes_no_text_can_ask(void **state)
{
    (void)state;
    bool whole = false;
    for (int64_t n = 1; !whole; n++) {
        json_t *o = json_object();
        mem_fail_at(n, false);
        json_object_set_new(o, "a", json_string("b"));
        int *number = json_buffer(sizeof *number);
        whole = json_whole();
        mem_fail_at(0, false);
        assert_true(json_whole()); // asked once
        if (whole) assert_non_null(number);
        if (whole) assert_int_equal(json_object_size(o), 1);
        mem_free(number);
        json_decref(o);
        assert_true(n < 40);
    }
}

static json_t *parse_repeated(const char *first, const char *piece, int n, const char *last,
                              struct error *err)
{
    struct buf text = {0};
    bool ok = buf_append(&text, first, strlen(first));
    for (int i = 0; ok && i < n; i++) {
        ok = buf_append(&text, piece, strlen(piece));
    }
    assert_true(ok && buf_append(&text, last, strlen(last)));
    json_t *value = json_parse(text.data, text.size, "x.json", err);
    buf_free(&text);
    return value;
}

// What brackets open is counted before anything is made of it, and only what they open.
static void what_unfolds_too_far_is_refused_unread(void **state)
{
    (void)state;
    struct error err = {0};
    static const char *const pieces[] = {"{},", "[],", "[{}],"};
    for (int i = 0; i < 3; i++) {
        check_error(parse_repeated("[", pieces[i], 3000000, "0]", &err) != NULL, &err,
                    "bytes of JSON that unfold into more than 240 MiB");
    }
    json_t *text = parse_repeated("[\"", "{[\\\"", 3000000, "\"]", &err);
    check_ok(text != NULL, &err);
    json_decref(text);
    check_error(parse_repeated("", "[", 3000000, "", &err) != NULL, &err, "maximum parsing depth");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(reads_typed_members),
        cmocka_unit_test(files_are_written_and_read),
        cmocka_unit_test(survives_every_failed_allocation),
        cmocka_unit_test(a_token_loses_no_byte),
        cmocka_unit_test(a_lost_part_is_not_left_out_of_a_text),
        cmocka_unit_test(who_makes_no_text_can_ask),
        cmocka_unit_test(what_unfolds_too_far_is_refused_unread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
