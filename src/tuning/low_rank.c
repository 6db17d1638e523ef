// tuning/low_rank.c - see low_rank.h: the pairs' memory and first values, and the products with them.
#include "tuning/low_rank.h"

#include "base/mem.h"
#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// Streams of random numbers, one a bank from here on.
static const uint64_t stream_values = UINT64_C(0x6c6f7261) << 32;
static const uint64_t stream_dropout = UINT64_C(0x64726f70) << 32;
static const double most_dropout = 0.99;

bool low_rank_check(const struct tuning_options *r, const struct model_config *c, struct error *err)
{
    (void)c;
    if (r->lora_rank < 1) {
        return fail(err, "--lora-rank is %" PRId64 "; at least 1 expected", r->lora_rank);
    }
    if (!(r->lora_alpha > 0 && isfinite(r->lora_alpha))) {
        return fail(err, "--lora-alpha is %g; more than 0 expected", r->lora_alpha);
    }
    if (!(r->lora_dropout >= 0 && r->lora_dropout <= most_dropout)) {
        return fail(err, "--lora-dropout is %g; 0 to %g expected", r->lora_dropout, most_dropout);
    }
    return true;
}

// What an adapter's file brought whole (peft: modules_to_save) goes on learning.
bool low_rank_learns(const struct tuning_state *st, const struct weight *w)
{
    (void)st;
    return w->brought;
}

struct pair *low_rank_add(struct tuning_state *st, const struct tuning_input *in, int64_t bank,
                          int64_t rank, double alpha)
{
    struct pair *p = &st->pair[st->n_pairs++];
    const double root = st->rslora ? sqrt((double)rank) : (double)rank;
    *p = (struct pair){.bank = in->bank[bank],
                       .all = st,
                       .index = bank,
                       .rank = rank,
                       .alpha = alpha,
                       .scale = (float)(alpha / root)};
    for (struct pair *q = p; q > st->pair && q[-1].bank->layer == p->bank->layer; q--) {
        p->place++;
    }
    return p;
}

static bool add_targets(struct tuning_state *st, const struct tuning_input *in, struct error *err)
{
    const struct tuning_options *r = in->options;
    bool *target = mem_zalloc((size_t)in->n_banks, sizeof *target);
    bool ok = target || fail(err, "no memory for %" PRId64 " linears", in->n_banks);
    ok = ok && tuning_targets(target, in, "lora-targets", r->lora_targets, err);
    for (int64_t i = 0; ok && i < in->n_banks; i++) {
        const struct bank *b = in->bank[i];
        const int64_t most = b->in < b->out ? b->in : b->out;
        if (!target[i]) continue;
        if (r->lora_rank > most) {
            ok = fail(err,
                      "--lora-rank %" PRId64 ": %s is %" PRId64 " x %" PRId64
                      ", a rank of at most %" PRId64 " expected",
                      r->lora_rank, b->name, b->out, b->in, most);
        } else {
            low_rank_add(st, in, i, r->lora_rank, r->lora_alpha);
        }
    }
    mem_free(target);
    return ok;
}

static bool frozen_below(const struct pair *p, const struct tuning_input *in, struct error *err)
{
    for (int64_t g = 0; g < p->bank->groups; g++) {
        const struct weight *w = &in->weights->weight[p->bank->weight[g]];
        if (!w->learns) continue;
        return fail(err, "%s has a magnitude and low-rank matrices: it cannot learn whole besides",
                    w->name);
    }
    return true;
}

static bool create(struct tuning_state **out, const struct tuning_input *in, bool dora,
                   struct error *err)
{
    struct tuning_state *st = mem_zalloc(1, sizeof *st);
    if (st) st->pair = mem_zalloc((size_t)in->n_banks, sizeof *st->pair);
    *out = st;
    if (!st || !st->pair) return fail(err, "no memory for %" PRId64 " adapters", in->n_banks);
    st->ops = in->ops;
    st->dora = dora;
    st->compute = in->compute;
    st->seed = in->options->seed;
    st->dropout = (float)in->options->lora_dropout;
    st->rslora = in->options->lora_rslora;
    st->share = in->recompute;
    st->fresh = !in->adapter;
    bool ok = in->adapter ? low_rank_find_pairs(st, in, err) : add_targets(st, in, err);
    for (int64_t i = 0; ok && dora && i < st->n_pairs; i++) {
        ok = frozen_below(&st->pair[i], in, err);
    }
    return ok && (st->n_pairs || fail(err, "--lora-targets: no projection given"));
}

static bool open_half(struct half *h, const struct pair *p, const char *letter, int64_t rows,
                      int64_t cols, struct arena *a, struct leaves *out, struct error *err)
{
    char name[NAME_MAX_LENGTH + 32]; // leaves_add refuses what is too long
    const struct ops *o = p->all->ops;
    const int64_t G = p->bank->groups;
    snprintf(name, sizeof name, "%s.lora_%s.weight", p->bank->name, letter);
    const struct tensor shape = tensor_2d(NULL, DTYPE_F32, G * rows, cols);
    const struct leaf *f = leaves_add(out, a, name, shape, p->all->compute, err);
    if (!f) return false;
    const struct leaf leaf = *f;
    a->purpose = PURPOSE_DATA;
    h->value = leaf.value;
    h->grad = leaf.grad;
    h->used = p->all->compute == DTYPE_F32 ? leaf.value : leaf.copy;
    h->master = tuning_matrices(o, a, leaf.value, G);
    h->read = tuning_matrices(o, a, h->used, G);
    if (p->all->learns) h->dweight = tuning_matrices(o, a, leaf.grad, G);
    return true;
}

static bool open_magnitude(struct pair *p, struct arena *a, struct leaves *out, struct error *err)
{
    char name[NAME_MAX_LENGTH + 32];
    const int64_t G = p->bank->groups, N = p->bank->out, r = p->rank;
    snprintf(name, sizeof name, "%s.lora_magnitude_vector", p->bank->name);
    const struct tensor shape = tensor_1d(NULL, DTYPE_F32, G * N);
    const struct leaf *f = leaves_add(out, a, name, shape, DTYPE_F32, err);
    if (!f) return false;
    p->magnitude = tensor_2d(f->value.data, DTYPE_F32, G, N);
    p->dmagnitude = f->grad;
    if (f->grad.data || p->all->learns) {
        p->dmagnitude = tensor_2d(f->grad.data, DTYPE_F32, G, N);
    }
    a->purpose = PURPOSE_DATA;
    struct tensor *all[] = {&p->squares, &p->scaling, &p->inverse, &p->rest, &p->through};
    for (int i = 0; i < 5; i++) {
        *all[i] = arena_2d(a, DTYPE_F32, G, N);
    }
    const struct tensor gram = tensor_2d(p->all->gram.data, DTYPE_F32, G * r, r);
    p->gram = tuning_matrices(p->all->ops, a, gram, G);
    return true;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// Room for the rows of each pair, one for all pairs of the same place in their layers.
static void open_shared(struct tuning_state *st, struct arena *a, bool output)
{
    int64_t places = 0;
    for (int64_t i = 0; i < st->n_pairs; i++) {
        places = larger(places, st->pair[i].place + 1);
    }
    for (int64_t place = 0; place < places; place++) {
        int64_t most = 0;
        for (int64_t i = 0; i < st->n_pairs; i++) {
            const struct pair *p = &st->pair[i];
            const int64_t cols = output ? p->bank->out : p->rank;
            if (p->place == place) most = larger(most, p->bank->max_rows * cols);
        }
        const struct tensor all = arena_1d(a, st->compute, most);
        for (int64_t i = 0; i < st->n_pairs; i++) {
            struct pair *p = &st->pair[i];
            if (p->place == place) *(output ? &p->output : &p->dh) = all;
        }
    }
}

// What the forward pass keeps for the backward pass.
static void open_kept(struct tuning_state *st, struct arena *a)
{
    a->purpose = PURPOSE_ACTIVATIONS;
    if (st->dora && st->share) open_shared(st, a, true);
    for (int64_t i = 0; i < st->n_pairs; i++) {
        struct pair *p = &st->pair[i];
        p->h = arena_1d(a, st->compute, p->bank->max_rows * p->rank);
        if (st->dora && !st->share) {
            p->output = arena_1d(a, st->compute, p->bank->max_rows * p->bank->out);
        }
    }
}

// Scratch that all pairs share, and what those of one place in their layers do.
static void open_scratch(struct tuning_state *st, struct arena *a)
{
    int64_t hidden = 0, input = 0, output = 0, wa = 0, gram = 0;
    a->purpose = PURPOSE_SCRATCH;
    for (int64_t i = 0; i < st->n_pairs; i++) {
        const struct bank *b = st->pair[i].bank;
        const int64_t r = st->pair[i].rank;
        hidden = larger(hidden, b->max_rows * r);
        input = larger(input, b->max_rows * b->in);
        output = larger(output, b->max_rows * b->out);
        wa = larger(wa, b->groups * b->out * r);
        gram = larger(gram, b->groups * r * r);
    }
    st->hidden = arena_1d(a, st->compute, hidden);
    st->input = st->output = tensor_absent();
    if (st->learns && st->dropout > 0) st->input = arena_1d(a, st->compute, input);
    if (st->dora && st->learns) st->output = arena_1d(a, st->compute, output);
    if (st->dora) {
        st->wa = arena_1d(a, DTYPE_F32, wa);
        st->baa = arena_1d(a, DTYPE_F32, wa);
        st->gram = arena_1d(a, DTYPE_F32, gram);
    }
    if (!st->learns) return;
    open_shared(st, a, false);
    open_kept(st, a);
}

// A is drawn, B stays zero; the magnitude waits for the rows of W (dora's refresh).
static bool draw(struct pair *p, struct error *err)
{
    const int64_t n = tensor_count(p->a.value);
    float *values = mem_alloc((size_t)n * sizeof *values);
    if (!values) return fail(err, "no memory for %" PRId64 " values", n);
    rng_fill_uniform(values, n, 1.0F / sqrtf((float)p->bank->in), p->all->seed,
                     stream_values + (uint64_t)p->index, 0);
    p->all->ops->upload(p->a.value.data, values, (size_t)n * sizeof *values);
    mem_free(values);
    return true;
}

static void copy_values(const struct leaves *all, int64_t first, const struct ops *o)
{
    for (int64_t i = first; i < all->count; i++) {
        const struct leaf *f = &all->leaf[i];
        if (f->copy.data) o->convert(f->copy, f->value);
    }
}

bool low_rank_open(struct tuning_state **out, const struct tuning_input *in, bool dora,
                   struct arena *a, struct leaves *leaves, struct error *err)
{
    if (!*out && !create(out, in, dora, err)) return false;
    struct tuning_state *st = *out;
    const int64_t first = leaves->count;
    const enum purpose before = a->purpose;
    st->learns = !leaves->frozen;
    st->measured = false;
    open_scratch(st, a);
    for (int64_t i = 0; i < st->n_pairs; i++) {
        struct pair *p = &st->pair[i];
        const struct bank *b = p->bank;
        leaves->section = b->section;
        if (!open_half(&p->a, p, "A", p->rank, b->in, a, leaves, err) ||
            !open_half(&p->b, p, "B", b->out, p->rank, a, leaves, err) ||
            (dora && !open_magnitude(p, a, leaves, err))) {
            return false;
        }
        p->bank->adapter = p;
        if (arena_measuring(a)) continue;
        if (!(st->fresh ? draw : low_rank_load_fused)(p, err)) return false;
    }
    if (!arena_measuring(a)) copy_values(leaves, first, st->ops);
    a->purpose = before;
    return true;
}

void low_rank_close(struct tuning_state *st)
{
    mem_free(st->pair);
    mem_free(st);
}

void low_rank_begin(struct tuning_state *st, uint64_t pass, bool training)
{
    st->pass = pass;
    st->dropping = training && st->learns && st->dropout > 0;
}

struct tensor low_rank_rows(struct tensor scratch, int64_t rows, int64_t cols)
{
    return tensor_2d(scratch.data, scratch.dtype, rows, cols);
}

struct part low_rank_part(const struct bank *w)
{
    struct pair *p = w->adapter;
    const struct tuning_state *st = p->all;
    const uint64_t stream = stream_dropout + (uint64_t)p->index;
    return (struct part){.pair = p,
                         .whole = w == p->bank,
                         .a = matrices_part(&p->a.read, w->first_group, w->groups),
                         .b = matrices_part(&p->b.read, w->first_group, w->groups),
                         .drop = {.key = rng_at(st->seed, stream, st->pass),
                                  .p = st->dropout,
                                  .rows = w->rows,
                                  .first = w->first_group}};
}

struct tensor low_rank_input(const struct part *p, struct tensor x)
{
    const struct tuning_state *st = p->pair->all;
    if (!st->dropping) return x;
    const struct tensor dropped = low_rank_rows(st->input, x.dim[0], x.dim[1]);
    st->ops->dropout(dropped, x, &p->drop, false);
    return dropped;
}

struct tensor low_rank_kept(const struct part *p, struct tensor x)
{
    const struct pair *q = p->pair;
    const struct tensor at = p->whole && q->all->learns ? q->h : q->all->hidden;
    return low_rank_rows(at, x.dim[0], q->rank);
}

struct tensor low_rank_hidden(const struct part *p, struct tensor x, struct tensor offsets)
{
    const struct ops *o = p->pair->all->ops;
    const struct tensor h = low_rank_kept(p, x);
    o->matmul_forward(h, x, &p->a, offsets, false);
    o->scale(h, p->pair->scale);
    if (p->whole) p->pair->has_dh = false;
    return h;
}

bool low_rank_has_dhidden(const struct part *p, int64_t rows, struct tensor *dh)
{
    const struct pair *q = p->pair;
    if (!p->whole || !q->has_dh) return false;
    *dh = low_rank_rows(q->dh, rows, q->rank);
    return true;
}

struct tensor low_rank_dhidden(const struct part *p, struct tensor dy, struct tensor offsets)
{
    struct pair *q = p->pair;
    const struct ops *o = q->all->ops;
    struct tensor dh;
    if (low_rank_has_dhidden(p, dy.dim[0], &dh)) return dh;
    dh = low_rank_rows(p->whole ? q->dh : q->all->hidden, dy.dim[0], q->rank);
    o->matmul_dinput(dh, dy, &p->b, offsets, false);
    o->scale(dh, q->scale);
    q->has_dh = p->whole;
    return dh;
}

static bool name_tensor(struct adapter_tensor *t, const char *module, const char *end,
                        struct error *err)
{
    const int n = snprintf(t->name, sizeof t->name, "%s.%s", module, end);
    return (n > 0 && n < (int)sizeof t->name) ||
           fail(err, "%s.%s: the name is too long", module, end);
}

static bool visit(const struct pair *p, int64_t group, adapter_visitor fn, void *user,
                  struct error *err)
{
    static const char *const names[] = {"lora_A.weight", "lora_B.weight"};
    const int64_t N = p->bank->out, rows[] = {p->rank, N};
    const struct half *half[] = {&p->a, &p->b};
    char module[NAME_MAX_LENGTH];
    bank_module(module, p->bank, group);
    for (int i = 0; i < 2; i++) {
        struct adapter_tensor t = {.grad = tensor_absent(), .from = p->from[i]};
        t.value = tensor_rows(half[i]->value, group * rows[i], rows[i]);
        if (p->all->learns) t.grad = tensor_rows(half[i]->grad, group * rows[i], rows[i]);
        if (!name_tensor(&t, module, names[i], err) || !fn(user, &t, err)) return false;
    }
    if (!p->all->dora) return true;
    struct adapter_tensor m = {.grad = tensor_absent()};
    m.value = tensor_1d(row_f32(p->magnitude, group), DTYPE_F32, N);
    if (p->all->learns) m.grad = tensor_1d(row_f32(p->dmagnitude, group), DTYPE_F32, N);
    return name_tensor(&m, module, "lora_magnitude_vector", err) && fn(user, &m, err);
}

bool low_rank_tensors(const struct tuning_state *st, adapter_visitor fn, void *user,
                      struct error *err)
{
    for (int64_t i = 0; i < st->n_pairs; i++) {
        for (int64_t g = 0; g < st->pair[i].bank->groups; g++) {
            if (!visit(&st->pair[i], g, fn, user, err)) return false;
        }
    }
    return true;
}

bool low_rank_merge(const struct pair *p, int64_t group, float *w, struct error *err)
{
    const struct ops *o = p->all->ops;
    const int64_t N = p->bank->out, C = p->bank->in, n = N * C;
    const size_t bytes = (size_t)n * sizeof(float);
    const struct tensor delta = tensor_2d(o->allocate(bytes), DTYPE_F32, N, C);
    float *host = mem_alloc(bytes);
    const bool ok = (delta.data && host) || fail(err, "no memory to merge %s", p->bank->name);
    if (ok) {
        const struct matrices a = matrices_part(&p->a.master, group, 1);
        const struct tensor b = tensor_rows(p->b.value, group * N, N);
        o->matmul_dinput(delta, b, &a, tensor_absent(), false);
        o->download(host, delta.data, bytes);
    }
    for (int64_t i = 0; ok && i < n; i++) {
        w[i] += p->scale * host[i];
    }
    mem_free(host);
    if (delta.data) o->release(delta.data, bytes);
    return ok;
}
