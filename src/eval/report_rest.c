// eval/report_rest.c - scores before and after, samples, the memory's plan, and the options.
#include "eval/report_parts.h"

#include <math.h>
#include <string.h>

enum { SAMPLES = 100, EVALUATIONS = 8 };

static void put_score(struct html *h, const char *when, double step, double loss)
{
    html_raw(h, "<tr><th scope=\"row\">");
    html_text(h, when);
    html_raw(h, "</th><td>");
    html_count(h, step);
    html_raw(h, "</td><td>");
    html_fixed(h, loss, 4);
    html_raw(h, "</td><td>");
    html_real(h, exp(loss), 4);
    html_raw(h, "</td></tr>\n");
}

static void put_evaluations(struct html *h, const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    int64_t count = 0, shown = 0, seen = 0;
    for (int64_t i = 0; i < m->n; i++) {
        count += isfinite(m->number[NUMBER_EVAL][i]);
    }
    const int64_t every = (count - 1) / EVALUATIONS + 1;
    html_raw(h, "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\" class=\"text\">held-out "
                "examples</th><th scope=\"col\">after step</th><th scope=\"col\">loss</th>"
                "<th scope=\"col\">perplexity</th></tr></thead>\n<tbody>\n");
    if (isfinite(m->eval_before)) put_score(h, "before", 0, m->eval_before);
    for (int64_t i = 0; i < m->n; i++) {
        if (!isfinite(m->number[NUMBER_EVAL][i])) continue;
        seen++;
        if (seen != count && seen % every != 0) continue;
        put_score(h, seen == count ? (r->state == RUN_GOES_ON ? "newest" : "after") : "during",
                  m->number[NUMBER_STEP][i], m->number[NUMBER_EVAL][i]);
        shown++;
    }
    html_raw(h, "</tbody></table></div>\n");
    if (shown < count) {
        html_format(h, "<p class=\"note\">%lld of %lld evaluations.</p>\n", (long long)shown,
                    (long long)count);
    }
}

static void put_value(struct html *h, const json_t *v)
{
    if (json_is_string(v)) {
        html_text(h, json_string_value(v));
    } else if (json_is_integer(v)) {
        html_format(h, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        html_real(h, json_real_value(v), 6);
    } else if (json_is_boolean(v)) {
        html_raw(h, json_is_true(v) ? "yes" : "no");
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v) && i < 20; i++) {
            if (i) html_raw(h, ", ");
            if (!json_is_array(json_array_get(v, i))) put_value(h, json_array_get(v, i));
        }
    } else {
        html_raw(h, "&ndash;");
    }
}

// What eval --json said, put into the folder by the user: file, and each number or word of its line.
static void put_evals(struct html *h, const json_t *evals)
{
    for (size_t i = 0; i < json_array_size(evals); i++) {
        const json_t *pair = json_array_get(evals, i);
        json_t *line = json_array_get(pair, 1);
        const char *key;
        json_t *v;
        html_raw(h, "<p><code>");
        html_text(h, json_string_value(json_array_get(pair, 0)));
        html_raw(h, "</code>: ");
        const char *comma = "";
        json_object_foreach(line, key, v)
        {
            if (json_is_array(v) || json_is_object(v)) continue;
            html_raw(h, comma);
            html_text(h, key);
            html_raw(h, " <b>");
            put_value(h, v);
            html_raw(h, "</b>");
            comma = ", ";
        }
        html_raw(h, "</p>\n");
    }
}

static void put_text(struct html *h, const char *name, const char *text)
{
    if (!text) return;
    html_raw(h, "<span class=\"note\">");
    html_raw(h, name);
    html_raw(h, "</span><pre>");
    html_text_part(h, text, strnlen(text, 4000));
    html_raw(h, strlen(text) > 4000 ? " &hellip;</pre>\n" : "</pre>\n");
}

static void put_samples(struct html *h, const json_t *samples)
{
    const json_t *list = json_object_get(samples, "samples");
    if (!json_array_size(list)) return;
    html_raw(h, "<h3>Samples</h3>\n<p>Greedy answers of the result");
    if (json_text_at(samples, "from")) {
        html_raw(h, " to examples of ");
        html_text(h, json_text_at(samples, "from"));
    }
    html_raw(h, ".</p>\n");
    for (size_t i = 0; i < json_array_size(list) && i < SAMPLES; i++) {
        const json_t *s = json_array_get(list, i);
        html_raw(h, "<div class=\"sample\">");
        put_text(h, "prompt", json_text_at(s, "prompt"));
        put_text(h, "answer", json_text_at(s, "answer"));
        put_text(h, "reference", json_text_at(s, "reference"));
        html_raw(h, "</div>\n");
    }
}

void report_scores(struct html *h, const struct run_data *r)
{
    const bool evaluated =
        isfinite(report_last_eval(r)) || (r->metrics.n && isfinite(r->metrics.eval_before));
    html_raw(h, "<h2 id=\"scores\">Before and after</h2>\n");
    if (evaluated) {
        put_evaluations(h, r);
    } else {
        html_raw(h, "<p class=\"none\">The run had no held-out examples (--validation), or has not "
                    "evaluated yet.</p>\n");
    }
    put_evals(h, r->evals);
    put_samples(h, r->samples);
}

bool report_has_memory(const struct run_data *r)
{
    return json_is_object(json_object_get(r->plan, "memory"));
}

void report_memory(struct html *h, const struct run_data *r)
{
    json_t *memory = json_object_get(r->plan, "memory"), *v;
    const char *key;
    double most = 0;
    if (!report_has_memory(r)) return;
    json_object_foreach(memory, key, v)
    {
        if (json_is_number(v) && json_number_value(v) > most) most = json_number_value(v);
    }
    html_raw(h, "<h2 id=\"memory\">Memory</h2>\n<p>As planned before the run: <b>");
    html_bytes(h, json_number_at(r->plan, "total"));
    html_raw(h, "</b> of its own, and ");
    html_bytes(h, json_number_at(r->plan, "mapped"));
    html_raw(h, " of weights mapped from their files, which the system shares and can drop.</p>\n"
                "<table class=\"bars\"><thead><tr><th scope=\"col\" class=\"text\">purpose</th>"
                "<th scope=\"col\"></th><th scope=\"col\">memory</th></tr></thead>\n<tbody>\n");
    json_object_foreach(memory, key, v)
    {
        if (!json_is_number(v)) continue;
        html_raw(h, "<tr><th scope=\"row\">");
        html_text(h, key);
        html_raw(h, "</th><td class=\"fill\">");
        svg_bar(h, most > 0 ? json_number_value(v) / most : 0, 4);
        html_raw(h, "</td><td>");
        html_bytes(h, json_number_value(v));
        html_raw(h, "</td></tr>\n");
    }
    html_raw(h, "</tbody></table>\n<p class=\"note\">On the disk: at most ");
    html_bytes(h, json_number_at(r->plan, "disk"));
    html_raw(h, ", of which a checkpoint is ");
    html_bytes(h, json_number_at(r->plan, "checkpoint_bytes"));
    html_raw(h, " and the result ");
    html_bytes(h, json_number_at(r->plan, "export_bytes"));
    html_raw(h, ".</p>\n");
}

static void put_modules(struct html *h, const json_t *modules)
{
    if (!json_array_size(modules)) return;
    html_raw(h, "<p>What learns: ");
    for (size_t i = 0; i < json_array_size(modules) && i < 40; i++) {
        const json_t *o = json_array_get(modules, i);
        const char *name = json_text_at(o, "name");
        html_raw(h, i ? ", <code>" : "<code>");
        html_text(h, name ? name : "");
        html_raw(h, "</code>&nbsp;(");
        html_count(h, json_number_at(o, "parameters"));
        html_raw(h, ")");
    }
    html_raw(h, ".</p>\n");
}

void report_options(struct html *h, const struct run_data *r)
{
    const char *key;
    json_t *v;
    if (!r->options) return;
    html_raw(h, "<h2 id=\"options\">Options</h2>\n");
    put_modules(h, json_object_get(r->plan, "modules"));
    html_raw(
        h,
        "<p>All options as they were resolved (<code>run.json</code>; <code>--config</code> takes "
        "that file).</p>\n<details open><summary>Options</summary><table><tbody>\n");
    json_object_foreach(r->options, key, v)
    {
        if (json_is_null(v)) continue;
        html_raw(h, "<tr><th scope=\"row\" class=\"mono\">");
        html_text(h, key);
        html_raw(h, "</th><td class=\"text mono\">");
        put_value(h, v);
        html_raw(h, "</td></tr>\n");
    }
    html_raw(h, "</tbody></table></details>\n");
}
