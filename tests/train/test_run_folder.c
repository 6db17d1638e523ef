// tests/train/test_run_folder.c - whose folder it is, what overwrite removes, and which checkpoints stay.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "train/folder.h"
#include "train/train.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char out[1024], base[1024], scratch[2048];

static const char *in_out(const char *name)
{
    snprintf(scratch, sizeof scratch, "%s/%s", out, name);
    return scratch;
}

static void put(const char *name)
{
    struct error err = {0};
    check_ok(file_write(in_out(name), "x", 1, &err), &err);
}

static void put_folder(const char *name)
{
    struct error err = {0};
    char inside[256];
    check_ok(dir_make(in_out(name), &err), &err);
    snprintf(inside, sizeof inside, "%s/file", name);
    put(inside);
}

static int fresh(void **unused)
{
    (void)unused;
    struct error err = {0};
    const char *dir = test_dir();
    snprintf(out, sizeof out, "%s/out", dir);
    snprintf(base, sizeof base, "%s/base", dir);
    return dir_make(base, &err) ? 0 : -1;
}

static void a_run_is_not_written_over(void **unused)
{
    (void)unused;
    struct error err = {0};
    int lock;
    check_ok(run_folder_check(out, false, false, &err), &err);
    assert_false(file_exists(out)); // asking leaves nothing behind
    check_ok(dir_make(out, &err), &err);
    put("notes.txt");
    check_ok(run_folder_check(out, false, false, &err), &err);
    put("run.json");
    check_error(run_folder_check(out, false, false, &err), &err, "run.json");
    check_error(folder_lock(&lock, out, base, false, false, &err), &err, "run.json");
    check_ok(run_folder_check(out, true, false, &err), &err);
    check_ok(run_folder_check(out, false, true, &err), &err);
    check_error(run_folder_check(out, true, true, &err), &err, "exclude");
    unlink(in_out("run.json"));
    put_folder("checkpoint-12");
    check_error(run_folder_check(out, false, false, &err), &err, "checkpoint-12");
}

static void overwrite_removes_a_run_and_nothing_else(void **unused)
{
    (void)unused;
    static const char *const files[] = {"run.json", "metrics.jsonl", "report.html", "run.json.tmp"};
    static const char *const folders[] = {
        "model",    "checkpoint-3", "checkpoint-12", "checkpoint-15.tmp", "checkpoint-9.old.tmp",
        "model.tmp"};
    static const char *const others[] = {"notes.txt",      "checkpoint-", "checkpoint-03",
                                         "checkpoint-1.5", "models",      "run.json.bak",
                                         "notes.tmp",      "checkpoint-x"};
    struct error err = {0};
    check_ok(dir_make(out, &err), &err);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        put(files[i]);
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        put_folder(folders[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put(others[i]);
    }
    // A resume removes only what a kill left half-written.
    check_ok(folder_clear(out, false, &err), &err);
    assert_true(file_exists(in_out("run.json")) && file_exists(in_out("checkpoint-3")));
    assert_false(file_exists(in_out("checkpoint-15.tmp")) || file_exists(in_out("run.json.tmp")));
    assert_false(file_exists(in_out("checkpoint-9.old.tmp")) || file_exists(in_out("model.tmp")));

    check_ok(folder_clear(out, true, &err), &err);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_false(file_exists(in_out(files[i])));
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        assert_false(file_exists(in_out(folders[i])));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_true(file_exists(in_out(others[i])));
    }
}

static void two_runs_do_not_share(void **unused)
{
    (void)unused;
    struct error err = {0};
    int first, second;
    check_ok(folder_lock(&first, out, base, false, false, &err), &err);
    check_error(folder_lock(&second, out, base, true, false, &err), &err, "another run");
    check_error(run_folder_check(out, true, false, &err), &err, "another run");
    dir_unlock(&first);
    check_ok(run_folder_check(out, true, false, &err), &err);
    check_ok(folder_lock(&second, out, base, true, false, &err), &err);
    dir_unlock(&second);
}

static void the_base_is_never_in_the_way(void **unused)
{
    (void)unused;
    struct error err = {0};
    int lock;
    check_ok(dir_make(out, &err), &err);
    put_folder("model");
    char model[2048];
    snprintf(model, sizeof model, "%s/model", out);
    check_error(folder_lock(&lock, out, model, false, true, &err), &err, "lies where");
    check_error(folder_lock(&lock, out, out, false, false, &err), &err, "lies where");
    assert_true(file_exists(in_out("model/file")));
    put_folder("base");
    snprintf(model, sizeof model, "%s/base", out);
    check_ok(folder_lock(&lock, out, model, false, true, &err), &err);
    dir_unlock(&lock);
}

static void what_cannot_be_written_is_said(void **unused)
{
    (void)unused;
    struct error err = {0};
    char path[2048];
    snprintf(path, sizeof path, "%s/file", base);
    check_ok(file_write(path, "x", 1, &err), &err);
    check_error(run_folder_check(path, false, false, &err), &err, "not a folder");
    snprintf(path, sizeof path, "%s/file/below", base);
    check_error(run_folder_check(path, false, false, &err), &err, "not a folder");
    int lock;
    check_error(folder_lock(&lock, "/proc/moetune", base, false, false, &err), &err,
                "/proc/moetune");
}

static void check_left(const char *expected)
{
    int64_t *step, count;
    char found[256] = "";
    struct error err = {0};
    check_ok(folder_checkpoints(&step, &count, out, &err), &err);
    for (int64_t i = 0; i < count; i++) {
        const size_t n = strlen(found);
        snprintf(found + n, sizeof found - n, "%" PRId64 " ", step[i]);
    }
    mem_free(step);
    assert_string_equal(found, expected);
}

static void pruning_keeps_the_newest_and_the_best(void **unused)
{
    (void)unused;
    struct error err = {0};
    check_ok(dir_make(out, &err), &err);
    static const char *const names[] = {"checkpoint-5", "checkpoint-10", "checkpoint-15",
                                        "checkpoint-20", "checkpoint-100"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_folder(names[i]);
    }
    check_left("100 20 15 10 5 ");
    // 100 lies beyond where the run stands: it did not verify, and counts for nothing.
    check_ok(folder_prune(out, 20, 2, 5, &err), &err);
    check_left("100 20 15 5 ");
    check_ok(folder_prune(out, 20, 2, 15, &err), &err); // the best is one of the newest
    check_left("100 20 15 ");
    check_ok(folder_prune(out, 20, 1, 20, &err), &err);
    check_left("100 20 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_run_is_not_written_over, fresh),
        cmocka_unit_test_setup(overwrite_removes_a_run_and_nothing_else, fresh),
        cmocka_unit_test_setup(two_runs_do_not_share, fresh),
        cmocka_unit_test_setup(the_base_is_never_in_the_way, fresh),
        cmocka_unit_test_setup(what_cannot_be_written_is_said, fresh),
        cmocka_unit_test_setup(pruning_keeps_the_newest_and_the_best, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
