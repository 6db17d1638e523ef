// SIGINT and SIGTERM, wherever the program is when they come.
#include "ops/ops.h"
#include "support.h"
#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 128, TIMES = 400 };
static atomic_int wanted, sent;

// One signal for each that is wanted, at some moment of a product.
static void *send_signals(void *unused)
{
    for (unsigned i = 0; atomic_load(&sent) < TIMES; i++) {
        while (atomic_load(&wanted) == atomic_load(&sent))
            usleep(10);
        usleep(i * 37 % 500);
        kill(getpid(), i % 2 ? SIGINT : SIGTERM);
        atomic_fetch_add(&sent, 1);
    }
    return unused;
}

// The library's products change the stack pointer: what a handler writes below it must not be in the heap.
static void in_the_middle_of_a_product(void **unused)
{
    (void)unused;
    enum { WIDTH = 32 };
    static float x[3][SIZE * WIDTH], y[SIZE * WIDTH], want[SIZE * WIDTH], lse[SIZE];
    static int32_t span[2 * SIZE];
    const struct tensor spans = tensor_2d(span, DTYPE_I32, SIZE, 2),
                        l = tensor_2d(lse, DTYPE_F32, SIZE, 1);
    struct tensor in[3];
    pthread_t sender;
    struct error err = {0};
    for (int k = 0; k < 3; k++) {
        in[k] = tensor_2d(x[k], DTYPE_F32, SIZE, WIDTH);
        for (int i = 0; i < SIZE * WIDTH; i++) {
            x[k][i] = (float)((i + k) % 31) / 16 - 1;
        }
    }
    for (int i = 0; i < SIZE; i++) {
        span[2 * i + 1] = i;
    }
    assert_true(signals_begin(&err));
    cpu_configure(1, CPU_PRODUCTS_F32);
    cpu_ops.attention_forward(tensor_2d(want, DTYPE_F32, SIZE, WIDTH), l, in[0], in[1], in[2],
                              spans, WIDTH, .2F);
    assert_int_equal(pthread_create(&sender, NULL, send_signals, NULL), 0);
    for (int i = 0; i < TIMES; i++) {
        assert_true(signals_catch(&err));
        assert_false(signals_pending());
        atomic_fetch_add(&wanted, 1);
        while (!signals_pending()) {
            cpu_ops.attention_forward(tensor_2d(y, DTYPE_F32, SIZE, WIDTH), l, in[0], in[1], in[2],
                                      spans, WIDTH, .2F);
            assert_memory_equal(y, want, sizeof y);
        }
    }
    pthread_join(sender, NULL);
    signals_release();
}

static int status_of(void (*child)(void))
{
    int status = 0;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error err;
        if (!signals_begin(&err)) _exit(1);
        child();
        sleep(20);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void before_it_is_asked_for(void)
{
    kill(getpid(), SIGTERM);
}

static void after_it_was(void)
{
    struct error err;
    if (!signals_catch(&err)) _exit(1);
    signals_release();
    kill(getpid(), SIGINT);
}

static void ignored_then_kept(void)
{
    struct error err;
    sigset_t waiting;
    signal(SIGINT, SIG_IGN);
    kill(getpid(), SIGINT); // a background job of a shell
    do {
        sigpending(&waiting);
    } while (sigismember(&waiting, SIGINT));
    usleep(100000); // it was taken; now it is dealt with
    if (!signals_catch(&err)) _exit(1);
    kill(getpid(), SIGINT);
    while (!signals_pending())
        usleep(100);
    _exit(7);
}

static void outside_of_a_run(void **unused)
{
    (void)unused;
    int status = status_of(before_it_is_asked_for);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    status = status_of(after_it_was);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    status = status_of(ignored_then_kept);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outside_of_a_run),
        cmocka_unit_test(in_the_middle_of_a_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
