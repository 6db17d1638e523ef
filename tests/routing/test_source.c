// test_source.c - the state of a routing as it lies in a folder: every spelling of the released files and of
// its tensors, and each way in which a file can fail to fit is refused in one line that names file and layer.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/bias_state.h"
#include "routing/condenser_choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Layers 0 and 2 have experts, layer 1 is dense.
static const struct model_config config = {.architecture = "a model",
                                           .width = 3,
                                           .n_layers = 3,
                                           .n_experts = 4,
                                           .moe_layer = {true, false, true}};

static const char *dir(void)
{
    static char path[1024];
    if (!*path) snprintf(path, sizeof path, "%s", test_dir());
    return path;
}

static const char *path_of(const char *name)
{
    static char path[4][4096];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir(), name);
    return path[turn];
}

static const char *text_file(const char *name, const char *text)
{
    struct error err;
    const char *path = path_of(name);
    check_ok(file_write(path, text, strlen(text), &err), &err);
    return path;
}

static void remove_file(const char *name)
{
    remove(path_of(name));
}

static const float bias_values[] = {0.5F, -0.25F, 0, 1, -1, 2, 0.125F, 3};

static void check_bias(float *got)
{
    for (int e = 0; e < 4; e++) {
        assert_true(got[e] == bias_values[e]);
        assert_true(got[4 + e] == 0); // the dense layer
        assert_true(got[8 + e] == bias_values[4 + e]);
    }
    mem_free(got);
}

static void biases_in_every_spelling(void **state)
{
    (void)state;
    static const char *const keys[][2] = {
        {"model.layers.0.mlp", "model.layers.2.mlp"},
        {"model.layers.2.mlp.gate", "model.layers.0.mlp.gate"},
        {"base_model.model.model.layers.0.mlp", "base_model.model.model.layers.2.mlp"},
        {"base_model.model.model.layers.0.mlp.gate", "model.layers.2.mlp"},
    };
    static const char *const values[] = {"[0.5, -0.25, 0, 1]", "[-1, 2.0, 0.125, 3]"};
    for (int i = 0; i < 4; i++) {
        struct error err = {0};
        char text[1024];
        const int swapped = strchr(keys[i][0], '2') != NULL;
        snprintf(
            text, sizeof text,
            "{\"metadata\": {\"total_moe_layers\": 2}, \"moe_bias_states\": {"
            "\"%s\": {\"bias_values\": %s, \"num_experts\": 4, \"dtype\": \"torch.bfloat16\"}, "
            "\"%s\": {\"bias_values\": %s}}}",
            keys[i][0], values[swapped], keys[i][1], values[!swapped]);
        float *got = bias_file_read(text_file("bias.json", text), &config, &err);
        check_ok(got != NULL, &err);
        check_bias(got);
    }
}

// What differs from a good file, and what the refusal says.
struct bad {
    const char *layer0, *layer2, *says;
};

static void bad_biases_are_refused_by_name(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3]}", NULL,
         "bias.json: layer 0: bias_values: 3 values, an array of 4 numbers expected"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, 4, 5]}", NULL,
         "layer 0: bias_values: 5 values"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, NaN, 3, 4]}", NULL,
         "bias.json: layer 0: bias_values[1]: a finite number expected"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, -Infinity]}", NULL,
         "layer 0: bias_values[3]: a finite number"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [Infinity, 2, 3, 4]}", NULL,
         "layer 0: bias_values[0]: a finite number"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 1e39, 3, 4]}", NULL,
         "layer 0: bias_values[1]: a finite number"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, \"NaN\", 3, 4]}", NULL,
         "layer 0: bias_values[1]: a finite number"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, 4], \"usage_sums\": [1]}", NULL,
         "layer 0: usage_sums: 1 values"},
        {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, 4], \"num_experts\": 8}", NULL,
         "layer 0: num_experts is 8, the model has 4"},
        {"\"model.layers.0.mlp\": [1, 2, 3, 4]", NULL, "layer 0: an object expected"},
        {"\"model.layers.0.mlp\": {}", NULL, "layer 0: bias_values"},
        {"", NULL, "layer 0 is missing"},
        {NULL, "", "layer 2 is missing"},
        {NULL, "\"model.layers.1.mlp\": {\"bias_values\": [1, 2, 3, 4]}",
         "'model.layers.1.mlp' is not an MoE layer"},
        {NULL, "\"model.layers.3.mlp\": {\"bias_values\": [1, 2, 3, 4]}", "'model.layers.3.mlp'"},
        {NULL, "\"model.layers.2.mlp.up\": {\"bias_values\": [1, 2, 3, 4]}",
         "'model.layers.2.mlp.up'"},
        {NULL, "\"base_model.model.model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, 4]}",
         "layer 0 is there twice"},
    };
    static const char *const good[] = {"\"model.layers.0.mlp\": {\"bias_values\": [1, 2, 3, 4]}",
                                       "\"model.layers.2.mlp\": {\"bias_values\": [1, 2, 3, 4]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        char text[1024];
        const char *a = bad[i].layer0 ? bad[i].layer0 : good[0];
        const char *b = bad[i].layer2 ? bad[i].layer2 : good[1];
        snprintf(text, sizeof text, "{\"moe_bias_states\": {%s%s%s}}", a, *a && *b ? ", " : "", b);
        float *got = bias_file_read(text_file("bias.json", text), &config, &err);
        check_error(got != NULL, &err, bad[i].says);
        check_error(false, &err, "bias.json");
    }
    static const char *const whole[][2] = {
        {"{\"metadata\": {\"total_moe_layers\": 3}, \"moe_bias_states\": {}}",
         "total_moe_layers says 3"},
        {"{\"states\": {}}", "'moe_bias_states' is missing"},
        {"{\"moe_bias_states\": []}", "an object of layers expected"},
        {"[]", "'moe_bias_states' is missing"},
        {"{\"moe_bias_states\": {}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        struct error err = {0};
        check_error(bias_file_read(text_file("bias.json", whole[i][0]), &config, &err) != NULL,
                    &err, whole[i][1]);
    }
}

static void check_experts(struct condensers *s)
{
    assert_int_equal(s->count[0], 2);
    assert_int_equal(s->count[1], 0);
    assert_int_equal(s->count[2], 1);
    assert_int_equal(s->expert[0][0], 1);
    assert_int_equal(s->expert[0][1], 3);
    assert_int_equal(s->expert[2][0], 2);
    condensers_free(s);
}

static void condensers_in_every_spelling(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"metadata\": {\"total_layers\": 2, \"timestamp\": \"t\"}, \"forced_experts_records\": {"
        "\"model.layers.0.mlp\": {\"forced_expert_indices\": [3, 1], \"num_forced_experts\": 2, "
        "\"total_experts\": 4}, \"model.layers.2.mlp\": {\"forced_expert_indices\": [2]}}}",
        "{\"forced_experts_records\": {\"base_model.model.model.layers.2.mlp.gate\": [2], "
        "\"base_model.model.model.layers.0.mlp\": [1, 3]}}",
        "{\"forced_experts_mapping\": {\"model.layers.0.mlp\": [1, 3], \"model.layers.2.mlp\": "
        "[2]}}",
        "{\"forced_experts\": {\"model.layers.0.mlp.gate\": {\"forced_expert_indices\": [1, 3]}, "
        "\"model.layers.2.mlp.gate\": {\"forced_expert_indices\": [2]}}}",
        "{\"experts\": {\"model.layers.0.mlp\": [1, 3], \"model.layers.2.mlp\": [2]}}",
        "{\"model.layers.0.mlp\": [1, 3], \"model.layers.2.mlp\": [2]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error err = {0};
        struct condensers s = {0};
        check_ok(condensers_read(&s, text_file("experts.json", texts[i]), &config, &err), &err);
        check_experts(&s);
    }
}

static void bad_condensers_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"model.layers.0.mlp\": [4], \"model.layers.2.mlp\": [2]}",
         "experts.json: layer 0: an expert from 0 to 3 expected"},
        {"{\"model.layers.0.mlp\": [1], \"model.layers.2.mlp\": [-1]}",
         "layer 2: an expert from 0 to 3"},
        {"{\"model.layers.0.mlp\": [1.5], \"model.layers.2.mlp\": [2]}",
         "layer 0: an expert from 0 to 3"},
        {"{\"model.layers.0.mlp\": [1, NaN], \"model.layers.2.mlp\": [2]}",
         "layer 0: an expert from"},
        {"{\"model.layers.0.mlp\": [1, 3, 1], \"model.layers.2.mlp\": [2]}",
         "experts.json: layer 0 names expert 1 twice"},
        {"{\"model.layers.0.mlp\": [1, 3, 1, 2, 0], \"model.layers.2.mlp\": [2]}",
         "layer 0: a list of at most 4 experts expected"},
        {"{\"model.layers.0.mlp\": {\"forced_expert_indices\": [1], \"num_forced_experts\": 2}, "
         "\"model.layers.2.mlp\": [2]}",
         "layer 0: num_forced_experts is 2, 1 experts named"},
        {"{\"model.layers.0.mlp\": {\"forced_expert_indices\": [1], \"total_experts\": 64}, "
         "\"model.layers.2.mlp\": [2]}",
         "layer 0: total_experts is 64, the model has 4"},
        {"{\"model.layers.0.mlp\": {}, \"model.layers.2.mlp\": [2]}", "layer 0: a list"},
        {"{\"model.layers.0.mlp\": [1]}", "layer 2 is missing"},
        {"{\"model.layers.0.mlp\": [1], \"model.layers.0.mlp.gate\": [1], \"model.layers.2.mlp\": "
         "[2]}",
         "layer 0 is there twice"},
        {"{\"model.layers.0.mlp\": [1], \"model.layers.1.mlp\": [1], \"model.layers.2.mlp\": [2]}",
         "'model.layers.1.mlp' is not an MoE layer"},
        {"{\"metadata\": {\"total_layers\": 2}, \"forced_experts_records\": "
         "{\"model.layers.0.mlp\": [1]}}",
         "1 layers, but total_layers says 2"},
        {"[1, 2]", "an object of layers expected"},
        {"{\"model.layers.0.mlp\": [1], \"model.layers.0.mlp\": [1]}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        struct condensers s = {0};
        const char *path = text_file("experts.json", bad[i][0]);
        check_error(condensers_read(&s, path, &config, &err), &err, bad[i][1]);
        check_error(false, &err, "experts.json");
        assert_null(s.expert[0]);
    }
}

// A checkpoint with these tensors and nothing else.
static void tensor_file(struct checkpoint *c, const struct st_named *t, int64_t n)
{
    struct error err;
    check_ok(safetensors_write(path_of("model.safetensors"), t, n, NULL, &err), &err);
    check_ok(checkpoint_open(c, dir(), &err), &err);
}

static void check_array(const json_t *states, const char *key, const float *want)
{
    const json_t *list = json_object_get(json_object_get(states, key), "bias_values");
    assert_int_equal(json_array_size(list), 4);
    for (size_t e = 0; e < 4; e++) {
        assert_true((float)json_number_value(json_array_get(list, e)) == want[e]);
    }
}

// Whichever allocation fails: a list without a part that got no memory would be a shorter one.
static void check_condensers_read(const struct routing_source *s)
{
    struct error err = {0};
    char where[SOURCE_PATH];
    bool ok = false;
    for (int64_t n = 1; !ok; n++) {
        struct condensers set = {0};
        mem_fail_at(n, false);
        ok = condensers_read_from(&set, s, where, &config, &err);
        mem_fail_at(0, false);
        if (ok) check_experts(&set);
        if (!ok) assert_non_null(strstr(err.msg, "no memory"));
    }
}

static void tensors_are_a_state(void **state)
{
    (void)state;
    uint16_t half[4];
    float wide[4];
    double widest[4];
    int64_t experts0[] = {3, 1}, experts2[] = {2};
    for (int e = 0; e < 4; e++) {
        half[e] = bf16_from_f32(bias_values[e]); // exact in bf16
        wide[e] = bias_values[4 + e];
        widest[e] = (double)bias_values[4 + e];
    }
    for (int i = 0; i < 2; i++) {
        const struct st_named t[] = {
            {"model.layers.0.mlp.bias", tensor_1d(half, DTYPE_BF16, 4)},
            {"model.layers.2.mlp.gate.bias",
             i ? tensor_1d(widest, DTYPE_F64, 4) : tensor_1d(wide, DTYPE_F32, 4)},
            {"base_model.model.model.layers.0.mlp.forced_expert_indices",
             tensor_1d(experts0, DTYPE_I64, 2)},
            {"model.layers.2.mlp.forced_expert_indices", tensor_1d(experts2, DTYPE_I64, 1)},
        };
        struct error err = {0};
        struct checkpoint c;
        struct routing_source s;
        char where[SOURCE_PATH];
        tensor_file(&c, t, 4);
        routing_source_find(&s, dir(), &c, NULL);
        assert_true(s.bias && s.experts && !s.bias_file && !s.experts_file);
        check_condensers_read(&s);
        json_t *states = routing_source_bias(&s, where, &err);
        check_ok(states != NULL, &err);
        assert_int_equal(json_object_size(states), 2);
        check_array(states, "model.layers.0.mlp", bias_values);
        check_array(states, "model.layers.2.mlp.gate", bias_values + 4);
        json_decref(states);
        for (int64_t k = 0; k < 4; k++) {
            assert_true(routing_source_owns_tensor(t[k].name, &config));
        }
        checkpoint_close(&c);
    }
    assert_false(routing_source_owns_tensor("model.layers.1.mlp.bias", &config)); // dense
    assert_false(routing_source_owns_tensor("model.layers.3.mlp.bias", &config));
    assert_false(routing_source_owns_tensor("model.layers.0.self_attn.q_proj.bias", &config));
    assert_false(routing_source_owns_tensor("model.layers.0.mlp.gate.weight", &config));
    remove_file("model.safetensors");
}

static void a_choice_not_made_yet_is_none(void **state)
{
    (void)state;
    int64_t none[] = {-1, -1};
    const struct st_named t[] = {
        {"model.layers.0.mlp.forced_expert_indices", tensor_1d(none, DTYPE_I64, 2)}};
    struct checkpoint c;
    struct routing_source s;
    tensor_file(&c, t, 1);
    routing_source_find(&s, dir(), &c, NULL);
    assert_false(s.bias || s.experts);
    none[1] = 2;
    checkpoint_close(&c);
    tensor_file(&c, t, 1);
    routing_source_find(&s, dir(), &c, NULL);
    assert_true(s.experts);
    checkpoint_close(&c);
    remove_file("model.safetensors");
}

static void check_bad_tensors(const struct st_named *t, int64_t n, const char *says)
{
    struct error err = {0};
    struct checkpoint c;
    struct routing_source s;
    struct condensers set = {0};
    char where[SOURCE_PATH];
    tensor_file(&c, t, n);
    routing_source_find(&s, dir(), &c, NULL);
    assert_true(s.experts);
    check_error(condensers_read_from(&set, &s, where, &config, &err), &err, says);
    checkpoint_close(&c);
    remove_file("model.safetensors");
}

static void bad_tensors_are_refused_by_name(void **state)
{
    (void)state;
    int64_t good[] = {1, 3}, twice[] = {1, 1}, far[] = {0, 4};
    float real[] = {1, 2};
    static const char *const names[] = {"model.layers.0.mlp.forced_expert_indices",
                                        "model.layers.2.mlp.forced_expert_indices"};
    const struct tensor fine = tensor_1d(good, DTYPE_I64, 2);
    const struct {
        struct tensor second;
        const char *says;
    } bad[] = {
        {tensor_1d(twice, DTYPE_I64, 2), "*.forced_expert_indices: layer 2 names expert 1 twice"},
        {tensor_1d(far, DTYPE_I64, 2), "layer 2: an expert from 0 to 3 expected"},
        {tensor_1d(real, DTYPE_F32, 2),
         "tensor model.layers.2.mlp.forced_expert_indices is F32 of rank 1"},
        {tensor_2d(good, DTYPE_I64, 1, 2), "is I64 of rank 2, a vector of I64 expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct st_named t[] = {{names[0], fine}, {names[1], bad[i].second}};
        check_bad_tensors(t, 2, bad[i].says);
    }
    const struct st_named one[] = {{names[0], fine}};
    check_bad_tensors(one, 1, "layer 2 is missing");
}

// routing.json comes back as it was written; anything else is refused by name.
static void a_description_comes_back(void **state)
{
    (void)state;
    struct error err = {0};
    struct routing_options o = {.bias_in = BIAS_IN_SELECTION,
                                .condenser_preset = CONDENSER_RELEASED,
                                .condenser_gate = CONDENSER_SOFTMAX},
                           back = {0};
    const struct routing *condenser = routing_find("condenser", &err), *r;
    struct routing_source s = {.dir = dir()};
    bool described;
    check_ok(routing_describe(condenser, &o, dir(), &err), &err);
    check_ok(routing_described(&r, &back, &described, &s, &err), &err);
    assert_true(described && r == condenser);
    assert_int_equal(back.bias_in, o.bias_in);
    assert_int_equal(back.condenser_preset, o.condenser_preset);
    assert_int_equal(back.condenser_gate, o.condenser_gate);
    static const char *const bad[][2] = {
        {"{\"routing\": \"best\"}", "routing.json: routing 'best' is not known"},
        {"{\"bias_in\": \"logits\"}", "routing.json: routing: found nothing"},
        {"{\"routing\": \"bias\"}", "routing.json: bias_in: found nothing, expected a string"},
        {"{\"routing\": \"bias\", \"bias_in\": \"gates\"}",
         "bias_in: found 'gates', expected one of:"},
        {"{\"routing\": \"bias\", \"bias_in\": \"logits\", \"condenser_gate\": \"one\"}",
         "'condenser_gate' is no option that bias has there"},
        {"[]", "routing.json: not an object"},
        {"{", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        text_file("routing.json", bad[i][0]);
        check_error(routing_described(&r, &back, &described, &s, &err), &err, bad[i][1]);
    }
    remove_file("routing.json");
}

// Without routing.json: what the released code does with the same state.
static void the_released_state_is_recognised(void **state)
{
    (void)state;
    static const struct {
        bool bias, experts;
        const char *routing;
    } cases[] = {{false, false, NULL},
                 {true, false, "bias"},
                 {true, true, "condenser"},
                 {false, true, "condenser"}};
    for (int i = 0; i < 4; i++) {
        struct error err = {0};
        const struct routing_source s = {
            .dir = dir(), .bias = cases[i].bias, .experts = cases[i].experts};
        struct routing_options o = {.condenser_gate = CONDENSER_ONE};
        const struct routing *r;
        bool described = true;
        check_ok(routing_described(&r, &o, &described, &s, &err), &err);
        assert_false(described);
        assert_true(cases[i].routing ? r && !strcmp(r->name, cases[i].routing) : !r);
        assert_int_equal(o.bias_in, r ? BIAS_IN_LOGITS : BIAS_IN_DEFAULT);
        assert_int_equal(o.condenser_preset, s.experts ? CONDENSER_RELEASED : CONDENSER_PAPER);
        if (s.experts) assert_int_equal(o.condenser_gate, CONDENSER_ROUTER);
    }
}

static void files_are_found_in_order_and_beat_tensors(void **state)
{
    (void)state;
    static const char *const names[] = {"forced_experts.json", "forced_experts_mapping.json",
                                        "forced_experts_records.json"}; // the later, the stronger
    float values[4] = {0};
    const struct st_named t[] = {{"model.layers.0.mlp.bias", tensor_1d(values, DTYPE_F32, 4)}};
    struct checkpoint c;
    struct routing_source s;
    tensor_file(&c, t, 1);
    for (int i = 0; i < 3; i++) {
        text_file(names[i], "{}");
        routing_source_find(&s, dir(), &c, NULL);
        assert_string_equal(s.experts_file, names[i]);
        assert_true(s.bias && !s.bias_file);
        assert_true(routing_source_owns_file(names[i]));
    }
    text_file("moe_bias_states.json", "{}");
    routing_source_find(&s, dir(), &c, NULL);
    assert_string_equal(s.bias_file, "moe_bias_states.json");
    struct routing_options o = {.condenser_experts = "x"};
    routing_options_source(&o, NULL, dir(), &c, NULL);
    assert_true(o.source.bias && !o.source.experts);
    o.bias_file = "x"; // the condensers are chosen from it
    o.condenser_experts = NULL;
    routing_options_source(&o, NULL, dir(), &c, NULL);
    assert_false(o.source.bias || o.source.experts);
    o.bias_file = NULL;
    // An adapter's state beats the model's, where it has one.
    struct error err;
    char adapter[2048];
    snprintf(adapter, sizeof adapter, "%s/adapter", dir());
    check_ok(dir_make(adapter, &err), &err);
    routing_options_source(&o, adapter, dir(), &c, NULL);
    assert_true(o.source.experts && !strcmp(o.source.dir, dir()));
    text_file("adapter/moe_bias_states.json", "{}");
    routing_options_source(&o, adapter, dir(), &c, NULL);
    assert_true(o.source.bias && !o.source.experts && !strcmp(o.source.dir, adapter));
    checkpoint_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases_in_every_spelling),
        cmocka_unit_test(bad_biases_are_refused_by_name),
        cmocka_unit_test(condensers_in_every_spelling),
        cmocka_unit_test(bad_condensers_are_refused_by_name),
        cmocka_unit_test(tensors_are_a_state),
        cmocka_unit_test(a_choice_not_made_yet_is_none),
        cmocka_unit_test(bad_tensors_are_refused_by_name),
        cmocka_unit_test(a_description_comes_back),
        cmocka_unit_test(the_released_state_is_recognised),
        cmocka_unit_test(files_are_found_in_order_and_beat_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
