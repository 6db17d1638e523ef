// base/calls.h - system calls that a signal may interrupt, made again. Results and errno are the call's own.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <unistd.h>

static inline int open_call(const char *path, int flags, unsigned mode)
{
    int fd;
    do {
        fd = open(path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static inline bool fsync_call(int fd)
{
    int result;
    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

// Once: Linux has closed the descriptor even where a signal interrupts the call.
static inline bool close_call(int fd)
{
    return close(fd) == 0 || errno == EINTR;
}

static inline bool ftruncate_call(int fd, off_t size)
{
    int result;
    do {
        result = ftruncate(fd, size);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

static inline bool flock_call(int fd, int operation)
{
    int result;
    do {
        result = flock(fd, operation);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}
