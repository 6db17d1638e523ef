// A file of lines: what is kept of it, what it refuses, and what is said when it cannot be written.
#include "support.h"

#include "base/append.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[1000], path[1024];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/lines", dir);
    return 0;
}

static void check_text(const char *want)
{
    char *text;
    size_t size;
    struct error err;
    check_ok(file_read(&text, &size, path, 1000, &err), &err);
    assert_string_equal(text, want);
    assert_int_equal(size, strlen(want));
    mem_free(text);
}

static void put(struct append *a, const char *line)
{
    struct error err;
    check_ok(append_write(a, line, strlen(line), &err), &err);
}

static void lines_come_after_those_that_are_kept(void **state)
{
    (void)state;
    struct append a;
    struct error err;
    check_ok(append_open(&a, path, 0, &err), &err);
    assert_string_equal(a.path, path);
    put(&a, "first\n");
    put(&a, "");
    put(&a, "second\n");
    check_ok(append_sync(&a, &err), &err);
    append_close(&a);
    assert_int_equal(a.fd, -1);
    append_close(&a);
    check_text("first\nsecond\n");
    check_ok(append_open(&a, path, 6, &err), &err); // a torn line is cut off
    put(&a, "third\n");
    append_close(&a);
    check_text("first\nthird\n");
    check_ok(append_open(&a, path, 1000, &err), &err); // no longer than it was
    put(&a, "fourth\n");
    append_close(&a);
    check_text("first\nthird\nfourth\n");
    check_ok(append_open(&a, path, 19, &err), &err); // as long as it was
    append_close(&a);
    check_text("first\nthird\nfourth\n");
    check_ok(append_open(&a, path, 0, &err), &err);
    append_close(&a);
    check_text("");
}

static void only_a_file_in_a_folder_is_opened(void **state)
{
    (void)state;
    struct append a;
    struct error err;
    check_error(append_open(&a, dir, 0, &err), &err, "cannot open");
    assert_int_equal(a.fd, -1);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_error(append_open(&a, path, 0, &err), &err, "lines: cannot open"); // nobody reads it
    const int reader = open(path, O_RDONLY | O_NONBLOCK);
    check_error(append_open(&a, path, 0, &err), &err, "lines: not a regular file");
    assert_int_equal(a.fd, -1);
    close(reader);
    unlink(path);
    assert_int_equal(symlink("elsewhere", path), 0);
    check_error(append_open(&a, path, 0, &err), &err, "lines: cannot open"); // not through a link
    char longest[sizeof a.path + 1];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    check_error(append_open(&a, longest, 0, &err), &err, "xxx");
    longest[sizeof longest - 2] = 0; // fits, and is still too long for the system
    check_error(append_open(&a, longest, 0, &err), &err, "xxx");
}

static void what_is_open_is_closed(void **state)
{
    (void)state;
    const int before = dup(0);
    close(before);
    struct append a = {0};
    struct error err;
    append_close(&a); // zeroed: descriptor 0 is somebody else's
    assert_true(fcntl(0, F_GETFD) >= 0 || errno != EBADF || before == 0);
    for (int i = 0; i < 3; i++) {
        check_ok(append_open(&a, path, 0, &err), &err);
        assert_int_equal(a.fd, before);
        append_close(&a);
        check_error(append_open(&a, dir, 0, &err), &err, "cannot open");
    }
    const int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void a_full_disk_is_said(void **state)
{
    (void)state;
    struct append a;
    struct error err;
    check_ok(append_open(&a, path, 0, &err), &err);
    const int full = open("/dev/full", O_WRONLY);
    if (full < 0) skip();
    dup2(full, a.fd);
    close(full);
    check_error(append_write(&a, "x", 1, &err), &err, "lines: cannot write: No space left");
    check_ok(append_write(&a, "x", 0, &err), &err);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], a.fd); // what cannot be synced
    check_error(append_sync(&a, &err), &err, "lines: fsync: Invalid argument");
    close(ends[0]);
    close(ends[1]);
    append_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_come_after_those_that_are_kept, set_up),
        cmocka_unit_test_setup(only_a_file_in_a_folder_is_opened, set_up),
        cmocka_unit_test_setup(what_is_open_is_closed, set_up),
        cmocka_unit_test_setup(a_full_disk_is_said, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
