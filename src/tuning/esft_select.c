// tuning/esft_select.c - the choice of experts from their use (METHODS, "esft"):
//   gate score = mean over tokens of g_e,  token score = mean over tokens of [e in S] / K
// both as shares of their layer's sum, rounded to 4 decimals; then the best until their sum reaches top_p.
#include "tuning/esft.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DECIMALS = 4 };

bool esft_selection_open(struct esft_selection *s, int64_t layers, int64_t experts,
                         struct error *err)
{
    *s = (struct esft_selection){.layers = layers, .experts = experts};
    s->expert = mem_zalloc((size_t)(layers * experts), sizeof *s->expert);
    s->count = mem_alloc((size_t)layers * sizeof *s->count);
    if (!s->expert || !s->count) {
        esft_selection_close(s);
        return fail(err, "no memory for a choice among %" PRId64 " x %" PRId64 " experts", layers,
                    experts);
    }
    for (int64_t l = 0; l < layers; l++) {
        s->count[l] = -1;
    }
    return true;
}

void esft_selection_close(struct esft_selection *s)
{
    mem_free(s->expert);
    mem_free(s->count);
    *s = (struct esft_selection){0};
}

int64_t esft_selection_total(const struct esft_selection *s)
{
    int64_t total = 0;
    for (int64_t l = 0; l < s->layers; l++) {
        if (s->count[l] > 0) total += s->count[l];
    }
    return total;
}

// To the nearest decimal number, ties to the even digit, as Python's round: printf rounds so, and both calls
// see the same locale.
static double rounded(double x)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f", DECIMALS, x);
    return strtod(text, NULL);
}

bool esft_scores(double *score, const double *x, int64_t E)
{
    double sum = 0;
    for (int64_t e = 0; e < E; e++) {
        sum += x[e];
    }
    for (int64_t e = 0; e < E; e++) {
        score[e] = rounded(x[e] / sum);
    }
    return isfinite(sum) && sum > 0;
}

// Does a come before b? Stable: the lower id where scores are the same.
static bool before(const double *score, int32_t a, int32_t b)
{
    return score[a] > score[b] || (!(score[a] < score[b]) && a < b);
}

int64_t esft_choose(int32_t *expert, const double *score, int64_t E, double top_p)
{
    for (int32_t e = 0; e < E; e++) {
        int64_t at = e;
        for (; at > 0 && before(score, e, expert[at - 1]); at--) {
            expert[at] = expert[at - 1];
        }
        expert[at] = e;
    }
    double sum = 0;
    int64_t n = 0;
    for (; n < E && sum < top_p; n++) {
        sum += score[expert[n]];
    }
    return n;
}

// The n best hold at least n / E, of which rounding takes at most half a unit of the last decimal each, and
// the running sum less than 1e-9.
int64_t esft_at_most(double top_p, int64_t E)
{
    const double least = 1 / (double)E - 0.5 * pow(10, -DECIMALS);
    const double n = least > 0 ? ceil((top_p + 1e-9) / least) : (double)E;
    return n < (double)E ? (int64_t)n : E;
}

bool esft_select(struct esft_selection *s, const struct expert_usage *u, int score, double top_p,
                 struct error *err)
{
    const int64_t E = u->experts;
    double *scores = mem_alloc((size_t)E * sizeof *scores);
    bool ok = scores ? esft_selection_open(s, u->layers, E, err) : fail(err, "no memory");
    for (int64_t l = 0; ok && l < u->layers; l++) {
        const double *x = (score == ESFT_GATE ? u->mass : u->slots) + l * E;
        if (expert_usage_slots(u, l) <= 0) continue;
        if (esft_scores(scores, x, E)) {
            s->count[l] = esft_choose(s->expert + l * E, scores, E, top_p);
        } else {
            ok = fail(err, "layer %" PRId64 ": the experts' scores do not sum to a number above 0",
                      l);
        }
    }
    mem_free(scores);
    if (!ok) esft_selection_close(s);
    return ok;
}
