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
        return &l->dense.gate;
    case ROLE_UP:
        return &l->dense.up;
    case ROLE_DOWN:
        return &l->dense.down;
    case ROLE_ROUTER:
        return &l->router;
    case ROLE_EXPERT_GATE:
    case ROLE_EXPERTS_GATE_UP:
        return &l->experts.gate;
    case ROLE_EXPERT_UP:
        return &l->experts.up;
    case ROLE_EXPERT_DOWN:
    case ROLE_EXPERTS_DOWN:
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

static bool bank_open(struct bank *b, const char *tensor, int64_t expert, int64_t groups,
                      int64_t out, int64_t in, struct error *err)
{
    if (b->source) return true;
    b->groups = groups, b->out = out, b->in = in, b->bias = -1;
    bank_name(b, tensor, expert);
    b->source = mem_zalloc((size_t)groups, sizeof *b->source);
    return b->source || fail(err, "%s: no memory", b->name);
}

static bool place_matrix(struct layer *l, const struct tensor_spec *s, int64_t weight,
                         int64_t n_experts, struct error *err)
{
    struct bank *b = bank_of(l, s->role);
    if (s->rank == 1) {
        b->bias = weight;
        return true;
    }
    if (s->rank == 2) {
        const int64_t g = s->expert >= 0 ? s->expert : 0;
        if (!bank_open(b, s->name, s->expert, s->expert >= 0 ? n_experts : 1, s->dim[0], s->dim[1],
                       err)) {
            return false;
        }
        b->source[g] = (struct matrix_source){weight, 0};
        return true;
    }
    // Fused over experts; gate and up one above the other.
    const int64_t E = s->dim[0], block = s->dim[1] * s->dim[2];
    const int halves = s->role == ROLE_EXPERTS_GATE_UP ? 2 : 1;
    struct bank *half[2] = {b, &l->experts.up};
    for (int h = 0; h < halves; h++) {
        if (!bank_open(half[h], s->name, -1, E, s->dim[1] / halves, s->dim[2], err)) return false;
        for (int64_t e = 0; e < E; e++) {
            half[h]->source[e] = (struct matrix_source){weight, e * block + h * (block / halves)};
        }
    }
    return true;
}

static bool check_entry(const struct model *m, const struct tensor_spec *s,
                        const struct st_entry *e, struct error *err)
{
    const char *dir = m->setup.dir;
    if (!e) return fail(err, "%s: tensor %s is missing", dir, s->name);
    const bool floating =
        e->known && (e->tensor.dtype == DTYPE_F32 || e->tensor.dtype == DTYPE_BF16 ||
                     e->tensor.dtype == DTYPE_F16);
    if (!floating) {
        return fail(err, "%s: tensor %s is %s, expected BF16, F16 or F32", dir, s->name,
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
    fail(err, "%s: tensor %s has shape [%s], config.json calls for [%s]", dir, s->name,
         found.data ? found.data : "", wanted.data ? wanted.data : "");
    buf_free(&found);
    buf_free(&wanted);
    return false;
}

static bool collect_one(void *user, const struct tensor_spec *s, struct error *err)
{
    struct model *m = user;
    const struct st_entry *e = checkpoint_find(&m->checkpoint, s->name);
    if (!check_entry(m, s, e, err)) return false;
    struct weights *w = &m->weights;
    struct weight *grown = array_grow(w->weight, w->count, &w->capacity, sizeof *grown);
    if (!grown) return fail(err, "no memory for the list of tensors");
    w->weight = grown;
    const int64_t index = w->count++;
    w->weight[index] = (struct weight){.stored = e->tensor, .value = e->tensor, .leaf = -1};
    w->weight[index].grad = tensor_absent();
    snprintf(w->weight[index].name, sizeof w->weight[index].name, "%s", s->name);

    struct layer *l = s->layer >= 0 ? &m->layer[s->layer] : NULL;
    int64_t *norm = norm_of(m, l, s->role);
    if (norm) {
        *norm = index;
        return true;
    }
    return place_matrix(l, s, index, m->config.n_experts, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Tensors that older exports carry and that follow from the config.
static bool may_be_left_over(const struct model *m, const char *name)
{
    const char *end = strstr(name, "rotary_emb.inv_freq");
    return (end && !end[19]) || (m->config.tied_head && !strcmp(name, "lm_head.weight"));
}

static bool nothing_left_over(const struct model *m, struct error *err)
{
    const struct weights *w = &m->weights;
    const char **names = mem_alloc((size_t)w->count * sizeof *names);
    if (!names) return fail(err, "no memory for the list of tensors");
    for (int64_t i = 0; i < w->count; i++) {
        names[i] = w->weight[i].name;
    }
    qsort(names, (size_t)w->count, sizeof *names, by_name);
    bool ok = true;
    for (int64_t i = 0; ok && i < checkpoint_tensors(&m->checkpoint); i++) {
        const char *name = checkpoint_at(&m->checkpoint, i)->name;
        if (may_be_left_over(m, name)) continue;
        if (!bsearch(&name, names, (size_t)w->count, sizeof *names, by_name)) {
            ok = fail(err, "%s: tensor %s has no place in %s", m->setup.dir, name,
                      m->config.architecture);
        }
    }
    mem_free(names);
    return ok;
}

// The embedding serves as the head where they are tied.
static bool open_head(struct model *m, struct error *err)
{
    struct bank *b = &m->head_bank;
    if (!bank_open(b, "lm_head", -1, 1, m->config.vocab, m->config.width, err)) return false;
    b->source[0] = (struct matrix_source){m->head, 0};
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
    if (!shapes_visit(f, &m->config, fused, collect_one, m, err)) return false;
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
    mem_free(b->source);
    b->source = NULL;
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
