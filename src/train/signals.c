// train/signals.c - see signals.h.
#include "train/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum state {
    ENDS,
    CAUGHT,
    PENDING
}; // what a signal does: ends the process, is kept, or is the second
static _Atomic enum state state;
static pid_t begun_in; // the process that has the thread; a forked one has not

static sigset_t both(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

// As if the signal had never been blocked.
static void end_by(int number)
{
    const sigset_t set = both();
    signal(number, SIG_DFL);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void take(int number)
{
    struct sigaction now;
    enum state expected = CAUGHT;
    if (atomic_compare_exchange_strong(&state, &expected, PENDING)) return;
    // A shell's background job ignores SIGINT, until it is asked for.
    const bool ignored = !sigaction(number, NULL, &now) && now.sa_handler == SIG_IGN;
    if (expected == PENDING || !ignored) end_by(number);
}

static void *wait_for_them(void *unused)
{
    (void)unused;
    const sigset_t set = both();
    for (int number;;) {
        if (!sigwait(&set, &number)) take(number);
    }
    return NULL;
}

bool signals_begin(struct error *err)
{
    if (begun_in == getpid()) return true;
    const sigset_t set = both();
    sigset_t before;
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    int failed = pthread_attr_init(&attributes);
    if (!failed) {
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        failed = pthread_create(&thread, &attributes, wait_for_them, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (!failed) {
        begun_in = getpid();
        return true;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return fail(err, "cannot start the thread that waits for signals: %s", strerror(failed));
}

bool signals_catch(struct error *err)
{
    if (!signals_begin(err)) return false;
    atomic_store(&state, CAUGHT);
    return true;
}

void signals_release(void)
{
    atomic_store(&state, ENDS);
}

bool signals_pending(void)
{
    // One that was sent to this thread alone: the other cannot wait for it.
    const sigset_t set = both();
    const struct timespec at_once = {0};
    const int number = sigtimedwait(&set, NULL, &at_once);
    if (number > 0) take(number);
    return atomic_load(&state) == PENDING;
}
