// tests/train/test_states.c - the ways to keep what learns, in whole runs on a toy: they learn as float32 does,
// updates within the backward pass change no byte, what is not finite moves nothing that is saved, the plan is
// what is allocated, and an allocation that fails says who holds what.
#include "toy.h"

#include "base/log.h"
#include "tuning/smt.h"

#include <stdlib.h>
#include <sys/sysinfo.h>

// The toy with tied embeddings, or stored as bf16.
static void make_base(const struct toy *t, bool tied, const char *dtype)
{
    struct error err = {0};
    char config[2048], path[2048];
    snprintf(config, sizeof config, "%s", toy_config);
    char *at = strstr(config, "\"tie_word_embeddings\": false");
    assert_non_null(at);
    if (tied)
        memcpy(at, "\"tie_word_embeddings\": true ", strlen("\"tie_word_embeddings\": true "));
    snprintf(path, sizeof path, "%s.json", t->base);
    check_ok(file_write(path, config, strlen(config), &err), &err);
    const struct model_init_options o = {
        .config = path, .out = t->base, .dtype = dtype, .seed = 11, .overwrite = true};
    check_ok(model_init(&o, &err), &err);
}

// One micro-batch a step and no clipping, which is what fused updates ask for.
static void open_single(struct toy *t)
{
    toy_open(t);
    t->stage.options.accumulate = 1;
    t->stage.options.clip = 0;
}

static void run_to(struct toy *t, const char *name)
{
    struct error err = {0};
    char path[64];
    snprintf(path, sizeof path, "../%s", name);
    other_out(t, path);
    check_ok(toy_run(t, &err), &err);
    assert_int_equal(t->result.outcome, TRAIN_DONE);
}

static const char *file_of(const struct toy *t, const char *run, const char *file)
{
    char name[256];
    snprintf(name, sizeof name, "../%s/%s", run, file);
    return toy_path(t->base, name);
}

static void check_same_run(const struct toy *t, const char *a, const char *b, int64_t step)
{
    static const char *const files[] = {"values", "m", "v"};
    char name[128];
    check_same_folder(file_of(t, a, "model"), file_of(t, b, "model"));
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "checkpoint-%d/%s.safetensors", (int)step, files[i]);
        check_same_file(file_of(t, a, name), file_of(t, b, name));
    }
}

static void updates_within_the_pass_change_no_byte(void **unused)
{
    (void)unused;
    for (int i = 0; i < 4; i++) {
        struct toy t;
        open_single(&t);
        make_base(&t, i % 2, "f32");
        t.stage.setup.recompute = i > 1;
        if (i == 3) t.stage.setup.tuning_options.freeze = "model.layers.0.*,model.embed*";
        run_to(&t, "plain");
        t.stage.setup.storage.shared_gradients = true;
        run_to(&t, "fused");
        check_same_run(&t, "plain", "fused", 12);
        t.stage.setup.host_states = true;
        run_to(&t, "host");
        check_same_run(&t, "plain", "host", 12);
        toy_close(&t);
    }
}

// The last of 20 losses, beside that of float32 throughout.
static double last_loss(const struct leaf_storage *s, uint64_t seed)
{
    struct toy t;
    open_single(&t);
    make_base(&t, false, "bf16");
    t.stage.options.max_steps = 20;
    t.stage.options.seed = seed;
    t.stage.options.shuffle = false;
    t.stage.setup.dtype = DTYPE_BF16;
    t.stage.setup.storage = *s;
    run_to(&t, "run");
    toy_close(&t);
    return t.result.loss;
}

static void fewer_bits_learn_as_float32_does(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        double limit; // of the difference, relative to the loss
        struct leaf_storage storage;
    } all[] = {
        {"bf16", 0.003, {.states = STATES_BF16}},
        {"8bit", 0.005, {.states = STATES_8BIT}},
        {"none", 0.005, {.no_masters = true}},
        {"none and 8bit", 0.01, {.states = STATES_8BIT, .no_masters = true}},
    };
    const double f32 = last_loss(&(struct leaf_storage){0}, 3);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const double loss = last_loss(&all[i].storage, 3);
        print_message("%s: loss %.5f, float32 %.5f\n", all[i].name, loss, f32);
        assert_true(loss < 3.3 && fabs(loss - f32) < all[i].limit * f32);
        assert_true(loss < f32 || loss > f32); // it is another computation
    }
    const struct leaf_storage *bf16 = &all[0].storage;
    const double other = last_loss(bf16, 4), same = last_loss(bf16, 3);
    assert_true(same >= last_loss(bf16, 3) && same <= last_loss(bf16, 3));
    assert_true(other < same || other > same); // the seed draws
}

// Without masters what learns has its stored type: the checkpoint's values are the export's.
static void without_masters_the_stored_values_move(void **unused)
{
    (void)unused;
    struct toy t;
    struct safetensors saved, model, base;
    struct error err = {0};
    open_single(&t);
    make_base(&t, false, "bf16");
    t.stage.setup.dtype = DTYPE_BF16;
    t.stage.setup.storage.no_masters = true;
    run_to(&t, "run");
    const char *values = file_of(&t, "run", "checkpoint-12/values.safetensors");
    check_ok(safetensors_open(&saved, values, &err), &err);
    check_ok(safetensors_open(&model, file_of(&t, "run", "model/model.safetensors"), &err), &err);
    check_ok(safetensors_open(&base, toy_path(t.base, "model.safetensors"), &err), &err);
    int64_t bare = 0;
    for (int64_t i = 0; i < model.count; i++) {
        const struct tensor now = model.entry[i].tensor;
        const struct tensor was = safetensors_find(&base, model.entry[i].name)->tensor;
        const struct tensor value = safetensors_find(&saved, model.entry[i].name)->tensor;
        assert_int_equal(value.dtype, now.rank > 1 ? DTYPE_BF16 : DTYPE_F32);
        if (now.rank < 2) continue;
        bare++;
        assert_memory_equal(value.data, now.data, tensor_bytes(now));
        assert_memory_not_equal(was.data, now.data, tensor_bytes(now));
    }
    assert_true(bare > 10);
    safetensors_close(&saved);
    safetensors_close(&model);
    safetensors_close(&base);
    t.stage.setup.dtype = DTYPE_F32;
    check_error(toy_run(&t, &err), &err, "--master-weights none needs --dtype bf16");
    toy_close(&t);
}

static void a_loss_that_is_not_finite_moves_nothing(void **unused)
{
    (void)unused;
    struct toy t;
    open_single(&t);
    toy_model(t.base, "model.embed_tokens.weight", (TOY_VOCAB - 1) * 16);
    t.data.id[t.data.example[7].first] = TOY_VOCAB - 1;
    t.stage.setup.tuning_options.freeze = "model.embed_tokens.*";
    run_to(&t, "plain");
    assert_int_equal(t.result.skipped, 1);
    t.stage.setup.storage.shared_gradients = true;
    run_to(&t, "fused");
    assert_int_equal(t.result.skipped, 1);
    check_same_run(&t, "plain", "fused", 12);
    toy_close(&t);
}

// A backend whose embedding gets a gradient that is not finite in one pass, though the loss is.
static int passes, bad_pass;

static void bad_embedding_backward(struct tensor dtable, struct tensor dy, struct tensor ids)
{
    cpu_ops.embedding_backward(dtable, dy, ids);
    if (++passes == bad_pass) data_f32(dtable)[5] = NAN;
}

static void bad_gradients_end_the_run_and_are_not_saved(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    struct ops bad = cpu_ops;
    bad.embedding_backward = bad_embedding_backward;
    open_single(&t);
    t.stage.setup.ops = &bad;
    t.run.save_every = 2;
    passes = 0, bad_pass = 6;
    run_to(&t, "plain");
    assert_int_equal(t.result.skipped, 1);

    t.stage.setup.storage.shared_gradients = true;
    other_out(&t, "../fused");
    passes = 0;
    check_error(toy_run(&t, &err), &err, "--fused-backward has moved weights");
    assert_non_null(strstr(err.msg, "step 6") && strstr(err.msg, "of step 4") ? err.msg : NULL);
    assert_true(file_exists(file_of(&t, "fused", "checkpoint-4")));
    assert_false(file_exists(file_of(&t, "fused", "checkpoint-6")));
    assert_false(file_exists(file_of(&t, "fused", "model")));

    t.stage.setup.storage.shared_gradients = false; // as the message says
    t.run.resume = true;
    passes = 4;
    check_ok(toy_run(&t, &err), &err);
    assert_int_equal(t.result.skipped, 1);
    check_same_run(&t, "plain", "fused", 12);
    toy_close(&t);
}

static void what_does_not_go_together_is_refused(void **unused)
{
    (void)unused;
    struct toy t;
    struct error err = {0};
    open_single(&t);
    t.stage.setup.storage.shared_gradients = true;
    t.stage.options.accumulate = 2;
    check_error(toy_run(&t, &err), &err, "--accumulate 1 expected, not 2");
    t.stage.options.accumulate = 1;
    t.stage.options.clip = 1;
    check_error(toy_run(&t, &err), &err, "--clip 0 expected, not 1");
    t.stage.options.clip = 0;
    struct model_setup m = t.stage.setup;
    m.tuning = &smt_by_training; // looks at the gradients of each step
    check_error(train_storage_check(&m, &t.stage.options, &err), &err, "sum of their gradients");
    m.tuning = &smt_by_activation; // has no gradients
    check_ok(train_storage_check(&m, &t.stage.options, &err), &err);
    assert_false(file_exists(t.out));
    toy_close(&t);
}

// Bytes that the backend was asked for and holds, and the most of them; of its allocations one may fail.
static struct {
    size_t now, most;
    int count, fails;
} memory;

static void *counted_allocate(size_t bytes)
{
    if (++memory.count == memory.fails) return NULL;
    memory.now += bytes;
    if (memory.now > memory.most) memory.most = memory.now;
    return cpu_ops.allocate(bytes);
}

static void counted_release(void *p, size_t bytes)
{
    memory.now -= bytes;
    cpu_ops.release(p, bytes);
}

static struct ops counted_ops(int fails)
{
    struct ops o = cpu_ops;
    o.allocate = counted_allocate;
    o.release = counted_release;
    memory.now = memory.most = 0;
    memory.count = 0, memory.fails = fails;
    return o;
}

static void plan_of(struct toy *t, struct plan *p, size_t *model)
{
    struct error err = {0};
    struct trainer *trainer = trainer_open(&t->run, &err);
    check_ok(trainer != NULL, &err);
    check_ok(plan_make(p, trainer, &err), &err);
    *model = 0;
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        *model += trainer_model(trainer)->plan[i];
    }
    trainer_close(trainer);
    mem_free(p->module);
    p->module = NULL;
}

static void the_plan_is_what_is_allocated(void **unused)
{
    (void)unused;
    static const struct leaf_storage all[] = {{0},
                                              {.states = STATES_BF16},
                                              {.states = STATES_8BIT},
                                              {.no_masters = true},
                                              {.shared_gradients = true},
                                              {STATES_8BIT, true, true}};
    struct plan plain = {0}, p;
    for (int i = 0; i < 12; i++) {
        struct toy t;
        struct error err = {0};
        const struct ops o = counted_ops(0);
        size_t model, per[PURPOSE_COUNT];
        open_single(&t);
        make_base(&t, false, "bf16");
        t.stage.setup.ops = &o;
        t.stage.setup.dtype = DTYPE_BF16;
        t.stage.setup.storage = all[i % 6];
        t.stage.setup.host_states = i >= 6;
        plan_of(&t, &p, &model);
        assert_int_equal(memory.most, 0); // nothing was allocated for it
        check_ok(toy_run(&t, &err), &err);
        assert_true(memory.most >= model && memory.most <= model + 64);
        assert_int_equal(memory.now, 0);
        assert_int_equal(p.in_host, i >= 6 ? p.by_purpose[PURPOSE_OPTIMIZER] : 0);
        memcpy(per, p.by_purpose, sizeof per);
        if (!i) plain = p;
        const size_t n = (size_t)p.learning;
        const struct leaf_storage *s = &all[i % 6];
        static const size_t bytes[] = {8, 4, 2}; // of two moments, and 8 for each 256 codes
        const size_t least = bytes[s->states] * n;
        assert_true(per[PURPOSE_OPTIMIZER] >= least && per[PURPOSE_OPTIMIZER] < least + n);
        assert_true(s->shared_gradients
                        ? 2 * per[PURPOSE_GRADIENTS] < plain.by_purpose[PURPOSE_GRADIENTS] * 3 / 2
                        : per[PURPOSE_GRADIENTS] == plain.by_purpose[PURPOSE_GRADIENTS]);
        assert_true(!s->no_masters ||
                    per[PURPOSE_WEIGHTS] < plain.by_purpose[PURPOSE_WEIGHTS] * 2 / 3);
        assert_true((p.checkpoint_bytes < plain.checkpoint_bytes) ==
                    (s->no_masters || s->states != STATES_F32));
        toy_close(&t);
    }
}

static void a_failed_allocation_says_who_holds_what(void **unused)
{
    (void)unused;
    static const char *const wanted[] = {"weights", "optimizer", "activations"};
    static const char *const held[] = {"held already: nothing", "held already: weights",
                                       "optimizer"};
    for (int fails = 1; fails <= 3; fails++) {
        struct toy t;
        struct error err = {0};
        const struct ops o = counted_ops(fails);
        open_single(&t);
        t.stage.setup.ops = &o;
        t.stage.setup.host_states = true;
        check_error(toy_run(&t, &err), &err, "cpu: no memory for ");
        const char *more = strchr(err.msg, '('), *already = strstr(err.msg, "held already");
        assert_true(more && already && strstr(more, wanted[fails - 1]) < already);
        assert_non_null(strstr(more, wanted[fails - 1]));
        assert_non_null(strstr(already, held[fails - 1]));
        assert_null(strchr(err.msg, '\n'));
        assert_int_equal(memory.now, 0);
        assert_false(file_exists(t.out));
        toy_close(&t);
    }
}

// What is asked for one piece after another counts together; nothing of it is touched here.
static void more_than_the_machine_has_is_refused(void **unused)
{
    (void)unused;
    struct sysinfo s;
    assert_int_equal(sysinfo(&s), 0);
    const size_t most = (size_t)(s.totalram + s.totalswap) * s.mem_unit / 10 * 6;
    for (int i = 0; i < 2; i++) {
        void *p = cpu_ops.allocate(most);
        if (!p) skip(); // the system promises less
        assert_null(cpu_ops.allocate(most));
        cpu_ops.release(p, most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_within_the_pass_change_no_byte),
        cmocka_unit_test(fewer_bits_learn_as_float32_does),
        cmocka_unit_test(without_masters_the_stored_values_move),
        cmocka_unit_test(a_loss_that_is_not_finite_moves_nothing),
        cmocka_unit_test(bad_gradients_end_the_run_and_are_not_saved),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(the_plan_is_what_is_allocated),
        cmocka_unit_test(a_failed_allocation_says_who_holds_what),
        cmocka_unit_test(more_than_the_machine_has_is_refused),
    };
    cpu_configure(1, CPU_PRODUCTS_AUTO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
