// cli/experts_page.c - what `experts` found, as one page of charts that stands alone (eval/page.h). Every chart has a
// table beside it that says the same.
#include "cli/experts.h"

#include "base/file.h"
#include "base/mem.h"
#include "eval/page.h"
#include "eval/svg.h"

#include <inttypes.h>
#include <math.h>

struct page {
    struct html h;
    const struct experts_result *x;
    int64_t *layer, layers; // those with experts
    double *at;             // (layers) their numbers, as a chart's x
    float *heat;            // (layers, E)
    double *y[2];           // (layers) of a line each
    struct layer_load load;
};

static const char *by(int score)
{
    return score == ESFT_GATE ? "gates" : "tokens";
}

static void put_head(struct page *p)
{
    html_raw(&p->h, "<h1>Experts</h1>\n<p class=\"lead\">");
    html_text(&p->h, p->x->model ? p->x->model : "routing logs");
    if (p->x->base) {
        html_raw(&p->h, ", compared with ");
        html_text(&p->h, p->x->base);
    }
    html_raw(&p->h, "</p>\n");
}

static void begin_figure(struct page *p, const char *title)
{
    html_raw(&p->h, "<figure><figcaption><b>");
    html_text(&p->h, title);
    html_raw(&p->h, "</b></figcaption>\n");
}

static void put_cell(struct page *p, double v, int digits)
{
    html_raw(&p->h, "<td>");
    html_real(&p->h, v, digits);
    html_raw(&p->h, "</td>");
}

// Shares of all experts: a row a layer.
static void put_heat(struct page *p, int score)
{
    const int64_t E = p->x->usage.experts;
    char about[160], title[80];
    double high = 0;
    for (int64_t i = 0; i < p->layers; i++) {
        layer_load_of(&p->load, p->x, p->layer[i], score);
        for (int64_t e = 0; e < E; e++) {
            p->heat[i * E + e] = p->load.c.any ? (float)p->load.share[e] : NAN;
            high = fmax(high, p->load.share[e]);
        }
    }
    snprintf(about, sizeof about, "heat map: share of %s of each expert (columns) in each layer",
             by(score));
    snprintf(title, sizeof title, "Share of a layer's %s, expert by expert", by(score));
    begin_figure(p, title);
    const struct svg_heat m = {.about = about,
                               .rows = p->layers,
                               .columns = E,
                               .value = p->heat,
                               .high = high,
                               .x_name = "expert",
                               .x_first = 0,
                               .x_last = (double)(E - 1),
                               .cell = 12};
    char top[32];
    snprintf(top, sizeof top, "%.2f %%", 100 * high);
    svg_heat(&p->h, &m);
    svg_heat_scale(&p->h, &m, "0", top);
    html_raw(&p->h, "</figure>\n");
}

static void put_lines(struct page *p, const char *title, const char *about, const char *value,
                      const char *const name[2])
{
    struct svg_line line[2];
    int64_t n = 0;
    for (int i = 0; i < 2 && name[i]; i++) {
        line[n++] = (struct svg_line){
            .name = name[i], .x = p->at, .y = p->y[i], .n = p->layers, .colour = i};
    }
    begin_figure(p, title);
    svg_lines(&p->h, &(struct svg_chart){.about = about,
                                         .x_name = "layer",
                                         .value = value,
                                         .from_zero = true,
                                         .line = line,
                                         .n_lines = n});
    html_raw(&p->h, "</figure>\n");
}

static void put_gini(struct page *p)
{
    static const char *const names[] = {"by tokens", "by gates"};
    for (int64_t i = 0; i < p->layers; i++) {
        for (int k = 0; k < 2; k++) {
            layer_load_of(&p->load, p->x, p->layer[i], k ? ESFT_GATE : ESFT_TOKEN);
            p->y[k][i] = p->load.c.any ? p->load.c.gini : (double)NAN;
        }
    }
    put_lines(p, "Gini coefficient of the load", "line chart: Gini coefficient of each layer",
              "gini", names);
}

static void put_usage_table(struct page *p)
{
    html_raw(&p->h, "<div class=\"wide\"><table><caption>By ");
    html_raw(&p->h, by(p->x->score));
    html_raw(&p->h,
             "</caption>\n<thead><tr><th>layer</th><th>used</th><th>busiest</th><th>its share %"
             "</th><th>gini</th><th>entropy</th><th>worth</th><th>50 %</th><th>80 %</th>"
             "<th>95 %</th><th>tail</th></tr></thead>\n<tbody>\n");
    for (int64_t i = 0; i < p->layers; i++) {
        layer_load_of(&p->load, p->x, p->layer[i], p->x->score);
        const struct concentration *c = &p->load.c;
        const int64_t E = p->x->usage.experts;
        html_format(&p->h, "<tr><td>%" PRId64 "</td><td>%" PRId64 "</td><td>%d</td>", p->layer[i],
                    E - c->unused, (int)p->load.order[0]);
        put_cell(p, 100 * p->load.share[p->load.order[0]], 3);
        put_cell(p, c->gini, 3);
        put_cell(p, c->entropy, 3);
        put_cell(p, c->effective, 3);
        for (int k = 0; k < COVER_COUNT; k++) {
            html_format(&p->h, "<td>%" PRId64 "</td>", c->cover[k]);
        }
        html_format(&p->h, "<td>%" PRId64 "</td></tr>\n", E - c->cover[COVER_COUNT - 1]);
    }
    html_raw(&p->h,
             "</tbody></table></div>\n<p class=\"note\">worth: as many experts used alike have "
             "this entropy. 50, 80, 95 %: the fewest experts that hold so much of the load; tail: "
             "those beyond 95 %.</p>\n");
}

// A line of a value's chart; false: it is not known.
static bool take_value(struct page *p, const struct layer_value *v, int line)
{
    bool known = false;
    for (int64_t i = 0; i < p->layers; i++) {
        p->y[line][i] = v->get(p->x, p->layer[i]);
        known |= isfinite(p->y[line][i]);
    }
    return known;
}

// A chart for each value that is known, with the base's in the same one.
static void put_values(struct page *p)
{
    bool any = false;
    for (const struct layer_value *v = layer_values; v->name; v++) {
        const char *name[2] = {p->x->model, NULL};
        if (v->of_base || !take_value(p, v, 0)) continue;
        if (v[1].of_base && take_value(p, v + 1, 1)) name[1] = p->x->base;
        if (!any) html_raw(&p->h, "<h2>Drift and likeness</h2>\n<div class=\"charts\">\n");
        any = true;
        put_lines(p, v->help, v->help, v->name, name);
    }
    if (!any) return;
    html_raw(&p->h, "</div>\n<div class=\"wide\"><table><thead><tr><th>layer</th>");
    for (const struct layer_value *v = layer_values; v->name; v++) {
        html_format(&p->h, "<th>%s</th>", v->name);
    }
    html_raw(&p->h, "</tr></thead>\n<tbody>\n");
    for (int64_t i = 0; i < p->layers; i++) {
        html_format(&p->h, "<tr><td>%" PRId64 "</td>", p->layer[i]);
        for (const struct layer_value *v = layer_values; v->name; v++) {
            put_cell(p, v->get(p->x, p->layer[i]), 4);
        }
        html_raw(&p->h, "</tr>\n");
    }
    html_raw(&p->h, "</tbody></table></div>\n");
}

struct curve {
    double x[128], y[128];
};

// Loss or accuracy over what was dropped; a line for each order.
static void put_curves(struct page *p, bool accuracy)
{
    static struct curve curve[2];
    struct svg_line line[2];
    int64_t n = 0;
    for (int order = 0; order < 2; order++) {
        int64_t points = 0;
        for (int64_t i = 0; i < p->x->n_points && points < 128; i++) {
            const struct prune_point *q = &p->x->point[i];
            if ((int)q->order != order) continue;
            curve[order].x[points] = q->percent;
            curve[order].y[points++] = accuracy ? q->accuracy : q->loss;
        }
        if (!points) continue;
        line[n++] =
            (struct svg_line){.name = order == PRUNE_LEAST ? "least used first" : "most used first",
                              .x = curve[order].x,
                              .y = curve[order].y,
                              .n = points,
                              .colour = order};
    }
    begin_figure(p, accuracy ? "Accuracy without some experts" : "Loss without some experts");
    svg_lines(&p->h, &(struct svg_chart){
                         .about = accuracy ? "line chart: accuracy over the experts dropped"
                                           : "line chart: loss over the experts dropped",
                         .x_name = "% of a layer's experts dropped",
                         .value = accuracy ? "accuracy" : "loss",
                         .line = line,
                         .n_lines = n});
    html_raw(&p->h, "</figure>\n");
}

static void put_pruning(struct page *p)
{
    if (!p->x->n_points) return;
    html_raw(&p->h, "<h2>Pruning</h2>\n<div class=\"charts\">\n");
    put_curves(p, false);
    put_curves(p, true);
    html_raw(&p->h,
             "</div>\n<div class=\"wide\"><table><thead><tr><th class=\"text\">first dropped</th>"
             "<th>%</th><th>experts</th><th>loss</th><th>accuracy %</th></tr></thead>\n<tbody>\n");
    for (int64_t i = 0; i < p->x->n_points; i++) {
        const struct prune_point *q = &p->x->point[i];
        html_format(&p->h, "<tr><td class=\"text\">%s used</td>", prune_order_names[q->order]);
        put_cell(p, q->percent, 4);
        html_format(&p->h, "<td>%" PRId64 "</td>", q->dropped);
        put_cell(p, q->loss, 5);
        put_cell(p, 100 * q->accuracy, 4);
        html_raw(&p->h, "</tr>\n");
    }
    html_raw(&p->h, "</tbody></table></div>\n");
}

static bool page_open(struct page *p, const struct experts_result *x, struct error *err)
{
    const size_t L = (size_t)x->usage.layers, E = (size_t)x->usage.experts;
    *p = (struct page){.x = x,
                       .layer = mem_alloc(L * sizeof *p->layer),
                       .at = mem_alloc(L * sizeof *p->at),
                       .heat = mem_alloc(L * E * sizeof *p->heat),
                       .y = {mem_alloc(L * sizeof **p->y), mem_alloc(L * sizeof **p->y)}};
    if (!p->layer || !p->at || !p->heat || !p->y[0] || !p->y[1]) {
        return fail(err, "no memory for a page of %zu layers", L);
    }
    for (int64_t l = 0; l < x->usage.layers; l++) {
        if (!experts_in(x, l)) continue;
        p->at[p->layers] = (double)l;
        p->layer[p->layers++] = l;
    }
    return layer_load_open(&p->load, x->usage.experts, err);
}

bool experts_page(const struct experts_result *x, const char *path, struct error *err)
{
    struct page p;
    bool ok = page_open(&p, x, err);
    if (ok) {
        page_begin(&p.h, "Experts", false);
        put_head(&p);
        html_raw(&p.h, "<h2>Use</h2>\n<div class=\"charts\">\n");
        put_heat(&p, ESFT_TOKEN);
        put_heat(&p, ESFT_GATE);
        put_gini(&p);
        html_raw(&p.h, "</div>\n");
        put_usage_table(&p);
        put_pruning(&p);
        put_values(&p);
        page_end(&p.h, false);
        ok = (!p.h.failed || fail(err, "%s: no memory for the page", path)) &&
             file_write(path, p.h.text.data, p.h.text.size, err);
    }
    layer_load_close(&p.load);
    mem_free(p.layer);
    mem_free(p.at);
    mem_free(p.heat);
    mem_free(p.y[0]);
    mem_free(p.y[1]);
    buf_free(&p.h.text);
    return ok;
}
