// tests/torture/runs.h - whole runs of `train` on the toy, from a line of options, in this process or a child; and
// the check that one which was cut short and gone on with ended as one that was not.
#pragma once
#include "toy.h"

#include "form.h"

#include "base/log.h"
#include "cli/commands.h"
#include "cli/setup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// The runs that are tried: whole weights, an adapter, a routing with files of its own in two stages, and a tuning
// that leaves a choice and a model behind for its second stage.
struct run_kind {
    const char *name, *options;
};
static const struct run_kind run_kinds[] = {
    {"full", "--tuning full --routing topk --save-every 2 --max-steps 5 --eval-every 2 "
             "--validation data.jsonl "
             "--export best"},
    {"lora", "--tuning lora --routing densemixer --lora-rank 2 --lora-dropout 0.1 --save-every 2 "
             "--max-steps 5"},
    {"condenser",
     "--tuning full --routing condenser --condenser-count 1 --save-every 2 --epochs 0.3 "
     "--phase1-epochs 0.3 --bias-rate 0.01"},
    {"smt", "--tuning smt --routing bias --smt-block 4 --smt-attention-blocks 6 --smt-mlp-blocks "
            "20 --save-every 2 "
            "--smt-warmup train --smt-warmup-steps 3 --max-steps 3"},
};
enum { RUN_CALLS = 4096 }; // of a run, at most
enum { RUN_KINDS = sizeof run_kinds / sizeof *run_kinds };
static const char runs_common[] =
    "train --model base --data data.jsonl --dtype f32 --threads 1 --quiet --keep-last 1 "
    "--batch-tokens 40 --lr 1e-2";

static const char *runs_out = "run"; // the folder of every run

// What a run in a child tells the test.
static struct runs_shared {
    int64_t calls, die_at; // made by the child; at which it dies, 0: none
    char kind[RUN_CALLS];  // of each call
    bool half;             // a write dies in its middle
    int64_t resumed;       // the step of the checkpoint it went on from
    int warnings;
    char warning[1024], error[1024]; // the last of each
} * runs_shared;

static inline void runs_log(enum log_level level, const char *line, void *user)
{
    struct runs_shared *s = user;
    const char *from = strstr(line, "resumed from ");
    const char *step = from ? strstr(from, "/checkpoint-") : NULL;
    if (step) s->resumed = strtoll(step + strlen("/checkpoint-"), NULL, 10);
    if (level != LOG_WARNING || strstr(line, "not part of the architecture")) return;
    s->warnings++;
    snprintf(s->warning, sizeof s->warning, "%s", line);
}

// The program but for its streams: what cli/main.c does with a line of arguments.
static inline int runs_train(const char *options)
{
    char text[2048], *argv[96];
    int argc = 0;
    struct options o;
    struct error err = {0};
    FILE *nowhere = fopen("/dev/null", "w");
    snprintf(text, sizeof text, "%s --out %s %s", runs_common, runs_out, options);
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " ")) {
        argv[argc++] = p;
    }
    struct output io = {nowhere, nowhere, nowhere, false, false, false, false, true};
    log_set_sink(runs_log, runs_shared);
    runs_shared->resumed = runs_shared->warnings = 0;
    *runs_shared->warning = *runs_shared->error = 0;
    enum status status = STATUS_USAGE;
    if (nowhere && options_parse(&o, COMMAND_TRAIN, argc - 1, argv + 1, &err)) {
        setup_output(&io);
        status = setup_check(&o, &err);
        if (status == STATUS_DONE) status = command_train(&o, &io, &err);
        options_close(&o);
    }
    snprintf(runs_shared->error, sizeof runs_shared->error, "%s", err.msg);
    log_set_sink(NULL, NULL);
    if (nowhere) fclose(nowhere);
    return (int)status;
}

// In a child; the status of waitpid.
static inline int runs_child(const char *options)
{
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) _exit(runs_train(options));
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static char runs_doing[256]; // said where a test fails

static inline int runs_say(void **unused)
{
    (void)unused;
    if (*runs_doing) printf("while: %s\n", runs_doing);
    return 0;
}

static inline void check_run(int status)
{
    if (status) fail_msg("status %d: %s (%s)", status, runs_shared->error, runs_shared->warning);
}

// A model, examples, and a page that children share; the working folder is theirs.
static inline void runs_open(void)
{
    struct error err = {0};
    struct dataset d;
    struct buf b = {0};
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1); // thousands of runs: no waiting for a disk
    assert_int_equal(chdir(test_dir()), 0);
    toy_model("base", NULL, 0);
    toy_data(&d, 40, 5);
    for (int64_t i = 0; i < d.count; i++) {
        const struct example *x = &d.example[i];
        buf_puts(&b, "{\"input_ids\":[");
        for (int64_t k = 0; k < x->count; k++) {
            buf_printf(&b, "%s%d", k ? "," : "", (int)d.id[x->first + k]);
        }
        buf_puts(&b, "],\"labels\":[");
        for (int64_t k = 0; k < x->count; k++) {
            const int64_t at = x->first + k;
            buf_printf(&b, "%s%d", k ? "," : "", d.learn[at] ? (int)d.id[at] : -100);
        }
        buf_puts(&b, "]}\n");
    }
    check_ok(file_write("data.jsonl", b.data, b.size, &err), &err);
    buf_free(&b);
    toy_data_free(&d);
    runs_shared =
        mmap(NULL, sizeof *runs_shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(runs_shared != MAP_FAILED);
}

// Of metrics.jsonl all but the times: what stands between "tokens_per_second" and "skipped" goes.
static inline void runs_cut_times(char *text)
{
    char *to = text;
    for (const char *p = text; *p;) {
        const char *skip =
            strncmp(p, "\"tokens_per_second\"", 19) ? NULL : strstr(p, "\"skipped\"");
        if (skip) p = skip;
        *to++ = *p++;
    }
    *to = 0;
}

static inline void check_same_metrics(const char *a, const char *b)
{
    char *x, *y;
    size_t n;
    struct error err = {0};
    check_ok(file_read(&x, &n, a, 1 << 24, &err), &err);
    check_ok(file_read(&y, &n, b, 1 << 24, &err), &err);
    runs_cut_times(x);
    runs_cut_times(y);
    if (!*x || strcmp(x, y) != 0) fail_msg("%s:\n%s\n%s:\n%s", a, x, b, y);
    mem_free(x);
    mem_free(y);
}

// Files that hold times, free space or the options of this session are there or not, and that is all.
static inline bool runs_may_differ(const char *name)
{
    static const char *const names[] = {"run.json", "plan.json", "result.json", "report.html",
                                        ".lock"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(name, names[i])) return true;
    }
    return false;
}

static inline bool runs_is_folder(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// The same names, all the way down, and the same bytes; so nothing temporary either.
static inline void check_same_tree(const char *a, const char *b)
{
    struct dir_names x, y;
    struct error err = {0};
    check_ok(dir_list(&x, a, &err) && dir_list(&y, b, &err), &err);
    for (int64_t i = 0; i < x.count || i < y.count; i++) {
        char p[4096], q[4096];
        const char *name = i < x.count ? x.name[i] : "nothing",
                   *other = i < y.count ? y.name[i] : "nothing";
        if (strcmp(name, other) != 0) fail_msg("%s holds %s where %s holds %s", b, other, a, name);
        check_ok(path_join(p, sizeof p, a, name, &err) && path_join(q, sizeof q, b, name, &err),
                 &err);
        if (runs_is_folder(p)) {
            check_same_tree(p, q);
        } else if (!strcmp(name, "metrics.jsonl")) {
            check_same_metrics(p, q);
        } else if (!runs_may_differ(name)) {
            check_same_file(p, q);
        }
    }
    dir_names_free(&x);
    dir_names_free(&y);
}

// The run that nobody disturbs. Every run is made in the same folder, whose name stands in some files; this one's is
// named otherwise afterwards. Made in this process: the products' code that it compiles is there for all children.
static inline void runs_straight(const char *name, const char *options)
{
    snprintf(runs_doing, sizeof runs_doing, "%s, undisturbed", name);
    check_run(runs_train(options));
    assert_int_equal(renameat(AT_FDCWD, runs_out, AT_FDCWD, name), 0); // no call of the run
}
