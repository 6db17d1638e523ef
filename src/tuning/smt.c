// tuning/smt.c - sparse matrix tuning (arXiv 2405.15525; METHODS, "smt"): chosen blocks of frozen, mapped matrices
// learn. A bank's blocks are one leaf, packed; what a pass adds to y = W x is the product with value - stored,
// so that neither a dense gradient nor a copy of a matrix exists.
#include "tuning/smt.h"
#include "base/file.h"
#include "base/mem.h"
#include "tuning/policies.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };
static const char selection_file[] = "smt_selection.json";

struct smt_bank {
    const struct smt_block *block;           // on the host, by group, row, column
    struct matrix_block *by_row, *by_column; // the same in the two orders of the ops, on the host
    int64_t count, values;
    struct matrix_blocks list; // on the backend
    struct tensor value, grad; // (1, values) F32: the leaf's
    struct tensor delta;       // (1, values) in the type of activations: value - stored
    const struct bank *bank;
};

struct tuning_state {
    struct tuning_input in;
    struct smt_blocks blocks;
    struct smt_bank *bank; // those with blocks
    int64_t n_banks;
    bool chosen; // the blocks are those that will learn, not as many others
};

static void state_close(struct tuning_state *st)
{
    for (int64_t i = 0; i < st->n_banks; i++) {
        mem_free(st->bank[i].by_row);
        mem_free(st->bank[i].by_column);
    }
    mem_free(st->bank);
    smt_blocks_free(&st->blocks);
    mem_free(st);
}

static int column_first(const void *a, const void *b)
{
    const struct matrix_block *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->column != y->column) return x->column < y->column ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

// The blocks of one bank lie side by side.
static bool list_bank(struct smt_bank *b, const struct smt_block *first, struct error *err)
{
    const size_t bytes = (size_t)b->count * sizeof *b->by_row;
    b->block = first;
    b->by_row = mem_alloc(bytes);
    b->by_column = mem_alloc(bytes);
    if (!b->by_row || !b->by_column) return fail(err, "no memory for the blocks of smt");
    for (int64_t i = 0; i < b->count; i++) {
        const struct smt_block *x = &first[i];
        b->by_row[i] =
            (struct matrix_block){x->group, x->row, x->rows, x->column, x->columns, b->values};
        b->values += x->rows * x->columns;
    }
    memcpy(b->by_column, b->by_row, bytes);
    qsort(b->by_column, (size_t)b->count, sizeof *b->by_column, column_first);
    return true;
}

static bool list_banks(struct tuning_state *st, struct error *err)
{
    const struct smt_blocks *all = &st->blocks;
    st->bank = mem_zalloc((size_t)st->in.n_banks, sizeof *st->bank);
    if (!st->bank) return fail(err, "no memory for the blocks of smt");
    for (int64_t i = 0, end; i < all->count; i = end) {
        end = i;
        while (end < all->count && all->block[end].bank == all->block[i].bank) {
            end++;
        }
        struct smt_bank *b = &st->bank[st->n_banks++];
        b->bank = st->in.bank[all->block[i].bank];
        b->count = end - i;
        if (!list_bank(b, &all->block[i], err)) return false;
    }
    return true;
}

// The blocks of an adapter, of a file, or, where neither is there, as many as the budget allows.
static bool find_blocks(struct tuning_state *st, struct error *err)
{
    const struct tuning_input *in = &st->in;
    const struct tuning_options *r = in->options;
    const char *file = r->smt.selection ? r->smt.selection : r->selection;
    struct smt_targets t;
    st->chosen = in->adapter || file;
    if (in->adapter) return smt_blocks_of_adapter(&st->blocks, in, err);
    if (file) return smt_blocks_read(&st->blocks, in, file, err);
    if (!smt_targets_open(&t, in, err)) return false;
    const bool ok = smt_choose(&st->blocks, &t, NULL, err);
    smt_targets_close(&t);
    return ok;
}

static bool choose(struct tuning_state **out, const struct tuning_input *in, struct error *err)
{
    struct tuning_state *st = mem_zalloc(1, sizeof *st);
    if (!st) return fail(err, "no memory for the blocks of smt");
    st->in = *in;
    *out = st;
    return find_blocks(st, err) && list_banks(st, err);
}

static bool check_whole(const struct smt_bank *b, const struct weights *w, struct error *err)
{
    for (int64_t i = 0; i < b->count; i++) {
        const struct weight *x = &w->weight[b->bank->weight[b->block[i].group]];
        if (x->learns) return fail(err, "smt: %s learns whole, and blocks of it, too", x->name);
    }
    return true;
}

// The leaf begins as what is stored.
static bool fill(const struct smt_bank *b, const struct tuning_input *in, struct error *err)
{
    float *values = mem_alloc((size_t)b->values * sizeof *values);
    if (!values) return fail(err, "%s: no memory for its blocks", b->bank->name);
    for (int64_t i = 0; i < b->count; i++) {
        const struct matrix_block *x = &b->by_row[i];
        const struct tensor *w = &in->weights->weight[b->bank->weight[x->group]].stored;
        for (int64_t r = 0; r < x->rows; r++) {
            const int64_t from = (x->row + r) * w->dim[1] + x->column;
            dtype_convert(values + x->at + r * x->columns, DTYPE_F32,
                          (const char *)w->data + (size_t)from * dtype_size(w->dtype), w->dtype,
                          x->columns);
        }
    }
    in->ops->upload(b->value.data, values, (size_t)b->values * sizeof *values);
    mem_free(values);
    return true;
}

static void place_lists(struct smt_bank *b, const struct ops *o, struct arena *a)
{
    const size_t bytes = (size_t)b->count * sizeof *b->by_row;
    a->purpose = PURPOSE_DATA;
    struct matrix_block *row = arena_bytes(a, bytes), *column = arena_bytes(a, bytes);
    if (row) o->upload(row, b->by_row, bytes);
    if (column) o->upload(column, b->by_column, bytes);
    b->list = (struct matrix_blocks){b->count, 0, row, column};
}

static bool open_bank(struct tuning_state *st, struct smt_bank *b, const struct tuning_input *in,
                      struct arena *a, struct leaves *out, struct error *err)
{
    char name[2 * NAME_MAX_LENGTH];
    const struct tensor shape = tensor_2d(NULL, DTYPE_F32, 1, b->values);
    snprintf(name, sizeof name, "%s%s", st->chosen ? b->bank->name : "blocks",
             st->chosen ? ".blocks" : ", still to be chosen");
    if (!check_whole(b, in->weights, err)) return false;
    out->section = b->bank->section;
    const struct leaf *f = leaves_add(out, a, name, shape, DTYPE_F32, err);
    if (!f) return false;
    b->value = f->value;
    b->grad = f->grad;
    a->purpose = PURPOSE_WEIGHTS;
    b->delta = arena_2d(a, in->compute, 1, b->values);
    place_lists(b, in->ops, a);
    return arena_measuring(a) || fill(b, in, err);
}

static bool open(struct tuning_state **out, const struct tuning_input *in, struct arena *a,
                 struct leaves *leaves, struct error *err)
{
    struct tuning_state *st = *out;
    for (int64_t i = 0; i < st->n_banks; i++) {
        struct smt_bank *b = &st->bank[i];
        if (!open_bank(st, b, in, a, leaves, err)) return false;
        in->bank[b->block->bank]->adapter = b;
    }
    return true;
}

static void refresh(struct tuning_state *st)
{
    for (int64_t i = 0; i < st->n_banks; i++) {
        const struct smt_bank *b = &st->bank[i];
        st->in.ops->blocks_delta(b->delta, b->value, &b->bank->value, &b->list);
    }
}

// The blocks of the groups that a call is about.
static struct matrix_blocks part_of(const struct smt_bank *b, const struct bank *w)
{
    struct matrix_blocks part = b->list;
    int64_t first = 0, end = 0;
    for (int64_t i = 0; i < b->count; i++) {
        first += b->block[i].group < w->first_group;
        end += b->block[i].group < w->first_group + w->groups;
    }
    part.first_group = w->first_group;
    part.count = end - first;
    part.by_row += first;
    part.by_column += first;
    return part;
}

static void forward(const struct ops *o, const struct bank *w, struct tensor y, struct tensor x,
                    struct tensor offsets)
{
    const struct smt_bank *b = w->adapter;
    const struct matrix_blocks part = part_of(b, w);
    o->matmul_forward(y, x, &w->value, offsets, false);
    o->blocks_forward(y, x, b->delta, &part, offsets);
}

static void dweight(const struct ops *o, const struct bank *w, struct tensor dy, struct tensor x,
                    struct tensor offsets)
{
    const struct smt_bank *b = w->adapter;
    const struct matrix_blocks part = part_of(b, w);
    if (b->grad.data) o->blocks_dweight(b->grad, dy, x, &part, offsets);
}

static void dinput(const struct ops *o, const struct bank *w, struct tensor dx, struct tensor dy,
                   struct tensor offsets, bool accumulate)
{
    const struct smt_bank *b = w->adapter;
    const struct matrix_blocks part = part_of(b, w);
    o->matmul_dinput(dx, dy, &w->value, offsets, accumulate);
    o->blocks_dinput(dx, dy, b->delta, &part, offsets);
}

static bool merge(struct tuning_state *st, const struct bank *bank, int64_t group, float *w,
                  struct error *err)
{
    const struct smt_bank *b = bank->adapter;
    for (int64_t i = 0; i < b->count; i++) {
        const struct matrix_block *x = &b->by_row[i];
        if (x->group != group) continue;
        const int64_t n = x->rows * x->columns;
        float *values = mem_alloc((size_t)n * sizeof *values);
        if (!values) return fail(err, "%s: no memory to merge a block", bank->name);
        st->in.ops->download(values, data_f32(b->value) + x->at, (size_t)n * sizeof *values);
        for (int64_t r = 0; r < x->rows; r++) {
            memcpy(w + (x->row + r) * bank->in + x->column, values + r * x->columns,
                   (size_t)x->columns * sizeof *w);
        }
        mem_free(values);
    }
    return true;
}

// A block's own part of a packed leaf.
static struct tensor view(struct tensor packed, const struct matrix_block *x)
{
    if (!packed.data) return packed;
    return tensor_2d(data_f32(packed) + x->at, DTYPE_F32, x->rows, x->columns);
}

static bool tensors(const struct tuning_state *st, adapter_visitor fn, void *user,
                    struct error *err)
{
    for (int64_t i = 0; i < st->n_banks; i++) {
        const struct smt_bank *b = &st->bank[i];
        for (int64_t k = 0; k < b->count; k++) {
            struct adapter_tensor t = {.from = NULL};
            smt_block_name(t.name, &st->in, &b->block[k]);
            t.value = view(b->value, &b->by_row[k]);
            t.grad = view(b->grad, &b->by_row[k]);
            if (!fn(user, &t, err)) return false;
        }
    }
    return true;
}

static bool write_config(const struct tuning_state *st, const struct tuning_input *in,
                         const char *dir, struct error *err)
{
    return smt_config_write(&st->blocks, in, dir, err);
}

// A checkpoint's values mean something only with the places that they belong to.
static bool save(const struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    return path_join(path, sizeof path, dir, selection_file, err) &&
           smt_blocks_write(&st->blocks, &st->in, path, err);
}

static bool same_places(const struct smt_blocks *a, const struct smt_blocks *b)
{
    bool same = a->count == b->count;
    for (int64_t i = 0; same && i < a->count; i++) {
        const struct smt_block *x = &a->block[i], *y = &b->block[i];
        same = x->bank == y->bank && x->group == y->group && x->row == y->row &&
               x->column == y->column;
    }
    return same;
}

static bool load(struct tuning_state *st, const char *dir, struct error *err)
{
    char path[PATH_SIZE];
    struct smt_blocks saved;
    if (!path_join(path, sizeof path, dir, selection_file, err) ||
        !smt_blocks_read(&saved, &st->in, path, err)) {
        return false;
    }
    const bool same = same_places(&saved, &st->blocks);
    smt_blocks_free(&saved);
    return same || fail(err, "%s: other blocks learn in this run", path);
}

static bool check(const struct tuning_options *r, const struct model_config *c, struct error *err)
{
    const struct smt_options *o = &r->smt;
    (void)c;
    if (o->blocks && o->attention_blocks) {
        return fail(err, "--smt-blocks and --smt-attention-blocks exclude each other");
    }
    if (o->blocks && o->mlp_blocks && o->scope != SMT_SCOPE_GROUP) {
        return fail(err, "--smt-blocks and --smt-mlp-blocks exclude each other with this scope");
    }
    if (o->warmup == SMT_WARMUP_SCORE || o->select == SMT_SELECT_GRADIENT) return true;
    return fail(err, "--smt-select activation scores without training: --smt-warmup score");
}

static const struct tuning *scoring(const struct tuning_options *r, int64_t *steps, int64_t *tokens)
{
    (void)tokens;
    if (r->smt.selection) return NULL;
    *steps = r->smt.warmup_steps;
    if (r->smt.select == SMT_SELECT_ACTIVATION) return &smt_by_activation;
    return r->smt.warmup == SMT_WARMUP_TRAIN ? &smt_by_training : &smt_by_gradient;
}

static const struct adapter_format format = {
    .file = "smt_blocks.safetensors",
    .prefix = "",
    .write = write_config,
    .read = smt_config_read,
    .tensors = tensors,
};

const struct tuning tuning_smt = {
    .name = "smt",
    .help = "blocks of matrices learn, chosen by their gradients in a stage before: 0.84 % of all "
            "blocks, in attention's q, k and v, unless --smt-... says otherwise",
    .check = check,
    .scoring = scoring,
    .choose = choose,
    .open = open,
    .close = state_close,
    .refresh = refresh,
    .forward = forward,
    .dweight = dweight,
    .dinput = dinput,
    .format = &format,
    .merge = merge,
    .save = save,
    .load = load,
};
