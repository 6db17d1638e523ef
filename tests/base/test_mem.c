// Allocations fail when a test says so and when a size is absurd; buffers and arrays grow and survive it.
#include "support.h"

#include "base/mem.h"

#include <string.h>

static void fails_when_told_to(void **state)
{
    (void)state;
    const int64_t before = mem_count();
    mem_fail_at(2, false);
    void *a = mem_alloc(1), *b = mem_alloc(1), *c = mem_alloc(1);
    assert_true(a && !b && c);
    assert_int_equal(mem_count() - before, 3);
    mem_fail_at(1, true);
    assert_null(mem_alloc(1));
    assert_null(mem_zalloc(1, 1));
    assert_null(mem_realloc(a, 100)); // a is still valid
    assert_null(mem_strdup("x"));
    mem_fail_at(0, false);
    mem_free(a);
    mem_free(c);
    mem_free(NULL);
}

// Who reads what a user wrote asks whether memory was to blame; it stays so.
static void a_failure_is_remembered(void **state)
{
    (void)state;
    void *p = mem_alloc(1), *q = mem_zalloc(1, 1);
    assert_false(mem_ran_out());
    mem_fail_at(1, false);
    assert_null(mem_realloc(p, 2));
    assert_true(mem_ran_out());
    mem_free(p);
    mem_free(q);
    assert_true(mem_ran_out());
}

static void absurd_sizes_fail(void **state)
{
    (void)state;
    assert_null(mem_zalloc(SIZE_MAX / 2, 3));
    assert_null(mem_zalloc(SIZE_MAX / 4 + 1, 4)); // the product is 0
    assert_null(mem_alloc(SIZE_MAX));
    assert_null(mem_realloc(NULL, SIZE_MAX / 2 + 1));
    int64_t capacity = INT64_MAX / 4;
    assert_null(array_grow(NULL, capacity, &capacity, 64));
    struct buf b = {0};
    assert_false(buf_reserve(&b, SIZE_MAX - 1));
    assert_false(buf_reserve(&b, SIZE_MAX / 2));
    buf_free(&b);
    void *nothing = mem_alloc(0);
    assert_non_null(nothing);
    mem_free(nothing);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *a = mem_strdup("text"), *b = mem_strndup("text", 2);
    assert_string_equal(a, "text");
    assert_string_equal(b, "te");
    mem_free(a);
    mem_free(b);
}

static void buffers_grow(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_true(buf_append(&b, "12345678", 8));
    b.size = 0;
    assert_true(buf_append(&b, "xy", 2));
    assert_string_equal(b.data, "xy");     // ends where it ends
    assert_true(buf_printf(&b, "%s", "")); // nothing is no failure
    assert_int_equal(b.size, 2);
    b.size = 0;
    char want[5000];
    for (int i = 0; i < 1000; i++) {
        assert_true(buf_append(&b, "abc", 3) && buf_puts(&b, "d") && buf_printf(&b, "%d", i % 10));
        memcpy(want + 5 * i, "abcd", 4);
        want[5 * i + 4] = (char)('0' + i % 10);
    }
    assert_int_equal(b.size, 5000);
    assert_memory_equal(b.data, want, 5000);
    assert_int_equal(b.data[5000], 0);
    mem_fail_at(1, true);
    while (b.size + 2 < b.capacity) {
        assert_true(buf_puts(&b, "x")); // there is room: no allocation
    }
    const size_t full = b.size;
    assert_false(buf_puts(&b, "xyz"));
    assert_int_equal(b.size, full); // as it was
    mem_fail_at(0, false);
    assert_memory_equal(b.data, want, 5000);
    buf_free(&b);
    assert_null(b.data);
}

static void arrays_grow(void **state)
{
    (void)state;
    int64_t *x = NULL, count = 0, capacity = 0;
    for (; count < 1000; count++) {
        int64_t *grown = array_grow(x, count, &capacity, sizeof *x);
        assert_non_null(grown);
        x = grown;
        x[count] = count * count;
    }
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(x[i], i * i);
    }
    mem_fail_at(1, true);
    assert_null(array_grow(x, capacity, &capacity, sizeof *x)); // x is still valid
    mem_fail_at(0, false);
    assert_int_equal(x[999], 999 * 999);
    mem_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_remembered), // first: before anything failed
        cmocka_unit_test(fails_when_told_to),
        cmocka_unit_test(absurd_sizes_fail),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(buffers_grow),
        cmocka_unit_test(arrays_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
