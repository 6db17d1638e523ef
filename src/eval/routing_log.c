// eval/routing_log.c - see routing_log.h.
#include "eval/routing_log.h"

#include "base/dir.h"
#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096, NUMBER_SIZE = 64, SHOWN = 40 };

struct span {
    const char *at, *end;
};

// The next of the fields that tabs part; `rest` goes behind it, to NULL after the last.
static struct span next_field(struct span *rest)
{
    const char *tab = memchr(rest->at, '\t', (size_t)(rest->end - rest->at));
    const struct span field = {rest->at, tab ? tab : rest->end};
    rest->at = tab ? tab + 1 : NULL;
    return field;
}

static int64_t count_fields(struct span s)
{
    int64_t n = 0;
    while (s.at) {
        next_field(&s);
        n++;
    }
    return n;
}

static int shown(struct span s)
{
    return s.end - s.at < SHOWN ? (int)(s.end - s.at) : SHOWN;
}

// A number of digits alone, below `limit`; -1: it is none.
static int64_t whole(struct span s, int64_t limit)
{
    int64_t value = 0;
    for (const char *p = s.at; p < s.end; p++) {
        if (*p < '0' || *p > '9') return -1;
        value = value * 10 + (*p - '0');
        if (value >= limit) return -1;
    }
    return s.at < s.end ? value : -1;
}

static bool gate(double *value, struct span s)
{
    char text[NUMBER_SIZE], *end;
    const size_t n = (size_t)(s.end - s.at);
    if (!n || n >= sizeof text) return false;
    memcpy(text, s.at, n);
    text[n] = 0;
    if (strspn(text, "0123456789+-.eE") != n) return false;
    *value = strtod(text, &end);
    return !*end && isfinite(*value) && *value >= 0;
}

static bool parse_line(struct expert_usage *u, int64_t layer, struct span line, const char *where,
                       int64_t number, struct error *err)
{
    const char *middle = memmem(line.at, (size_t)(line.end - line.at), "\t\t", 2);
    if (!middle) {
        return fail(err, "%s:%" PRId64 ": no two tabs between experts and gates: '%.*s'", where,
                    number, shown(line), line.at);
    }
    struct span ids = {line.at, middle}, gates = {middle + 2, line.end};
    const int64_t n = count_fields(ids), m = count_fields(gates);
    if (n != m) {
        return fail(err, "%s:%" PRId64 ": %" PRId64 " experts, but %" PRId64 " gates", where,
                    number, n, m);
    }
    while (ids.at) {
        const struct span id = next_field(&ids), g = next_field(&gates);
        const int64_t e = whole(id, u->experts);
        double value;
        if (e < 0) {
            return fail(err, "%s:%" PRId64 ": expert '%.*s'; 0 to %" PRId64 " expected", where,
                        number, shown(id), id.at, u->experts - 1);
        }
        if (!gate(&value, g)) {
            return fail(err, "%s:%" PRId64 ": gate '%.*s'; a number of at least 0 expected", where,
                        number, shown(g), g.at);
        }
        u->slots[layer * u->experts + e] += 1;
        u->mass[layer * u->experts + e] += value;
    }
    return true;
}

bool routing_log_parse(struct expert_usage *u, int64_t layer, const char *text, size_t size,
                       const char *where, struct error *err)
{
    const char *end = text + size;
    int64_t number = 1;
    if (!size) return fail(err, "%s: empty; a line for each sequence expected", where);
    for (const char *at = text; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        struct span line = {at, newline ? newline : end};
        at = newline ? newline + 1 : end;
        if (line.end > line.at && line.end[-1] == '\r') line.end--;
        if (!parse_line(u, layer, line, where, number, err)) return false;
    }
    return true;
}

struct reader {
    struct expert_usage *u;
    const struct model_config *c; // NULL: unknown
    int64_t files;
};

static bool read_file(struct reader *r, const char *dir, const char *name, int64_t layer,
                      struct error *err)
{
    char path[PATH_SIZE];
    struct file_map map;
    if (!path_join(path, sizeof path, dir, name, err)) return false;
    if (r->c && !r->c->moe_layer[layer]) {
        return fail(err, "%s: layer %" PRId64 " has no experts in this model", path, layer);
    }
    if (!file_map_open(&map, path, err)) return false;
    const bool ok = routing_log_parse(r->u, layer, (const char *)map.data, map.size, path, err);
    file_map_close(&map);
    r->files += ok;
    return ok;
}

// The files of a folder, and of the rank_*/ below it.
static bool read_folder(struct reader *r, const char *dir, bool ranks, struct error *err)
{
    static const char prefix[] = "expert_weights_", suffix[] = ".txt", rank[] = "rank_";
    struct dir_names names;
    char path[PATH_SIZE];
    if (!dir_list(&names, dir, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && i < names.count; i++) {
        const char *name = names.name[i], *end = strstr(name, suffix);
        if (ranks && !strncmp(name, rank, sizeof rank - 1)) {
            ok = path_join(path, sizeof path, dir, name, err) && read_folder(r, path, false, err);
        }
        if (strncmp(name, prefix, sizeof prefix - 1) != 0 || !end || end[sizeof suffix - 1])
            continue;
        const struct span number = {name + sizeof prefix - 1, end};
        const int64_t layer = whole(number, r->u->layers);
        ok = ok && (layer >= 0 ? read_file(r, dir, name, layer, err)
                               : fail(err, "%s/%s: layer '%.*s'; 0 to %" PRId64 " expected", dir,
                                      name, shown(number), number.at, r->u->layers - 1));
    }
    dir_names_free(&names);
    return ok;
}

static bool all_layers(const struct expert_usage *u, const struct model_config *c, const char *dir,
                       struct error *err)
{
    for (int64_t l = 0; c && l < u->layers; l++) {
        if (!c->moe_layer[l] || expert_usage_slots(u, l) > 0) continue;
        return fail(err, "%s: no expert_weights_%" PRId64 ".txt; one for each layer expected", dir,
                    l);
    }
    return true;
}

// Cut to the layers and experts that were named.
static bool shrink(struct expert_usage *u, struct error *err)
{
    struct expert_usage all = *u;
    int64_t layers = 0, experts = 0;
    for (int64_t i = 0; i < all.layers * all.experts; i++) {
        if (all.slots[i] <= 0) continue;
        layers = i / all.experts + 1;
        if (i % all.experts >= experts) experts = i % all.experts + 1;
    }
    const bool ok = expert_usage_open(u, layers, experts, err);
    for (int64_t l = 0; ok && l < layers; l++) {
        const size_t bytes = (size_t)experts * sizeof *u->slots;
        memcpy(u->slots + l * experts, all.slots + l * all.experts, bytes);
        memcpy(u->mass + l * experts, all.mass + l * all.experts, bytes);
    }
    expert_usage_close(&all);
    return ok;
}

bool routing_log_read(struct expert_usage *u, const char *dir, const struct model_config *c,
                      struct error *err)
{
    struct reader r = {u, c, 0};
    if (!expert_usage_open(u, c ? c->n_layers : MAX_LAYERS, c ? c->n_experts : MAX_EXPERTS, err)) {
        return false;
    }
    bool ok = read_folder(&r, dir, true, err) && all_layers(u, c, dir, err);
    if (ok && !r.files) {
        ok = fail(err, "%s: no expert_weights_LAYER.txt in it or in rank_*/ below it", dir);
    }
    ok = ok && (c || shrink(u, err));
    if (!ok) expert_usage_close(u);
    return ok;
}
