// train/changes.c - which weights moved, and how far: changes.json (outcome.h).
#include "train/outcome.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include "train/trainer.h"

#include <math.h>
#include <string.h>

enum { PIECE = 4096 }; // elements converted at a time

struct sums {
    double difference, norm; // squares
    int64_t tensors, parameters;
};

struct group { // all matrices of a module in a layer
    char name[NAME_MAX_LENGTH];
    int64_t layer;
    struct sums sums;
};

struct changes {
    const struct model *m;
    struct group *group;
    int64_t count, capacity;
    struct sums *expert; // (L,E)
    struct sums all;
};

static void add(struct sums *to, const struct sums *s)
{
    to->difference += s->difference;
    to->norm += s->norm;
    to->tensors += s->tensors;
    to->parameters += s->parameters;
}

static void measure(struct sums *s, const float *values, struct tensor stored)
{
    float piece[PIECE];
    const int64_t n = tensor_count(stored);
    const size_t size = dtype_size(stored.dtype);
    *s = (struct sums){.tensors = 1, .parameters = n};
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t count = n - at < PIECE ? n - at : PIECE;
        dtype_convert(piece, DTYPE_F32, (const char *)stored.data + (size_t)at * size, stored.dtype,
                      count);
        for (int64_t i = 0; i < count; i++) {
            const double was = (double)piece[i], d = (double)values[at + i] - was;
            s->difference += d * d;
            s->norm += was * was;
        }
    }
}

static struct group *group_of(struct changes *c, const struct weight *w, struct error *err)
{
    char name[NAME_MAX_LENGTH];
    plan_module_name(name, w->name);
    for (int64_t i = c->count - 1; i >= 0; i--) { // neighbours come together
        if (c->group[i].layer == w->layer && !strcmp(c->group[i].name, name)) return &c->group[i];
    }
    struct group *grown = array_grow(c->group, c->count, &c->capacity, sizeof *grown);
    if (!grown) {
        fail(err, "no memory for what changed");
        return NULL;
    }
    c->group = grown;
    struct group *g = &c->group[c->count++];
    *g = (struct group){.layer = w->layer};
    memcpy(g->name, name, sizeof name);
    return g;
}

static bool add_weight(struct changes *c, const struct weight *w, struct error *err)
{
    struct sums s;
    const int64_t n = tensor_count(w->stored);
    struct group *g = group_of(c, w, err);
    if (!g) return false;
    float *values = mem_alloc((size_t)n * sizeof *values);
    if (!values) return fail(err, "%s: no memory for %lld values", w->name, (long long)n);
    const bool ok = model_weight_values(c->m, w, values, err);
    if (ok) {
        measure(&s, values, w->stored);
        add(&g->sums, &s);
        add(&c->all, &s);
        if (w->layer >= 0 && w->expert >= 0) {
            add(&c->expert[w->layer * c->m->config.n_experts + w->expert], &s);
        }
    }
    mem_free(values);
    return ok;
}

static void set_change(json_t *o, const struct sums *s)
{
    json_object_set_new(o, "parameters", json_integer(s->parameters));
    json_object_set_new(o, "difference", json_real(sqrt(s->difference)));
    json_object_set_new(o, "norm", json_real(sqrt(s->norm)));
    if (s->norm > 0) json_object_set_new(o, "change", json_real(sqrt(s->difference / s->norm)));
}

static json_t *experts_json(const struct changes *c)
{
    const struct model_config *config = &c->m->config;
    json_t *all = json_array();
    for (int64_t l = 0; l < config->n_layers; l++) {
        json_t *of = json_array();
        bool any = false;
        for (int64_t e = 0; e < config->n_experts; e++) {
            const struct sums *s = &c->expert[l * config->n_experts + e];
            any |= s->parameters > 0;
            json_array_append_new(of, json_real(s->norm > 0 ? sqrt(s->difference / s->norm) : 0));
        }
        json_t *layer = any ? json_object() : NULL;
        if (layer) {
            json_object_set_new(layer, "layer", json_integer(l));
            json_object_set(layer, "change", of);
            json_array_append_new(all, layer);
        }
        json_decref(of);
    }
    return all;
}

static bool write(const struct changes *c, const char *path, struct error *err)
{
    json_t *o = json_object(), *modules = json_array();
    json_object_set_new(o, "base", json_string(c->m->setup.dir));
    set_change(o, &c->all);
    for (int64_t i = 0; i < c->count; i++) {
        const struct group *g = &c->group[i];
        json_t *of = json_object();
        json_object_set_new(of, "name", json_string(g->name));
        if (g->layer >= 0) json_object_set_new(of, "layer", json_integer(g->layer));
        json_object_set_new(of, "tensors", json_integer(g->sums.tensors));
        set_change(of, &g->sums);
        json_array_append_new(modules, of);
    }
    json_object_set_new(o, "modules", modules);
    json_object_set_new(o, "experts", experts_json(c));
    const bool ok = json_write_file(path, o, err);
    json_decref(o);
    return ok;
}

bool changes_write(const struct model *m, const char *out, struct error *err)
{
    char path[4096];
    struct changes c = {.m = m};
    const size_t experts = (size_t)(m->config.n_layers * m->config.n_experts);
    bool ok = path_join(path, sizeof path, out, "changes.json", err);
    c.expert = mem_zalloc(experts ? experts : 1, sizeof *c.expert);
    if (!c.expert) ok = fail(err, "no memory for what changed");
    for (int64_t i = 0; ok && i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        if (model_weight_changed(m, w)) ok = add_weight(&c, w, err);
    }
    ok = ok && write(&c, path, err);
    mem_free(c.group);
    mem_free(c.expert);
    return ok;
}
