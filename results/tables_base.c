// results/tables_base.c - tables of the base model, of the search for rates, of the sweep and of the time (tables.h).
#include "tables.h"

#include <math.h>
#include <string.h>

enum { MOST_EXPERTS = 256 };

static const json_t *facts_of(const struct study *s)
{
    json_t *line;
    size_t i;
    json_array_foreach(s->base, i, line)
    {
        if (strcmp(text_of(line, "what"), "facts") == 0) return line;
    }
    return NULL;
}

bool table_facts(struct buf *out, const struct study *s, const char *task)
{
    (void)task;
    const json_t *f = facts_of(s);
    if (!f) return buf_puts(out, not_run);
    return buf_printf(out,
                      "Commit %s, on %.0f cores of %s. The base model has %.0f parameters and was "
                      "trained for %.0f steps, on %.1f million tokens at most; fine-tuning has "
                      "%.0f examples and %.0f steps.\n",
                      text_of(f, "commit"), number_of(f, "cores"), text_of(f, "processor"),
                      number_of(f, "parameters"), number_of(f, "steps"),
                      number_of(f, "tokens") / 1e6, number_of(f, "examples"),
                      number_of(f, "fine_tuning_steps"));
}

// As many experts used alike have this entropy; the mean over layers.
static double effective(const json_t *line)
{
    double sum = 0;
    for (size_t l = 0; l < layers_in(line); l++) {
        double entropy = 0;
        for (size_t e = 0; e < experts_in(line); e++) {
            const double p = use_of(line, l, e);
            if (p > 0) entropy -= p * log(p);
        }
        sum += exp(entropy);
    }
    return sum / (double)layers_in(line);
}

// The share of a kind's load that lies on the half of the experts that the mix uses least; the mean over layers.
static double on_tail(const json_t *line, const json_t *mix)
{
    size_t order[MOST_EXPERTS];
    double sum = 0;
    const size_t E = experts_in(mix);
    if (E > MOST_EXPERTS || experts_in(line) != E) return (double)NAN;
    for (size_t l = 0; l < layers_in(mix); l++) {
        order_of(order, mix, l);
        for (size_t i = E - E / 2; i < E; i++) {
            sum += use_of(line, l, order[i]);
        }
    }
    return sum / (double)layers_in(mix);
}

// Experts of all layers of which the kind has more than half, were all kinds alike frequent.
static int owned(const struct study *s, const char *model, int64_t kind, size_t layer)
{
    const json_t *any = json_array_get(s->kinds, 0);
    int n = 0;
    for (size_t e = 0; e < experts_in(any); e++) {
        double part;
        const int64_t owner = owner_of(s, model, layer, e, &part);
        n += owner >= 0 && (kind < 0 || owner == kind) && part > 0.5;
    }
    return n;
}

// The loss without so many per cent of a kind's least used experts.
static double without(const json_t *line, double percent)
{
    json_t *row;
    size_t i;
    json_array_foreach(json_object_get(line, "prune"), i, row)
    {
        if (strcmp(json_string_value(json_array_get(row, 0)), "least") == 0 &&
            fabs(json_number_value(json_array_get(row, 1)) - percent) < 0.5) {
            return json_number_value(json_array_get(row, 2));
        }
    }
    return (double)NAN;
}

static bool put_without(struct buf *out, const json_t *line)
{
    return put_number(out, number_of(line, "loss"), 3) && put_number(out, without(line, 50), 3) &&
           put_number(out, without(line, 75), 3) && put_number(out, effective(line), 1);
}

bool table_kinds(struct buf *out, const struct study *s, const char *task)
{
    (void)task;
    const json_t *mix = base_on(s, "mix"), *line;
    size_t k;
    if (!mix || !json_array_size(s->kinds)) return buf_puts(out, not_run);
    bool ok =
        buf_puts(out, "| kind | share of documents % | loss, untrained | loss, base | with half of "
                      "the experts | with a quarter | experts in use | load on the mix's tail % | "
                      "experts of its own |\n"
                      "|---|---|---|---|---|---|---|---|---|\n");
    json_array_foreach(s->kinds, k, line)
    {
        const char *kind = text_of(line, "kind");
        int own = 0;
        for (size_t l = 0; l < layers_in(line); l++) {
            own += owned(s, "model", (int64_t)k, l);
        }
        ok = ok && buf_printf(out, "| %s |", kind) &&
             put_number(out, 100 * number_of(line, "share"), 1) &&
             put_number(out, number_of(kind_line(s, "random", kind), "loss"), 2) &&
             put_without(out, line) && put_number(out, 100 * on_tail(line, mix), 1) &&
             buf_printf(out, " %d |\n", own);
    }
    return ok && buf_puts(out, "| the mix | 100.0 | - |") && put_without(out, mix) &&
           put_number(out, 100 * on_tail(mix, mix), 1) && buf_puts(out, " - |\n");
}

// The fewest experts that hold so much of the mix's load in a layer.
static int cover(const json_t *mix, size_t layer, double share)
{
    size_t order[MOST_EXPERTS];
    double sum = 0;
    int n = 0;
    order_of(order, mix, layer);
    while ((size_t)n < experts_in(mix) && sum < share - 1e-9) {
        sum += use_of(mix, layer, order[n++]);
    }
    return n;
}

static double gini(const json_t *line, size_t layer)
{
    size_t order[MOST_EXPERTS];
    const size_t E = experts_in(line);
    double sum = 0, cumulated = 0;
    order_of(order, line, layer);
    for (size_t i = E; i-- > 0;) {
        sum += use_of(line, layer, order[i]);
        cumulated += sum;
    }
    return ((double)E + 1 - 2 * cumulated / sum) / (double)E;
}

bool table_layers(struct buf *out, const struct study *s, const char *task)
{
    (void)task;
    const json_t *mix = base_on(s, "mix");
    const size_t K = json_array_size(s->kinds), E = experts_in(mix);
    if (!mix || !K || E > MOST_EXPERTS) return buf_puts(out, not_run);
    bool ok =
        buf_puts(out, "| layer | gini | super experts: 50 % | 80 % | 95 % | long tail | bits on "
                      "the kind | untrained | experts of one kind | untrained |\n"
                      "|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t l = 0; ok && l < layers_in(mix); l++) {
        ok = buf_printf(out, "| %zu |", l) && put_number(out, gini(mix, l), 3) &&
             buf_printf(out, " %d | %d | %d | %d |", cover(mix, l, 0.5), cover(mix, l, 0.8),
                        cover(mix, l, 0.95), (int)E - cover(mix, l, 0.95)) &&
             put_number(out, kinds_information(s, "model", l), 2) &&
             put_number(out, kinds_information(s, "random", l), 2) &&
             buf_printf(out, " %d | %d |\n", owned(s, "model", -1, l), owned(s, "random", -1, l));
    }
    return ok && buf_printf(out,
                            "\n%zu experts a layer; the choice of one can tell %.2f bits about the "
                            "kind at most.\n",
                            E, log2((double)K));
}

// "5e-4: 0.123, **1e-3: 0.100**, ...", rates ascending.
static bool put_rates(struct buf *out, const struct study *s, const char *task, const char *method,
                      double rank)
{
    double last = 0, best_rate = 0, best = (double)INFINITY;
    bool ok = true;
    for (int pass = 0; ok; pass++) {
        const json_t *next = NULL;
        json_t *line;
        size_t i;
        json_array_foreach(s->search, i, line)
        {
            const double rate = number_of(line, "lr"), valid = number_of(line, "valid");
            if (strcmp(text_of(line, "task"), task) != 0 ||
                strcmp(text_of(line, "method"), method) != 0 ||
                fabs(number_of(line, "rank") - rank) > 0.5) {
                continue;
            }
            if (pass == 0 && valid < best) {
                best = valid;
                best_rate = rate;
            }
            if (rate > last && (!next || rate < number_of(next, "lr"))) next = line;
        }
        if (!next) break;
        if (pass == 0) continue; // the first pass finds the best
        const char *mark = fabs(number_of(next, "lr") - best_rate) < 1e-12 ? "**" : "";
        ok = buf_printf(out, "%s%s%g: %.3f%s", last > 0 ? ", " : " ", mark, number_of(next, "lr"),
                        number_of(next, "valid"), mark);
        last = number_of(next, "lr");
    }
    return ok && buf_puts(out, " |");
}

bool table_search(struct buf *out, const struct study *s, const char *task)
{
    (void)task;
    const char *name[MOST_METHODS], *of[8];
    const int64_t methods = names_in(name, MOST_METHODS, s->search, "method");
    const int64_t n = names_in(of, 8, s->runs, "task");
    if (!methods || !n) return buf_puts(out, not_run);
    bool ok = buf_puts(out, "| method |");
    for (int64_t t = 0; ok && t < n; t++) {
        ok = buf_printf(out, " %s: rate: validation loss |", of[t]);
    }
    ok = ok && buf_puts(out, n > 1 ? "\n|---|---|---|\n" : "\n|---|---|\n");
    for (int64_t m = 0; ok && m < methods; m++) {
        ok = buf_printf(out, "| %s |", name[m]);
        for (int64_t t = 0; ok && t < n; t++) {
            ok = put_rates(out, s, of[t], name[m], number_of(json_array_get(s->runs, 0), "rank"));
        }
        ok = ok && buf_puts(out, "\n");
    }
    return ok;
}

// A row of the sweep: of `from`, the sweep's own lines or, at the main size, those of the runs.
static bool put_size(struct buf *out, const struct study *s, const json_t *from, const char *task,
                     const char *method, double rank)
{
    static const struct figure figures[] = {{"learning", 0, 0, 1e-3, 0},
                                            {"lr", 0, 0, 1, 5},
                                            {"exact", 0, 0, 100, 1},
                                            {"loss", 0, 0, 1, 3}};
    struct sample x;
    sample_of(&x, s, from, task, method, rank, &figures[2]);
    if (!x.n) return true;
    bool ok = buf_printf(out, "| %s | %.0f |", method, rank);
    for (size_t i = 0; ok && i < sizeof figures / sizeof *figures; i++) {
        sample_of(&x, s, from, task, method, rank, &figures[i]);
        ok = i < 2 ? put_number(out, sample_mean(&x), figures[i].decimals)
                   : put_sample(out, &x, figures[i].decimals, false);
    }
    return ok && buf_puts(out, "\n");
}

bool table_sweep(struct buf *out, const struct study *s, const char *task)
{
    const char *method[MOST_METHODS];
    const int64_t methods = names_in(method, MOST_METHODS, s->sweep, "method");
    if (!methods) return buf_puts(out, not_run);
    bool ok = buf_puts(out, "| method | rank, or its size | values that learn, thousands | rate | "
                            "exact % | loss |\n|---|---|---|---|---|---|\n");
    for (int64_t m = 0; ok && m < methods; m++) {
        for (double rank = 1; ok && rank <= 64; rank *= 2) {
            ok = put_size(out, s, s->sweep, task, method[m], rank) &&
                 put_size(out, s, s->runs, task, method[m], rank);
        }
    }
    return ok;
}

bool table_time(struct buf *out, const struct study *s, const char *task)
{
    (void)task;
    json_t *line;
    size_t i;
    double sum = 0, slowest = 0;
    if (!json_array_size(s->time)) return buf_puts(out, not_run);
    bool ok = buf_puts(out, "| stage | minutes |\n|---|---|\n");
    json_array_foreach(s->time, i, line)
    {
        const double minutes = number_of(line, "seconds") / 60;
        ok = ok && buf_printf(out, "| %s | %.1f |\n", text_of(line, "stage"), minutes);
        sum += minutes;
    }
    json_array_foreach(s->runs, i, line) slowest = fmax(slowest, number_of(line, "wall"));
    return ok &&
           buf_printf(out, "| all | %.1f |\n\nThe longest run trained for %.1f s.\n", sum, slowest);
}
