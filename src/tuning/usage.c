// tuning/usage.c - see usage.h.
#include "tuning/usage.h"

#include "base/mem.h"

bool expert_usage_open(struct expert_usage *u, int64_t layers, int64_t experts, struct error *err)
{
    const size_t n = (size_t)(layers * experts);
    *u = (struct expert_usage){layers, experts, mem_zalloc(n, sizeof *u->slots),
                               mem_zalloc(n, sizeof *u->mass)};
    if (u->slots && u->mass) return true;
    expert_usage_close(u);
    return fail(err, "no memory for the use of %lld x %lld experts", (long long)layers,
                (long long)experts);
}

void expert_usage_close(struct expert_usage *u)
{
    mem_free(u->slots);
    mem_free(u->mass);
    *u = (struct expert_usage){0};
}

double expert_usage_slots(const struct expert_usage *u, int64_t layer)
{
    double sum = 0;
    for (int64_t e = 0; e < u->experts; e++) {
        sum += u->slots[layer * u->experts + e];
    }
    return sum;
}

void usage_counter_add(const struct usage_counter *c, int64_t layer, struct tensor expert,
                       struct tensor weight)
{
    c->ops->add_slots(tensor_rows(c->slots, layer, 1), expert, tensor_absent());
    c->ops->add_slots(tensor_rows(c->mass, layer, 1), expert, weight);
}

void usage_counter_take(struct expert_usage *u, const struct usage_counter *c)
{
    c->ops->download(u->slots, c->slots.data, tensor_bytes(c->slots));
    c->ops->download(u->mass, c->mass.data, tensor_bytes(c->mass));
}
