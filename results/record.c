// results/record.c - one run's figures as one JSON object on standard output: what `moetune --json` left in a folder,
// and NAME=VALUE from the command line. What it looks for in the folder, all of it optional:
//   loss.json       eval --task loss on the target task          kinds/NAME.json  the same on a kind of text
//   exact.json      eval --task exact                            usage.jsonl      experts --prune: shares and study
//   experts.jsonl   experts --base --prune both --correlation both on the target task; with it
//   base.jsonl      experts of the base on the same, and
//   condensers.json forced_experts_records.json, where there are condensers
#include "lines.h"

#include "base/dir.h"
#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXPERTS = 256 };

static void set_number(json_t *out, const char *name, double value)
{
    // Seven digits: far below what differs from seed to seed, and short.
    char text[32];
    snprintf(text, sizeof text, "%.7g", value);
    json_object_set_new(out, name, isfinite(value) ? json_real(strtod(text, NULL)) : json_null());
}

// Writes DIR/name to path; is it there?
static bool path_in(char *path, size_t size, const char *dir, const char *name)
{
    struct error err;
    return path_join(path, size, dir, name, &err) && file_exists(path);
}

// The last object of DIR/name.
static bool read_last(json_t **out, const char *dir, const char *name, struct error *err)
{
    char path[4096];
    *out = NULL;
    if (!path_in(path, sizeof path, dir, name)) return true;
    json_t *all = lines_read(path, err);
    if (!all) return false;
    const size_t n = json_array_size(all);
    *out = n ? json_incref(json_array_get(all, n - 1)) : NULL;
    json_decref(all);
    return *out || fail(err, "%s: no object", path);
}

static bool add_scores(json_t *out, const char *dir, struct error *err)
{
    json_t *loss, *exact = NULL;
    const bool ok =
        read_last(&loss, dir, "loss.json", err) && read_last(&exact, dir, "exact.json", err);
    if (ok && loss) set_number(out, "loss", number_of(loss, "loss"));
    if (ok && exact) set_number(out, "exact", number_of(exact, "exact_match"));
    json_decref(loss);
    json_decref(exact);
    return ok;
}

// Every kinds/NAME.json, by the names' order.
static bool add_kinds(json_t *out, const char *dir, struct error *err)
{
    char path[4096];
    struct dir_names list = {0};
    if (!path_in(path, sizeof path, dir, "kinds")) return true;
    bool ok = dir_list(&list, path, err);
    json_t *kinds = json_object();
    for (int64_t i = 0; ok && i < list.count; i++) {
        char name[64];
        json_t *score;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(list.name[i], "."), list.name[i]);
        ok = read_last(&score, path, list.name[i], err);
        if (ok) set_number(kinds, name, number_of(score, "loss"));
        json_decref(score);
    }
    json_object_set_new(out, "kinds", kinds);
    dir_names_free(&list);
    return ok;
}

static const json_t *shares_of(const json_t *layer)
{
    return json_object_get(json_object_get(layer, "by_token"), "share");
}

static double share(const json_t *layer, size_t expert)
{
    return json_number_value(json_array_get(shares_of(layer), expert));
}

// [["least", per cent, loss, accuracy], ...]
static void add_point(json_t *points, const json_t *p)
{
    json_t *row = json_array(), *number = json_object();
    static const char *const keys[] = {"percent", "loss", "accuracy"};
    json_array_append(row, json_object_get(p, "prune"));
    for (int i = 0; i < 3; i++) {
        set_number(number, keys[i], number_of(p, keys[i]));
        json_array_append(row, json_object_get(number, keys[i]));
    }
    json_array_append_new(points, row);
    json_decref(number);
}

// The shares of each layer, five decimals; what the tables make of them needs no more. And the pruning study.
static bool add_usage(json_t *out, const char *dir, struct error *err)
{
    char path[4096];
    if (!path_in(path, sizeof path, dir, "usage.jsonl")) return true;
    json_t *lines = lines_read(path, err), *layer;
    size_t i;
    if (!lines) return false;
    json_t *use = json_array(), *points = json_array();
    json_array_foreach(lines, i, layer)
    {
        if (json_object_get(layer, "prune")) add_point(points, layer);
        if (!shares_of(layer)) continue;
        json_t *row = json_array();
        for (size_t e = 0; e < json_array_size(shares_of(layer)); e++) {
            json_array_append_new(row, json_real(round(1e5 * share(layer, e)) / 1e5));
        }
        json_array_append_new(use, row);
    }
    json_object_set_new(out, "use", use);
    json_object_set(out, "prune", points);
    json_decref(points);
    json_decref(lines);
    return true;
}

// What is added up over layers; a mean at the end.
struct routing_sums {
    double tail_before, tail_after, always, condensers, condensers_in_tail, kl, changed, gini,
        weights_kept, weights_cosine, base_weights_cosine, outputs_cosine, base_outputs_cosine;
    int64_t layers;
};

// The condensers of the n-th layer that has some, by the order of layers in the file; NULL: none.
static const json_t *condensers_of(const json_t *records, int64_t layer)
{
    char key[64];
    const json_t *all = json_object_get(records, "forced_experts_records");
    snprintf(key, sizeof key, "model.layers.%lld.mlp", (long long)layer);
    const json_t *of = json_object_get(all, key);
    return json_object_get(of, "forced_expert_indices");
}

// The tail: of a layer's experts the half that the base uses least on the same text (ties: the lower id). Its share
// of what is routed, in the base and in this model; condensers, which are not routed to, are left out of both.
static void add_tail(struct routing_sums *s, const json_t *now, const json_t *base,
                     const json_t *condensers)
{
    const size_t E = json_array_size(shares_of(now));
    bool forced[MOST_EXPERTS] = {false};
    double routed_before = 0, routed_after = 0, before = 0, after = 0;
    for (size_t i = 0; i < json_array_size(condensers); i++) {
        const json_int_t e = json_integer_value(json_array_get(condensers, i));
        if (e >= 0 && (size_t)e < E) forced[e] = true;
    }
    for (size_t e = 0; e < E; e++) {
        size_t less = 0;
        for (size_t f = 0; f < E; f++) {
            less += share(base, f) < share(base, e) || (share(base, f) <= share(base, e) && f < e);
        }
        const bool tail = less < E / 2;
        s->condensers += forced[e];
        s->condensers_in_tail += forced[e] && tail;
        if (forced[e]) {
            s->always += share(now, e);
            continue;
        }
        routed_before += share(base, e);
        routed_after += share(now, e);
        before += tail ? share(base, e) : 0;
        after += tail ? share(now, e) : 0;
    }
    s->tail_before += before / routed_before;
    s->tail_after += after / routed_after;
}

static void add_layer(struct routing_sums *s, const json_t *now, const json_t *base,
                      const json_t *condensers)
{
    add_tail(s, now, base, condensers);
    s->kl += number_of(now, "kl");
    s->changed += number_of(now, "changed");
    s->gini += number_of(json_object_get(now, "by_token"), "gini");
    s->weights_kept += number_of(now, "weights_kept");
    s->weights_cosine += number_of(now, "weights_cosine");
    s->base_weights_cosine += number_of(now, "base_weights_cosine");
    s->outputs_cosine += number_of(now, "outputs_cosine");
    s->base_outputs_cosine += number_of(now, "base_outputs_cosine");
    s->layers++;
}

static void set_sums(json_t *out, const struct routing_sums *s)
{
    const struct {
        const char *name;
        double sum;
    } means[] = {{"tail_before", s->tail_before},
                 {"tail_after", s->tail_after},
                 {"kl", s->kl},
                 {"changed", s->changed},
                 {"gini", s->gini},
                 {"weights_kept", s->weights_kept},
                 {"weights_cosine", s->weights_cosine},
                 {"base_weights_cosine", s->base_weights_cosine},
                 {"outputs_cosine", s->outputs_cosine},
                 {"base_outputs_cosine", s->base_outputs_cosine}};
    for (size_t i = 0; i < sizeof means / sizeof *means; i++) {
        if (isfinite(means[i].sum)) {
            set_number(out, means[i].name, means[i].sum / (double)s->layers);
        }
    }
    if (s->condensers > 0) {
        set_number(out, "always", s->always / (double)s->layers);
        set_number(out, "condensers_in_tail", s->condensers_in_tail / s->condensers);
    }
}

static bool add_lines(json_t *out, const json_t *lines, const json_t *base,
                      const json_t *condensers, struct error *err)
{
    struct routing_sums s = {0};
    json_t *points = json_array(), *line;
    size_t i;
    json_array_foreach(lines, i, line)
    {
        if (json_object_get(line, "prune")) {
            add_point(points, line);
            continue;
        }
        const json_t *before = json_array_get(base, i);
        const size_t E = json_array_size(shares_of(line));
        if (E == 0 || E > MOST_EXPERTS || json_array_size(shares_of(before)) != E) {
            json_decref(points);
            return fail(err, "experts.jsonl:%zu: %zu experts, as many as in base.jsonl expected",
                        i + 1, E);
        }
        add_layer(&s, line, before, condensers_of(condensers, (int64_t)number_of(line, "layer")));
    }
    if (s.layers) set_sums(out, &s);
    json_object_set_new(out, "prune", points);
    return true;
}

static bool add_routing(json_t *out, const char *dir, struct error *err)
{
    char path[4096], base_path[4096];
    json_t *condensers = NULL;
    if (!path_in(path, sizeof path, dir, "experts.jsonl")) return true;
    json_t *lines = lines_read(path, err), *base = NULL;
    bool ok = lines && path_join(base_path, sizeof base_path, dir, "base.jsonl", err) &&
              (base = lines_read(base_path, err)) != NULL;
    if (ok && path_in(path, sizeof path, dir, "condensers.json")) {
        condensers = json_parse_file(path, 1 << 24, err);
        ok = condensers != NULL;
    }
    ok = ok && add_lines(out, lines, base, condensers, err);
    json_decref(lines);
    json_decref(base);
    json_decref(condensers);
    return ok;
}

// NAME=VALUE: a number where it reads as one.
static void add_given(json_t *out, const char *given)
{
    const char *value = strchr(given, '=');
    char name[64], *end;
    if (!value) return;
    snprintf(name, sizeof name, "%.*s", (int)(value - given), given);
    const double number = strtod(++value, &end);
    if (*value && !*end) {
        set_number(out, name, number);
    } else {
        json_object_set_new(out, name, json_string(value));
    }
}

int main(int argc, char **argv)
{
    struct error err = {""};
    if (argc < 2) {
        fprintf(stderr, "usage: study_record DIR [NAME=VALUE...]\n");
        return 2;
    }
    json_t *out = json_object();
    for (int i = 2; i < argc; i++) {
        add_given(out, argv[i]);
    }
    const bool ok = add_scores(out, argv[1], &err) && add_kinds(out, argv[1], &err) &&
                    add_usage(out, argv[1], &err) && add_routing(out, argv[1], &err);
    if (ok) {
        json_dumpf(out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
        putchar('\n');
    } else {
        fprintf(stderr, "study_record: %s: %s\n", argv[1], err.msg);
    }
    json_decref(out);
    return ok && fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
