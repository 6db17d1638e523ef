// ops/ops.h - everything a backend can do. A table per backend implements it (cpu_ops; cuda_ops with
// CUDA=1); model, routing, tuning and train call only through a table, so tests can compare the two.
//
// Types: activations are F32 or BF16 ("A" below), the same in all A arguments of one call unless the
// comment says otherwise; statistics, router values, losses and gradients of weights are F32; indices
// I32. Sums are accumulated in F32 or better, in an order that depends on shapes only: never on the
// number of threads or on timing.
// Gradients: d* of an activation is overwritten, d* of a weight is added to (micro-batches
// accumulate). An absent output (data == NULL) is not computed. Inputs never alias outputs unless the
// comment says so. All memory comes from the table's own allocate().
#pragma once
#include "base/error.h"
#include "base/tensor.h"

#include <stddef.h>

// G matrices (rows, cols) of one shape, row-major, each contiguous, not necessarily adjacent: the
// weights of a bank where they lie, a mapped checkpoint included. F32, BF16 or F16.
struct matrices {
    int64_t groups, rows, cols;
    enum dtype dtype;
    void *const
        *data; // (G) pointers, in host memory on a CPU, in device memory on a GPU; NULL: absent
};

// Rectangles of a bank's matrices, no two of which overlap: what learns where matrices learn in part. Their
// values lie packed in one vector, each rectangle row-major from element `at` on.
struct matrix_block {
    int64_t group, row, rows, column, columns, at;
};
struct matrix_blocks {
    int64_t count;
    int64_t
        first_group; // of a view of some groups: what the first group of a call is called in the lists
    // The same blocks in two orders: by group, row, column; those with the same group and row are as high as
    // each other. And by group, column, row; those with the same group and column are as wide.
    const struct matrix_block *by_row, *by_column;
};
enum block_sum { BLOCK_SUM, BLOCK_SUM_ABS, BLOCK_SUM_SQUARES }; // of x, |x| or x^2

// Which (token, slot) pairs of a route are computed, sorted by expert and by token within an expert.
struct dispatch {
    struct tensor offsets; // (E+1) I32: rows [offsets[e], offsets[e+1]) belong to expert e
    struct tensor slot;    // (R) I32: row r is slot slot[r] % S of token slot[r] / S
    struct tensor row;     // (N,S) I32: the row of a slot, -1 where it has none
};

// Arguments of the two ops that would have more than eight.
struct attention_saved {
    struct tensor dout, o, lse, q, k, v; // gradient of o, and what the forward pass read and wrote
};
struct attention_grads {
    struct tensor dq, dk, dv;
};
struct swiglu_grads {
    struct tensor dg, du, a, dweight;
};

// What a forward pass keeps of experts' hidden layers (R,F): gate, up, and SwiGLU of them.
struct expert_hidden {
    struct tensor g, u, a;
};

// A mask of dropout: it depends on the key and on an element's token, group and column, so it is the same in
// every pass that has the key, however rows are ordered, and need not be kept.
struct dropout {
    uint64_t key;
    float p;                     // share of elements that become 0, in steps of 2^-16
    const struct dispatch *rows; // which tokens the rows are; NULL: row r is token r, of group 0
    int64_t first;               // the group at which the offsets of `rows` begin
};

// What magnitude_scale reads and writes, N rows of W + a B A.
struct magnitude_norm {
    struct tensor magnitude, squares; // (N) F32; of the rows of W
    struct tensor b, p, q;            // (N,r): B in any floating type; W A^T and B A A^T in F32
    float a;
};
struct magnitude_scale {
    struct tensor scale, rest, inverse; // (N) F32
};

// A leaf as the optimizer's ops see it (base/leaf.h, base/codes.h), all of one count.
struct adamw_leaf {
    struct tensor w;                // F32; or BF16, then without a copy
    struct tensor m, v;             // both F32, both BF16, or both U8 codes: m signed, v unsigned
    struct tensor m_scale, v_scale; // of codes: (blocks of CODE_BLOCK elements) F32
    struct tensor copy;             // BF16 or F16, may be absent
    struct tensor grad;             // F32
    bool decays;                    // weight decay applies
    uint64_t stream;                // of the random numbers that round it
    int64_t first;                  // chunks that the leaves before it in the list have
};
// What the optimizer's ops go over in one call, however many leaves there are: made once, by leaf_list_open.
enum { LEAF_CHUNK = 16384 }; // elements: what a backend cuts leaves in
struct leaf_list {
    struct adamw_leaf *leaf; // (count), in the backend's memory, or the host's where ops read that
    int64_t count, chunks;   // leaves; chunks that they have together
};

struct adamw { // doubles: 1 - 0.999f is off by 1e-5
    double lr, beta1, beta2, eps, weight_decay;
    double correction1,
        correction2; // 1 - beta^step, for the step about to be made (the first is 1)
};

struct ops {
    const char *name;
    // The type in which activations should flow when the user asks for bf16: BF16 where products of
    // BF16 are fast, F32 where they run in F32 anyway (a conversion before each would be wasted).
    enum dtype (*bf16_activations)(void);
    size_t (*scratch_bytes)(void); // most that the backend allocates besides what it is asked for

    // False and the reason once the device has failed: what was computed since means nothing. Failures
    // stay; who keeps results asks before it keeps them, after a download (which waits for all work).
    bool (*check)(struct error *err);
    size_t (*free_bytes)(void); // what allocate could give about now; SIZE_MAX: not known
    // Most of its own memory that it held at once so far, scratch included; NULL: it has the process's.
    size_t (*peak_bytes)(void);

    // Memory. allocate: zeroed, 64-byte aligned, NULL when it does not fit. upload returns when src was
    // read; download waits for all work before it.
    void *(*allocate)(size_t bytes);
    void (*release)(void *p, size_t bytes);
    // The same for optimizer states that the user wants in host memory (--offload-states): ops read and write
    // it as any other of this backend's, so on a GPU it is host memory mapped into the device's addresses,
    // and adamw, the only op that touches it but zero, sum_squares, upload and download, streams it over the
    // bus. NULL: allocate gives host memory anyway.
    void *(*allocate_host)(size_t bytes);
    void (*release_host)(void *p, size_t bytes);
    // Ops may read host memory as well (mapped files): frozen weights are used where they lie.
    bool reads_host;
    // y (any floating type) <- as many values in host memory, of any floating type, at any alignment:
    // weights from a mapped file.
    void (*import)(struct tensor y, struct tensor host);
    void (*upload)(void *dst, const void *src, size_t bytes);
    void (*download)(void *dst, const void *src, size_t bytes);
    void (*zero)(struct tensor x);
    void (*convert)(struct tensor y, struct tensor x); // y <- x, same count, any floating types

    // y = a + b, all A; y may be a or b.
    void (*add)(struct tensor y, struct tensor a, struct tensor b);
    // y (N,C) += b (C), b F32 or A;   db (C) += sum over rows of dy (N,C)
    void (*bias_forward)(struct tensor y, struct tensor b);
    void (*bias_backward)(struct tensor db, struct tensor dy);
    // y = min(max(y, -limit), limit) in place;   dy = 0 where |y| >= limit (y as clamped), in place
    void (*clamp_forward)(struct tensor y, float limit);
    void (*clamp_backward)(struct tensor dy, struct tensor y, float limit);

    // y (N,C) <- table (V,C) any floating type, ids (N);   dtable (V,C) F32 +=
    void (*embedding_forward)(struct tensor y, struct tensor table, struct tensor ids);
    void (*embedding_backward)(struct tensor dtable, struct tensor dy, struct tensor ids);

    // y (N,C), rstd (N) <- x (N,C), w (C) any floating type
    //   y = x * rstd * w, rstd = 1/sqrt(mean x^2 + eps).  y may be x.
    void (*rmsnorm_forward)(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                            float eps);
    // dx (N,C), dw (C) += <- dy (N,C), x (N,C), w (C), rstd (N).  dx may be dy.
    void (*rmsnorm_backward)(struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x,
                             struct tensor w, struct tensor rstd);

    // x (N, H*D) in place; row n is turned by the angles of positions[n] (I32, < P):
    //   (x1, x2) <- (x1 cos - x2 sin, x2 cos + x1 sin), x1 and x2 the halves of the first `rotary`
    //   elements of a head; table (P, rotary) F32 holds cos then sin (rotary/2 each).
    // inverse: the transposed rotation, which is the backward pass.
    void (*rope)(struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,
                 bool inverse);

    // o (N, H*D), lse (N,H) F32 <- q (N, H*D), k, v (M, G*D), span (N,2) I32
    //   Row n attends to the keys span[n][0] <= m <= span[n][1]: documents of a packed batch, causal
    //   masks, sliding windows and KV caches are all spans. Head h uses key-value head h / (H/G).
    //   p = softmax(scale * q k^T) over the span; o = p v; lse = log of the softmax's denominator.
    // No (N,M) matrix is formed. Tiles outside every span cost nothing.
    void (*attention_forward)(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                              struct tensor v, struct tensor span, int64_t head_dim, float scale);
    // dq, dk, dv <- dO, o, lse, q, k, v, span
    void (*attention_backward)(const struct attention_grads *d, const struct attention_saved *s,
                               struct tensor span, int64_t head_dim, float scale);

    // A linear over a bank: rows [offsets[g], offsets[g+1]) of x meet matrix g. offsets (G+1) I32, or
    // absent: G = 1 and all rows. y and x may differ in type (the router's y is F32).
    //   y (R,rows) = x (R,cols) W_g^T, or += if accumulate
    void (*matmul_forward)(struct tensor y, struct tensor x, const struct matrices *w,
                           struct tensor offsets, bool accumulate);
    //   dx (R,cols) = dy (R,rows) W_g, or += if accumulate
    void (*matmul_dinput)(struct tensor dx, struct tensor dy, const struct matrices *w,
                          struct tensor offsets, bool accumulate);
    //   dW_g (rows,cols) F32 += dy^T x over the rows of g; a NULL pointer: that one is not computed
    void (*matmul_dweight)(const struct matrices *dw, struct tensor dy, struct tensor x,
                           struct tensor offsets);

    // A linear whose matrices are W_g + D_g, where D_g is 0 but in blocks whose values are `delta` (A): the
    // share of D_g alone, all +=. Only the rows and columns that a block needs are read.
    //   y (R,rows) += x (R,cols) D_g^T;   dx (R,cols) += dy (R,rows) D_g
    void (*blocks_forward)(struct tensor y, struct tensor x, struct tensor delta,
                           const struct matrix_blocks *b, struct tensor offsets);
    void (*blocks_dinput)(struct tensor dx, struct tensor dy, struct tensor delta,
                          const struct matrix_blocks *b, struct tensor offsets);
    //   dvalue (packed F32) += the blocks of dy^T x over the rows of g
    void (*blocks_dweight)(struct tensor dvalue, struct tensor dy, struct tensor x,
                           const struct matrix_blocks *b, struct tensor offsets);
    //   delta (packed A) = value (packed F32) - the blocks of w
    void (*blocks_delta)(struct tensor delta, struct tensor value, const struct matrices *w,
                         const struct matrix_blocks *b);
    // What blocks are chosen by, without keeping a gradient: with dy^T x over the rows of g cut in blocks of
    // size x size (less at the lower and right edge), sums (G, blocks of a matrix by row) F64 += the sum
    // over each block's elements
    void (*block_scores)(struct tensor sums, struct tensor dy, struct tensor x,
                         struct tensor offsets, int64_t size, enum block_sum kind);
    //   sums (G,C) F64 += the sum over the rows of g of x (R,C), divided by their number if `mean`
    void (*column_scores)(struct tensor sums, struct tensor x, struct tensor offsets,
                          enum block_sum kind, bool mean);

    // Router values, all F32 (N,E) unless said.
    //   p = softmax(z);   dz = p * (dp - <dp, p>), dz may be dp
    void (*softmax_forward)(struct tensor p, struct tensor z);
    void (*softmax_backward)(struct tensor dz, struct tensor dp, struct tensor p);
    //   index (N,K) I32: the K largest of key (N,E) in descending order; ties: the lower index first
    void (*topk)(struct tensor index, struct tensor key);
    //   w (N,S) = p[n][index];   dp (N,E) = 0, then += dw at index (an index may repeat)
    void (*pick_forward)(struct tensor w, struct tensor p, struct tensor index);
    void (*pick_backward)(struct tensor dp, struct tensor dw, struct tensor index);
    //   y = x / sum of the row, sum (N) kept;   dx = (dy - <dy, y>) / sum.  y may be x, dx may be dy.
    void (*normalize_forward)(struct tensor y, struct tensor sum, struct tensor x);
    void (*normalize_backward)(struct tensor dx, struct tensor dy, struct tensor y,
                               struct tensor sum);
    //   y = 1 / (1 + exp(-x));   dx = dy * y * (1 - y), dx may be dy
    void (*sigmoid_forward)(struct tensor y, struct tensor x);
    void (*sigmoid_backward)(struct tensor dx, struct tensor dy, struct tensor y);
    //   x *= a, any floating type
    void (*scale)(struct tensor x, float a);

    // What policies are made of besides. F32 or I32 columns:
    //   y (N,S): columns [first, first + k) = x (N,k), the others stay;   y (N,k) = those of x (N,S)
    void (*place_columns)(struct tensor y, struct tensor x, int64_t first);
    void (*take_columns)(struct tensor y, struct tensor x, int64_t first);
    void (*repeat_row)(struct tensor y, struct tensor row); // y (N,k): every row = row (k)
    void (*fill)(struct tensor y, float value);             // F32
    //   y (N,E)[n][index[n][i]] = value, for all i of index (N,k)
    void (*put)(struct tensor y, struct tensor index, float value);
    //   lse (N) = log of the sum of exp(z[n]);   y (N,C) += a * s[n] * x (N,C)
    void (*logsumexp)(struct tensor lse, struct tensor z);
    void (*add_scaled_rows)(struct tensor y, struct tensor x, struct tensor s, float a);
    //   count (E) F32 += how many slots of index (N,S) name e
    void (*count_slots)(struct tensor count, struct tensor index);
    //   sum (E) F64 += the weights (N,S) of the slots of index (N,S) that name e; weight absent: 1 each
    void (*add_slots)(struct tensor sum, struct tensor index, struct tensor weight);
    //   changed (1) F64 += how many entries of a row of index (N,S) are not among those of plain's row;
    //   all (1) F64 += N*S
    void (*count_changed)(struct tensor changed, struct tensor all, struct tensor index,
                          struct tensor plain);
    //   count (E) F32 += rows of each expert, offsets[e+1] - offsets[e]
    void (*count_rows)(struct tensor count, struct tensor offsets);
    //   out (1) F64 += a * <x, y>
    void (*dot)(struct tensor out, struct tensor x, struct tensor y, double a);
    //   b (E) += rate * sign(u - mean(u)) (sign 0 is 0), then clamped to +-limit unless limit is 0
    void (*sign_step)(struct tensor b, struct tensor u, float rate, float limit);
    //   Straight-through renormalisation (METHODS, "densemixer"): with w (N,E) = p / sum in the chosen
    //   set and 0 outside, dp = (dw - <dw, w>) / sum in the set and dw / sum outside. dp may be dw.
    void (*normalize_backward_through)(struct tensor dp, struct tensor dw, struct tensor w,
                                       struct tensor sum);

    // What low-rank adapters are made of besides products (METHODS, "lora, dora").
    //   y (R,C) = x (R,C) * keep / (1 - p), or += if accumulate; keep is 0 or 1 (struct dropout)
    void (*dropout)(struct tensor y, struct tensor x, const struct dropout *d, bool accumulate);
    // A linear of x and of dropout(x) at little more than the price of one. With y (R,rows) = x W_g^T:
    //   u = dropout(x) W_g^T,  y -= u
    void (*dropped_forward)(struct tensor u, struct tensor y, struct tensor x,
                            const struct matrices *w, const struct dropout *d);
    //   dx (R,cols) -= dy W_g where dropout leaves an element out; the others stay
    void (*dropped_dinput)(struct tensor dx, struct tensor dy, const struct matrices *w,
                           const struct dropout *d);
    //   y (R,C) = x (R,C) * c_g, or += if accumulate, for the rows of g; c (G,C) F32. y may be x.
    void (*scale_columns)(struct tensor y, struct tensor x, struct tensor c, struct tensor offsets,
                          bool accumulate);
    //   d (G,C) F32 += a_g * sum over the rows of g of x * y (R,C); a (G,C) F32
    void (*dot_columns)(struct tensor d, struct tensor a, struct tensor x, struct tensor y,
                        struct tensor offsets);
    //   y (G*rows, S) F32: y_g = W_g A_g^T, w (G; rows, cols), a (G; S, cols)
    void (*matrices_multiply)(struct tensor y, const struct matrices *w, const struct matrices *a);
    //   s (G*rows) F32 = sum of squares of each row of w
    void (*row_squares)(struct tensor s, const struct matrices *w);
    //   |v|^2 = squares + sum_k a b_k (2 p_k + a q_k), the norm of a row of W + a B A:
    //   inverse = 1 / |v|, scale = magnitude / |v|, rest = scale - 1; where |v| is 0: 0, 0, -1
    void (*magnitude_scale)(const struct magnitude_scale *out, const struct magnitude_norm *in);

    // d <- expert (N,S) I32, weight (N,S) F32: the slots with weight != 0, or those with weight == 0
    // (for the router's gradient alone) if `zeros`, of the experts first .. first + count(offsets) - 2.
    void (*dispatch)(const struct dispatch *d, struct tensor expert, struct tensor weight,
                     bool zeros, int64_t first);
    // y (R,C) <- x (N,C): row r is x[slot[r] / S], for r < offsets[E]
    void (*gather_tokens)(struct tensor y, struct tensor x, const struct dispatch *d);
    // y (N,C) <- ys (R,C): y[n] = sum over slots s with a row, in order of s, of ys[row[n][s]];
    // added to y if accumulate
    void (*combine_slots)(struct tensor y, struct tensor ys, const struct dispatch *d,
                          bool accumulate);
    // y (M,C) <- x (N,C): y[m] = x[index[m]];   x (N,C) <- y: zero, then x[index[m]] = y[m] (distinct)
    void (*gather_rows)(struct tensor y, struct tensor x, struct tensor index);
    void (*scatter_rows)(struct tensor x, struct tensor y, struct tensor index);
    // x[index[m]] = y[m] and nothing else: for caches
    void (*place_rows)(struct tensor x, struct tensor y, struct tensor index);

    // SwiGLU with the slot's weight folded in, so that ys needs no further scaling (weight absent: 1).
    // d NULL: row r is token r and S = 1.
    //   a (R,F) = w_r * silu(g) * u,   w_r = weight (N,S)[slot[r]]
    void (*swiglu_forward)(struct tensor a, struct tensor g, struct tensor u, struct tensor weight,
                           const struct dispatch *d);
    // With da' (R,F) the gradient of the weighted a (dy W_down of the row's token):
    //   dweight[slot[r]] = <da', silu(g) u>  (slots without a row: 0),   da = w_r da'
    //   dg = da u silu'(g),  du = da silu(g),  a = w_r silu(g) u (again, for dW_down)
    // dg may be g, du may be u, a may be da'.
    void (*swiglu_backward)(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                            struct tensor u, struct tensor weight, const struct dispatch *d);

    // dweight[slot[r]] = <da', silu(g) u> for the rows of d; other slots stay
    void (*swiglu_dot)(struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,
                       const struct dispatch *d);

    // Ops for experts that stand for several others, with the rows of tokens taken where they lie. Results are
    // those of the others, one after the other, roundings included; but for the order of sums in dweight.
    // NULL: the backend has none of them, and the others are called.
    //   g, u (R,F) = gather_tokens(x (N,C)) W_gate^T and W_up^T;  a = swiglu_forward of them, or absent
    void (*expert_up)(const struct expert_hidden *out, struct tensor x, const struct matrices *gate,
                      const struct matrices *up, struct tensor weight, const struct dispatch *d);
    //   da' (R,F) = gather_tokens(dy (N,C)) W_down, and swiglu_backward of it: dg may be g, du may be u;
    //   dweight: for the rows of d alone, other slots stay
    void (*expert_dhidden)(const struct swiglu_grads *out, struct tensor dy,
                           const struct matrices *down, struct tensor g, struct tensor u,
                           struct tensor weight, const struct dispatch *d);
    //   dW_g += as matmul_dweight, where dy (N,rows) or else x (N,cols) stands for its gather_tokens
    void (*expert_dweight)(const struct matrices *dw, struct tensor dy, struct tensor x,
                           const struct dispatch *d, bool dy_is_tokens);

    // loss (N) F32 = logsumexp(logits[n]) - logits[n][target[n]];  logits (N,V) F32 or BF16 become
    // their own gradient, scale * (softmax - onehot), unless scale == 0 (evaluation: left as they are)
    void (*cross_entropy)(struct tensor loss, struct tensor logits, struct tensor targets,
                          float scale);

    // out (1) F64 += sum of x (F32);   out (1) F64 += sum of x^2 (F32 or BF16). In double, fixed order.
    void (*sum)(struct tensor out, struct tensor x);
    void (*sum_squares)(struct tensor out, struct tensor x);

    // The optimizer. A step's update follows its gradients without a word from the host.
    //   out (1) F64 += sum of the squares of all gradients. In double, fixed order.
    void (*grad_squares)(struct tensor out, const struct leaf_list *l);
    //   scale (1) F32 = what gradients are multiplied by (base/clip.h), from the sum of their squares and
    //   the loss, (1) F64 each; loss absent: not asked. NaN: the step is not usable
    void (*clip_scale)(struct tensor scale, struct tensor squares, struct tensor loss, double clip);
    // Decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW orders it, in F32 over all leaves,
    // gradients multiplied by scale (1) F32 as they are read. Where that is NaN no leaf is touched. Gradients are 0
    // afterwards in either case.
    //   w -= lr wd w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
    //   w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps);   copy = w
    // Of a leaf in fewer bits m and v are widened, w moves by the m and v just computed, then m and v (and a
    // BF16 w) are rounded to what they are kept in:
    //   BF16: stochastically (bf16_from_f32_random) with, for element i of the leaf, the (i % 4)-th 16 bits
    //     from the low end of rng_at(seed, rng_at(seed, leaf.stream, update) + k, i / 4), k = 0 for m, 1 for v,
    //     2 for w. Nothing else may enter: a resumed run and another number of threads round alike.
    //   U8: m_scale = max |m| and v_scale = max v of the block; the code whose value is nearest to m / m_scale
    //     or v / v_scale (half way: the lower), but never that of 0 for m < 0 (bitsandbytes keeps signs) or
    //     v > 0 (the root of a v that vanished would let the step explode). All zero bytes are m = v = 0.
    void (*adamw)(const struct leaf_list *l, const struct adamw *p, struct tensor scale,
                  uint64_t seed, uint64_t update);
};

extern const struct ops cpu_ops;

// leaf_list.c: a list of n leaves, whose own `first` is set here. It lasts as long as the leaves' memory. False and
// err without memory for it; leaf_list_close is safe after that.
bool leaf_list_open(struct leaf_list *l, const struct ops *o, struct adamw_leaf *leaf, int64_t n,
                    struct error *err);
void leaf_list_close(struct leaf_list *l, const struct ops *o);
size_t leaf_list_bytes(const struct ops *o, int64_t n); // of the backend's memory

// The table of CUDA on the first GPU, or NULL and why there is none: a build without CUDA, no driver or one too
// old, no GPU or one before sm_80. The first call takes the device; it is kept to the end of the process.
const struct ops *cuda_open(struct error *err);
bool cuda_built(void); // this build has CUDA

enum cpu_products { CPU_PRODUCTS_AUTO, CPU_PRODUCTS_BF16, CPU_PRODUCTS_F32 };
// Threads (0: all the process may use) and the type of the matrix products on BF16 operands (AUTO: BF16
// where the processor has AVX512-BF16 or better, else F32). Call before the first op.
void cpu_configure(int threads, enum cpu_products products);
// About what the CPU backend allocates besides what it is asked for: per-thread blocks of converted
// operands, and the library's packed ones.
size_t cpu_scratch_bytes(void);
// A yardstick for bench, apart from the ops: y (R,rows) = x (R,cols) w (rows,cols)^T, all BF16 or all F32, as
// one call of the matrix library on all threads. False: it has no such product on this processor.
bool cpu_library_product(struct tensor y, struct tensor x, struct tensor w);
