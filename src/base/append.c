// base/append.c - see append.h.
#include "base/append.h"

#include "base/calls.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The name of a new file: syncing the file says nothing of it.
static bool sync_name(const char *path, struct error *err)
{
    char folder[4096];
    path_parent(folder, sizeof folder, path);
    return dir_sync(folder, err);
}

bool append_open(struct append *a, const char *path, size_t keep, struct error *err)
{
    a->fd = -1;
    const int n = snprintf(a->path, sizeof a->path, "%s", path);
    if (n < 0 || (size_t)n >= sizeof a->path) return fail(err, "%s: path too long", path);
    const bool there = file_exists(path);
    const int fd =
        open_call(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (fd < 0) return fail(err, "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0) {
        fail(err, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        fail(err, "%s: not a regular file", path);
    } else if ((size_t)st.st_size > keep && !ftruncate_call(fd, (off_t)keep)) {
        fail(err, "%s: cannot cut to %zu bytes: %s", path, keep, strerror(errno));
    } else if (there || sync_name(path, err)) {
        a->fd = fd;
        return true;
    }
    close(fd);
    return false;
}

bool append_write(struct append *a, const char *line, size_t n, struct error *err)
{
    while (n) {
        const ssize_t put = write(a->fd, line, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(err, "%s: cannot write: %s", a->path, strerror(errno));
        if (put == 0) return fail(err, "%s: cannot write: 0 of %zu bytes taken", a->path, n);
        line += put;
        n -= (size_t)put;
    }
    return true;
}

bool append_sync(struct append *a, struct error *err)
{
    if (fsync_call(a->fd)) return true;
    return fail(err, "%s: fsync: %s", a->path, strerror(errno));
}

void append_close(struct append *a)
{
    if (a->path[0] && a->fd >= 0) close(a->fd);
    *a = (struct append){.fd = -1};
}
