// A random checkpoint has the tensors, shapes and statistics asked for, and is the same model in either
// layout and any sharding.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "model/init.h"
#include "model/shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char config[] =
    "{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"model_type\":\"qwen2_moe\",\"vocab_size\":211,"
    "\"hidden_size\":48,\"intermediate_size\":36,\"moe_intermediate_size\":20,"
    "\"shared_expert_intermediate_size\":28,\"num_hidden_layers\":3,\"num_attention_heads\":6,"
    "\"num_key_value_heads\":2,\"head_dim\":10,\"num_experts\":7,\"num_experts_per_tok\":3,"
    "\"mlp_only_layers\":[1],\"initializer_range\":0.05,\"torch_dtype\":\"bfloat16\"}";

static char config_path[2048];

static int make_config(void **state)
{
    (void)state;
    struct error err;
    snprintf(config_path, sizeof config_path, "%s/given.json", test_dir());
    check_ok(file_write(config_path, config, sizeof config - 1, &err), &err);
    return 0;
}

static const char *folder(const char *name)
{
    static char path[4][2048];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%.*s/%s", (int)(strrchr(config_path, '/') - config_path),
             config_path, name);
    return p;
}

static void make(struct checkpoint *c, struct model_init_options o)
{
    struct error err;
    o.config = config_path;
    check_ok(model_init(&o, &err), &err);
    check_ok(checkpoint_open(c, o.out, &err), &err);
}

static const struct tensor *find(const struct checkpoint *c, const char *name)
{
    const struct st_entry *e = checkpoint_find(c, name);
    if (!e) fail_msg("no tensor %s", name);
    return &e->tensor;
}

struct seen {
    struct checkpoint *checkpoint;
    int64_t count;
};

static bool look_up(void *user, const struct tensor_spec *s, struct error *err)
{
    (void)err;
    struct seen *seen = user;
    const struct tensor *t = find(seen->checkpoint, s->name);
    assert_int_equal(t->rank, s->rank);
    for (int i = 0; i < s->rank; i++) {
        assert_int_equal(t->dim[i], s->dim[i]);
    }
    seen->count++;
    return true;
}

static void has_every_tensor(void **state)
{
    (void)state;
    struct checkpoint c;
    make(&c, (struct model_init_options){.out = folder("all")});
    struct model_config m;
    const struct family *family;
    struct error err;
    check_ok(family_read_config(&family, &m, folder("all"), &err), &err);
    struct seen seen = {&c, 0};
    check_ok(shapes_visit(family, &m, NULL, look_up, &seen, &err), &err);
    assert_int_equal(checkpoint_tensors(&c), seen.count);
    // 3 of the whole, 9 of attention a layer, 3 of the dense one, router 1, shared 4, experts 21
    assert_int_equal(seen.count, 3 + 3 * 9 + 3 + 2 * (1 + 4 + 21));
    assert_int_equal(checkpoint_at(&c, 0)->tensor.dtype, DTYPE_BF16);
    assert_string_equal(c.shard[0].st.metadata, "{\"format\":\"pt\"}");
    checkpoint_close(&c);
}

static void values_are_as_asked(void **state)
{
    (void)state;
    struct checkpoint c;
    make(&c, (struct model_init_options){.out = folder("values"), .dtype = "f32", .seed = 3});
    const struct tensor *t = find(&c, "model.embed_tokens.weight");
    double sum = 0, square = 0;
    const int64_t n = tensor_count(*t);
    for (int64_t i = 0; i < n; i++) {
        sum += (double)data_f32(*t)[i];
        square += pow((double)data_f32(*t)[i], 2);
    }
    assert_true(fabs(sum / (double)n) < 5 * 0.05 / sqrt((double)n)); // 5 standard errors
    assert_true(fabs(sqrt(square / (double)n) - 0.05) < 5 * 0.05 / sqrt(2 * (double)n));
    assert_true(data_f32(*find(&c, "model.layers.2.input_layernorm.weight"))[47] == 1);
    assert_true(data_f32(*find(&c, "model.norm.weight"))[0] == 1);
    assert_true(data_f32(*find(&c, "model.layers.0.self_attn.k_proj.bias"))[19] == 0);
    assert_true(data_f32(*find(&c, "model.layers.0.mlp.gate.weight"))[0] != 0);
    // Another tensor, another stream.
    assert_memory_not_equal(find(&c, "model.layers.0.mlp.experts.0.up_proj.weight")->data,
                            find(&c, "model.layers.0.mlp.experts.1.up_proj.weight")->data, 64);
    checkpoint_close(&c);
}

static void check_same_tensors(const struct checkpoint *a, const struct checkpoint *b)
{
    assert_int_equal(checkpoint_tensors(a), checkpoint_tensors(b));
    for (int64_t i = 0; i < checkpoint_tensors(a); i++) {
        const struct st_entry *e = checkpoint_at(a, i);
        assert_memory_equal(e->tensor.data, find(b, e->name)->data, tensor_bytes(e->tensor));
    }
}

static void shards_hold_the_same_model(void **state)
{
    (void)state;
    struct checkpoint one, many, other;
    make(&one, (struct model_init_options){.out = folder("one"), .seed = 11});
    make(&many,
         (struct model_init_options){.out = folder("many"), .seed = 11, .shard_bytes = 6000});
    make(&other, (struct model_init_options){.out = folder("other"), .seed = 12});
    assert_int_equal(one.n_shards, 1);
    assert_true(many.n_shards > 10);
    for (int64_t s = 0; s < many.n_shards; s++) {
        const struct safetensors *st = &many.shard[s].st;
        assert_true(st->count == 1 || st->map.size - st->header_size <= 6000);
    }
    check_same_tensors(&one, &many);
    const struct st_entry *e = checkpoint_find(&one, "lm_head.weight");
    assert_memory_not_equal(e->tensor.data, find(&other, e->name)->data, tensor_bytes(e->tensor));
    checkpoint_close(&other);
    checkpoint_close(&many);
    checkpoint_close(&one);
}

static void fused_experts_are_the_same_experts(void **state)
{
    (void)state;
    struct checkpoint a, b;
    make(&a, (struct model_init_options){.out = folder("split"), .seed = 5});
    make(&b, (struct model_init_options){.out = folder("fused"), .seed = 5, .fused = true});
    const int64_t F = 20, C = 48, matrix = F * C * 2; // bytes in bf16
    const char *gate_up = find(&b, "model.layers.2.mlp.experts.gate_up_proj")->data;
    const char *down = find(&b, "model.layers.2.mlp.experts.down_proj")->data;
    for (int e = 0; e < 7; e++) {
        static const char *const part[] = {"gate", "up", "down"};
        const char *want[] = {gate_up + 2 * e * matrix, gate_up + (2 * e + 1) * matrix,
                              down + e * matrix};
        for (int p = 0; p < 3; p++) {
            char name[192];
            snprintf(name, sizeof name, "model.layers.2.mlp.experts.%d.%s_proj.weight", e, part[p]);
            assert_memory_equal(find(&a, name)->data, want[p], (size_t)matrix);
        }
    }
    assert_null(checkpoint_find(&b, "model.layers.2.mlp.experts.0.up_proj.weight"));
    checkpoint_close(&b);
    checkpoint_close(&a);
}

// Mixtral's router has another name in each layout, and the same values; a dense model's biases are 0.
static const char mixtral[] =
    "{\"architectures\":[\"MixtralForCausalLM\"],\"vocab_size\":37,\"hidden_size\":24,"
    "\"intermediate_size\":10,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"num_local_experts\":5,\"num_experts_per_tok\":2}";
static const char llama[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":37,\"hidden_size\":24,"
    "\"intermediate_size\":10,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"tie_word_embeddings\":true,\"mlp_bias\":true,"
    "\"attention_bias\":true}";

static void make_other(struct checkpoint *c, const char *text, struct model_init_options o)
{
    char path[2048];
    struct error err;
    snprintf(path, sizeof path, "%s", folder("other.json"));
    check_ok(file_write(path, text, strlen(text), &err), &err);
    o.config = path;
    o.seed = 4;
    check_ok(model_init(&o, &err), &err);
    check_ok(checkpoint_open(c, o.out, &err), &err);
}

static void other_families_have_their_own_names(void **state)
{
    (void)state;
    struct checkpoint a, b;
    make_other(&a, mixtral, (struct model_init_options){.out = folder("w1")});
    make_other(&b, mixtral, (struct model_init_options){.out = folder("w1w3"), .fused = true});
    assert_int_equal(checkpoint_tensors(&a), 3 + 2 * (6 + 1 + 15));
    assert_int_equal(checkpoint_tensors(&b), 3 + 2 * (6 + 1 + 2));
    const struct tensor *router = find(&a, "model.layers.1.block_sparse_moe.gate.weight");
    assert_memory_equal(router->data, find(&b, "model.layers.1.mlp.gate.weight")->data,
                        tensor_bytes(*router));
    const struct tensor *up = find(&a, "model.layers.1.block_sparse_moe.experts.3.w3.weight");
    const char *gate_up = find(&b, "model.layers.1.mlp.experts.gate_up_proj")->data;
    assert_memory_equal(up->data, gate_up + 7 * tensor_bytes(*up), tensor_bytes(*up));
    checkpoint_close(&b);
    checkpoint_close(&a);

    make_other(&a, llama, (struct model_init_options){.out = folder("dense"), .dtype = "f32"});
    assert_int_equal(checkpoint_tensors(&a), 2 + 2 * (2 + 8 + 6));
    const struct tensor *bias = find(&a, "model.layers.1.mlp.gate_proj.bias");
    assert_int_equal(bias->dim[0], 10);
    assert_true(data_f32(*bias)[9] == 0);
    assert_int_equal(find(&a, "model.layers.0.mlp.down_proj.bias")->dim[0], 24);
    checkpoint_close(&a);
}

static void config_names_the_type_written(void **state)
{
    (void)state;
    struct checkpoint c;
    char path[4096], *text;
    size_t size;
    struct error err;
    make(&c, (struct model_init_options){.out = folder("same")});
    checkpoint_close(&c);
    snprintf(path, sizeof path, "%s/config.json", folder("same"));
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    assert_string_equal(text, config); // byte for byte
    mem_free(text);

    make(&c, (struct model_init_options){.out = folder("f16"), .dtype = "f16"});
    assert_int_equal(checkpoint_at(&c, 0)->tensor.dtype, DTYPE_F16);
    checkpoint_close(&c);
    snprintf(path, sizeof path, "%s/config.json", folder("f16"));
    json_t *root = json_parse_file(path, 1 << 20, &err);
    assert_string_equal(json_string_value(json_object_get(root, "torch_dtype")), "float16");
    assert_int_equal(json_integer_value(json_object_get(root, "hidden_size")), 48);
    json_decref(root);
}

static void never_writes_over_a_model(void **state)
{
    (void)state;
    struct checkpoint c;
    struct error err;
    struct model_init_options o = {
        .config = config_path, .out = folder("kept"), .shard_bytes = 9000};
    check_ok(model_init(&o, &err), &err);
    check_error(model_init(&o, &err), &err, "holds a model");
    o.overwrite = true;
    o.shard_bytes = 0;
    check_ok(model_init(&o, &err), &err);
    check_ok(checkpoint_open(&c, o.out, &err), &err);
    assert_int_equal(c.n_shards, 1);
    checkpoint_close(&c);

    o.dtype = "int8";
    check_error(model_init(&o, &err), &err, "int8");
    o.config = "/nonexistent/config.json";
    check_error(model_init(&o, &err), &err, "/nonexistent/config.json");
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    struct error err;
    struct model_init_options o = {
        .config = config_path, .out = folder("scarce"), .shard_bytes = 40000, .overwrite = true};
    bool ok = false;
    for (int64_t n = 1; !ok; n++) {
        mem_fail_at(n, true);
        ok = model_init(&o, &err);
        mem_fail_at(0, false);
        if (!ok) assert_non_null(strstr(err.msg, "memory"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_every_tensor),
        cmocka_unit_test(values_are_as_asked),
        cmocka_unit_test(shards_hold_the_same_model),
        cmocka_unit_test(fused_experts_are_the_same_experts),
        cmocka_unit_test(other_families_have_their_own_names),
        cmocka_unit_test(config_names_the_type_written),
        cmocka_unit_test(never_writes_over_a_model),
        cmocka_unit_test(survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, make_config, NULL);
}
