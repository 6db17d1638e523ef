// eval/report_experts.c - what the experts did while the run went on: how even their load was, who had it, how the
// bias moved, which experts are condensers.
#include "eval/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    CELLS = 500000,      // of all maps together: one byte each in a PNG
    BIAS_POINTS = 40000, // of all bias lines together
    MOST_COLUMNS = 160,
    MAPS_OPEN = 8, // the others lie in a fold
    TOP = 3
};

// The model's index of the i-th MoE layer.
static long long layer_index(const struct run_data *r, int64_t i)
{
    const json_t *list = json_object_get(json_object_get(r->plan, "shape"), "moe_layers");
    const json_t *v = json_array_get(list, (size_t)i);
    return json_is_integer(v) ? json_integer_value(v) : (long long)i;
}

// Columns that are shown of n, so that all layers stay within the budget; `at` is the row of the i-th of them.
static int64_t columns_shown(int64_t n, int64_t per_column, int64_t budget)
{
    int64_t most = budget / (per_column ? per_column : 1);
    if (most > MOST_COLUMNS) most = MOST_COLUMNS;
    if (most < 2) most = 2;
    return n < most ? n : most;
}

static int64_t column_at(int64_t i, int64_t shown, int64_t n)
{
    return shown > 1 ? i * (n - 1) / (shown - 1) : n - 1;
}

static const float *measure(const struct run_metrics *m, int64_t column, enum run_measure k)
{
    return m->measures.value + column * m->measures.width + (int64_t)k * m->layers;
}

static bool is_condenser(const struct run_metrics *m, int64_t layer, int64_t expert)
{
    const json_t *of = json_array_get(m->condensers, (size_t)layer);
    for (size_t i = 0; i < json_array_size(of); i++) {
        if (json_integer_value(json_array_get(of, i)) == expert) return true;
    }
    return false;
}

static void put_overview(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    const struct run_rows *rows = &m->measures;
    const int64_t L = m->layers, n = columns_shown(rows->n, L, CELLS);
    float *value = mem_alloc((size_t)(L * n) * sizeof *value);
    char(*label)[24] = mem_alloc((size_t)L * sizeof *label);
    const char **name = mem_alloc((size_t)L * sizeof *name);
    if (!value || !label || !name) h->failed = true;
    for (int64_t l = 0; !h->failed && l < L; l++) {
        snprintf(label[l], sizeof *label, "layer %lld", layer_index(r, l));
        name[l] = label[l];
        for (int64_t i = 0; i < n; i++) {
            value[l * n + i] = measure(m, column_at(i, n, rows->n), MEASURE_GINI)[l];
        }
    }
    if (!h->failed) {
        const struct svg_heat map = {
            .about =
                "Heat map of the Gini coefficient of the experts' load, a row for each layer, over "
                "the steps; the table below has its values.",
            .rows = L,
            .columns = n,
            .value = value,
            .high = 1,
            .row = name,
            .x_name = "step",
            .x_first = rows->step[0],
            .x_last = m->number[NUMBER_STEP][m->n - 1],
            .cell = L > 24 ? 12 : 18,
        };
        html_raw(
            h, "<figure><figcaption><b>How uneven the load is</b> Gini coefficient of the experts' "
               "load in each layer: 0 where all have the same, near 1 where one has all"
               "</figcaption>\n");
        svg_heat(h, &map);
        svg_heat_scale(h, &map, "0, even", "1, one has all");
        html_raw(h, "</figure>\n");
    }
    mem_free(value);
    mem_free(label);
    mem_free(name);
}

static double most_load(const struct run_metrics *m)
{
    double most = 1;
    for (int64_t i = 0; i < m->load.n * m->load.width; i++) {
        const double x = (double)m->load.value[i] * (double)m->experts;
        if (x > most) most = x;
    }
    return most;
}

static void put_layer_caption(struct html *h, const struct run_data *r, int64_t l)
{
    const json_t *of = json_array_get(r->metrics.condensers, (size_t)l);
    html_format(h, "<figcaption><b>Layer %lld</b>", layer_index(r, l));
    if (json_array_size(of)) html_raw(h, " condensers ");
    for (size_t i = 0; i < json_array_size(of); i++) {
        html_format(h, "%s%lld", i ? ", " : "",
                    (long long)json_integer_value(json_array_get(of, i)));
    }
    html_raw(h, "</figcaption>\n");
}

static struct svg_heat load_map(const struct run_metrics *m, double high)
{
    const int64_t E = m->experts;
    return (struct svg_heat){
        .rows = E,
        .columns = columns_shown(m->load.n, m->layers * E, CELLS),
        .high = high,
        .log = true,
        .x_name = "step",
        .x_first = m->load.step[0],
        .x_last = m->load.step[m->load.n - 1],
        .cell = E >= 160  ? 1
                : E >= 80 ? 2
                : E > 40  ? 3
                : E > 20  ? 5
                          : 9,
    };
}

static void put_load(struct html *h, const struct run_data *r, int64_t l, struct svg_heat map,
                     float *value)
{
    const struct run_metrics *m = &r->metrics;
    const int64_t E = m->experts, n = map.columns;
    bool *marked = mem_zalloc((size_t)E, sizeof *marked);
    char about[200];
    for (int64_t e = 0; marked && e < E; e++) {
        marked[e] = is_condenser(m, l, e);
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = column_at(i, n, m->load.n);
            value[e * n + i] = m->load.value[row * m->load.width + l * E + e] * (float)E;
        }
    }
    snprintf(
        about, sizeof about,
        "Heat map of the load of the %lld experts of layer %lld over the steps, as multiples of an "
        "equal share; the table has the busiest.",
        (long long)E, layer_index(r, l));
    map.about = about;
    map.value = value;
    map.marked = marked;
    html_raw(h, "<figure>");
    put_layer_caption(h, r, l);
    if (marked) {
        svg_heat(h, &map);
    } else {
        h->failed = true;
    }
    html_raw(h, "</figure>\n");
    mem_free(marked);
}

typedef void (*layer_writer)(struct html *h, const struct run_data *r, int64_t l, void *user);

// Some layers, from the first to the last, in the open, and the others in a fold.
static void put_layers(struct html *h, const struct run_data *r, int64_t most, layer_writer write,
                       void *user)
{
    const int64_t L = r->metrics.layers, open = L <= MAPS_OPEN + 4 ? L : MAPS_OPEN;
    html_raw(h, "<div class=\"maps\">\n");
    for (int64_t i = 0; i < open; i++) {
        write(h, r, column_at(i, open, L), user);
    }
    html_raw(h, "</div>\n");
    if (open == L || most <= open) return;
    html_format(h, "<details><summary>The other %lld layers</summary><div class=\"maps\">\n",
                (long long)(L - open));
    for (int64_t l = 0, i = 0; l < L; l++) {
        if (i < open && l == column_at(i, open, L)) {
            i++;
        } else {
            write(h, r, l, user);
        }
    }
    html_raw(h, "</div></details>\n");
}

struct load_maps {
    struct svg_heat map;
    float *value;
};

static void write_load(struct html *h, const struct run_data *r, int64_t l, void *user)
{
    const struct load_maps *maps = user;
    put_load(h, r, l, maps->map, maps->value);
}

static void put_loads(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    char high[48];
    struct load_maps maps = {.map = load_map(m, most_load(m))};
    maps.value = mem_alloc((size_t)(m->experts * maps.map.columns) * sizeof *maps.value);
    if (!maps.value) {
        h->failed = true;
        return;
    }
    html_format(
        h,
        "<h3>The load of each expert</h3>\n<p>A row is one of the %lld experts of a layer, "
        "a column a step; the colour is its share of the layer's rows, as a multiple of an equal "
        "share.%s</p>\n",
        (long long)m->experts,
        m->condensers ? " A number with &#9656; at the left is a condenser, active for every "
                        "token."
                      : "");
    snprintf(high, sizeof high, "%.1f times an equal share", maps.map.high);
    svg_heat_scale(h, &maps.map, "0", high);
    put_layers(h, r, m->layers, write_load, &maps);
    mem_free(maps.value);
}

struct bias_lines {
    double *step, *value; // (points), (experts, points)
    struct svg_line *line;
    int64_t points;
};

static void write_bias(struct html *h, const struct run_data *r, int64_t l, void *user)
{
    const struct run_metrics *m = &r->metrics;
    const struct bias_lines *b = user;
    const int64_t E = m->experts;
    char about[200];
    int64_t n = 0;
    for (int turn = 0; turn < 2; turn++) { // condensers on top: the first is drawn last
        for (int64_t e = 0; e < E; e++) {
            const bool condenser = is_condenser(m, l, e);
            if (condenser != (turn == 0)) continue;
            for (int64_t i = 0; i < b->points; i++) {
                const int64_t row = column_at(i, b->points, m->bias.n);
                b->value[e * b->points + i] =
                    (double)m->bias.value[row * m->bias.width + l * E + e];
            }
            b->line[n++] =
                (struct svg_line){NULL,      b->step,           b->value + e * b->points,
                                  b->points, condenser ? 1 : 0, condenser ? SVG_LINE : SVG_THIN};
        }
    }
    snprintf(about, sizeof about, "Line chart of the bias of the %lld experts of layer %lld.",
             (long long)E, layer_index(r, l));
    html_raw(h, "<figure>");
    put_layer_caption(h, r, l);
    svg_lines(h,
              &(struct svg_chart){
                  .about = about, .value = "bias", .line = b->line, .n_lines = n, .small = true});
    html_raw(h, "</figure>\n");
}

static void put_biases(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    struct bias_lines b = {.points = columns_shown(m->bias.n, m->layers * m->experts, BIAS_POINTS)};
    int64_t layers = m->layers;
    if (b.points < 12 && m->bias.n > b.points) { // too coarse: only those in the open
        layers = MAPS_OPEN;
        b.points = columns_shown(m->bias.n, MAPS_OPEN * m->experts, BIAS_POINTS);
    }
    b.step = mem_alloc((size_t)b.points * sizeof *b.step);
    b.value = mem_alloc((size_t)(m->experts * b.points) * sizeof *b.value);
    b.line = mem_alloc((size_t)m->experts * sizeof *b.line);
    if (b.step && b.value && b.line) {
        for (int64_t i = 0; i < b.points; i++) {
            b.step[i] = m->bias.step[column_at(i, b.points, m->bias.n)];
        }
        html_format(h,
                    "<h3>The bias of each expert</h3>\n<p>What is added to the router's scores for "
                    "the choice of experts; a line is an expert.%s</p>\n",
                    m->condensers ? " The thick lines are the condensers." : "");
        put_layers(h, r, layers, write_bias, &b);
    } else {
        h->failed = true;
    }
    mem_free(b.step);
    mem_free(b.value);
    mem_free(b.line);
}

// The busiest experts of a layer at a step: "3 (12 %), 7 (9 %)".
static void put_busiest(struct html *h, const struct run_metrics *m, int64_t row, int64_t l)
{
    const float *load = m->load.value + row * m->load.width + l * m->experts;
    int64_t taken[TOP];
    for (int k = 0; k < TOP && k < m->experts; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < m->experts; e++) {
            bool free = true;
            for (int q = 0; q < k; q++) {
                free &= taken[q] != e;
            }
            if (free && (best < 0 || load[e] > load[best])) best = e;
        }
        taken[k] = best;
        html_format(h, "%s%lld&nbsp;(", k ? ", " : "", (long long)best);
        html_real(h, 100 * (double)load[best], 2);
        html_raw(h, "&nbsp;%)");
    }
}

static void put_measure(struct html *h, const struct run_metrics *m, int64_t l, enum run_measure k,
                        double scale, int decimals)
{
    html_raw(h, "<td>");
    html_fixed(h, scale * (double)measure(m, m->measures.n - 1, k)[l], decimals);
    html_raw(h, "</td>");
}

static void put_row(struct html *h, const struct run_data *r, int64_t l)
{
    const struct run_metrics *m = &r->metrics;
    html_format(h, "<tr><th scope=\"row\">%lld</th><td>", layer_index(r, l));
    html_fixed(h, (double)measure(m, 0, MEASURE_GINI)[l], 2);
    html_raw(h, "</td>");
    put_measure(h, m, l, MEASURE_GINI, 1, 2);
    put_measure(h, m, l, MEASURE_COVER80, 1, 0);
    put_measure(h, m, l, MEASURE_DEAD, 1, 0);
    if (m->bias.n) put_measure(h, m, l, MEASURE_BIAS_CHANGED, 100, 0);
    if (m->condensers) {
        const json_t *of = json_array_get(m->condensers, (size_t)l);
        html_raw(h, "<td class=\"text\">");
        for (size_t i = 0; i < json_array_size(of); i++) {
            html_format(h, "%s%lld", i ? ", " : "",
                        (long long)json_integer_value(json_array_get(of, i)));
        }
        html_raw(h, "</td>");
        put_measure(h, m, l, MEASURE_CONDENSER_LOAD, 100, 0);
    }
    if (m->load.n) {
        html_raw(h, "<td class=\"text\">");
        put_busiest(h, m, 0, l);
        html_raw(h, "</td><td class=\"text\">");
        put_busiest(h, m, m->load.n - 1, l);
        html_raw(h, "</td>");
    }
    html_raw(h, "</tr>\n");
}

static void put_table(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    const bool open = m->layers <= 8;
    html_format(h,
                "<details%s><summary>The experts as a table</summary><div class=\"wide\"><table>\n",
                open ? " open" : "");
    html_raw(h, "<thead><tr><th scope=\"col\">layer</th><th scope=\"col\">Gini, first</th>"
                "<th scope=\"col\">last</th><th scope=\"col\">cover 80&nbsp;%</th>"
                "<th scope=\"col\">without load</th>");
    if (m->bias.n) html_raw(h, "<th scope=\"col\">choices by bias,&nbsp;%</th>");
    if (m->condensers) {
        html_raw(h, "<th scope=\"col\" class=\"text\">condensers</th>"
                    "<th scope=\"col\">their load,&nbsp;%</th>");
    }
    if (m->load.n) {
        html_raw(h, "<th scope=\"col\" class=\"text\">busiest, first</th>"
                    "<th scope=\"col\" class=\"text\">busiest, last</th>");
    }
    html_raw(h, "</tr></thead>\n<tbody>\n");
    for (int64_t l = 0; l < m->layers; l++) {
        put_row(h, r, l);
    }
    html_raw(h, "</tbody></table></div></details>\n");
}

bool report_has_experts(const struct run_data *r)
{
    return r->metrics.layers > 0 && r->metrics.measures.n > 0;
}

void report_experts(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    if (!report_has_experts(r)) return;
    const double per_token = json_number_at(json_object_get(r->plan, "shape"), "experts_per_token");
    html_raw(h, "<h2 id=\"experts\">Experts</h2>\n<p>");
    html_format(h, "%lld layer%s with experts", (long long)m->layers, m->layers == 1 ? "" : "s");
    if (m->experts) html_format(h, ", %lld in each", (long long)m->experts);
    if (isfinite(per_token)) html_format(h, ", %.0f of them for each token", per_token);
    html_raw(h, ".");
    if (m->condensers) {
        html_raw(h, " From step ");
        html_count(h, m->condensers_step);
        html_raw(h, " on, condensers are active for every token.");
    }
    html_raw(h, "</p>\n");
    put_overview(h, r);
    if (m->load.n) put_loads(h, r);
    if (m->bias.n) put_biases(h, r);
    put_table(h, r);
}
