// ops/cuda/cuda.cu - the table of the CUDA backend.
#include "ops/cuda/cuda.h"

static enum dtype bf16_activations(void)
{
    return DTYPE_BF16;
}

// cuda_scratch's blocks and the driver's own; measured figures belong here once there are some.
static size_t scratch_bytes(void)
{
    return (size_t)512 << 20;
}

// An op that says its name before it begins.
template <size_t N> struct text {
    char of[N];
    constexpr text(const char (&s)[N])
    {
        for (size_t i = 0; i < N; i++) {
            of[i] = s[i];
        }
    }
};
template <text NAME, auto op, typename R, typename... A> static R named(A... a)
{
    cuda_enter(NAME.of);
    return op(a...);
}
template <text NAME, auto op, typename R, typename... A> static constexpr auto name(R (*)(A...))
{
    return named<NAME, op, R, A...>;
}
#define OP(op) name<#op, cuda_##op>(cuda_##op)

const struct ops cuda_ops = {
    .name = "cuda",
    .bf16_activations = bf16_activations,
    .scratch_bytes = scratch_bytes,
    .check = cuda_check,
    .free_bytes = cuda_free_bytes,
    .peak_bytes = cuda_peak_bytes,
    .allocate = OP(allocate),
    .release = OP(release),
    .allocate_host = OP(allocate_host),
    .release_host = OP(release_host),
    .reads_host = false,
    .import = OP(import),
    .upload = OP(upload),
    .download = OP(download),
    .zero = OP(zero),
    .convert = OP(convert),
    .add = OP(add),
    .bias_forward = OP(bias_forward),
    .bias_backward = OP(bias_backward),
    .clamp_forward = OP(clamp_forward),
    .clamp_backward = OP(clamp_backward),
    .embedding_forward = OP(embedding_forward),
    .embedding_backward = OP(embedding_backward),
    .rmsnorm_forward = OP(rmsnorm_forward),
    .rmsnorm_backward = OP(rmsnorm_backward),
    .rope = OP(rope),
    .attention_forward = OP(attention_forward),
    .attention_backward = OP(attention_backward),
    .matmul_forward = OP(matmul_forward),
    .matmul_dinput = OP(matmul_dinput),
    .matmul_dweight = OP(matmul_dweight),
    .blocks_forward = OP(blocks_forward),
    .blocks_dinput = OP(blocks_dinput),
    .blocks_dweight = OP(blocks_dweight),
    .blocks_delta = OP(blocks_delta),
    .block_scores = OP(block_scores),
    .column_scores = OP(column_scores),
    .softmax_forward = OP(softmax_forward),
    .softmax_backward = OP(softmax_backward),
    .topk = OP(topk),
    .pick_forward = OP(pick_forward),
    .pick_backward = OP(pick_backward),
    .normalize_forward = OP(normalize_forward),
    .normalize_backward = OP(normalize_backward),
    .sigmoid_forward = OP(sigmoid_forward),
    .sigmoid_backward = OP(sigmoid_backward),
    .scale = OP(scale),
    .place_columns = OP(place_columns),
    .take_columns = OP(take_columns),
    .repeat_row = OP(repeat_row),
    .fill = OP(fill),
    .put = OP(put),
    .logsumexp = OP(logsumexp),
    .add_scaled_rows = OP(add_scaled_rows),
    .count_slots = OP(count_slots),
    .add_slots = OP(add_slots),
    .count_changed = OP(count_changed),
    .count_rows = OP(count_rows),
    .dot = OP(dot),
    .sign_step = OP(sign_step),
    .normalize_backward_through = OP(normalize_backward_through),
    .dropout = OP(dropout),
    .dropped_forward = OP(dropped_forward),
    .dropped_dinput = OP(dropped_dinput),
    .scale_columns = OP(scale_columns),
    .dot_columns = OP(dot_columns),
    .matrices_multiply = OP(matrices_multiply),
    .row_squares = OP(row_squares),
    .magnitude_scale = OP(magnitude_scale),
    .dispatch = OP(dispatch),
    .gather_tokens = OP(gather_tokens),
    .combine_slots = OP(combine_slots),
    .gather_rows = OP(gather_rows),
    .scatter_rows = OP(scatter_rows),
    .place_rows = OP(place_rows),
    .swiglu_forward = OP(swiglu_forward),
    .swiglu_backward = OP(swiglu_backward),
    .swiglu_dot = OP(swiglu_dot),
    .expert_up = OP(expert_up),
    .expert_dhidden = OP(expert_dhidden),
    .expert_dweight = OP(expert_dweight),
    .cross_entropy = OP(cross_entropy),
    .sum = OP(sum),
    .sum_squares = OP(sum_squares),
    .grad_squares = OP(grad_squares),
    .clip_scale = OP(clip_scale),
    .adamw = OP(adamw),
};
