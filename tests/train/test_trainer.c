// tests/train/test_trainer.c - whole runs on a toy model: it learns, what is skipped moves nothing, the
// best is kept, unequal micro-batches weigh by their tokens.
#include "toy.h"

#include "base/log.h"
#include "io/json.h"

static int64_t lines_of(const char *out, json_t *line[64])
{
    char *text;
    size_t size;
    int64_t n = 0;
    struct error err = {0};
    check_ok(file_read(&text, &size, toy_path(out, "metrics.jsonl"), 1 << 20, &err), &err);
    for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1) {
        assert_true(n < 64);
        line[n] = json_parse(at, (size_t)(end - at), "metrics.jsonl", &err);
        check_ok(line[n] != NULL, &err);
        n++;
    }
    mem_free(text);
    return n;
}

static double number(const json_t *line, const char *key)
{
    const json_t *x = json_object_get(line, key);
    return json_is_number(x) ? json_number_value(x) : (double)NAN;
}

static void free_lines(json_t *line[64], int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        json_decref(line[i]);
    }
}

static void it_learns(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    json_t *line[64];
    toy_open(&t);
    t.stage.options.max_steps = 40;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(t.result.outcome, TRAIN_DONE);
    assert_int_equal(t.result.step, 40);
    assert_int_equal(t.result.skipped, 0);
    const int64_t n = lines_of(t.out, line);
    assert_int_equal(n, 40);
    const double first = number(line[0], "loss"), last = number(line[39], "loss");
    assert_true(first > 3.2 && first < 4.5);
    assert_true(last < 0.75 * first);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(number(line[i], "step"), i + 1);
        assert_true(number(line[i], "tokens") > 40 && number(line[i], "tokens") <= 80);
        assert_true(number(line[i], "lr") ==
                    schedule_lr(&t.stage.options, i, t.stage.options.max_steps));
    }
    free_lines(line, n);
    assert_true(file_exists(toy_path(t.out, "model/model.safetensors")));
    assert_true(file_exists(toy_path(t.out, "model/config.json")));
    assert_true(file_exists(toy_path(t.out, "checkpoint-40/manifest.json")));
    assert_false(file_exists(toy_path(t.out, "model.tmp")));
    assert_string_equal(t.result.exported, toy_path(t.out, "model"));
    check_error(toy_run(&t, &err), &err, "holds a run");
    toy_close(&t);
}

// The first step's loss and gradient norm of one batch of 8 unequal examples, cut into micro-batches of
// `sequences`.
static void first_step(int64_t sequences, double *loss, double *norm)
{
    struct toy t;
    struct error err = {0};
    json_t *line[64];
    toy_open(&t);
    toy_data_free(&t.data);
    toy_data(&t.data, 8, 77);
    t.stage.options.batch_tokens = 0;
    t.stage.options.batch_sequences = sequences;
    t.stage.options.accumulate = 8 / sequences;
    t.stage.options.max_steps = 1;
    t.stage.options.shuffle = false;
    check_ok(toy_run(&t, &err), &err);
    const int64_t n = lines_of(t.out, line);
    *loss = number(line[0], "loss");
    *norm = number(line[0], "grad_norm");
    free_lines(line, n);
    toy_close(&t);
}

static void accumulation_weighs_by_tokens(void **unused)
{
    (void)unused;
    double loss[4], norm[4];
    for (int i = 0; i < 4; i++) {
        first_step(1 << i, &loss[i], &norm[i]);
        assert_true(fabs(loss[i] - loss[0]) < 1e-6 * loss[0]);
        assert_true(fabs(norm[i] - norm[0]) < 1e-5 * norm[0]);
    }
}

// The embedding of one token is NaN and frozen; the token is in one example only.
static void a_step_without_a_finite_loss_moves_nothing(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    json_t *line[64];
    toy_open(&t);
    toy_model(t.base, "model.embed_tokens.weight", (TOY_VOCAB - 1) * 16);
    t.data.id[t.data.example[7].first] = TOY_VOCAB - 1;
    t.stage.setup.tuning_options.freeze = "model.embed_tokens.*";
    t.stage.options.max_steps = 0;
    t.stage.options.epochs = 1;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(t.result.skipped, 1);
    const int64_t n = lines_of(t.out, line);
    assert_int_equal(n, t.result.steps);
    int64_t nulls = 0;
    for (int64_t i = 0; i < n; i++) {
        nulls += json_is_null(json_object_get(line[i], "loss"));
        assert_true(number(line[i], "skipped") <= 1);
    }
    assert_int_equal(nulls, 1);
    free_lines(line, n);

    // Without that example's step there is nothing else to skip, and its weights would be finite.
    struct safetensors st;
    const char *path = toy_path(t.out, "model/model.safetensors");
    check_ok(safetensors_open(&st, path, &err), &err);
    const struct tensor head = safetensors_find(&st, "lm_head.weight")->tensor;
    for (int64_t i = 0; i < tensor_count(head); i++) {
        assert_true(isfinite(data_f32(head)[i]));
    }
    safetensors_close(&st);
    toy_close(&t);
}

static void three_in_a_row_stop_the_run(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    json_t *line[64];
    toy_open(&t);
    toy_model(t.base, "model.layers.1.self_attn.q_proj.weight", 5);
    check_error(toy_run(&t, &err), &err,
                "model.layers.1.self_attn.q_proj.weight holds what is not finite, and would learn");
    assert_false(file_exists(t.out));

    t.stage.setup.tuning_options.freeze = "model.layers.1.self_attn.q_proj.*";
    check_error(toy_run(&t, &err), &err, "3 steps in a row");
    assert_int_equal(t.result.skipped, 3);
    const int64_t n = lines_of(t.out, line);
    assert_int_equal(n, 3);
    free_lines(line, n);
    assert_false(file_exists(toy_path(t.out, "checkpoint-3")));
    assert_false(file_exists(toy_path(t.out, "model")));
    toy_close(&t);
}

static void a_huge_rate_is_never_saved(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    t.stage.options.lr = 1e30;
    t.stage.options.warmup_ratio = 0;
    t.stage.options.weight_decay = 1e30;
    check_error(toy_run(&t, &err), &err, "step");
    assert_false(file_exists(toy_path(t.out, "model")));
    toy_close(&t);
}

static void damage(const char *path)
{
    char *bytes;
    size_t size;
    struct error err = {0};
    check_ok(file_read(&bytes, &size, path, 1 << 24, &err), &err);
    bytes[size - 1] ^= 1;
    check_ok(file_write(path, bytes, size, &err), &err);
    mem_free(bytes);
}

static void the_best_is_kept_and_exported(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    json_t *line[64];
    toy_open(&t);
    t.run.validation = &t.validation;
    t.stage.options.lr = 3e-2; // learns the few examples by heart, then the validation loss rises
    t.stage.options.max_steps = 60;
    t.stage.options.eval_every = 5;
    t.stage.options.patience = 3;
    t.stage.options.schedule = SCHEDULE_CONSTANT;
    toy_data_free(&t.data);
    toy_data(&t.data, 12, 8);
    t.run.keep_last = 1;
    t.run.export_best = true;
    check_ok(toy_run(&t, &err), &err);
    assert_true(t.result.early);
    assert_true(t.result.step < 60 && t.result.step == t.result.best_step + 15);
    const int64_t n = lines_of(t.out, line);
    assert_int_equal(n, t.result.step);
    double best = (double)INFINITY;
    int64_t evaluations = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!json_object_get(line[i], "eval_loss")) continue;
        evaluations++;
        best = fmin(best, number(line[i], "eval_loss"));
    }
    assert_int_equal(evaluations, t.result.step / 5);
    assert_true(best == t.result.best_loss);
    free_lines(line, n);

    char name[64];
    snprintf(name, sizeof name, "checkpoint-%d", (int)t.result.best_step);
    assert_true(file_exists(toy_path(t.out, name)));
    struct safetensors model, saved;
    char model_path[2048], saved_path[2048];
    snprintf(model_path, sizeof model_path, "%s/model/model.safetensors", t.out);
    snprintf(saved_path, sizeof saved_path, "%s/%s/values.safetensors", t.out, name);
    check_ok(safetensors_open(&model, model_path, &err), &err);
    check_ok(safetensors_open(&saved, saved_path, &err), &err);
    for (int64_t i = 0; i < model.count; i++) {
        const struct st_entry *e = safetensors_find(&saved, model.entry[i].name);
        assert_memory_equal(e->tensor.data, model.entry[i].tensor.data, tensor_bytes(e->tensor));
    }
    safetensors_close(&model);
    safetensors_close(&saved);
    // Going on with a run that ended early makes no further step.
    const int64_t ended = t.result.step;
    t.run.resume = true;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(t.result.step, ended);
    // A best checkpoint that was damaged meanwhile is not exported.
    damage(saved_path);
    check_error(toy_run(&t, &err), &err, "the best checkpoint cannot be exported");
    check_error(false, &err, "values.safetensors");
    toy_close(&t);
}

static void evaluation_changes_nothing(void **unused)
{
    (void)unused;
    struct toy with, without;
    struct error err = {0};
    toy_open(&with);
    with.run.validation = &with.validation;
    with.stage.options.eval_every = 1;
    check_ok(toy_run(&with, &err), &err);
    without = with;
    without.run.stage = &without.stage;
    without.run.validation = NULL;
    snprintf(without.out, sizeof without.out, "%s", toy_path(with.base, "../other"));
    without.run.out = without.out;
    check_ok(toy_run(&without, &err), &err);
    check_same_file(toy_path(with.out, "model/model.safetensors"),
                    toy_path(without.out, "model/model.safetensors"));
    assert_true(with.result.eval_loss > 0);
    assert_true(isnan(without.result.eval_loss));
    toy_close(&with);
}

static void wrong_options_are_named(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    toy_open(&t);
    const struct train_options good = t.stage.options;
    t.stage.options.accumulate = 0;
    check_error(toy_run(&t, &err), &err, "accumulate");
    t.stage.options = good;
    t.stage.options.lr = (double)NAN;
    check_error(toy_run(&t, &err), &err, "lr");
    t.stage.options = good;
    t.stage.options.beta2 = 1;
    check_error(toy_run(&t, &err), &err, "beta2");
    t.stage.options = good;
    t.stage.options.max_steps = 0;
    check_error(toy_run(&t, &err), &err, "epochs");
    t.stage.options = good;
    t.stage.options.batch_tokens = 7; // shorter than an example
    check_error(toy_run(&t, &err), &err, "7");
    t.stage.options = good;
    t.run.deciding = "[1";
    check_error(toy_run(&t, &err), &err, "options");
    assert_false(file_exists(t.out));
    toy_close(&t);
}

static void the_plan_says_what_learns(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    struct plan p;
    toy_open(&t);
    t.run.validation = &t.validation;
    struct trainer *trainer = trainer_open(&t.run, &err);
    check_ok(trainer != NULL, &err);
    check_ok(plan_make(&p, trainer, &err), &err);
    assert_int_equal(p.learning, p.parameters);
    bool experts = false, norm = false;
    int64_t sum = 0;
    for (int64_t i = 0; i < p.n_modules; i++) {
        const struct plan_module *m = &p.module[i];
        sum += m->parameters;
        if (!strcmp(m->name, "mlp.experts.gate_proj")) {
            experts = true;
            assert_int_equal(m->tensors, 12);
            assert_int_equal(m->parameters, 12 * 12 * 16);
        }
        norm |= !strcmp(m->name, "norm") && m->parameters == 16;
    }
    assert_true(experts && norm);
    assert_int_equal(sum, p.learning);
    assert_true(p.by_purpose[PURPOSE_OPTIMIZER] >= 2 * 4 * (size_t)p.learning);
    assert_true(p.total > p.by_purpose[PURPOSE_OPTIMIZER]);
    assert_true(p.checkpoint_bytes > 3 * 4 * (size_t)p.learning);
    assert_int_equal(p.steps, 12);
    assert_int_equal(p.warmup_steps, 2);
    assert_int_equal(p.data.examples, 40);
    assert_int_equal(p.data.supervised, t.data.supervised);
    assert_true(p.batch_tokens <= 40 && p.batch_tokens > 30);
    assert_false(file_exists(t.out));
    plan_free(&p);
    trainer_close(trainer);
    toy_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns),
        cmocka_unit_test(accumulation_weighs_by_tokens),
        cmocka_unit_test(a_step_without_a_finite_loss_moves_nothing),
        cmocka_unit_test(three_in_a_row_stop_the_run),
        cmocka_unit_test(a_huge_rate_is_never_saved),
        cmocka_unit_test(the_best_is_kept_and_exported),
        cmocka_unit_test(evaluation_changes_nothing),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(the_plan_says_what_learns),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
