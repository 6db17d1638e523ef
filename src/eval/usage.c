// eval/usage.c - see usage.h.
#include "eval/usage.h"

#include <inttypes.h>

struct counting {
    struct usage_counter counter;
    const struct usage_observer *observer;
};

static void add_route(void *user, int64_t layer, struct tensor z, const struct route *r)
{
    const struct counting *c = user;
    usage_counter_add(&c->counter, layer, r->expert, r->weight);
    if (c->observer) c->observer->route(c->observer->user, layer, z, r);
}

static bool run(int64_t *seen, struct model *m, const struct dataset *d, struct packing *p,
                const struct usage_options *o, const struct score_listener *l, struct error *err)
{
    struct batch b = {0};
    if (!batch_reserve(&b, m->setup.max_tokens, err)) return false;
    *seen = 0;
    for (int64_t i = 0; i < p->count && (!o->tokens || *seen < o->tokens); i++) {
        packing_batch(p, d, i, &b);
        if (o->observer) o->observer->batch(o->observer->user, &b);
        model_forward(m, &b, NULL, false);
        *seen += b.n;
        if (l && l->progress && !l->progress(l->user, i + 1, p->count)) break;
    }
    batch_free(&b);
    return *seen || fail(err, "no examples to score on");
}

bool usage_on_data(struct expert_usage *u, int64_t *seen, struct model *m, const struct dataset *d,
                   const struct usage_options *o, const struct score_listener *l, struct error *err)
{
    struct packing p = {0};
    const struct ops *ops = m->setup.ops;
    const int64_t L = m->config.n_layers, E = m->config.n_experts;
    const size_t bytes = (size_t)(L * E) * sizeof(double);
    *u = (struct expert_usage){0};
    if (!E) return fail(err, "%s: the model has no experts", m->setup.dir);
    if (!packing_make(&p, d, o->batch_tokens, 0, true, o->seed, 0, err)) return false;
    char *memory = ops->allocate(2 * bytes);
    bool ok =
        memory || fail(err, "no memory for the use of %" PRId64 " x %" PRId64 " experts", L, E);
    ok = ok && expert_usage_open(u, L, E, err);
    if (ok) {
        struct counting c = {
            {ops, tensor_2d(memory, DTYPE_F64, L, E), tensor_2d(memory + bytes, DTYPE_F64, L, E)},
            o->observer};
        m->watcher = (struct route_watcher){&c, add_route};
        ok = run(seen, m, d, &p, o, l, err);
        m->watcher = (struct route_watcher){0};
        usage_counter_take(u, &c.counter);
        ok = ok && ops->check(err);
    }
    if (memory) ops->release(memory, 2 * bytes);
    packing_free(&p);
    return ok;
}
