// tests/io/test_dataset_source.c - a file cut into its examples: which bytes, on which line, and what is no such file.
#include "support.h"

#include "base/mem.h"
#include "io/dataset_source.h"

#include <string.h>

struct piece {
    const char *text;
    int64_t line;
};

// The pieces in order, then the end, or an error of these words.
static void check_pieces(const char *bytes, const struct piece *want, const char *words)
{
    struct dataset_source s;
    struct error err = {0};
    const char *text;
    size_t size;
    int64_t line, n = 0;
    dataset_source_over(&s, "f", bytes, strlen(bytes));
    for (; dataset_source_next(&s, &text, &size, &line, &err); n++) {
        if (!want[n].text) fail_msg("%s: more than %d pieces", bytes, (int)n);
        if (size != strlen(want[n].text) || memcmp(text, want[n].text, size) != 0)
            fail_msg("%s: piece %d is '%.*s'", bytes, (int)n, (int)size, text);
        assert_int_equal(line, want[n].line);
    }
    if (want[n].text) fail_msg("%s: %d pieces: %s", bytes, (int)n, err.msg);
    if (words) {
        check_error(false, &err, words);
    } else {
        assert_string_equal(err.msg, "");
        assert_false(dataset_source_next(&s, &text, &size, &line, &err)); // the end stays the end
    }
}
#define CHECK(bytes, words, ...)                                                                   \
    check_pieces(bytes, (const struct piece[]){__VA_ARGS__, {0}}, words)
#define REFUSED(bytes, words) check_pieces(bytes, (const struct piece[]){{0}}, words)

static void lines(void **state)
{
    (void)state;
    CHECK("{}\n{\"a\":1}\n", NULL, {"{}", 1}, {"{\"a\":1}", 2});
    CHECK("{}\n{}", NULL, {"{}", 1}, {"{}", 2}); // the last may lack its end
    CHECK("\n \n\t{} \r\n\r\n{}\n\n", NULL, {"{} \r", 3}, {"{}", 5});
    CHECK("\xEF\xBB\xBF{}\n", NULL, {"{}", 1});
    CHECK("\xEF\xBB{}\n", NULL, {"\xEF\xBB{}", 1}); // two bytes are no mark
    CHECK("x [", NULL, {"x [", 1});
    check_pieces("", (const struct piece[]){{0}}, NULL);
    check_pieces(" \n \n", (const struct piece[]){{0}}, NULL);
    check_pieces("\xEF\xBB\xBF", (const struct piece[]){{0}}, NULL);
}

static void elements_of_an_array(void **state)
{
    (void)state;
    CHECK("[{}]", NULL, {"{}", 1});
    CHECK("[{},{}]", NULL, {"{}", 1}, {"{}", 1});
    CHECK("\xEF\xBB\xBF \n[\n{\"a\":\n1}\n,\n\n {} ] \n", NULL, {"{\"a\":\n1}", 3}, {"{}", 7});
    CHECK("[{\"a\":[{},[]]}, {\"b\":{}}]", NULL, {"{\"a\":[{},[]]}", 1}, {"{\"b\":{}}", 1});
    CHECK("[{\"}]\":\"[{\"},{}]", NULL, {"{\"}]\":\"[{\"}", 1}, {"{}", 1});
    CHECK("[{\"a\\\"}\":1},{\"\\\\\":2}]", NULL, {"{\"a\\\"}\":1}", 1}, {"{\"\\\\\":2}", 1});
    check_pieces("[]", (const struct piece[]){{0}}, NULL);
    check_pieces(" [ \n ] \n", (const struct piece[]){{0}}, NULL);
}

static void what_is_no_array_of_objects(void **state)
{
    (void)state;
    REFUSED("[", "f:1: the file ends within the array, expected an object or ']'");
    REFUSED("\n[ \n", "f:3: the file ends within the array, expected an object or ']'");
    REFUSED("[{", "f:1: the file ends within the array, expected '}'");
    REFUSED("[{\"a", "the file ends within the array, expected '}'");
    REFUSED("[{\"a\\", "the file ends within the array, expected '}'");
    REFUSED("[,", "f:1: found ',', expected an object");
}

static void what_follows_an_object(void **state)
{
    (void)state;
    CHECK("[{}", "f:1: the file ends within the array, expected ',' or ']'", {"{}", 1});
    CHECK("[{},", "f:1: the file ends within the array, expected an object", {"{}", 1});
    CHECK("[{}\n{}]", "f:2: found '{', expected ',' or ']'", {"{}", 1});
    CHECK("[{},\n]", "f:2: found ']', expected an object", {"{}", 1});
    CHECK("[{},[]]", "f:1: found '[', expected an object", {"{}", 1});
    CHECK("[{}]\n]", "f:2: found ']', expected nothing after the array", {"{}", 1});
    CHECK("[{}]{}", "f:1: found '{', expected nothing after the array", {"{}", 1});
}

static void bytes_that_cannot_be_shown_are_numbers(void **state)
{
    (void)state;
    REFUSED("[\x1f", "f:1: found byte 0x1F, expected an object");
    REFUSED("[!", "f:1: found '!', expected an object");
    REFUSED("[~", "f:1: found '~', expected an object");
    REFUSED("[\x7f", "f:1: found byte 0x7F, expected an object");
    REFUSED("[\xff", "f:1: found byte 0xFF, expected an object");
}

// As long as may be, and a byte longer.
static void examples_have_a_limit(void **state)
{
    (void)state;
    const size_t room = (size_t)EXAMPLE_LIMIT + 64;
    char *bytes = mem_alloc(room);
    assert_non_null(bytes);
    for (size_t over = 0; over < 2; over++) {
        struct dataset_source s;
        struct error err = {0};
        const char *text;
        size_t size;
        int64_t line;
        memset(bytes, ' ', room);
        const size_t n = (size_t)EXAMPLE_LIMIT + over;
        bytes[0] = '{', bytes[n - 1] = '}', bytes[n] = '\n', bytes[n + 1] = '{', bytes[n + 2] = '}';
        dataset_source_over(&s, "f", bytes, n + 3); // two lines
        assert_true(dataset_source_next(&s, &text, &size, &line, &err));
        assert_int_equal(size, n);
        assert_true(dataset_source_next(&s, &text, &size, &line, &err));
        assert_int_equal(size, 2);
        assert_int_equal(line, 2);
        memmove(bytes + 1, bytes, n);
        bytes[0] = '[', bytes[n + 1] = ']';
        dataset_source_over(&s, "f", bytes, n + 2); // the same in an array
        assert_int_equal(dataset_source_next(&s, &text, &size, &line, &err), !over);
        if (over) check_error(false, &err, "f:1: more than ");
        if (!over) assert_int_equal(size, n);
    }
    mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(elements_of_an_array),
        cmocka_unit_test(what_is_no_array_of_objects),
        cmocka_unit_test(what_follows_an_object),
        cmocka_unit_test(bytes_that_cannot_be_shown_are_numbers),
        cmocka_unit_test(examples_have_a_limit),
    };
    return cmocka_run_group_tests_name("dataset source", tests, NULL, NULL);
}
