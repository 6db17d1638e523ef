// eval/concentration.c - see concentration.h.
#include "eval/concentration.h"

#include "routing/condenser_choice.h"

#include <math.h>

const int cover_percent[COVER_COUNT] = {50, 80, 95};

static bool before(const double *use, int32_t a, int32_t b, bool least)
{
    if (use[a] < use[b] || use[a] > use[b]) return least == (use[a] < use[b]);
    return a < b;
}

void experts_by_use(int32_t *order, const double *use, int64_t E, bool least)
{
    for (int32_t e = 0; e < E; e++) {
        int64_t at = e;
        for (; at > 0 && before(use, e, order[at - 1], least); at--) {
            order[at] = order[at - 1];
        }
        order[at] = e;
    }
}

void concentration_of(struct concentration *c, int32_t *order, double *share, const double *use,
                      int64_t E)
{
    double all = 0, entropy = 0, covered = 0;
    *c = (struct concentration){0};
    experts_by_use(order, use, E, false);
    for (int64_t e = 0; e < E; e++) {
        all += use[e];
        share[e] = use[e];
    }
    c->any = all > 0;
    if (!c->any) return;
    c->gini = gini(share, E); // which sorts them
    for (int64_t i = 0; i < E; i++) {
        const double x = use[order[i]], s = x / all;
        share[order[i]] = s;
        for (int k = 0; k < COVER_COUNT; k++) { // whole numbers of slots are compared exactly
            if (100 * covered < cover_percent[k] * all) c->cover[k]++;
        }
        covered += x;
        if (s > 0) entropy -= s * log(s);
        c->unused += s <= 0;
    }
    c->effective = exp(entropy);
    c->entropy = E > 1 ? entropy / log((double)E) : 0;
}
