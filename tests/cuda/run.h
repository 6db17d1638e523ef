// tests/cuda/run.h - runs the tests of a program that needs a device, each by itself: over a real one in a process of
// its own, so that a kernel which hangs, or a device that is lost, ends that test and no other.
//
//   test_cuda_NAME [PATTERN]          a glob over the tests' names
//   MOETUNE_TEST_SECONDS=N            until a test counts as hanging (90): more under compute-sanitizer
#pragma once
#include "support.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIP = 77, MOST_TESTS = 64, HANGS_AFTER = 90 };

struct device_tests {
    bool (*open)(void); // the device; false: there is none
    struct CMUnitTest test[MOST_TESTS];
    char name[MOST_TESTS][64];
    size_t count;
};

// What the test gets as its state is `item`.
static inline void add_test(struct device_tests *t, const char *what, const char *which,
                            CMUnitTestFunction f, CMFixtureFunction teardown, const void *item)
{
    assert_true(t->count < MOST_TESTS);
    char *name = t->name[t->count];
    snprintf(name, sizeof *t->name, "%s%s%s", what, *which ? ": " : "", which);
    t->test[t->count++] = (struct CMUnitTest){name, f, NULL, teardown, (void *)(uintptr_t)item};
}

static inline int in_child(const struct device_tests *t, size_t i)
{
    const char *patience = getenv("MOETUNE_TEST_SECONDS");
    int status = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) return 1;
    if (!pid) {
        alarm(patience ? (unsigned)atoi(patience) : HANGS_AFTER);
        exit(t->open() ? _cmocka_run_group_tests(t->name[i], &t->test[i], 1, NULL, NULL) : SKIP);
    }
    if (waitpid(pid, &status, 0) != pid) return 1;
    if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
    printf("FAILED %s: ended by signal %d%s\n", t->name[i], WTERMSIG(status),
           WTERMSIG(status) == SIGALRM ? ", it hangs" : "");
    return 1;
}

static inline int run_in_children(const struct device_tests *t, const char *pattern)
{
    int failed = 0, ran = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (pattern && fnmatch(pattern, t->name[i], 0) != 0) continue;
        const int result = in_child(t, i);
        if (result == SKIP) return SKIP;
        ran++;
        failed += result != 0;
    }
    printf("%d of %d failed\n", failed, ran);
    return failed != 0;
}

#ifdef EMULATED
static inline int run_chosen(const struct device_tests *t, const char *pattern)
{
    if (!t->open()) return SKIP;
    if (pattern) cmocka_set_test_filter(pattern);
    return _cmocka_run_group_tests("device", t->test, t->count, NULL, NULL);
}
#else
static inline int run_chosen(const struct device_tests *t, const char *pattern)
{
    return run_in_children(t, pattern);
}
#endif

static inline int run_device_tests(const struct device_tests *t, int argc, char **argv)
{
    return run_chosen(t, argc > 1 ? argv[1] : NULL);
}
