// Names and parts of files: what lies above a path, pieces of a file that may change, names that cannot be asked for, and
// whether a folder is in use.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[1024], at[4][2048];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", test_dir());
    return 0;
}

static const char *in_dir(int i, const char *name)
{
    snprintf(at[i], sizeof at[i], "%s/%s", dir, name);
    return at[i];
}

static void write_text(const char *path, const char *text)
{
    struct error err;
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static void the_folder_above(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"a/b", "a"}, {"a", "."},       {"/a", "/"}, {"/", "/"},
                                           {".", "."},   {"a/b/c", "a/b"}, {"", "."}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char out[64];
        path_parent(out, sizeof out, pairs[i][0]);
        assert_string_equal(out, pairs[i][1]);
    }
}

static void check_part(uint64_t offset, size_t most, const char *want)
{
    char *part;
    size_t size;
    struct error err;
    check_ok(file_read_part(&part, &size, in_dir(0, "ten"), offset, most, &err), &err);
    assert_int_equal(size, strlen(want));
    assert_memory_equal(part, want, size);
    mem_free(part);
}

static void parts_end_where_the_file_does(void **state)
{
    (void)state;
    struct error err;
    char *part;
    size_t size;
    uint64_t bytes;
    write_text(in_dir(0, "ten"), "0123456789");
    check_part(0, 10, "0123456789");
    check_part(0, 4, "0123");
    check_part(3, 4, "3456");
    check_part(8, 4, "89");
    check_part(10, 4, "");
    check_part(1000, 4, "");
    check_part(2, 0, "");
    check_error(file_read_part(&part, &size, dir, 0, 4, &err), &err, "not a regular file");
    assert_null(part);
    check_error(file_read_part(&part, &size, in_dir(1, "missing"), 0, 4, &err), &err,
                "No such file");
    mem_fail_at(1, false);
    check_error(file_read_part(&part, &size, at[0], 0, 4, &err), &err, "no memory for 4 bytes");
    mem_fail_at(0, false);
    check_ok(file_size(&bytes, at[0], &err), &err);
    assert_int_equal(bytes, 10);
    check_error(file_size(&bytes, at[1], &err), &err, "missing: cannot open");
    assert_int_equal(bytes, 0);
    check_error(file_size(&bytes, dir, &err), &err, "not a regular file");
    mem_fail_at(1, false);
    check_error(file_read(&part, &size, at[0], 10, &err), &err, "no memory for 10 bytes");
    mem_fail_at(0, false);
    check_ok(file_read(&part, &size, at[0], 10, &err), &err); // as many as are allowed
    mem_free(part);
}

static void a_name_that_cannot_be_asked_for(void **state)
{
    (void)state;
    bool there = true;
    struct error err;
    write_text(in_dir(0, "file"), "x");
    check_ok(file_look(&there, at[0], &err), &err);
    assert_true(there && file_exists(at[0]));
    check_ok(file_look(&there, in_dir(1, "missing"), &err), &err);
    assert_false(there || file_exists(at[1]));
    check_ok(file_look(&there, in_dir(2, "file/below"), &err), &err);
    assert_false(there || file_exists(at[2]));
    char longer[600];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    check_error(file_look(&there, in_dir(3, longer), &err), &err, "File name too long");
    assert_false(there);
    assert_true(file_exists(at[3])); // who opens it learns why
}

static void folders_in_use(void **state)
{
    (void)state;
    int fd, second;
    struct error err;
    const char *path = in_dir(0, "used");
    assert_false(dir_locked(path)); // not there
    check_ok(dir_make(path, &err), &err);
    assert_false(dir_locked(path));
    assert_false(file_exists(in_dir(1, "used/.lock"))); // asking makes nothing
    check_ok(dir_lock(&fd, path, &err), &err);
    assert_true(dir_locked(path));
    dir_unlock(&fd);
    assert_int_equal(fd, -1);
    assert_false(dir_locked(path));
    check_error(dir_lock(&second, in_dir(2, "none"), &err), &err, "none/.lock: cannot open");
    assert_int_equal(unlink(at[1]), 0);
    assert_int_equal(symlink("/dev/null", at[1]), 0);
    check_error(dir_lock(&second, path, &err), &err, "cannot open"); // not through a link
    assert_false(dir_locked(path));
}

static void folders_are_removed_to_a_depth(void **state)
{
    (void)state;
    struct error err;
    char deep[300] = "deep";
    for (int i = 0; i < 70; i++) {
        strncat(deep, "/d", sizeof deep - strlen(deep) - 1);
    }
    check_ok(dir_make(in_dir(0, deep), &err), &err);
    check_error(dir_remove(in_dir(1, "deep"), &err), &err, "nested too deep");
    check_ok(dir_remove(in_dir(2, "deep/d/d/d/d/d/d/d/d/d/d"), &err), &err);
    check_ok(dir_remove(at[1], &err), &err); // of what is not as deep
    assert_false(file_exists(at[1]));
    char longest[4097];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    check_error(dir_make(longest, &err), &err, "xxx");
    check_error(dir_sync(in_dir(3, "none"), &err), &err, "none: cannot open folder");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_folder_above, set_up),
        cmocka_unit_test_setup(parts_end_where_the_file_does, set_up),
        cmocka_unit_test_setup(a_name_that_cannot_be_asked_for, set_up),
        cmocka_unit_test_setup(folders_in_use, set_up),
        cmocka_unit_test_setup(folders_are_removed_to_a_depth, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
