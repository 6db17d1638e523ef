// eval/loglik.c - see loglik.h: the sums, and what follows from them.
#include "eval/loglik.h"

#include "base/mem.h"

#include <inttypes.h>

struct place { // of a choice in the batch
    struct loglik_choice *choice;
    int64_t targets;
};

struct scoring {
    struct model *m;
    struct loglik_data *d;
    struct batch batch;
    struct place *place; // (max_tokens)
    int64_t places;
    float *loss; // (max_tokens)
};

// A document whose last token is only predicted.
static void append(struct batch *b, const int32_t *id, int64_t context, int64_t n)
{
    const int64_t first = b->n;
    for (int64_t i = 0; i + 1 < n; i++) {
        b->id[b->n] = id[i];
        b->position[b->n] = (int32_t)i;
        b->span[2 * b->n] = (int32_t)first;
        b->span[2 * b->n + 1] = (int32_t)b->n;
        b->target[b->n] = i + 1 >= context ? id[i + 1] : -100;
        b->supervised += i + 1 >= context;
        b->n++;
    }
}

static void run(struct scoring *s)
{
    const float *loss = s->loss;
    if (!s->batch.n) return;
    model_forward(s->m, &s->batch, NULL, false);
    model_token_losses(s->m, &s->batch, s->loss);
    for (int64_t i = 0; i < s->places; i++) {
        double sum = 0;
        for (int64_t t = 0; t < s->place[i].targets; t++) {
            sum -= (double)*loss++;
        }
        s->place[i].choice->sum = sum;
    }
    s->places = 0;
    batch_clear(&s->batch);
}

static void add(struct scoring *s, struct loglik_choice *c)
{
    if (s->batch.n + c->n - 1 > s->m->setup.max_tokens) run(s);
    append(&s->batch, s->d->ids.id + c->first, c->context, c->n);
    s->place[s->places++] = (struct place){c, c->n - c->context};
}

static void decide(struct loglik_score *out, struct loglik_item *x)
{
    x->best = x->best_by_characters = x->best_by_bytes = 0;
    for (int64_t i = 1; i < x->n_choices; i++) {
        const struct loglik_choice *c = x->choice;
        const double sum = c[i].sum;
        const int64_t k = x->best_by_characters, b = x->best_by_bytes;
        if (sum > c[x->best].sum) x->best = i;
        if (sum / (double)c[i].characters > c[k].sum / (double)c[k].characters) {
            x->best_by_characters = i;
        }
        if (sum / (double)c[i].bytes > c[b].sum / (double)c[b].bytes) x->best_by_bytes = i;
    }
    out->count++;
    out->right += x->best == x->gold;
    out->right_by_characters += x->best_by_characters == x->gold;
    out->right_by_bytes += x->best_by_bytes == x->gold;
}

static bool open_scoring(struct scoring *s, struct error *err)
{
    const int64_t N = s->m->setup.max_tokens;
    if (s->d->longest > N) {
        return fail(err,
                    "a choice with its context has %" PRId64 " tokens, expected at most %" PRId64,
                    s->d->longest, N);
    }
    if (!batch_reserve(&s->batch, N, err)) return false;
    s->place = mem_alloc((size_t)N * sizeof *s->place);
    s->loss = mem_alloc((size_t)N * sizeof *s->loss);
    return (s->place && s->loss) || fail(err, "no memory for the choices");
}

bool loglik_score(struct loglik_score *out, struct model *m, struct loglik_data *d,
                  const struct score_listener *l, struct error *err)
{
    struct scoring s = {.m = m, .d = d};
    *out = (struct loglik_score){0};
    bool ok = open_scoring(&s, err);
    for (int64_t i = 0; ok && i < d->count; i++) {
        for (int64_t k = 0; k < d->item[i].n_choices; k++) {
            add(&s, &d->item[i].choice[k]);
        }
        if (l && l->progress && !l->progress(l->user, i + 1, d->count)) break;
    }
    if (ok) run(&s);
    ok = ok && m->setup.ops->check(err);
    for (int64_t i = 0; ok && i < d->count; i++) {
        decide(out, &d->item[i]);
    }
    batch_free(&s.batch);
    mem_free(s.place);
    mem_free(s.loss);
    return ok;
}
