// base/dir.c - see dir.h.
#include "base/dir.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(struct dir_names *n, const char *name)
{
    char **grown = array_grow(n->name, n->count, &n->capacity, sizeof *n->name);
    if (!grown) return false;
    n->name = grown;
    n->name[n->count] = mem_strdup(name);
    return n->name[n->count++] != NULL;
}

bool dir_list(struct dir_names *n, const char *path, struct error *err)
{
    *n = (struct dir_names){0};
    DIR *d = opendir(path);
    if (!d) return fail(err, "%s: cannot open folder: %s", path, strerror(errno));
    bool ok = true;
    errno = 0;
    for (struct dirent *e = NULL; ok && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        ok = add_name(n, e->d_name) || fail(err, "%s: no memory for its names", path);
        errno = 0;
    }
    if (ok && errno) ok = fail(err, "%s: cannot read folder: %s", path, strerror(errno));
    closedir(d);
    if (!ok) {
        dir_names_free(n);
        return false;
    }
    if (n->count) qsort(n->name, (size_t)n->count, sizeof *n->name, by_bytes);
    return true;
}

void dir_names_free(struct dir_names *n)
{
    for (int64_t i = 0; i < n->count; i++) {
        mem_free(n->name[i]);
    }
    mem_free(n->name);
    *n = (struct dir_names){0};
}

bool dir_commit(const char *to, const char *from, struct error *err)
{
    char parent[4096];
    if (strlen(to) >= sizeof parent) return fail(err, "%s: path too long", to);
    if (!dir_sync(from, err)) return false;
    if (rename(from, to) != 0) {
        return fail(err, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    }
    path_parent(parent, sizeof parent, to);
    return dir_sync(parent, err);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Where a folder goes to be removed. A run that starts removes what it finds under such a name.
static bool path_aside(char out[4096], const char *path, struct error *err)
{
    const int n = snprintf(out, 4096, "%s.old.tmp", path);
    return (n > 0 && n < 4096) || fail(err, "%s: path too long", path);
}

bool dir_replace(const char *to, const char *from, struct error *err)
{
    char old[4096];
    if (!is_folder(to)) return dir_remove(to, err) && dir_commit(to, from, err);
    if (!path_aside(old, to, err) || !dir_remove(old, err) || !dir_commit(old, to, err))
        return false;
    if (dir_commit(to, from, err)) return dir_remove(old, err);
    rename(old, to); // as it was; not where `from` is there by now
    return false;
}

bool dir_discard(const char *path, struct error *err)
{
    char old[4096];
    if (!is_folder(path)) return dir_remove(path, err);
    return path_aside(old, path, err) && dir_remove(old, err) && dir_commit(old, path, err) &&
           dir_remove(old, err);
}

bool dir_writable(const char *path, struct error *err)
{
    char at[4096];
    if (strlen(path) >= sizeof at) return fail(err, "%s: path too long", path);
    snprintf(at, sizeof at, "%s", path);
    struct stat st;
    while (stat(at, &st) != 0) {
        char above[4096];
        path_parent(above, sizeof above, at);
        if (errno != ENOENT || !strcmp(above, at)) {
            return fail(err, "%s: not a folder that can be written: %s", path, strerror(errno));
        }
        snprintf(at, sizeof at, "%s", above);
    }
    if (S_ISDIR(st.st_mode) && access(at, W_OK | X_OK) == 0) return true;
    return fail(err, "%s: not a folder that can be written: %s", path,
                S_ISDIR(st.st_mode) ? strerror(errno) : "it is a file");
}
