// routing/describe.c - routing.json: which routing a state belongs to, and the options that change what a
// forward pass computes with it.
#include "base/file.h"
#include "routing/routing.h"

#include <stdio.h>
#include <string.h>

enum { FILE_LIMIT = 1 << 20 };

const char *const bias_in_names[] = {"default", "selection", "logits", NULL};
const char *const condenser_preset_names[] = {"paper", "released", NULL};
const char *const condenser_gate_names[] = {"router", "sigmoid", "softmax", "one", NULL};

const struct routing_stated stated_bias_in = {"bias_in", offsetof(struct routing_options, bias_in),
                                              bias_in_names};
const struct routing_stated stated_condenser_preset = {
    "condenser_preset", offsetof(struct routing_options, condenser_preset), condenser_preset_names};
const struct routing_stated stated_condenser_gate = {
    "condenser_gate", offsetof(struct routing_options, condenser_gate), condenser_gate_names};

bool routing_options_source(struct routing_options *r, const char *adapter, const char *dir,
                            const struct checkpoint *c, struct error *err)
{
    if (adapter && !routing_source_find(&r->source, adapter, NULL, err)) return false;
    if ((!adapter || !(r->source.bias || r->source.experts)) &&
        !routing_source_find(&r->source, dir, c, err)) {
        return false;
    }
    if (r->bias_file) r->source.bias = false;
    if (r->bias_file || r->condenser_experts) r->source.experts = false;
    return true;
}

static int *field_of(struct routing_options *o, const struct routing_stated *s)
{
    return (int *)(void *)((char *)o + s->field);
}

bool routing_describe(const struct routing *r, const struct routing_options *o, const char *dir,
                      struct error *err)
{
    char path[SOURCE_PATH];
    struct routing_options values = *o;
    if (!path_join(path, sizeof path, dir, routing_json_name, err)) return false;
    json_t *all = json_object();
    bool built = json_object_set_new(all, "routing", json_string(r->name)) == 0;
    for (const struct routing_stated *const *s = r->stated; s && *s; s++) {
        const char *value = (*s)->choices[*field_of(&values, *s)];
        built &= json_object_set_new(all, (*s)->name, json_string(value)) == 0;
    }
    const bool ok = built ? json_write_file(path, all, err) : fail(err, "%s: no memory", path);
    json_decref(all);
    return ok;
}

static bool read_stated(struct routing_options *o, const struct routing_stated *s,
                        const json_t *file, const char *path, struct error *err)
{
    const char *text = NULL;
    if (!json_get_text(file, s->name, true, &text, path, err)) return false;
    for (int i = 0; s->choices[i]; i++) {
        if (!strcmp(s->choices[i], text)) {
            *field_of(o, s) = i;
            return true;
        }
    }
    char all[128] = "";
    for (int i = 0; s->choices[i]; i++) {
        const size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", s->choices[i]);
    }
    return fail(err, "%s: %s: found '%.60s', expected one of: %s", path, s->name, text, all);
}

static bool is_stated(const struct routing *r, const char *name)
{
    for (const struct routing_stated *const *s = r->stated; s && *s; s++) {
        if (!strcmp((*s)->name, name)) return true;
    }
    return !strcmp(name, "routing");
}

static bool read_description(const struct routing **out, struct routing_options *o, json_t *file,
                             const char *path, struct error *err)
{
    const char *name = NULL, *key;
    json_t *value;
    if (!json_is_object(file)) return fail(err, "%s: not an object", path);
    if (!json_get_text(file, "routing", true, &name, path, err)) return false;
    const struct routing *r = routing_find(name, err);
    if (!r) return fail_in(err, "%s", path);
    json_object_foreach(file, key, value)
    {
        if (!is_stated(r, key)) {
            return fail(err, "%s: '%.60s' is no option that %s has there", path, key, r->name);
        }
    }
    for (const struct routing_stated *const *s = r->stated; s && *s; s++) {
        if (!read_stated(o, *s, file, path, err)) return false;
    }
    *out = r;
    return true;
}

bool routing_described(const struct routing **out, struct routing_options *o, bool *described,
                       const struct routing_source *s, struct error *err)
{
    char path[SOURCE_PATH];
    *out = NULL;
    if (!path_join(path, sizeof path, s->dir, routing_json_name, err)) return false;
    if (!file_look(described, path, err)) return false;
    if (*described) {
        json_t *file = json_parse_file(path, FILE_LIMIT, err);
        const bool ok = file && read_description(out, o, file, path, err);
        json_decref(file);
        return ok;
    }
    for (int i = 0; routings[i] && !*out; i++) {
        if (routings[i]->recognises && routings[i]->recognises(s, o)) *out = routings[i];
    }
    return true;
}
