// base/file.h - files as bytes: mapped for reading, and written so that a reader sees either the old
// file or the new one, whole. Only regular files are opened; a FIFO or a device is refused.
#pragma once
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

// A read-only mapping of a file that others may still change: reading what was cut off, or what the disk cannot
// give, is SIGBUS, and what was cut within the last page reads as 0 (file_map_check).
struct file_map {
    const unsigned char *data;
    size_t size;
    uint64_t device, number;      // which file it is
    int64_t seconds, nanoseconds; // of its last change
};
bool file_map_open(struct file_map *m, const char *path, struct error *err);
void file_map_close(struct file_map *m); // safe on a zeroed or closed one
// Is what was mapped still what lies at `path`? False if it has another size. Sets *written if it was written to
// since it was mapped, or asked last, at the same size. Another file in its place changes nothing.
bool file_map_check(struct file_map *m, const char *path, bool *written, struct error *err);

// The whole file, NUL-terminated (size without it); refused beyond `limit` bytes. Free with mem_free.
bool file_read(char **data, size_t *size, const char *path, size_t limit, struct error *err);
// Bytes from `offset` on, at most `most` and no more than there are (0 beyond the end), of a file that others may
// write or cut meanwhile. Free with mem_free.
bool file_read_part(char **data, size_t *size, const char *path, uint64_t offset, size_t most,
                    struct error *err);
bool file_size(uint64_t *size, const char *path, struct error *err);

// A file that is written beside its final place: open creates path.tmp, commit syncs and renames it
// over path and syncs the folder. Without a commit, discard removes it.
struct file_writer {
    int fd; // -1 when closed
    char path[4096], temporary[4096];
    char *buffer; // what was written and not yet handed to the kernel
    size_t buffered;
    uint64_t size; // bytes so far
};
bool file_writer_open(struct file_writer *w, const char *path, struct error *err);
bool file_writer_write(struct file_writer *w, const void *bytes, size_t n, struct error *err);
bool file_writer_commit(struct file_writer *w, struct error *err);
void file_writer_discard(struct file_writer *w); // safe after commit, and twice

bool file_write(const char *path, const void *bytes, size_t n, struct error *err); // all of it, so
bool file_copy(const char *to, const char *from, struct error *err); // byte for byte, committed

bool path_join(char *out, size_t size, const char *dir, const char *name, struct error *err);
void path_parent(char *out, size_t size, const char *path); // of "a/b" "a", of "a" "."
bool path_is_plain_name(const char *name); // no '/', not ".", "..", or empty: stays in its folder
bool dir_make(const char *path, struct error *err); // like mkdir -p, and synced
bool dir_sync(const char *path, struct error *err);
bool dir_remove(const char *path, struct error *err); // with all that is in it; no links followed
// Is there something of this name? False: it cannot be known, and why.
bool file_look(bool *there, const char *path, struct error *err);
// A name that is there (a link to nothing, too), or cannot be asked for: who opens it then learns why.
bool file_exists(const char *path);
int64_t
disk_free(const char *path); // bytes available in path's (or its parent's) file system; -1 unknown

// One process at a time in a folder: an advisory lock on dir/.lock, released by the kernel at exit.
bool dir_lock(int *fd, const char *dir, struct error *err);
void dir_unlock(int *fd);
// Is the folder locked now? Creates nothing.
bool dir_locked(const char *dir);
