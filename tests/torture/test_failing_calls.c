// Each system call of saving, loading, resuming, exporting and merging fails, once and for ever, with each error
// that it may have. The program says which file and the system's reason and ends with status 1, leaks nothing,
// and what it leaves is gone on from to the bytes of a run that nothing disturbed. Short counts and interrupted
// calls are no errors. A failing close or fsync of what was written is a failed save.
// The n-th call for every n with TORTURE=full, else some of each scenario.
#include "attack.h"

#include <omp.h>

static struct {
    int64_t failed, ended, survived;
} figure;
static int64_t failures;

struct fault {
    enum fault_kind kind;
    int error;
};

static const struct fault short_count = {FAULT_SHORT, 0}, interrupted = {FAULT_ERROR, EINTR};

// The errors of a kind of call; the first 0 ends the list.
static const int errors_of[CALL_KINDS][6] = {
    [CALL_OPEN] = {EMFILE, ENOSPC, EIO, ENOMEM, EDQUOT},
    [CALL_CLOSE] = {EIO},
    [CALL_CLOSE_WRITER] = {EIO, ENOSPC, EDQUOT},
    [CALL_READ] = {EIO, EAGAIN},
    [CALL_WRITE] = {ENOSPC, EIO, EDQUOT, EAGAIN},
    [CALL_FSYNC] = {EIO, ENOSPC, EDQUOT},
    [CALL_FTRUNCATE] = {EIO},
    [CALL_STAT] = {EIO, ENOMEM},
    [CALL_MAP] = {ENOMEM, EAGAIN},
    [CALL_UNMAP] = {ENOMEM},
    [CALL_RENAME] = {EIO, ENOSPC, EDQUOT},
    [CALL_UNLINK] = {EIO},
    [CALL_MKDIR] = {ENOSPC, EDQUOT, EIO},
    [CALL_LOCK] = {ENOLCK},
    [CALL_OPENDIR] = {EMFILE, ENOMEM},
    [CALL_READDIR] = {EIO},
    [CALL_STATVFS] = {EIO},
};

static const char *const call_names[CALL_KINDS] = {
    [CALL_OPEN] = "open",
    [CALL_CLOSE] = "close",
    [CALL_CLOSE_WRITER] = "close of a written file",
    [CALL_READ] = "read",
    [CALL_WRITE] = "write",
    [CALL_FSYNC] = "fsync",
    [CALL_FTRUNCATE] = "ftruncate",
    [CALL_STAT] = "stat",
    [CALL_MAP] = "mmap",
    [CALL_UNMAP] = "munmap",
    [CALL_RENAME] = "rename",
    [CALL_UNLINK] = "unlink",
    [CALL_MKDIR] = "mkdir",
    [CALL_LOCK] = "flock",
    [CALL_OPENDIR] = "opendir",
    [CALL_READDIR] = "readdir",
    [CALL_STATVFS] = "statvfs",
};

// A call that writes must not fail unnoticed. What only reads may be done without, or again from an older checkpoint:
// then the bytes must be the same.
static bool writes(enum call kind)
{
    return kind == CALL_CLOSE_WRITER || kind == CALL_WRITE || kind == CALL_FSYNC ||
           kind == CALL_FTRUNCATE || kind == CALL_RENAME || kind == CALL_MKDIR;
}

static bool can_be_interrupted(enum call kind)
{
    return kind == CALL_OPEN || kind == CALL_CLOSE || kind == CALL_CLOSE_WRITER ||
           kind == CALL_READ || kind == CALL_WRITE || kind == CALL_FSYNC ||
           kind == CALL_FTRUNCATE || kind == CALL_LOCK;
}

struct scenario {
    const char *name, *line, *seed;
    bool trains;
    int64_t sample; // calls of it in the short form
};

static void prepare(const struct scenario *s)
{
    struct error err = {0};
    check_ok(dir_remove("out", &err), &err);
    if (s->seed) copy_folder("out", s->seed);
}

// "" or why the line is not what it should be: the file (all lie in the test's folder, named in it) and the reason.
static const char *wrong_words(const struct attempt *a, const struct fault *f)
{
    if (!one_line_says_why(a->said)) return "not one line of error";
    // What cannot be asked for counts as there, and is found not to be when it is opened.
    const bool reason = strstr(a->said, strerror(f->error)) ||
                        (a->hit == CALL_STAT && strstr(a->said, strerror(ENOENT)));
    if (f->kind == FAULT_ERROR && !reason) return "the reason is not said";
    return strchr(a->said, '/') || strstr(a->said, ".json") || strstr(a->said, ".yaml") ||
                   strstr(a->said, " out:") || strstr(a->said, " base:") ||
                   strstr(a->said, " .:") // the folder above
               ? ""
               : "no file is named";
}

// A run that ended before it could prune keeps one more.
static void forget_older_checkpoints(void)
{
    struct dir_names names;
    struct error err = {0};
    check_ok(dir_list(&names, "out", &err), &err);
    for (int64_t i = 0; i < names.count; i++) {
        char path[512], other[512];
        snprintf(path, sizeof path, "out/%.255s", names.name[i]);
        snprintf(other, sizeof other, "reference/%.255s", names.name[i]);
        if (!strncmp(names.name[i], "checkpoint-", 11) && !file_exists(other)) {
            check_ok(dir_remove(path, &err), &err);
        }
    }
    dir_names_free(&names);
}

static const char *gone_on_with(const struct scenario *s)
{
    static char what[9000];
    struct attempt again;
    char line[4096];
    if (!s->trains) {
        struct error err = {0};
        check_ok(dir_remove("out", &err), &err);
    }
    snprintf(line, sizeof line, "%s %s", s->line,
             !s->trains || strstr(s->line, "--resume") ? ""
             : has_checkpoint("out")                   ? "--resume"
                                                       : "--overwrite");
    attempt(&again, line, 0, false);
    forget_older_checkpoints();
    if (again.status == 0) return difference("out", "reference");
    snprintf(what, sizeof what, "and cannot be gone on with: %s", again.said);
    return what;
}

static const char *what_is_wrong(const struct scenario *s, const struct attempt *a,
                                 const struct fault *f, bool must_survive)
{
    static char what[16384];
    if (a->signal || (a->status != 0 && a->status != 1 && a->status != 2)) {
        snprintf(what, sizeof what, "status %d, signal %d", a->status, a->signal);
        return what;
    }
    if (*a->leak) {
        snprintf(what, sizeof what, "leaks what was allocated at %s", a->leak);
        return what;
    }
    if (a->status != 0) {
        if (must_survive) return "not survived";
        const char *words = wrong_words(a, f);
        return *words ? words : gone_on_with(s);
    }
    if (!must_survive && writes(a->hit)) return "not noticed";
    forget_older_checkpoints();
    return difference("out", "reference");
}

static void one(const struct scenario *s, int64_t at, const struct fault *f, bool for_ever)
{
    struct attempt a;
    const bool must_survive = f->kind == FAULT_SHORT || f->error == EINTR;
    prepare(s);
    faults.kind = f->kind;
    faults.error = f->error;
    attempt(&a, s->line, at, for_ever);
    figure.failed++;
    figure.ended += a.status > 0;
    figure.survived += a.status == 0;
    const char *wrong = what_is_wrong(s, &a, f, must_survive);
    if (!*wrong) return;
    failures++;
    print_message("%s: call %d, %s%s: %s: %s; it said: %s\n", s->name, (int)at,
                  a.hit ? call_names[a.hit] : "?", for_ever ? " and later ones" : "",
                  f->kind == FAULT_SHORT     ? "short count"
                  : f->kind == FAULT_NOTHING ? "count of 0"
                                             : strerror(f->error),
                  wrong, a.said);
}

static void all_faults(const struct scenario *s, int64_t at, enum call kind, int64_t turn)
{
    const int *errors = errors_of[kind];
    const bool counts = kind == CALL_READ || kind == CALL_WRITE;
    int64_t n = 0;
    while (n < 6 && errors[n]) {
        n++;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!torture_full() && i != turn % n) continue;
        const struct fault f = {FAULT_ERROR, errors[i]};
        one(s, at, &f, false);
        if (torture_full() || turn % 2) one(s, at, &f, true);
    }
    if (can_be_interrupted(kind)) one(s, at, &interrupted, false);
    if (counts) one(s, at, &short_count, false);
    if (counts) one(s, at, &short_count, true);
    if (counts) one(s, at, &(struct fault){FAULT_NOTHING, 0}, false);
    if (counts) one(s, at, &(struct fault){FAULT_NOTHING, 0}, true);
}

static void run_scenario(const struct scenario *s)
{
    struct attempt a;
    struct error err = {0};
    static unsigned char kinds[KINDS_KEPT];
    check_ok(dir_remove("reference", &err), &err);
    prepare(s);
    attempt(&a, s->line, 0, false);
    if (a.status != 0 || *a.leak)
        fail_msg("%s: signal %d: %s %s", s->name, a.signal, a.said, a.leak);
    assert_int_equal(rename("out", "reference"), 0);
    assert_true(a.made > 10 && a.made < KINDS_KEPT);
    memcpy(kinds, report->kinds, sizeof kinds);
    const int64_t before = figure.failed, step = torture_full() ? 1 : a.made / s->sample + 1;
    if (!torture_wants(s->name)) return; // what it left is there for the next
    for (int64_t at = 1, turn = 0; at <= a.made; at += step, turn++) {
        all_faults(s, at, (enum call)kinds[at], turn);
    }
    print_message("%s: %d calls, %d faults\n", s->name, (int)a.made, (int)(figure.failed - before));
}

#define RUN                                                                                        \
    "--model base --data data.jsonl --out out --dtype f32 --batch-tokens 40 --max-steps 3 --lr "   \
    "1e-2 "                                                                                        \
    "--schedule constant --warmup-ratio 0 --threads 1 --save-every 1 --keep-last 2 --no-report "   \
    "--quiet "

static void done(const char *line)
{
    struct attempt a;
    attempt(&a, line, 0, false);
    if (a.status != 0) fail_msg("%s: %s", line, a.said);
}

static void every_call(void **state)
{
    (void)state;
    struct toy t;
    struct error err = {0};
    omp_set_num_threads(1); // a child has no threads of a team that was made before the fork
    toy_open(&t);
    write_data(&t);
    assert_int_equal(chdir(toy_path(t.base, "..")), 0);
    attack_open();
    warm_up(CPU_PRODUCTS_AUTO);
    run_scenario(&(struct scenario){
        .name = "train", .line = "train " RUN "--routing bias", .trains = true, .sample = 40});
    copy_folder("stopped", "reference");
    copy_folder("unbroken", "reference");
    check_ok(dir_remove("stopped/checkpoint-3", &err) && dir_remove("stopped/model", &err), &err);
    run_scenario(&(struct scenario){.name = "resume",
                                    .line = "train --resume --out out",
                                    .seed = "stopped",
                                    .trains = true,
                                    .sample = 40});
    if (*difference("reference/model", "unbroken/model")) fail_msg("a resume with other bytes");
    check_ok(dir_remove("out", &err), &err);
    done("train " RUN "--routing condenser --tuning lora --lora-rank 3 --lora-alpha 6");
    copy_folder("adapter", "out/adapter");
    run_scenario(&(struct scenario){
        .name = "merge",
        .line = "merge --model base --adapter adapter --out out --threads 1 --quiet",
        .sample = 25});
    toy_close(&t);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("torture: %lld system calls failed, %lld runs ended with a line of error, %lld gave the "
           "same bytes\n",
           (long long)figure.failed, (long long)figure.ended, (long long)figure.survived);
    return failed;
}
