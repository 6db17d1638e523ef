// base/file.c - see file.h. Every call is checked, short reads and writes are gone on with, and EINTR
// is not an error.
#include "base/file.h"

#include "base/calls.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { WRITE_BUFFER = 1 << 20, LOCK_TRIES = 3, LOCK_PAUSE = 10000 }; // microseconds

// O_NONBLOCK: opening a FIFO must not hang; it is refused right after.
static bool open_and_stat(int *fd, struct stat *st, const char *path, struct error *err)
{
    *fd = open_call(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (*fd < 0) return fail(err, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(*fd, st) != 0) {
        fail(err, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st->st_mode)) {
        fail(err, "%s: not a regular file", path);
    } else {
        return true;
    }
    close(*fd);
    *fd = -1;
    return false;
}

static bool open_regular(int *fd, size_t *size, const char *path, struct error *err)
{
    struct stat st;
    if (!open_and_stat(fd, &st, path, err)) return false;
    *size = (size_t)st.st_size;
    return true;
}

bool file_map_open(struct file_map *m, const char *path, struct error *err)
{
    *m = (struct file_map){0};
    int fd;
    struct stat st;
    if (!open_and_stat(&fd, &st, path, err)) return false;
    *m = (struct file_map){.size = (size_t)st.st_size,
                           .device = (uint64_t)st.st_dev,
                           .number = (uint64_t)st.st_ino,
                           .seconds = st.st_mtim.tv_sec,
                           .nanoseconds = st.st_mtim.tv_nsec};
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            fail(err, "%s: cannot map %zu bytes: %s", path, m->size, strerror(errno));
            close(fd);
            m->size = 0;
            return false;
        }
        m->data = p;
    }
    close(fd);
    return true;
}

void file_map_close(struct file_map *m)
{
    if (m->data) munmap((void *)m->data, m->size);
    *m = (struct file_map){0};
}

bool file_map_check(struct file_map *m, const char *path, bool *written, struct error *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || (uint64_t)st.st_dev != m->device ||
        (uint64_t)st.st_ino != m->number) {
        return true;
    }
    if ((size_t)st.st_size != m->size) {
        return fail(err, "%s: %zu bytes when it was opened, and %lld now", path, m->size,
                    (long long)st.st_size);
    }
    *written |= st.st_mtim.tv_sec != m->seconds || st.st_mtim.tv_nsec != m->nanoseconds;
    m->seconds = st.st_mtim.tv_sec;
    m->nanoseconds = st.st_mtim.tv_nsec;
    return true;
}

static bool read_all(int fd, char *out, size_t n, const char *path, struct error *err)
{
    size_t done = 0;
    while (done < n) {
        const ssize_t got = read(fd, out + done, n - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(err, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0) return fail(err, "%s: ends after %zu of %zu bytes", path, done, n);
        done += (size_t)got;
    }
    return true;
}

bool file_read(char **data, size_t *size, const char *path, size_t limit, struct error *err)
{
    int fd;
    *data = NULL;
    if (!open_regular(&fd, size, path, err)) return false;
    bool ok = false;
    if (*size > limit) {
        fail(err, "%s: %zu bytes, at most %zu expected", path, *size, limit);
    } else if (!(*data = mem_alloc(*size + 1))) {
        fail(err, "%s: no memory for %zu bytes", path, *size);
    } else {
        ok = read_all(fd, *data, *size, path, err);
    }
    close(fd);
    if (ok) {
        (*data)[*size] = 0;
    } else {
        mem_free(*data);
        *data = NULL;
    }
    return ok;
}

bool file_read_part(char **data, size_t *size, const char *path, uint64_t offset, size_t most,
                    struct error *err)
{
    int fd;
    size_t whole;
    *size = 0;
    if (!(*data = mem_alloc(most + 1))) return fail(err, "%s: no memory for %zu bytes", path, most);
    bool ok = open_regular(&fd, &whole, path, err);
    while (ok && *size < most) {
        const ssize_t got = pread(fd, *data + *size, most - *size, (off_t)(offset + *size));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) ok = fail(err, "%s: cannot read: %s", path, strerror(errno));
        if (got <= 0) break;
        *size += (size_t)got;
    }
    if (fd >= 0) close(fd);
    if (ok) return true;
    mem_free(*data);
    *data = NULL;
    return false;
}

bool file_size(uint64_t *size, const char *path, struct error *err)
{
    int fd;
    size_t n = 0;
    const bool ok = open_regular(&fd, &n, path, err);
    if (ok) close(fd);
    *size = n;
    return ok;
}

bool file_writer_open(struct file_writer *w, const char *path, struct error *err)
{
    memset(w, 0, sizeof *w);
    w->fd = -1;
    const int n = snprintf(w->path, sizeof w->path, "%s", path);
    const int m = snprintf(w->temporary, sizeof w->temporary, "%s.tmp", path);
    if (n < 0 || m < 0 || (size_t)m >= sizeof w->temporary) {
        w->temporary[0] = 0;
        return fail(err, "%s: path too long", path);
    }
    if (!(w->buffer = mem_alloc(WRITE_BUFFER))) {
        w->temporary[0] = 0;
        return fail(err, "%s: no memory", path);
    }
    unlink(w->temporary); // what a kill left; or a link or FIFO, which must not be written through
    w->fd = open_call(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (w->fd >= 0) return true;
    fail(err, "%s: cannot create: %s", w->temporary, strerror(errno));
    w->temporary[0] = 0;
    file_writer_discard(w);
    return false;
}

static bool write_out(struct file_writer *w, const char *bytes, size_t n, struct error *err)
{
    while (n) {
        const ssize_t put = write(w->fd, bytes, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(err, "%s: cannot write: %s", w->temporary, strerror(errno));
        if (put == 0) return fail(err, "%s: cannot write: 0 of %zu bytes taken", w->temporary, n);
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

bool file_writer_write(struct file_writer *w, const void *bytes, size_t n, struct error *err)
{
    w->size += n;
    if (w->buffered + n > WRITE_BUFFER) {
        if (!write_out(w, w->buffer, w->buffered, err)) return false;
        w->buffered = 0;
    }
    if (n >= WRITE_BUFFER) return write_out(w, bytes, n, err);
    if (n) memcpy(w->buffer + w->buffered, bytes, n);
    w->buffered += n;
    return true;
}

void path_parent(char *out, size_t size, const char *path)
{
    snprintf(out, size, "%s", path);
    char *slash = strrchr(out, '/');
    if (!slash) {
        snprintf(out, size, ".");
    } else {
        slash[slash == out] = 0;
    }
}

bool file_writer_commit(struct file_writer *w, struct error *err)
{
    bool ok = write_out(w, w->buffer, w->buffered, err);
    w->buffered = 0;
    if (ok && !fsync_call(w->fd)) ok = fail(err, "%s: fsync: %s", w->temporary, strerror(errno));
    if (!close_call(w->fd) && ok) ok = fail(err, "%s: close: %s", w->temporary, strerror(errno));
    w->fd = -1;
    if (ok && rename(w->temporary, w->path) != 0) {
        ok = fail(err, "%s: cannot rename: %s", w->temporary, strerror(errno));
    }
    char parent[sizeof w->path];
    path_parent(parent, sizeof parent, w->path);
    if (ok) {
        w->temporary[0] = 0;
        ok = dir_sync(parent, err);
    }
    file_writer_discard(w);
    return ok;
}

void file_writer_discard(struct file_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
    if (w->temporary[0]) unlink(w->temporary);
    w->temporary[0] = 0;
    mem_free(w->buffer);
    w->buffer = NULL;
}

bool file_write(const char *path, const void *bytes, size_t n, struct error *err)
{
    struct file_writer w;
    if (file_writer_open(&w, path, err) && file_writer_write(&w, bytes, n, err) &&
        file_writer_commit(&w, err)) {
        return true;
    }
    file_writer_discard(&w);
    return false;
}

bool file_copy(const char *to, const char *from, struct error *err)
{
    struct file_map m;
    if (!file_map_open(&m, from, err)) return false;
    const bool ok = file_write(to, m.data, m.size, err);
    file_map_close(&m);
    return ok;
}

bool path_join(char *out, size_t size, const char *dir, const char *name, struct error *err)
{
    const int n = snprintf(out, size, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= size) return fail(err, "%s/%s: path too long", dir, name);
    return true;
}

bool path_is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

// A new folder's entry in the one above; that may be entered and written but not read, and then cannot be synced.
static bool sync_above(const char *path, struct error *err)
{
    char parent[4096];
    path_parent(parent, sizeof parent, path);
    return access(parent, R_OK) != 0 || dir_sync(parent, err);
}

bool dir_make(const char *path, struct error *err)
{
    char partial[4096];
    if (strlen(path) >= sizeof partial) return fail(err, "%s: path too long", path);
    snprintf(partial, sizeof partial, "%s", path);
    for (char *p = partial + 1;; p++) {
        const char c = *p;
        if (c && c != '/') continue;
        *p = 0;
        if (mkdir(partial, 0777) == 0) {
            if (!sync_above(partial, err)) return false;
        } else if (errno != EEXIST) {
            return fail(err, "%s: cannot create folder: %s", partial, strerror(errno));
        }
        *p = c;
        if (!c) break;
    }
    struct stat st;
    if (stat(path, &st) != 0) return fail(err, "%s: %s", path, strerror(errno));
    return S_ISDIR(st.st_mode) || fail(err, "%s: exists and is not a folder", path);
}

bool dir_sync(const char *path, struct error *err)
{
    const int fd = open_call(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return fail(err, "%s: cannot open folder: %s", path, strerror(errno));
    const bool ok = fsync_call(fd) || errno == EINVAL; // some file systems cannot sync a folder
    if (!ok) fail(err, "%s: fsync: %s", path, strerror(errno));
    close(fd);
    return ok;
}

static bool remove_entry(const char *path, int depth, struct error *err);

static bool remove_contents(const char *path, int depth, struct error *err)
{
    DIR *d = opendir(path);
    if (!d) return fail(err, "%s: cannot open folder: %s", path, strerror(errno));
    bool ok = depth < 64 || fail(err, "%s: nested too deep", path);
    for (struct dirent *e = NULL; ok && (errno = 0, e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char child[4096];
        ok = path_join(child, sizeof child, path, e->d_name, err) &&
             remove_entry(child, depth + 1, err);
    }
    if (ok && errno) ok = fail(err, "%s: cannot read folder: %s", path, strerror(errno));
    closedir(d);
    return ok;
}

static bool remove_entry(const char *path, int depth, struct error *err)
{
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT || fail(err, "%s: %s", path, strerror(errno));
    const bool is_dir = S_ISDIR(st.st_mode);
    if (is_dir && !remove_contents(path, depth, err)) return false;
    if ((is_dir ? rmdir(path) : unlink(path)) == 0) return true;
    return fail(err, "%s: cannot remove: %s", path, strerror(errno));
}

bool dir_remove(const char *path, struct error *err)
{
    return remove_entry(path, 0, err);
}

bool file_look(bool *there, const char *path, struct error *err)
{
    struct stat st;
    *there = lstat(path, &st) == 0;
    return *there || errno == ENOENT || errno == ENOTDIR ||
           fail(err, "%s: %s", path, strerror(errno));
}

bool file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

int64_t disk_free(const char *path)
{
    struct statvfs s;
    char parent[4096];
    snprintf(parent, sizeof parent, "%s", path);
    while (statvfs(parent, &s) != 0) {
        char above[4096];
        path_parent(above, sizeof above, parent);
        if (!strcmp(above, parent)) return -1;
        snprintf(parent, sizeof parent, "%s", above);
    }
    return (int64_t)((uint64_t)s.f_bavail * s.f_frsize);
}

bool dir_lock(int *fd, const char *dir, struct error *err)
{
    char path[4096];
    if (!path_join(path, sizeof path, dir, ".lock", err)) return false;
    *fd = open_call(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0) return fail(err, "%s: cannot open: %s", path, strerror(errno));
    for (int i = 0; i < LOCK_TRIES; i++) { // dir_locked() has it for an instant
        if (flock_call(*fd, LOCK_EX | LOCK_NB)) return true;
        if (errno != EWOULDBLOCK) break;
        usleep(LOCK_PAUSE);
        errno = EWOULDBLOCK;
    }
    if (errno != EWOULDBLOCK) {
        fail(err, "%s: cannot lock: %s", path, strerror(errno));
    } else {
        fail(err, "%s: another run is using this folder", dir);
    }
    close(*fd);
    *fd = -1;
    return false;
}

bool dir_locked(const char *dir)
{
    char path[4096];
    if (!path_join(path, sizeof path, dir, ".lock", NULL)) return false;
    const int fd = open_call(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0) return false;
    const bool locked = !flock_call(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return locked;
}

void dir_unlock(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}
