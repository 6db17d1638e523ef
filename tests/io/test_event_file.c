// tests/io/test_event_file.c - records equal to those of TensorBoard's own writer (fixtures/make_events.py).
#include "support.h"

#include "base/file.h"
#include "io/event_file.h"

#include <stdio.h>
#include <string.h>

static void check_bytes(const char *fixture, const char *got, size_t n)
{
    char path[2048];
    struct file_map want;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/events/%s", FIXTURES, fixture);
    check_ok(file_map_open(&want, path, &err), &err);
    assert_int_equal(n, want.size);
    assert_memory_equal(got, want.data, n);
    file_map_close(&want);
}

static void records_are_those_of_tensorboard(void **unused)
{
    (void)unused;
    char name[201];
    memset(name, 'x', 200);
    name[200] = 0;
    const struct event_scalar first[] = {{"loss/train", 3.25}, {"learning_rate", 1e-5}};
    const struct event_scalar second[] = {
        {"loss/train", -0.125}, {"routing/gini", 0.4}, {name, 1e30}};
    struct buf out = {0};
    assert_true(event_version(&out, 1700000000.25));
    assert_true(event_scalars(&out, 1700000001.5, 1, first, 2));
    assert_true(event_scalars(&out, 1700000002.5, 300, second, 3));
    assert_true(
        event_scalars(&out, 1700000003.5, 5000000000, &(struct event_scalar){"zero", 0}, 1));
    check_bytes("fresh", out.data, out.size);
    buf_free(&out);
}

// A session that goes on after step 300 says so: TensorBoard drops what an earlier one wrote from 301 on.
static void a_file_of_a_resumed_run(void **unused)
{
    (void)unused;
    char path[2048], *text;
    size_t size;
    struct error err = {0};
    struct event_file f = {0};
    const struct event_scalar loss = {"loss/train", 2};
    snprintf(path, sizeof path, "%s/events.out.tfevents.1", test_dir());
    check_ok(file_write(path, "old", 3, &err), &err);
    check_ok(event_file_open(&f, path, 1700000000.25, 300, &err), &err);
    check_ok(event_file_add(&f, 1700000004, 301, &loss, 1, &err), &err);
    event_file_close(&f);
    event_file_close(&f);
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    check_bytes("resumed", text, size);
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_those_of_tensorboard),
        cmocka_unit_test(a_file_of_a_resumed_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
