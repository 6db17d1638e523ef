// eval/score.c - see score.h.
#include "eval/score.h"

#include "base/mem.h"

// Who is told, and of several files how many micro-batches were done before, of how many (0: of one).
struct telling {
    const struct score_listener *listener;
    int64_t before, of;
    bool ended; // they want no more
};

static bool tell(struct telling *t, int64_t done, int64_t of)
{
    const struct score_listener *l = t->listener;
    t->ended = l && l->progress && !l->progress(l->user, t->before + done, t->of ? t->of : of);
    return !t->ended;
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
                          const struct packing *p, float *rows, struct telling *t,
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
        if (!tell(t, i + 1, p->count)) break;
    }
    m->count_usage = false;
    batch_free(&b);
    if (!out->supervised) return fail(err, "no token carries loss");
    out->loss = sum / (double)out->supervised;
    return true;
}

static bool score_part(struct loss_score *out, struct model *m, const struct dataset *d,
                       struct telling *t, struct error *err)
{
    struct packing p;
    const size_t n = (size_t)usage_count(m);
    *out = (struct loss_score){0};
    if (!packing_make(&p, d, m->setup.max_tokens, 0, false, 0, 0, err)) return false;
    float *rows = n ? mem_alloc(n * sizeof *rows) : NULL;
    out->usage = n ? mem_zalloc(n, sizeof *out->usage) : NULL;
    bool ok = !n || (rows && out->usage) || fail(err, "no memory for the experts' use");
    ok = ok && score_batches(out, m, d, &p, rows, t, err) && m->setup.ops->check(err) &&
         checkpoint_check_files(&m->checkpoint, err);
    t->before += p.count;
    mem_free(rows);
    packing_free(&p);
    if (ok) return true;
    mem_free(out->usage);
    out->usage = NULL;
    return false;
}

bool score_loss(struct loss_score *out, struct model *m, const struct dataset *d,
                const struct score_listener *l, struct error *err)
{
    struct telling t = {.listener = l};
    return score_part(out, m, d, &t, err);
}

static bool count_batches(int64_t *count, const struct model *m, const struct dataset *d,
                          struct error *err)
{
    struct packing p;
    if (!packing_make(&p, d, m->setup.max_tokens, 0, false, 0, 0, err)) return false;
    *count = p.count;
    packing_free(&p);
    return true;
}

// all->loss is the sum until all are in it. The first usage becomes that of all.
static void add_score(struct loss_score *all, struct loss_score *one, int64_t n)
{
    all->loss += one->loss * (double)one->supervised;
    all->supervised += one->supervised;
    all->tokens += one->tokens;
    all->examples += one->examples;
    for (int64_t i = 0; all->usage && i < n; i++) {
        all->usage[i] += one->usage[i];
    }
    if (all->usage) {
        mem_free(one->usage);
    } else {
        all->usage = one->usage;
    }
    one->usage = NULL;
}

bool score_loss_files(struct loss_score *out, struct loss_score *file, struct model *m,
                      const struct dataset *d, const struct score_listener *l, struct error *err)
{
    struct telling t = {.listener = l};
    bool ok = true;
    *out = (struct loss_score){0};
    for (int64_t i = 0; ok && i < d->n_files; i++) {
        const struct dataset of = dataset_of_file(d, i);
        int64_t batches = 0;
        file[i] = (struct loss_score){0};
        ok = !of.count || count_batches(&batches, m, &of, err);
        t.of += batches;
    }
    for (int64_t i = 0; ok && !t.ended && i < d->n_files; i++) {
        const struct dataset of = dataset_of_file(d, i);
        if (!of.count) continue;
        ok = score_part(&file[i], m, &of, &t, err);
        if (ok) add_score(out, &file[i], usage_count(m));
    }
    if (ok) out->loss /= (double)out->supervised;
    if (ok) return true;
    mem_free(out->usage);
    out->usage = NULL;
    return false;
}
