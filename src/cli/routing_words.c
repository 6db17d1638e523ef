// cli/routing_words.c - see routing_words.h.
#include "cli/routing_words.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

struct over_layers {
    double sum, mean, largest; // largest: in size
};

// False where the report has no such numbers.
static bool sum_up(struct over_layers *s, const json_t *report, const char *key)
{
    const json_t *list = json_object_get(report, key);
    const size_t n = json_array_size(list);
    *s = (struct over_layers){0};
    for (size_t i = 0; i < n; i++) {
        const double x = json_number_value(json_array_get(list, i));
        s->sum += x;
        s->largest = fmax(s->largest, fabs(x));
    }
    s->mean = n ? s->sum / (double)n : 0;
    return n > 0;
}

void routing_words(char *out, size_t size, const json_t *report, int64_t experts)
{
    struct over_layers cover, gini, dead, low, high, changed, condensers;
    char bias[48] = "", force[32] = "", load[32] = "";
    out[0] = 0;
    if (!sum_up(&cover, report, "cover80")) return;
    sum_up(&gini, report, "gini");
    sum_up(&dead, report, "dead");
    if (sum_up(&low, report, "bias_min") && sum_up(&high, report, "bias_max")) {
        snprintf(bias, sizeof bias, ", bias %.2g", fmax(low.largest, high.largest));
    }
    if (sum_up(&changed, report, "bias_changed")) {
        snprintf(force, sizeof force, ", changed %.0f %%", 100 * changed.mean);
    }
    if (sum_up(&condensers, report, "condenser_load")) {
        snprintf(load, sizeof load, ", condensers %.0f %%", 100 * condensers.mean);
    }
    snprintf(out, size, "cover80 %.1f/%lld, gini %.2f, dead %.0f%s%s%s", cover.mean,
             (long long)experts, gini.mean, dead.sum, bias, force, load);
}
