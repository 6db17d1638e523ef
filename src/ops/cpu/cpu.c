// ops/cpu/cpu.c - the table of the CPU backend, its threads and the type of its products.
#include "ops/cpu/cpu.h"

#include "ops/cpu/product.h"

#include <assert.h>
#include <omp.h>

static struct {
    int threads; // 0: not decided yet
    enum cpu_products products;
    bool asked, bf16, instructions;
} settings;

void cpu_configure(int threads, enum cpu_products products)
{
    assert(threads >= 0);
    settings.threads = threads ? threads : omp_get_num_procs();
    settings.products = products;
    settings.asked = false;
    cpu_forget_failure();
}

int cpu_threads(void)
{
    if (!settings.threads) settings.threads = omp_get_num_procs();
    return settings.threads;
}

bool cpu_bf16_products(void)
{
    if (!settings.asked) {
        const bool wanted = settings.products == CPU_PRODUCTS_BF16 ||
                            (settings.products == CPU_PRODUCTS_AUTO && product_bf16_is_fast());
        settings.bf16 = wanted && product_bf16_works();
        settings.instructions = settings.bf16 && product_bf16_is_fast();
        settings.asked = true;
    }
    return settings.bf16;
}

bool cpu_bf16_instructions(void)
{
    return cpu_bf16_products() && settings.instructions;
}

static enum dtype bf16_activations(void)
{
    return cpu_bf16_products() ? DTYPE_BF16 : DTYPE_F32;
}

// Measured with experts of 1024 x 2048 and heads of 128: 13 MB with one thread, 29 MB with two.
size_t cpu_scratch_bytes(void)
{
    return (size_t)cpu_threads() * ((size_t)15 << 20);
}

const struct ops cpu_ops = {
    .name = "cpu",
    .bf16_activations = bf16_activations,
    .scratch_bytes = cpu_scratch_bytes,
    .check = cpu_check,
    .free_bytes = cpu_free_bytes,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .reads_host = true,
    .import = cpu_import,
    .upload = cpu_upload,
    .download = cpu_download,
    .zero = cpu_zero,
    .convert = cpu_convert,
    .add = cpu_add,
    .bias_forward = cpu_bias_forward,
    .bias_backward = cpu_bias_backward,
    .clamp_forward = cpu_clamp_forward,
    .clamp_backward = cpu_clamp_backward,
    .embedding_forward = cpu_embedding_forward,
    .embedding_backward = cpu_embedding_backward,
    .rmsnorm_forward = cpu_rmsnorm_forward,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .rope = cpu_rope,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .matmul_forward = cpu_matmul_forward,
    .matmul_dinput = cpu_matmul_dinput,
    .matmul_dweight = cpu_matmul_dweight,
    .blocks_forward = cpu_blocks_forward,
    .blocks_dinput = cpu_blocks_dinput,
    .blocks_dweight = cpu_blocks_dweight,
    .blocks_delta = cpu_blocks_delta,
    .block_scores = cpu_block_scores,
    .column_scores = cpu_column_scores,
    .softmax_forward = cpu_softmax_forward,
    .softmax_backward = cpu_softmax_backward,
    .topk = cpu_topk,
    .pick_forward = cpu_pick_forward,
    .pick_backward = cpu_pick_backward,
    .normalize_forward = cpu_normalize_forward,
    .normalize_backward = cpu_normalize_backward,
    .sigmoid_forward = cpu_sigmoid_forward,
    .sigmoid_backward = cpu_sigmoid_backward,
    .scale = cpu_scale,
    .place_columns = cpu_place_columns,
    .take_columns = cpu_take_columns,
    .repeat_row = cpu_repeat_row,
    .fill = cpu_fill,
    .put = cpu_put,
    .logsumexp = cpu_logsumexp,
    .add_scaled_rows = cpu_add_scaled_rows,
    .count_slots = cpu_count_slots,
    .add_slots = cpu_add_slots,
    .count_changed = cpu_count_changed,
    .count_rows = cpu_count_rows,
    .dot = cpu_dot,
    .sign_step = cpu_sign_step,
    .normalize_backward_through = cpu_normalize_backward_through,
    .dropout = cpu_dropout,
    .dropped_forward = cpu_dropped_forward,
    .dropped_dinput = cpu_dropped_dinput,
    .scale_columns = cpu_scale_columns,
    .dot_columns = cpu_dot_columns,
    .matrices_multiply = cpu_matrices_multiply,
    .row_squares = cpu_row_squares,
    .magnitude_scale = cpu_magnitude_scale,
    .dispatch = cpu_dispatch,
    .gather_tokens = cpu_gather_tokens,
    .combine_slots = cpu_combine_slots,
    .gather_rows = cpu_gather_rows,
    .scatter_rows = cpu_scatter_rows,
    .place_rows = cpu_place_rows,
    .swiglu_forward = cpu_swiglu_forward,
    .swiglu_backward = cpu_swiglu_backward,
    .swiglu_dot = cpu_swiglu_dot,
    .cross_entropy = cpu_cross_entropy,
    .sum = cpu_sum,
    .sum_squares = cpu_sum_squares,
    .grad_squares = cpu_grad_squares,
    .clip_scale = cpu_clip_scale,
    .adamw = cpu_adamw,
};
