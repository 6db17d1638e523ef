// tuning/smt_score.c - the stage before smt: what blocks are chosen by (METHODS, "smt"). Three policies: gradients
// that are reduced as they pass and never kept; activations, without a backward pass; and full fine-tuning, whose
// gradients are summed element by element.
#include "tuning/smt.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_SIZE = 4096 };
static const char selection_file[] = "smt_selection.json";
static const char scores_file[] = "smt_scores.safetensors"; // in a checkpoint

// One array of what was summed so far: of a bank's blocks or columns (groups, n) F64, or of one matrix's
// gradients (rows, cols) F32.
struct sums {
    const struct bank *bank;
    const struct weight *weight; // of a matrix; NULL
    char name[NAME_MAX_LENGTH];
    struct tensor sum;
    struct tuning_state *of;
};

struct tuning_state {
    struct tuning_input in;
    // Scores of the blocks of matrix k of the targets.
    bool (*reduce)(const struct tuning_state *st, int64_t k, double *out, struct error *err);
    struct smt_targets targets;
    struct sums *sums;
    int64_t count;
    int64_t *at; // where a bank's is (banks), or a matrix's (targets)
};

static bool bank_scores(const struct tuning_state *st, int64_t k, double *out, struct error *err);
static bool matrix_scores(const struct tuning_state *st, int64_t k, double *out, struct error *err);

static enum block_sum kind_of(const struct tuning_state *st)
{
    static const enum block_sum kinds[] = {[SMT_ABS_MEAN] = BLOCK_SUM_ABS,
                                           [SMT_MEAN_ABS] = BLOCK_SUM,
                                           [SMT_L1] = BLOCK_SUM_ABS,
                                           [SMT_L2] = BLOCK_SUM_SQUARES};
    return kinds[st->in.options->smt.score];
}

static bool is_mean(const struct tuning_state *st)
{
    const int score = st->in.options->smt.score;
    return score == SMT_ABS_MEAN || score == SMT_MEAN_ABS;
}

static void state_close(struct tuning_state *st)
{
    smt_targets_close(&st->targets);
    mem_free(st->sums);
    mem_free(st->at);
    mem_free(st);
}

static bool choose(struct tuning_state **out, const struct tuning_input *in, struct error *err)
{
    struct tuning_state *st = mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the scores of smt");
    st->in = *in;
    *out = st;
    if (!smt_targets_open(&st->targets, &st->in, err)) return false;
    const int64_t most = in->n_banks > st->targets.count ? in->n_banks : st->targets.count;
    st->sums = mem_zalloc((size_t)most, sizeof *st->sums);
    st->at = mem_alloc((size_t)most * sizeof *st->at);
    return (st->sums && st->at) || fail(err, "no memory for the scores of smt");
}

static struct sums *add_sums(struct tuning_state *st, const char *name)
{
    struct sums *s = &st->sums[st->count++];
    *s = (struct sums){.of = st};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

// A bank at a time: some of its matrices may be no targets, but a pass has them all.
static bool open_banks(struct tuning_state **out, const struct tuning_input *in, struct arena *a,
                       struct leaves *leaves, struct error *err)
{
    struct tuning_state *st = *out;
    (void)leaves, (void)err;
    st->count = 0;
    st->reduce = bank_scores;
    a->purpose = PURPOSE_DATA;
    for (int64_t i = 0; i < in->n_banks; i++) {
        st->at[i] = -1;
    }
    for (int64_t k = 0; k < st->targets.count; k++) {
        const struct smt_matrix *m = &st->targets.matrix[k];
        struct bank *b = in->bank[m->bank];
        if (st->at[m->bank] >= 0) continue;
        st->at[m->bank] = st->count;
        struct sums *s = add_sums(st, b->name);
        s->bank = b;
        s->sum = arena_2d(a, DTYPE_F64, b->groups, m->down * m->across);
        b->adapter = s;
    }
    return true;
}

static bool open_matrices(struct tuning_state **out, const struct tuning_input *in, struct arena *a,
                          struct leaves *leaves, struct error *err)
{
    struct tuning_state *st = *out;
    (void)leaves, (void)err;
    st->count = 0;
    st->reduce = matrix_scores;
    a->purpose = PURPOSE_GRADIENTS;
    for (int64_t k = 0; k < st->targets.count; k++) {
        const struct smt_matrix *m = &st->targets.matrix[k];
        st->at[k] = st->count;
        struct sums *s = add_sums(st, m->module);
        s->weight = &in->weights->weight[in->bank[m->bank]->weight[m->group]];
        s->sum = arena_2d(a, DTYPE_F32, m->rows, m->cols);
    }
    return true;
}

static void score_gradient(const struct ops *o, const struct bank *w, struct tensor dy,
                           struct tensor x, struct tensor offsets)
{
    const struct sums *s = w->adapter;
    o->block_scores(s->sum, dy, x, offsets, s->of->in.options->smt.block, kind_of(s->of));
}

static void score_activation(const struct ops *o, const struct bank *w, struct tensor y,
                             struct tensor x, struct tensor offsets)
{
    const struct sums *s = w->adapter;
    o->column_scores(s->sum, x, offsets, kind_of(s->of), is_mean(s->of));
    o->matmul_forward(y, x, &w->value, offsets, false);
}

static void add_gradients(struct tuning_state *st)
{
    for (int64_t i = 0; i < st->count; i++) {
        const struct sums *s = &st->sums[i];
        st->in.ops->add(s->sum, s->sum, s->weight->grad);
    }
}

static bool learns(const struct tuning_state *st, const struct weight *w)
{
    (void)st, (void)w;
    return true;
}

static double reduced(const struct tuning_state *st, double sum, double area)
{
    switch ((enum smt_score)st->in.options->smt.score) {
    case SMT_MEAN_ABS:
        return fabs(sum) / area;
    case SMT_ABS_MEAN:
        return sum / area;
    case SMT_L2:
        return sqrt(sum);
    default:
        return sum;
    }
}

static double block_area(const struct smt_matrix *m, int64_t i)
{
    const int64_t rows = m->rows - i / m->across * m->height;
    const int64_t columns = m->cols - i % m->across * m->width;
    return (double)(rows < m->height ? rows : m->height) *
           (double)(columns < m->width ? columns : m->width);
}

// From what was summed of its bank.
static bool bank_scores(const struct tuning_state *st, int64_t k, double *out, struct error *err)
{
    const struct smt_matrix *m = &st->targets.matrix[k];
    const struct tensor *sum = &st->sums[st->at[m->bank]].sum;
    (void)err;
    st->in.ops->download(out, (const double *)sum->data + m->group * sum->dim[1],
                         (size_t)sum->dim[1] * sizeof *out);
    // A column's mean is taken batch by batch.
    for (int64_t i = 0; i < sum->dim[1]; i++) {
        const bool column = st->in.options->smt.select == SMT_SELECT_ACTIVATION;
        out[i] = reduced(st, out[i], column ? 1 : block_area(m, i));
    }
    return true;
}

// The same from the sum of all gradients.
static bool matrix_scores(const struct tuning_state *st, int64_t k, double *out, struct error *err)
{
    const struct smt_matrix *m = &st->targets.matrix[k];
    const struct tensor *sum = &st->sums[st->at[k]].sum;
    const enum block_sum kind = kind_of(st);
    float *g = mem_alloc(tensor_bytes(*sum));
    if (!g) return fail(err, "%s: no memory for its gradient", m->module);
    st->in.ops->download(g, sum->data, tensor_bytes(*sum));
    memset(out, 0, (size_t)(m->down * m->across) * sizeof *out);
    for (int64_t i = 0; i < m->rows * m->cols; i++) {
        const int64_t row = i / m->cols / m->height, column = i % m->cols / m->width;
        const double v = (double)g[i];
        out[row * m->across + column] += kind == BLOCK_SUM       ? v
                                         : kind == BLOCK_SUM_ABS ? fabs(v)
                                                                 : v * v;
    }
    for (int64_t i = 0; i < m->down * m->across; i++) {
        out[i] = reduced(st, out[i], block_area(m, i));
    }
    mem_free(g);
    return true;
}

static bool scores_of(const struct tuning_state *st, double *score, struct error *err)
{
    for (int64_t k = 0; k < st->targets.count; k++) {
        const struct smt_matrix *m = &st->targets.matrix[k];
        double *out = score + m->first;
        if (!st->reduce(st, k, out, err)) return false;
        for (int64_t i = 0; i < m->down * m->across; i++) {
            if (!isfinite(out[i])) return fail(err, "%s: a score is not finite", m->module);
        }
    }
    return true;
}

static bool finish(struct tuning_state *st, const char *path, struct error *err)
{
    struct smt_blocks chosen = {0};
    double *score = mem_alloc((size_t)st->targets.candidates * sizeof *score);
    if (!score) return fail(err, "%s: no memory for the scores", path);
    const bool ok = scores_of(st, score, err) && smt_choose(&chosen, &st->targets, score, err) &&
                    smt_blocks_write(&chosen, &st->in, path, err);
    smt_blocks_free(&chosen);
    mem_free(score);
    return ok;
}

static size_t saved_bytes(const struct tuning_state *st)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < st->count; i++) {
        bytes += tensor_bytes(st->sums[i].sum) + NAME_MAX_LENGTH;
    }
    return bytes;
}

// What was added cannot be taken away again.
static bool check_finite(const struct sums *s, const void *values, struct error *err)
{
    const bool f64 = s->sum.dtype == DTYPE_F64;
    for (int64_t i = 0; i < tensor_count(s->sum); i++) {
        const double x = f64 ? ((const double *)values)[i] : (double)((const float *)values)[i];
        if (!isfinite(x)) {
            return fail(err, "%s: a score is not finite, which is not saved", s->name);
        }
    }
    return true;
}

static bool write_sums(struct file_writer *w, const struct tuning_state *st, struct error *err)
{
    for (int64_t i = 0; i < st->count; i++) {
        const struct tensor *t = &st->sums[i].sum;
        void *bytes = mem_alloc(tensor_bytes(*t));
        if (!bytes) return fail(err, "%s: no memory", w->path);
        st->in.ops->download(bytes, t->data, tensor_bytes(*t));
        const bool ok = check_finite(&st->sums[i], bytes, err) &&
                        file_writer_write(w, bytes, tensor_bytes(*t), err);
        mem_free(bytes);
        if (!ok) return false;
    }
    return true;
}

static bool save(const struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct file_writer w = {.fd = -1};
    struct st_writer_entry *entry = mem_zalloc((size_t)st->count, sizeof *entry);
    if (!entry) return fail(err, "%s: no memory for the scores", dir);
    for (int64_t i = 0; i < st->count; i++) {
        const struct tensor *t = &st->sums[i].sum;
        entry[i] = (struct st_writer_entry){.name = st->sums[i].name,
                                            .dtype_name = dtype_name(t->dtype),
                                            .rank = t->rank,
                                            .shape = {t->dim[0], t->dim[1]},
                                            .bytes = tensor_bytes(*t)};
    }
    const bool ok = path_join(path, sizeof path, dir, scores_file, err) &&
                    safetensors_begin(&w, path, entry, st->count, NULL, err) &&
                    write_sums(&w, st, err) && file_writer_commit(&w, err);
    file_writer_discard(&w);
    mem_free(entry);
    return ok;
}

static bool load(struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct safetensors file = {0};
    if (!path_join(path, sizeof path, dir, scores_file, err)) return false;
    bool ok = safetensors_open(&file, path, err);
    for (int64_t i = 0; ok && i < st->count; i++) {
        const struct sums *s = &st->sums[i];
        const struct st_entry *e = safetensors_find(&file, s->name);
        ok = (e && e->known && e->tensor.dtype == s->sum.dtype && e->tensor.rank == 2 &&
              e->tensor.dim[0] == s->sum.dim[0] && e->tensor.dim[1] == s->sum.dim[1]) ||
             fail(err, "%s: no scores of %s in the shape of this run", path, s->name);
        if (ok) st->in.ops->upload(s->sum.data, e->tensor.data, tensor_bytes(s->sum));
    }
    safetensors_close(&file);
    return ok;
}

const struct tuning smt_by_gradient = {
    .name = "smt-score",
    .help = "blocks are scored by their gradients",
    .choose = choose,
    .open = open_banks,
    .close = state_close,
    .dweight = score_gradient,
    .selection_file = selection_file,
    .finish = finish,
    .observes = true,
    .save = save,
    .load = load,
    .saved_bytes = saved_bytes,
};

const struct tuning smt_by_activation = {
    .name = "smt-score",
    .help = "channels are scored by their activations",
    .choose = choose,
    .open = open_banks,
    .close = state_close,
    .forward = score_activation,
    .selection_file = selection_file,
    .finish = finish,
    .observes = true,
    .forward_only = true,
    .save = save,
    .load = load,
    .saved_bytes = saved_bytes,
};

const struct tuning smt_by_training = {
    .name = "smt-score",
    .help = "all weights learn, and blocks are scored by the sum of their gradients",
    .choose = choose,
    .learns = learns,
    .open = open_matrices,
    .close = state_close,
    .take_gradients = add_gradients,
    .selection_file = selection_file,
    .finish = finish,
    .save = save,
    .load = load,
    .saved_bytes = saved_bytes,
};
