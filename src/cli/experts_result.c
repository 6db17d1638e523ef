// cli/experts_result.c - what the forms of `experts` share (experts.h), and the table for people.
#include "cli/experts.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *const prune_order_names[] = {"least", "most"};

bool layer_load_open(struct layer_load *l, int64_t experts, struct error *err)
{
    *l = (struct layer_load){.share = mem_alloc((size_t)experts * sizeof *l->share),
                             .order = mem_alloc((size_t)experts * sizeof *l->order)};
    if (l->share && l->order) return true;
    layer_load_close(l);
    return fail(err, "no memory for the load of %" PRId64 " experts", experts);
}

void layer_load_close(struct layer_load *l)
{
    mem_free(l->share);
    mem_free(l->order);
    *l = (struct layer_load){0};
}

void layer_load_of(struct layer_load *l, const struct experts_result *x, int64_t layer, int score)
{
    const struct expert_usage *u = &x->usage;
    const double *use = (score == ESFT_GATE ? u->mass : u->slots) + layer * u->experts;
    concentration_of(&l->c, l->order, l->share, use, u->experts);
}

bool experts_in(const struct experts_result *x, int64_t layer)
{
    return expert_usage_slots(&x->usage, layer) > 0;
}

static const double unknown = (double)NAN;

static double kl(const struct experts_result *x, int64_t layer)
{
    const struct layer_comparison *c = x->comparison.layer;
    return c ? c[layer].kl : unknown;
}

static double changed(const struct experts_result *x, int64_t layer)
{
    const struct layer_comparison *c = x->comparison.layer;
    return c ? c[layer].changed : unknown;
}

static double weights_own(const struct experts_result *x, int64_t layer)
{
    return x->weights ? x->weights[layer].own : unknown;
}

static double weights_base(const struct experts_result *x, int64_t layer)
{
    return x->weights ? x->weights[layer].base : unknown;
}

static double weights_kept(const struct experts_result *x, int64_t layer)
{
    return x->weights ? x->weights[layer].kept : unknown;
}

static double outputs_own(const struct experts_result *x, int64_t layer)
{
    const struct layer_comparison *c = x->comparison.layer;
    return c ? c[layer].outputs.own : unknown;
}

static double outputs_base(const struct experts_result *x, int64_t layer)
{
    const struct layer_comparison *c = x->comparison.layer;
    return c ? c[layer].outputs.base : unknown;
}

static double outputs_kept(const struct experts_result *x, int64_t layer)
{
    const struct layer_comparison *c = x->comparison.layer;
    return c ? c[layer].outputs.kept : unknown;
}

const struct layer_value layer_values[] = {
    {"kl", "Drift of the router: KL(base || model)", kl, false},
    {"changed", "Share of changed choices", changed, false},
    {"weights_cosine", "Cosine of two experts' weights", weights_own, false},
    {"base_weights_cosine", "Cosine of two experts' weights", weights_base, true},
    {"weights_kept", "Cosine of an expert's weights with the base's", weights_kept, false},
    {"outputs_cosine", "Cosine of two experts' outputs", outputs_own, false},
    {"base_outputs_cosine", "Cosine of two experts' outputs", outputs_base, true},
    {"outputs_kept", "Cosine of an expert's outputs with the base's", outputs_kept, false},
    {NULL, NULL, NULL, false},
};

static bool any_of(const struct experts_result *x, const struct layer_value *v)
{
    for (int64_t l = 0; l < x->usage.layers; l++) {
        if (experts_in(x, l) && isfinite(v->get(x, l))) return true;
    }
    return false;
}

static const struct esft_selection *chosen(const struct experts_result *x)
{
    return x->selection.layers ? &x->selection : NULL;
}

static void print_load(const struct experts_result *x, FILE *f, int64_t l, struct layer_load *load)
{
    const struct concentration *c = &load->c;
    const int64_t E = x->usage.experts;
    layer_load_of(load, x, l, ESFT_TOKEN);
    const double by_token = c->gini;
    layer_load_of(load, x, l, ESFT_GATE);
    const double by_gate = c->gini;
    layer_load_of(load, x, l, x->score);
    fprintf(f,
            "%5" PRId64 " %5" PRId64 " %5d %6.2f  %5.3f %5.3f %7.1f  %4" PRId64 " %4" PRId64
            " %4" PRId64 " %5" PRId64,
            l, E - c->unused, (int)load->order[0], 100 * load->share[load->order[0]], by_token,
            by_gate, c->effective, c->cover[0], c->cover[1], c->cover[2],
            E - c->cover[COVER_COUNT - 1]);
}

static void print_chosen(const struct experts_result *x, FILE *f, int64_t l,
                         const struct layer_load *load)
{
    const struct esft_selection *s = chosen(x);
    double sum = 0;
    if (!s) return;
    for (int64_t i = 0; i < s->count[l]; i++) {
        sum += load->share[s->expert[l * s->experts + i]];
    }
    fprintf(f, "  %5" PRId64 " %6.2f", s->count[l], 100 * sum);
}

static bool print_usage(const struct experts_result *x, FILE *f, struct error *err)
{
    struct layer_load load;
    if (!layer_load_open(&load, x->usage.experts, err)) return false;
    fprintf(f,
            "%" PRId64
            " experts a layer, by %s: experts used, the busiest and its share in %%, gini (by "
            "tokens, by gates),\nexperts that so many used alike would be worth, fewest that cover "
            "50, 80, 95 %%, and the long tail%s\n",
            x->usage.experts, x->score == ESFT_GATE ? "gates" : "tokens",
            chosen(x) ? "; chosen, and what they hold in %" : "");
    fprintf(f, "layer  used  busy      %%  gini-t gini-g  worth  50 %% 80 %% 95 %%  tail%s\n",
            chosen(x) ? "  chosen   %" : "");
    for (int64_t l = 0; l < x->usage.layers; l++) {
        if (!experts_in(x, l)) continue;
        print_load(x, f, l, &load);
        print_chosen(x, f, l, &load);
        fputc('\n', f);
    }
    layer_load_close(&load);
    return true;
}

static int column_width(const struct layer_value *v)
{
    const int n = (int)strlen(v->name);
    return n < 10 ? 10 : n;
}

// A column for each value that is known, and their means below.
static void print_values(const struct experts_result *x, FILE *f)
{
    bool any = false;
    for (const struct layer_value *v = layer_values; v->name; v++) {
        if (!any_of(x, v)) continue;
        if (!any) fprintf(f, "\nlayer");
        fprintf(f, "  %*s", column_width(v), v->name);
        any = true;
    }
    for (int64_t l = 0; any && l <= x->usage.layers; l++) {
        const bool means = l == x->usage.layers;
        if (!means && !experts_in(x, l)) continue;
        fprintf(f, means ? "\n mean" : "\n%5" PRId64, l);
        for (const struct layer_value *v = layer_values; v->name; v++) {
            if (!any_of(x, v)) continue;
            double sum = 0, n = 0;
            for (int64_t k = 0; k < x->usage.layers; k++) {
                if (!experts_in(x, k) || (!means && k != l)) continue;
                sum += v->get(x, k);
                n++;
            }
            fprintf(f, "  %*.4g", column_width(v), sum / n);
        }
    }
    if (any) fputc('\n', f);
}

static void print_pruning(const struct experts_result *x, FILE *f)
{
    for (int64_t i = 0; i < x->n_points; i++) {
        const struct prune_point *p = &x->point[i];
        if (!i || p->order != x->point[i - 1].order) {
            fprintf(f, "\nwithout the %s used:\n    %%  experts      loss  accuracy\n",
                    prune_order_names[p->order]);
        }
        fprintf(f, "%5.4g  %7" PRId64 "  %8.4f  %6.2f %%\n", p->percent, p->dropped, p->loss,
                100 * p->accuracy);
    }
}

bool experts_print(const struct experts_result *x, FILE *f, struct error *err)
{
    if (!print_usage(x, f, err)) return false;
    print_values(x, f);
    print_pruning(x, f);
    return true;
}
