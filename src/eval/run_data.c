// eval/run_data.c - see run_data.h.
#include "eval/run_data.h"

#include "base/dir.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_SIZE = 4200, FILE_LIMIT = 64 << 20, EVAL_LIMIT = 1 << 20, EVALS_AT_MOST = 50 };

double json_number_at(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

const char *json_text_at(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void note(struct run_data *r, const char *words)
{
    json_array_append_new(r->notes, json_string(words));
}

static void read_object(struct run_data *r, json_t **out, const char *name)
{
    char path[PATH_SIZE];
    struct error err;
    json_decref(*out);
    *out = NULL;
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    if (!file_exists(path)) return;
    json_t *o = json_parse_file(path, FILE_LIMIT, &err);
    if (o && !json_is_object(o)) {
        json_decref(o);
        o = NULL;
        fail(&err, "%s: not an object", path);
    }
    if (!o) note(r, err.msg);
    *out = o;
}

static bool is_there(const struct run_data *r, const char *name)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    return file_exists(path);
}

static enum run_state state_of(const struct run_data *r)
{
    const char *outcome = json_text_at(r->result, "outcome");
    if (outcome) {
        return !strcmp(outcome, "done")      ? RUN_DONE
               : !strcmp(outcome, "early")   ? RUN_EARLY
               : !strcmp(outcome, "stopped") ? RUN_STOPPED
                                             : RUN_FAILED;
    }
    if (dir_locked(r->dir)) return RUN_GOES_ON;
    // Runs of earlier versions say nothing, but have their result.
    return is_there(r, "model") || is_there(r, "adapter") ? RUN_DONE : RUN_LOST;
}

static bool is_blank(const char *line, size_t n)
{
    return strspn(line, " \t\r\n") >= n;
}

// Objects, one a line, as eval --json prints them; or one over several lines. The first line that is none is said.
static void read_eval(struct run_data *r, const char *name)
{
    char path[PATH_SIZE];
    char *text;
    size_t size;
    struct error err;
    bool said = false;
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    if (!file_read(&text, &size, path, EVAL_LIMIT, &err)) {
        note(r, err.msg);
        return;
    }
    json_t *whole = json_parse(text, size, path, &err);
    if (json_is_object(whole)) json_array_append_new(r->evals, json_pack("[sO]", name, whole));
    for (char *line = text; !whole && line && json_array_size(r->evals) < EVALS_AT_MOST;) {
        char *end = strchr(line, '\n');
        const size_t n = end ? (size_t)(end - line) : strlen(line);
        json_t *o = json_parse(line, n, path, &err);
        if (!o && !is_blank(line, n) && !said) {
            note(r, err.msg);
            said = true;
        }
        if (json_is_object(o)) json_array_append_new(r->evals, json_pack("[sO]", name, o));
        json_decref(o);
        line = end ? end + 1 : NULL;
    }
    json_decref(whole);
    mem_free(text);
}

static void read_evals(struct run_data *r)
{
    struct dir_names names;
    struct error err;
    if (!dir_list(&names, r->dir, &err)) {
        note(r, err.msg);
        return;
    }
    for (int64_t i = 0; i < names.count; i++) {
        const char *name = names.name[i], *dot = strrchr(name, '.');
        if (strncmp(name, "eval", 4) != 0 || !dot) continue;
        if (!strcmp(dot, ".json") || !strcmp(dot, ".jsonl")) read_eval(r, name);
    }
    dir_names_free(&names);
}

bool run_data_read(struct run_data *r, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct error why;
    const int n = snprintf(r->dir, sizeof r->dir, "%s", dir);
    if (n < 0 || (size_t)n >= sizeof r->dir) return fail(err, "%s: path too long", dir);
    if (!is_there(r, "run.json") && !is_there(r, "metrics.jsonl")) {
        return fail(err, "%s: holds no run: run.json or metrics.jsonl expected", dir);
    }
    json_decref(r->notes);
    json_decref(r->evals);
    r->notes = json_array();
    r->evals = json_array();
    if (!r->notes || !r->evals) return fail(err, "%s: no memory", dir);
    // The result first: a run that ends meanwhile has all its steps by then.
    read_object(r, &r->result, "result.json");
    r->state = state_of(r);
    read_object(r, &r->options, "run.json");
    read_object(r, &r->plan, "plan.json");
    read_object(r, &r->changes, "changes.json");
    read_object(r, &r->samples, "samples.json");
    read_evals(r);
    snprintf(path, sizeof path, "%s/metrics.jsonl", r->dir);
    if (!run_metrics_read(&r->metrics, path, &why)) note(r, why.msg);
    return json_whole() || fail(err, "%s: no memory for what the run says", dir);
}

void run_data_free(struct run_data *r)
{
    json_t *const all[] = {r->options, r->plan,  r->result, r->changes,
                           r->samples, r->evals, r->notes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_decref(all[i]);
    }
    run_metrics_free(&r->metrics);
    *r = (struct run_data){0};
}
