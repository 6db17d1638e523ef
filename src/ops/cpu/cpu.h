// ops/cpu/cpu.h - what the files of the CPU backend share: the functions behind the table, threads, and
// per-thread scratch. Every parallel loop runs over tasks whose size depends on shapes only, and each
// task is computed by one thread, so results do not depend on the number of threads.
#pragma once
#include "ops/ops.h"

enum { SMALL_WORK = 16384 }; // elements below which a second thread costs more than it saves

int cpu_threads(void);
bool cpu_bf16_products(void);     // products of BF16 operands run in BF16
bool cpu_bf16_instructions(void); // and the processor multiplies them itself

// Memory may run out within an op: in scratch, and in oneDNN. The task that met it is left where it stands, by a
// longjmp, and what is attempted later computes nothing: cpu_check says so until cpu_configure. So a task holds
// nothing that must be given back where memory may run out.
typedef void (*cpu_task)(const void *op, int64_t i);
void cpu_attempt(cpu_task task, const void *op, int64_t i); // on the calling thread
// Tasks 0 to n - 1, taken one by one by the threads; by the calling one alone where it is not worth more.
void cpu_tasks(int64_t n, bool worth, cpu_task task, const void *op);
void cpu_out_of_memory(void);        // from now on cpu_check fails
_Noreturn void cpu_leave_task(void); // the same, within an attempt
void cpu_forget_failure(void);

// The calling thread's buffer of this use, at least `bytes` long, 64-byte aligned, kept for the next
// call and freed with the thread. Not zeroed. Within an attempt.
enum scratch_use { SCRATCH_A, SCRATCH_B, SCRATCH_C, SCRATCH_SUMS, SCRATCH_LIBRARY, SCRATCH_USES };
void *scratch(enum scratch_use use, size_t bytes);
static inline float *scratch_f32(enum scratch_use use, int64_t count)
{
    return scratch(use, (size_t)count * sizeof(float));
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// The group of row r: the last whose rows begin at or before it and that has any.
static inline int64_t group_of(struct tensor offsets, int64_t r)
{
    if (!offsets.data) return 0;
    const int32_t *offset = data_i32(offsets);
    int64_t low = 0, high = tensor_count(offsets) - 1; // offset[low] <= r < offset[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (offset[middle] <= r) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static inline int64_t rows_in_use(struct tensor offsets, int64_t rows)
{
    return offsets.data ? data_i32(offsets)[tensor_count(offsets) - 1] : rows;
}

// memory.c
bool cpu_check(struct error *err);
size_t cpu_free_bytes(void);
void *cpu_allocate(size_t bytes);
void cpu_release(void *p, size_t bytes);
void cpu_upload(void *dst, const void *src, size_t bytes);
void cpu_download(void *dst, const void *src, size_t bytes);
void cpu_zero(struct tensor x);
void cpu_convert(struct tensor y, struct tensor x);
void cpu_import(struct tensor y, struct tensor host);
// elementwise.c
void cpu_add(struct tensor y, struct tensor a, struct tensor b);
void cpu_bias_forward(struct tensor y, struct tensor b);
void cpu_bias_backward(struct tensor db, struct tensor dy);
void cpu_clamp_forward(struct tensor y, float limit);
void cpu_clamp_backward(struct tensor dy, struct tensor y, float limit);
void cpu_scale(struct tensor x, float a);
void cpu_sum(struct tensor out, struct tensor x);
void cpu_sum_squares(struct tensor out, struct tensor x);
// embedding.c
void cpu_embedding_forward(struct tensor y, struct tensor table, struct tensor ids);
void cpu_embedding_backward(struct tensor dtable, struct tensor dy, struct tensor ids);
// rmsnorm.c
void cpu_rmsnorm_forward(struct tensor y, struct tensor rstd, struct tensor x, struct tensor w,
                         float eps);
void cpu_rmsnorm_backward(struct tensor dx, struct tensor dw, struct tensor dy, struct tensor x,
                          struct tensor w, struct tensor rstd);
// rope.c
void cpu_rope(struct tensor x, struct tensor positions, struct tensor table, int64_t head_dim,
              bool inverse);
// attention.c, attention_backward.c
void cpu_attention_forward(struct tensor o, struct tensor lse, struct tensor q, struct tensor k,
                           struct tensor v, struct tensor span, int64_t head_dim, float scale);
void cpu_attention_backward(const struct attention_grads *d, const struct attention_saved *s,
                            struct tensor span, int64_t head_dim, float scale);
// matmul.c, dweight.c
void cpu_matmul_forward(struct tensor y, struct tensor x, const struct matrices *w,
                        struct tensor offsets, bool accumulate);
void cpu_matmul_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                       struct tensor offsets, bool accumulate);
void cpu_matmul_dweight(const struct matrices *dw, struct tensor dy, struct tensor x,
                        struct tensor offsets);
// blocks.c, block_scores.c
void cpu_blocks_forward(struct tensor y, struct tensor x, struct tensor delta,
                        const struct matrix_blocks *b, struct tensor offsets);
void cpu_blocks_dinput(struct tensor dx, struct tensor dy, struct tensor delta,
                       const struct matrix_blocks *b, struct tensor offsets);
void cpu_blocks_dweight(struct tensor dvalue, struct tensor dy, struct tensor x,
                        const struct matrix_blocks *b, struct tensor offsets);
void cpu_blocks_delta(struct tensor delta, struct tensor value, const struct matrices *w,
                      const struct matrix_blocks *b);
void cpu_block_scores(struct tensor sums, struct tensor dy, struct tensor x, struct tensor offsets,
                      int64_t size, enum block_sum kind);
void cpu_column_scores(struct tensor sums, struct tensor x, struct tensor offsets,
                       enum block_sum kind, bool mean);
void cpu_matrices_multiply(struct tensor y, const struct matrices *w, const struct matrices *a);
// dropout.c, dropped.c
void cpu_dropout(struct tensor y, struct tensor x, const struct dropout *d, bool accumulate);
void cpu_dropped_forward(struct tensor u, struct tensor y, struct tensor x,
                         const struct matrices *w, const struct dropout *d);
void cpu_dropped_dinput(struct tensor dx, struct tensor dy, const struct matrices *w,
                        const struct dropout *d);
// low_rank.c
void cpu_scale_columns(struct tensor y, struct tensor x, struct tensor c, struct tensor offsets,
                       bool accumulate);
void cpu_dot_columns(struct tensor d, struct tensor a, struct tensor x, struct tensor y,
                     struct tensor offsets);
void cpu_row_squares(struct tensor s, const struct matrices *w);
void cpu_magnitude_scale(const struct magnitude_scale *out, const struct magnitude_norm *in);
// router.c
void cpu_softmax_forward(struct tensor p, struct tensor z);
void cpu_softmax_backward(struct tensor dz, struct tensor dp, struct tensor p);
void cpu_topk(struct tensor index, struct tensor key);
void cpu_pick_forward(struct tensor w, struct tensor p, struct tensor index);
void cpu_pick_backward(struct tensor dp, struct tensor dw, struct tensor index);
void cpu_normalize_forward(struct tensor y, struct tensor sum, struct tensor x);
void cpu_normalize_backward(struct tensor dx, struct tensor dy, struct tensor y, struct tensor sum);
void cpu_sigmoid_forward(struct tensor y, struct tensor x);
void cpu_sigmoid_backward(struct tensor dx, struct tensor dy, struct tensor y);
// policy.c
void cpu_place_columns(struct tensor y, struct tensor x, int64_t first);
void cpu_take_columns(struct tensor y, struct tensor x, int64_t first);
void cpu_repeat_row(struct tensor y, struct tensor row);
void cpu_fill(struct tensor y, float value);
void cpu_put(struct tensor y, struct tensor index, float value);
void cpu_logsumexp(struct tensor lse, struct tensor z);
void cpu_add_scaled_rows(struct tensor y, struct tensor x, struct tensor s, float a);
void cpu_count_slots(struct tensor count, struct tensor index);
void cpu_add_slots(struct tensor sum, struct tensor index, struct tensor weight);
void cpu_count_changed(struct tensor changed, struct tensor all, struct tensor index,
                       struct tensor plain);
void cpu_count_rows(struct tensor count, struct tensor offsets);
void cpu_dot(struct tensor out, struct tensor x, struct tensor y, double a);
void cpu_sign_step(struct tensor b, struct tensor u, float rate, float limit);
void cpu_normalize_backward_through(struct tensor dp, struct tensor dw, struct tensor w,
                                    struct tensor sum);
// dispatch.c
void cpu_dispatch(const struct dispatch *d, struct tensor expert, struct tensor weight, bool zeros,
                  int64_t first);
void cpu_gather_tokens(struct tensor y, struct tensor x, const struct dispatch *d);
void cpu_combine_slots(struct tensor y, struct tensor ys, const struct dispatch *d,
                       bool accumulate);
void cpu_gather_rows(struct tensor y, struct tensor x, struct tensor index);
void cpu_scatter_rows(struct tensor x, struct tensor y, struct tensor index);
void cpu_place_rows(struct tensor x, struct tensor y, struct tensor index);
// swiglu.c
void cpu_swiglu_forward(struct tensor a, struct tensor g, struct tensor u, struct tensor weight,
                        const struct dispatch *d);
void cpu_swiglu_backward(const struct swiglu_grads *out, struct tensor da, struct tensor g,
                         struct tensor u, struct tensor weight, const struct dispatch *d);
void cpu_swiglu_dot(struct tensor dweight, struct tensor da, struct tensor g, struct tensor u,
                    const struct dispatch *d);
// cross_entropy.c
void cpu_cross_entropy(struct tensor loss, struct tensor logits, struct tensor targets,
                       float scale);
// adamw.c, adamw_reduced.c
struct adamw_factors { // computed in double, applied in float, as torch does
    float keep, one_minus_beta1, beta2, one_minus_beta2, step, root_correction2, eps, grad_scale;
};
// n elements of one leaf.
void adamw_update(float *restrict w, float *restrict m, float *restrict v,
                  const float *restrict grad, int64_t n, struct adamw_factors f);
// A leaf in fewer bits; its random numbers come from `stream`.
void adamw_reduced(const struct adamw_leaf *x, struct adamw_factors f, uint64_t seed,
                   uint64_t stream);
void cpu_grad_squares(struct tensor out, const struct leaf_list *l);
void cpu_clip_scale(struct tensor scale, struct tensor squares, struct tensor loss, double clip);
void cpu_adamw(const struct leaf_list *l, const struct adamw *p, struct tensor scale, uint64_t seed,
               uint64_t update);
