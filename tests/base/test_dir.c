// Folders: names in the order of their bytes, what may be written, and what stands where something is in the way.
#include "support.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[1024], at[8][2048];

static int set_up(void **state)
{
    (void)state;
    struct error err;
    snprintf(dir, sizeof dir, "%s/work", test_dir());
    check_ok(dir_remove(dir, &err) && dir_make(dir, &err), &err);
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

static void names_are_in_the_order_of_their_bytes(void **state)
{
    (void)state;
    static const char *const want[] = {".hidden", "..two", "B", "a", "a b", "ab", "\xc3\xa4"};
    static const char *const order[] = {"..two", ".hidden", "B", "a", "a b", "ab", "\xc3\xa4"};
    struct dir_names n;
    struct error err;
    check_ok(dir_list(&n, dir, &err), &err);
    assert_int_equal(n.count, 0);
    dir_names_free(&n);
    for (int i = 0; i < 7; i++) {
        write_text(in_dir(0, want[i]), "");
    }
    check_ok(dir_list(&n, dir, &err), &err);
    assert_int_equal(n.count, 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(n.name[i], order[i]);
    }
    dir_names_free(&n);
    assert_true(!n.name && !n.count && !n.capacity);
    check_error(dir_list(&n, in_dir(0, "missing"), &err), &err,
                "missing: cannot open folder: No such");
    check_error(dir_list(&n, in_dir(0, "a"), &err), &err, "a: cannot open folder: Not a directory");
    for (int64_t k = 1; k < 4; k++) {
        mem_fail_at(k, false);
        check_error(dir_list(&n, dir, &err), &err, "no memory for its names");
        mem_fail_at(0, false);
        assert_true(!n.name && !n.count);
    }
}

static void a_commit_moves_into_place(void **state)
{
    (void)state;
    struct error err;
    const char *from = in_dir(0, "from"), *to = in_dir(1, "to");
    check_error(dir_commit(to, from, &err), &err, "from: cannot open folder");
    check_ok(dir_make(from, &err), &err);
    write_text(in_dir(2, "from/file"), "x");
    check_ok(dir_make(to, &err), &err); // empty: gives way
    check_ok(dir_commit(to, from, &err), &err);
    assert_true(file_exists(in_dir(2, "to/file")));
    assert_false(file_exists(from));
    check_ok(dir_make(from, &err), &err);
    check_error(dir_commit(to, from, &err), &err, "cannot rename to");
    check_error(dir_commit(in_dir(2, "no/where"), from, &err), &err, "from: cannot rename to");
    char longest[4097];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    check_error(dir_commit(longest, from, &err), &err, "xxx");
    assert_true(file_exists(from));
}

static void what_cannot_move_aside_stays(void **state)
{
    (void)state;
    struct error err;
    const char *to = in_dir(0, "to"), *from = in_dir(1, "from");
    check_ok(dir_make(in_dir(2, "to/sub"), &err), &err);
    check_error(dir_replace(to, from, &err), &err, "from: cannot open folder");
    assert_true(file_exists(in_dir(2, "to/sub")));
    assert_false(file_exists(in_dir(2, "to.old.tmp")));
    check_ok(dir_make(from, &err), &err);
    check_ok(dir_replace(to, from, &err), &err);
    assert_false(file_exists(in_dir(2, "to/sub")) || file_exists(in_dir(3, "to.old.tmp")));
    check_ok(dir_discard(to, &err), &err);
    assert_false(file_exists(to) || file_exists(in_dir(3, "to.old.tmp")));
    assert_int_equal(symlink("nowhere", to), 0);
    check_ok(dir_discard(to, &err), &err); // the link
    assert_false(file_exists(to));
}

static void the_nearest_folder_tells_what_can_be_written(void **state)
{
    (void)state;
    struct error err;
    check_ok(dir_writable(dir, &err), &err);
    check_ok(dir_writable(in_dir(0, "not/there/yet"), &err), &err);
    assert_false(file_exists(in_dir(0, "not"))); // nothing is made
    char before[1024];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(dir), 0);
    check_ok(dir_writable("not-there-either", &err), &err);
    assert_int_equal(chdir(before), 0);
    write_text(in_dir(1, "file"), "x");
    check_error(dir_writable(at[1], &err), &err,
                "file: not a folder that can be written: it is a file");
    check_error(dir_writable(in_dir(2, "file/below"), &err), &err, "Not a directory");
    char longest[4097];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    check_error(dir_writable(longest, &err), &err, "xxx");
    if (geteuid() == 0) return; // may write anywhere
    assert_int_equal(chmod(dir, 0500), 0);
    check_error(dir_writable(in_dir(0, "new"), &err), &err, "Permission denied");
    assert_int_equal(chmod(dir, 0700), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(names_are_in_the_order_of_their_bytes, set_up),
        cmocka_unit_test_setup(a_commit_moves_into_place, set_up),
        cmocka_unit_test_setup(what_cannot_move_aside_stays, set_up),
        cmocka_unit_test_setup(the_nearest_folder_tells_what_can_be_written, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
