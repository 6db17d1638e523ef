// tests/torture/test_kill_calls.c - SIGKILL at every call by which a run changes the disk (and at those that open,
// sync and close besides, and in the middle of every write), for runs that save more than once and export, that go on
// where one is finished and that begin anew: gone on with, each ends with the bytes of a run that nobody disturbed, and
// nothing else in its folder. Then a second kill at a random call of the run that went on.
#include "runs.h"

#include "calls.h"

#include <signal.h>

static int64_t kills, points;

static void die_if_due(const struct call *c)
{
    struct runs_shared *s = runs_shared;
    assert_true(s->calls + 1 < RUN_CALLS);
    s->kind[++s->calls] = (char)c->kind;
    if (s->calls != s->die_at) return;
    if (s->half) (void)!calls_write(c->fd, c->bytes, c->n / 2);
    kill(getpid(), SIGKILL);
}

// A run in a child that dies at its n-th call; false: it has no so many.
static bool killed_at(const char *options, int64_t n, bool half)
{
    runs_shared->calls = 0;
    runs_shared->die_at = n;
    runs_shared->half = half;
    const int status = runs_child(options);
    runs_shared->die_at = 0;
    if (!WIFSIGNALED(status)) {
        check_run(status);
        return false;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    kills++;
    return true;
}

// What is done to a run's folder: begun in an empty one, gone on with or begun anew where one is finished.
static const struct doing {
    const char *name, *option;
    bool finished;
    int points; // of the short form
    int within; // and the first calls, among which they are; 0: all
} doings[] = {{"begun", "", false, 3, 0},
              {"gone on with", "--resume", true, 1, 0},
              {"begun anew", "--overwrite", true, 3, 50}}; // first all that is there goes
enum { DOINGS = sizeof doings / sizeof *doings };

static void begin(const struct run_kind *k, const struct doing *d, char options[1024])
{
    struct error err = {0};
    check_ok(dir_remove(runs_out, &err), &err);
    if (d->finished) check_run(runs_child(k->options));
    snprintf(options, 1024, "%s %s", k->options, d->option);
}

static void check_point(const struct run_kind *k, const struct doing *d, int64_t n, bool half,
                        int64_t again)
{
    char options[1024], resume[1024];
    snprintf(runs_doing, sizeof runs_doing, "%s, %s, killed %s call %d, then at call %d", k->name,
             d->name, half ? "in the middle of" : "at", (int)n, (int)again);
    snprintf(resume, sizeof resume, "%s --resume", k->options);
    begin(k, d, options);
    assert_true(killed_at(options, n, half));
    if (again) killed_at(resume, again, half);
    check_run(runs_child(resume));
    check_same_tree(k->name, runs_out);
    points++;
}

static void check_doing(const struct run_kind *k, const struct doing *d)
{
    char options[1024];
    struct rng r = {.seed = 17};
    begin(k, d, options);
    runs_shared->calls = 0;
    check_run(runs_child(options));
    const int64_t all = runs_shared->calls;
    char kind[RUN_CALLS];
    memcpy(kind, runs_shared->kind, sizeof kind);
    assert_true(all > 100);
    const int64_t last = torture_full() || !d->within ? all : d->within;
    const int64_t stride = torture_full() ? 1 : last / d->points;
    for (int64_t n = 1 + rng_below(&r, stride); n <= last; n += stride) {
        check_point(k, d, n, false, 0);
        if (kind[n] == CALL_WRITE) check_point(k, d, n, true, 0);
        if (n % 4 == 0) check_point(k, d, n, false, 1 + rng_below(&r, all));
    }
    printf("%s, %s: %d calls\n", k->name, d->name, (int)all);
}

static void check_kind(const struct run_kind *k)
{
    struct error err = {0};
    runs_straight(k->name, k->options);
    for (int i = 0; i < DOINGS; i++) {
        check_doing(k, &doings[i]);
    }
    check_ok(dir_remove(runs_out, &err), &err);
}

static void killed_at_every_call(void **unused)
{
    (void)unused;
    runs_open();
    calls.before = die_if_due;
    for (int i = 0; i < RUN_KINDS; i++) {
        if (torture_wants(run_kinds[i].name)) check_kind(&run_kinds[i]);
    }
    printf("torture: %d kills at the calls of %d runs that save and export, each gone on with to "
           "the same bytes\n",
           (int)kills, (int)points);
    *runs_doing = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(killed_at_every_call, runs_say)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
