// train/signals.c - see signals.h.
#include "train/signals.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t pending;
static struct sigaction before_int, before_term;

// The second signal of either kind finds the default handler and ends the process.
static void on_signal(int number)
{
    (void)number;
    pending = 1;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

void signals_catch(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESTART;
    sigemptyset(&a.sa_mask);
    sigaddset(&a.sa_mask, SIGINT);
    sigaddset(&a.sa_mask, SIGTERM);
    pending = 0;
    sigaction(SIGINT, &a, &before_int);
    sigaction(SIGTERM, &a, &before_term);
}

void signals_release(void)
{
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
}

bool signals_pending(void)
{
    return pending != 0;
}
