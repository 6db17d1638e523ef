// model/model.c - opening a checkpoint over a backend: config, tensors, tuning, routing, and the two
// arenas, each described by one function that measures first and places later.
#include "model/acts.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/rope.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static enum dtype activation_type(const struct model *m)
{
    return m->setup.dtype == DTYPE_BF16 ? m->setup.ops->bf16_activations() : DTYPE_F32;
}

struct copy_choice {
    struct model *m;
    struct error *err;
    bool ok;
};

// A bank's matrices are read through one type. Where all of it learns that is the activations' type;
// where some learn and some are mapped, the working copies take the type of the mapped ones.
static void choose_copy_type(struct bank *b, void *user)
{
    struct copy_choice *choice = user;
    struct weight *w = choice->m->weights.weight;
    const enum dtype stored = w[b->weight[0]].stored.dtype;
    bool all = true;
    for (int64_t g = 0; g < b->groups; g++) {
        const struct weight *x = &w[b->weight[g]];
        all &= x->learns;
        if (x->stored.dtype == stored || !choice->ok) continue;
        choice->ok = fail(choice->err, "%s: tensor %s is %s, but %s is %s; one type expected",
                          choice->m->setup.dir, x->name, dtype_name(x->stored.dtype),
                          w[b->weight[0]].name, dtype_name(stored));
    }
    for (int64_t g = 0; g < b->groups; g++) {
        w[b->weight[g]].copy_type = all ? activation_type(choice->m) : stored;
    }
}

static bool choose_copy_types(struct model *m, struct error *err)
{
    struct copy_choice choice = {m, err, true};
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        layer_each_bank(&m->layer[l], choose_copy_type, &choice);
    }
    choose_copy_type(&m->head_bank, &choice);
    return choice.ok;
}

static void count_bank(struct bank *b, void *user)
{
    (void)b;
    ++*(int64_t *)user;
}

static void list_bank(struct bank *b, void *user)
{
    struct model *m = user;
    b->tuning = m->setup.tuning;
    m->bank[m->n_banks++] = b;
}

static bool list_banks(struct model *m, struct error *err)
{
    int64_t n = 0;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        layer_each_bank(&m->layer[l], count_bank, &n);
    }
    m->bank = mem_zalloc((size_t)n, sizeof *m->bank);
    if (!m->bank) return fail(err, "%s: no memory for %" PRId64 " linears", m->setup.dir, n);
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        layer_each_bank(&m->layer[l], list_bank, m);
    }
    return true;
}

struct tuning_input tuning_input(const struct model *m)
{
    return (struct tuning_input){.ops = m->setup.ops,
                                 .config = &m->config,
                                 .options = &m->setup.tuning_options,
                                 .weights = &m->weights,
                                 .bank = m->bank,
                                 .n_banks = m->n_banks,
                                 .compute = m->acts->dtype,
                                 .recompute = m->setup.recompute,
                                 .dir = m->setup.dir,
                                 .adapter = m->adapter_path ? &m->adapter : NULL,
                                 .prefix = m->adapter_path ? m->setup.tuning->format->prefix : "",
                                 .adapter_dir = m->setup.adapter};
}

bool model_learns(const struct model *m)
{
    return m->setup.tuning && !m->setup.frozen;
}

// Is the part in the second half of a block? Attention and all norms are in the first.
static bool of_mlp(enum weight_part part)
{
    return part == PART_EXPERT || part == PART_SHARED || part == PART_DENSE || part == PART_ROUTER;
}

static int64_t half_of(int64_t layer, enum weight_part part)
{
    return 2 * layer + of_mlp(part);
}

// Where the gradient of a weight is made: a norm's where its half begins or ends, and a tied embedding's at
// both ends of the pass, so that theirs are in no section.
static int64_t weight_section(const struct model *m, int64_t index)
{
    const struct weight *w = &m->weights.weight[index];
    if (w->part == PART_NORM) return SECTION_NONE;
    if (w->layer >= 0) return section_of(w->layer, of_mlp(w->part));
    if (m->head == m->embedding) return SECTION_NONE;
    return index == m->head ? section_of_head(m->config.n_layers) : SECTION_EMBEDDING;
}

static void find_sections(struct model *m)
{
    for (int64_t i = 0; i < m->weights.count; i++) {
        m->weights.weight[i].section = weight_section(m, i);
    }
    for (int64_t i = 0; i < m->n_banks; i++) {
        m->bank[i]->section = section_of(m->bank[i]->layer, of_mlp(m->bank[i]->part));
    }
}

static int64_t lower(int64_t first, int64_t half)
{
    return half < first ? half : first;
}

// The lowest half of a block that anything learns in; -1 if the embedding does. `gates`: the routing has leaves.
static void find_first_learning(struct model *m, bool gates)
{
    int64_t first = 2 * m->config.n_layers;
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *x = &m->weights.weight[i];
        if (x->learns && x->layer >= 0) first = lower(first, half_of(x->layer, x->part));
    }
    for (int64_t i = 0; i < m->n_banks; i++) {
        const struct bank *b = m->bank[i];
        if (b->adapter && b->tuning->dweight) first = lower(first, half_of(b->layer, b->part));
    }
    for (int64_t l = 0; gates && l < m->config.n_layers; l++) {
        if (m->config.moe_layer[l]) first = lower(first, half_of(l, PART_ROUTER));
    }
    m->first_learning = m->weights.weight[m->embedding].learns ? -1 : first;
}

// Rows of an expert's linear: every slot of every token may come to one layer's bank.
static void set_most_rows(struct model *m)
{
    const struct routing *r = m->setup.routing;
    for (int64_t i = 0; i < m->n_banks; i++) {
        struct bank *b = m->bank[i];
        int64_t slots = 1;
        if (b->part == PART_EXPERT) {
            slots = r->slots(m->routing_state, b->layer, model_learns(m));
            if (model_learns(m) && r->active) slots = r->active(m->routing_state, b->layer);
        }
        b->max_rows = m->setup.max_tokens * slots;
    }
}

static bool layout_rope(struct model *m, struct arena *a, struct error *err)
{
    const int64_t positions =
        m->setup.max_tokens > m->setup.cache_rows ? m->setup.max_tokens : m->setup.cache_rows;
    m->rope = arena_2d(a, DTYPE_F32, positions, m->config.head_dim);
    if (arena_measuring(a)) return true;
    float *table = mem_alloc(tensor_bytes(m->rope));
    if (!table) return fail(err, "no memory for %" PRId64 " positions", positions);
    rope_table(table, positions, &m->config);
    m->setup.ops->upload(m->rope.data, table, tensor_bytes(m->rope));
    mem_free(table);
    return true;
}

static void layout_caches(struct model *m, struct arena *a)
{
    const struct model_config *c = &m->config;
    for (int64_t l = 0; m->setup.cache_rows && l < c->n_layers; l++) {
        const int64_t GD = c->n_kv_heads * c->head_dim;
        m->layer[l].cache_k = arena_2d(a, m->acts->dtype, m->setup.cache_rows, GD);
        m->layer[l].cache_v = arena_2d(a, m->acts->dtype, m->setup.cache_rows, GD);
    }
}

// Everything that lives as long as the model.
static bool layout_state(struct model *m, struct error *err)
{
    struct arena *a = &m->state;
    const struct model_setup *s = &m->setup;
    a->used = m->moments.used = 0;
    memset(a->by_purpose, 0, sizeof a->by_purpose);
    memset(m->moments.by_purpose, 0, sizeof m->moments.by_purpose);
    m->leaves.frozen = !model_learns(m);
    m->leaves.storage = s->storage;
    m->leaves.states = s->host_states ? &m->moments : NULL;
    leaves_begin(&m->leaves, a);
    if (!tuning_leaves(&m->weights, s->ops, &m->leaves, a, err)) return false;
    const int64_t whole = m->leaves.count;
    if (m->config.n_experts &&
        !s->routing->open(&m->routing_state, s->ops, &m->config, &s->routing_options, s->max_tokens,
                          a, &m->leaves, err)) {
        return false;
    }
    const bool gates = m->leaves.count > whole;
    set_most_rows(m);
    const struct tuning_input in = tuning_input(m);
    if (s->tuning && s->tuning->open &&
        !s->tuning->open(&m->tuning_state, &in, a, &m->leaves, err)) {
        return false;
    }
    leaves_end(&m->leaves, a);
    find_first_learning(m, gates);
    router_losses_open(&m->router_losses, s->ops, &m->config, s->routing, &s->routing_options,
                       s->max_tokens, a);
    weights_bind(m, a);
    a->purpose = PURPOSE_DATA;
    m->loss_sum = arena_1d(a, DTYPE_F64, 1);
    m->usage = arena_2d(a, DTYPE_F32, m->config.n_layers, m->config.n_experts);
    a->purpose = PURPOSE_ACTIVATIONS;
    layout_caches(m, a);
    a->purpose = PURPOSE_DATA;
    return layout_rope(m, a, err);
}

// The larger of a training and an evaluation batch, where there is training.
static void measure_work(struct model *m)
{
    const int64_t n = m->setup.max_tokens;
    m->work.base = NULL;
    acts_layout(m->acts, &m->work, m, n, false);
    size_t capacity = m->work.used;
    if (model_learns(m)) {
        acts_layout(m->acts, &m->work, m, n, true);
        if (m->work.used > capacity) capacity = m->work.used;
    }
    m->work.capacity = capacity;
    for (int p = 0; p < PURPOSE_COUNT; p++) {
        m->plan[p] = m->state.by_purpose[p] + m->moments.by_purpose[p] + m->work.by_purpose[p];
    }
}

// Where the routing's state lies.
static bool find_state(struct model *m, struct error *err)
{
    const struct model_setup *s = &m->setup;
    const bool other = s->state_dir && strcmp(s->state_dir, s->dir) != 0;
    if (other && !checkpoint_open(&m->state_checkpoint, s->state_dir, err)) return false;
    return routing_options_source(&m->setup.routing_options, s->adapter,
                                  other ? s->state_dir : s->dir,
                                  other ? &m->state_checkpoint : &m->checkpoint, err);
}

static bool open_parts(struct model *m, struct error *err)
{
    const struct family *family;
    const struct model_setup *s = &m->setup;
    if (!family_read_config(&family, &m->config, s->dir, err)) return false;
    if (!checkpoint_open(&m->checkpoint, s->dir, err)) return false;
    if (!find_state(m, err)) return false;
    if (!routing_check(s->routing, &s->routing_options, &m->config, err)) return false;
    const size_t L = (size_t)m->config.n_layers;
    m->layer = mem_zalloc(L, sizeof *m->layer);
    m->acts = mem_zalloc(1, sizeof *m->acts);
    if (m->acts) m->acts->layer = mem_zalloc(L, sizeof *m->acts->layer);
    m->host = mem_alloc((size_t)s->max_tokens * 2 * sizeof *m->host);
    if (!m->layer || !m->acts || !m->acts->layer || !m->host) {
        return fail(err, "%s: no memory for %zu layers", s->dir, L);
    }
    m->acts->dtype = activation_type(m);
    if (!weights_collect(m, family, err) || !list_banks(m, err)) return false;
    find_sections(m);
    return adapter_open(m, err);
}

// What learns whole.
static bool choose_weights(struct model *m, struct error *err)
{
    const struct tuning *t = m->setup.tuning;
    const struct tuning_input in = tuning_input(m);
    if (model_learns(m) && t->check && !t->check(in.options, in.config, err)) return false;
    if (t && t->choose && !t->choose(&m->tuning_state, &in, err)) return false;
    return tuning_choose(model_learns(m) ? t : NULL, m->tuning_state, &m->weights,
                         &m->setup.tuning_options, err);
}

bool model_open(struct model *m, const struct model_setup *s, struct error *err)
{
    *m = (struct model){.setup = *s};
    m->weights.loading = s->loading, m->weights.user = s->loading_user;
    if (!open_parts(m, err) || !choose_weights(m, err) || !choose_copy_types(m, err)) {
        model_close(m);
        return false;
    }
    m->router_loss_weight = 1;
    if (!layout_state(m, err) || !s->ops->check(err)) { // it was asked what it can do
        model_close(m);
        return false;
    }
    m->state.capacity = m->state.used;
    m->moments.capacity = m->moments.used;
    measure_work(m);
    return true;
}

// The state that a run left in the folder: what is computed, or what training begins from.
static bool load_routing(struct model *m, struct error *err)
{
    const struct routing *r = m->setup.routing;
    const struct routing_source *s = &m->setup.routing_options.source;
    if (!m->routing_state) return true;
    if (r->load) return r->load(m->routing_state, s, err);
    if (s->bias || s->experts) {
        log_warning("%s: the model was trained with another routing, and runs with %s here", s->dir,
                    r->name);
    }
    return true;
}

bool model_allocate(struct model *m, struct error *err)
{
    if (!memory_obtain(m, err) || !layout_state(m, err) || !adapter_load(m, err)) return false;
    model_refresh(m);
    return load_routing(m, err) && (model_learns(m) || model_begin_last_phase(m, err));
}

void model_refresh(struct model *m)
{
    const struct tuning *t = m->setup.tuning;
    if (t && t->refresh) t->refresh(m->tuning_state);
}

void model_close(struct model *m)
{
    if (m->routing_state) m->setup.routing->close(m->routing_state);
    if (m->tuning_state) m->setup.tuning->close(m->tuning_state);
    memory_release(m);
    weights_free(m);
    adapter_close(m);
    mem_free(m->bank);
    leaves_free(&m->leaves);
    checkpoint_close(&m->checkpoint);
    checkpoint_close(&m->state_checkpoint);
    if (m->acts) mem_free(m->acts->layer);
    mem_free(m->acts);
    mem_free(m->layer);
    mem_free(m->host);
    *m = (struct model){0};
}

void model_zero_grad(struct model *m)
{
    for (int64_t i = 0; i < m->leaves.count; i++) {
        m->setup.ops->zero(m->leaves.leaf[i].grad);
    }
}

double model_take_loss(struct model *m)
{
    double sum = 0;
    m->setup.ops->download(&sum, m->loss_sum.data, sizeof sum);
    m->setup.ops->zero(m->loss_sum);
    return sum;
}

double model_take_router_loss(struct model *m)
{
    return router_losses_on(&m->router_losses) ? router_losses_take(&m->router_losses) : 0;
}

void model_take_usage(struct model *m, float *usage)
{
    m->setup.ops->download(usage, m->usage.data, tensor_bytes(m->usage));
    m->setup.ops->zero(m->usage);
}

static void router_row(void *user, int64_t layer, int64_t expert, float *row)
{
    struct model *m = user;
    const struct matrices *w = &m->layer[layer].router.value;
    const size_t bytes = (size_t)w->cols * dtype_size(w->dtype);
    const char *data = m->weights.weight[m->layer[layer].router.weight[0]].value.data;
    char raw[sizeof(float)];
    for (int64_t c = 0; c < w->cols; c++) {
        const size_t size = dtype_size(w->dtype);
        m->setup.ops->download(raw, data + (size_t)expert * bytes + (size_t)c * size, size);
        dtype_convert(&row[c], DTYPE_F32, raw, w->dtype, 1);
    }
}

bool model_begin_phase(struct model *m, int64_t phase, struct error *err)
{
    const struct routing *r = m->setup.routing;
    const struct router_rows rows = {m, router_row};
    return !m->routing_state || !r->begin || r->begin(m->routing_state, phase, &rows, err);
}

bool model_begin_last_phase(struct model *m, struct error *err)
{
    const struct routing *r = m->setup.routing;
    const int64_t phases = r->phases ? r->phases(&m->setup.routing_options) : 1;
    return model_begin_phase(m, phases - 1, err);
}

struct tensor model_router_logits(const struct model *m, int64_t layer)
{
    return m->acts->layer[layer].z;
}

struct tensor model_moe_input(const struct model *m, int64_t layer)
{
    return m->acts->layer[layer].n2;
}

struct route model_route(const struct model *m, int64_t layer)
{
    return m->acts->layer[layer].route;
}
