// A file is seen whole or not at all, only regular files are opened, links and names cannot lead out of a
// folder, and an error is one line.
#include "support.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[1024];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", test_dir());
    return 0;
}

// Paths in the test's folder; they live until the program ends.
static const char *in_dir(const char *name)
{
    static char *path[200];
    static int n;
    assert_true(n < 200);
    assert_true(asprintf(&path[n], "%s/%s", dir, name) > 0);
    return path[n++];
}

static void check_text(const char *path, const char *want)
{
    char *text;
    size_t size;
    struct error err;
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    assert_int_equal(size, strlen(want));
    assert_string_equal(text, want);
    mem_free(text);
}

static int count_files(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n - 2;
}

static void write_text(const char *path, const char *text)
{
    struct error err;
    check_ok(file_write(path, text, strlen(text), &err), &err);
}

static void a_file_appears_at_commit(void **state)
{
    (void)state;
    const char *path = in_dir("a");
    struct error err;
    struct file_writer w;
    write_text(path, "old");
    check_ok(file_writer_open(&w, path, &err), &err);
    check_ok(file_writer_write(&w, "new", 3, &err), &err);
    check_text(path, "old");
    check_ok(file_writer_commit(&w, &err), &err);
    check_text(path, "new");
    assert_int_equal(w.size, 3);
    file_writer_discard(&w); // after a commit: nothing

    check_ok(file_writer_open(&w, path, &err), &err);
    check_ok(file_writer_write(&w, "newer", 5, &err), &err);
    file_writer_discard(&w);
    file_writer_discard(&w);
    check_text(path, "new");
    assert_int_equal(count_files(), 1); // no temporary is left
}

static void a_killed_writer_leaves_the_old_file(void **state)
{
    (void)state;
    const char *path = in_dir("a");
    write_text(path, "old");
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct file_writer w;
        static char much[3 << 20];
        if (file_writer_open(&w, path, NULL)) file_writer_write(&w, much, sizeof much, NULL);
        _exit(0); // as if killed: no commit
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    check_text(path, "old");
    assert_true(file_exists(in_dir("a.tmp")));
    write_text(path, "new"); // what it left is in nobody's way
    check_text(path, "new");
    assert_false(file_exists(in_dir("a.tmp")));
}

static void writes_of_any_size_add_up(void **state)
{
    (void)state;
    enum { N = 5000000 };
    char *bytes = malloc(N);
    assert_non_null(bytes);
    for (int i = 0; i < N; i++) {
        bytes[i] = (char)(i * 7 + i / 1000);
    }
    struct error err;
    struct file_writer w;
    check_ok(file_writer_open(&w, in_dir("big"), &err), &err);
    static const size_t sizes[] = {1, 1000000, 48576, 1, 1048576, 7, 2000000, 0, 900000};
    size_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_ok(file_writer_write(&w, bytes + at, sizes[i], &err), &err);
        at += sizes[i];
    }
    check_ok(file_writer_write(&w, bytes + at, N - at, &err), &err);
    check_ok(file_writer_commit(&w, &err), &err);
    struct file_map m;
    check_ok(file_map_open(&m, in_dir("big"), &err), &err);
    assert_int_equal(m.size, N);
    assert_memory_equal(m.data, bytes, N);
    file_map_close(&m);
    file_map_close(&m);
    check_ok(file_copy(in_dir("copy"), in_dir("big"), &err), &err);
    check_ok(file_map_open(&m, in_dir("copy"), &err), &err);
    assert_memory_equal(m.data, bytes, N);
    file_map_close(&m);
    free(bytes);
}

static void only_regular_files_are_opened(void **state)
{
    (void)state;
    struct error err;
    struct file_map m;
    char *text;
    size_t size;
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
    const char *const others[] = {in_dir("fifo"), dir, "/dev/zero", "/dev/null"};
    for (int i = 0; i < 4; i++) { // and none hangs
        check_error(file_map_open(&m, others[i], &err), &err, "not a regular file");
        check_error(file_read(&text, &size, others[i], 1 << 20, &err), &err, others[i]);
        file_map_close(&m);
    }
    check_error(file_map_open(&m, in_dir("missing"), &err), &err, "No such file");
    check_error(file_copy(in_dir("x"), in_dir("fifo"), &err), &err, "not a regular file");
    write_text(in_dir("empty"), "");
    check_ok(file_map_open(&m, in_dir("empty"), &err), &err);
    assert_true(!m.data && m.size == 0);
    file_map_close(&m);
    check_text(in_dir("empty"), "");
    write_text(in_dir("ten"), "0123456789");
    check_error(file_read(&text, &size, in_dir("ten"), 9, &err), &err, "10 bytes, at most 9");
    assert_null(text);
}

static void links_are_read_and_never_written_through(void **state)
{
    (void)state;
    const char *target = in_dir("target"), *link = in_dir("link");
    write_text(target, "kept");
    assert_int_equal(symlink("target", link), 0);
    check_text(link, "kept"); // as the Hugging Face cache lays models out
    write_text(link, "new");  // the link is replaced
    check_text(target, "kept");
    check_text(link, "new");

    // What waits under the temporary's name is not written to either.
    assert_int_equal(symlink("target", in_dir("b.tmp")), 0);
    write_text(in_dir("b"), "b");
    check_text(target, "kept");
    assert_int_equal(mkfifo(in_dir("c.tmp"), 0600), 0);
    write_text(in_dir("c"), "c");
    check_text(in_dir("c"), "c");
}

// Taken for missing, it would be passed over in silence where a file may be missing.
static void a_link_to_nothing_is_there(void **state)
{
    (void)state;
    struct error err;
    struct file_map m;
    assert_int_equal(symlink("nowhere", in_dir("link")), 0);
    assert_true(file_exists(in_dir("link")));
    assert_false(file_exists(in_dir("nowhere")));
    check_error(file_map_open(&m, in_dir("link"), &err), &err, "link: cannot open");
}

static void names_that_lead_elsewhere_are_not_plain(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".", "..", "/", "a/b", "../a", "/etc/passwd", "a/"};
    static const char *const good[] = {"a", "...", ".a", "model-00001-of-00002.safetensors",
                                       "a..b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(path_is_plain_name(bad[i]));
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(path_is_plain_name(good[i]));
    }
    char out[8];
    struct error err;
    check_ok(path_join(out, sizeof out, "abc", "def", &err), &err);
    assert_string_equal(out, "abc/def");
    check_error(path_join(out, sizeof out, "abc", "defg", &err), &err, "too long");
}

static void folders_are_made_and_removed(void **state)
{
    (void)state;
    struct error err;
    check_ok(dir_make(in_dir("a/b/c"), &err), &err);
    check_ok(dir_make(in_dir("a/b/c"), &err), &err); // is there
    check_ok(dir_make(in_dir("a/b/c/"), &err), &err);
    write_text(in_dir("a/file"), "x");
    check_error(dir_make(in_dir("a/file"), &err), &err, "file");
    check_error(dir_make(in_dir("a/file/d"), &err), &err, "file");
    check_error(dir_make("", &err), &err, ":");

    write_text(in_dir("outside"), "kept");
    assert_int_equal(symlink("../..", in_dir("a/b/up")), 0);
    assert_int_equal(symlink("../outside", in_dir("a/out")), 0);
    check_ok(dir_remove(in_dir("a"), &err), &err);
    assert_false(file_exists(in_dir("a")));
    check_text(in_dir("outside"), "kept");
    check_ok(dir_remove(in_dir("a"), &err), &err); // not there
    assert_true(disk_free(dir) > 0);
    assert_true(disk_free(in_dir("not/there/yet")) > 0);
    assert_true(disk_free("not-there-either") > 0);
}

static void a_folder_gives_way_whole(void **state)
{
    (void)state;
    struct error err;
    const char *to = in_dir("to"), *from = in_dir("from"), *aside = in_dir("to.old.tmp");
    check_ok(dir_make(from, &err), &err);
    write_text(in_dir("from/file"), "new");
    write_text(to, "a file");
    check_ok(dir_replace(to, from, &err), &err);
    check_text(in_dir("to/file"), "new");
    check_error(dir_replace(to, from, &err), &err, "from"); // is not there any more
    check_text(in_dir("to/file"), "new");                   // so the old one stays
    check_ok(dir_make(from, &err), &err);
    check_ok(dir_make(in_dir("to.old.tmp/left"), &err), &err);
    check_ok(dir_replace(to, from, &err), &err);
    assert_false(file_exists(in_dir("to/file")) || file_exists(from) || file_exists(aside));
    check_ok(dir_make(in_dir("to.old.tmp/left"), &err), &err);
    check_ok(dir_discard(to, &err), &err);
    check_ok(dir_discard(to, &err), &err); // not there
    assert_false(file_exists(to) || file_exists(aside));
    write_text(to, "a file");
    check_ok(dir_discard(to, &err), &err);
    assert_false(file_exists(to));
}

static void writing_fails_with_the_name(void **state)
{
    (void)state;
    struct error err;
    check_error(file_write(in_dir("no/such/folder"), "x", 1, &err), &err, "no/such/folder");
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    check_error(file_write(longest, "x", 1, &err), &err, "xxx");
    mem_fail_at(1, true);
    check_error(file_write(in_dir("x"), "x", 1, &err), &err, "no memory");
    mem_fail_at(0, false);
    // A device that is always full stands in for a disk.
    struct file_writer w;
    check_ok(file_writer_open(&w, in_dir("full"), &err), &err);
    FILE *full = fopen("/dev/full", "w");
    if (full) {
        dup2(fileno(full), w.fd);
        fclose(full);
        check_ok(file_writer_write(&w, "x", 1, &err), &err); // buffered
        check_error(file_writer_commit(&w, &err), &err, "No space left");
        assert_false(file_exists(in_dir("full")) || file_exists(in_dir("full.tmp")));
    }
    file_writer_discard(&w);
}

static void one_process_at_a_time(void **state)
{
    (void)state;
    int fd, second;
    struct error err;
    check_ok(dir_lock(&fd, dir, &err), &err);
    check_error(dir_lock(&second, dir, &err), &err, "another run");
    assert_int_equal(second, -1);
    dir_unlock(&fd);
    dir_unlock(&fd);
    check_ok(dir_lock(&second, dir, &err), &err);
    dir_unlock(&second);
}

// In place: written to, shorter, longer. Another file under the name, or none, is not what was mapped.
static void a_mapping_knows_its_file(void **state)
{
    (void)state;
    const char *path = in_dir("mapped"), *other = in_dir("other");
    struct file_map m;
    struct error err;
    bool written = false;
    const struct timespec past[2] = {{.tv_sec = 1000, .tv_nsec = 5},
                                     {.tv_sec = 1000, .tv_nsec = 5}};
    write_text(path, "twelve bytes");
    check_ok(file_map_open(&m, path, &err), &err);
    check_ok(file_map_check(&m, path, &written, &err), &err);
    assert_false(written);
    assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
    check_ok(file_map_check(&m, path, &written, &err), &err);
    assert_true(written);
    written = false;
    check_ok(file_map_check(&m, path, &written, &err), &err);
    assert_false(written); // said once
    assert_int_equal(truncate(path, 11), 0);
    check_error(file_map_check(&m, path, &written, &err), &err,
                "mapped: 12 bytes when it was opened, and 11 now");
    assert_int_equal(truncate(path, 13), 0);
    check_error(file_map_check(&m, path, &written, &err), &err, "and 13 now");
    write_text(other, "another");
    assert_int_equal(rename(other, path), 0);
    written = false;
    check_ok(file_map_check(&m, path, &written, &err), &err);
    assert_int_equal(unlink(path), 0);
    check_ok(file_map_check(&m, path, &written, &err), &err);
    assert_false(written);
    file_map_close(&m);
}

static void an_error_is_one_line(void **state)
{
    (void)state;
    struct error err;
    assert_false((fail)(&err, "%s: %s", "a\nb", "\x1b[2J\x7f\u00e4"));
    assert_string_equal(err.msg, "a?b: ?[2J?\u00e4");
    assert_false(fail_in(&err, "outer\t"));
    assert_string_equal(err.msg, "outer?: a?b: ?[2J?\u00e4");
    assert_false((fail)(NULL, "nobody asks"));
    assert_false(fail_in(NULL, "nobody asks"));
    char longer[3000];
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = 0;
    assert_false((fail)(&err, "%s", longer));
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_false(fail_in(&err, "x"));
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_memory_equal(err.msg, "x: yyy", 6);
    assert_false(fail_in(&err, "%s", longer)); // leaves no room for the rest
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_file_appears_at_commit, set_up),
        cmocka_unit_test_setup(a_killed_writer_leaves_the_old_file, set_up),
        cmocka_unit_test_setup(writes_of_any_size_add_up, set_up),
        cmocka_unit_test_setup(only_regular_files_are_opened, set_up),
        cmocka_unit_test_setup(links_are_read_and_never_written_through, set_up),
        cmocka_unit_test_setup(a_link_to_nothing_is_there, set_up),
        cmocka_unit_test_setup(names_that_lead_elsewhere_are_not_plain, set_up),
        cmocka_unit_test_setup(folders_are_made_and_removed, set_up),
        cmocka_unit_test_setup(a_folder_gives_way_whole, set_up),
        cmocka_unit_test_setup(writing_fails_with_the_name, set_up),
        cmocka_unit_test_setup(one_process_at_a_time, set_up),
        cmocka_unit_test_setup(a_mapping_knows_its_file, set_up),
        cmocka_unit_test_setup(an_error_is_one_line, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
