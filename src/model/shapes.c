// model/shapes.c - see shapes.h.
#include "model/shapes.h"

#include <stdio.h>

struct visit {
    const struct family *family;
    const struct model_config *config;
    tensor_visitor fn;
    void *user;
    struct error *err;
};

static bool emit(const struct visit *v, enum role role, int64_t layer, int64_t expert, int64_t d0,
                 int64_t d1)
{
    struct tensor_spec s = {.role = role, .layer = layer, .expert = expert};
    family_name(s.name, sizeof s.name, v->family, role, layer, expert);
    s.rank = d1 ? 2 : 1;
    s.dim[0] = d0, s.dim[1] = d1;
    return v->fn(v->user, &s, v->err);
}

static bool emit_fused(const struct visit *v, enum role role, int64_t layer, int64_t rows,
                       int64_t cols)
{
    struct tensor_spec s = {.role = role, .layer = layer, .expert = -1, .rank = 3};
    family_name(s.name, sizeof s.name, v->family, role, layer, -1);
    s.dim[0] = v->config->n_experts, s.dim[1] = rows, s.dim[2] = cols;
    return v->fn(v->user, &s, v->err);
}

static bool visit_attention(const struct visit *v, int64_t l)
{
    const struct model_config *c = v->config;
    const int64_t C = c->width, HD = c->n_heads * c->head_dim, GD = c->n_kv_heads * c->head_dim;
    const bool full = c->qk_norm == QK_NORM_FULL, norm = c->qk_norm != QK_NORM_NONE;
    return emit(v, ROLE_INPUT_NORM, l, -1, C, 0) && emit(v, ROLE_Q, l, -1, HD, C) &&
           emit(v, ROLE_K, l, -1, GD, C) && emit(v, ROLE_V, l, -1, GD, C) &&
           emit(v, ROLE_O, l, -1, C, HD) &&
           (!c->qkv_bias ||
            (emit(v, ROLE_Q_BIAS, l, -1, HD, 0) && emit(v, ROLE_K_BIAS, l, -1, GD, 0) &&
             emit(v, ROLE_V_BIAS, l, -1, GD, 0))) &&
           (!c->o_bias || emit(v, ROLE_O_BIAS, l, -1, C, 0)) &&
           (!norm || (emit(v, ROLE_Q_NORM, l, -1, full ? HD : c->head_dim, 0) &&
                      emit(v, ROLE_K_NORM, l, -1, full ? GD : c->head_dim, 0))) &&
           emit(v, ROLE_POST_NORM, l, -1, C, 0);
}

// The router beside fused experts may have another name, and is the same tensor.
static bool emit_router(const struct visit *v, int64_t layer, bool fused)
{
    struct tensor_spec s = {.role = ROLE_ROUTER, .layer = layer, .expert = -1, .rank = 2};
    family_name(s.name, sizeof s.name, v->family, fused ? ROLE_ROUTER_FUSED : ROLE_ROUTER, layer,
                -1);
    s.dim[0] = v->config->n_experts, s.dim[1] = v->config->width;
    return v->fn(v->user, &s, v->err);
}

static bool visit_mlp(const struct visit *v, const enum role *gate_up_down, int64_t l, int64_t e,
                      int64_t F)
{
    const int64_t C = v->config->width;
    return emit(v, gate_up_down[0], l, e, F, C) && emit(v, gate_up_down[1], l, e, F, C) &&
           emit(v, gate_up_down[2], l, e, C, F);
}

static bool visit_experts(const struct visit *v, int64_t l, bool fused)
{
    static const enum role expert[] = {ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN};
    const struct model_config *c = v->config;
    if (fused) {
        return emit_fused(v, ROLE_EXPERTS_GATE_UP, l, 2 * c->expert_width, c->width) &&
               emit_fused(v, ROLE_EXPERTS_DOWN, l, c->width, c->expert_width);
    }
    for (int64_t e = 0; e < c->n_experts; e++) {
        if (!visit_mlp(v, expert, l, e, c->expert_width)) return false;
    }
    return true;
}

static bool visit_moe(const struct visit *v, int64_t l, bool fused)
{
    static const enum role shared[] = {ROLE_SHARED_GATE, ROLE_SHARED_UP, ROLE_SHARED_DOWN};
    const struct model_config *c = v->config;
    return emit_router(v, l, fused) && visit_experts(v, l, fused) &&
           (!c->shared_width ||
            (visit_mlp(v, shared, l, -1, c->shared_width) &&
             (!c->shared_gate || emit(v, ROLE_SHARED_SCALE, l, -1, 1, c->width))));
}

static bool visit_dense(const struct visit *v, int64_t l)
{
    static const enum role dense[] = {ROLE_GATE, ROLE_UP, ROLE_DOWN};
    const int64_t C = v->config->width, F = v->config->dense_width;
    return visit_mlp(v, dense, l, -1, F) &&
           (!v->config->dense_bias ||
            (emit(v, ROLE_GATE_BIAS, l, -1, F, 0) && emit(v, ROLE_UP_BIAS, l, -1, F, 0) &&
             emit(v, ROLE_DOWN_BIAS, l, -1, C, 0)));
}

bool shapes_visit(const struct family *f, const struct model_config *c, const bool *fused,
                  tensor_visitor fn, void *user, struct error *err)
{
    const struct visit v = {f, c, fn, user, err};
    if (!emit(&v, ROLE_EMBEDDING, -1, -1, c->vocab, c->width)) return false;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (!visit_attention(&v, l)) return false;
        if (!(c->moe_layer[l] ? visit_moe(&v, l, fused && fused[l]) : visit_dense(&v, l))) {
            return false;
        }
    }
    return emit(&v, ROLE_FINAL_NORM, -1, -1, c->width, 0) &&
           (c->tied_head || emit(&v, ROLE_HEAD, -1, -1, c->vocab, c->width));
}
