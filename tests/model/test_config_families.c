// The fields that the dense families, Qwen3-MoE and Mixtral have of their own, and what all families share
// beyond the plain ones: stretched rotations, windows, dense layers. Values are those of released models
// or of the configuration classes of transformers (4.57 and 5.23), read field by field.
#include "config_text.h"

static const char llama[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":128000,\"eos_token_id\":[128001,128008,128009],\"head_dim\":64,"
    "\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,"
    "\"intermediate_size\":8192,\"max_position_embeddings\":131072,\"mlp_bias\":false,"
    "\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":16,"
    "\"num_key_value_heads\":8,\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":"
    "{\"factor\":32.0,\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,"
    "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},\"rope_theta\":500000.0,"
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"vocab_size\":128256}";

static const char qwen2[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,"
    "\"eos_token_id\":151645,\"hidden_act\":\"silu\",\"hidden_size\":896,\"initializer_range\":"
    "0.02,\"intermediate_size\":4864,\"max_position_embeddings\":32768,\"max_window_layers\":21,"
    "\"model_type\":\"qwen2\",\"num_attention_heads\":14,\"num_hidden_layers\":24,"
    "\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
    "\"sliding_window\":32768,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\","
    "\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":151936}";

static const char qwen3[] =
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":151643,\"eos_token_id\":151645,\"head_dim\":128,\"hidden_act\":\"silu\","
    "\"hidden_size\":1024,\"initializer_range\":0.02,\"intermediate_size\":3072,"
    "\"max_position_embeddings\":40960,\"max_window_layers\":28,\"model_type\":\"qwen3\","
    "\"num_attention_heads\":16,\"num_hidden_layers\":28,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":1000000,\"sliding_window\":null,"
    "\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";

static const char mistral[] =
    "{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,"
    "\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,"
    "\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mistral\","
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":4096,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"vocab_size\":32000}";

static const char qwen3_moe[] =
    "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":"
    "0.0,\"bos_token_id\":151643,\"decoder_sparse_step\":1,\"eos_token_id\":151645,\"head_dim\":"
    "128,\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,"
    "\"intermediate_size\":6144,\"max_position_embeddings\":40960,\"max_window_layers\":48,"
    "\"mlp_only_layers\":[],\"model_type\":\"qwen3_moe\",\"moe_intermediate_size\":768,"
    "\"norm_topk_prob\":true,\"num_attention_heads\":32,\"num_experts\":128,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":48,\"num_key_value_heads\":4,"
    "\"output_router_logits\":false,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
    "\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.001,\"sliding_window\":null,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";

static const char mixtral[] =
    "{\"architectures\":[\"MixtralForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,"
    "\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mixtral\","
    "\"num_attention_heads\":32,\"num_experts_per_tok\":2,\"num_hidden_layers\":32,"
    "\"num_key_value_heads\":8,\"num_local_experts\":8,\"output_router_logits\":false,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.02,"
    "\"sliding_window\":null,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\","
    "\"use_cache\":true,\"vocab_size\":32000}";

static const char *const every[] = {llama, qwen2, qwen3, mistral, qwen3_moe, mixtral};
enum { EVERY = sizeof every / sizeof *every };

static int layers_with_experts(const struct model_config *c)
{
    int n = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        n += c->moe_layer[l];
    }
    return n;
}

static int layers_with_window(const struct model_config *c)
{
    int n = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        n += c->window_layer[l];
    }
    return n;
}

static void reads_dense_families(void **state)
{
    (void)state;
    struct model_config c = good(llama, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.dense_width == 8192 && c.head_dim == 64 && c.n_kv_heads == 8 && c.tied_head);
    assert_true(c.n_experts == 0 && layers_with_experts(&c) == 0 && c.qk_norm == QK_NORM_NONE);
    assert_false(c.qkv_bias || c.o_bias || c.dense_bias);
    assert_true(c.n_stop_ids == 3 && c.stop_ids[2] == 128009 && c.window == 0);

    c = good(qwen2, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.qkv_bias && !c.o_bias && c.head_dim == 64 && c.qk_norm == QK_NORM_NONE);
    assert_true(c.window == 0 && layers_with_window(&c) == 0);

    c = good(qwen3, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.qk_norm == QK_NORM_HEAD && c.head_dim == 128 && !c.qkv_bias);

    c = good(mistral, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.window == 4096 && layers_with_window(&c) == 32 && c.head_dim == 128);
    assert_false(c.qkv_bias || c.tied_head);
}

static void reads_families_with_experts(void **state)
{
    (void)state;
    struct model_config c = good(qwen3_moe, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.qk_norm == QK_NORM_HEAD && c.head_dim == 128 && c.renormalize_topk);
    assert_true(c.n_experts == 128 && c.experts_per_tok == 8 && c.expert_width == 768);
    assert_true(layers_with_experts(&c) == 48 && c.shared_width == 0 && c.window == 0);
    c = good(qwen3_moe, "{\"num_experts\":\"<remove>\",\"num_local_experts\":16}");
    assert_int_equal(c.n_experts, 16); // transformers 5 saves this one
    assert_false(good(qwen3_moe, "{\"norm_topk_prob\":\"<remove>\"}").renormalize_topk);
    c = good(qwen3_moe, "{\"decoder_sparse_step\":2,\"mlp_only_layers\":[1,5]}");
    assert_true(layers_with_experts(&c) == 22 && !c.moe_layer[0] && !c.moe_layer[5]);
    assert_true(c.moe_layer[3] && c.dense_width == 6144);

    c = good(mixtral, "{}");
    assert_string_equal(warnings, "");
    assert_true(c.n_experts == 8 && c.experts_per_tok == 2 && c.expert_width == 14336);
    assert_true(c.renormalize_topk && c.window == 0 && near(c.router_aux_loss_coef, 0.02));
    assert_int_equal(good(mixtral, "{\"router_jitter_noise\":0.0}").n_experts, 8);
    bad(mixtral, "{\"router_jitter_noise\":0.1}", "router_jitter_noise");
    bad(mixtral, "{\"num_local_experts\":0}", "num_local_experts");
    good(mixtral, "{\"norm_topk_prob\":false}"); // it has no such switch
    assert_non_null(strstr(warnings, "norm_topk_prob is not read"));
}

static void missing_fields_take_the_class_defaults(void **state)
{
    (void)state;
    static const char gone[] =
        "{\"rms_norm_eps\":\"<remove>\",\"rope_theta\":\"<remove>\",\"rope_scaling\":\"<remove>\","
        "\"num_key_value_heads\":\"<remove>\",\"head_dim\":\"<remove>\",\"sliding_window\":"
        "\"<remove>\",\"tie_word_embeddings\":\"<remove>\",\"max_position_embeddings\":"
        "\"<remove>\",\"bos_token_id\":\"<remove>\",\"eos_token_id\":\"<remove>\","
        "\"num_attention_heads\":32,\"num_local_experts\":\"<remove>\",\"num_experts\":"
        "\"<remove>\",\"router_aux_loss_coef\":\"<remove>\",\"architectures\":\"<remove>\"}";
    static const struct {
        double eps, theta;
        int64_t kv_heads, head_dim, window, positions, bos, experts;
    } want[EVERY] = {{1e-6, 1e4, 32, 64, 0, 2048, 1, 0},    {1e-6, 1e4, 32, 28, 0, 32768, -1, 0},
                     {1e-6, 1e4, 32, 128, 0, 32768, -1, 0}, {1e-6, 1e4, 8, 128, 4096, 131072, 1, 0},
                     {1e-6, 1e4, 4, 64, 0, 32768, -1, 128}, {1e-5, 1e6, 8, 128, 0, 131072, 1, 8}};
    for (int i = 0; i < EVERY; i++) {
        const struct model_config c = good(every[i], gone);
        assert_true(near(c.norm_eps, want[i].eps) && near(c.rope_theta, want[i].theta));
        assert_int_equal(c.n_kv_heads, want[i].kv_heads);
        assert_int_equal(c.head_dim, want[i].head_dim);
        assert_int_equal(c.window, want[i].window);
        assert_int_equal(c.max_positions, want[i].positions);
        assert_true(c.bos_id == want[i].bos && c.n_experts == want[i].experts);
        assert_true(near(c.init_std, 0.02) && c.rope_scaling.kind == ROPE_PLAIN && !c.tied_head);
    }
}

static void biases_are_each_familys_own(void **state)
{
    (void)state;
    struct model_config c = good(llama, "{\"attention_bias\":true,\"mlp_bias\":true}");
    assert_true(c.qkv_bias && c.o_bias && c.dense_bias);
    c = good(qwen3, "{\"attention_bias\":true}");
    assert_true(c.qkv_bias && c.o_bias);
    c = good(qwen3_moe, "{\"attention_bias\":true}");
    assert_true(c.qkv_bias && c.o_bias);
    c = good(qwen2, "{\"attention_bias\":false}"); // always there
    assert_true(c.qkv_bias && strstr(warnings, "attention_bias is not read"));
    good(mistral, "{\"mlp_bias\":true}");
    assert_non_null(strstr(warnings, "mlp_bias is not read"));
}

static void windows_are_in_the_layers_that_the_class_says(void **state)
{
    (void)state;
    struct model_config c = good(mistral, "{\"sliding_window\":null}");
    assert_true(c.window == 0 && layers_with_window(&c) == 0);
    c = good(mixtral, "{\"sliding_window\":512}");
    assert_true(c.window == 512 && layers_with_window(&c) == 32);
    c = good(qwen3_moe, "{\"sliding_window\":512}"); // switched off
    assert_int_equal(c.window, 0);
    c = good(qwen3_moe, "{\"sliding_window\":512,\"use_sliding_window\":true}");
    assert_true(c.window == 512 && layers_with_window(&c) == 48);
    c = good(qwen2, "{\"use_sliding_window\":true}");
    assert_true(c.window == 32768 && layers_with_window(&c) == 3 && !c.window_layer[20]);
    assert_true(c.window_layer[21]);
    c = good(qwen2, "{\"use_sliding_window\":true,\"max_window_layers\":24}");
    assert_int_equal(c.window, 0);
    c = good(qwen2, "{\"num_hidden_layers\":3,\"use_sliding_window\":true,\"layer_types\":"
                    "[\"sliding_attention\",\"full_attention\",\"sliding_attention\"]}");
    assert_true(c.window_layer[0] && !c.window_layer[1] && c.window_layer[2]);

    bad(qwen3, "{\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}",
        "no sliding_window");
    bad(qwen3, "{\"num_hidden_layers\":1,\"layer_types\":[\"chunked_attention\"]}",
        "expected full_attention or sliding_attention");
    bad(qwen3, "{\"use_sliding_window\":1}", "use_sliding_window");
    bad(qwen2, "{\"use_sliding_window\":true,\"max_window_layers\":-1}", "max_window_layers");
    bad(mistral, "{\"sliding_window\":0}", "sliding_window");
    bad(mistral, "{\"sliding_window\":4096.5}", "sliding_window");
    bad(mistral, "{\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}",
        "layer_types: sliding_attention");
    bad(llama, "{\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}",
        "layer_types: sliding_attention");
}

static void rotations_are_stretched(void **state)
{
    (void)state;
    struct rope_scaling s = good(llama, "{}").rope_scaling;
    assert_true(s.kind == ROPE_LLAMA3 && s.factor == 32 && s.original_positions == 8192);
    assert_true(s.low_factor == 1 && s.high_factor == 4);
    s = good(qwen2, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                    "\"original_max_position_embeddings\":32768}}")
            .rope_scaling;
    assert_true(s.kind == ROPE_YARN && s.beta_fast == 32 && s.beta_slow == 1 && s.truncate);
    assert_true(s.attention_factor > 1.1386 && s.attention_factor < 1.1387);
    assert_string_equal(warnings, ""); // factor x original is not max_position_embeddings, but 1 is
    s = good(mistral, "{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2}}").rope_scaling;
    assert_true(s.kind == ROPE_LINEAR && s.factor == 2);
    good(mistral, "{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"mscale\":1}}");
    assert_non_null(strstr(warnings, "mscale is not read: the type is linear"));
    good(qwen2, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                "\"original_max_position_embeddings\":16384}}");
    assert_non_null(strstr(warnings, "factor 4 counts"));
}

static void wrong_rotations_are_named(void **state)
{
    (void)state;
#define LLAMA3(rest) "{\"rope_scaling\":{\"rope_type\":\"llama3\"" rest "}}"
    bad(llama, LLAMA3(""), "factor");
    bad(llama, LLAMA3(",\"factor\":0"), "factor");
    bad(llama, LLAMA3(",\"factor\":8,\"high_freq_factor\":4"), "low_freq_factor");
    bad(llama, LLAMA3(",\"factor\":8,\"low_freq_factor\":1"), "high_freq_factor");
    bad(llama, LLAMA3(",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4"),
        "more than low_freq_factor 4");
    bad(llama,
        LLAMA3(",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
               "\"original_max_position_embeddings\":0"),
        "original_max_position_embeddings");
    bad(llama, "{\"original_max_position_embeddings\":-1}", "original_max_position_embeddings");
    bad(llama, "{\"rope_scaling\":{\"type\":\"linear\"}}", "factor");
    bad(llama, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", "factor");
    bad(llama, "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
        "type dynamic is not implemented, expected default, linear, llama3 or yarn");
    bad(qwen2, "{\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
        "yarn needs more than 1");
    bad(qwen2, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"truncate\":1}}", "truncate");
    bad(llama, "{\"rope_scaling\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}}",
        "partial_rotary_factor");
}

static void sizes_are_checked(void **state)
{
    (void)state;
    for (int i = 0; i < EVERY; i++) {
        if (every[i] != qwen3_moe) {
            bad(every[i], "{\"intermediate_size\":\"<remove>\"}", "intermediate_size");
        }
        bad(every[i], "{\"intermediate_size\":0}", "intermediate_size");
        bad(every[i], "{\"num_key_value_heads\":3}", "num_key_value_heads");
        bad(every[i], "{\"hidden_act\":\"gelu\"}", "hidden_act");
        bad(every[i], "{\"quantization_config\":{\"bits\":4}}", "quantization_config");
    }
    bad(qwen3_moe, "{\"moe_intermediate_size\":\"<remove>\"}", "moe_intermediate_size");
    bad(mixtral, "{\"hidden_size\":16777216,\"intermediate_size\":16777216,\"head_dim\":2}",
        "2^50");
    bad(qwen3_moe, "{\"num_experts_per_tok\":129}", "num_experts_per_tok 129");
    bad(mixtral, "{\"num_experts_per_tok\":\"<remove>\"}", "num_experts_per_tok");
    bad(llama, "{\"model_type\":\"mistral\"}", "model_type mistral");
}

static void names_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        enum role role;
        const char *name;
    } want[] = {
        {ROLE_Q, "model.layers.3.self_attn.q_proj.weight"},
        {ROLE_ROUTER, "model.layers.3.block_sparse_moe.gate.weight"},
        {ROLE_EXPERT_GATE, "model.layers.3.block_sparse_moe.experts.7.w1.weight"},
        {ROLE_EXPERT_UP, "model.layers.3.block_sparse_moe.experts.7.w3.weight"},
        {ROLE_EXPERT_DOWN, "model.layers.3.block_sparse_moe.experts.7.w2.weight"},
        {ROLE_ROUTER_FUSED, "model.layers.3.mlp.gate.weight"},
        {ROLE_EXPERTS_GATE_UP, "model.layers.3.mlp.experts.gate_up_proj"},
        {ROLE_EXPERTS_DOWN, "model.layers.3.mlp.experts.down_proj"},
    };
    const struct family *family;
    struct model_config c;
    struct error err;
    char name[192];
    check_ok(family_parse_config(&family, &c, mixtral, strlen(mixtral), "config.json", &err), &err);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        family_name(name, sizeof name, family, want[i].role, 3, 7);
        assert_string_equal(name, want[i].name);
    }
}

int main(void)
{
    log_set_sink(keep_warning, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_dense_families),
        cmocka_unit_test(reads_families_with_experts),
        cmocka_unit_test(missing_fields_take_the_class_defaults),
        cmocka_unit_test(biases_are_each_familys_own),
        cmocka_unit_test(windows_are_in_the_layers_that_the_class_says),
        cmocka_unit_test(rotations_are_stretched),
        cmocka_unit_test(wrong_rotations_are_named),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(names_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
