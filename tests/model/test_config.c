// Every field of config.json that changes a result is honoured or refused by its name. Each case changes
// one field of a whole, valid config; the meaning of the fields is that of the configuration classes of
// transformers (models/olmoe, models/qwen2_moe), read field by field.
#include "config_text.h"

#include "base/file.h"
#include "base/mem.h"

static const char olmoe[] =
    "{\"architectures\":[\"OlmoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"clip_qkv\":null,\"eos_token_id\":50279,\"hidden_act\":\"silu\",\"hidden_size\":2048,"
    "\"initializer_range\":0.02,\"intermediate_size\":1024,\"max_position_embeddings\":4096,"
    "\"model_type\":\"olmoe\",\"norm_topk_prob\":false,\"num_attention_heads\":16,\"num_experts\":"
    "64,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":16,\"num_key_value_heads\":16,"
    "\"output_router_logits\":false,\"pad_token_id\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":"
    "null,"
    "\"rope_theta\":10000.0,\"router_aux_loss_coef\":0.01,\"tie_word_embeddings\":false,"
    "\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.43.0\",\"use_cache\":true,"
    "\"vocab_size\":50304}";

static const char qwen[] =
    "{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":"
    "151643,"
    "\"decoder_sparse_step\":1,\"eos_token_id\":151643,\"hidden_act\":\"silu\",\"hidden_size\":"
    "2048,"
    "\"initializer_range\":0.02,\"intermediate_size\":5632,\"max_position_embeddings\":8192,"
    "\"max_window_layers\":21,\"mlp_only_layers\":[],\"model_type\":\"qwen2_moe\","
    "\"moe_intermediate_size\":1408,\"norm_topk_prob\":false,\"num_attention_heads\":16,"
    "\"num_experts\":60,\"num_experts_per_tok\":4,\"num_hidden_layers\":24,"
    "\"num_key_value_heads\":16,\"output_router_logits\":false,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.001,"
    "\"shared_expert_intermediate_size\":5632,\"sliding_window\":32768,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";

static void reads_olmoe(void **state)
{
    (void)state;
    const struct model_config c = good(olmoe, "{}");
    assert_string_equal(warnings, "");
    assert_string_equal(c.architecture, "OlmoeForCausalLM");
    assert_int_equal(c.width, 2048);
    assert_int_equal(c.n_layers, 16);
    assert_int_equal(c.n_heads, 16);
    assert_int_equal(c.n_kv_heads, 16);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.vocab, 50304);
    assert_int_equal(c.max_positions, 4096);
    assert_int_equal(c.n_experts, 64);
    assert_int_equal(c.experts_per_tok, 8);
    assert_int_equal(c.expert_width, 1024);
    assert_int_equal(c.shared_width, 0);
    assert_false(c.shared_gate || c.renormalize_topk || c.qkv_bias || c.o_bias || c.tied_head);
    assert_true(c.qk_norm == QK_NORM_FULL);
    assert_true(near(c.norm_eps, 1e-5) && near(c.rope_theta, 10000) && near(c.clip_qkv, 0));
    assert_true(near(c.router_aux_loss_coef, 0.01) && near(c.init_std, 0.02));
    assert_true(c.bos_id == -1 && c.eos_id == 50279 && c.pad_id == 1);
    assert_true(c.n_stop_ids == 1 && c.stop_ids[0] == 50279);
    for (int l = 0; l < 16; l++) {
        assert_true(c.moe_layer[l]);
    }
}

static void reads_qwen(void **state)
{
    (void)state;
    const struct model_config c = good(qwen, "{}");
    assert_string_equal(warnings, "");
    assert_string_equal(c.architecture, "Qwen2MoeForCausalLM");
    assert_int_equal(c.expert_width, 1408);
    assert_int_equal(c.shared_width, 5632);
    assert_int_equal(c.dense_width, 5632);
    assert_int_equal(c.n_experts, 60);
    assert_true(c.shared_gate && c.qkv_bias && !c.o_bias);
    assert_true(c.qk_norm == QK_NORM_NONE);
    assert_true(near(c.norm_eps, 1e-6) && near(c.rope_theta, 1e6));
    assert_true(c.bos_id == 151643 && c.eos_id == 151643 && c.pad_id == -1);
}

static void missing_fields_take_the_class_defaults(void **state)
{
    (void)state;
    struct model_config c =
        good(olmoe, "{\"attention_bias\":\"<remove>\",\"rms_norm_eps\":\"<remove>\","
                    "\"rope_theta\":\"<remove>\",\"rope_scaling\":\"<remove>\","
                    "\"num_key_value_heads\":\"<remove>\",\"router_aux_loss_coef\":\"<remove>\","
                    "\"pad_token_id\":\"<remove>\",\"eos_token_id\":\"<remove>\","
                    "\"initializer_range\":\"<remove>\",\"hidden_act\":\"<remove>\","
                    "\"norm_topk_prob\":\"<remove>\",\"tie_word_embeddings\":\"<remove>\","
                    "\"max_position_embeddings\":\"<remove>\",\"architectures\":\"<remove>\"}");
    assert_true(near(c.norm_eps, 1e-5) && near(c.rope_theta, 10000));
    assert_true(near(c.router_aux_loss_coef, 0.01) && near(c.init_std, 0.02));
    assert_true(c.pad_id == 1 && c.eos_id == 50279 && c.stop_ids[0] == 50279 && c.n_stop_ids == 1);
    assert_int_equal(c.n_kv_heads, 16);
    assert_int_equal(c.max_positions, 4096);

    c = good(qwen,
             "{\"rms_norm_eps\":\"<remove>\",\"rope_theta\":\"<remove>\","
             "\"num_key_value_heads\":\"<remove>\",\"router_aux_loss_coef\":\"<remove>\","
             "\"decoder_sparse_step\":\"<remove>\",\"mlp_only_layers\":null,"
             "\"eos_token_id\":\"<remove>\",\"bos_token_id\":null,\"model_type\":\"<remove>\","
             "\"num_attention_heads\":32,\"use_sliding_window\":\"<remove>\"}");
    assert_true(near(c.norm_eps, 1e-6) && near(c.rope_theta, 10000) && c.qkv_bias);
    assert_true(near(c.router_aux_loss_coef, 0.001) && c.moe_layer[0]);
    assert_true(c.bos_id == -1 && c.eos_id == -1 && c.n_stop_ids == 0);
    assert_int_equal(c.n_kv_heads, 16); // the class's number, not that of the heads
}

static void every_field_is_honoured(void **state)
{
    (void)state;
    struct model_config c = good(olmoe, "{\"attention_bias\":true}");
    assert_true(c.qkv_bias && c.o_bias);
    assert_true(near(good(olmoe, "{\"clip_qkv\":8}").clip_qkv, 8));
    assert_true(good(olmoe, "{\"norm_topk_prob\":true}").renormalize_topk);
    assert_true(good(olmoe, "{\"tie_word_embeddings\":true}").tied_head);
    assert_true(near(good(olmoe, "{\"rope_theta\":5e5}").rope_theta, 5e5));
    assert_true(near(good(olmoe, "{\"attention_dropout\":0.1}").attention_dropout, 0.1));
    assert_int_equal(good(olmoe, "{\"num_key_value_heads\":4}").n_kv_heads, 4);
    assert_int_equal(good(olmoe, "{\"num_key_value_heads\":null}").n_kv_heads, 16);
    assert_int_equal(good(olmoe, "{\"head_dim\":128}").head_dim, 128);
    c = good(olmoe, "{\"num_experts\":\"<remove>\",\"num_local_experts\":32}");
    assert_int_equal(c.n_experts, 32);
    good(olmoe, "{\"hidden_act\":\"swish\",\"sliding_window\":null,\"quantization_config\":null}");

    assert_false(good(qwen, "{\"qkv_bias\":false}").qkv_bias);
    assert_int_equal(good(qwen, "{\"head_dim\":96}").head_dim, 96);
    assert_int_equal(good(qwen, "{\"num_attention_heads\":12,\"num_key_value_heads\":4}").head_dim,
                     170);
    good(qwen, "{\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"full_attention\"]}");

    c = good(qwen, "{\"eos_token_id\":[151645,151643],\"pad_token_id\":151643}");
    assert_true(c.eos_id == 151645 && c.n_stop_ids == 2 && c.stop_ids[1] == 151643);
    assert_true(c.pad_id == 151643);
}

static void layers_are_dense_or_sparse(void **state)
{
    (void)state;
    struct model_config c = good(qwen, "{\"num_hidden_layers\":6,\"decoder_sparse_step\":2,"
                                       "\"mlp_only_layers\":[3,99]}");
    static const bool want[] = {false, true, false, false, false, true};
    for (int l = 0; l < 6; l++) {
        assert_int_equal(c.moe_layer[l], want[l]);
    }
    c = good(qwen, "{\"num_experts\":0}");
    assert_false(c.moe_layer[0] || c.moe_layer[23]);
    good(qwen, "{\"intermediate_size\":\"<remove>\"}"); // no dense layer needs it
    bad(qwen, "{\"intermediate_size\":\"<remove>\",\"mlp_only_layers\":[0]}", "intermediate_size");
    bad(qwen, "{\"mlp_only_layers\":[\"0\"]}", "mlp_only_layers");
    bad(qwen, "{\"mlp_only_layers\":0}", "mlp_only_layers");
    bad(qwen, "{\"decoder_sparse_step\":0}", "decoder_sparse_step");
}

static void rotation_is_read_from_either_place(void **state)
{
    (void)state;
    struct model_config c = good(olmoe, "{\"rope_theta\":\"<remove>\",\"rope_parameters\":"
                                        "{\"rope_theta\":500000.0,\"rope_type\":\"default\"}}");
    assert_true(near(c.rope_theta, 500000));
    c = good(olmoe, "{\"rope_theta\":1234,\"rope_parameters\":{\"rope_type\":\"default\"}}");
    assert_true(near(c.rope_theta, 1234));
    c = good(olmoe, "{\"rope_theta\":1234,\"rope_parameters\":{\"rope_theta\":77}}");
    assert_true(near(c.rope_theta, 77)); // the dictionary is the stronger
    c = good(olmoe, "{\"rope_scaling\":{\"type\":\"default\",\"rope_theta\":88},"
                    "\"rope_parameters\":{\"rope_theta\":77}}");
    assert_true(near(c.rope_theta, 88)); // and rope_scaling the strongest
    good(olmoe,
         "{\"partial_rotary_factor\":1.0,\"rope_parameters\":{\"partial_rotary_factor\":1}}");
    assert_string_equal(warnings, "");

    bad(olmoe, "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
        "rope_scaling: type dynamic");
    bad(olmoe, "{\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":2}}", "longrope");
    bad(olmoe, "{\"rope_parameters\":{\"rope_type\":\"mrope\"}}", "rope_parameters: type mrope");
    bad(olmoe, "{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1}}}", "full_attention");
    bad(olmoe, "{\"rope_parameters\":{\"partial_rotary_factor\":0.5}}", "partial_rotary_factor");
    bad(olmoe, "{\"partial_rotary_factor\":0.5}", "partial_rotary_factor");
    bad(olmoe, "{\"rope_parameters\":[1]}", "rope_parameters");
    bad(olmoe, "{\"rope_theta\":0}", "rope_theta");
    bad(olmoe, "{\"rope_theta\":\"10000\"}", "rope_theta");
    good(olmoe, "{\"rope_parameters\":{\"rope_type\":\"default\",\"factor\":8}}");
    assert_non_null(strstr(warnings, "factor is not read"));
}

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    bad(olmoe, "{\"hidden_act\":\"gelu\"}", "hidden_act gelu");
    bad(olmoe, "{\"sliding_window\":4096}", "sliding_window");
    bad(qwen, "{\"use_sliding_window\":true}", "use_sliding_window");
    bad(qwen,
        "{\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
        "sliding_attention");
    bad(qwen, "{\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\"]}", "layer_types");
    bad(olmoe, "{\"quantization_config\":{\"quant_method\":\"fp8\"}}", "quantization_config");
    bad(olmoe, "{\"per_layer_config\":{\"1\":{\"num_experts\":3}}}", "per_layer_config");
    bad(olmoe, "{\"is_encoder_decoder\":true}", "is_encoder_decoder");
    bad(olmoe, "{\"pruned_heads\":{\"0\":[1]}}", "pruned_heads");
    bad(olmoe, "{\"clip_qkv\":0}", "clip_qkv");
    bad(olmoe, "{\"clip_qkv\":-8}", "clip_qkv");
}

static void other_architectures_are_refused(void **state)
{
    (void)state;
    bad(olmoe, "{\"architectures\":[\"GPT2LMHeadModel\"]}", "GPT2LMHeadModel is not known");
    bad(olmoe, "{\"architectures\":[\"OlmoeModel\"]}",
        "expected one of OlmoeForCausalLM, Qwen2Moe");
    bad(olmoe, "{\"architectures\":[\"OlmoeForCausalLM\",\"Qwen2MoeForCausalLM\"]}", "one name");
    bad(olmoe, "{\"architectures\":\"OlmoeForCausalLM\"}", "one name");
    bad(olmoe, "{\"architectures\":[]}", "one name");
    bad(olmoe, "{\"model_type\":\"qwen2_moe\"}", "model_type qwen2_moe");
    bad(olmoe, "{\"architectures\":null,\"model_type\":\"gpt2\"}", "gpt2");
    bad(olmoe, "{\"architectures\":\"<remove>\",\"model_type\":\"<remove>\"}", "neither");
    bad("[]", "{}", "not an object");
}

static void sizes_are_checked(void **state)
{
    (void)state;
    static const char *const needed[] = {"vocab_size",          "hidden_size",
                                         "num_hidden_layers",   "num_attention_heads",
                                         "num_experts_per_tok", "num_experts"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        static const char *const values[] = {"\"<remove>\"",        "null", "-1", "2.0", "\"8\"",
                                             "9223372036854775807", "[8]"};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            char change[128];
            snprintf(change, sizeof change, "{\"%s\":%s}", needed[i], values[v]);
            bad(olmoe, change, needed[i]);
            bad(qwen, change, needed[i]);
        }
    }
    bad(olmoe, "{\"num_experts\":0}", "num_experts");
    bad(olmoe, "{\"intermediate_size\":\"<remove>\"}", "intermediate_size");
    bad(qwen, "{\"moe_intermediate_size\":\"<remove>\"}", "moe_intermediate_size");
    bad(qwen, "{\"shared_expert_intermediate_size\":0}", "shared_expert_intermediate_size");
    bad(olmoe, "{\"num_experts_per_tok\":65}", "num_experts_per_tok 65");
    bad(olmoe, "{\"num_key_value_heads\":3}", "num_key_value_heads 3");
    bad(olmoe, "{\"num_key_value_heads\":32}", "num_key_value_heads");
    bad(olmoe, "{\"num_key_value_heads\":0}", "num_key_value_heads");
    bad(olmoe, "{\"num_hidden_layers\":513}", "num_hidden_layers");
    bad(olmoe, "{\"num_experts\":4097}", "num_experts");
    bad(olmoe, "{\"head_dim\":64}", "normalises queries");
    bad(qwen, "{\"head_dim\":63}", "even");
    bad(qwen, "{\"num_attention_heads\":4096,\"num_key_value_heads\":1}", "head_dim 0");
    bad(qwen, "{\"hidden_size\":16777216,\"moe_intermediate_size\":16777216,\"head_dim\":2}",
        "2^50");
    bad(olmoe, "{\"rms_norm_eps\":-1e-5}", "rms_norm_eps");
    bad(olmoe, "{\"tie_word_embeddings\":0}", "tie_word_embeddings");
    bad(olmoe, "{\"eos_token_id\":\"</s>\"}", "eos_token_id");
    bad(olmoe, "{\"eos_token_id\":[1,null]}", "eos_token_id");
    bad(olmoe, "{\"pad_token_id\":[1]}", "pad_token_id");
    bad(olmoe, "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "more than 16");
}

static void fields_it_does_not_read_are_named(void **state)
{
    (void)state;
    good(olmoe, "{\"mlp_bias\":true}");
    assert_non_null(strstr(warnings, "mlp_bias is not read"));
    good(olmoe, "{\"a\\u001b[2J\\nb\":true}");
    assert_non_null(strstr(warnings, "a?[2J?b is not read")); // one line, and no terminal's command
    good(qwen, "{\"clip_qkv\":8,\"attention_bias\":true}");   // fields of the other family
    assert_non_null(strstr(warnings, "clip_qkv is not read"));
    assert_non_null(strstr(warnings, "attention_bias is not read"));
    good(olmoe, "{\"attention_dropout\":0.1}");
    assert_non_null(strstr(warnings, "attention_dropout 0.1 is not applied"));
    good(olmoe, "{\"output_router_logits\":true}");
    assert_non_null(strstr(warnings, "auxiliary loss"));
    good(olmoe, "{\"auto_map\":{\"AutoModelForCausalLM\":\"x.Y\"}}");
    assert_non_null(strstr(warnings, "auto_map"));
    good(olmoe, "{\"temperature\":0.5,\"id2label\":{\"0\":\"a\"},\"dtype\":\"float32\"}");
    assert_string_equal(warnings, "");
}

static void generation_config_says_what_ends_a_text(void **state)
{
    (void)state;
    char path[2048], other[2048];
    struct error err;
    struct model_config c;
    const struct family *family;
    const char *dir = test_dir();
    snprintf(path, sizeof path, "%s/config.json", dir);
    snprintf(other, sizeof other, "%s/generation_config.json", dir);
    check_error(family_read_config(&family, &c, dir, &err), &err, "an empty folder");
    check_ok(file_write(path, olmoe, strlen(olmoe), &err), &err);
    check_ok(family_read_config(&family, &c, dir, &err), &err);
    assert_true(c.n_stop_ids == 1 && c.stop_ids[0] == 50279);

    static const char two[] = "{\"eos_token_id\":[5,6],\"temperature\":0.6}";
    check_ok(file_write(other, two, sizeof two - 1, &err), &err);
    check_ok(family_read_config(&family, &c, dir, &err), &err);
    assert_true(c.eos_id == 50279 && c.n_stop_ids == 2 && c.stop_ids[0] == 5 && c.stop_ids[1] == 6);
    check_ok(file_write(other, "{}", 2, &err), &err);
    check_ok(family_read_config(&family, &c, dir, &err), &err);
    assert_true(c.n_stop_ids == 1 && c.stop_ids[0] == 50279);
    check_ok(file_write(other, "{", 1, &err), &err);
    check_error(family_read_config(&family, &c, dir, &err), &err, "generation_config.json");
}

static void names_are_those_of_transformers(void **state)
{
    (void)state;
    static const struct {
        enum role role;
        const char *name;
    } want[] = {
        {ROLE_EMBEDDING, "model.embed_tokens.weight"},
        {ROLE_HEAD, "lm_head.weight"},
        {ROLE_FINAL_NORM, "model.norm.weight"},
        {ROLE_K_BIAS, "model.layers.12.self_attn.k_proj.bias"},
        {ROLE_K_NORM, "model.layers.12.self_attn.k_norm.weight"},
        {ROLE_UP, "model.layers.12.mlp.up_proj.weight"},
        {ROLE_ROUTER, "model.layers.12.mlp.gate.weight"},
        {ROLE_EXPERT_DOWN, "model.layers.12.mlp.experts.345.down_proj.weight"},
        {ROLE_EXPERTS_GATE_UP, "model.layers.12.mlp.experts.gate_up_proj"},
        {ROLE_SHARED_DOWN, "model.layers.12.mlp.shared_expert.down_proj.weight"},
        {ROLE_SHARED_SCALE, "model.layers.12.mlp.shared_expert_gate.weight"},
    };
    const struct family *family;
    struct model_config c;
    struct error err;
    char name[192], tiny[8];
    check_ok(family_parse_config(&family, &c, qwen, strlen(qwen), "config.json", &err), &err);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        family_name(name, sizeof name, family, want[i].role, 12, 345);
        assert_string_equal(name, want[i].name);
    }
    family_name(tiny, sizeof tiny, family, ROLE_EMBEDDING, 0, 0);
    assert_string_equal(tiny, "model.e");
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    const struct family *family;
    struct model_config c;
    struct error err;
    bool ok = false;
    for (int64_t n = 1; !ok; n++) {
        mem_fail_at(n, true);
        ok = family_parse_config(&family, &c, qwen, strlen(qwen), "config.json", &err);
        mem_fail_at(0, false);
        if (!ok) assert_non_null(strstr(err.msg, "memory"));
    }
}

int main(void)
{
    log_set_sink(keep_warning, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_olmoe),
        cmocka_unit_test(reads_qwen),
        cmocka_unit_test(missing_fields_take_the_class_defaults),
        cmocka_unit_test(every_field_is_honoured),
        cmocka_unit_test(layers_are_dense_or_sparse),
        cmocka_unit_test(rotation_is_read_from_either_place),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(other_architectures_are_refused),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(fields_it_does_not_read_are_named),
        cmocka_unit_test(generation_config_says_what_ends_a_text),
        cmocka_unit_test(names_are_those_of_transformers),
        cmocka_unit_test(survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
