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
// The same where `to` may be there: it moves aside (to.old.tmp) before it is removed, so that what has the name is
// whole at any time.
bool dir_replace(const char *to, const char *from, struct error *err);
// Removes what is there, a folder by moving it aside first: under its name it is whole or gone.
bool dir_discard(const char *path, struct error *err);
// Or, where it does not exist, its nearest parent.
bool dir_writable(const char *path, struct error *err);
