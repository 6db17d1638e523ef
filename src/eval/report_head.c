// eval/report_head.c - what a reader sees first: what was trained, on what, how it ended, how far the loss fell.
#include "eval/report_parts.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *class, *word;
} states[] = {
    [RUN_GOES_ON] = {"running", "running"},   [RUN_DONE] = {"done", "finished"},
    [RUN_EARLY] = {"done", "finished early"}, [RUN_STOPPED] = {"stopped", "stopped, can go on"},
    [RUN_FAILED] = {"stopped", "failed"},     [RUN_LOST] = {"stopped", "broken off"},
};

const char *report_base_name(const char *path)
{
    if (!path) return "";
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    const char *name = path;
    for (size_t i = 0; i + 1 < n; i++) {
        if (path[i] == '/') name = path + i + 1;
    }
    if (strlen(name) > 6 || name == path) return name;
    for (name--; name > path && name[-1] != '/';
         name--) { // "model" says little: the folder before it, too
    }
    return name;
}

double report_last_eval(const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    for (int64_t i = m->n - 1; i >= 0; i--) {
        if (isfinite(m->number[NUMBER_EVAL][i])) return m->number[NUMBER_EVAL][i];
    }
    return (double)NAN;
}

static double mean_loss(const struct run_metrics *m, int64_t first, int64_t n)
{
    double sum = 0;
    int64_t found = 0;
    for (int64_t i = first; i < first + n; i++) {
        if (!isfinite(m->number[NUMBER_LOSS][i])) continue;
        sum += m->number[NUMBER_LOSS][i];
        found++;
    }
    return found ? sum / (double)found : (double)NAN;
}

struct loss_change report_loss_change(const struct run_data *r)
{
    const struct run_metrics *m = &r->metrics;
    struct loss_change c = {m->n ? m->eval_before : (double)NAN, report_last_eval(r), true, 0};
    if (isfinite(c.before) && isfinite(c.after)) return c;
    c.validation = false;
    c.steps = m->n / 20 < 1 ? 1 : m->n / 20 > 50 ? 50 : m->n / 20;
    if (c.steps > m->n) c.steps = m->n;
    c.before = mean_loss(m, 0, c.steps);
    c.after = mean_loss(m, m->n - c.steps, c.steps);
    return c;
}

static double total(const struct run_data *r, enum run_number k)
{
    double sum = 0;
    for (int64_t i = 0; i < r->metrics.n; i++) {
        const double x = r->metrics.number[k][i];
        if (isfinite(x)) sum += x;
    }
    return sum;
}

static double steps_of(const struct run_data *r)
{
    const double steps = json_number_at(r->result, "steps");
    return isfinite(steps) ? steps : json_number_at(r->plan, "steps");
}

static void put_files(struct html *h, const json_t *list)
{
    const size_t n = json_array_size(list);
    for (size_t i = 0; i < n && i < 3; i++) {
        html_raw(h, i ? ", <code>" : "<code>");
        html_text(h, report_base_name(json_string_value(json_array_get(list, i))));
        html_raw(h, "</code>");
    }
    if (n > 3) html_format(h, " and %zu more", n - 3);
}

static void put_what(struct html *h, const struct run_data *r)
{
    const json_t *data = json_object_get(r->plan, "data");
    const char *routing = json_text_at(r->options, "routing");
    const char *tuning = json_text_at(r->options, "tuning");
    const double learning = json_number_at(r->plan, "learning");
    const double parameters = json_number_at(r->plan, "parameters");
    const double examples = json_number_at(data, "examples");
    html_raw(h, r->state == RUN_GOES_ON ? "Trains <code>" : "Trained <code>");
    html_text(h, report_base_name(json_text_at(r->options, "model")));
    html_raw(h, "</code> on ");
    if (isfinite(examples)) {
        html_count(h, examples);
        html_raw(h, " examples of ");
    }
    put_files(h, json_object_get(r->options, "data"));
    if (tuning && routing) {
        html_raw(h, ", tuning <b>");
        html_text(h, tuning);
        html_raw(h, "</b>, routing <b>");
        html_text(h, routing);
        html_raw(h, "</b>");
    }
    html_raw(h, ".");
    if (!(parameters > 0)) return;
    html_raw(h, learning < parameters ? " Of its " : " All of its ");
    html_count(h, parameters);
    html_raw(h, " parameters");
    if (learning < parameters) {
        html_raw(h, json_is_true(json_object_get(r->plan, "at_most")) ? " at most " : " ");
        html_count(h, learning);
        html_raw(h, " (");
        html_real(h, 100 * learning / parameters, 3);
        html_raw(h, " %) learn");
    } else {
        html_raw(h, " learn");
    }
    html_raw(h, ".");
}

static void put_verdict(struct html *h, const struct run_data *r)
{
    const struct loss_change c = report_loss_change(r);
    if (!isfinite(c.before) || !isfinite(c.after)) {
        html_raw(h, "No step has been made yet.");
        return;
    }
    const double change = 100 * (c.after - c.before) / c.before;
    const bool steady = fabs(change) < 0.5;
    html_raw(h, c.validation ? "The loss on held-out examples " : "The training loss ");
    html_raw(h, steady ? "stayed at " : change < 0 ? "fell from " : "rose from ");
    html_raw(h, "<b>");
    html_fixed(h, c.before, 3);
    html_raw(h, steady ? "</b> (now <b>" : "</b> to <b>");
    html_fixed(h, c.after, 3);
    html_raw(h, "</b>");
    if (steady) html_raw(h, ")");
    if (!steady && c.before > 0) {
        html_raw(h, ", by ");
        html_real(h, fabs(change), fabs(change) >= 99.5 ? 3 : 2);
        html_raw(h, " %");
    }
    if (!c.validation && c.steps > 1) {
        html_format(h, " (means over %lld steps at each end)", (long long)c.steps);
    }
    html_raw(h, ", in ");
    html_count(h, (double)r->metrics.n);
    html_format(h, " step%s and ", r->metrics.n == 1 ? "" : "s");
    html_seconds(h, total(r, NUMBER_SECONDS));
    html_raw(h, " of computing.");
}

static void put_ending(struct html *h, const struct run_data *r)
{
    const double steps = steps_of(r), best = json_number_at(r->result, "best_step");
    const char *why = json_text_at(r->result, "error");
    switch (r->state) {
    case RUN_FAILED:
        html_raw(h, "<p><b>It failed:</b> <code>");
        html_text(h, why ? why : "no reason was written");
        html_raw(h, "</code></p>\n");
        break;
    case RUN_STOPPED:
        html_raw(h, r->metrics.n ? "<p>It was stopped by a signal and saved; <code>"
                                 : "<p>It was stopped by a signal before its first step; <code>");
        html_raw(h, "moetune train --resume --out ");
        html_text(h, r->dir);
        html_raw(h, r->metrics.n ? "</code> goes on.</p>\n" : "</code> starts it.</p>\n");
        break;
    case RUN_LOST:
        html_raw(
            h, "<p>It ended without a word: killed, or the machine went down. <code>moetune train "
               "--resume --out ");
        html_text(h, r->dir);
        html_raw(h, "</code> goes on from its last checkpoint.</p>\n");
        break;
    case RUN_EARLY:
        html_raw(h, "<p>It ended before its ");
        html_count(h, steps);
        html_raw(h, " steps, since the loss on held-out examples improved no more.</p>\n");
        break;
    default:
        break;
    }
    if (best > 0 && best < (double)r->metrics.n) {
        html_raw(h, "<p>The lowest loss on held-out examples was ");
        html_fixed(h, json_number_at(r->result, "best_loss"), 3);
        html_raw(h, ", after step ");
        html_count(h, best);
        html_raw(h, ".</p>\n");
    }
}

static void put_figure_open(struct html *h)
{
    html_raw(h, "<li><b>");
}

static void put_figure_close(struct html *h, const char *words)
{
    html_raw(h, "</b><span>");
    html_text(h, words);
    html_raw(h, "</span></li>\n");
}

static void put_figures(struct html *h, const struct run_data *r)
{
    const struct loss_change c = report_loss_change(r);
    const double steps = steps_of(r), tokens = total(r, NUMBER_TOKENS);
    const double seconds = total(r, NUMBER_SECONDS), memory = json_number_at(r->plan, "total");
    html_raw(h, "<ul class=\"figures\">\n");
    if (isfinite(c.before) && isfinite(c.after)) {
        put_figure_open(h);
        html_fixed(h, c.before, 2);
        html_raw(h, " &rarr; ");
        html_fixed(h, c.after, 2);
        put_figure_close(h, c.validation ? "loss on held-out examples" : "training loss");
    }
    put_figure_open(h);
    html_count(h, (double)r->metrics.n);
    if (steps > (double)r->metrics.n) {
        html_raw(h, " / ");
        html_count(h, steps);
    }
    put_figure_close(h, "steps");
    put_figure_open(h);
    html_count(h, tokens);
    put_figure_close(h, "tokens");
    put_figure_open(h);
    html_seconds(h, seconds);
    put_figure_close(h, "of computing");
    if (seconds > 0) {
        put_figure_open(h);
        html_count(h, tokens / seconds);
        put_figure_close(h, "tokens a second");
    }
    if (isfinite(memory)) {
        put_figure_open(h);
        html_bytes(h, memory);
        put_figure_close(h, "of memory, as planned");
    }
    if (r->metrics.skipped > 0) {
        put_figure_open(h);
        html_count(h, (double)r->metrics.skipped);
        put_figure_close(h, "steps skipped: not finite");
    }
    html_raw(h, "</ul>\n");
}

void report_head(struct html *h, const struct run_data *r)
{
    const char *finished = json_text_at(r->result, "finished");
    const char *model = report_base_name(json_text_at(r->options, "model"));
    html_format(h, "<span class=\"state %s\">%s</span>\n<h1>", states[r->state].class,
                states[r->state].word);
    html_text(h, *model ? model : "A run");
    html_raw(h, " &rarr; ");
    html_text(h, report_base_name(r->dir));
    html_raw(h, "</h1>\n<p class=\"lead\">");
    if (r->options) put_what(h, r);
    html_raw(h, "</p>\n<p class=\"lead\">");
    put_verdict(h, r);
    html_raw(h, "</p>\n");
    put_ending(h, r);
    if (finished) {
        html_raw(h, "<p class=\"note\">Ended "); // 2026-11-24T10:26:21Z
        html_text_part(h, finished, strcspn(finished, "T"));
        if (strlen(finished) > 16) {
            html_raw(h, " at ");
            html_text_part(h, finished + 11, 5);
            html_raw(h, " UTC");
        }
        html_raw(h, "</p>\n");
    }
    put_figures(h, r);
    html_raw(h, "<nav aria-label=\"Sections\"><a href=\"#training\">Training</a>"
                "<a href=\"#scores\">Before and after</a>");
    if (report_has_experts(r)) html_raw(h, "<a href=\"#experts\">Experts</a>");
    if (report_has_changes(r)) html_raw(h, "<a href=\"#changes\">What moved</a>");
    if (report_has_memory(r)) html_raw(h, "<a href=\"#memory\">Memory</a>");
    if (r->options) html_raw(h, "<a href=\"#options\">Options</a>");
    html_raw(h, "</nav>\n");
}
