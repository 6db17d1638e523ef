// results/tables_runs.c - tables of the fine-tuning runs (tables.h): a row a method, means over seeds.
#include "tables.h"

#include <math.h>
#include <string.h>

const char not_run[] = "Not run yet.\n";

bool put_sample(struct buf *out, const struct sample *x, int decimals, bool sign)
{
    const double mean = sample_mean(x), error = sample_error(x);
    if (!x->n) return buf_puts(out, " - |");
    if (!buf_printf(out, sign ? " %+.*f" : " %.*f", decimals, mean)) return false;
    if (isfinite(error) && !buf_printf(out, " ± %.*f", decimals, error)) return false;
    return buf_puts(out, " |");
}

bool put_number(struct buf *out, double x, int decimals)
{
    return isfinite(x) ? buf_printf(out, " %.*f |", decimals, x) : buf_puts(out, " - |");
}

struct column {
    const char *head;
    struct figure figure;
    bool difference; // from topk, paired by seed
};

static bool put_head(struct buf *out, const char *first, const struct column *c, int64_t n)
{
    bool ok = buf_printf(out, "| %s |", first);
    for (int64_t i = 0; ok && i < n; i++) {
        ok = buf_printf(out, " %s |", c[i].head);
    }
    ok = ok && buf_puts(out, "\n|---|");
    for (int64_t i = 0; ok && i < n; i++) {
        ok = buf_puts(out, "---|");
    }
    return ok && buf_puts(out, "\n");
}

static bool put_cell(struct buf *out, const struct study *s, const char *task, const char *method,
                     const struct column *c)
{
    struct sample own, topk, x;
    sample_of(&own, s, s->runs, task, method, -1, &c->figure);
    if (!c->difference) return put_sample(out, &own, c->figure.decimals, false);
    if (strcmp(method, "topk") == 0) return buf_puts(out, " |");
    sample_of(&topk, s, s->runs, task, "topk", -1, &c->figure);
    sample_minus(&x, &own, &topk);
    return put_sample(out, &x, c->figure.decimals, true);
}

// The base's own line: figures that it has, without a difference.
static bool put_base(struct buf *out, const struct study *s, const char *task,
                     const struct column *c, int64_t n)
{
    const json_t *line = base_on(s, task);
    if (!line) return true;
    bool ok = buf_puts(out, "| base, as it is |");
    for (int64_t i = 0; ok && i < n; i++) {
        const struct figure *f = &c[i].figure;
        const double value = f->key && !c[i].difference ? figure_of(s, line, f) : (double)NAN;
        ok = isfinite(value) ? put_number(out, value, f->decimals) : buf_puts(out, " |");
    }
    return ok && buf_puts(out, "\n");
}

static bool put_methods(struct buf *out, const struct study *s, const char *task,
                        const struct column *c, int64_t n)
{
    const char *method[MOST_METHODS];
    const int64_t methods = names_in(method, MOST_METHODS, s->runs, "method");
    if (!methods) return buf_puts(out, not_run);
    bool ok = put_head(out, "method", c, n) && put_base(out, s, task, c, n);
    for (int64_t m = 0; ok && m < methods; m++) {
        ok = buf_printf(out, "| %s |", method[m]);
        for (int64_t i = 0; ok && i < n; i++) {
            ok = put_cell(out, s, task, method[m], &c[i]);
        }
        ok = ok && buf_puts(out, "\n");
    }
    return ok;
}

enum { HEAD_KINDS = 5, TAIL_KINDS = 5 };

bool table_learnt(struct buf *out, const struct study *s, const char *task)
{
    const int64_t K = (int64_t)json_array_size(s->kinds);
    const int64_t head = K < HEAD_KINDS ? K : HEAD_KINDS,
                  tail = K < TAIL_KINDS ? 0 : K - TAIL_KINDS;
    const struct column columns[] = {
        {"exact %", {"exact", 0, 0, 100, 1}, false},
        {"− topk", {"exact", 0, 0, 100, 1}, true},
        {"loss", {"loss", 0, 0, 1, 3}, false},
        {"− topk", {"loss", 0, 0, 1, 3}, true},
        {"forgotten, all kinds", {NULL, 0, K, 1, 2}, false},
        {"− topk", {NULL, 0, K, 1, 2}, true},
        {"head kinds", {NULL, 0, head, 1, 2}, false},
        {"tail kinds", {NULL, tail, K, 1, 2}, false},
    };
    return put_methods(out, s, task, columns, sizeof columns / sizeof *columns);
}

bool table_routed(struct buf *out, const struct study *s, const char *task)
{
    static const struct column columns[] = {
        {"tail before %", {"tail_before", 0, 0, 100, 1}, false},
        {"tail after %", {"tail_after", 0, 0, 100, 1}, false},
        {"always on %", {"always", 0, 0, 100, 1}, false},
        {"of them in the tail %", {"condensers_in_tail", 0, 0, 100, 0}, false},
        {"KL", {"kl", 0, 0, 1, 3}, false},
        {"changed choices %", {"changed", 0, 0, 100, 1}, false},
        {"gini", {"gini", 0, 0, 1, 3}, false},
        {"weights kept", {"weights_kept", 0, 0, 1, 3}, false},
        {"weights alike", {"weights_cosine", 0, 0, 1, 4}, false},
        {"outputs alike", {"outputs_cosine", 0, 0, 1, 4}, false},
    };
    return put_methods(out, s, task, columns, sizeof columns / sizeof *columns);
}

bool table_cost(struct buf *out, const struct study *s, const char *task)
{
    static const struct column columns[] = {
        {"rate", {"lr", 0, 0, 1, 5}, false},
        {"values that learn, thousands", {"learning", 0, 0, 1e-3, 0}, false},
        {"memory, MB", {"memory", 0, 0, 1e-6, 0}, false},
        {"seconds", {"wall", 0, 0, 1, 1}, false},
        {"− topk", {"wall", 0, 0, 1, 1}, true},
        {"of a core", {"cpu", 0, 0, 1, 1}, false},
    };
    return put_methods(out, s, task, columns, sizeof columns / sizeof *columns);
}

bool table_forgotten(struct buf *out, const struct study *s, const char *task)
{
    struct column columns[MOST_KINDS];
    const size_t K = json_array_size(s->kinds);
    for (size_t k = 0; k < K; k++) {
        const char *kind = text_of(json_array_get(s->kinds, k), "kind");
        columns[k] = (struct column){kind, {NULL, (int64_t)k, (int64_t)k + 1, 1, 2}, false};
    }
    return put_methods(out, s, task, columns, (int64_t)K);
}

// A point of a pruning study as a figure: prune[i] is [order, per cent, loss, accuracy].
static double point_of(const json_t *line, size_t i, size_t what)
{
    const json_t *row = json_array_get(json_object_get(line, "prune"), i);
    return json_number_value(json_array_get(row, what));
}

static bool put_points(struct buf *out, const struct study *s, const char *task, const char *method,
                       size_t points)
{
    bool ok = true;
    for (size_t i = 0; ok && i < points; i++) {
        struct sample x = {.n = 0};
        json_t *line;
        size_t n;
        json_array_foreach(s->runs, n, line)
        {
            if (strcmp(text_of(line, "task"), task) == 0 &&
                strcmp(text_of(line, "method"), method) == 0 && x.n < MOST_SEEDS) {
                x.value[x.n++] = 100 * point_of(line, i, 3);
            }
        }
        ok = put_sample(out, &x, 1, false);
    }
    return ok && buf_puts(out, "\n");
}

bool table_pruned(struct buf *out, const struct study *s, const char *task)
{
    const char *method[MOST_METHODS];
    const int64_t methods = names_in(method, MOST_METHODS, s->runs, "method");
    const json_t *base = base_on(s, task), *row;
    const json_t *rows = json_object_get(base, "prune");
    const size_t points = json_array_size(rows);
    size_t i;
    if (!points) return buf_puts(out, not_run);
    bool ok = buf_puts(out, "| method |");
    json_array_foreach(rows, i, row)
    {
        ok = ok && buf_printf(out, " %s used %g %% |", json_string_value(json_array_get(row, 0)),
                              json_number_value(json_array_get(row, 1)));
    }
    ok = ok && buf_puts(out, "\n|---|");
    for (i = 0; ok && i < points; i++) {
        ok = buf_puts(out, "---|");
    }
    ok = ok && buf_puts(out, "\n| base, as it is |");
    for (i = 0; ok && i < points; i++) {
        ok = put_number(out, 100 * point_of(base, i, 3), 1);
    }
    ok = ok && buf_puts(out, "\n");
    for (int64_t m = 0; ok && m < methods; m++) {
        ok = buf_printf(out, "| %s |", method[m]) && put_points(out, s, task, method[m], points);
    }
    return ok;
}
