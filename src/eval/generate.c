// eval/generate.c - see generate.h.
#include "eval/generate.h"

#include "base/mem.h"
#include "eval/beam.h"
#include "eval/lanes.h"
#include "eval/sample.h"

#include <inttypes.h>

// One call of generate() without beams: a lane is a sequence.
struct generation {
    struct sequence *s;
    const struct generate_options *o;
    struct lanes lanes;
    bool *finished; // (n)
    struct candidate *scratch;
    bool ended; // the listener has had enough
};

static int64_t beams(const struct generate_options *o)
{
    return o->beams > 1 ? o->beams : 1;
}

int64_t generate_cache_rows(const struct sequence *s, int64_t n, const struct generate_options *o)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += (s[i].n_prompt + o->max_new_tokens) * beams(o);
    }
    return rows;
}

int64_t generate_room(const struct model *m, const struct sequence *s,
                      const struct generate_options *o)
{
    const int64_t room = m->config.max_positions - s->n_prompt;
    return o->max_new_tokens < room ? o->max_new_tokens : room;
}

bool generate_stops(const struct generate_options *o, int32_t id)
{
    for (int64_t i = 0; o->stop && i < o->stop->count; i++) {
        if (o->stop->id[i] == id) return true;
    }
    return false;
}

static bool check(const struct model *m, const struct sequence *s, int64_t n,
                  const struct generate_options *o, struct error *err)
{
    const struct model_config *c = &m->config;
    if (n * beams(o) > m->setup.max_tokens) {
        return fail(err, "%" PRId64 " sequences, at most %" PRId64 " side by side", n * beams(o),
                    m->setup.max_tokens);
    }
    for (int64_t i = 0; i < n; i++) {
        if (s[i].n_prompt < 1) {
            return fail(err, "the prompt has no token; at least one is needed");
        }
        if (s[i].n_prompt >= c->max_positions) {
            return fail(err, "prompt of %" PRId64 " tokens, the model has %" PRId64 " positions",
                        s[i].n_prompt, c->max_positions);
        }
        for (int64_t t = 0; t < s[i].n_prompt; t++) {
            if (s[i].prompt[t] >= 0 && s[i].prompt[t] < c->vocab) continue;
            return fail(err, "token id %" PRId32 " of the prompt, the model has %" PRId64 " ids",
                        s[i].prompt[t], c->vocab);
        }
    }
    if (generate_cache_rows(s, n, o) <= m->setup.cache_rows) return true;
    return fail(err, "a cache of %" PRId64 " rows, %" PRId64 " are needed", m->setup.cache_rows,
                generate_cache_rows(s, n, o));
}

static bool open_generation(struct generation *g, struct model *m, int64_t n, struct error *err)
{
    if (!lanes_open(&g->lanes, m, n, err)) return false;
    for (int64_t i = 1; i < n; i++) {
        g->lanes.base[i] = g->lanes.base[i - 1] + g->s[i - 1].n_prompt + g->o->max_new_tokens;
    }
    g->finished = mem_zalloc((size_t)n, sizeof *g->finished);
    g->scratch = mem_zalloc((size_t)m->config.vocab, sizeof *g->scratch);
    return (g->finished && g->scratch) || fail(err, "no memory for %" PRId64 " sequences", n);
}

static void close_generation(struct generation *g)
{
    lanes_close(&g->lanes);
    mem_free(g->finished);
    mem_free(g->scratch);
}

static bool take_token(struct generation *g, int64_t i, int32_t id, struct error *err)
{
    struct sequence *s = &g->s[i];
    if (generate_stops(g->o, id)) {
        s->stop = id;
        g->finished[i] = true;
        return true;
    }
    if (!tokens_add(&s->out, id)) return fail(err, "no memory for %" PRId64 " ids", s->out.count);
    g->finished[i] = s->out.count >= generate_room(g->lanes.m, s, g->o);
    if (g->o->token && !g->o->token(g->o->user, i, id)) g->ended = true;
    return true;
}

// Runs the batch and draws the next token of every sequence whose newest token was in it.
static bool run_batch(struct generation *g, struct error *err)
{
    struct lanes *l = &g->lanes;
    const int64_t V = l->m->config.vocab;
    if (!lanes_run(l)) return true;
    bool ok = l->m->setup.ops->check(err);
    for (int64_t w = 0; ok && !g->ended && w < l->wanted; w++) {
        const int64_t i = l->owner[w];
        struct rng r = {.seed = g->o->sampling.seed,
                        .stream = (uint64_t)(g->o->first_stream + i),
                        .counter = (uint64_t)g->s[i].out.count};
        ok = take_token(g, i, sample_token(l->logits + w * V, V, &g->o->sampling, &r, g->scratch),
                        err);
    }
    lanes_taken(l);
    return ok;
}

static bool prefill(struct generation *g, struct error *err)
{
    for (int64_t i = 0; i < g->lanes.n; i++) {
        const struct sequence *s = &g->s[i];
        for (int64_t t = 0; t < s->n_prompt && !g->ended; t++) {
            lanes_add(&g->lanes, i, s->prompt[t], t + 1 == s->n_prompt);
            if (lanes_full(&g->lanes) && !run_batch(g, err)) return false;
        }
    }
    return run_batch(g, err);
}

static bool decode(struct generation *g, struct error *err)
{
    for (bool any = true; any && !g->ended;) {
        any = false;
        for (int64_t i = 0; i < g->lanes.n; i++) {
            if (g->finished[i]) continue;
            const struct tokens *out = &g->s[i].out;
            lanes_add(&g->lanes, i, out->id[out->count - 1], true);
            any = true;
        }
        if (!run_batch(g, err)) return false;
    }
    return true;
}

bool generate(struct model *m, struct sequence *s, int64_t n, const struct generate_options *o,
              struct error *err)
{
    struct generation g = {.s = s, .o = o};
    for (int64_t i = 0; i < n; i++) {
        s[i].out.count = 0;
        s[i].stop = -1;
    }
    if (!check(m, s, n, o, err)) return false;
    if (beams(o) > 1) return beam_search(m, s, n, o, err);
    const bool ok = open_generation(&g, m, n, err) && prefill(&g, err) && decode(&g, err);
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
