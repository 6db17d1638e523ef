// tests/fuzz/folder.h - a folder whose files lie in memory, for readers that take a path: each name is a link to a
// file without a name (memfd), which every input writes anew. The folder goes at exit.
#pragma once
#include "base/file.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char folder[128];

static inline void folder_remove(void)
{
    dir_remove(folder, NULL);
}

static inline const char *folder_make(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.100s/moetune-fuzz-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(folder)) abort();
    atexit(folder_remove);
    return folder;
}

// Which of `n` kinds the first byte of an input says: '0' the first, '1' the second.
static inline int folder_kind(uint8_t first, int n)
{
    return (uint8_t)(first - '0') % n;
}

static inline void folder_put(int fd, const void *bytes, size_t size)
{
    if (ftruncate(fd, (off_t)size) != 0) abort();
    if (size && pwrite(fd, bytes, size, 0) != (ssize_t)size) abort();
}

// A file of the folder, with these bytes to begin with; its descriptor stays open for folder_put.
static inline int folder_file(const char *name, const void *bytes, size_t size)
{
    char link[sizeof folder + 128], target[64];
    const int fd = memfd_create(name, 0);
    if (fd < 0) abort();
    snprintf(link, sizeof link, "%s/%.120s", folder, name);
    snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    if (symlink(target, link) != 0) abort();
    folder_put(fd, bytes, size);
    return fd;
}
