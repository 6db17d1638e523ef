// tests/torture/surroundings.c - preloaded into the program by test_surroundings.sh: what a machine may do around it.
//   JUMPING_CLOCK=1   real time leaps by a day, back and forward in turn, monotonic time by half an hour, each time
//                     it is asked for
//   SHRINK=END:N:TO   the N-th mapping of a file whose path ends in END finds it cut to TO bytes as soon as it is made
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int jumps(void)
{
    static int known, yes;
    if (!known) {
        known = 1;
        yes = getenv("JUMPING_CLOCK") != NULL;
    }
    return yes;
}

static long turns;

int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    const int status = real(id, t);
    if (status == 0 && jumps()) {
        const long turn = __atomic_fetch_add(&turns, 1, __ATOMIC_RELAXED);
        if (id == CLOCK_MONOTONIC) t->tv_sec += 1800 * turn;
        if (id == CLOCK_REALTIME) t->tv_sec += turn % 2 ? 86400 * turn : -86400 * turn;
    }
    return status;
}

time_t time(time_t *out)
{
    struct timespec t = {0, 0};
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t = {0, 0};
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

// SHRINK says of which file and which of its mappings.
static void shrink(int fd)
{
    static int seen;
    char link[64], path[4096], end[256];
    int n;
    long to;
    const char *what = getenv("SHRINK");
    if (!what || fd < 0 || sscanf(what, "%255[^:]:%d:%ld", end, &n, &to) != 3) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return;
    path[size] = 0;
    const size_t length = strlen(end);
    if ((size_t)size < length || strcmp(path + size - (ssize_t)length, end) != 0) return;
    if (++seen == n && truncate(path, to) != 0) abort();
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "mmap");
    void *p = real(at, size, protection, flags, fd, offset);
    if (p != MAP_FAILED) shrink(fd);
    return p;
}
