// routing/subset.c - see subset.h.
#include "routing/subset.h"

#include "base/mem.h"

#include <assert.h>
#include <math.h>

struct routing_state {
    const struct ops *ops;
    const struct routing *of;
    struct routing_state *inner;
    int64_t count[MAX_LAYERS];
    struct tensor list; // (L,E) I32: the first count[l] of a row are excluded
    struct tensor rows; // (max N * E) I32: them again for each token
    size_t bytes;       // of both, in one piece
};

static int64_t slots(const struct routing_state *st, int64_t layer, bool training)
{
    return st->of->slots(st->inner, layer, training);
}

static int64_t active(const struct routing_state *st, int64_t layer)
{
    return st->of->active(st->inner, layer);
}

static const int32_t *always(const struct routing_state *st, int64_t layer, int64_t *count)
{
    return st->of->always(st->inner, layer, count);
}

static void select_slots(struct routing_state *st, const struct route *route,
                         const struct route_input *in)
{
    struct route_input rest = *in;
    const int64_t n = st->count[in->layer];
    assert(!in->training);
    if (n) {
        rest.excluded = tensor_2d(st->rows.data, DTYPE_I32, in->z.dim[0], n);
        const struct tensor row = tensor_rows(st->list, in->layer, 1);
        st->ops->repeat_row(rest.excluded, tensor_1d(row.data, DTYPE_I32, n));
        st->ops->put(in->z, rest.excluded, -INFINITY);
    }
    st->of->select(st->inner, route, &rest);
}

bool routing_subset_open(struct routing_subset *s, const struct ops *o,
                         const struct model_config *c, const struct routing *of,
                         struct routing_state *st, int64_t max_tokens, struct error *err)
{
    *s = (struct routing_subset){.state = mem_zalloc(1, sizeof *s->state)};
    struct routing_state *own = s->state;
    const int64_t L = c->n_layers, E = c->n_experts;
    if (!own) return fail(err, "no memory for the routing's state");
    own->ops = o;
    own->of = of;
    own->inner = st;
    own->bytes = (size_t)((L + max_tokens) * E) * sizeof(int32_t);
    char *memory = o->allocate(own->bytes);
    if (!memory) {
        routing_subset_close(s);
        return fail(err, "no memory for the excluded experts of %lld tokens",
                    (long long)max_tokens);
    }
    own->list = tensor_2d(memory, DTYPE_I32, L, E);
    own->rows = tensor_1d(memory + (size_t)(L * E) * sizeof(int32_t), DTYPE_I32, max_tokens * E);
    s->table = (struct routing){.name = of->name,
                                .help = of->help,
                                .slots = slots,
                                .active = of->active ? active : NULL,
                                .always = of->always ? always : NULL,
                                .select = select_slots};
    return true;
}

void routing_subset_close(struct routing_subset *s)
{
    if (s->state && s->state->list.data) {
        s->state->ops->release(s->state->list.data, s->state->bytes);
    }
    mem_free(s->state);
    s->state = NULL;
}

void routing_subset_exclude(struct routing_subset *s, int64_t layer, const int32_t *expert,
                            int64_t count)
{
    struct routing_state *own = s->state;
    own->count[layer] = count;
    if (!count) return;
    own->ops->upload(tensor_rows(own->list, layer, 1).data, expert, (size_t)count * sizeof *expert);
}
