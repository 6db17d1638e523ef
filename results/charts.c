// results/charts.c - the charts of docs/RESULTS.md (tables.h), by the chart code of the reports.
#include "tables.h"

#include "base/file.h"
#include "eval/svg.h"

#include <math.h>
#include <string.h>

enum { MOST_POINTS = 256 };

struct curve {
    double x[MOST_POINTS], y[MOST_POINTS];
    int64_t n;
};

static void add(struct curve *c, double x, double y)
{
    if (c->n == MOST_POINTS) return;
    c->x[c->n] = x;
    c->y[c->n++] = y;
}

static struct svg_line line_of(const struct curve *c, const char *name, int colour)
{
    return (struct svg_line){.name = name, .x = c->x, .y = c->y, .n = c->n, .colour = colour};
}

static bool write_chart(const struct study *s, const char *name, const char *title,
                        const struct svg_chart *c, struct error *err)
{
    char path[4096], file[64];
    struct html h = {0};
    if (!svg_has_points(c)) return true;
    snprintf(file, sizeof file, "%s.svg", name);
    svg_picture(&h, title, c);
    const bool ok = (!h.failed || fail(err, "%s: no memory", file)) && dir_make(s->charts, err) &&
                    path_join(path, sizeof path, s->charts, file, err) &&
                    file_write(path, h.text.data, h.text.size, err);
    buf_free(&h.text);
    return ok;
}

// Experts of each layer of the base by their share of the mix, the most used first.
static bool write_use(const struct study *s, struct error *err)
{
    static struct curve curve[SVG_COLOURS];
    static char name[SVG_COLOURS][16];
    struct svg_line line[SVG_COLOURS];
    const json_t *mix = base_on(s, "mix");
    const size_t E = experts_in(mix);
    size_t order[MOST_POINTS], layers = layers_in(mix);
    if (E > MOST_POINTS) return true;
    if (layers > SVG_COLOURS) layers = SVG_COLOURS;
    for (size_t l = 0; l < layers; l++) {
        order_of(order, mix, l);
        curve[l].n = 0;
        for (size_t i = 0; i < E; i++) {
            add(&curve[l], (double)(i + 1), 100 * use_of(mix, l, order[i]));
        }
        snprintf(name[l], sizeof name[l], "layer %zu", l);
        line[l] = line_of(&curve[l], name[l], (int)l);
    }
    return write_chart(s, "use", "The base: experts by their share of the load on the mix, %",
                       &(struct svg_chart){.about = "line chart: share of each expert's load by "
                                                    "its place, a line for each layer",
                                           .x_name = "expert, the most used first",
                                           .value = "%",
                                           .from_zero = true,
                                           .line = line,
                                           .n_lines = (int64_t)layers},
                       err);
}

// Accuracy over what is dropped from one end: points of `order` in a line's pruning study, the mean over lines.
static void prune_curve(struct curve *c, const json_t *lines, const char *task, const char *method,
                        const char *order)
{
    json_t *line, *row;
    size_t i, k;
    int64_t seeds = 0;
    c->n = 0;
    json_array_foreach(lines, i, line)
    {
        int64_t at = 0;
        if (strcmp(text_of(line, "task"), task) != 0 ||
            (method && strcmp(text_of(line, "method"), method) != 0)) {
            continue;
        }
        json_array_foreach(json_object_get(line, "prune"), k, row)
        {
            if (strcmp(json_string_value(json_array_get(row, 0)), order) != 0) continue;
            if (!seeds) add(c, json_number_value(json_array_get(row, 1)), 0);
            if (at < c->n) c->y[at++] += 100 * json_number_value(json_array_get(row, 3));
        }
        seeds++;
    }
    for (int64_t p = 0; p < c->n; p++) {
        c->y[p] /= (double)seeds;
    }
}

static bool write_pruning(const struct study *s, const char *task, const char *order,
                          struct error *err)
{
    static const char *const methods[] = {"topk", "bias", "condenser", "densemixer", "lora"};
    enum { METHODS = sizeof methods / sizeof *methods };
    static struct curve curve[METHODS + 1];
    struct svg_line line[METHODS + 1];
    char name[64], title[128];
    prune_curve(&curve[METHODS], s->base, task, NULL, order);
    for (int m = 0; m < METHODS; m++) {
        prune_curve(&curve[m], s->runs, task, methods[m], order);
        line[m] = line_of(&curve[m], curve[m].n ? methods[m] : NULL, m);
    }
    line[METHODS] = line_of(&curve[METHODS], "base, as it is", -1);
    line[METHODS].shape = SVG_DASHED;
    snprintf(name, sizeof name, "prune-%s-%s", order, task);
    snprintf(title, sizeof title, "%s: accuracy without the %s used experts, %%", task, order);
    return write_chart(s, name, title,
                       &(struct svg_chart){.about = "line chart: accuracy over the share of "
                                                    "experts dropped, a line for each method",
                                           .x_name = "% of each layer's experts dropped",
                                           .value = "%",
                                           .line = line,
                                           .n_lines = METHODS + 1},
                       err);
}

static bool write_sweep(const struct study *s, struct error *err)
{
    static const struct figure exact = {"exact", 0, 0, 100, 1};
    static struct curve curve[SVG_COLOURS];
    struct svg_line line[SVG_COLOURS];
    const char *method[SVG_COLOURS];
    const int64_t n = names_in(method, SVG_COLOURS, s->sweep, "method");
    for (int64_t m = 0; m < n; m++) {
        curve[m].n = 0;
        for (int power = 0; power <= 6; power++) {
            struct sample x, main;
            const double rank = 1 << power;
            sample_of(&x, s, s->sweep, "translate", method[m], rank, &exact);
            sample_of(&main, s, s->runs, "translate", method[m], rank, &exact);
            if (x.n || main.n) add(&curve[m], power, sample_mean(x.n ? &x : &main));
        }
        line[m] = line_of(&curve[m], method[m], (int)m);
    }
    return write_chart(
        s, "sweep", "translate: exact answers over what learns, %",
        &(struct svg_chart){.about = "line chart: exact answers over the number of "
                                     "values that learn, a line for each tuning",
                            .x_name = "log2 of the rank, or of as many values in blocks",
                            .value = "%",
                            .from_zero = true,
                            .line = line,
                            .n_lines = n},
        err);
}

bool charts_write(const struct study *s, struct error *err)
{
    static const char *const tasks[] = {"translate", "passive"};
    bool ok = write_use(s, err) && write_sweep(s, err);
    for (int t = 0; ok && t < 2; t++) {
        ok = write_pruning(s, tasks[t], "least", err) && write_pruning(s, tasks[t], "most", err);
    }
    return ok;
}

// The document lies beside the folder of charts.
bool table_chart(struct buf *out, const struct study *s, const char *task)
{
    const char *last = strrchr(s->charts, '/'), *folder = last ? last + 1 : s->charts;
    bool any = false;
    for (const char *name = task; *name;) {
        char path[4096], file[64];
        const size_t n = strcspn(name, " ");
        struct error err;
        snprintf(file, sizeof file, "%.*s.svg", (int)n, name);
        if (path_join(path, sizeof path, s->charts, file, &err) && file_exists(path)) {
            any = true;
            if (!buf_printf(out, "![%.*s](%s/%s)\n", (int)n, name, folder, file)) return false;
        }
        name += n + (name[n] == ' ');
    }
    return any || buf_puts(out, not_run);
}
