// cli/experts_files.c - what `experts` found, as lines of JSON and as CSV (docs/FORMATS.md).
#include "cli/experts.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <math.h>

static json_t *real_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *ids(const int32_t *expert, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(expert[i]));
    }
    return list;
}

static json_t *reals(const double *x, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) {
        json_array_append_new(list, json_real(x[i]));
    }
    return list;
}

static const char *cover_name(int i)
{
    static const char *const names[COVER_COUNT] = {"50", "80", "95"};
    return names[i];
}

static json_t *load_json(const struct layer_load *l, int64_t E)
{
    const struct concentration *c = &l->c;
    const int64_t last = c->cover[COVER_COUNT - 1];
    json_t *out = json_object(), *super = json_object();
    json_object_set_new(out, "share", reals(l->share, E));
    json_object_set_new(out, "gini", json_real(c->gini));
    json_object_set_new(out, "entropy", json_real(c->entropy));
    json_object_set_new(out, "effective", json_real(c->effective));
    json_object_set_new(out, "unused", json_integer((json_int_t)c->unused));
    for (int i = 0; i < COVER_COUNT; i++) {
        json_object_set_new(super, cover_name(i), ids(l->order, c->cover[i]));
    }
    json_object_set_new(out, "super", super);
    json_object_set_new(out, "tail", ids(l->order + last, E - last));
    return out;
}

// The scores by which ESFT chooses, 4 decimals; and what the load is like.
static void add_load(json_t *line, const struct experts_result *x, int64_t layer, int score,
                     struct layer_load *l)
{
    const struct expert_usage *u = &x->usage;
    const double *use = (score == ESFT_GATE ? u->mass : u->slots) + layer * u->experts;
    if (!esft_scores(l->share, use, u->experts)) return;
    json_object_set_new(line, score == ESFT_GATE ? "gate" : "token", reals(l->share, u->experts));
    layer_load_of(l, x, layer, score);
    json_object_set_new(line, score == ESFT_GATE ? "by_gate" : "by_token",
                        load_json(l, u->experts));
}

static json_t *layer_json(const struct experts_result *x, int64_t layer, struct layer_load *load)
{
    const struct esft_selection *s = &x->selection;
    json_t *line = json_object();
    json_object_set_new(line, "layer", json_integer(layer));
    json_object_set_new(line, "slots",
                        json_integer((json_int_t)expert_usage_slots(&x->usage, layer)));
    add_load(line, x, layer, ESFT_TOKEN, load);
    add_load(line, x, layer, ESFT_GATE, load);
    for (const struct layer_value *v = layer_values; v->name; v++) {
        const double value = v->get(x, layer);
        if (isfinite(value)) json_object_set_new(line, v->name, json_real(value));
    }
    if (s->layers) {
        json_object_set_new(line, "chosen", ids(s->expert + layer * s->experts, s->count[layer]));
    }
    return line;
}

static json_t *point_json(const struct prune_point *p)
{
    json_t *line = json_object();
    json_object_set_new(line, "prune", json_string(prune_order_names[p->order]));
    json_object_set_new(line, "percent", json_real(p->percent));
    json_object_set_new(line, "dropped", json_integer((json_int_t)p->dropped));
    json_object_set_new(line, "loss", real_or_null(p->loss));
    json_object_set_new(line, "accuracy", json_real(p->accuracy));
    json_object_set_new(line, "tokens", json_integer((json_int_t)p->tokens));
    return line;
}

bool experts_json(const struct experts_result *x, struct output *io, struct error *err)
{
    struct layer_load load;
    if (!layer_load_open(&load, x->usage.experts, err)) return false;
    bool ok = true;
    for (int64_t l = 0; ok && l < x->usage.layers; l++) {
        if (experts_in(x, l)) ok = output_json(io, layer_json(x, l, &load), err);
    }
    for (int64_t i = 0; ok && i < x->n_points; i++) {
        ok = output_json(io, point_json(&x->point[i]), err);
    }
    layer_load_close(&load);
    return ok;
}

// A row: kind, layer, expert, percent, name, value; what does not apply is empty, and so is what is not a number.
struct csv {
    struct buf text;
    bool failed;
};

static void put_row(struct csv *c, const char *kind, int64_t layer, int64_t expert,
                    const char *percent, const char *name, double value)
{
    char l[24] = "", e[24] = "", v[48] = "";
    if (layer >= 0) snprintf(l, sizeof l, "%" PRId64, layer);
    if (expert >= 0) snprintf(e, sizeof e, "%" PRId64, expert);
    if (isfinite(value)) snprintf(v, sizeof v, "%.9g", value);
    if (!buf_printf(&c->text, "%s,%s,%s,%s,%s,%s\n", kind, l, e, percent, name, v))
        c->failed = true;
}

static void put_load(struct csv *c, const struct experts_result *x, int64_t layer, int score,
                     struct layer_load *l)
{
    const char *by = score == ESFT_GATE ? "gate" : "token";
    char name[64];
    layer_load_of(l, x, layer, score);
    if (!l->c.any) return;
    for (int64_t e = 0; e < x->usage.experts; e++) {
        snprintf(name, sizeof name, "%s_share", by);
        put_row(c, "expert", layer, e, "", name, l->share[e]);
    }
    const struct {
        const char *name;
        double value;
    } values[] = {{"gini", l->c.gini},
                  {"entropy", l->c.entropy},
                  {"effective", l->c.effective},
                  {"unused", (double)l->c.unused}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        snprintf(name, sizeof name, "%s_%s", by, values[i].name);
        put_row(c, "layer", layer, -1, "", name, values[i].value);
    }
    for (int i = 0; i < COVER_COUNT; i++) {
        snprintf(name, sizeof name, "%s_cover%s", by, cover_name(i));
        put_row(c, "layer", layer, -1, "", name, (double)l->c.cover[i]);
    }
}

static void put_point(struct csv *c, const struct prune_point *p)
{
    char kind[32], percent[32];
    snprintf(kind, sizeof kind, "prune-%s", prune_order_names[p->order]);
    snprintf(percent, sizeof percent, "%.9g", p->percent);
    put_row(c, kind, -1, -1, percent, "dropped", (double)p->dropped);
    put_row(c, kind, -1, -1, percent, "loss", p->loss);
    put_row(c, kind, -1, -1, percent, "accuracy", p->accuracy);
}

bool experts_csv(const struct experts_result *x, const char *path, struct error *err)
{
    struct layer_load load;
    struct csv c = {0};
    if (!layer_load_open(&load, x->usage.experts, err)) return false;
    c.failed = !buf_puts(&c.text, "kind,layer,expert,percent,name,value\n");
    for (int64_t l = 0; l < x->usage.layers; l++) {
        if (!experts_in(x, l)) continue;
        put_load(&c, x, l, ESFT_TOKEN, &load);
        put_load(&c, x, l, ESFT_GATE, &load);
        for (const struct layer_value *v = layer_values; v->name; v++) {
            const double value = v->get(x, l);
            if (isfinite(value)) put_row(&c, "layer", l, -1, "", v->name, value);
        }
    }
    for (int64_t i = 0; i < x->n_points; i++) {
        put_point(&c, &x->point[i]);
    }
    layer_load_close(&load);
    const bool ok = !c.failed || fail(err, "%s: no memory for the rows", path);
    const bool written = ok && file_write(path, c.text.data, c.text.size, err);
    buf_free(&c.text);
    return written;
}
