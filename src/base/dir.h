// base/dir.h - folders as lists of names, and a finished folder put in its place in one step.
#pragma once
#include "base/error.h"

#include <stdint.h>

struct dir_names {
    char **name; // sorted by byte, without "." and ".."
    int64_t count, capacity;
};
bool dir_list(struct dir_names *n, const char *path, struct error *err);
void dir_names_free(struct dir_names *n);

// `from` becomes `to`, in one step that a kill or a power cut cannot halve: syncs `from`, renames, syncs
// the parent. `to` must not exist, or be an empty folder.
bool dir_commit(const char *to, const char *from, struct error *err);
bool dir_writable(const char *path); // or, where it does not exist, its nearest parent
