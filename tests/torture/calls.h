// tests/torture/calls.h - the calls by which a program changes a disk. Defined here, they take the place of the C
// library's in the program that includes this file (once): two hooks see each of them, so that a test can die at
// any, or write down what was done in which order.
#pragma once
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum call_kind {
    CALL_OPEN,
    CALL_WRITE,
    CALL_CUT,
    CALL_SYNC,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_RMDIR,
    CALL_MKDIR,
    CALL_CLOSE
};

struct call {
    enum call_kind kind;
    int fd;                // of WRITE, CUT, SYNC, CLOSE; of OPEN afterwards
    int flags;             // of OPEN
    bool made;             // OPEN: the file was not there before
    const char *path, *to; // of the others; `to` of RENAME
    const void *bytes;     // of WRITE
    size_t n;              // bytes of a WRITE, the length of a CUT
};

static struct {
    void (*before)(const struct call *c);
    void (*after)(const struct call *c); // of those that succeeded
} calls;

static inline void calls_before(const struct call *c)
{
    if (calls.before) calls.before(c);
}

static inline int calls_after(const struct call *c, int result)
{
    if (calls.after && result >= 0) calls.after(c);
    return result;
}

static inline ssize_t calls_write(int fd, const void *bytes, size_t n)
{
    const struct iovec v = {(void *)bytes, n};
    return writev(fd, &v, 1);
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    struct call c = {.kind = CALL_OPEN, .fd = -1, .flags = flags, .path = path};
    calls_before(&c);
    c.made = (flags & O_CREAT) && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    c.fd = openat(AT_FDCWD, path, flags, mode);
    return calls_after(&c, c.fd);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    struct call c = {.kind = CALL_WRITE, .fd = fd, .bytes = bytes, .n = n};
    calls_before(&c);
    const ssize_t put = calls_write(fd, bytes, n);
    c.n = put > 0 ? (size_t)put : 0;
    calls_after(&c, put < 0 ? -1 : 0);
    return put;
}

int ftruncate(int fd, off_t n)
{
    const struct call c = {.kind = CALL_CUT, .fd = fd, .n = (size_t)n};
    calls_before(&c);
    return calls_after(&c, (int)syscall(SYS_ftruncate, fd, n));
}

// What a power cut would take is played elsewhere: here nothing waits for a disk.
int fsync(int fd)
{
    const struct call c = {.kind = CALL_SYNC, .fd = fd};
    calls_before(&c);
    return calls_after(&c, fcntl(fd, F_GETFD) < 0 ? -1 : 0);
}

int rename(const char *from, const char *to)
{
    const struct call c = {.kind = CALL_RENAME, .fd = -1, .path = from, .to = to};
    calls_before(&c);
    return calls_after(&c, renameat(AT_FDCWD, from, AT_FDCWD, to));
}

int unlink(const char *path)
{
    const struct call c = {.kind = CALL_UNLINK, .fd = -1, .path = path};
    calls_before(&c);
    return calls_after(&c, unlinkat(AT_FDCWD, path, 0));
}

int rmdir(const char *path)
{
    const struct call c = {.kind = CALL_RMDIR, .fd = -1, .path = path};
    calls_before(&c);
    return calls_after(&c, unlinkat(AT_FDCWD, path, AT_REMOVEDIR));
}

int mkdir(const char *path, mode_t mode)
{
    const struct call c = {.kind = CALL_MKDIR, .fd = -1, .path = path};
    calls_before(&c);
    return calls_after(&c, mkdirat(AT_FDCWD, path, mode));
}

int close(int fd)
{
    const struct call c = {.kind = CALL_CLOSE, .fd = fd};
    calls_before(&c);
    return calls_after(&c, (int)syscall(SYS_close, fd));
}
