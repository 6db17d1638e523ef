// eval/prune.c - see prune.h.
#include "eval/prune.h"

#include "base/mem.h"
#include "eval/concentration.h"

#include <inttypes.h>
#include <math.h>

int64_t prune_count(double percent, int64_t E)
{
    return (int64_t)floor((double)E * percent / 100 + 1e-9); // 70 % of 10 are 7
}

bool prune_leaves_enough(double percent, const struct model_config *c, const char *option,
                         struct error *err)
{
    const int64_t left = c->n_experts - prune_count(percent, c->n_experts);
    if (left >= c->experts_per_tok) return true;
    return fail(err,
                "%s: %g %% of %" PRId64 " experts leaves %" PRId64 ", but a token takes %" PRId64
                "; at least as many expected",
                option, percent, c->n_experts, left, c->experts_per_tok);
}

bool prune_open(struct pruning *p, struct model *m, const struct dataset *d,
                const struct usage_options *how, const double *use, struct error *err)
{
    const size_t E = (size_t)m->config.n_experts;
    *p = (struct pruning){.m = m, .data = d, .how = *how, .use = use};
    p->order = mem_alloc(E * sizeof *p->order);
    p->list = mem_alloc(E * sizeof *p->list);
    bool ok = (p->order && p->list) || fail(err, "no memory for an order of %zu experts", E);
    ok = ok && packing_make(&p->packing, d, how->batch_tokens, 0, true, how->seed, 0, err) &&
         batch_reserve(&p->batch, m->setup.max_tokens, err) &&
         routing_subset_open(&p->subset, m->setup.ops, &m->config, m->setup.routing,
                             m->routing_state, m->setup.max_tokens, err);
    if (!ok) {
        prune_close(p);
        return false;
    }
    p->own = m->setup.routing;
    p->own_state = m->routing_state;
    m->setup.routing = &p->subset.table;
    m->routing_state = p->subset.state;
    return true;
}

void prune_close(struct pruning *p)
{
    if (p->own) {
        p->m->setup.routing = p->own;
        p->m->routing_state = p->own_state;
    }
    routing_subset_close(&p->subset);
    batch_free(&p->batch);
    packing_free(&p->packing);
    mem_free(p->order);
    mem_free(p->list);
    *p = (struct pruning){0};
}

static bool is_always(const int32_t *always, int64_t n, int32_t expert)
{
    for (int64_t i = 0; i < n; i++) {
        if (always[i] == expert) return true;
    }
    return false;
}

// The first `drop` of a layer's order that are the router's choice.
static bool exclude(struct pruning *p, int64_t layer, const struct prune_point *x,
                    struct error *err)
{
    const struct routing *r = &p->subset.table;
    const int64_t E = p->m->config.n_experts;
    int64_t n_always = 0, n = 0;
    const int32_t *always = r->always ? r->always(p->subset.state, layer, &n_always) : NULL;
    experts_by_use(p->order, p->use + layer * E, E, x->order == PRUNE_LEAST);
    for (int64_t i = 0; i < E && n < x->dropped; i++) {
        if (!is_always(always, n_always, p->order[i])) p->list[n++] = p->order[i];
    }
    if (n < x->dropped) {
        return fail(err,
                    "layer %" PRId64 ": %g %% are %" PRId64 " experts, but %" PRId64 " of %" PRId64
                    " are always active",
                    layer, x->percent, x->dropped, n_always, E);
    }
    routing_subset_exclude(&p->subset, layer, p->list, n);
    return true;
}

static bool measure(struct prune_point *out, struct pruning *p, const struct score_listener *l,
                    struct error *err)
{
    double loss = 0;
    int64_t seen = 0, hits = 0;
    out->tokens = 0;
    model_take_loss(p->m);
    for (int64_t i = 0; i < p->packing.count && (!p->how.tokens || seen < p->how.tokens); i++) {
        packing_batch(&p->packing, p->data, i, &p->batch);
        model_forward(p->m, &p->batch, NULL, false);
        model_loss(p->m, &p->batch, 0);
        loss += model_take_loss(p->m);
        hits += model_hits(p->m, &p->batch);
        out->tokens += p->batch.supervised;
        seen += p->batch.n;
        if (l && l->progress && !l->progress(l->user, i + 1, p->packing.count)) break;
    }
    if (!out->tokens) return fail(err, "no token carries loss");
    out->loss = loss / (double)out->tokens;
    out->accuracy = (double)hits / (double)out->tokens;
    return p->m->setup.ops->check(err);
}

bool prune_measure(struct prune_point *out, struct pruning *p, const struct score_listener *l,
                   struct error *err)
{
    const struct model_config *c = &p->m->config;
    if (!prune_leaves_enough(out->percent, c, "pruning", err)) return false;
    out->dropped = prune_count(out->percent, c->n_experts);
    for (int64_t i = 0; i < c->n_layers; i++) {
        if (c->moe_layer[i] && !exclude(p, i, out, err)) return false;
    }
    return measure(out, p, l, err);
}
