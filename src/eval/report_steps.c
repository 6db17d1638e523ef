// eval/report_steps.c - what each step did: loss, learning rate, gradient norm, speed; with the same as a table.
#include "eval/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TABLE_ROWS = 24 };

static const struct {
    const char *name;
    enum run_number number;
    int digits;
} columns[] = {
    {"loss", NUMBER_LOSS, 4},
    {"learning rate", NUMBER_LR, 3},
    {"gradient norm", NUMBER_GRAD_NORM, 3},
    {"tokens/s", NUMBER_RATE, 4},
    {"validation loss", NUMBER_EVAL, 4},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

// After the tuning where that is another now (one that scored came before), else by its own name.
static const char *stage_name(const json_t *stages, size_t i)
{
    const json_t *now = json_array_get(stages, i), *before = json_array_get(stages, i - 1);
    const char *tuning = json_text_at(now, "tuning"), *was = json_text_at(before, "tuning");
    const char *name =
        tuning && was && strcmp(tuning, was) != 0 ? tuning : json_text_at(now, "name");
    return name ? name : "next stage";
}

int64_t report_stage_marks(struct svg_mark mark[STAGES_SHOWN], char label[STAGES_SHOWN][LABEL],
                           const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    const json_t *stages = json_object_get(r->plan, "stages");
    int64_t n = 0;
    for (int64_t i = 1; i < m->n && n < STAGES_SHOWN; i++) {
        const double stage = m->number[NUMBER_STAGE][i];
        if (!(stage > m->number[NUMBER_STAGE][i - 1]) || stage > 1000) continue;
        snprintf(label[n], LABEL, "%.*s", LABEL - 1, stage_name(stages, (size_t)stage));
        mark[n] = (struct svg_mark){m->number[NUMBER_STEP][i], label[n]};
        n++;
    }
    return n;
}

// What is shown of a value for each step: every so many, those with an evaluation, and the last.
static bool in_table(const struct run_metrics *m, int64_t i)
{
    const int64_t every = (m->n - 1) / TABLE_ROWS + 1;
    return i % every == 0 || i == m->n - 1;
}

static void put_table(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    html_raw(h, "<details><summary>These charts as a table</summary><div class=\"wide\"><table>\n"
                "<thead><tr><th scope=\"col\">step</th>");
    for (int k = 0; k < COLUMNS; k++) {
        html_format(h, "<th scope=\"col\">%s</th>", columns[k].name);
    }
    html_raw(h, "</tr></thead>\n<tbody>\n");
    for (int64_t i = 0; i < m->n; i++) {
        if (!in_table(m, i)) continue;
        html_raw(h, "<tr><th scope=\"row\">");
        html_count(h, m->number[NUMBER_STEP][i]);
        html_raw(h, "</th>");
        for (int k = 0; k < COLUMNS; k++) {
            html_raw(h, "<td>");
            html_real(h, m->number[columns[k].number][i], columns[k].digits);
            html_raw(h, "</td>");
        }
        html_raw(h, "</tr>\n");
    }
    html_raw(h, "</tbody></table></div></details>\n");
}

// The mean over about a hundredth of the run around each step (9 steps at least), within its stage.
static double *smoothed(const struct run_metrics *m, enum run_number k)
{
    const int64_t half = m->n < 800 ? 4 : m->n / 200;
    double *out = mem_alloc((size_t)m->n * sizeof *out), sum = 0;
    int64_t first = 0, end = 0, count = 0; // of the steps that are in the sum
    const double *value = m->number[k], *stage = m->number[NUMBER_STAGE];
    for (int64_t i = 0; out && i < m->n; i++) {
        for (; end < m->n && end <= i + half && !(stage[end] > stage[i]); end++) {
            if (!isfinite(value[end])) continue;
            sum += value[end];
            count++;
        }
        for (; first < i - half || stage[first] < stage[i]; first++) {
            if (!isfinite(value[first])) continue;
            sum -= value[first];
            count--;
        }
        out[i] = count > 0 ? sum / (double)count : (double)NAN;
    }
    return out;
}

struct points {
    double *x, *y;
    int64_t n;
};

// The evaluations, that before the first step included.
static struct points evaluations(const struct run_metrics *m)
{
    struct points p = {mem_alloc((size_t)(m->n + 1) * sizeof(double)),
                       mem_alloc((size_t)(m->n + 1) * sizeof(double)), 0};
    if (!p.x || !p.y) return p;
    if (m->n && isfinite(m->eval_before)) {
        p.x[p.n] = m->number[NUMBER_STEP][0] - 1;
        p.y[p.n++] = m->eval_before;
    }
    for (int64_t i = 0; i < m->n; i++) {
        if (!isfinite(m->number[NUMBER_EVAL][i])) continue;
        p.x[p.n] = m->number[NUMBER_STEP][i];
        p.y[p.n++] = m->number[NUMBER_EVAL][i];
    }
    return p;
}

static void put_loss(struct html *h, const struct run_data *r, const struct svg_mark *mark,
                     int64_t n_marks)
{
    const struct run_metrics *m = &r->metrics;
    const double *step = m->number[NUMBER_STEP];
    double *smooth = smoothed(m, NUMBER_LOSS);
    struct points e = evaluations(m);
    if (!smooth || !e.x || !e.y) h->failed = true;
    const struct svg_line line[] = {
        {"smoothed", step, smooth, smooth ? m->n : 0, 0, SVG_LINE},
        {"training step", step, m->number[NUMBER_LOSS], m->n, -1, SVG_THIN},
        {e.n ? "held-out examples" : NULL, e.x, e.y, e.x && e.y ? e.n : 0, 1, SVG_DOTS},
        {NULL, e.x, e.y, e.x && e.y ? e.n : 0, 1, SVG_DASHED},
    };
    char about[256];
    const struct loss_change c = report_loss_change(r);
    snprintf(about, sizeof about, "Line chart of the loss over %lld steps: from %.3g to %.3g.",
             (long long)m->n, c.before, c.after);
    html_raw(h, "<figure><figcaption><b>Loss</b> mean cross-entropy of a learnt token; lower is "
                "better</figcaption>\n");
    svg_lines(h, &(struct svg_chart){.about = about,
                                     .x_name = "step",
                                     .value = "loss",
                                     .from_zero = true,
                                     .line = line,
                                     .n_lines = 3 + (e.n > 1),
                                     .mark = mark,
                                     .n_marks = n_marks});
    html_raw(h, "</figure>\n");
    mem_free(smooth);
    mem_free(e.x);
    mem_free(e.y);
}

static void put_number(struct html *h, const struct run_data *r, enum run_number k,
                       const char *title, const char *words, int colour, bool log)
{
    const struct run_metrics *m = &r->metrics;
    char label[STAGES_SHOWN][LABEL], about[256];
    struct svg_mark mark[STAGES_SHOWN];
    const int64_t n = report_stage_marks(mark, label, r);
    const bool noisy = k != NUMBER_LR && m->n > 200;
    double *smooth = noisy ? smoothed(m, k) : NULL;
    if (noisy && !smooth) h->failed = true;
    const struct svg_line line[] = {
        {NULL, m->number[NUMBER_STEP], smooth ? smooth : m->number[k], m->n, colour, SVG_LINE},
        {smooth ? "a step" : NULL, m->number[NUMBER_STEP], m->number[k], smooth ? m->n : 0, -1,
         SVG_THIN}};
    for (int64_t i = 0; i < n; i++) {
        mark[i].label = ""; // the first chart names them
    }
    snprintf(about, sizeof about, "Line chart of the %s over %lld steps; the last value is %.3g.",
             title, (long long)m->n, m->number[k][m->n - 1]);
    html_raw(h, "<figure><figcaption><b>");
    html_text(h, title);
    html_raw(h, "</b> ");
    html_text(h, words);
    html_raw(h, "</figcaption>\n");
    svg_lines(h, &(struct svg_chart){.about = about,
                                     .x_name = "step",
                                     .value = title,
                                     .log_y = log,
                                     .from_zero = true,
                                     .line = line,
                                     .n_lines = 1 + (smooth != NULL),
                                     .mark = mark,
                                     .n_marks = n});
    html_raw(h, "</figure>\n");
    mem_free(smooth);
}

static bool any(const struct run_metrics *m, enum run_number k)
{
    for (int64_t i = 0; i < m->n; i++) {
        if (isfinite(m->number[k][i])) return true;
    }
    return false;
}

void report_steps(struct html *h, const struct run_data *r)
{
    char label[STAGES_SHOWN][LABEL];
    struct svg_mark mark[STAGES_SHOWN];
    html_raw(h, "<h2 id=\"training\">Training</h2>\n");
    if (!r->metrics.n) {
        html_raw(h, "<p class=\"none\">No step has been made yet.</p>\n");
        return;
    }
    put_loss(h, r, mark, report_stage_marks(mark, label, r));
    html_raw(h, "<div class=\"charts\">\n");
    put_number(h, r, NUMBER_LR, "Learning rate", "of each step", 2, false);
    if (any(&r->metrics, NUMBER_GRAD_NORM)) {
        put_number(h, r, NUMBER_GRAD_NORM, "Gradient norm", "before clipping", 5, true);
    }
    put_number(h, r, NUMBER_RATE, "Tokens a second", "prompts included", 4, false);
    if (any(&r->metrics, NUMBER_ROUTER)) {
        put_number(h, r, NUMBER_ROUTER, "Router's losses", "with their coefficients", 3, false);
    }
    html_raw(h, "</div>\n");
    put_table(h, r);
}
