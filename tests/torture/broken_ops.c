// tests/torture/broken_ops.c - the CPU backend with one output of one op off by 1 %: linked in place of
// ops/cpu/cpu.c (which it includes under another name), it asks the environment variable MOETUNE_BREAK, "OP OUTPUT",
// which. Floating-point outputs: what the op wrote is scaled by 1.01, and where it adds to what was there, what it added.
// Whole numbers, and bytes: one in a hundred, the first at least, is another. Under MOETUNE_BREAK=list a program prints
// all there are and ends. scripts/break-ops.sh runs the ops' tests over each.
#define cpu_ops whole_ops
#include "ops/cpu/cpu.c" // NOLINT(bugprone-suspicious-include)
#undef cpu_ops

#include "base/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct ops cpu_ops;

// How an op writes an output: all of it, some of it, or by adding to it.
enum writing { ALL, SOME, ADDED };
struct broken {
    struct tensor at;
    enum writing how;
    void *before; // what was there, unless all is written
};

static const char *wanted; // "OP OUTPUT", or NULL

static bool is_broken(const char *op, const char *output)
{
    const size_t n = strlen(op);
    return wanted && !strncmp(wanted, op, n) && wanted[n] == ' ' && !strcmp(wanted + n + 1, output);
}

static void *need(void *p)
{
    if (!p) abort();
    return p;
}

static struct broken find(const char *op, const char *output, struct tensor at, enum writing how)
{
    struct broken b = {tensor_absent(), how, NULL};
    if (!is_broken(op, output) || !at.data || !tensor_count(at)) return b;
    b.at = at;
    if (how == ALL) return b;
    const size_t bytes = tensor_bytes(at);
    b.before = need(malloc(bytes));
    memcpy(b.before, at.data, bytes);
    return b;
}

static void scale(const struct broken *b, int64_t i)
{
    const enum dtype t = b->at.dtype;
    const size_t size = dtype_size(t), at = (size_t)i * size;
    char *now = (char *)b->at.data + at;
    const char *before = b->before ? (const char *)b->before + at : NULL;
    double x, old = 0;
    if (b->how == SOME && !memcmp(now, before, size)) return;
    dtype_convert(&x, DTYPE_F64, now, t, 1);
    if (b->how == ADDED) dtype_convert(&old, DTYPE_F64, before, t, 1);
    const double y = old + 1.01 * (x - old);
    dtype_convert(now, t, &y, DTYPE_F64, 1);
}

static void spoil(struct broken *b)
{
    const int64_t n = b->at.data ? tensor_count(b->at) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (b->at.dtype == DTYPE_I32) {
            if (i % 100 == 0) data_i32(b->at)[i] ^= 1;
        } else if (b->at.dtype == DTYPE_U8) {
            if (i % 100 == 0) ((uint8_t *)b->at.data)[i] ^= 1;
        } else {
            scale(b, i);
        }
    }
    free(b->before);
}

// X(OP, PARAMETERS, ARGUMENTS, OUTPUTS), the outputs as O(output, how it is written), or B(output, bytes).
#define OPS(X)                                                                                     \
    X(import, (struct tensor y, struct tensor host), (y, host), O(y, ALL))                         \
    X(upload, (void *dst, const void *src, size_t bytes), (dst, src, bytes), B(dst, bytes))        \
    X(download, (void *dst, const void *src, size_t bytes), (dst, src, bytes), B(dst, bytes))      \
    X(convert, (struct tensor y, struct tensor x), (y, x), O(y, ALL))                              \
    X(add, (struct tensor y, struct tensor a, struct tensor b), (y, a, b), O(y, ALL))              \
    X(bias_forward, (struct tensor y, struct tensor b), (y, b), O(y, ADDED))                       \
    X(bias_backward, (struct tensor db, struct tensor dy), (db, dy), O(db, ADDED))                 \
    X(clamp_forward, (struct tensor y, float limit), (y, limit), O(y, ALL))                        \
    X(clamp_backward, (struct tensor dy, struct tensor y, float limit), (dy, y, limit),            \
      O(dy, ALL))                                                                                  \
    X(embedding_forward, (struct tensor y, struct tensor table, struct tensor ids),                \
      (y, table, ids), O(y, ALL))                                                                  \
    X(embedding_backward, (struct tensor dtable, struct tensor dy, struct tensor ids),             \
      (dtable, dy, ids), O(dtable, ADDED))                                                         \
    X(rmsnorm_forward,                                                                             \
      (struct tensor y, struct tensor rstd, struct tensor x, struct tensor w, float eps),          \
      (y, rstd, x, w, eps), O(y, ALL) O(rstd, ALL))                                                \
    X(rmsnorm_backward,                                                                            \
      (struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x, struct tensor w,     \
       struct tensor rstd),                                                                        \
      (dx, dw, dy, x, w, rstd), O(dx, ALL) O(dw, ADDED))                                           \
    X(rope,                                                                                        \
      (struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,            \
       bool inverse),                                                                              \
      (x, positions, table, head_dim, inverse), O(x, ALL))                                         \
    X(attention_forward,                                                                           \
      (struct tensor o, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,      \
       struct tensor span, int64_t head_dim, float scale),                                         \
      (o, lse, q, k, v, span, head_dim, scale), O(o, ALL) O(lse, ALL))                             \
    X(attention_backward,                                                                          \
      (const struct attention_grads *d, const struct attention_saved *s, struct tensor span,       \
       int64_t head_dim, float scale),                                                             \
      (d, s, span, head_dim, scale), O(d->dq, ALL) O(d->dk, ALL) O(d->dv, ALL))                    \
    X(matmul_forward,                                                                              \
      (struct tensor y, struct tensor x, const struct matrices *w, struct tensor offsets,          \
       bool accumulate),                                                                           \
      (y, x, w, offsets, accumulate), O(y, accumulate ? ADDED : ALL))                              \
    X(matmul_dinput,                                                                               \
      (struct tensor dx, struct tensor dy, const struct matrices *w, struct tensor offsets,        \
       bool accumulate),                                                                           \
      (dx, dy, w, offsets, accumulate), O(dx, accumulate ? ADDED : ALL))                           \
    X(blocks_forward,                                                                              \
      (struct tensor y, struct tensor x, struct tensor delta, const struct matrix_blocks *b,       \
       struct tensor offsets),                                                                     \
      (y, x, delta, b, offsets), O(y, ADDED))                                                      \
    X(blocks_dinput,                                                                               \
      (struct tensor dx, struct tensor dy, struct tensor delta, const struct matrix_blocks *b,     \
       struct tensor offsets),                                                                     \
      (dx, dy, delta, b, offsets), O(dx, ADDED))                                                   \
    X(blocks_dweight,                                                                              \
      (struct tensor dvalue, struct tensor dy, struct tensor x, const struct matrix_blocks *b,     \
       struct tensor offsets),                                                                     \
      (dvalue, dy, x, b, offsets), O(dvalue, ADDED))                                               \
    X(blocks_delta,                                                                                \
      (struct tensor delta, struct tensor value, const struct matrices *w,                         \
       const struct matrix_blocks *b),                                                             \
      (delta, value, w, b), O(delta, ALL))                                                         \
    X(block_scores,                                                                                \
      (struct tensor sums, struct tensor dy, struct tensor x, struct tensor offsets, int64_t size, \
       enum block_sum kind),                                                                       \
      (sums, dy, x, offsets, size, kind), O(sums, ADDED))                                          \
    X(column_scores,                                                                               \
      (struct tensor sums, struct tensor x, struct tensor offsets, enum block_sum kind,            \
       bool mean),                                                                                 \
      (sums, x, offsets, kind, mean), O(sums, ADDED))                                              \
    X(softmax_forward, (struct tensor p, struct tensor z), (p, z), O(p, ALL))                      \
    X(softmax_backward, (struct tensor dz, struct tensor dp, struct tensor p), (dz, dp, p),        \
      O(dz, ALL))                                                                                  \
    X(topk, (struct tensor index, struct tensor key), (index, key), O(index, ALL))                 \
    X(pick_forward, (struct tensor w, struct tensor p, struct tensor index), (w, p, index),        \
      O(w, ALL))                                                                                   \
    X(pick_backward, (struct tensor dp, struct tensor dw, struct tensor index), (dp, dw, index),   \
      O(dp, ALL))                                                                                  \
    X(normalize_forward, (struct tensor y, struct tensor sum, struct tensor x), (y, sum, x),       \
      O(y, ALL) O(sum, ALL))                                                                       \
    X(normalize_backward,                                                                          \
      (struct tensor dx, struct tensor dy, struct tensor y, struct tensor sum), (dx, dy, y, sum),  \
      O(dx, ALL))                                                                                  \
    X(sigmoid_forward, (struct tensor y, struct tensor x), (y, x), O(y, ALL))                      \
    X(sigmoid_backward, (struct tensor dx, struct tensor dy, struct tensor y), (dx, dy, y),        \
      O(dx, ALL))                                                                                  \
    X(scale, (struct tensor x, float a), (x, a), O(x, ALL))                                        \
    X(place_columns, (struct tensor y, struct tensor x, int64_t first), (y, x, first), O(y, SOME)) \
    X(take_columns, (struct tensor y, struct tensor x, int64_t first), (y, x, first), O(y, ALL))   \
    X(repeat_row, (struct tensor y, struct tensor row), (y, row), O(y, ALL))                       \
    X(fill, (struct tensor y, float value), (y, value), O(y, ALL))                                 \
    X(put, (struct tensor y, struct tensor index, float value), (y, index, value), O(y, SOME))     \
    X(logsumexp, (struct tensor lse, struct tensor z), (lse, z), O(lse, ALL))                      \
    X(add_scaled_rows, (struct tensor y, struct tensor x, struct tensor s, float a), (y, x, s, a), \
      O(y, ADDED))                                                                                 \
    X(count_slots, (struct tensor count, struct tensor index), (count, index), O(count, ADDED))    \
    X(add_slots, (struct tensor total, struct tensor index, struct tensor weight),                 \
      (total, index, weight), O(total, ADDED))                                                     \
    X(count_changed,                                                                               \
      (struct tensor changed, struct tensor all, struct tensor index, struct tensor plain),        \
      (changed, all, index, plain), O(changed, ADDED) O(all, ADDED))                               \
    X(count_rows, (struct tensor count, struct tensor offsets), (count, offsets), O(count, ADDED)) \
    X(dot, (struct tensor out, struct tensor x, struct tensor y, double a), (out, x, y, a),        \
      O(out, ADDED))                                                                               \
    X(sign_step, (struct tensor b, struct tensor u, float rate, float limit), (b, u, rate, limit), \
      O(b, ADDED))                                                                                 \
    X(normalize_backward_through,                                                                  \
      (struct tensor dp, struct tensor dw, struct tensor w, struct tensor sum), (dp, dw, w, sum),  \
      O(dp, ALL))                                                                                  \
    X(dropout, (struct tensor y, struct tensor x, const struct dropout *d, bool accumulate),       \
      (y, x, d, accumulate), O(y, accumulate ? ADDED : ALL))                                       \
    X(dropped_forward,                                                                             \
      (struct tensor u, struct tensor y, struct tensor x, const struct matrices *w,                \
       const struct dropout *d),                                                                   \
      (u, y, x, w, d), O(u, ALL) O(y, ADDED))                                                      \
    X(dropped_dinput,                                                                              \
      (struct tensor dx, struct tensor dy, const struct matrices *w, const struct dropout *d),     \
      (dx, dy, w, d), O(dx, ADDED))                                                                \
    X(scale_columns,                                                                               \
      (struct tensor y, struct tensor x, struct tensor c, struct tensor offsets, bool accumulate), \
      (y, x, c, offsets, accumulate), O(y, accumulate ? ADDED : ALL))                              \
    X(dot_columns,                                                                                 \
      (struct tensor d, struct tensor a, struct tensor x, struct tensor y, struct tensor offsets), \
      (d, a, x, y, offsets), O(d, ADDED))                                                          \
    X(matrices_multiply, (struct tensor y, const struct matrices *w, const struct matrices *a),    \
      (y, w, a), O(y, ALL))                                                                        \
    X(row_squares, (struct tensor s, const struct matrices *w), (s, w), O(s, ALL))                 \
    X(magnitude_scale, (const struct magnitude_scale *out, const struct magnitude_norm *in),       \
      (out, in), O(out->scale, ALL) O(out->rest, ALL) O(out->inverse, ALL))                        \
    X(dispatch,                                                                                    \
      (const struct dispatch *d, struct tensor expert, struct tensor weight, bool zeros,           \
       int64_t first),                                                                             \
      (d, expert, weight, zeros, first), O(d->offsets, ALL) O(d->slot, ALL) O(d->row, ALL))        \
    X(gather_tokens, (struct tensor y, struct tensor x, const struct dispatch *d), (y, x, d),      \
      O(y, SOME))                                                                                  \
    X(combine_slots,                                                                               \
      (struct tensor y, struct tensor ys, const struct dispatch *d, bool accumulate),              \
      (y, ys, d, accumulate), O(y, accumulate ? ADDED : ALL))                                      \
    X(gather_rows, (struct tensor y, struct tensor x, struct tensor index), (y, x, index),         \
      O(y, ALL))                                                                                   \
    X(scatter_rows, (struct tensor x, struct tensor y, struct tensor index), (x, y, index),        \
      O(x, ALL))                                                                                   \
    X(place_rows, (struct tensor x, struct tensor y, struct tensor index), (x, y, index),          \
      O(x, SOME))                                                                                  \
    X(swiglu_forward,                                                                              \
      (struct tensor a, struct tensor g, struct tensor u, struct tensor weight,                    \
       const struct dispatch *d),                                                                  \
      (a, g, u, weight, d), O(a, ALL))                                                             \
    X(swiglu_backward,                                                                             \
      (const struct swiglu_grads *out, struct tensor da, struct tensor g, struct tensor u,         \
       struct tensor weight, const struct dispatch *d),                                            \
      (out, da, g, u, weight, d),                                                                  \
      O(out->dg, ALL) O(out->du, ALL) O(out->a, ALL) O(out->dweight, ALL))                         \
    X(swiglu_dot,                                                                                  \
      (struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,                  \
       const struct dispatch *d),                                                                  \
      (dweight, da, g, u, d), O(dweight, SOME))                                                    \
    X(cross_entropy,                                                                               \
      (struct tensor loss, struct tensor logits, struct tensor targets, float grad),               \
      (loss, logits, targets, grad), O(loss, ALL) O(logits, ALL))                                  \
    X(sum, (struct tensor out, struct tensor x), (out, x), O(out, ADDED))                          \
    X(sum_squares, (struct tensor out, struct tensor x), (out, x), O(out, ADDED))                  \
    X(grad_squares, (struct tensor out, const struct leaf_list *l), (out, l), O(out, ADDED))       \
    X(clip_scale, (struct tensor scale, struct tensor squares, struct tensor loss, double clip),   \
      (scale, squares, loss, clip), O(scale, ALL))

#define O(output, how) find(op, #output, output, how),
#define B(output, bytes) find(op, #output, tensor_1d(output, DTYPE_U8, (int64_t)(bytes)), ALL),
#define WRAPPER(name, parameters, arguments, outputs)                                              \
    static void broken_##name parameters                                                           \
    {                                                                                              \
        static const char op[] = #name;                                                            \
        struct broken found[] = {outputs};                                                         \
        whole_ops.name arguments;                                                                  \
        for (size_t i = 0; i < sizeof found / sizeof *found; i++) {                                \
            spoil(&found[i]);                                                                      \
        }                                                                                          \
    }
OPS(WRAPPER)
#undef O
#undef B

// The gradient of the last of a bank's matrices that is computed.
static void broken_matmul_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                                  struct tensor offsets)
{
    int64_t last = dw->groups;
    while (last > 0 && !dw->data[last - 1])
        last--;
    const struct tensor of_it =
        last ? tensor_2d(dw->data[last - 1], dw->dtype, dw->rows, dw->cols) : tensor_absent();
    struct broken b = find("matmul_dweight", "dw", of_it, ADDED);
    whole_ops.matmul_dweight(dw, dy, x, offsets);
    spoil(&b);
}

// What adamw writes of leaves in float32, and of those in fewer bits.
static const char *const adamw_outputs[] = {
    "w", "m", "v", "copy", "reduced_w", "reduced_m", "reduced_v", "m_scale", "v_scale"};
enum { ADAMW_OUTPUTS = sizeof adamw_outputs / sizeof *adamw_outputs };

static bool leaf_output(struct broken *b, const struct adamw_leaf *x)
{
    const struct tensor none = tensor_absent();
    const bool plain = x->w.dtype == DTYPE_F32 && x->m.dtype == DTYPE_F32;
    const struct tensor of[ADAMW_OUTPUTS] = {
        plain ? x->w : none, plain ? x->m : none, plain ? x->v : none, x->copy,
        plain ? none : x->w, plain ? none : x->m, plain ? none : x->v, x->m_scale,
        x->v_scale};
    for (int i = 0; i < ADAMW_OUTPUTS; i++) {
        const bool moved = of[i].data == x->w.data;
        *b = find("adamw", adamw_outputs[i], of[i], moved ? ADDED : ALL);
        if (b->at.data) return true;
    }
    return false;
}

// The first gradient stays: "adamw grad".
static void broken_adamw(const struct leaf_list *l, const struct adamw *p, struct tensor scale,
                         uint64_t seed, uint64_t update)
{
    struct broken *b = need(calloc((size_t)l->count + 1, sizeof *b));
    const bool stays = is_broken("adamw", "grad") && l->count && tensor_count(l->leaf[0].grad);
    const float grad = stays ? data_f32(l->leaf[0].grad)[0] : 0;
    for (int64_t i = 0; i < l->count; i++) {
        if (!leaf_output(&b[i], &l->leaf[i])) b[i].at = tensor_absent();
    }
    whole_ops.adamw(l, p, scale, seed, update);
    for (int64_t i = 0; i < l->count; i++) {
        spoil(&b[i]);
    }
    if (stays) data_f32(l->leaf[0].grad)[0] = grad;
    free(b);
}

// The last element is not zeroed.
static void broken_zero(struct tensor x)
{
    const size_t size = dtype_size(x.dtype), n = tensor_bytes(x);
    unsigned char last[8];
    const bool stays = is_broken("zero", "x") && n >= size;
    if (stays) memcpy(last, (char *)x.data + n - size, size);
    whole_ops.zero(x);
    if (stays) memcpy((char *)x.data + n - size, last, size);
}

static void *broken_allocate(size_t bytes)
{
    void *p = whole_ops.allocate(bytes);
    if (p && bytes && is_broken("allocate", "memory")) memset(p, 1, 1);
    return p;
}

#define ENTRY(name, parameters, arguments, outputs) .name = broken_##name,
const struct ops cpu_ops = {
    OPS(ENTRY).name = "broken",
    .matmul_dweight = broken_matmul_dweight,
    .adamw = broken_adamw,
    .zero = broken_zero,
    .allocate = broken_allocate,
    .release = cpu_release,
    .reads_host = true,
    .bf16_activations = bf16_activations,
    .scratch_bytes = cpu_scratch_bytes,
    .check = cpu_check,
    .free_bytes = cpu_free_bytes,
};

#define O(output, how) {#output},
#define B(output, bytes) {#output},
#define LINES(name, parameters, arguments, outputs)                                                \
    {                                                                                              \
        static const char output[][32] = {outputs};                                                \
        for (size_t i = 0; i < sizeof output / sizeof *output; i++) {                              \
            printf("%s %s\n", #name, output[i]);                                                   \
        }                                                                                          \
    }
__attribute__((constructor)) static void begin(void)
{
    wanted = getenv("MOETUNE_BREAK");
    if (!wanted || strcmp(wanted, "list") != 0) return;
    OPS(LINES)
    for (int i = 0; i < ADAMW_OUTPUTS; i++) {
        printf("adamw %s\n", adamw_outputs[i]);
    }
    puts("adamw grad\nmatmul_dweight dw\nzero x\nallocate memory");
    exit(0);
}
