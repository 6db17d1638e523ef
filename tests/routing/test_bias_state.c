// tests/routing/test_bias_state.c - the bias by itself: what it counts, how it moves, what a skipped step gives
// back, and its file, in a model with a dense layer between.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "routing/bias_state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { L = 3, E = 4, K = 2, N = 3 };

static const struct model_config config = {.architecture = "toy",
                                           .n_layers = L,
                                           .n_experts = E,
                                           .experts_per_tok = K,
                                           .moe_layer = {true, false, true}};

struct bias {
    struct bias_state s;
    struct arena arena;
};

static void bias_open(struct bias *b, const struct routing_options *o)
{
    struct error err = {0};
    *b = (struct bias){0};
    for (int placing = 0; placing < 2; placing++) {
        b->arena.used = 0;
        check_ok(bias_state_open(&b->s, &cpu_ops, &config, o, N, &b->arena, &err), &err);
        if (placing) break;
        b->arena.capacity = b->arena.used;
        b->arena.base = cpu_ops.allocate(b->arena.capacity);
    }
    memset(b->arena.base, 0, b->arena.capacity);
}

static void bias_close(struct bias *b)
{
    bias_state_close(&b->s);
    bias_state_close(&b->s); // twice is safe
    cpu_ops.release(b->arena.base, b->arena.capacity);
}

// A micro-batch in which the tokens of `layer` went to these experts, with these probabilities.
static void count(struct bias *b, int64_t layer, const int32_t routed[N * K], const float p[N * E])
{
    int32_t e[N * K];
    float probability[N * E];
    memcpy(e, routed, sizeof e);
    memcpy(probability, p, sizeof probability);
    bias_state_count(&b->s, layer, tensor_2d(probability, DTYPE_F32, N, E),
                     tensor_2d(e, DTYPE_I32, N, K));
}

static const int32_t first[N * K] = {0, 1, 0, 2, 0, 1};  // 3 2 1 0
static const int32_t second[N * K] = {3, 2, 3, 2, 3, 0}; // 1 0 2 3
static const float sure[N * E] = {0.5F,   0.25F, 0.125F, 0.125F, 0.5F, 0.125F,
                                  0.125F, 0.25F, 0.5F,   0.25F,  0,    0.25F}; // 1.5 .625 .25 .625

static void check_values(const char *what, struct tensor t, const float want[E])
{
    for (int e = 0; e < E; e++) {
        if (data_f32(t)[e] != want[e])
            fail_msg("%s: expert %d: %g, %g expected", what, e, (double)data_f32(t)[e],
                     (double)want[e]);
    }
}

static void use_is_counted_and_moves_the_bias(void **state)
{
    (void)state;
    static const float counted[E] = {3, 2, 1, 0}, summed[E] = {1.5F, 0.625F, 0.25F, 0.625F};
    static const float by_count[E] = {0.5F, 0.5F, -0.5F, -0.5F},
                       by_sum[E] = {0.5F, -0.5F, -0.5F, -0.5F}, none[E] = {0};
    for (int soft = 0; soft < 2; soft++) {
        for (int sign = 0; sign < 2; sign++) {
            struct bias b;
            float want[E];
            bias_open(&b, &(struct routing_options){
                              .bias_rate = 0.5,
                              .bias_usage = soft ? BIAS_USAGE_SOFT : BIAS_USAGE_COUNT,
                              .bias_sign = sign ? BIAS_BALANCE : BIAS_SPARSIFY});
            count(&b, 2, first, sure);
            check_values("use", b.s.layer[2].usage, soft ? summed : counted);
            bias_state_move(&b.s, BIAS_EVERY_MICRO_BATCH); // not yet
            check_values("bias", b.s.layer[2].b, none);
            bias_state_end_step(&b.s, true);
            for (int e = 0; e < E; e++) {
                want[e] = (sign ? -1 : 1) * (soft ? by_sum : by_count)[e];
            }
            check_values("bias", b.s.layer[2].b, want);
            check_values("use of the phase", b.s.layer[2].phase, soft ? summed : counted);
            check_values("use", b.s.layer[2].usage, none);
            check_values("the other layer", b.s.layer[0].b, none); // whose experts are level
            bias_close(&b);
        }
    }
}

static void a_limit_clamps(void **state)
{
    (void)state;
    static const float want[3][E] = {
        {0.5F, 0.5F, -0.5F, -0.5F}, {0.75F, 0.75F, -0.75F, -0.75F}, {0.75F, 0.75F, -0.75F, -0.75F}};
    struct bias b;
    bias_open(&b, &(struct routing_options){
                      .bias_rate = 0.5, .bias_limit = 0.75, .bias_usage = BIAS_USAGE_COUNT});
    for (int step = 0; step < 3; step++) {
        count(&b, 0, first, sure);
        bias_state_end_step(&b.s, true);
        check_values("bias", b.s.layer[0].b, want[step]);
    }
    bias_close(&b);
}

static void a_skipped_step_gives_back_what_it_moved(void **state)
{
    (void)state;
    static const float before[E] = {0.5F, 0.5F, -0.5F, -0.5F}, counted[E] = {3, 2, 1, 0};
    static const float after[E] = {0, 0, 0, 0}, both[E] = {4, 2, 3, 3}, none[E] = {0};
    struct bias b;
    bias_open(&b, &(struct routing_options){.bias_rate = 0.5,
                                            .bias_usage = BIAS_USAGE_COUNT,
                                            .bias_every = BIAS_EVERY_MICRO_BATCH});
    count(&b, 2, first, sure);
    bias_state_move(&b.s, BIAS_EVERY_MICRO_BATCH);
    bias_state_end_step(&b.s, true);
    check_values("after a step", b.s.layer[2].b, before);
    for (int i = 0; i < 2; i++) { // twice in a row
        count(&b, 2, second, sure);
        bias_state_move(&b.s, BIAS_EVERY_MICRO_BATCH);
        count(&b, 2, second, sure);
        bias_state_move(&b.s, BIAS_EVERY_MICRO_BATCH);
        count(&b, 2, second, sure); // under way
        bias_state_end_step(&b.s, false);
        check_values("after a skipped one", b.s.layer[2].b, before);
        check_values("use of the phase", b.s.layer[2].phase, counted);
        check_values("use", b.s.layer[2].usage, none);
    }
    count(&b, 2, second, sure);
    bias_state_move(&b.s, BIAS_EVERY_MICRO_BATCH);
    bias_state_end_step(&b.s, true);
    check_values("after the next", b.s.layer[2].b, after);
    check_values("use of the phase", b.s.layer[2].phase, both);
    bias_close(&b);
}

static void reports_have_a_value_for_each_moe_layer(void **state)
{
    (void)state;
    struct bias b;
    char text[1024];
    bias_open(&b, &(struct routing_options){.bias_rate = 0});
    for (int e = 0; e < E; e++) {
        data_f32(b.s.layer[0].b)[e] = (float)(e - 2);
        data_f32(b.s.layer[2].b)[e] = (float)(10 - e * e);
    }
    json_t *out = json_object();
    bias_state_report(&b.s, out);
    bias_state_values(&b.s, out);
    text[json_dumpb(out, text, sizeof text - 1, JSON_SORT_KEYS | JSON_COMPACT)] = 0;
    assert_string_equal(text, "{\"bias\":[[-2.0,-1.0,0.0,1.0],[10.0,9.0,6.0,1.0]],"
                              "\"bias_changed\":[0.0,0.0],\"bias_max\":[1.0,10.0],"
                              "\"bias_min\":[-2.0,1.0]}");
    json_decref(out);
    bias_close(&b);
}

// Of K choices a token, how many are not those that p alone would make.
static void changed_choices_are_a_share(void **state)
{
    (void)state;
    for (int telemetry = 0; telemetry < 2; telemetry++) {
        struct bias b;
        float p[N * E] = {0.4F, 0.3F, 0.2F, 0.1F, 0.4F, 0.3F, 0.2F, 0.1F, 0.4F, 0.3F, 0.2F, 0.1F};
        int32_t routed[N * K] = {0, 1, 1, 2, 2, 3}; // 0, 1 and 2 others
        bias_open(&b, &(struct routing_options){.without_telemetry = !telemetry});
        bias_state_plain(&b.s, tensor_2d(p, DTYPE_F32, N, E), K);
        bias_state_compare(&b.s, 2, tensor_2d(routed, DTYPE_I32, N, K));
        for (int i = 0; i < 2; i++) {
            json_t *out = json_object();
            bias_state_report(&b.s, out);
            const json_t *changed = json_object_get(out, "bias_changed");
            assert_int_equal(json_array_size(changed), 2);
            const double share = json_real_value(json_array_get(changed, 1));
            assert_true(fabs(share - (telemetry && !i ? 0.5 : 0)) < 1e-12); // once
            assert_true(json_real_value(json_array_get(changed, 0)) == 0);
            json_decref(out);
        }
        bias_close(&b);
    }
}

static const char released_layout[] =
    "{'metadata':{'total_moe_layers':2,'save_timestamp':'not recorded','model_type':'olmoe'},"
    "'moe_bias_states':{'model.layers.0.mlp':{'bias_values':[0.0,0.0,0.0,0.0],"
    "'usage_sums':[0.0,0.0,0.0,0.0],'bias_update_speed':0.5,'num_experts':4,"
    "'module_type':'SparseMoeBlock','device':'cpu','dtype':'torch.float32'},"
    "'model.layers.2.mlp':{'bias_values':[-0.5,-0.5,0.5,0.5],'usage_sums':[3.0,2.0,1.0,0.0],"
    "'bias_update_speed':0.5,'num_experts':4,'module_type':'SparseMoeBlock','device':'cpu',"
    "'dtype':'torch.float32'}}}"; // ' for "

static void the_file_has_the_released_layout(void **state)
{
    (void)state;
    const char *dir = test_dir();
    struct error err = {0};
    char path[1200], quoted[sizeof released_layout], *text;
    size_t size;
    struct bias b;
    for (size_t i = 0; i < sizeof quoted; i++) {
        quoted[i] = released_layout[i] == '\'' ? '"' : released_layout[i];
    }
    bias_open(&b, &(struct routing_options){
                      .bias_rate = 0.5, .bias_sign = BIAS_BALANCE, .bias_usage = BIAS_USAGE_COUNT});
    count(&b, 2, first, sure);
    bias_state_end_step(&b.s, true);
    check_ok(bias_state_save(&b.s, dir, "olmoe", &err), &err);
    snprintf(path, sizeof path, "%s/moe_bias_states.json", dir);
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    json_t *file = json_loads(text, 0, NULL);
    json_t *want = json_loads(quoted, 0, NULL);
    assert_non_null(file);
    assert_non_null(want);
    if (!json_equal(file, want)) fail_msg("found %s", text);
    json_decref(want);
    json_decref(file);
    mem_free(text);

    // What is not finite is not saved, and the file stays.
    data_f32(b.s.layer[2].phase)[3] = INFINITY;
    check_error(bias_state_save(&b.s, dir, "olmoe", &err), &err,
                "layer 2: the bias, or the experts'");
    float *values = bias_file_read(path, &config, &err);
    assert_non_null(values);
    assert_true(values[2 * E + 3] == 0.5F && values[L * E + 2 * E] == 3);
    assert_true(values[E] == 0 && values[L * E + E] == 0); // the dense layer
    mem_free(values);
    bias_close(&b);
}

static void what_was_saved_is_loaded(void **state)
{
    (void)state;
    const char *dir = test_dir();
    struct error err = {0};
    char path[1200];
    struct bias b, other;
    bias_open(&b, &(struct routing_options){0});
    bias_open(&other, &(struct routing_options){0});
    for (int e = 0; e < E; e++) {
        data_f32(b.s.layer[0].b)[e] = 0.1F * (float)(e + 1);
        data_f32(b.s.layer[0].phase)[e] = 1.0F / (float)(e + 3);
        data_f32(b.s.layer[2].b)[e] = -1e-7F * (float)(e + 1);
        data_f32(b.s.layer[2].phase)[e] = 1e7F * (float)e;
    }
    check_ok(bias_state_save(&b.s, dir, "olmoe", &err), &err);
    snprintf(path, sizeof path, "%s/moe_bias_states.json", dir);
    check_ok(bias_state_load(&other.s, path, &config, &err), &err);
    for (int l = 0; l < L; l += 2) {
        check_values("bias", other.s.layer[l].b, data_f32(b.s.layer[l].b));
        check_values("use", other.s.layer[l].phase, data_f32(b.s.layer[l].phase));
    }
    check_error(bias_state_load(&other.s, "/no/such/file", &config, &err), &err, "/no/such/file");
    bias_close(&b);
    bias_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(use_is_counted_and_moves_the_bias),
        cmocka_unit_test(a_limit_clamps),
        cmocka_unit_test(a_skipped_step_gives_back_what_it_moved),
        cmocka_unit_test(reports_have_a_value_for_each_moe_layer),
        cmocka_unit_test(changed_choices_are_a_share),
        cmocka_unit_test(the_file_has_the_released_layout),
        cmocka_unit_test(what_was_saved_is_loaded),
    };
    return cmocka_run_group_tests_name("bias state", tests, NULL, NULL);
}
