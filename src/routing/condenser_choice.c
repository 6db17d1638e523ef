// routing/condenser_choice.c - see condenser_choice.h; the files are in condenser_file.c.
#include "routing/condenser_choice.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

void condensers_free(struct condensers *s)
{
    for (int64_t l = 0; l < MAX_LAYERS; l++) {
        mem_free(s->expert[l]);
    }
    *s = (struct condensers){0};
}

enum { NUMBER_AT_MOST = 1 << 30 };

// "2,2,4" -> numbers; how many there are, or -1.
static int64_t parse_list(const char *text, int64_t *out, int64_t most)
{
    int64_t n = 0;
    for (const char *p = text; n < most; p++) {
        char *end;
        if (*p < '0' || *p > '9') return -1;
        const long long value = strtoll(p, &end, 10);
        if (value > NUMBER_AT_MOST) return -1;
        out[n++] = value;
        if (!*end) return n;
        if (*end != ',') return -1;
        p = end;
    }
    return -1;
}

// count[l] from "2" or "2,2,4", one for each MoE layer.
static bool counts_from_list(int64_t *count, const char *text, const struct model_config *c,
                             struct error *err)
{
    int64_t list[MAX_LAYERS], at = 0;
    const int64_t n = parse_list(text, list, MAX_LAYERS), layers = routing_layers(c);
    if (n != 1 && n != layers) {
        return fail(err,
                    "--condenser-count: '%s'; one number, or %" PRId64
                    " (one for each MoE layer) expected",
                    text, layers);
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (c->moe_layer[l]) count[l] = list[n == 1 ? 0 : at++];
    }
    return true;
}

// Early, middle and late: floor(L/3), floor(L/3), the rest; L is the last MoE layer's index + 1.
static bool counts_from_thirds(int64_t *count, const char *text, const struct model_config *c,
                               struct error *err)
{
    int64_t list[4], last = 0;
    if (parse_list(text, list, 4) != 3) {
        return fail(err, "--condenser-thirds: '%s'; three numbers expected: early,middle,late",
                    text);
    }
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (c->moe_layer[l]) last = l + 1;
    }
    for (int64_t l = 0; l < last; l++) {
        const int64_t third = last / 3, part = l < third ? 0 : l < 2 * third ? 1 : 2;
        if (c->moe_layer[l]) count[l] = list[part];
    }
    return true;
}

bool condenser_count_fits(int64_t r, int64_t layer, const char *where,
                          const struct routing_options *o, const struct model_config *c,
                          struct error *err)
{
    if (r > c->n_experts) {
        return fail(err, "%s: %" PRId64 " in layer %" PRId64 ", but it has %" PRId64 " experts",
                    where, r, layer, c->n_experts);
    }
    if (o->condenser_preset == CONDENSER_PAPER && r > c->experts_per_tok) {
        return fail(err,
                    "%s: %" PRId64 " in layer %" PRId64 ", but a token runs %" PRId64
                    " experts and the preset paper keeps that budget",
                    where, r, layer, c->experts_per_tok);
    }
    return true;
}

bool condenser_counts(int64_t *count, const struct routing_options *r, const struct model_config *c,
                      struct error *err)
{
    return r->condenser_thirds ? counts_from_thirds(count, r->condenser_thirds, c, err)
                               : counts_from_list(count, r->condenser_count, c, err);
}

int64_t condenser_most(const struct routing_options *r, const struct model_config *c)
{
    int64_t count[MAX_LAYERS] = {0}, most = 0;
    const int64_t limit =
        r->condenser_preset == CONDENSER_PAPER ? c->experts_per_tok : c->n_experts;
    if (r->condenser_experts || r->source.experts) return limit;
    if (r->condenser_total > 0) return r->condenser_max < limit ? r->condenser_max : limit;
    if (!condenser_counts(count, r, c, NULL)) return 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (count[l] > most) most = count[l];
    }
    return most;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// (n + 1 - 2 sum_i cumsum_i / total) / n over the sorted values
double gini(double *values, int64_t n)
{
    double cumulative = 0, sum = 0;
    qsort(values, (size_t)n, sizeof *values, ascending);
    for (int64_t i = 0; i < n; i++) {
        cumulative += values[i];
        sum += cumulative;
    }
    return cumulative > 0 ? ((double)n + 1 - 2 * sum / cumulative) / (double)n : 0;
}

static double population_std(const double *x, int64_t n)
{
    double mean = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        mean += x[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        square += (x[i] - mean) * (x[i] - mean) / (double)n;
    }
    return sqrt(square);
}

static double layer_score(const struct routing_options *r, const float *bias, const float *usage,
                          int64_t E)
{
    double values[MAX_EXPERTS];
    const bool by_bias = r->condenser_share == SHARE_BIAS_STD;
    for (int64_t e = 0; e < E; e++) {
        values[e] = (double)(by_bias ? bias : usage)[e];
    }
    return by_bias ? population_std(values, E) : pow(gini(values, E), r->condenser_gini_power);
}

// share[l] <- R shared out in proportion to the scores. What a layer cannot take above `most` goes to the
// others, in proportion again; equally where all of their scores are 0.
static void share_out(double *share, const double *score, const struct routing_options *r,
                      const struct model_config *c)
{
    const double most = (double)condenser_most(r, c);
    bool full[MAX_LAYERS] = {0}, again = true;
    while (again) {
        double left = (double)r->condenser_total, weight = 0, free = 0;
        for (int64_t l = 0; l < c->n_layers; l++) {
            if (!c->moe_layer[l]) continue;
            if (full[l]) left -= most;
            weight += full[l] ? 0 : score[l];
            free += full[l] ? 0 : 1;
        }
        again = false;
        for (int64_t l = 0; l < c->n_layers; l++) {
            if (!c->moe_layer[l] || full[l]) continue;
            share[l] = left * (weight > 0 ? score[l] / weight : 1 / free);
            full[l] = share[l] > most;
            if (full[l]) share[l] = most;
            again |= full[l];
        }
    }
}

// The shares as integers by largest remainder; ties: the lower layer.
static bool counts_from_total(int64_t *count, const struct routing_options *r,
                              const struct model_config *c, const float *bias, const float *usage,
                              struct error *err)
{
    const double rounding = 1e-9; // of a share that is a whole number, or of remainders that tie
    double score[MAX_LAYERS] = {0}, share[MAX_LAYERS] = {0}, total = 0;
    int64_t left = r->condenser_total;
    for (int64_t l = 0; l < c->n_layers; l++) {
        const int64_t at = l * c->n_experts;
        if (c->moe_layer[l]) score[l] = layer_score(r, bias + at, usage + at, c->n_experts);
        total += score[l];
    }
    if (!(total > 0)) return fail(err, "condensers: the score of every layer is 0");
    share_out(share, score, r, c);
    for (int64_t l = 0; l < c->n_layers; l++) {
        count[l] = (int64_t)floor(share[l] + rounding);
        share[l] -= (double)count[l]; // now the remainder
        left -= count[l];
    }
    for (; left > 0; left--) {
        int64_t best = -1;
        for (int64_t l = 0; l < c->n_layers; l++) {
            if (!c->moe_layer[l] || count[l] >= condenser_most(r, c)) continue;
            if (best < 0 || share[l] > share[best] + rounding) best = l;
        }
        count[best]++;
        share[best] -= 1;
    }
    return true;
}

// Does expert a come before b? Ties of the key: the smaller use, then the lower index.
static bool before(const struct routing_options *r, const float *bias, const float *usage,
                   int64_t a, int64_t b)
{
    const bool by_bias =
        r->condenser_choice == CHOICE_LOWEST_BIAS || r->condenser_choice == CHOICE_HIGHEST_BIAS;
    const bool largest =
        r->condenser_choice == CHOICE_HIGHEST_BIAS || r->condenser_choice == CHOICE_MOST_USED;
    const float *key = by_bias ? bias : usage;
    if (key[a] != key[b]) return largest ? key[a] > key[b] : key[a] < key[b];
    if (usage[a] != usage[b]) return usage[a] < usage[b];
    return a < b;
}

static bool choose_layer(struct condensers *s, int64_t l, int64_t n,
                         const struct routing_options *r, const float *bias, const float *usage,
                         int64_t E, struct error *err)
{
    s->count[l] = n;
    s->expert[l] = mem_alloc((size_t)n * sizeof(int32_t));
    if (!s->expert[l]) return fail(err, "no memory for the condensers of layer %" PRId64, l);
    bool taken[MAX_EXPERTS] = {0};
    for (int64_t i = 0; i < n; i++) {
        int64_t best = -1;
        for (int64_t e = 0; e < E; e++) {
            if (!taken[e] && (best < 0 || before(r, bias, usage, e, best))) best = e;
        }
        taken[best] = true;
    }
    for (int64_t e = 0, i = 0; e < E; e++) {
        if (taken[e]) s->expert[l][i++] = (int32_t)e;
    }
    return true;
}

static bool all_zero(const float *x, const struct model_config *c)
{
    for (int64_t l = 0; l < c->n_layers; l++) {
        for (int64_t e = 0; c->moe_layer[l] && e < c->n_experts; e++) {
            if (x[l * c->n_experts + e] != 0.0F) return false;
        }
    }
    return true;
}

bool condenser_by_bias(const struct routing_options *r)
{
    return r->condenser_choice == CHOICE_LOWEST_BIAS ||
           r->condenser_choice == CHOICE_HIGHEST_BIAS ||
           (r->condenser_total > 0 && r->condenser_share == SHARE_BIAS_STD);
}

bool condenser_shared_by_use(const struct routing_options *r)
{
    return r->condenser_total > 0 && r->condenser_share == SHARE_USAGE_GINI;
}

// A choice, or a share, by what is zero everywhere would be one by the experts' numbers.
static bool check_source(const struct routing_options *r, const struct model_config *c,
                         const float *bias, const float *usage, struct error *err)
{
    const bool used =
        r->condenser_choice == CHOICE_LEAST_USED || r->condenser_choice == CHOICE_MOST_USED;
    if (condenser_by_bias(r) && all_zero(bias, c)) {
        return fail(err,
                    "condensers: the bias is zero everywhere, so there is nothing to choose by; "
                    "a longer phase 1 or a bias file expected");
    }
    if ((used || condenser_shared_by_use(r)) && all_zero(usage, c)) {
        return fail(err, "condensers: the experts' use is zero everywhere, so there is nothing to "
                         "choose by; a phase 1, or a bias file with usage_sums expected");
    }
    return true;
}

bool condenser_choose(struct condensers *s, const struct routing_options *r,
                      const struct model_config *c, const float *bias, const float *usage,
                      struct error *err)
{
    int64_t count[MAX_LAYERS] = {0};
    if (!check_source(r, c, bias, usage, err)) return false;
    const bool counted = r->condenser_total > 0 ? counts_from_total(count, r, c, bias, usage, err)
                                                : condenser_counts(count, r, c, err);
    if (!counted) return false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        const int64_t at = l * c->n_experts;
        if (c->moe_layer[l] &&
            !choose_layer(s, l, count[l], r, bias + at, usage + at, c->n_experts, err)) {
            return false;
        }
    }
    return true;
}
