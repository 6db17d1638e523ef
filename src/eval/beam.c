// eval/beam.c - see beam.h. A sequence has as many lanes of the cache as beams. When beams are chosen anew, the
// first that goes on from a parent keeps its lane; for each further one the parent's rows are copied into the lane
// of a beam that nothing goes on from.
#include "eval/beam.h"

#include "base/mem.h"
#include "eval/lanes.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct beam {
    double score; // sum of its tokens' log-probabilities
    int64_t lane;
    int32_t *id; // (room) its tokens
};

struct finished {
    double score; // mean over its tokens, the stop id included
    int64_t count;
    int32_t stop; // -1: it ran into the limit
    int32_t *id;  // (room)
};

struct extension { // a beam and one more token
    double score;
    int64_t beam;
    int32_t id;
};

// Of one sequence.
struct search {
    struct sequence *s;
    int64_t room, length;           // tokens it may have, and has
    int64_t open;                   // beams that go on; 0: the search is over
    int64_t n_finished;             // of B
    struct beam *beam, *next;       // (B)
    struct finished *finished;      // (B), the best first
    struct extension *best;         // (width), the best first
    int64_t n_best;                 // of them
    int64_t first_lane, *free_lane; // (B)
    int32_t *ids;                   // where all of their tokens lie
};

struct beams {
    struct lanes lanes;
    const struct generate_options *o;
    int64_t B, width; // width: so many extensions that B of them are no stop ids
    int64_t n;
    struct search *search; // (n)
};

static bool open_search(struct search *h, const struct beams *b, struct sequence *s, int64_t first)
{
    const size_t B = (size_t)b->B;
    *h = (struct search){.s = s, .first_lane = first, .open = 1};
    h->room = generate_room(b->lanes.m, s, b->o);
    h->beam = mem_zalloc(B, sizeof *h->beam);
    h->next = mem_zalloc(B, sizeof *h->next);
    h->finished = mem_zalloc(B, sizeof *h->finished);
    h->best = mem_zalloc((size_t)b->width, sizeof *h->best);
    h->free_lane = mem_zalloc(B, sizeof *h->free_lane);
    h->ids = mem_zalloc(3 * B, (size_t)h->room * sizeof *h->ids);
    if (!h->beam || !h->next || !h->finished || !h->best || !h->free_lane || !h->ids) return false;
    for (int64_t i = 0; i < b->B; i++) {
        h->beam[i].id = h->ids + 3 * i * h->room;
        h->next[i].id = h->beam[i].id + h->room;
        h->finished[i].id = h->next[i].id + h->room;
        h->finished[i].stop = -1;
    }
    h->beam[0].lane = first;
    return true;
}

static void close_search(struct search *h)
{
    mem_free(h->beam);
    mem_free(h->next);
    mem_free(h->finished);
    mem_free(h->best);
    mem_free(h->free_lane);
    mem_free(h->ids);
}

static bool open_beams(struct beams *b, struct model *m, struct sequence *s, struct error *err)
{
    const int64_t stops = b->o->stop ? b->o->stop->count : 0;
    b->width = (stops > 1 ? stops + 1 : 2) * b->B;
    if (!lanes_open(&b->lanes, m, b->n * b->B, err)) return false;
    b->search = mem_zalloc((size_t)b->n, sizeof *b->search);
    bool ok = b->search != NULL;
    int64_t row = 0;
    for (int64_t i = 0; ok && i < b->n; i++) {
        for (int64_t k = 0; k < b->B; k++) {
            b->lanes.base[i * b->B + k] = row;
            row += s[i].n_prompt + b->o->max_new_tokens;
        }
        ok = open_search(&b->search[i], b, &s[i], i * b->B);
    }
    return ok || fail(err, "no memory for %" PRId64 " beams", b->n * b->B);
}

static void close_beams(struct beams *b)
{
    for (int64_t i = 0; b->search && i < b->n; i++) {
        close_search(&b->search[i]);
    }
    mem_free(b->search);
    lanes_close(&b->lanes);
}

// Log of the sum of e^logits.
static double log_sum(const float *logits, int64_t V)
{
    double top = -DBL_MAX, sum = 0;
    for (int64_t i = 0; i < V; i++) {
        if ((double)logits[i] > top) top = (double)logits[i];
    }
    for (int64_t i = 0; i < V; i++) {
        sum += exp((double)logits[i] - top);
    }
    return top + log(sum);
}

// The best extensions by all tokens of one beam; of two alike the earlier.
static void extend(struct search *h, int64_t beam, const float *logits, int64_t V, int64_t width)
{
    const double before = h->beam[beam].score - log_sum(logits, V);
    for (int64_t i = 0; i < V; i++) {
        const double score = before + (double)logits[i];
        if (h->n_best == width && !(score > h->best[width - 1].score)) continue;
        int64_t at = h->n_best < width ? h->n_best++ : width - 1;
        for (; at > 0 && score > h->best[at - 1].score; at--) {
            h->best[at] = h->best[at - 1];
        }
        h->best[at] = (struct extension){score, beam, (int32_t)i};
    }
}

static bool ends(const struct beams *b, const struct search *h, const struct extension *e)
{
    return h->length + 1 >= h->room || generate_stops(b->o, e->id);
}

// A finished sequence takes its place among the B best.
static void finish(struct search *h, const struct beams *b, const struct extension *e)
{
    const double score = e->score / (double)(h->length + 1);
    const bool stop = generate_stops(b->o, e->id);
    if (h->n_finished == b->B && !(score > h->finished[b->B - 1].score)) return;
    int64_t at = h->n_finished < b->B ? h->n_finished++ : b->B - 1;
    int32_t *id = h->finished[at].id;
    for (; at > 0 && score > h->finished[at - 1].score; at--) {
        h->finished[at] = h->finished[at - 1];
    }
    memcpy(id, h->beam[e->beam].id, (size_t)h->length * sizeof *id);
    id[h->length] = e->id;
    h->finished[at] = (struct finished){score, h->length + !stop, stop ? e->id : -1, id};
}

// The beams of the next round into h->next, the finished ones among their own.
static int64_t choose(struct search *h, const struct beams *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < h->n_best; i++) {
        const struct extension *e = &h->best[i];
        if (ends(b, h, e)) {
            if (i < b->B) finish(h, b, e); // further down they are there to fill up only
        } else if (n < b->B) {
            struct beam *x = &h->next[n++];
            memcpy(x->id, h->beam[e->beam].id, (size_t)h->length * sizeof *x->id);
            x->id[h->length] = e->id;
            x->score = e->score;
            x->lane = e->beam; // the parent, until lanes are given out
        }
    }
    return n;
}

// Lanes for the n beams of h->next.
static void give_lanes(struct search *h, struct beams *b, int64_t n)
{
    const int64_t same =
        h->length ? h->s->n_prompt : 0; // the prompt is in every lane after the first round
    int64_t n_free = 0;
    for (int64_t k = 0; k < b->B; k++) { // lanes that no beam goes on from
        bool used = false;
        for (int64_t i = 0; i < n; i++) {
            used = used || h->beam[h->next[i].lane].lane == h->first_lane + k;
        }
        if (!used) h->free_lane[n_free++] = h->first_lane + k;
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        const int64_t parent = h->next[i].lane, from = h->beam[parent].lane;
        bool first = true;
        for (int64_t j = 0; j < i; j++) {
            first = first && h->next[j].lane != parent;
        }
        h->next[i].lane = first ? from : h->free_lane[--n_free];
        if (!first) lanes_copy(&b->lanes, h->next[i].lane, from, same);
    }
}

// With as many finished as beams, can the best open one still beat the last of them? Its mean so far is what it
// is judged by (early_stopping false).
static bool hopeless(const struct search *h, const struct beams *b)
{
    if (h->n_finished < b->B) return false;
    return !(h->next[0].score / (double)(h->length + 1) > h->finished[b->B - 1].score);
}

// One round of a sequence whose beams' extensions have been gathered.
static void advance(struct search *h, struct beams *b)
{
    int64_t n = choose(h, b);
    if (n && hopeless(h, b)) n = 0;
    if (n) give_lanes(h, b, n);
    struct beam *old = h->beam;
    h->beam = h->next;
    h->next = old;
    h->length++;
    h->open = n;
    h->n_best = 0;
}

// Runs the batch; sequences whose newest tokens were in it go a round further.
static void run_batch(struct beams *b)
{
    struct lanes *l = &b->lanes;
    const int64_t V = l->m->config.vocab;
    if (!lanes_run(l)) return;
    for (int64_t w = 0; w < l->wanted;) {
        struct search *h = &b->search[l->owner[w] / b->B];
        for (int64_t k = 0; k < h->open; k++) { // in the order in which they were added
            extend(h, k, l->logits + w++ * V, V, b->width);
        }
        advance(h, b);
    }
    lanes_taken(l);
}

static void prefill(struct beams *b)
{
    for (int64_t i = 0; i < b->n; i++) {
        const struct sequence *s = b->search[i].s;
        for (int64_t t = 0; t < s->n_prompt; t++) {
            lanes_add(&b->lanes, b->search[i].first_lane, s->prompt[t], t + 1 == s->n_prompt);
            if (lanes_full(&b->lanes)) run_batch(b);
        }
    }
    run_batch(b);
}

static void decode(struct beams *b)
{
    for (bool any = true; any;) {
        for (int64_t i = 0; i < b->n; i++) {
            const struct search *h = &b->search[i];
            for (int64_t k = 0; k < h->open; k++) {
                lanes_add(&b->lanes, h->beam[k].lane, h->beam[k].id[h->length - 1], true);
            }
        }
        any = b->lanes.batch.n > 0;
        run_batch(b);
    }
}

static bool hand_over(const struct beams *b, struct error *err)
{
    bool more = true;
    for (int64_t i = 0; i < b->n; i++) {
        const struct finished *f = b->search[i].finished;
        struct sequence *s = b->search[i].s;
        s->stop = f->stop;
        for (int64_t t = 0; t < f->count; t++) {
            if (!tokens_add(&s->out, f->id[t])) return fail(err, "no memory for the ids");
            more = more && (!b->o->token || b->o->token(b->o->user, i, f->id[t]));
        }
    }
    return true;
}

bool beam_search(struct model *m, struct sequence *s, int64_t n, const struct generate_options *o,
                 struct error *err)
{
    struct beams b = {.o = o, .B = o->beams, .n = n};
    bool ok = open_beams(&b, m, s, err);
    if (ok) {
        prefill(&b);
        decode(&b);
        ok = m->setup.ops->check(err) && hand_over(&b, err);
    }
    close_beams(&b);
    return ok;
}
