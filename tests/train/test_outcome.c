// tests/train/test_outcome.c - what a run's folder says afterwards: how it ended, what moved and how far, the loss
// before it, what each expert did.
#include "toy.h"

#include "io/checkpoint.h"
#include "io/json.h"
#include "train/outcome.h"

#include <signal.h>

static json_t *read_json(const char *out, const char *name)
{
    struct error err = {0};
    json_t *o = json_parse_file(toy_path(out, name), 1 << 24, &err);
    check_ok(o != NULL, &err);
    return o;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("no number %s", key);
    return json_number_value(v);
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int64_t lines_of(const char *out, json_t *line[], int64_t most)
{
    char *all;
    size_t size;
    int64_t n = 0;
    struct error err = {0};
    check_ok(file_read(&all, &size, toy_path(out, "metrics.jsonl"), 1 << 24, &err), &err);
    for (char *at = all, *end; (end = strchr(at, '\n')) && n < most; at = end + 1) {
        line[n] = json_parse(at, (size_t)(end - at), "metrics.jsonl", &err);
        check_ok(line[n++] != NULL, &err);
    }
    mem_free(all);
    return n;
}

static const struct st_entry *find(const struct checkpoint *c, const char *name)
{
    const struct st_entry *e = checkpoint_find(c, name);
    if (!e) fail_msg("no tensor %s", name);
    return e;
}

// ||b - a||^2 and ||a||^2 of tensors of two folders (f32), all whose name has `part` in it.
static void difference(const char *before, const char *after, const char *part, double *d,
                       double *w)
{
    struct checkpoint a, b;
    struct error err = {0};
    *d = *w = 0;
    check_ok(checkpoint_open(&a, before, &err), &err);
    check_ok(checkpoint_open(&b, after, &err), &err);
    const struct safetensors *st = &a.shard[0].st;
    for (int64_t i = 0; i < st->count; i++) {
        if (!strstr(st->entry[i].name, part)) continue;
        const struct tensor x = st->entry[i].tensor, y = find(&b, st->entry[i].name)->tensor;
        for (int64_t k = 0; k < tensor_count(x); k++) {
            float was, is;
            memcpy(&was, (const char *)x.data + 4 * k, 4); // may be unaligned
            memcpy(&is, (const char *)y.data + 4 * k, 4);
            *d += ((double)is - (double)was) * ((double)is - (double)was);
            *w += (double)was * (double)was;
        }
    }
    checkpoint_close(&a);
    checkpoint_close(&b);
}

static const json_t *module_of(const json_t *changes, const char *name, int64_t layer)
{
    const json_t *list = json_object_get(changes, "modules");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i), *l = json_object_get(o, "layer");
        if (!strcmp(text(o, "name"), name) && (l ? json_integer_value(l) : -1) == layer) return o;
    }
    fail_msg("no module %s of layer %d", name, (int)layer);
    return NULL;
}

static void near(double got, double want, double limit)
{
    if (!(fabs(got - want) <= limit * fabs(want))) fail_msg("%.17g, %.17g expected", got, want);
}

// The export is f32, so that the difference between two folders is exact.
static void check_changes(const char *base, const char *out)
{
    double d, w;
    json_t *changes = read_json(out, "changes.json");
    char model[2048];
    snprintf(model, sizeof model, "%s", toy_path(out, "model"));
    difference(base, model, "", &d, &w);
    assert_true(d > 0);
    near(number(changes, "difference"), sqrt(d), 1e-12);
    difference(base, model, "layers.1.self_attn.q_proj", &d, &w);
    const json_t *q = module_of(changes, "self_attn.q_proj", 1);
    near(number(q, "difference"), sqrt(d), 1e-12);
    near(number(q, "norm"), sqrt(w), 1e-12);
    near(number(q, "change"), sqrt(d / w), 1e-12);
    difference(base, model, "layers.0.mlp.experts.4.", &d, &w);
    const json_t *experts = json_array_get(json_object_get(changes, "experts"), 0);
    assert_int_equal(json_array_size(json_object_get(experts, "change")), 6);
    near(json_number_value(json_array_get(json_object_get(experts, "change"), 4)), sqrt(d / w),
         1e-12);
    json_decref(changes);
}

static void whole_weights_and_how_far(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    check_ok(toy_run(&t, &err), &err);
    check_changes(t.base, t.out);
    json_t *changes = read_json(t.out, "changes.json");
    double d, w;
    difference(t.base, toy_path(t.out, "model"), "", &d, &w);
    near(number(changes, "change"), sqrt(d / w), 1e-12); // all of it learns
    assert_int_equal(number(module_of(changes, "lm_head", -1), "parameters"), 31 * 16);
    json_decref(changes);
    toy_close(&t);
}

// An adapter's change is that of the merged weights; what has none is not there.
static void adapters_and_how_far(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    t.stage.setup.tuning = tuning_find("lora", &err);
    t.stage.setup.tuning_options = (struct tuning_options){
        .lora_rank = 2, .lora_alpha = 4, .lora_targets = "q_proj,gate_proj", .seed = 1};
    t.run.merge = true;
    check_ok(toy_run(&t, &err), &err);
    json_t *changes = read_json(t.out, "changes.json");
    double d, w;
    difference(t.base, toy_path(t.out, "model"), "layers.1.self_attn.q_proj", &d, &w);
    assert_true(d > 0);
    near(number(module_of(changes, "self_attn.q_proj", 1), "difference"), sqrt(d), 1e-6); // f32
    const json_t *modules = json_object_get(changes, "modules");
    assert_int_equal(json_array_size(modules), 4); // two modules of two layers
    json_decref(changes);
    toy_close(&t);
}

static void how_it_ended(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    t.run.plan = "{\"total\": 5}\n";
    check_ok(toy_run(&t, &err), &err);
    json_t *r = read_json(t.out, "result.json");
    assert_string_equal(text(r, "outcome"), "done");
    assert_int_equal(number(r, "step"), 12);
    assert_int_equal(strlen(text(r, "finished")), 20);
    json_decref(r);
    json_t *plan = read_json(t.out, "plan.json");
    assert_int_equal(number(plan, "total"), 5);
    json_decref(plan);
    // A resume that is refused leaves all of it as it is.
    t.run.resume = true;
    t.run.deciding = "{\"lr\": 1}";
    assert_false(toy_run(&t, &err));
    r = read_json(t.out, "result.json");
    assert_string_equal(text(r, "outcome"), "done");
    json_decref(r);
    toy_close(&t);
}

static void raise_at_5(void *user, const struct train_step *s)
{
    (void)user;
    if (s->step == 5) raise(SIGINT);
}

static void stopped_and_failed_runs(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    const struct train_listener listener = {.step = raise_at_5};
    t.run.listener = &listener;
    check_ok(toy_run(&t, &err), &err);
    json_t *r = read_json(t.out, "result.json");
    assert_string_equal(text(r, "outcome"), "stopped");
    assert_int_equal(number(r, "step"), 5);
    assert_int_equal(number(r, "steps"), 12);
    json_decref(r);
    t.run.resume = true;
    t.run.listener = NULL;
    check_ok(toy_run(&t, &err), &err);
    r = read_json(t.out, "result.json");
    assert_string_equal(text(r, "outcome"), "done");
    json_decref(r);
    toy_model(t.base, "model.layers.0.mlp.experts.1.up_proj.weight", 3); // NaN
    t.stage.setup.tuning_options.freeze = "model.layers.0.mlp.experts.1.*";
    t.run.resume = false;
    t.run.overwrite = true;
    assert_false(toy_run(&t, &err));
    r = read_json(t.out, "result.json");
    assert_string_equal(text(r, "outcome"), "failed");
    assert_string_equal(text(r, "error"), err.msg);
    assert_false(file_exists(toy_path(t.out, "changes.json"))); // that of the run before is gone
    json_decref(r);
    toy_close(&t);
}

// A run that ended for want of memory for a value says so: what that value lacks, this one has.
static void a_lost_value_is_no_lost_outcome(void **unused)
{
    (void)unused;
    struct error err = {.msg = "no memory for a part"};
    const struct train_result failed = {.step = 5, .steps = 12};
    const char *out = test_dir();
    mem_fail_at(1, false);
    assert_null(json_string("a part"));
    mem_fail_at(0, false);
    outcome_write(out, &failed, false, &err);
    json_t *r = read_json(out, "result.json");
    assert_string_equal(text(r, "error"), err.msg);
    json_decref(r);
}

// Evaluated once before the first step, and nothing else of the run is another for it.
static void the_loss_before(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    json_t *line[12];
    toy_open(&t);
    t.run.validation = &t.validation;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(lines_of(t.out, line, 12), 12);
    const double after = number(line[11], "eval_loss"), loss = number(line[11], "loss");
    assert_null(json_object_get(line[0], "eval_loss_before"));
    for (int i = 0; i < 12; i++) {
        json_decref(line[i]);
    }
    t.stage.options.eval_first = true;
    other_out(&t, "first");
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(lines_of(t.out, line, 12), 12);
    const double before = number(line[0], "eval_loss_before");
    assert_true(before > after);
    near(number(line[11], "eval_loss"), after, 0);
    near(number(line[11], "loss"), loss, 0);
    for (int i = 0; i < 12; i++) {
        assert_true(i == 0 || !json_object_get(line[i], "eval_loss_before"));
        json_decref(line[i]);
    }
    // A run that learns nothing ends where it began.
    t.stage.options.lr = 0;
    other_out(&t, "still");
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(lines_of(t.out, line, 12), 12);
    near(number(line[0], "eval_loss_before"), before, 0);
    near(number(line[11], "eval_loss"), before, 0);
    for (int i = 0; i < 12; i++) {
        json_decref(line[i]);
    }
    toy_close(&t);
}

// Each step of a short run, and a bounded number of a long one, the last among them.
static void what_each_expert_did(void **unused)
{
    (void)unused;
    enum { STEPS = 300 };
    struct toy t;
    struct error err = {0};
    static json_t *line[STEPS];
    toy_open(&t);
    t.stage.options.max_steps = STEPS;
    t.stage.options.accumulate = 1;
    t.stage.setup.routing = routing_find("bias", &err);
    t.stage.setup.routing_options.bias_rate = 0.01;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(lines_of(t.out, line, STEPS), STEPS);
    int64_t kept = 0;
    for (int i = 0; i < STEPS; i++) {
        const json_t *experts = json_object_get(line[i], "experts");
        kept += experts != NULL;
        const json_t *load = json_object_get(experts, "load"),
                     *bias = json_object_get(experts, "bias");
        assert_int_equal(json_array_size(load), experts ? 2 : 0);
        assert_int_equal(json_array_size(bias), experts ? 2 : 0);
        for (size_t l = 0; experts && l < 2; l++) {
            double sum = 0, most = -1;
            for (size_t e = 0; e < 6; e++) {
                sum += json_number_value(json_array_get(json_array_get(load, l), e));
                most = fmax(most, json_number_value(json_array_get(json_array_get(bias, l), e)));
            }
            assert_int_equal(sum, 2 * number(line[i], "tokens")); // two experts of each token
            const json_t *max = json_object_get(json_object_get(line[i], "routing"), "bias_max");
            near(most, json_number_value(json_array_get(max, l)), 1e-5);
        }
    }
    assert_in_range(kept, 150, 152);
    assert_non_null(json_object_get(line[0], "experts"));
    assert_non_null(json_object_get(line[STEPS - 1], "experts"));
    for (int i = 0; i < STEPS; i++) {
        json_decref(line[i]);
    }
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_weights_and_how_far),
        cmocka_unit_test(adapters_and_how_far),
        cmocka_unit_test(how_it_ended),
        cmocka_unit_test(stopped_and_failed_runs),
        cmocka_unit_test(a_lost_value_is_no_lost_outcome),
        cmocka_unit_test(the_loss_before),
        cmocka_unit_test(what_each_expert_did),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
