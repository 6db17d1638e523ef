// model/config.h - the shape of one model, as numbers and features. No field names a family:
// families.c maps "OlmoeForCausalLM" and friends onto these, so forward and backward never ask which
// family they run. Everything here is fixed once the checkpoint is open.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { MAX_LAYERS = 512, MAX_EXPERTS = 4096, MAX_STOP_IDS = 16 };

// The sections of a backward pass (base/leaf.h), which comes by them in descending order: the head, then of
// each layer the MLP and the attention, at last the embedding.
enum { SECTION_EMBEDDING = 1, SECTION_BLOCKS };
static inline int64_t section_of(int64_t layer, bool mlp)
{
    return SECTION_BLOCKS + 2 * layer + mlp;
}
static inline int64_t section_of_head(int64_t n_layers)
{
    return section_of(n_layers, false);
}

enum rope_kind { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

// How a rotation is stretched beyond the positions of pre-training (model/rope.c has the formulas).
struct rope_scaling {
    enum rope_kind kind;
    double factor;
    double original_positions;      // llama3, yarn: of pre-training
    double low_factor, high_factor; // llama3
    double beta_fast, beta_slow;    // yarn
    double attention_factor;        // yarn: of cosines and sines
    bool truncate;                  // yarn: whole numbers bound the ramp
};

enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL }; // over D, or over all of H*D

struct model_config {
    char architecture[64];   // for messages and exports only
    int64_t width;           // C
    int64_t n_layers;        // L
    int64_t n_heads;         // H
    int64_t n_kv_heads;      // G, divides H
    int64_t head_dim;        // D, need not be C/H
    int64_t vocab;           // V, as stored, padding included
    int64_t max_positions;   // max_position_embeddings
    int64_t n_experts;       // E; 0 makes every layer dense
    int64_t experts_per_tok; // K <= E
    int64_t expert_width;    // F
    int64_t shared_width;    // width of the always-on expert, 0 = none
    int64_t dense_width;     // width of the MLP of dense layers
    bool shared_gate;        // the shared expert's output is scaled by sigmoid(x . gate)
    bool moe_layer[MAX_LAYERS];
    bool renormalize_topk; // divide the K kept scores by their sum
    float norm_eps;        // added to the mean square, not to its root
    float rope_theta;
    struct rope_scaling rope_scaling;
    int64_t window; // keys that a row sees in the layers below, its own the last; 0: all
    bool window_layer[MAX_LAYERS];
    enum qk_norm qk_norm;
    float clip_qkv; // 0: none; else q, k, v are clamped to +-clip
    bool qkv_bias, o_bias;
    bool dense_bias; // of the MLP of dense layers
    bool tied_head;
    float router_aux_loss_coef;     // of the checkpoint; used by routing aux
    float init_std;                 // initializer_range
    float attention_dropout;        // not applied; reading one above 0 warns
    int64_t bos_id, eos_id, pad_id; // -1: none; eos_id: the first of config.json's
    // What ends a generated text: eos of generation_config.json, else of config.json.
    int64_t stop_ids[MAX_STOP_IDS];
    int n_stop_ids;
};
