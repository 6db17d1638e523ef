// eval/report.c - the page's frame, and the same numbers as CSV; the sections are in report_*.c.
#include "eval/report_parts.h"

#include "eval/page.h"

#include <math.h>
#include <string.h>

static bool finish(struct buf *out, struct html *h, struct error *err)
{
    *out = h->text;
    if (!h->failed) return true;
    buf_free(out);
    return fail(err, "no memory for the page");
}

static void put_banner(struct html *h, enum report_use use, bool going_on)
{
    const char *words = NULL;
    if (use == REPORT_SERVED) {
        words = going_on ? "Live: this page follows the run and asks for news every two seconds."
                         : "This run has ended: the page is complete and asks for news no more.";
    } else if (going_on) {
        words = "The run was going on when this page was written.";
    }
    if (!words) return;
    html_raw(h, "<p class=\"live\" role=\"status\">");
    html_raw(h, words);
    html_raw(h, "</p>\n");
}

static void put_notes(struct html *h, const struct run_data *r)
{
    const size_t n = json_array_size(r->notes);
    for (size_t i = 0; i < n; i++) {
        html_raw(h, "<p class=\"note\">Not shown: ");
        html_text(h, json_string_value(json_array_get(r->notes, i)));
        html_raw(h, "</p>\n");
    }
    if (!r->metrics.bad) return;
    html_format(h, "<p class=\"note\">%lld line%s of metrics.jsonl could not be read.</p>\n",
                (long long)r->metrics.bad, r->metrics.bad == 1 ? "" : "s");
}

bool report_page(struct buf *out, const struct run_data *r, enum report_use use, struct error *err)
{
    struct html h = {0};
    const bool going_on = r->state == RUN_GOES_ON, live = going_on && use == REPORT_SERVED;
    char title[512];
    const char *model = report_base_name(json_text_at(r->options, "model"));
    const char *dir = report_base_name(r->dir);
    snprintf(title, sizeof title, "%s%s%s", dir, *model ? ": " : "", model);
    page_begin(&h, title, live);
    html_format(&h, "<main%s>\n", live ? " data-live=\"yes\"" : "");
    put_banner(&h, use, going_on);
    report_head(&h, r);
    put_notes(&h, r);
    report_steps(&h, r);
    report_scores(&h, r);
    report_experts(&h, r);
    report_changes(&h, r);
    report_memory(&h, r);
    report_options(&h, r);
    html_raw(&h, "<footer>Made by moetune ");
    html_text(&h, MOETUNE_VERSION);
    html_raw(&h, " from the files in <code>");
    html_text(&h, r->dir);
    html_raw(&h, "</code>; this file needs nothing else, and asks nothing of a network.</footer>\n"
                 "</main>\n");
    page_end(&h, live);
    return finish(out, &h, err);
}

bool report_no_run(struct buf *out, const char *words, struct error *err)
{
    struct html h = {0};
    page_begin(&h, "no run", true);
    html_raw(&h, "<main data-live=\"yes\">\n");
    put_banner(&h, REPORT_SERVED, true);
    html_raw(&h, "<h1>No run here</h1>\n<p>");
    html_text(&h, words);
    html_raw(&h, "</p>\n</main>\n");
    page_end(&h, true);
    return finish(out, &h, err);
}

bool report_csv(struct buf *out, const struct run_data *r, struct error *err)
{
    static const char names[] = "step,stage,loss,lr,grad_norm,tokens,tokens_per_second,seconds,"
                                "eval_loss,router_loss\n";
    struct html h = {0};
    html_raw(&h, names);
    for (int64_t i = 0; i < r->metrics.n; i++) {
        for (int k = 0; k < NUMBER_COUNT; k++) {
            const double x = r->metrics.number[k][i];
            if (k) html_raw(&h, ",");
            if (isfinite(x)) html_real(&h, x, k == NUMBER_STEP || k == NUMBER_TOKENS ? 15 : 9);
        }
        html_raw(&h, "\n");
    }
    return finish(out, &h, err);
}
