// routing/routing.c - the registry of policies.
#include "routing/routing.h"

#include "routing/policies.h"

#include <string.h>

const struct routing *const routings[] = {&routing_topk,      &routing_aux,        &routing_bias,
                                          &routing_condenser, &routing_densemixer, NULL};

const struct routing *routing_find(const char *name, struct error *err)
{
    for (int i = 0; routings[i]; i++) {
        if (!strcmp(routings[i]->name, name)) return routings[i];
    }
    fail(err, "routing '%s' is not known", name);
    return NULL;
}

int64_t routing_layers(const struct model_config *c)
{
    int64_t n = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        n += c->moe_layer[l];
    }
    return n;
}

bool routing_check(const struct routing *r, const struct routing_options *o,
                   const struct model_config *c, struct error *err)
{
    if (routing_layers(c) > 0) return !r->check || r->check(o, c, err);
    if (r->needs_experts) {
        return fail(err, "--routing: found %s, but the model (%s) has no experts; %s expected",
                    r->name, c->architecture, routings[0]->name);
    }
    if (!(o->aux_coef > 0) && !(o->z_coef > 0)) return true;
    return fail(err, "%s: the model (%s) has no experts, so there is no router to have a loss",
                o->aux_coef > 0 ? "--aux-coef" : "--z-coef", c->architecture);
}
