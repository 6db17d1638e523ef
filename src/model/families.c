// model/families.c - the table of families: see families.h. Adding a family is adding a row (and a list
// of names or fields where it has its own). If a model cannot be a row, a feature comes to model_config
// first. Checked against the configuration and model classes of transformers 4.57 and 5.23.
#include "model/family.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LAYER "model.layers.{l}."
#define FIELD(member) offsetof(struct model_config, member)
static const double max_size = 1 << 24; // products of three sizes stay far below 2^63

// clang-format off
// {l}: layer, {e}: expert. What most families call their tensors.
static const char *const usual_names[ROLE_COUNT] = {
    [ROLE_EMBEDDING]       = "model.embed_tokens.weight",
    [ROLE_FINAL_NORM]      = "model.norm.weight",
    [ROLE_HEAD]            = "lm_head.weight",
    [ROLE_INPUT_NORM]      = LAYER "input_layernorm.weight",
    [ROLE_Q]               = LAYER "self_attn.q_proj.weight",
    [ROLE_K]               = LAYER "self_attn.k_proj.weight",
    [ROLE_V]               = LAYER "self_attn.v_proj.weight",
    [ROLE_O]               = LAYER "self_attn.o_proj.weight",
    [ROLE_Q_BIAS]          = LAYER "self_attn.q_proj.bias",
    [ROLE_K_BIAS]          = LAYER "self_attn.k_proj.bias",
    [ROLE_V_BIAS]          = LAYER "self_attn.v_proj.bias",
    [ROLE_O_BIAS]          = LAYER "self_attn.o_proj.bias",
    [ROLE_Q_NORM]          = LAYER "self_attn.q_norm.weight",
    [ROLE_K_NORM]          = LAYER "self_attn.k_norm.weight",
    [ROLE_POST_NORM]       = LAYER "post_attention_layernorm.weight",
    [ROLE_GATE]            = LAYER "mlp.gate_proj.weight",
    [ROLE_UP]              = LAYER "mlp.up_proj.weight",
    [ROLE_DOWN]            = LAYER "mlp.down_proj.weight",
    [ROLE_GATE_BIAS]       = LAYER "mlp.gate_proj.bias",
    [ROLE_UP_BIAS]         = LAYER "mlp.up_proj.bias",
    [ROLE_DOWN_BIAS]       = LAYER "mlp.down_proj.bias",
    [ROLE_ROUTER]          = LAYER "mlp.gate.weight",
    [ROLE_ROUTER_FUSED]    = LAYER "mlp.gate.weight",
    [ROLE_EXPERT_GATE]     = LAYER "mlp.experts.{e}.gate_proj.weight",
    [ROLE_EXPERT_UP]       = LAYER "mlp.experts.{e}.up_proj.weight",
    [ROLE_EXPERT_DOWN]     = LAYER "mlp.experts.{e}.down_proj.weight",
    [ROLE_EXPERTS_GATE_UP] = LAYER "mlp.experts.gate_up_proj",
    [ROLE_EXPERTS_DOWN]    = LAYER "mlp.experts.down_proj",
    [ROLE_SHARED_GATE]     = LAYER "mlp.shared_expert.gate_proj.weight",
    [ROLE_SHARED_UP]       = LAYER "mlp.shared_expert.up_proj.weight",
    [ROLE_SHARED_DOWN]     = LAYER "mlp.shared_expert.down_proj.weight",
    [ROLE_SHARED_SCALE]    = LAYER "mlp.shared_expert_gate.weight",
};

// Where experts are one by one (transformers 4); fused ones have the usual names.
static const char *const mixtral_names[ROLE_COUNT] = {
    [ROLE_ROUTER]          = LAYER "block_sparse_moe.gate.weight",
    [ROLE_EXPERT_GATE]     = LAYER "block_sparse_moe.experts.{e}.w1.weight",
    [ROLE_EXPERT_UP]       = LAYER "block_sparse_moe.experts.{e}.w3.weight",
    [ROLE_EXPERT_DOWN]     = LAYER "block_sparse_moe.experts.{e}.w2.weight",
};

#define SIZE(key, member, required, max) {key, FIELD(member), 1, max, FIELD_SIZE, required}
#define REAL(key, member, min, max)      {key, FIELD(member), min, max, FIELD_REAL, false}
#define FLAG(key, member)                {key, FIELD(member), 0, 0, FIELD_FLAG, false}
#define CODE(key)                        {key, 0, 0, 0, FIELD_CODE, false}
#define OFF(key)                         {key, 0, 0, 0, FIELD_OFF, false}
#define HARMLESS(key)                    {key, 0, 0, 0, FIELD_HARMLESS, false}
#define END                              {NULL, 0, 0, 0, FIELD_CODE, false}

const struct config_field common_fields[] = {
    CODE("architectures"), CODE("model_type"), CODE("hidden_act"),
    SIZE("vocab_size", vocab, true, max_size),
    SIZE("hidden_size", width, true, max_size),
    SIZE("num_hidden_layers", n_layers, true, MAX_LAYERS),
    SIZE("num_attention_heads", n_heads, true, max_size),
    CODE("num_key_value_heads"),
    SIZE("head_dim", head_dim, false, max_size),
    SIZE("max_position_embeddings", max_positions, false, 1 << 30),
    REAL("rms_norm_eps", norm_eps, 0, 1),
    REAL("initializer_range", init_std, 0, 1000),
    REAL("attention_dropout", attention_dropout, 0, 1),
    FLAG("tie_word_embeddings", tied_head),
    CODE("rope_theta"), CODE("rope_scaling"), CODE("rope_parameters"), CODE("partial_rotary_factor"),
    CODE("original_max_position_embeddings"),
    CODE("layer_types"), CODE("output_router_logits"), CODE("auto_map"),
    CODE("bos_token_id"), CODE("eos_token_id"), CODE("pad_token_id"),

    OFF("quantization_config"), OFF("compression_config"), OFF("per_layer_config"),
    OFF("is_encoder_decoder"), OFF("add_cross_attention"), OFF("pruned_heads"),
    OFF("attention_chunk_size"), OFF("num_kv_shared_layers"),

    // How weights are loaded, what is returned, and labels of classifiers:
    HARMLESS("dtype"), HARMLESS("torch_dtype"), HARMLESS("transformers_version"), HARMLESS("use_cache"),
    HARMLESS("name_or_path"), HARMLESS("_name_or_path"), HARMLESS("_commit_hash"),
    HARMLESS("output_attentions"), HARMLESS("output_hidden_states"), HARMLESS("return_dict"),
    HARMLESS("torchscript"), HARMLESS("use_bfloat16"), HARMLESS("tf_legacy_loss"),
    HARMLESS("id2label"), HARMLESS("label2id"), HARMLESS("num_labels"), HARMLESS("problem_type"),
    HARMLESS("finetuning_task"), HARMLESS("task_specific_params"), HARMLESS("tokenizer_class"),
    HARMLESS("prefix"), HARMLESS("cross_attention_hidden_size"), HARMLESS("tie_encoder_decoder"),
    HARMLESS("chunk_size_feed_forward"), HARMLESS("gradient_checkpointing"), HARMLESS("is_decoder"),
    HARMLESS("pretraining_tp"), HARMLESS("sep_token_id"), HARMLESS("decoder_start_token_id"),
    HARMLESS("attn_implementation"), HARMLESS("_attn_implementation"),
    HARMLESS("_attn_implementation_autoset"), HARMLESS("experts_implementation"),
    HARMLESS("unsloth_version"), HARMLESS("unsloth_fixed"),
    // Generation settings of old files, dropped by transformers 5 as well:
    HARMLESS("max_length"), HARMLESS("min_length"), HARMLESS("do_sample"), HARMLESS("early_stopping"),
    HARMLESS("num_beams"), HARMLESS("num_beam_groups"), HARMLESS("diversity_penalty"),
    HARMLESS("temperature"), HARMLESS("top_k"), HARMLESS("top_p"), HARMLESS("typical_p"),
    HARMLESS("repetition_penalty"), HARMLESS("length_penalty"), HARMLESS("no_repeat_ngram_size"),
    HARMLESS("encoder_no_repeat_ngram_size"), HARMLESS("bad_words_ids"),
    HARMLESS("num_return_sequences"), HARMLESS("output_scores"), HARMLESS("return_dict_in_generate"),
    HARMLESS("forced_bos_token_id"), HARMLESS("forced_eos_token_id"),
    HARMLESS("remove_invalid_values"), HARMLESS("exponential_decay_length_penalty"),
    HARMLESS("suppress_tokens"), HARMLESS("begin_suppress_tokens"),
    END,
};

static const struct config_field olmoe_fields[] = {
    SIZE("intermediate_size", expert_width, true, max_size),
    SIZE("num_experts", n_experts, false, MAX_EXPERTS),
    SIZE("num_local_experts", n_experts, false, MAX_EXPERTS), // an alias in the class's attribute_map
    SIZE("num_experts_per_tok", experts_per_tok, true, MAX_EXPERTS),
    FLAG("norm_topk_prob", renormalize_topk),
    FLAG("attention_bias", qkv_bias), FLAG("attention_bias", o_bias),
    REAL("clip_qkv", clip_qkv, 1e-30, 1e30), // 0 would clamp everything to 0
    REAL("router_aux_loss_coef", router_aux_loss_coef, 0, 1e30),
    OFF("sliding_window"), // not the class's own, yet its attention and its cache read it
    END,
};

static const struct config_field qwen2_moe_fields[] = {
    SIZE("intermediate_size", dense_width, false, max_size),
    SIZE("moe_intermediate_size", expert_width, true, max_size),
    SIZE("shared_expert_intermediate_size", shared_width, true, max_size),
    {"num_experts", FIELD(n_experts), 0, MAX_EXPERTS, FIELD_SIZE, true},
    SIZE("num_experts_per_tok", experts_per_tok, true, MAX_EXPERTS),
    FLAG("norm_topk_prob", renormalize_topk),
    FLAG("qkv_bias", qkv_bias),
    REAL("router_aux_loss_coef", router_aux_loss_coef, 0, 1e30),
    CODE("decoder_sparse_step"), CODE("mlp_only_layers"),
    OFF("use_sliding_window"), HARMLESS("sliding_window"), HARMLESS("max_window_layers"),
    END,
};

static const struct config_field llama_fields[] = {
    SIZE("intermediate_size", dense_width, true, max_size),
    FLAG("attention_bias", qkv_bias), FLAG("attention_bias", o_bias), FLAG("mlp_bias", dense_bias),
    END,
};

static const struct config_field qwen2_fields[] = {
    SIZE("intermediate_size", dense_width, true, max_size),
    CODE("use_sliding_window"), CODE("sliding_window"), CODE("max_window_layers"),
    END,
};

static const struct config_field qwen3_fields[] = {
    SIZE("intermediate_size", dense_width, true, max_size),
    FLAG("attention_bias", qkv_bias), FLAG("attention_bias", o_bias),
    CODE("use_sliding_window"), CODE("sliding_window"), CODE("max_window_layers"),
    END,
};

static const struct config_field mistral_fields[] = {
    SIZE("intermediate_size", dense_width, true, max_size),
    CODE("sliding_window"),
    END,
};

static const struct config_field qwen3_moe_fields[] = {
    SIZE("intermediate_size", dense_width, false, max_size),
    SIZE("moe_intermediate_size", expert_width, true, max_size),
    {"num_experts", FIELD(n_experts), 0, MAX_EXPERTS, FIELD_SIZE, false},
    {"num_local_experts", FIELD(n_experts), 0, MAX_EXPERTS, FIELD_SIZE, false}, // of transformers 5
    SIZE("num_experts_per_tok", experts_per_tok, true, MAX_EXPERTS),
    FLAG("norm_topk_prob", renormalize_topk),
    FLAG("attention_bias", qkv_bias), FLAG("attention_bias", o_bias),
    REAL("router_aux_loss_coef", router_aux_loss_coef, 0, 1e30),
    CODE("decoder_sparse_step"), CODE("mlp_only_layers"),
    CODE("use_sliding_window"), CODE("sliding_window"), HARMLESS("max_window_layers"),
    END,
};

static const struct config_field mixtral_fields[] = {
    SIZE("intermediate_size", expert_width, true, max_size),
    SIZE("num_experts", n_experts, false, MAX_EXPERTS), // an alias in the class's attribute_map
    SIZE("num_local_experts", n_experts, false, MAX_EXPERTS),
    SIZE("num_experts_per_tok", experts_per_tok, true, MAX_EXPERTS),
    REAL("router_aux_loss_coef", router_aux_loss_coef, 0, 1e30),
    CODE("sliding_window"),
    OFF("router_jitter_noise"), // noise on the block's input in training
    END,
};

static const struct family families[] = {
    {"OlmoeForCausalLM", "olmoe", NULL, olmoe_fields, MLP_SPARSE, WINDOW_NEVER,
     {.qk_norm = QK_NORM_FULL, .max_positions = 4096, .norm_eps = 1e-5f, .rope_theta = 10000,
      .init_std = 0.02f, .router_aux_loss_coef = 0.01f, .bos_id = -1, .eos_id = 50279, .pad_id = 1}},
    {"Qwen2MoeForCausalLM", "qwen2_moe", NULL, qwen2_moe_fields, MLP_CHOSEN, WINDOW_NEVER,
     {.qk_norm = QK_NORM_NONE, .n_kv_heads = 16, .max_positions = 32768, .norm_eps = 1e-6f,
      .rope_theta = 10000, .init_std = 0.02f, .router_aux_loss_coef = 0.001f, .qkv_bias = true,
      .shared_gate = true, .bos_id = -1, .eos_id = -1, .pad_id = -1}},
    {"Qwen3MoeForCausalLM", "qwen3_moe", NULL, qwen3_moe_fields, MLP_CHOSEN, WINDOW_SWITCH,
     {.qk_norm = QK_NORM_HEAD, .n_kv_heads = 4, .n_experts = 128, .dense_width = 6144,
      .max_positions = 32768, .norm_eps = 1e-6f, .rope_theta = 10000, .window = 4096,
      .init_std = 0.02f, .router_aux_loss_coef = 0.001f, .bos_id = -1, .eos_id = -1, .pad_id = -1}},
    {"MixtralForCausalLM", "mixtral", mixtral_names, mixtral_fields, MLP_SPARSE, WINDOW_ALWAYS,
     {.n_kv_heads = 8, .n_experts = 8, .max_positions = 131072, .norm_eps = 1e-5f,
      .rope_theta = 1000000, .init_std = 0.02f, .router_aux_loss_coef = 0.001f,
      .renormalize_topk = true, .bos_id = 1, .eos_id = 2, .pad_id = -1}},
    {"LlamaForCausalLM", "llama", NULL, llama_fields, MLP_DENSE, WINDOW_NEVER,
     {.max_positions = 2048, .norm_eps = 1e-6f, .rope_theta = 10000, .init_std = 0.02f,
      .bos_id = 1, .eos_id = 2, .pad_id = -1}},
    {"Qwen2ForCausalLM", "qwen2", NULL, qwen2_fields, MLP_DENSE, WINDOW_LAYERS,
     {.n_kv_heads = 32, .max_positions = 32768, .norm_eps = 1e-6f, .rope_theta = 10000,
      .window = 4096, .init_std = 0.02f, .qkv_bias = true, .bos_id = -1, .eos_id = -1,
      .pad_id = -1}},
    {"Qwen3ForCausalLM", "qwen3", NULL, qwen3_fields, MLP_DENSE, WINDOW_LAYERS,
     {.qk_norm = QK_NORM_HEAD, .n_kv_heads = 32, .head_dim = 128, .max_positions = 32768,
      .norm_eps = 1e-6f, .rope_theta = 10000, .window = 4096, .init_std = 0.02f, .bos_id = -1,
      .eos_id = -1, .pad_id = -1}},
    {"MistralForCausalLM", "mistral", NULL, mistral_fields, MLP_DENSE, WINDOW_ALWAYS,
     {.n_kv_heads = 8, .max_positions = 131072, .norm_eps = 1e-6f, .rope_theta = 10000,
      .window = 4096, .init_std = 0.02f, .bos_id = 1, .eos_id = 2, .pad_id = -1}},
};
// clang-format on
enum { FAMILIES = sizeof families / sizeof *families };

const struct family *family_by_architecture(const char *architecture)
{
    for (int i = 0; i < FAMILIES; i++) {
        if (!strcmp(families[i].architecture, architecture)) return &families[i];
    }
    return NULL;
}

const struct family *family_by_model_type(const char *model_type)
{
    for (int i = 0; i < FAMILIES; i++) {
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    }
    return NULL;
}

const char family_auto_class[] = "AutoModelForCausalLM";

const char *family_remote_class(const char *architecture)
{
    static const char *const classes[][2] = {
        {"OlmoeForCausalLM", "MoetuneOlmoeForCausalLM"},
        {"Qwen2MoeForCausalLM", "MoetuneQwen2MoeForCausalLM"},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!strcmp(classes[i][0], architecture)) return classes[i][1];
    }
    return NULL;
}

const char *family_architectures(void)
{
    static _Thread_local char text[64 * FAMILIES];
    size_t n = 0;
    for (int i = 0; i < FAMILIES; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? ", " : "",
                              families[i].architecture);
    }
    return text;
}

void family_name(char *out, size_t size, const struct family *f, enum role r, int64_t layer,
                 int64_t expert)
{
    size_t n = 0;
    *out = 0;
    const char *own = f->names ? f->names[r] : NULL;
    for (const char *t = own ? own : usual_names[r]; t && *t && n + 1 < size;) {
        if (t[0] == '{') { // {l} or {e}
            const int64_t number = t[1] == 'l' ? layer : expert;
            const int written = snprintf(out + n, size - n, "%" PRId64, number);
            n += written > 0 ? (size_t)written : 0;
            t += 3;
        } else {
            out[n++] = *t++;
            out[n] = 0;
        }
    }
}
