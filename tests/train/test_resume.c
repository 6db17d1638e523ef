// tests/train/test_resume.c - a run that was stopped, killed or damaged and goes on ends with the same
// bytes as one that ran through.
#include "toy.h"

#include "base/log.h"
#include "io/json.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void long_run(struct toy *t)
{
    t->run.validation = &t->validation;
    t->run.save_every = 3;
    t->stage.options.max_steps = 14;
    t->stage.options.eval_every = 4;
    t->stage.options.batch_tokens = 30;
}

// All fields of all lines but the times.
static void check_same_metrics(const char *a, const char *b)
{
    FILE *f = fopen(a, "r"), *g = fopen(b, "r");
    assert_non_null(f);
    assert_non_null(g);
    char x[4096], y[4096];
    int lines = 0;
    while (fgets(x, sizeof x, f)) {
        struct error err = {0};
        assert_non_null(fgets(y, sizeof y, g));
        json_t *p = json_parse(x, strlen(x), a, &err), *q = json_parse(y, strlen(y), b, &err);
        assert_true(p && q);
        json_object_del(p, "seconds"), json_object_del(q, "seconds");
        json_object_del(p, "tokens_per_second"), json_object_del(q, "tokens_per_second");
        if (!json_equal(p, q)) fail_msg("%s and %s differ", x, y);
        json_decref(p);
        json_decref(q);
        lines++;
    }
    assert_null(fgets(y, sizeof y, g));
    assert_true(lines > 0);
    fclose(f);
    fclose(g);
}

static void check_same_end(const char *straight, const char *resumed, int64_t last)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%d", (int)last);
    check_same_folder(toy_path(straight, "model"), toy_path(resumed, "model"));
    check_same_folder(toy_path(straight, name), toy_path(resumed, name));
    check_same_metrics(toy_path(straight, "metrics.jsonl"), toy_path(resumed, "metrics.jsonl"));
}

static void raise_at(void *user, const struct train_step *s)
{
    if (s->step == *(const int64_t *)user) raise(s->step % 2 ? SIGTERM : SIGINT);
}

static void stopped_runs_go_on(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    char straight[1024];
    toy_open(&t);
    long_run(&t);
    check_ok(toy_run(&t, &err), &err);
    snprintf(straight, sizeof straight, "%s", t.out);
    for (int64_t at = 1; at < 14;
         at++) { // saved or not, evaluated or not, at an epoch's end or not
        const struct train_listener listener = {.user = &at, .step = raise_at};
        char name[64];
        snprintf(name, sizeof name, "../stopped-%d", (int)at);
        other_out(&t, name);
        t.run.resume = false;
        t.run.listener = &listener;
        check_ok(toy_run(&t, &err), &err);
        assert_int_equal(t.result.outcome, TRAIN_STOPPED);
        assert_int_equal(t.result.step, at);
        assert_false(file_exists(toy_path(t.out, "model")));
        t.run.resume = true;
        t.run.listener = NULL;
        check_ok(toy_run(&t, &err), &err);
        assert_int_equal(t.result.outcome, TRAIN_DONE);
        check_same_end(straight, t.out, 14);
    }
    toy_close(&t);
}

// Where nobody says which options decide, the length of the run still does.
static void a_checkpoint_beyond_the_run_is_refused(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    t.stage.options.max_steps = 4;
    check_ok(toy_run(&t, &err), &err);
    t.stage.options.max_steps = 3;
    t.run.resume = true;
    check_error(toy_run(&t, &err), &err, "checkpoint-4: step 4 of a run of 3");
    toy_close(&t);
}

// In a child, with random waits: SIGKILL comes at any time, saving and exporting included.
static pid_t start_child(struct toy *t)
{
    const pid_t child = fork();
    if (child) return child;
    struct error err = {0};
    _exit(toy_run(t, &err) ? 0 : 1);
}

static void run_in_child(struct toy *t, int64_t microseconds, int *status)
{
    const pid_t child = start_child(t);
    assert_true(child > 0);
    if (microseconds >= 0) {
        const struct timespec wait = {microseconds / 1000000, microseconds % 1000000 * 1000};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
    }
    assert_int_equal(waitpid(child, status, 0), child);
}

static void killed_runs_go_on(void **unused)
{
    (void)unused;
    struct toy t;
    char straight[1024];
    int status, kills = 0;
    struct timespec a, b;
    struct rng r = {.seed = 99};
    toy_open(&t);
    long_run(&t);
    clock_gettime(CLOCK_MONOTONIC, &a);
    run_in_child(&t, -1, &status);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(status, 0);
    const int64_t whole = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
    snprintf(straight, sizeof straight, "%s", t.out);
    for (int run = 0; kills < 20; run++) {
        assert_true(run < 100);
        char name[64];
        snprintf(name, sizeof name, "../killed-%d", run);
        other_out(&t, name);
        t.run.resume = true; // in an empty folder: from the beginning
        do {
            run_in_child(&t, rng_below(&r, whole), &status);
            kills += WIFSIGNALED(status);
        } while (WIFSIGNALED(status) && kills % 4);
        run_in_child(&t, -1, &status);
        assert_int_equal(status, 0);
        check_same_end(straight, t.out, 14);
        assert_false(file_exists(toy_path(t.out, "model.tmp")));
    }
    toy_close(&t);
}

static void *no_memory(size_t bytes)
{
    (void)bytes;
    return NULL;
}

static void signal_twice(void *user, const struct train_step *s)
{
    (void)user, (void)s;
    sigset_t waiting;
    kill(getpid(), SIGTERM);
    do {
        sigpending(&waiting);
    } while (sigismember(&waiting, SIGTERM));
    kill(getpid(), SIGINT);
    sleep(20); // it ends here, not at the end of the step
}

static void a_second_signal_stops_at_once(void **unused)
{
    (void)unused;
    struct toy t;
    int status;
    const struct train_listener listener = {.step = signal_twice};
    toy_open(&t);
    t.run.listener = &listener;
    run_in_child(&t, -1, &status);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    assert_false(file_exists(toy_path(t.out, "checkpoint-1")));
    toy_close(&t);
}

// What cannot start must not take away what is there.
static void an_old_run_outlives_a_failed_start(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    check_ok(toy_run(&t, &err), &err);
    struct ops no_room = cpu_ops;
    no_room.allocate = no_memory;
    t.stage.setup.ops = &no_room;
    t.run.overwrite = true;
    check_error(toy_run(&t, &err), &err, "no memory");
    assert_true(file_exists(toy_path(t.out, "model/model.safetensors")));
    assert_true(file_exists(toy_path(t.out, "checkpoint-12/manifest.json")));
    other_out(&t, "../never");
    check_error(toy_run(&t, &err), &err, "no memory");
    assert_false(file_exists(t.out));
    toy_close(&t);
}

static int warnings;
static char last_warning[1024];

static void count_warnings(enum log_level level, const char *line, void *user)
{
    (void)user;
    if (level != LOG_WARNING) return;
    warnings++;
    snprintf(last_warning, sizeof last_warning, "%s", line);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 4, f);
    fclose(f);
}

static void a_damaged_checkpoint_is_skipped(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    char straight[1024];
    int64_t at = 10;
    const struct train_listener listener = {.user = &at, .step = raise_at};
    toy_open(&t);
    long_run(&t);
    t.run.keep_last = 4;
    check_ok(toy_run(&t, &err), &err);
    snprintf(straight, sizeof straight, "%s", t.out);

    other_out(&t, "../damaged");
    t.run.listener = &listener;
    check_ok(toy_run(&t, &err), &err);
    t.run.listener = NULL;
    flip(toy_path(t.out, "checkpoint-10/m.safetensors"), 9000);
    flip(toy_path(t.out, "checkpoint-9/state.json"), 30);
    t.run.resume = true;
    warnings = 0;
    log_set_sink(count_warnings, NULL);
    check_ok(toy_run(&t, &err), &err);
    log_set_sink(NULL, NULL);
    assert_int_equal(warnings, 2);
    assert_non_null(strstr(last_warning, "checkpoint-9/state.json"));
    check_same_end(straight, t.out, 14);
    check_same_folder(toy_path(straight, "checkpoint-9"), toy_path(t.out, "checkpoint-9"));

    // All of them damaged: an error, and nothing is removed or begun anew.
    flip(toy_path(t.out, "checkpoint-14/v.safetensors"), 9000);
    for (int step = 8; step <= 12; step++) {
        char name[64];
        snprintf(name, sizeof name, "checkpoint-%d", step);
        if (file_exists(toy_path(t.out, name))) {
            snprintf(name, sizeof name, "checkpoint-%d/v.safetensors", step);
            flip(toy_path(t.out, name), 9000);
        }
    }
    check_error(toy_run(&t, &err), &err, "v.safetensors");
    assert_true(file_exists(toy_path(t.out, "checkpoint-14")));
    assert_true(file_exists(toy_path(t.out, "model")));
    toy_close(&t);
}

static void another_run_is_refused(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    int64_t at = 5;
    const struct train_listener listener = {.user = &at, .step = raise_at};
    toy_open(&t);
    long_run(&t);
    t.run.listener = &listener;
    check_ok(toy_run(&t, &err), &err);
    t.run.listener = NULL;
    t.run.resume = true;
    t.run.deciding = "{\"lr\": 0.006}";
    check_error(toy_run(&t, &err), &err, "option lr was 0.005 and is 0.006");
    t.run.deciding = "{\"lr\": 0.005}";
    t.data.id[3]++;
    check_error(toy_run(&t, &err), &err, "training data");
    t.data.id[3]--;
    t.validation.learn[2] ^= 1;
    check_error(toy_run(&t, &err), &err, "validation data");
    t.validation.learn[2] ^= 1;
    t.stage.setup.tuning_options.freeze = "lm_head.*";
    check_error(toy_run(&t, &err), &err, "tensors");
    t.stage.setup.tuning_options.freeze = NULL;
    t.run.save_every = 7; // harmless
    t.run.keep_last = 1;
    check_ok(toy_run(&t, &err), &err);
    toy_close(&t);
}

static void threads_do_not_matter(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    char one[1024];
    toy_open(&t);
    long_run(&t);
    t.stage.setup.dtype = DTYPE_BF16;
    check_ok(toy_run(&t, &err), &err);
    snprintf(one, sizeof one, "%s", t.out);
    other_out(&t, "../two");
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    check_ok(toy_run(&t, &err), &err);
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    check_same_end(one, t.out, 14);
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_runs_go_on), // first: forks before any threads are started
        cmocka_unit_test(a_second_signal_stops_at_once),
        cmocka_unit_test(stopped_runs_go_on),
        cmocka_unit_test(a_checkpoint_beyond_the_run_is_refused),
        cmocka_unit_test(an_old_run_outlives_a_failed_start),
        cmocka_unit_test(a_damaged_checkpoint_is_skipped),
        cmocka_unit_test(another_run_is_refused),
        cmocka_unit_test(threads_do_not_matter),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
