// io/folders.c - see folders.h. A kind is known by a file that nothing else holds (docs/FORMATS.md).
#include "io/folders.h"

#include "base/dir.h"
#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

// Also where it cannot be known: who opens the file then says why.
static bool holds(const char *dir, const char *name)
{
    char path[4096];
    return path_join(path, sizeof path, dir, name, NULL) && file_exists(path);
}

static bool is_empty(const char *dir)
{
    struct dir_names names;
    if (!dir_list(&names, dir, NULL)) return false;
    const bool empty = names.count == 0;
    dir_names_free(&names);
    return empty;
}

static bool fail_run(const char *dir, struct error *err)
{
    if (holds(dir, "model/config.json")) {
        return fail(err, "%s: the folder of a run; its model is %s/model", dir, dir);
    }
    if (holds(dir, "adapter")) {
        return fail(err,
                    "%s: the folder of a run; it left an adapter, %s/adapter, for the model that "
                    "it was trained on",
                    dir, dir);
    }
    return fail(err, "%s: the folder of a run that has left no model yet", dir);
}

// What neither a model nor an adapter can be; else true.
static bool check_kind(const char *dir, struct error *err)
{
    struct stat st;
    if (stat(dir, &st) != 0) {
        return fail(err, "%s: %s", dir, errno == ENOENT ? "no such folder" : strerror(errno));
    }
    if (!S_ISDIR(st.st_mode)) return fail(err, "%s: a file, where a folder is needed", dir);
    if (is_empty(dir)) return fail(err, "%s: an empty folder", dir);
    if (holds(dir, "manifest.json") && holds(dir, "state.json")) {
        return fail(err,
                    "%s: a checkpoint, from which train --resume goes on; the end of a run leaves "
                    "a model or an adapter",
                    dir);
    }
    return !holds(dir, "run.json") || fail_run(dir, err);
}

bool folder_is_no_model(const char *dir, bool adapter, struct error *err)
{
    if (!check_kind(dir, err)) return false;
    if (adapter) {
        return fail(err, "%s: an adapter, which needs its base: --model BASE --adapter %s", dir,
                    dir);
    }
    if (holds(dir, "snapshots")) {
        return fail(err, "%s: of a download cache; the model is in %s/snapshots/REVISION", dir,
                    dir);
    }
    if (holds(dir, "model/config.json")) {
        return fail(err, "%s: no config.json; there is one in %s/model", dir, dir);
    }
    return fail(err, "%s: no config.json, so not the folder of a model", dir);
}

bool folder_is_no_adapter(const char *dir, struct error *err)
{
    if (!check_kind(dir, err)) return false;
    if (holds(dir, "config.json")) return fail(err, "%s: a model, not an adapter", dir);
    return fail(err, "%s: no adapter that is known here", dir);
}

bool is_weights_file(const char *name)
{
    const size_t n = strlen(name);
    return !strcmp(name, "model.safetensors.index.json") ||
           (!strncmp(name, "model", 5) && n > 12 && !strcmp(name + n - 12, ".safetensors"));
}

bool is_model_file(const char *name)
{
    return !strcmp(name, "config.json") || is_weights_file(name);
}

bool folder_has_no_model(const char *dir, struct error *err)
{
    struct dir_names n;
    bool ok = true;
    if (!file_exists(dir)) return true;
    if (!dir_list(&n, dir, err)) return false;
    for (int64_t i = 0; ok && i < n.count; i++) {
        if (!is_model_file(n.name[i])) continue;
        ok = fail(err, "%s: holds a model (%s); --overwrite replaces it", dir, n.name[i]);
    }
    dir_names_free(&n);
    return ok;
}
