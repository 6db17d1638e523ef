// routing/telemetry.c - see telemetry.h.
#include "routing/telemetry.h"

#include "routing/condenser_choice.h"

#include <math.h>

struct layer_load {
    double top_share, cover80, gini, entropy, dead;
};

// gini() leaves the loads in ascending order. They are counts, so that sums of them are exact and 80 % is.
static struct layer_load measure(double *load, int64_t E, int64_t K)
{
    struct layer_load x = {.gini = gini(load, E)};
    double all = 0, covered = 0, top = 0;
    for (int64_t e = 0; e < E; e++) {
        all += load[e];
        x.dead += load[e] == 0;
    }
    for (int64_t e = E - 1; e >= 0 && all > 0; e--) {
        const double share = load[e] / all;
        if (E - 1 - e < K) top += load[e];
        if (5 * covered < 4 * all) x.cover80++;
        covered += load[e];
        if (share > 0) x.entropy -= share * log(share) / (E > 1 ? log((double)E) : 1);
    }
    x.top_share = all > 0 ? top / all : 0;
    return x;
}

void telemetry_add(json_t *out, const struct model_config *c, const float *usage)
{
    json_t *top = json_array(), *cover = json_array(), *level = json_array();
    json_t *entropy = json_array(), *dead = json_array();
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        double load[MAX_EXPERTS];
        for (int64_t e = 0; e < c->n_experts; e++) {
            load[e] = (double)usage[l * c->n_experts + e];
        }
        const struct layer_load x = measure(load, c->n_experts, c->experts_per_tok);
        json_array_append_new(top, json_real(x.top_share));
        json_array_append_new(cover, json_integer((json_int_t)x.cover80));
        json_array_append_new(level, json_real(x.gini));
        json_array_append_new(entropy, json_real(x.entropy));
        json_array_append_new(dead, json_integer((json_int_t)x.dead));
    }
    json_object_set_new(out, "top_share", top);
    json_object_set_new(out, "cover80", cover);
    json_object_set_new(out, "gini", level);
    json_object_set_new(out, "entropy", entropy);
    json_object_set_new(out, "dead", dead);
}
