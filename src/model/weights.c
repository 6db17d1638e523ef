// model/weights.c - from the tensors of a checkpoint to the banks of the layers: each tensor that the
// config calls for is looked up by its name and checked, and none may be left over.
#include "model/layer.h"

#include "base/mem.h"
#include "model/shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bank *bank_of(struct layer *l, enum role r)
{
    switch (r) {
    case ROLE_Q:
    case ROLE_Q_BIAS:
        return &l->q;
    case ROLE_K:
    case ROLE_K_BIAS:
        return &l->k;
    case ROLE_V:
    case ROLE_V_BIAS:
        return &l->v;
    case ROLE_O:
    case ROLE_O_BIAS:
        return &l->o;
    case ROLE_GATE:
    case ROLE_GATE_BIAS:
        return &l->dense.gate;
    case ROLE_UP:
    case ROLE_UP_BIAS:
        return &l->dense.up;
    case ROLE_DOWN:
    case ROLE_DOWN_BIAS:
        return &l->dense.down;
    case ROLE_ROUTER:
        return &l->router;
    case ROLE_EXPERT_GATE:
        return &l->experts.gate;
    case ROLE_EXPERT_UP:
        return &l->experts.up;
    case ROLE_EXPERT_DOWN:
        return &l->experts.down;
    case ROLE_SHARED_GATE:
        return &l->shared.gate;
    case ROLE_SHARED_UP:
        return &l->shared.up;
    case ROLE_SHARED_DOWN:
        return &l->shared.down;
    case ROLE_SHARED_SCALE:
        return &l->shared_gate;
    default:
        return NULL;
    }
}

static int64_t *norm_of(struct model *m, struct layer *l, enum role r)
{
    switch (r) {
    case ROLE_EMBEDDING:
        return &m->embedding;
    case ROLE_FINAL_NORM:
        return &m->final_norm;
    case ROLE_HEAD:
        return &m->head;
    case ROLE_INPUT_NORM:
        return &l->input_norm;
    case ROLE_POST_NORM:
        return &l->post_norm;
    case ROLE_Q_NORM:
        return &l->q_norm;
    case ROLE_K_NORM:
        return &l->k_norm;
    default:
        return NULL;
    }
}

static enum weight_part part_of(enum role r)
{
    switch (r) {
    case ROLE_EMBEDDING:
    case ROLE_HEAD:
        return PART_EMBEDDING;
    case ROLE_Q:
    case ROLE_K:
    case ROLE_V:
    case ROLE_O:
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
    case ROLE_O_BIAS:
        return PART_ATTENTION;
    case ROLE_GATE:
    case ROLE_UP:
    case ROLE_DOWN:
    case ROLE_GATE_BIAS:
    case ROLE_UP_BIAS:
    case ROLE_DOWN_BIAS:
        return PART_DENSE;
    case ROLE_EXPERT_GATE:
    case ROLE_EXPERT_UP:
    case ROLE_EXPERT_DOWN:
        return PART_EXPERT;
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
    case ROLE_SHARED_DOWN:
    case ROLE_SHARED_SCALE:
        return PART_SHARED;
    case ROLE_ROUTER:
        return PART_ROUTER;
    default:
        return PART_NORM;
    }
}

static const char *projection_of(enum role r)
{
    switch (r) {
    case ROLE_Q:
        return "q_proj";
    case ROLE_K:
        return "k_proj";
    case ROLE_V:
        return "v_proj";
    case ROLE_O:
        return "o_proj";
    case ROLE_GATE:
    case ROLE_EXPERT_GATE:
    case ROLE_SHARED_GATE:
        return "gate_proj";
    case ROLE_UP:
    case ROLE_EXPERT_UP:
    case ROLE_SHARED_UP:
        return "up_proj";
    case ROLE_DOWN:
    case ROLE_EXPERT_DOWN:
    case ROLE_SHARED_DOWN:
        return "down_proj";
    default:
        return NULL;
    }
}

// "layers.3.experts.7.up.weight" -> "layers.3.experts.*.up": what an adapter calls the bank.
static void bank_name(struct bank *b, const char *tensor, int64_t expert)
{
    char number[32] = "";
    if (expert >= 0) snprintf(number, sizeof number, ".%lld.", (long long)expert);
    const char *at = NULL;
    for (const char *p = tensor; *number && (p = strstr(p, number)); p++) {
        at = p; // the last: the first may be the layer's number
    }
    if (at) {
        snprintf(b->name, sizeof b->name, "%.*s.*.%s", (int)(at - tensor), tensor,
                 at + strlen(number));
    } else {
        snprintf(b->name, sizeof b->name, "%s", tensor);
    }
    char *weight = strstr(b->name, ".weight");
    if (weight && !weight[7]) *weight = 0;
}

static bool bank_open(struct bank *b, const struct weight *w, int64_t groups, struct error *err)
{
    if (b->weight) return true;
    b->groups = groups, b->out = w->stored.dim[0], b->in = w->stored.dim[1], b->bias = -1;
    b->part = w->part, b->layer = w->layer;
    bank_name(b, w->name, w->expert);
    b->weight = mem_zalloc((size_t)groups, sizeof *b->weight);
    return b->weight || fail(err, "%s: no memory", b->name);
}

static bool place_matrix(struct model *m, enum role role, int64_t index, struct error *err)
{
    struct weight *w = &m->weights.weight[index];
    struct bank *b = bank_of(&m->layer[w->layer], role);
    if (w->stored.rank == 1) {
        b->bias = index;
        return true;
    }
    if (!bank_open(b, w, w->expert >= 0 ? m->config.n_experts : 1, err)) return false;
    b->projection = projection_of(role);
    w->bank = b;
    w->group = w->expert >= 0 ? w->expert : 0;
    b->weight[w->group] = index;
    return true;
}

static bool check_entry(const struct model *m, const struct tensor_spec *s,
                        const struct st_entry *e, struct error *err)
{
    if (!e) return fail(err, "%s: tensor %s is missing", m->setup.dir, s->name);
    const char *file = checkpoint_file_of(&m->checkpoint, e);
    const bool floating =
        e->known && (e->tensor.dtype == DTYPE_F32 || e->tensor.dtype == DTYPE_BF16 ||
                     e->tensor.dtype == DTYPE_F16);
    if (!floating) {
        return fail(err, "%s: tensor %s is %s, expected BF16, F16 or F32", file, s->name,
                    e->dtype_name);
    }
    bool same = e->rank == s->rank;
    for (int i = 0; same && i < s->rank; i++) {
        same = e->shape[i] == s->dim[i];
    }
    if (same) return true;
    struct buf found = {0}, wanted = {0};
    for (int i = 0; i < e->rank; i++) {
        buf_printf(&found, "%s%lld", i ? ", " : "", (long long)e->shape[i]);
    }
    for (int i = 0; i < s->rank; i++) {
        buf_printf(&wanted, "%s%lld", i ? ", " : "", (long long)s->dim[i]);
    }
    fail(err, "%s: tensor %s has shape [%s], config.json calls for [%s]", file, s->name,
         found.data ? found.data : "", wanted.data ? wanted.data : "");
    buf_free(&found);
    buf_free(&wanted);
    return false;
}

struct collector {
    struct model *m;
    const struct family *family;
};

static bool add_weight(struct model *m, enum role role, const struct weight *w, struct error *err)
{
    struct weights *all = &m->weights;
    struct weight *grown = array_grow(all->weight, all->count, &all->capacity, sizeof *grown);
    if (!grown) return fail(err, "no memory for the list of tensors");
    all->weight = grown;
    const int64_t index = all->count++;
    all->weight[index] = *w;
    all->weight[index].value = w->stored;
    all->weight[index].grad = tensor_absent();
    all->weight[index].leaf = -1;
    all->weight[index].part = part_of(role);
    int64_t *norm = norm_of(m, w->layer >= 0 ? &m->layer[w->layer] : NULL, role);
    if (!norm) return place_matrix(m, role, index, err);
    *norm = index;
    return true;
}

// The matrices of one tensor that holds all experts' (E, rows, C), gate and up one above the other.
static bool add_fused(const struct collector *c, const struct tensor_spec *s,
                      const struct st_entry *e, struct error *err)
{
    static const enum role both[] = {ROLE_EXPERT_GATE, ROLE_EXPERT_UP}, one[] = {ROLE_EXPERT_DOWN};
    const bool gate_up = s->role == ROLE_EXPERTS_GATE_UP;
    const int64_t halves = gate_up ? 2 : 1, rows = s->dim[1] / halves;
    for (int64_t i = 0; i < s->dim[0] * halves; i++) {
        const enum role role = (gate_up ? both : one)[i % halves];
        struct weight w = {.entry = e, .offset = i * rows * s->dim[2], .layer = s->layer};
        w.expert = i / halves;
        family_name(w.name, sizeof w.name, c->family, role, w.layer, w.expert);
        char *data = (char *)e->tensor.data + (size_t)w.offset * dtype_size(e->tensor.dtype);
        w.stored = tensor_2d(data, e->tensor.dtype, rows, s->dim[2]);
        if (!add_weight(c->m, role, &w, err)) return false;
    }
    return true;
}

static bool collect_one(void *user, const struct tensor_spec *s, struct error *err)
{
    const struct collector *c = user;
    const struct st_entry *e = checkpoint_find(&c->m->checkpoint, s->name);
    if (!check_entry(c->m, s, e, err)) return false;
    if (s->rank == 3) return add_fused(c, s, e, err);
    struct weight w = {.entry = e, .stored = e->tensor, .layer = s->layer, .expert = s->expert};
    // The same name in every layout of the model; the tensor's own is entry->name.
    family_name(w.name, sizeof w.name, c->family, s->role, w.layer, w.expert);
    if (s->role == ROLE_ROUTER) {
        family_name(w.other, sizeof w.other, c->family, ROLE_ROUTER_FUSED, w.layer, -1);
        if (!strcmp(w.other, w.name)) *w.other = 0;
    }
    return add_weight(c->m, s->role, &w, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Tensors that older exports carry and that follow from the config, and a routing's state.
static bool may_be_left_over(const struct model *m, const char *name)
{
    const char *end = strstr(name, "rotary_emb.inv_freq");
    return (end && !end[19]) || (m->config.tied_head && !strcmp(name, "lm_head.weight")) ||
           routing_source_owns_tensor(name, &m->config);
}

static bool nothing_left_over(const struct model *m, struct error *err)
{
    const struct weights *w = &m->weights;
    const char **names = mem_alloc((size_t)w->count * sizeof *names);
    if (!names) return fail(err, "no memory for the list of tensors");
    for (int64_t i = 0; i < w->count; i++) {
        names[i] = w->weight[i].entry->name;
    }
    qsort(names, (size_t)w->count, sizeof *names, by_name);
    bool ok = true;
    for (int64_t i = 0; ok && i < checkpoint_tensors(&m->checkpoint); i++) {
        const struct st_entry *e = checkpoint_at(&m->checkpoint, i);
        const char *name = e->name;
        if (may_be_left_over(m, name)) continue;
        if (!bsearch(&name, names, (size_t)w->count, sizeof *names, by_name)) {
            ok = fail(err, "%s: tensor %s has no place in %s",
                      checkpoint_file_of(&m->checkpoint, e), name, m->config.architecture);
        }
    }
    mem_free(names);
    return ok;
}

// Where a fused checkpoint keeps the experts' banks.
static void name_fused(struct mlp *experts, const struct family *f, int64_t layer)
{
    struct bank *both[] = {&experts->gate, &experts->up};
    for (int64_t i = 0; i < 2; i++) {
        family_name(both[i]->fused, sizeof both[i]->fused, f, ROLE_EXPERTS_GATE_UP, layer, -1);
        both[i]->fused_part = i, both[i]->fused_parts = 2;
    }
    family_name(experts->down.fused, sizeof experts->down.fused, f, ROLE_EXPERTS_DOWN, layer, -1);
    experts->down.fused_parts = 1;
}

// The embedding serves as the head where they are tied.
static bool open_head(struct model *m, struct error *err)
{
    struct bank *b = &m->head_bank;
    if (!bank_open(b, &m->weights.weight[m->head], 1, err)) return false;
    b->weight[0] = m->head;
    return true;
}

bool weights_collect(struct model *m, const struct family *f, struct error *err)
{
    bool fused[MAX_LAYERS] = {0};
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        char name[NAME_MAX_LENGTH];
        family_name(name, sizeof name, f, ROLE_EXPERTS_GATE_UP, l, -1);
        fused[l] = *name && checkpoint_find(&m->checkpoint, name);
        struct layer *layer = &m->layer[l];
        layer->index = l;
        layer->moe = m->config.moe_layer[l];
        layer->input_norm = layer->post_norm = layer->q_norm = layer->k_norm = -1;
    }
    struct collector c = {m, f};
    if (!shapes_visit(f, &m->config, fused, collect_one, &c, err)) return false;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        if (m->layer[l].moe) name_fused(&m->layer[l].experts, f, l);
    }
    if (m->config.tied_head) m->head = m->embedding;
    return open_head(m, err) && nothing_left_over(m, err);
}

void layer_each_bank(struct layer *l, void (*fn)(struct bank *b, void *user), void *user)
{
    struct bank *banks[] = {&l->q,
                            &l->k,
                            &l->v,
                            &l->o,
                            &l->dense.gate,
                            &l->dense.up,
                            &l->dense.down,
                            &l->router,
                            &l->experts.gate,
                            &l->experts.up,
                            &l->experts.down,
                            &l->shared.gate,
                            &l->shared.up,
                            &l->shared.down,
                            &l->shared_gate};
    for (size_t i = 0; i < sizeof banks / sizeof *banks; i++) {
        if (banks[i]->groups) fn(banks[i], user);
    }
}

static void free_bank(struct bank *b, void *user)
{
    (void)user;
    mem_free(b->weight);
    b->weight = NULL;
}

void weights_free(struct model *m)
{
    for (int64_t l = 0; m->layer && l < m->config.n_layers; l++) {
        layer_each_bank(&m->layer[l], free_bank, NULL);
    }
    free_bank(&m->head_bank, NULL);
    mem_free(m->weights.weight);
    m->weights = (struct weights){0};
}
