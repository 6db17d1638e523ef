// tests/cuda/test_ops.c - every op on the device against the same op on the CPU, with F32 and with BF16
// activations, in shapes that are odd and in shapes that kernels access 16 bytes at a time. A case is a
// row of the table: what its tensors hold, and the call.
#include "device.h"

// What a tensor holds before the call.
enum content {
    NONE,
    NORMAL,   // about normal, both signs
    POSITIVE, // in (0.1, 1.1)
    ZEROS,
    INDEX,    // in [0, limit)
    DISTINCT, // a permutation's beginning: limit values, each once
    OFFSETS,  // increasing from 0, uneven, one group empty; the last is limit
    GATES,    // weights of which some are 0
    TIES,     // few different values, an infinity and a NaN
};

enum { A = -1, MOST = 10 }; // type A: that of the activations

struct argument {
    enum content content;
    int type;
    int64_t rows, cols, limit;
};

struct shape {
    int64_t N, C, E, K;
};

struct ops_case {
    const char *name;
    void (*arguments)(struct argument *a, const struct shape *s);
    void (*run)(const struct ops *o, struct tensor *t);
    double limit; // for F32; 0: 3e-6
};

static uint32_t state;

static double uniform(void)
{
    state = state * 1664525U + 1013904223U;
    return (double)(state >> 8) * 0x1p-24;
}

static double normal(void)
{
    return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7;
}

static double content_at(const struct argument *a, int64_t i)
{
    static const double few[] = {0.5, -1, 0.5, 2, -0.0, 0, 2, -INFINITY, NAN};
    switch (a->content) {
    case NORMAL:
        return normal();
    case POSITIVE:
        return 0.1 + uniform();
    case INDEX:
        return floor(uniform() * (double)a->limit);
    case DISTINCT:
        return (double)((i * 7 + 3) % a->limit); // limits are no multiple of 7
    case OFFSETS: {
        const int64_t G = a->rows * a->cols - 1;
        const double share = (double)i / (double)G;
        return i == 0 ? 0 : i == G ? (double)a->limit : floor((double)a->limit * share * share);
    }
    case GATES:
        return uniform() < 0.3 ? 0 : uniform();
    case TIES:
        return few[(int)(uniform() * 9)];
    default:
        return 0;
    }
}

static struct tensor host_tensor(const struct argument *a, enum dtype activations)
{
    if (a->content == NONE) return tensor_absent();
    const enum dtype t = a->type == A ? activations : (enum dtype)a->type;
    struct tensor x =
        a->rows == 1 ? tensor_1d(NULL, t, a->cols) : tensor_2d(NULL, t, a->rows, a->cols);
    x.data = pool_allocate(&cpu_ops, tensor_bytes(x));
    for (int64_t i = 0; i < tensor_count(x); i++) {
        const double v = content_at(a, i);
        if (t == DTYPE_I32) {
            data_i32(x)[i] = (int32_t)v;
        } else {
            dtype_convert((char *)x.data + (size_t)i * dtype_size(t), t, &v, DTYPE_F64, 1);
        }
    }
    return x;
}

// ---- the calls; t[i] is argument i

#define ARGUMENTS(op) static void op##_arguments(struct argument *a, const struct shape *s)
#define RUN(op) static void op##_run(const struct ops *o, struct tensor *t)
#define SET_ALL(i, content, type, rows, cols, limit, ...)                                          \
    a[i] = (struct argument)                                                                       \
    {                                                                                              \
        content, type, rows, cols, limit                                                           \
    }
#define SET(i, ...) SET_ALL(i, __VA_ARGS__, 0, 0)

ARGUMENTS(zero)
{
    SET(0, NORMAL, A, s->N, s->C);
}
RUN(zero)
{
    o->zero(t[0]);
}

ARGUMENTS(convert)
{
    static const int types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    for (int i = 0; i < 4; i++) {
        SET(i, NORMAL, types[i], s->N, s->C);
        SET(4 + i, ZEROS, types[i], s->N, s->C);
    }
    (void)A;
}
RUN(convert)
{
    for (int i = 0; i < 4; i++) {
        o->convert(t[4 + i], t[(i + 1) % 4]);
        o->convert(t[4 + i], t[i]);
        o->convert(t[4 + i], t[(i + 2) % 4]);
    }
}

ARGUMENTS(add)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, A, s->N, s->C);
}
RUN(add)
{
    o->add(t[0], t[1], t[2]);
    o->add(t[1], t[1], t[0]);
}

ARGUMENTS(bias)
{
    SET(0, NORMAL, A, s->N, s->C);
    SET(1, NORMAL, DTYPE_F32, 1, s->C);
    SET(2, NORMAL, A, 1, s->C);
    SET(3, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(bias)
{
    o->bias_forward(t[0], t[1]);
    o->bias_forward(t[0], t[2]);
    o->bias_backward(t[3], t[0]);
}

ARGUMENTS(clamp)
{
    SET(0, NORMAL, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, TIES, A, s->N, s->C);
}
RUN(clamp)
{
    o->clamp_forward(t[0], 1.003f);
    o->clamp_backward(t[1], t[0], 1.003f);
    o->clamp_forward(t[2], 1.0f);
}

ARGUMENTS(embedding)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, 601, s->C);
    SET(2, INDEX, DTYPE_I32, 1, s->N, 601);
    SET(3, NORMAL, DTYPE_F32, 601, s->C);
    SET(4, INDEX, DTYPE_I32, 1, s->N, 3);
    SET(5, NORMAL, DTYPE_F16, 601, s->C);
    SET(6, ZEROS, A, s->N, s->C);
}
RUN(embedding)
{
    o->embedding_forward(t[0], t[1], t[2]);
    o->embedding_forward(t[6], t[5], t[2]);
    o->embedding_backward(t[3], t[0], t[2]);
    o->embedding_backward(t[3], t[0], t[4]); // the same few ids again and again
}

ARGUMENTS(rmsnorm)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, ZEROS, DTYPE_F32, s->N, 1);
    SET(2, NORMAL, A, s->N, s->C);
    SET(3, NORMAL, DTYPE_BF16, 1, s->C);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, NORMAL, DTYPE_F32, 1, s->C);
    SET(6, ZEROS, A, s->N, s->C);
    SET(7, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(rmsnorm)
{
    o->rmsnorm_forward(t[0], t[1], t[2], t[3], 1e-5f);
    o->rmsnorm_backward(t[6], t[5], t[4], t[2], t[3], t[1]);
    o->rmsnorm_forward(t[0], tensor_absent(), t[0], t[7], 1e-5f);
    o->rmsnorm_backward(t[4], tensor_absent(), t[4], t[2], t[7], t[1]);
}

// Heads of 1.5 times the turned part, where columns allow, else of all.
ARGUMENTS(rope)
{
    const int64_t D = s->C % 8 == 0 ? 48 : 6;
    SET(0, NORMAL, A, s->N, 3 * D);
    SET(1, INDEX, DTYPE_I32, 1, s->N, 11);
    SET(2, NORMAL, DTYPE_F32, 11, D / 3 * 2);
    SET(3, NORMAL, A, s->N, 3 * D);
}
RUN(rope)
{
    o->rope(t[0], t[1], t[2], t[0].dim[1] / 3, false);
    o->rope(t[3], t[1], t[2], t[0].dim[1] / 3, true);
}

ARGUMENTS(softmax)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, NORMAL, DTYPE_F32, s->N, s->E);
    SET(3, ZEROS, DTYPE_F32, s->N, s->E);
    SET(4, ZEROS, DTYPE_F32, 1, s->N);
}
RUN(softmax)
{
    o->softmax_forward(t[0], t[1]);
    o->softmax_backward(t[3], t[2], t[0]);
    o->softmax_backward(t[2], t[2], t[0]);
    o->logsumexp(t[4], t[1]);
}

ARGUMENTS(topk)
{
    SET(0, ZEROS, DTYPE_I32, s->N, s->K);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, ZEROS, DTYPE_I32, s->N, s->E);
    SET(3, TIES, DTYPE_F32, s->N, s->E);
}
RUN(topk)
{
    o->topk(t[0], t[1]);
    o->topk(t[2], t[3]);
}

ARGUMENTS(pick)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->K);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(3, NORMAL, DTYPE_F32, s->N, s->E);
    SET(4, NORMAL, DTYPE_F32, s->N, 45);
    SET(5, INDEX, DTYPE_I32, s->N, 45, s->E); // more than a warp has lanes, with repetitions
    SET(6, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(pick)
{
    o->pick_forward(t[0], t[1], t[2]);
    o->pick_backward(t[3], t[0], t[2]);
    o->pick_backward(t[6], t[4], t[5]);
}

ARGUMENTS(normalize)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->K);
    SET(1, ZEROS, DTYPE_F32, 1, s->N);
    SET(2, POSITIVE, DTYPE_F32, s->N, s->K);
    SET(3, NORMAL, DTYPE_F32, s->N, s->K);
    SET(4, GATES, DTYPE_F32, s->N, s->E);
    SET(5, POSITIVE, DTYPE_F32, 1, s->N);
    SET(6, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(normalize)
{
    o->normalize_forward(t[0], t[1], t[2]);
    o->normalize_backward(t[3], t[3], t[0], t[1]);
    o->normalize_backward_through(t[6], t[6], t[4], t[5]);
    o->normalize_forward(t[2], tensor_absent(), t[2]);
}

ARGUMENTS(sigmoid)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, NORMAL, DTYPE_F32, s->N, s->E);
    SET(3, NORMAL, A, s->N, s->C);
    SET(4, NORMAL, DTYPE_F16, s->N, s->C);
}
RUN(sigmoid)
{
    o->sigmoid_forward(t[0], t[1]);
    o->sigmoid_backward(t[2], t[2], t[0]);
    o->scale(t[3], 0.37f);
    o->scale(t[4], -2.5f);
}

ARGUMENTS(columns)
{
    SET(0, NORMAL, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->K);
    SET(2, ZEROS, DTYPE_F32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->E, 1 << 20);
    SET(4, INDEX, DTYPE_I32, s->N, s->K, 1 << 20);
    SET(5, INDEX, DTYPE_I32, 1, s->E, 1 << 20);
    SET(6, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(7, NORMAL, DTYPE_F32, s->N, s->E);
    SET(8, POSITIVE, DTYPE_F32, 1, s->N);
    SET(9, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(columns)
{
    o->take_columns(t[2], t[0], 1);
    o->place_columns(t[0], t[1], t[0].dim[1] - t[1].dim[1]);
    o->repeat_row(t[3], t[5]);
    o->place_columns(t[3], t[4], 0);
    o->fill(t[1], 0.25f);
    o->put(t[9], t[6], -INFINITY);
    o->add_scaled_rows(t[7], t[0], t[8], -0.7f);
}

ARGUMENTS(counts)
{
    SET(0, NORMAL, DTYPE_F32, 1, s->E);
    SET(1, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(2, NORMAL, DTYPE_F64, 1, s->E);
    SET(3, POSITIVE, DTYPE_F32, s->N, s->K);
    SET(4, NORMAL, DTYPE_F64, 1, 1);
    SET(5, NORMAL, DTYPE_F64, 1, 1);
    SET(6, INDEX, DTYPE_I32, s->N, 3, s->E);
    SET(7, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N);
}
RUN(counts)
{
    o->count_slots(t[0], t[1]);
    o->add_slots(t[2], t[1], t[3]);
    o->add_slots(t[2], t[1], tensor_absent());
    o->count_changed(t[4], t[5], t[1], t[6]);
    o->count_rows(t[0], t[7]);
}

ARGUMENTS(sums)
{
    SET(0, NORMAL, DTYPE_F64, 1, 1);
    SET(1, NORMAL, DTYPE_F32, s->N, 101 * s->C);
    SET(2, NORMAL, DTYPE_F64, 1, 1);
    SET(3, NORMAL, DTYPE_F64, 1, 1);
    SET(4, NORMAL, DTYPE_F32, s->N, s->C);
    SET(5, NORMAL, DTYPE_F32, s->N, s->C);
}
RUN(sums)
{
    o->sum(t[0], t[1]);
    o->sum_squares(t[2], t[1]);
    o->dot(t[3], t[4], t[5], 0.3);
}

ARGUMENTS(sign_step)
{
    SET(0, NORMAL, DTYPE_F32, 1, s->E);
    SET(1, INDEX, DTYPE_F32, 1, s->E, 9);
    SET(2, NORMAL, DTYPE_F32, 1, s->E);
}
RUN(sign_step)
{
    o->sign_step(t[0], t[1], 0.01f, 0.5f);
    o->sign_step(t[2], t[1], 0.01f, 0);
}

// ---- rows sorted by expert. All slots of all experts, and those of weight 0 of some.

static struct dispatch dispatch_of(struct tensor *t, int first)
{
    return (struct dispatch){.offsets = t[first], .slot = t[first + 1], .row = t[first + 2]};
}

ARGUMENTS(dispatch)
{
    const int64_t R = s->N * s->K;
    SET(0, ZEROS, DTYPE_I32, 1, s->E + 1);
    SET(1, ZEROS, DTYPE_I32, 1, R);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
    SET(5, ZEROS, A, R, s->C);
    SET(6, NORMAL, A, s->N, s->C);
    SET(7, NORMAL, A, s->N, s->C);
    SET(8, NORMAL, A, s->N, s->C);
    SET(9, NORMAL, A, R, s->C);
}
RUN(dispatch)
{
    const struct dispatch d = dispatch_of(t, 0);
    o->dispatch(&d, t[3], t[4], false, 0);
    o->gather_tokens(t[5], t[6], &d);
    o->combine_slots(t[7], t[9], &d, false);
    o->combine_slots(t[8], t[9], &d, true);
}

ARGUMENTS(dispatch_zeros)
{
    SET(0, ZEROS, DTYPE_I32, 1, s->E - 1);
    SET(1, ZEROS, DTYPE_I32, 1, s->N * s->K);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
}
RUN(dispatch_zeros)
{
    const struct dispatch d = dispatch_of(t, 0);
    o->dispatch(&d, t[3], t[4], true, 1);
}

ARGUMENTS(rows)
{
    SET(0, ZEROS, A, 13, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, DISTINCT, DTYPE_I32, 1, 13, s->N);
    SET(3, NORMAL, A, s->N, s->C);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, ZEROS, A, 13, 3);
    SET(6, NORMAL, A, s->N, 3);
}
RUN(rows)
{
    o->gather_rows(t[0], t[1], t[2]);
    o->gather_rows(t[5], t[6], t[2]);
    o->scatter_rows(t[3], t[0], t[2]);
    o->place_rows(t[4], t[0], t[2]);
}

ARGUMENTS(swiglu)
{
    const int64_t R = s->N * s->K;
    SET(0, ZEROS, DTYPE_I32, 1, s->E + 1);
    SET(1, ZEROS, DTYPE_I32, 1, R);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
    SET(5, ZEROS, A, R, s->C);
    SET(6, NORMAL, A, R, s->C);
    SET(7, NORMAL, A, R, s->C);
    SET(8, NORMAL, A, R, s->C);
    SET(9, NORMAL, DTYPE_F32, s->N, s->K);
}
RUN(swiglu)
{
    const struct dispatch d = dispatch_of(t, 0);
    const struct tensor none = tensor_absent();
    o->dispatch(&d, t[3], t[4], true, 0);
    o->swiglu_dot(t[9], t[8], t[6], t[7], &d);
    o->dispatch(&d, t[3], t[4], false, 0);
    o->swiglu_forward(t[5], t[6], t[7], t[4], &d);
    const struct swiglu_grads two = {none, t[5], none, none};
    o->swiglu_backward(&two, t[8], t[6], t[7], t[4], &d);
    const struct swiglu_grads all = {t[6], t[7], t[8], t[4]}; // over its inputs
    struct tensor weight = t[9];
    o->swiglu_backward(&all, t[8], t[6], t[7], weight, &d);
}

ARGUMENTS(swiglu_dense)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, A, s->N, s->C);
    SET(3, NORMAL, A, s->N, s->C);
}
RUN(swiglu_dense)
{
    const struct tensor none = tensor_absent();
    o->swiglu_forward(t[0], t[1], t[2], none, NULL);
    const struct swiglu_grads all = {t[1], t[2], t[3], none};
    o->swiglu_backward(&all, t[3], t[1], t[2], none, NULL);
}

ARGUMENTS(cross_entropy)
{
    SET(0, ZEROS, DTYPE_F32, 1, s->N);
    SET(1, NORMAL, A, s->N, 37 * s->C);
    SET(2, INDEX, DTYPE_I32, 1, s->N, 37 * s->C);
    SET(3, ZEROS, DTYPE_F32, 1, s->N);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, INDEX, DTYPE_I32, 1, s->N, s->C);
}
RUN(cross_entropy)
{
    o->cross_entropy(t[0], t[1], t[2], 0.013f);
    o->cross_entropy(t[3], t[4], t[5], 0);
}

ARGUMENTS(adamw)
{
    SET(0, NORMAL, DTYPE_F32, s->N, s->C);
    SET(1, NORMAL, DTYPE_F32, s->N, s->C);
    SET(2, POSITIVE, DTYPE_F32, s->N, s->C);
    SET(3, ZEROS, A, s->N, s->C);
    SET(4, NORMAL, DTYPE_F32, s->N, s->C);
    SET(5, ZEROS, DTYPE_F16, s->N, s->C);
}
RUN(adamw)
{
    const struct adamw p = {.lr = 1e-2,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = 0.1,
                            .correction1 = 0.271,
                            .correction2 = 0.003};
    const bool same = t[3].dtype == DTYPE_F32; // no copy then
    o->adamw(t[0], t[1], t[2], same ? tensor_absent() : t[3], t[4], &p, 0.5f);
    o->adamw(t[0], t[1], t[2], t[5], t[4], &p, 0.25f);
}

// ---- adapters

ARGUMENTS(dropout)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N - 3);
    SET(3, DISTINCT, DTYPE_I32, 1, s->N, s->N);
    SET(4, ZEROS, DTYPE_I32, s->N, 2);
    SET(5, NORMAL, DTYPE_F32, s->N, s->C);
}
RUN(dropout)
{
    const struct dispatch rows = dispatch_of(t, 2);
    const struct dropout plain = {.key = 0x123456789abcdefULL, .p = 0.1f};
    const struct dropout by_expert = {.key = 77, .p = 0.5f, .rows = &rows, .first = 5};
    o->dropout(t[0], t[1], &plain, false);
    o->dropout(t[5], t[1], &by_expert, true);
    o->dropout(t[0], t[1], &by_expert, true);
}

ARGUMENTS(scale_columns)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, DTYPE_F32, s->E, s->C);
    SET(3, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N - 2);
    SET(4, NORMAL, DTYPE_F32, s->E, s->C);
    SET(5, NORMAL, A, s->N, s->C);
    SET(6, NORMAL, DTYPE_F32, s->E, s->C);
    SET(7, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(scale_columns)
{
    const struct tensor one = tensor_2d(t[7].data, DTYPE_F32, 1, tensor_count(t[7]));
    o->scale_columns(t[0], t[1], t[2], t[3], false);
    o->scale_columns(t[1], t[1], t[2], t[3], true);
    o->scale_columns(t[5], t[1], one, tensor_absent(), true);
    o->dot_columns(t[6], t[4], t[1], t[5], t[3]);
    o->dot_columns(one, one, t[1], t[5], tensor_absent());
}

ARGUMENTS(column_scores)
{
    SET(0, NORMAL, DTYPE_F64, s->E, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N);
    SET(3, NORMAL, DTYPE_F64, s->E, s->C);
    SET(4, NORMAL, DTYPE_F64, 1, s->C);
}
RUN(column_scores)
{
    o->column_scores(t[0], t[1], t[2], BLOCK_SUM_SQUARES, true);
    o->column_scores(t[3], t[1], t[2], BLOCK_SUM_ABS, false);
    const struct tensor one = tensor_2d(t[4].data, DTYPE_F64, 1, tensor_count(t[4]));
    o->column_scores(one, t[1], tensor_absent(), BLOCK_SUM, true);
}

ARGUMENTS(norms)
{
    const int64_t rows = s->E * s->N;
    SET(0, ZEROS, DTYPE_F32, 1, rows);
    SET(1, NORMAL, A, rows, s->C);
    SET(2, NORMAL, DTYPE_F16, rows, s->C);
    SET(3, ZEROS, DTYPE_F32, 1, rows);
    SET(4, NORMAL, DTYPE_F32, 1, rows);
    SET(5, NORMAL, A, rows, s->K);
    SET(6, NORMAL, DTYPE_F32, rows, s->K);
    SET(7, POSITIVE, DTYPE_F32, rows, s->K);
    SET(8, ZEROS, DTYPE_F32, 3, rows);
}
RUN(norms)
{
    const struct matrices w = bank_in(o, t[1], t[1].dim[0] / 29), h = bank_in(o, t[2], 1);
    o->row_squares(t[0], &w);
    o->row_squares(t[3], &h);
    const int64_t N = tensor_count(t[0]);
    const struct magnitude_scale out = {tensor_rows(t[8], 0, 1), tensor_rows(t[8], 1, 1),
                                        tensor_rows(t[8], 2, 1)};
    const struct magnitude_norm in = {
        .magnitude = t[4], .squares = t[0], .b = t[5], .p = t[6], .q = t[7], .a = 0.125f};
    assert_true(N == tensor_count(out.scale));
    o->magnitude_scale(&out, &in);
}

#define CASE(op)                                                                                   \
    {                                                                                              \
#op, op##_arguments, op##_run, 0                                                           \
    }
static const struct ops_case cases[] = {
    CASE(zero),           CASE(convert),       CASE(add),
    CASE(bias),           CASE(clamp),         CASE(embedding),
    CASE(rmsnorm),        CASE(rope),          CASE(softmax),
    CASE(topk),           CASE(pick),          CASE(normalize),
    CASE(sigmoid),        CASE(columns),       CASE(counts),
    CASE(sums),           CASE(sign_step),     CASE(dispatch),
    CASE(dispatch_zeros), CASE(rows),          CASE(swiglu),
    CASE(swiglu_dense),   CASE(cross_entropy), CASE(adamw),
    CASE(dropout),        CASE(scale_columns), CASE(column_scores),
    CASE(norms),
};

// C: odd; one that kernels take 16 bytes at a time; more than a warp takes in a row. N is that of `norms`, too.
static const struct shape shapes[] = {{29, 33, 7, 3}, {29, 64, 70, 4}, {29, 1104, 5, 2}};

static void run_case(const struct ops_case *c, const struct shape *s, enum dtype type)
{
    struct argument a[MOST] = {{0}};
    struct tensor host[MOST], first[MOST];
    char name[128];
    state = 12345;
    c->arguments(a, s);
    for (int i = 0; i < MOST; i++) {
        host[i] = host_tensor(&a[i], type);
    }
    for (unsigned order = 0; order < 3; order++) {
        struct tensor t[MOST];
        for (int i = 0; i < MOST; i++) {
            t[i] = copy_to(device, host[i]);
        }
        device_order(order);
        c->run(device, t);
        for (int i = 0; i < MOST; i++) {
            const struct tensor back = copy_back(device, t[i]);
            if (order && back.data && memcmp(back.data, first[i].data, tensor_bytes(back))) {
                fail_msg("%s, argument %d: another order of threads changes the result", c->name,
                         i);
            }
            if (!order) first[i] = back;
        }
    }
    device_order(0);
    c->run(&cpu_ops, host);
    for (int i = 0; i < MOST; i++) {
        if (!host[i].data) continue;
        snprintf(name, sizeof name, "%s, argument %d, C = %d, %s", c->name, i, (int)s->C,
                 dtype_name(type));
        check_same(name, first[i], host[i], c->limit > 0 ? c->limit : 3e-6);
    }
    release_pool();
}

static void every_op_as_on_the_cpu(void **unused)
{
    (void)unused;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            for (size_t k = 0; k < 2; k++) {
                run_case(&cases[i], &shapes[j], types[k]);
                if (!device->check(&err)) fail_msg("%s: %s", cases[i].name, err.msg);
            }
        }
    }
}

int main(void)
{
    if (!device_open()) return SKIP;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_op_as_on_the_cpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
