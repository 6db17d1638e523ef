// results/study.c - see study.h.
#include "study.h"

#include "base/file.h"

#include <math.h>
#include <string.h>

static bool read_file(json_t **out, const char *dir, const char *name, struct error *err)
{
    char path[4096];
    if (!path_join(path, sizeof path, dir, name, err)) return false;
    *out = file_exists(path) ? lines_read(path, err) : json_array();
    return *out != NULL;
}

// The catalogue's order is that of the shares.
static void sort_kinds(json_t *kinds)
{
    const size_t n = json_array_size(kinds);
    for (size_t i = 0; i < n; i++) {
        size_t best = i;
        for (size_t k = i + 1; k < n; k++) {
            const double a = number_of(json_array_get(kinds, k), "share");
            if (a > number_of(json_array_get(kinds, best), "share")) best = k;
        }
        json_t *chosen = json_incref(json_array_get(kinds, best));
        json_array_remove(kinds, best);
        json_array_insert_new(kinds, i, chosen);
    }
}

bool study_open(struct study *s, const char *dir, struct error *err)
{
    *s = (struct study){.kinds = json_array()};
    const bool ok = read_file(&s->base, dir, "base.jsonl", err) &&
                    read_file(&s->search, dir, "search.jsonl", err) &&
                    read_file(&s->runs, dir, "runs.jsonl", err) &&
                    read_file(&s->sweep, dir, "sweep.jsonl", err) &&
                    read_file(&s->time, dir, "time.jsonl", err);
    json_t *line;
    size_t i;
    json_array_foreach(s->base, i, line)
    {
        if (strcmp(text_of(line, "what"), "kind") == 0 &&
            strcmp(text_of(line, "model"), "model") == 0) {
            json_array_append(s->kinds, line);
        }
    }
    if (ok) sort_kinds(s->kinds);
    if (ok && json_array_size(s->kinds) > MOST_KINDS) {
        return fail(err, "base.jsonl: %zu kinds of text, at most %d expected",
                    json_array_size(s->kinds), MOST_KINDS);
    }
    return ok;
}

void study_close(struct study *s)
{
    json_decref(s->base);
    json_decref(s->search);
    json_decref(s->runs);
    json_decref(s->sweep);
    json_decref(s->time);
    json_decref(s->kinds);
    *s = (struct study){0};
}

// How much more a run loses than the base on a range of kinds; the mean.
static double forgotten(const struct study *s, const json_t *line, int64_t first, int64_t last)
{
    const json_t *now = json_object_get(line, "kinds");
    double sum = 0;
    for (int64_t k = first; k < last; k++) {
        const json_t *kind = json_array_get(s->kinds, (size_t)k);
        sum += number_of(now, text_of(kind, "kind")) - number_of(kind, "loss");
    }
    return sum / (double)(last - first);
}

double figure_of(const struct study *s, const json_t *line, const struct figure *f)
{
    return f->scale * (f->key ? number_of(line, f->key) : forgotten(s, line, f->first, f->last));
}

void sample_of(struct sample *out, const struct study *s, const json_t *from, const char *task,
               const char *method, double rank, const struct figure *f)
{
    json_t *line;
    size_t i;
    out->n = 0;
    json_array_foreach(from, i, line)
    {
        const double value = figure_of(s, line, f);
        if (strcmp(text_of(line, "task"), task) != 0 ||
            strcmp(text_of(line, "method"), method) != 0 ||
            (rank >= 0 && fabs(number_of(line, "rank") - rank) > 0.5) || !isfinite(value) ||
            out->n == MOST_SEEDS) {
            continue;
        }
        out->value[out->n] = value;
        out->seed[out->n++] = number_of(line, "seed");
    }
}

void sample_minus(struct sample *out, const struct sample *a, const struct sample *b)
{
    out->n = 0;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t k = 0; k < b->n; k++) {
            if (fabs(a->seed[i] - b->seed[k]) > 0.5) continue;
            out->value[out->n] = a->value[i] - b->value[k];
            out->seed[out->n++] = a->seed[i];
            break;
        }
    }
}

double sample_mean(const struct sample *x)
{
    double sum = 0;
    for (int64_t i = 0; i < x->n; i++) {
        sum += x->value[i];
    }
    return x->n ? sum / (double)x->n : (double)NAN;
}

double sample_error(const struct sample *x)
{
    if (x->n < 2) return (double)NAN;
    const double mean = sample_mean(x);
    double squares = 0;
    for (int64_t i = 0; i < x->n; i++) {
        squares += (x->value[i] - mean) * (x->value[i] - mean);
    }
    return sqrt(squares / (double)(x->n - 1) / (double)x->n);
}

int64_t names_in(const char **out, int64_t most, const json_t *from, const char *key)
{
    int64_t n = 0;
    json_t *line;
    size_t i;
    json_array_foreach(from, i, line)
    {
        const char *name = text_of(line, key);
        bool known = !*name;
        for (int64_t k = 0; k < n; k++) {
            known |= strcmp(out[k], name) == 0;
        }
        if (!known && n < most) out[n++] = name;
    }
    return n;
}

const json_t *base_on(const struct study *s, const char *task)
{
    json_t *line;
    size_t i;
    json_array_foreach(s->base, i, line)
    {
        if (strcmp(text_of(line, "what"), "task") == 0 &&
            strcmp(text_of(line, "task"), task) == 0) {
            return line;
        }
    }
    return NULL;
}

static const json_t *layer_of(const json_t *line, size_t layer)
{
    return json_array_get(json_object_get(line, "use"), layer);
}

double use_of(const json_t *line, size_t layer, size_t expert)
{
    return json_number_value(json_array_get(layer_of(line, layer), expert));
}

size_t layers_in(const json_t *line)
{
    return json_array_size(json_object_get(line, "use"));
}

size_t experts_in(const json_t *line)
{
    return json_array_size(layer_of(line, 0));
}

void order_of(size_t *order, const json_t *line, size_t layer)
{
    const size_t E = experts_in(line);
    for (size_t e = 0; e < E; e++) {
        size_t place = 0;
        const double own = use_of(line, layer, e);
        for (size_t f = 0; f < E; f++) {
            const double other = use_of(line, layer, f);
            place += other > own || (other >= own && f < e);
        }
        order[place] = e;
    }
}

const json_t *kind_line(const struct study *s, const char *model, const char *kind)
{
    json_t *line;
    size_t i;
    json_array_foreach(s->base, i, line)
    {
        if (strcmp(text_of(line, "what"), "kind") == 0 &&
            strcmp(text_of(line, "model"), model) == 0 &&
            strcmp(text_of(line, "kind"), kind) == 0) {
            return line;
        }
    }
    return NULL;
}

double kinds_information(const struct study *s, const char *model, size_t layer)
{
    const size_t K = json_array_size(s->kinds);
    const json_t *of[MOST_KINDS];
    double bits = 0;
    for (size_t k = 0; k < K; k++) {
        of[k] = kind_line(s, model, text_of(json_array_get(s->kinds, k), "kind"));
        if (!of[k]) return (double)NAN;
    }
    for (size_t e = 0; K && e < experts_in(of[0]); e++) {
        double all = 0;
        for (size_t k = 0; k < K; k++) {
            all += use_of(of[k], layer, e) / (double)K;
        }
        for (size_t k = 0; k < K; k++) {
            const double p = use_of(of[k], layer, e);
            if (p > 0) bits += p / (double)K * log2(p / all);
        }
    }
    return bits;
}

int64_t owner_of(const struct study *s, const char *model, size_t layer, size_t expert,
                 double *part)
{
    double all = 0, most = 0;
    int64_t owner = -1;
    for (size_t k = 0; k < json_array_size(s->kinds); k++) {
        const char *kind = text_of(json_array_get(s->kinds, k), "kind");
        const double use = use_of(kind_line(s, model, kind), layer, expert);
        all += use;
        if (use > most) {
            most = use;
            owner = (int64_t)k;
        }
    }
    *part = owner >= 0 ? most / all : 0;
    return owner;
}
