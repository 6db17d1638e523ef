// eval/score.c - see score.h.
#include "eval/score.h"

#include "base/mem.h"

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
    ok = ok && score_batches(out, m, d, &p, rows, l, err) && m->setup.ops->check(err) &&
         checkpoint_check_files(&m->checkpoint, err);
    mem_free(rows);
    packing_free(&p);
    if (ok) return true;
    mem_free(out->usage);
    out->usage = NULL;
    return false;
}
