// model/shapes.h - which tensors a model of a given config has, under which names, in which shapes: the
// one list that opening a checkpoint and making a random one both walk.
#pragma once
#include "model/families.h"

struct tensor_spec {
    enum role role;
    int64_t layer, expert; // -1 where they do not apply
    char name[192];
    int rank;
    int64_t dim[3];
};

// Calls fn for each tensor in order (embedding, layers, final norm, head) until one returns false.
// fused: per layer, whether its experts are fused over one tensor; NULL: none is.
typedef bool (*tensor_visitor)(void *user, const struct tensor_spec *s, struct error *err);
bool shapes_visit(const struct family *f, const struct model_config *c, const bool *fused,
                  tensor_visitor fn, void *user, struct error *err);
