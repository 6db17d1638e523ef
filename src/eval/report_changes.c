// eval/report_changes.c - which weights moved, and how far (changes.json).
#include "eval/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MODULES = 40, LAYERS_AT_MOST = 1024 };

struct module {
    const char *name;
    double difference, norm; // squares
    double parameters;
    bool layered; // there is one in each layer
};

struct modules {
    struct module module[MODULES];
    int64_t n, layers;
};

static void collect(struct modules *m, const json_t *list)
{
    *m = (struct modules){0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *name = json_text_at(o, "name");
        const double d = json_number_at(o, "difference"), w = json_number_at(o, "norm");
        const double layer = json_number_at(o, "layer"), p = json_number_at(o, "parameters");
        if (!name || !isfinite(d) || !isfinite(w) || !isfinite(p)) continue;
        int64_t k = 0;
        while (k < m->n && strcmp(m->module[k].name, name) != 0) {
            k++;
        }
        if (k == MODULES) continue;
        if (k == m->n) m->module[m->n++] = (struct module){.name = name};
        m->module[k].difference += d * d;
        m->module[k].norm += w * w;
        m->module[k].parameters += p;
        m->module[k].layered |= layer >= 0;
        if (layer >= (double)m->layers && layer < (double)LAYERS_AT_MOST)
            m->layers = (int64_t)layer + 1;
    }
}

static double change_of(const struct module *m)
{
    return m->norm > 0 ? sqrt(m->difference / m->norm) : (double)NAN;
}

static void put_bars(struct html *h, const struct modules *m)
{
    double most = 0;
    for (int64_t k = 0; k < m->n; k++) {
        if (change_of(&m->module[k]) > most) most = change_of(&m->module[k]);
    }
    html_raw(
        h,
        "<table class=\"bars\"><thead><tr><th scope=\"col\" class=\"text\">module, all layers</th>"
        "<th scope=\"col\"></th><th scope=\"col\">change</th>"
        "<th scope=\"col\" class=\"more\">parameters</th></tr></thead>\n<tbody>\n");
    for (int64_t k = 0; k < m->n; k++) {
        const double change = change_of(&m->module[k]);
        html_raw(h, "<tr><th scope=\"row\" class=\"mono\">");
        html_text(h, m->module[k].name);
        html_raw(h, "</th><td class=\"fill\">");
        svg_bar(h, most > 0 ? change / most : 0, 0);
        html_raw(h, "</td><td>");
        html_real(h, 100 * change, 3);
        html_raw(h, "&nbsp;%</td><td class=\"more\">");
        html_count(h, m->module[k].parameters);
        html_raw(h, "</td></tr>\n");
    }
    html_raw(h, "</tbody></table>\n");
}

struct grid {
    float *value; // (rows, columns)
    const char **row, **column;
    char (*label)[24];
};

static bool grid_open(struct grid *g, int64_t rows, int64_t columns)
{
    *g = (struct grid){.value = mem_alloc((size_t)(rows * columns) * sizeof *g->value),
                       .row = mem_zalloc((size_t)rows, sizeof *g->row),
                       .column = mem_zalloc((size_t)columns, sizeof *g->column),
                       .label = mem_zalloc((size_t)columns, sizeof *g->label)};
    if (!g->value || !g->row || !g->column || !g->label) return false;
    for (int64_t i = 0; i < rows * columns; i++) {
        g->value[i] = NAN;
    }
    for (int64_t c = 0; c < columns; c++) { // as many labels as have room
        const int64_t every = (columns - 1) / 8 + 1;
        if (c % every == 0) snprintf(g->label[c], sizeof *g->label, "%lld", (long long)c);
        g->column[c] = g->label[c];
    }
    return true;
}

static void grid_close(struct grid *g)
{
    mem_free(g->value);
    mem_free(g->row);
    mem_free(g->column);
    mem_free(g->label);
}

static void put_grid(struct html *h, const struct svg_heat *map, const char *caption)
{
    char high[48];
    html_raw(h, "<figure><figcaption>");
    html_raw(h, caption);
    html_raw(h, "</figcaption>\n");
    svg_heat(h, map);
    snprintf(high, sizeof high, "%.3g %%", 100 * map->high);
    svg_heat_scale(h, map, "0", high);
    html_raw(h, "</figure>\n");
}

static void put_layers(struct html *h, const struct modules *m, const json_t *list)
{
    struct grid g;
    int64_t rows = 0, row_of[MODULES];
    double most = 0;
    for (int64_t k = 0; k < m->n; k++) {
        row_of[k] = m->module[k].layered ? rows++ : -1;
    }
    if (m->layers < 2 || !rows) return;
    if (!grid_open(&g, rows, m->layers)) h->failed = true;
    for (int64_t k = 0; !h->failed && k < m->n; k++) {
        if (row_of[k] >= 0) g.row[row_of[k]] = m->module[k].name;
    }
    for (size_t i = 0; !h->failed && i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *name = json_text_at(o, "name");
        const double layer = json_number_at(o, "layer"), change = json_number_at(o, "change");
        for (int64_t k = 0; name && layer >= 0 && layer < (double)m->layers && k < m->n; k++) {
            if (row_of[k] < 0 || strcmp(name, m->module[k].name) != 0) continue;
            g.value[row_of[k] * m->layers + (int64_t)layer] = (float)change;
            if (change > most) most = change;
        }
    }
    if (!h->failed) {
        put_grid(h,
                 &(struct svg_heat){.about = "Heat map of how far each module of each layer moved.",
                                    .rows = rows,
                                    .columns = m->layers,
                                    .value = g.value,
                                    .high = most,
                                    .row = g.row,
                                    .column = g.column,
                                    .cell = 20},
                 "<b>By layer</b> how far each module moved; columns are layers");
    }
    grid_close(&g);
}

static void put_experts(struct html *h, const json_t *experts)
{
    const size_t L = json_array_size(experts);
    const size_t E = json_array_size(json_object_get(json_array_get(experts, 0), "change"));
    struct grid g;
    double most = 0;
    if (L < 1 || L > LAYERS_AT_MOST || E < 2 || E > 4096) return;
    if (!grid_open(&g, (int64_t)L, (int64_t)E)) h->failed = true;
    char(*name)[24] = mem_zalloc(L, sizeof *name);
    if (!name) h->failed = true;
    for (size_t l = 0; !h->failed && l < L; l++) {
        const json_t *o = json_array_get(experts, l), *of = json_object_get(o, "change");
        snprintf(name[l], sizeof *name, "layer %.0f", json_number_at(o, "layer"));
        g.row[l] = name[l];
        for (size_t e = 0; e < E; e++) {
            const json_t *v = json_array_get(of, e);
            if (!json_is_number(v)) continue;
            g.value[l * E + e] = (float)json_number_value(v);
            if (json_number_value(v) > most) most = json_number_value(v);
        }
    }
    if (!h->failed) {
        put_grid(h,
                 &(struct svg_heat){.about =
                                        "Heat map of how far each expert moved, a row for each "
                                        "layer.",
                                    .rows = (int64_t)L,
                                    .columns = (int64_t)E,
                                    .value = g.value,
                                    .high = most,
                                    .row = g.row,
                                    .column = g.column,
                                    .cell = L > 24 ? 12 : 20},
                 "<b>By expert</b> how far each moved, its matrices together; columns are experts");
    }
    mem_free(name);
    grid_close(&g);
}

static void put_table(struct html *h, const json_t *list)
{
    html_raw(h,
             "<details><summary>Every module of every layer as a table</summary>"
             "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\" class=\"text\">module</th>"
             "<th scope=\"col\">layer</th><th scope=\"col\">change, %</th>"
             "<th scope=\"col\">norm of the difference</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < json_array_size(list) && i < 600; i++) {
        const json_t *o = json_array_get(list, i);
        const char *name = json_text_at(o, "name");
        html_raw(h, "<tr><th scope=\"row\" class=\"mono\">");
        html_text(h, name ? name : "");
        html_raw(h, "</th><td>");
        html_real(h, json_number_at(o, "layer"), 6);
        html_raw(h, "</td><td>");
        html_real(h, 100 * json_number_at(o, "change"), 3);
        html_raw(h, "</td><td>");
        html_real(h, json_number_at(o, "difference"), 3);
        html_raw(h, "</td></tr>\n");
    }
    html_raw(h, "</tbody></table></div></details>\n");
}

bool report_has_changes(const struct run_data *r)
{
    return json_array_size(json_object_get(r->changes, "modules")) > 0;
}

void report_changes(struct html *h, const struct run_data *r)
{
    struct modules m;
    const json_t *list = json_object_get(r->changes, "modules");
    if (!report_has_changes(r)) return;
    collect(&m, list);
    html_raw(h,
             "<h2 id=\"changes\">What moved</h2>\n<p>How far the weights are from those of <code>");
    html_text(h, report_base_name(json_text_at(r->changes, "base")));
    html_raw(
        h,
        "</code>: the norm of the difference over the norm of what was there, adapters merged. All "
        "together: <b>");
    html_real(h, 100 * json_number_at(r->changes, "change"), 3);
    html_raw(h, "&nbsp;%</b>.</p>\n");
    put_bars(h, &m);
    html_raw(h, "<div class=\"charts\">\n");
    put_layers(h, &m, list);
    put_experts(h, json_object_get(r->changes, "experts"));
    html_raw(h, "</div>\n");
    put_table(h, list);
}
