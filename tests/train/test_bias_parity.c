// tests/train/test_bias_parity.c - the bias after 50 steps of the trainer, with four micro-batches a step,
// against an independent training run in Python (fixtures/make_routing.py, CASES): bit for bit, since only
// signs matter and no sign of that run hangs on rounding; and the losses and the sums of u beside it.
#include "parity.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include "routing/layer_key.h"
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEPS = 50 };

struct bias_case {
    const char *name, *model, *routing;
    const char *condensers; // of each MoE layer; NULL: no second phase
    struct routing_options options;
};

static const struct bias_case cases[] = {
    {"soft", "olmoe", "bias", NULL, {.bias_rate = 1e-3}},
    {"count",
     "olmoe-norm",
     "bias",
     NULL,
     {.bias_rate = 2e-2,
      .bias_in = BIAS_IN_LOGITS,
      .bias_usage = BIAS_USAGE_COUNT,
      .bias_sign = BIAS_BALANCE}},
    {"limit",
     "qwen",
     "bias",
     NULL,
     {.bias_rate = 1e-2, .bias_in = BIAS_IN_LOGITS, .bias_limit = 0.13}},
    {"micro",
     "qwen-norm",
     "bias",
     NULL,
     {.bias_rate = 3e-4, .bias_usage = BIAS_USAGE_COUNT, .bias_every = BIAS_EVERY_MICRO_BATCH}},
    {"losses",
     "olmoe",
     "bias",
     NULL,
     {.bias_rate = 5e-4, .bias_sign = BIAS_BALANCE, .aux_coef = 0.02, .z_coef = 1e-3}},
    {"paper",
     "olmoe-norm",
     "condenser",
     "1,4,2",
     {.bias_rate = 1e-3, .phase2_rate = 5e-4, .condenser_gate = CONDENSER_SIGMOID}},
    {"released",
     "qwen",
     "condenser",
     "2,1",
     {.bias_rate = 1e-2,
      .phase2_rate = 3e-3,
      .bias_usage = BIAS_USAGE_COUNT,
      .condenser_preset = CONDENSER_RELEASED}},
};
enum { CASES = (int)(sizeof cases / sizeof *cases) };

static struct tensor of_case(const struct fixture *f, const struct bias_case *c, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", c->name, what);
    return fixture_get(f, name);
}

static void make_dataset(struct dataset *d, const struct fixture *f, const struct bias_case *c)
{
    const struct tensor id = of_case(f, c, "id"), learn = of_case(f, c, "learn");
    const struct tensor length = of_case(f, c, "length");
    const int64_t n = tensor_count(id), count = tensor_count(length);
    *d = (struct dataset){.id = data_i32(id), .n_tokens = n, .count = count};
    d->learn = mem_alloc((size_t)n);
    d->example = mem_zalloc((size_t)count, sizeof *d->example);
    for (int64_t i = 0; i < n; i++) {
        d->learn[i] = (uint8_t)data_i32(learn)[i];
    }
    for (int64_t i = 0, first = 0; i < count; i++) {
        const int64_t tokens = data_i32(length)[i];
        d->example[i] = (struct example){.first = first, .count = tokens};
        for (int64_t t = 1; t < tokens; t++) {
            d->example[i].supervised += d->learn[first + t];
        }
        d->supervised += d->example[i].supervised;
        first += tokens;
    }
}

static void free_dataset(struct dataset *d)
{
    mem_free(d->learn);
    mem_free(d->example);
}

static struct stage stage_of(const struct bias_case *c, bool recompute, int64_t steps)
{
    static char dir[1024];
    struct error err = {0};
    struct routing_options options = c->options;
    options.condenser_count = c->condensers;
    snprintf(dir, sizeof dir, "%s/routing/%s/v5", FIXTURES, c->model);
    // As in make_parity.py and make_routing.py.
    return (struct stage){.name = c->name,
                          .setup = {.dir = dir,
                                    .ops = &cpu_ops,
                                    .dtype = DTYPE_F32,
                                    .routing = routing_find(c->routing, &err),
                                    .routing_options = options,
                                    .tuning = tuning_find("full", &err),
                                    .recompute = recompute},
                          .options = {.batch_sequences = 2,
                                      .accumulate = 4,
                                      .max_steps = steps,
                                      .lr = 1e-3,
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .eps = 1e-8,
                                      .weight_decay = 0.1,
                                      .clip = 1,
                                      .schedule = SCHEDULE_CONSTANT}};
}

struct watcher {
    const float *loss; // of the reference
    double worst;
};

static void watch(void *user, const struct train_step *s)
{
    struct watcher *w = user;
    assert_in_range(s->step, 1, STEPS);
    const double want = (double)w->loss[s->step - 1];
    w->worst = fmax(w->worst, fabs(s->loss / want - 1));
}

static void read_floats(const json_t *layer, const char *name, float *out, int64_t E)
{
    const json_t *array = json_object_get(layer, name);
    assert_int_equal(json_array_size(array), E);
    for (int64_t e = 0; e < E; e++) {
        out[e] = (float)json_number_value(json_array_get(array, (size_t)e));
    }
}

static void check_layer(const struct fixture *f, const struct bias_case *c, const json_t *layer,
                        int64_t l)
{
    float got[MAX_EXPERTS];
    char name[32];
    snprintf(name, sizeof name, "bias.%d", (int)l);
    const struct tensor bias = of_case(f, c, name);
    const int64_t E = tensor_count(bias);
    read_floats(layer, "bias_values", got, E);
    for (int64_t e = 0; e < E; e++) {
        if (memcmp(&got[e], data_f32(bias) + e, sizeof *got) != 0)
            fail_msg("%s: layer %d: b[%d] is %.9g, %.9g expected", c->name, (int)l, (int)e,
                     (double)got[e], (double)data_f32(bias)[e]);
    }
    snprintf(name, sizeof name, "usage.%d", (int)l);
    read_floats(layer, "usage_sums", got, E);
    check_close("usage", tensor_1d(got, DTYPE_F32, E), of_case(f, c, name), 1e-5);
}

// Calls check for the entry of every MoE layer of a file in the exported model.
static void each_layer(const struct fixture *f, const struct bias_case *c, const char *dir,
                       const char *file, const char *key,
                       void (*check)(const struct fixture *f, const struct bias_case *c,
                                     const json_t *layer, int64_t l))
{
    char path[8192];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_t *all = json_parse_file(path, 1 << 20, &err);
    check_ok(all != NULL, &err);
    const json_t *layers = json_object_get(all, key);
    assert_true(json_object_size(layers) >= 2);
    const char *name;
    json_t *layer;
    json_object_foreach((json_t *)(uintptr_t)layers, name, layer)
    {
        check(f, c, layer, layer_key_parse(name));
    }
    json_decref(all);
}

static void check_condensers(const struct fixture *f, const struct bias_case *c,
                             const json_t *layer, int64_t l)
{
    char name[32];
    snprintf(name, sizeof name, "condensers.%d", (int)l);
    const struct tensor want = of_case(f, c, name);
    const json_t *got = json_object_get(layer, "forced_expert_indices");
    assert_int_equal(json_array_size(got), tensor_count(want));
    for (int64_t i = 0; i < tensor_count(want); i++) {
        assert_int_equal(json_integer_value(json_array_get(got, (size_t)i)), data_i32(want)[i]);
    }
}

static void train(const struct fixture *f, const struct bias_case *c, bool recompute)
{
    struct dataset data;
    struct train_result result;
    struct error err = {0};
    char out[1200];
    const int64_t phases = c->condensers ? 2 : 1;
    struct stage stages[2] = {stage_of(c, recompute, STEPS / phases)};
    stages[1] = stages[0];
    stages[1].phase = 1;
    struct watcher w = {.loss = data_f32(of_case(f, c, "loss"))};
    const struct train_listener listener = {.user = &w, .step = watch};
    make_dataset(&data, f, c);
    snprintf(out, sizeof out, "%s/out", test_dir());
    const struct run run = {.out = out,
                            .stage = stages,
                            .n_stages = phases,
                            .data = &data,
                            .keep_last = 1,
                            .listener = &listener};
    struct trainer *t = trainer_open(&run, &err);
    check_ok(t != NULL, &err);
    check_ok(trainer_run(t, &result, &err), &err);
    trainer_close(t);
    free_dataset(&data);
    assert_int_equal(result.step, STEPS);
    each_layer(f, c, result.exported, "moe_bias_states.json", "moe_bias_states", check_layer);
    if (c->condensers)
        each_layer(f, c, result.exported, "forced_experts_records.json", "forced_experts_records",
                   check_condensers);
    print_message("%s: losses within %.1e\n", c->name, w.worst);
    assert_true(w.worst <= 1e-4);
}

static void moves_bit_for_bit(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "routing/steps.safetensors");
    for (int i = 0; i < 2 * CASES; i++) {
        train(&f, &cases[i / 2], i % 2);
    }
    fixture_close(&f);
}

int main(void)
{
    cpu_configure(1, CPU_PRODUCTS_AUTO); // tiny products
    const struct CMUnitTest tests[] = {cmocka_unit_test(moves_bit_for_bit)};
    return cmocka_run_group_tests_name("bias parity", tests, NULL, NULL);
}
