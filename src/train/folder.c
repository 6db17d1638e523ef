// train/folder.c - see folder.h.
#include "train/folder.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "train/train.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };

// What a run makes, besides checkpoint-N. The first is what tells a run's folder from another.
static const char *const made[] = {
    "run.json",
    "metrics.jsonl",
    "model",
    "adapter",
    "moe_bias_states.json",
    "forced_experts_records.json",
    "report.html",
    "expert_cfg.json",
    "smt_selection.json",
    "warmed-up",
    "plan.json",
    "changes.json",
    "result.json",
    "samples.json",
    "tensorboard",
};
enum { MADE = sizeof made / sizeof *made };

// checkpoint-N, N without leading zeros; 0: not one.
static int64_t checkpoint_step(const char *name)
{
    static const char prefix[] = "checkpoint-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return 0;
    const char *digits = name + sizeof prefix - 1;
    const size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 18 || digits[n] || *digits == '0') return 0;
    int64_t step = 0;
    for (const char *p = digits; *p; p++) {
        step = step * 10 + (*p - '0');
    }
    return step;
}

static bool is_made(const char *name)
{
    for (int i = 0; i < MADE; i++) {
        if (!strcmp(made[i], name)) return true;
    }
    return checkpoint_step(name) > 0;
}

// NAME.tmp or NAME.old.tmp of something that a run makes.
static bool is_left_over(const char *name)
{
    char base[256];
    snprintf(base, sizeof base, "%s", name);
    char *suffix = strrchr(base, '.');
    if (!suffix || strcmp(suffix, ".tmp") != 0) return false;
    *suffix = 0;
    suffix = strrchr(base, '.');
    if (suffix && !strcmp(suffix, ".old")) *suffix = 0;
    return is_made(base);
}

static bool holds_run(const char *out, char found[256], bool *holds, struct error *err)
{
    struct dir_names names;
    *holds = false;
    if (!file_exists(out)) return true;
    if (!dir_list(&names, out, err)) return false;
    for (int64_t i = 0; i < names.count && !*holds; i++) {
        *holds = !strcmp(names.name[i], made[0]) || checkpoint_step(names.name[i]) > 0;
        if (*holds) snprintf(found, 256, "%s", names.name[i]);
    }
    dir_names_free(&names);
    return true;
}

static bool in_use(const char *out, struct error *err)
{
    int lock;
    char path[PATH_SIZE];
    if (!path_join(path, sizeof path, out, ".lock", err)) return true;
    if (!file_exists(path)) return false; // asking must not create it
    if (!dir_lock(&lock, out, err)) return true;
    dir_unlock(&lock);
    return false;
}

static bool is_free(const char *out, bool resume, bool overwrite, struct error *err)
{
    bool holds = false;
    char found[256] = "";
    if (resume && overwrite) return fail(err, "resume and overwrite exclude each other");
    if (!dir_writable(out, err)) return false;
    if (!holds_run(out, found, &holds, err)) return false;
    if (!holds || resume || overwrite) return true;
    return fail(err,
                "%s: holds a run already (%s); --resume goes on with it, --overwrite removes it",
                out, found);
}

bool run_folder_check(const char *out, bool resume, bool overwrite, struct error *err)
{
    return is_free(out, resume, overwrite, err) && !in_use(out, err);
}

// A base model where the run writes would be removed or replaced under its feet.
static bool check_apart(const char *out, const char *model_dir, struct error *err)
{
    char *o = realpath(out, NULL), *m = realpath(model_dir, NULL); // our own free: not from mem.h
    bool ok = true;
    const size_t n = o ? strlen(o) : 0;
    if (o && m && !strncmp(o, m, n) && (m[n] == '/' || m[n] == 0)) {
        char first[NAME_MAX + 1] = "";
        sscanf(m + n, "/%255[^/]", first);
        if (!m[n] || is_made(first) || is_left_over(first)) {
            ok = fail(err, "%s: the model to train lies where the run would write (%s)", model_dir,
                      out);
        }
    }
    free(o);
    free(m);
    return ok;
}

bool folder_lock(int *lock, const char *out, const char *model_dir, bool resume, bool overwrite,
                 struct error *err)
{
    *lock = -1;
    if (!is_free(out, resume, overwrite, err) || !check_apart(out, model_dir, err)) return false;
    if (!dir_make(out, err) || !dir_lock(lock, out, err)) return false;
    if (is_free(out, resume, overwrite, err)) return true; // nobody was faster
    dir_unlock(lock);
    return false;
}

static int newest_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

bool folder_checkpoints(int64_t **step, int64_t *count, const char *out, struct error *err)
{
    struct dir_names names;
    *step = NULL;
    *count = 0;
    if (!file_exists(out)) return true;
    if (!dir_list(&names, out, err)) return false;
    *step = mem_zalloc((size_t)names.count, sizeof **step);
    for (int64_t i = 0; *step && i < names.count; i++) {
        const int64_t s = checkpoint_step(names.name[i]);
        if (s > 0) (*step)[(*count)++] = s;
    }
    dir_names_free(&names);
    if (!*step) return fail(err, "%s: no memory for its checkpoints", out);
    if (*count) qsort(*step, (size_t)*count, sizeof **step, newest_first);
    return true;
}

bool folder_checkpoint_path(char *path, size_t size, const char *out, int64_t step,
                            struct error *err)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%" PRId64, step);
    return path_join(path, size, out, name, err);
}

// The newest first: what a kill leaves of them is a run that was killed earlier, its best checkpoint included.
static bool clear_checkpoints(const char *out, struct error *err)
{
    char path[PATH_SIZE];
    int64_t *step, count;
    if (!folder_checkpoints(&step, &count, out, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < count; i++) {
        ok = folder_checkpoint_path(path, sizeof path, out, step[i], err) && dir_discard(path, err);
    }
    mem_free(step);
    return ok;
}

bool folder_clear(const char *out, bool everything, struct error *err)
{
    struct dir_names names;
    if (everything && !clear_checkpoints(out, err)) return false;
    if (!dir_list(&names, out, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < names.count; i++) {
        char path[PATH_SIZE];
        const char *name = names.name[i];
        const bool left_over = is_left_over(name);
        if (!left_over && !(everything && is_made(name))) continue;
        ok = path_join(path, sizeof path, out, name, err) &&
             (left_over ? dir_remove : dir_discard)(path, err);
    }
    dir_names_free(&names);
    return ok;
}

bool folder_prune(const char *out, int64_t step, int64_t keep, int64_t best, struct error *err)
{
    char path[PATH_SIZE];
    int64_t *found, count, kept = 0;
    if (!folder_checkpoints(&found, &count, out, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < count; i++) {
        // Later ones did not verify when the run was resumed; they give way when their step comes.
        if (found[i] > step || kept++ < keep || found[i] == best) continue;
        ok =
            folder_checkpoint_path(path, sizeof path, out, found[i], err) && dir_discard(path, err);
    }
    mem_free(found);
    return ok;
}
