// train/routing_report.c - the experts' load and the policy's own numbers of a step, as one JSON object.
#include "routing/telemetry.h"
#include "train/trainer.h"

#include "base/mem.h"

static int append_to_buf(const char *bytes, size_t n, void *out)
{
    return buf_append(out, bytes, n) ? 0 : -1;
}

char *trainer_routing_report(struct trainer *t)
{
    struct model *m = &t->model;
    struct buf text = {0};
    if (!m->routing_state) return NULL;
    const size_t count = (size_t)(m->config.n_layers * m->config.n_experts);
    float *usage = mem_alloc(count * sizeof *usage);
    json_t *out = json_object();
    if (usage && out) {
        model_take_usage(m, usage);
        telemetry_add(out, &m->config, usage);
        if (m->setup.routing->report) m->setup.routing->report(m->routing_state, out, usage);
        if (router_losses_on(&m->router_losses)) {
            json_object_set_new(out, "loss", json_real(model_take_router_loss(m)));
        }
        const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(6);
        if (json_dump_callback(out, append_to_buf, &text, flags) != 0) buf_free(&text);
    }
    json_decref(out);
    mem_free(usage);
    return text.data;
}
