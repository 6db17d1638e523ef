// eval/score.c - see score.h.
#include "eval/score.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

static bool tell(const struct score_listener *l, int64_t done, int64_t of)
{
    return !l || !l->progress || l->progress(l->user, done, of);
}

static int64_t usage_count(const struct model *m)
{
    return m->config.n_layers * m->config.n_experts;
}

// Whole numbers, micro-batch by micro-batch: a float32 sum would stop at 2^24 rows.
static void add_usage(struct loss_score *out, struct model *m, float *rows)
{
    if (!rows) return;
    model_take_usage(m, rows);
    for (int64_t i = 0; i < usage_count(m); i++) {
        out->usage[i] += (int64_t)rows[i];
    }
}

static bool score_batches(struct loss_score *out, struct model *m, const struct dataset *d,
                          const struct packing *p, float *rows, const struct score_listener *l,
                          struct error *err)
{
    struct batch b = {0};
    double sum = 0;
    if (!batch_reserve(&b, m->setup.max_tokens, err)) return false;
    model_take_loss(m);
    if (rows) model_take_usage(m, rows); // nothing that was counted before
    m->count_usage = rows != NULL;
    for (int64_t i = 0; i < p->count; i++) {
        packing_batch(p, d, i, &b);
        model_forward(m, &b, NULL, false);
        model_loss(m, &b, 0);
        sum += model_take_loss(m);
        add_usage(out, m, rows);
        out->supervised += b.supervised;
        out->tokens += b.n;
        out->examples += p->first[i + 1] - p->first[i];
        if (!tell(l, i + 1, p->count)) break;
    }
    m->count_usage = false;
    batch_free(&b);
    if (!out->supervised) return fail(err, "no token carries loss");
    out->loss = sum / (double)out->supervised;
    return true;
}

bool score_loss(struct loss_score *out, struct model *m, const struct dataset *d,
                const struct score_listener *l, struct error *err)
{
    struct packing p;
    const size_t n = (size_t)usage_count(m);
    *out = (struct loss_score){0};
    if (!packing_make(&p, d, m->setup.max_tokens, 0, false, 0, 0, err)) return false;
    float *rows = n ? mem_alloc(n * sizeof *rows) : NULL;
    out->usage = n ? mem_zalloc(n, sizeof *out->usage) : NULL;
    bool ok = !n || (rows && out->usage) || fail(err, "no memory for the experts' use");
    ok = ok && score_batches(out, m, d, &p, rows, l, err);
    mem_free(rows);
    packing_free(&p);
    if (ok) return true;
    mem_free(out->usage);
    out->usage = NULL;
    return false;
}

static int64_t group_size(const struct dataset *d, int64_t first, const struct exact_options *o)
{
    const int64_t left = d->count - first;
    return left < o->side_by_side ? left : o->side_by_side;
}

int64_t score_exact_rows(const struct dataset *d, const struct exact_options *o)
{
    int64_t most = 0;
    for (int64_t first = 0; first < d->count; first += o->side_by_side) {
        int64_t rows = 0;
        for (int64_t i = 0; i < group_size(d, first, o); i++) {
            rows += d->example[first + i].prompt_count + o->max_new_tokens;
        }
        if (rows > most) most = rows;
    }
    return most;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// Cuts white space off both ends, in place.
static char *trim(char *text)
{
    while (is_space(*text)) {
        text++;
    }
    size_t n = strlen(text);
    while (n && is_space(text[n - 1])) {
        n--;
    }
    text[n] = 0;
    return text;
}

static bool judge(struct exact_score *out, const struct sequence *s, const struct dataset *d,
                  int64_t i, const struct exact_options *o, struct error *err)
{
    struct buf text = {0};
    char *reference = mem_strdup(d->example[i].answer);
    bool ok = reference ? generate_decode(&text, s->out.id, s->out.count, o->tokenizer, err)
                        : fail(err, "no memory");
    if (ok) {
        struct answer a = {.example = i,
                           .text = trim(text.data),
                           .reference = trim(reference),
                           .stopped = s->stop >= 0,
                           .tokens = s->out.count};
        a.correct = !strcmp(a.text, a.reference);
        out->examples++;
        out->correct += a.correct;
        out->stopped += a.stopped;
        ok = !o->answer || o->answer(o->user, &a, err);
    }
    buf_free(&text);
    mem_free(reference);
    return ok;
}

static bool answer_group(struct exact_score *out, struct model *m, const struct dataset *d,
                         struct sequence *s, int64_t first, const struct exact_options *o,
                         struct error *err)
{
    const int64_t n = group_size(d, first, o);
    const struct generate_options g = {
        .max_new_tokens = o->max_new_tokens, .stop = o->stop, .first_stream = first};
    for (int64_t i = 0; i < n; i++) {
        const struct example *e = &d->example[first + i];
        if (!e->answer) {
            return fail(err,
                        "%s:%" PRId64 ": no answer to compare with; prompts with answers expected",
                        e->file, e->line);
        }
        s[i].prompt = d->id + e->first;
        s[i].n_prompt = e->prompt_count;
    }
    if (!generate(m, s, n, &g, err)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (!judge(out, &s[i], d, first + i, o, err)) return false;
    }
    return true;
}

bool score_exact(struct exact_score *out, struct model *m, const struct dataset *d,
                 const struct exact_options *o, const struct score_listener *l, struct error *err)
{
    *out = (struct exact_score){0};
    struct sequence *s = mem_zalloc((size_t)o->side_by_side, sizeof *s);
    bool ok = s || fail(err, "no memory for %" PRId64 " sequences", o->side_by_side);
    for (int64_t first = 0; ok && first < d->count; first += o->side_by_side) {
        ok = answer_group(out, m, d, s, first, o, err);
        if (ok && !tell(l, first + group_size(d, first, o), d->count)) break;
    }
    for (int64_t i = 0; s && i < o->side_by_side; i++) {
        tokens_free(&s[i].out);
    }
    mem_free(s);
    return ok;
}
