// train/routing_report.c - the experts' load and the policy's own numbers of a step, as one JSON object.
#include "routing/telemetry.h"
#include "train/train.h"

#include "base/mem.h"

#include <math.h>

// The load and what the policy keeps, as [[E values] of each MoE layer].
static json_t *experts_report(const struct model *m, const float *usage)
{
    const struct model_config *c = &m->config;
    json_t *out = json_object(), *load = json_array();
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!c->moe_layer[l]) continue;
        json_t *of = json_array();
        for (int64_t e = 0; e < c->n_experts; e++) {
            json_array_append_new(of, json_integer((json_int_t)usage[l * c->n_experts + e]));
        }
        json_array_append_new(load, of);
    }
    json_object_set_new(out, "load", load);
    if (m->setup.routing->experts) m->setup.routing->experts(m->routing_state, out);
    return out;
}

bool routing_report(json_t **out, struct model *m, json_t **experts, struct error *err)
{
    *out = NULL;
    if (!m->routing_state) return true;
    const size_t count = (size_t)(m->config.n_layers * m->config.n_experts);
    float *usage = mem_alloc(count * sizeof *usage);
    if (!usage) return fail(err, "no memory for what the experts did");
    *out = json_object(); // a part without memory shows when its text is made
    model_take_usage(m, usage);
    telemetry_add(*out, &m->config, usage);
    if (m->setup.routing->report) m->setup.routing->report(m->routing_state, *out, usage);
    if (experts) *experts = experts_report(m, usage);
    if (router_losses_on(&m->router_losses)) {
        const double loss = model_take_router_loss(m);
        json_object_set_new(*out, "loss", isfinite(loss) ? json_real(loss) : json_null());
    }
    mem_free(usage);
    return *out || fail(err, "no memory for what the experts did");
}

char *routing_report_text(const json_t *report)
{
    return json_text(report, JSON_COMPACT | JSON_REAL_PRECISION(6));
}
