// eval/generate.c - see generate.h.
#include "eval/generate.h"

#include "base/mem.h"
#include "eval/sample.h"

#include <assert.h>
#include <inttypes.h>

// One call of generate().
struct generation {
    struct model *m;
    struct sequence *s;
    int64_t n;
    const struct generate_options *o;
    struct batch batch;
    int64_t *base;      // (n) first cache row of each sequence
    int64_t *done;      // (n) tokens of it that are in the cache
    bool *finished;     // (n)
    int32_t *cache_row; // (max_tokens) of the batch
    int32_t *row;       // (n) rows of the batch whose logits are wanted
    int64_t *owner;     // (n) whose they are
    float *logits;      // (n,V)
    struct candidate *scratch;
    int64_t wanted; // rows
    bool ended;     // the listener has had enough
};

static int64_t max_new(const struct generation *g, int64_t i)
{
    const int64_t room = g->m->config.max_positions - g->s[i].n_prompt;
    return g->o->max_new_tokens < room ? g->o->max_new_tokens : room;
}

int64_t generate_cache_rows(const struct sequence *s, int64_t n, const struct generate_options *o)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += s[i].n_prompt + o->max_new_tokens;
    }
    return rows;
}

static bool check(const struct generation *g, struct error *err)
{
    const struct model_config *c = &g->m->config;
    if (g->n > g->m->setup.max_tokens) {
        return fail(err, "%" PRId64 " sequences, at most %" PRId64 " side by side", g->n,
                    g->m->setup.max_tokens);
    }
    for (int64_t i = 0; i < g->n; i++) {
        const struct sequence *s = &g->s[i];
        if (s->n_prompt < 1) return fail(err, "the prompt has no token; at least one is needed");
        if (s->n_prompt >= c->max_positions) {
            return fail(err, "prompt of %" PRId64 " tokens, the model has %" PRId64 " positions",
                        s->n_prompt, c->max_positions);
        }
        for (int64_t t = 0; t < s->n_prompt; t++) {
            if (s->prompt[t] >= 0 && s->prompt[t] < c->vocab) continue;
            return fail(err, "token id %" PRId32 " of the prompt, the model has %" PRId64 " ids",
                        s->prompt[t], c->vocab);
        }
    }
    if (generate_cache_rows(g->s, g->n, g->o) <= g->m->setup.cache_rows) return true;
    return fail(err, "a cache of %" PRId64 " rows, %" PRId64 " are needed", g->m->setup.cache_rows,
                generate_cache_rows(g->s, g->n, g->o));
}

static bool open_generation(struct generation *g, struct error *err)
{
    const size_t n = (size_t)g->n, V = (size_t)g->m->config.vocab;
    if (!check(g, err) || !batch_reserve(&g->batch, g->m->setup.max_tokens, err)) return false;
    g->base = mem_zalloc(n, sizeof *g->base);
    g->done = mem_zalloc(n, sizeof *g->done);
    g->finished = mem_zalloc(n, sizeof *g->finished);
    g->cache_row = mem_zalloc((size_t)g->m->setup.max_tokens, sizeof *g->cache_row);
    g->row = mem_zalloc(n, sizeof *g->row);
    g->owner = mem_zalloc(n, sizeof *g->owner);
    g->logits = mem_zalloc(n, V * sizeof *g->logits);
    g->scratch = mem_zalloc(V, sizeof *g->scratch);
    if (!g->base || !g->done || !g->finished || !g->cache_row || !g->row || !g->owner ||
        !g->logits || !g->scratch) {
        return fail(err, "no memory for %" PRId64 " sequences", g->n);
    }
    for (int64_t i = 1; i < g->n; i++) {
        g->base[i] = g->base[i - 1] + g->s[i - 1].n_prompt + g->o->max_new_tokens;
    }
    return true;
}

static void close_generation(struct generation *g)
{
    batch_free(&g->batch);
    mem_free(g->base);
    mem_free(g->done);
    mem_free(g->finished);
    mem_free(g->cache_row);
    mem_free(g->row);
    mem_free(g->owner);
    mem_free(g->logits);
    mem_free(g->scratch);
}

// One more token of sequence i into the batch: its key and value go into the cache, and it attends to
// all of its sequence so far.
static void add_token(struct generation *g, int64_t i, int32_t id, bool wanted)
{
    struct batch *b = &g->batch;
    const int64_t position = g->done[i]++, row = g->base[i] + position;
    b->id[b->n] = id;
    b->position[b->n] = (int32_t)position;
    b->span[2 * b->n] = (int32_t)g->base[i];
    b->span[2 * b->n + 1] = (int32_t)row;
    b->target[b->n] = -100;
    g->cache_row[b->n] = (int32_t)row;
    if (wanted) {
        g->row[g->wanted] = (int32_t)b->n;
        g->owner[g->wanted++] = i;
    }
    b->n++;
}

static bool stops(const struct generate_options *o, int32_t id)
{
    for (int64_t i = 0; o->stop && i < o->stop->count; i++) {
        if (o->stop->id[i] == id) return true;
    }
    return false;
}

static bool take_token(struct generation *g, int64_t i, int32_t id, struct error *err)
{
    struct sequence *s = &g->s[i];
    if (stops(g->o, id)) {
        s->stop = id;
        g->finished[i] = true;
        return true;
    }
    if (!tokens_add(&s->out, id)) return fail(err, "no memory for %" PRId64 " ids", s->out.count);
    g->finished[i] = s->out.count >= max_new(g, i);
    if (g->o->token && !g->o->token(g->o->user, i, id)) g->ended = true;
    return true;
}

// Runs the batch and draws the next token of every sequence whose newest token was in it.
static bool run_batch(struct generation *g, struct error *err)
{
    const int64_t V = g->m->config.vocab;
    if (!g->batch.n) return true;
    model_forward(g->m, &g->batch, g->cache_row, false);
    if (g->wanted) model_logits(g->m, g->row, g->wanted, g->logits);
    bool ok = true;
    for (int64_t w = 0; ok && !g->ended && w < g->wanted; w++) {
        const int64_t i = g->owner[w];
        struct rng r = {.seed = g->o->sampling.seed,
                        .stream = (uint64_t)(g->o->first_stream + i),
                        .counter = (uint64_t)g->s[i].out.count};
        ok = take_token(g, i, sample_token(g->logits + w * V, V, &g->o->sampling, &r, g->scratch),
                        err);
    }
    g->batch.n = 0;
    g->wanted = 0;
    return ok;
}

static bool prefill(struct generation *g, struct error *err)
{
    for (int64_t i = 0; i < g->n; i++) {
        const struct sequence *s = &g->s[i];
        for (int64_t t = 0; t < s->n_prompt && !g->ended; t++) {
            add_token(g, i, s->prompt[t], t + 1 == s->n_prompt);
            if (g->batch.n == g->m->setup.max_tokens && !run_batch(g, err)) return false;
        }
    }
    return run_batch(g, err);
}

static bool decode(struct generation *g, struct error *err)
{
    for (bool any = true; any && !g->ended;) {
        any = false;
        for (int64_t i = 0; i < g->n; i++) {
            if (g->finished[i]) continue;
            const struct tokens *out = &g->s[i].out;
            add_token(g, i, out->id[out->count - 1], true);
            any = true;
        }
        if (!run_batch(g, err)) return false;
    }
    return true;
}

bool generate(struct model *m, struct sequence *s, int64_t n, const struct generate_options *o,
              struct error *err)
{
    struct generation g = {.m = m, .s = s, .n = n, .o = o};
    for (int64_t i = 0; i < n; i++) {
        s[i].out.count = 0;
        s[i].stop = -1;
    }
    const bool ok = open_generation(&g, err) && prefill(&g, err) && decode(&g, err);
    close_generation(&g);
    return ok;
}

bool generate_decode(struct buf *text, const int32_t *id, int64_t n, const struct tokenizer *t,
                     struct error *err)
{
    struct tokens known = {0};
    bool ok = buf_puts(text, "") || fail(err, "no memory for the text");
    for (int64_t i = 0; ok && i < n; i++) {
        if (id[i] >= tokenizer_size(t) || !tokenizer_token(t, id[i])) continue;
        ok = tokens_add(&known, id[i]) || fail(err, "no memory for the text");
    }
    ok = ok && tokenizer_decode(t, known.id, known.count, true, text, err);
    tokens_free(&known);
    return ok;
}
