// routing/subset.h - a routing over some of a layer's experts, for evaluation: as if the others had been cut out of
// the model. Their logits become -inf before the policy sees them, so that p is a softmax over the rest, and a
// policy whose choice is not by p alone leaves them out by route_input.excluded. It stands in the place of the
// model's own routing, to which the model must come back before it is closed. Experts that are active whatever the
// router says (`always`) are no choice of it, and must not be excluded.
#pragma once
#include "routing/routing.h"

struct routing_subset {
    struct routing table;        // what the model calls meanwhile,
    struct routing_state *state; // with this state
};
// Over a routing `of` and its state, which stay the model's. max_tokens: the largest batch. No experts are excluded
// at first.
bool routing_subset_open(struct routing_subset *s, const struct ops *o,
                         const struct model_config *c, const struct routing *of,
                         struct routing_state *st, int64_t max_tokens, struct error *err);
void routing_subset_close(struct routing_subset *s); // safe after a failed open, and twice
// From now on the layer's routing is without these experts alone, `count` of them in host memory, each once.
void routing_subset_exclude(struct routing_subset *s, int64_t layer, const int32_t *expert,
                            int64_t count);
