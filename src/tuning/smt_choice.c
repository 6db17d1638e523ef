// tuning/smt_choice.c - which blocks may learn, how many, and the ranking (METHODS, "smt").
#include "tuning/smt.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const group_name[] = {"attention", "mlp"};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static const char *targets_of(const struct smt_options *o, int mlp)
{
    const char *globs = mlp ? o->mlp_targets : o->attention_targets;
    return globs ? globs : "";
}

static int64_t own_blocks(const struct smt_options *o, int mlp)
{
    if (!mlp && o->scope == SMT_SCOPE_GROUP && o->blocks) return o->blocks;
    return mlp ? o->mlp_blocks : o->attention_blocks;
}

static double own_fraction(const struct smt_options *o, int mlp)
{
    return mlp ? o->mlp_fraction : o->attention_fraction;
}

// Does the group take part at all?
static bool takes_part(const struct smt_options *o, int mlp)
{
    if (!*targets_of(o, mlp)) return false;
    if (o->select == SMT_SELECT_ACTIVATION) return o->channels > 0;
    if (o->blocks && o->scope != SMT_SCOPE_GROUP) return true;
    return own_blocks(o, mlp) > 0 || own_fraction(o, mlp) > 0;
}

static int group_of(const struct bank *b)
{
    if (b->part == PART_ATTENTION) return 0;
    return b->part == PART_DENSE || b->part == PART_EXPERT || b->part == PART_SHARED ? 1 : -1;
}

// What learns whole already, or must not, has no blocks to choose.
static bool is_free(const struct tuning_input *in, const struct bank *b, int64_t g)
{
    const struct weight *w = &in->weights->weight[b->weight[g]];
    const struct tuning_options *r = in->options;
    return !weight_matches(w, r->freeze) && !weight_matches(w, r->train);
}

static bool add_matrix(struct smt_targets *t, int64_t bank, int64_t group, struct error *err)
{
    const struct bank *b = t->in->bank[bank];
    const struct smt_options *o = &t->in->options->smt;
    struct smt_matrix *grown = array_grow(t->matrix, t->count, &t->capacity, sizeof *grown);
    if (!grown) return fail(err, "no memory for the matrices of smt");
    t->matrix = grown;
    struct smt_matrix *m = &t->matrix[t->count++];
    *m = (struct smt_matrix){.layer = b->layer,
                             .bank = bank,
                             .group = group,
                             .mlp = group_of(b),
                             .rows = b->out,
                             .cols = b->in};
    bank_module(m->module, b, group);
    const bool whole = o->select == SMT_SELECT_ACTIVATION;
    m->height = whole ? m->rows : o->block;
    m->width = whole ? 1 : o->block;
    m->down = ceil_div(m->rows, m->height);
    m->across = ceil_div(m->cols, m->width);
    return true;
}

static int by_layer_and_name(const void *a, const void *b)
{
    const struct smt_matrix *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return strcmp(x->module, y->module);
}

struct glob_use {
    const struct tuning_input *in;
    int mlp;
};

static bool check_glob(void *user, const char *pattern, struct error *err)
{
    const struct glob_use *use = user;
    for (int64_t i = 0; i < use->in->n_banks; i++) {
        const struct bank *b = use->in->bank[i];
        if (group_of(b) == use->mlp && bank_matches(b, pattern)) return true;
    }
    return fail(err, "--smt-%s-targets: '%s' matches no linear of the model's %s",
                group_name[use->mlp], pattern, use->mlp ? "MLPs and experts" : "attention");
}

static bool find_matrices(struct smt_targets *t, struct error *err)
{
    const struct tuning_input *in = t->in;
    const struct smt_options *o = &in->options->smt;
    for (int mlp = 0; mlp < 2; mlp++) {
        struct glob_use use = {in, mlp};
        if (takes_part(o, mlp) && !globs_each(targets_of(o, mlp), check_glob, &use, err)) {
            return false;
        }
    }
    for (int64_t i = 0; i < in->n_banks; i++) {
        const struct bank *b = in->bank[i];
        const int mlp = group_of(b);
        if (mlp < 0 || !takes_part(o, mlp) || !bank_matches(b, targets_of(o, mlp))) continue;
        for (int64_t g = 0; g < b->groups; g++) {
            if (is_free(in, b, g) && !add_matrix(t, i, g, err)) return false;
        }
    }
    if (!t->count) return true;
    qsort(t->matrix, (size_t)t->count, sizeof *t->matrix, by_layer_and_name);
    for (int64_t i = 0; i < t->count; i++) {
        t->matrix[i].first = t->candidates;
        t->candidates += t->matrix[i].down * t->matrix[i].across;
    }
    return true;
}

// Blocks of every matrix of the model: what a fraction is of.
static int64_t all_blocks(const struct tuning_input *in)
{
    const int64_t size = in->options->smt.block;
    int64_t n = 0;
    for (int64_t i = 0; i < in->weights->count; i++) {
        const struct tensor *w = &in->weights->weight[i].stored;
        if (w->rank == 2) n += ceil_div(w->dim[0], size) * ceil_div(w->dim[1], size);
    }
    return n;
}

struct supply {                      // of a group
    int64_t blocks, matrices, least; // least: of one matrix
    const char *module;              // of that matrix
};

static struct supply supply_of(const struct smt_targets *t, int mlp)
{
    struct supply s = {.least = INT64_MAX};
    for (int64_t i = 0; i < t->count; i++) {
        const struct smt_matrix *m = &t->matrix[i];
        if (m->mlp != mlp) continue;
        s.blocks += m->down * m->across;
        s.matrices++;
        if (m->down * m->across >= s.least) continue;
        s.least = m->down * m->across;
        s.module = m->module;
    }
    return s;
}

// A number that was asked for is there or an error; a fraction takes what there is.
static bool settle_group(struct smt_targets *t, int mlp, struct error *err)
{
    const struct smt_options *o = &t->in->options->smt;
    const bool each = o->scope == SMT_SCOPE_MATRIX, columns = o->select == SMT_SELECT_ACTIVATION;
    const char *unit = columns ? "channels" : "blocks";
    const struct supply s = supply_of(t, mlp);
    const int64_t most = each ? s.least : s.blocks;
    if (!takes_part(o, mlp) || !s.matrices) return true;
    int64_t asked = columns ? o->channels : own_blocks(o, mlp);
    if (!columns && o->blocks && each) asked = o->blocks;
    if (asked > most) {
        return fail(err,
                    "smt: %" PRId64 " %s asked for in %s, where there are %" PRId64
                    " (--smt-block %" PRId64 ")",
                    asked, unit, each ? s.module : group_name[mlp], most, o->block);
    }
    if (!asked) {
        asked = (int64_t)floor(own_fraction(o, mlp) * (double)all_blocks(t->in));
        asked = min64(each ? asked / s.matrices : asked, most);
    }
    t->budget[mlp] = asked;
    return true;
}

// One budget over both groups.
static bool settle_together(struct smt_targets *t, struct error *err)
{
    const struct smt_options *o = &t->in->options->smt;
    t->budget[0] += t->budget[1];
    t->budget[1] = 0;
    if (o->select != SMT_SELECT_GRADIENT || !o->blocks) return true;
    t->budget[0] = o->blocks;
    return o->blocks <= t->candidates ||
           fail(err,
                "smt: %" PRId64 " blocks asked for, there are %" PRId64 " (--smt-block %" PRId64
                ")",
                o->blocks, t->candidates, o->block);
}

static bool settle_budget(struct smt_targets *t, struct error *err)
{
    const struct smt_options *o = &t->in->options->smt;
    if (!settle_group(t, 0, err) || !settle_group(t, 1, err)) return false;
    if (o->scope == SMT_SCOPE_ALL && !settle_together(t, err)) return false;
    if (t->budget[0] + t->budget[1] > 0) return true;
    return fail(err,
                "smt: nothing to learn: the budget is less than one of the model's %" PRId64
                " blocks of %" PRId64 " x %" PRId64 "; --smt-blocks N or a smaller --smt-block",
                all_blocks(t->in), o->block, o->block);
}

bool smt_targets_open(struct smt_targets *t, const struct tuning_input *in, struct error *err)
{
    *t = (struct smt_targets){.in = in};
    if (find_matrices(t, err) && settle_budget(t, err)) return true;
    smt_targets_close(t);
    return false;
}

void smt_targets_close(struct smt_targets *t)
{
    mem_free(t->matrix);
    *t = (struct smt_targets){0};
}

struct candidate {
    double key;
    int64_t index;
};

static int best_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

// Elements of a block, the i-th of a matrix.
static double area(const struct smt_matrix *m, int64_t i)
{
    const int64_t row = i / m->across * m->height, column = i % m->across * m->width;
    return (double)(min64(m->height, m->rows - row) * min64(m->width, m->cols - column));
}

static bool take(struct smt_blocks *out, const struct smt_targets *t, const struct candidate *c,
                 bool scored, struct error *err)
{
    int64_t low = 0, high = t->count - 1; // the last matrix that begins at it or before
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        if (t->matrix[middle].first <= c->index) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const struct smt_matrix *m = &t->matrix[low];
    const int64_t i = c->index - m->first;
    const struct smt_block at = {.bank = m->bank,
                                 .group = m->group,
                                 .row = i / m->across * m->height,
                                 .column = i % m->across * m->width,
                                 .score = scored ? c->key : 0};
    return smt_blocks_add(out, t->in, &at, "smt", err);
}

// The n best of a pool; without scores n of the largest blocks, evenly apart.
static bool take_best(struct smt_blocks *out, const struct smt_targets *t, struct candidate *pool,
                      int64_t count, int64_t n, bool scored, struct error *err)
{
    int64_t among = n;
    if (count) qsort(pool, (size_t)count, sizeof *pool, best_first);
    while (!scored && among < count && pool[among].key >= pool[0].key) {
        among++;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!take(out, t, &pool[i * among / n], scored, err)) return false;
    }
    return true;
}

// One ranking: of the matrices of a group (-1: of both), from `first` to before `end`.
static bool rank(struct smt_blocks *out, const struct smt_targets *t, const double *score,
                 int64_t first, int64_t end, int mlp, int64_t n, struct error *err)
{
    const int64_t most =
        (end < t->count ? t->matrix[end].first : t->candidates) - t->matrix[first].first;
    struct candidate *pool = mem_alloc((size_t)most * sizeof *pool);
    if (!pool) return fail(err, "no memory to rank %" PRId64 " blocks", most);
    int64_t count = 0;
    for (int64_t k = first; k < end; k++) {
        const struct smt_matrix *m = &t->matrix[k];
        for (int64_t i = 0; (mlp < 0 || m->mlp == mlp) && i < m->down * m->across; i++) {
            pool[count++] =
                (struct candidate){score ? score[m->first + i] : area(m, i), m->first + i};
        }
    }
    const bool ok = take_best(out, t, pool, count, n, score != NULL, err);
    mem_free(pool);
    return ok;
}

bool smt_choose(struct smt_blocks *out, const struct smt_targets *t, const double *score,
                struct error *err)
{
    const int scope = t->in->options->smt.scope;
    bool ok = true;
    *out = (struct smt_blocks){0};
    for (int mlp = 0; ok && scope == SMT_SCOPE_GROUP && mlp < 2; mlp++) {
        ok = rank(out, t, score, 0, t->count, mlp, t->budget[mlp], err);
    }
    if (scope == SMT_SCOPE_ALL) ok = rank(out, t, score, 0, t->count, -1, t->budget[0], err);
    for (int64_t k = 0; ok && scope == SMT_SCOPE_MATRIX && k < t->count; k++) {
        ok = rank(out, t, score, k, k + 1, -1, t->budget[t->matrix[k].mlp], err);
    }
    if (ok && smt_blocks_sort(out, t->in, "smt", err)) return true;
    smt_blocks_free(out);
    return false;
}
