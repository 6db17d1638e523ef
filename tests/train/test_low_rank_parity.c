// tests/train/test_low_rank_parity.c - lora and dora against peft (fixtures/make_low_rank.py): logits,
// gradients and the losses of 20 steps from adapters that peft wrote; and what must not change a bit.
#include "low_rank.h"

#include "base/mem.h"
#include "train/optimizer.h"

#include <math.h>

static struct fixture ref;

static void open_case(struct parity *p, const struct low_rank_case *c)
{
    char path[256];
    parity_open(p, c->model);
    snprintf(path, sizeof path, "tuning/%s/reference.safetensors", c->name);
    fixture_open(&ref, path);
}

static void close_case(struct parity *p)
{
    fixture_close(&ref);
    parity_close(p);
}

static void run(struct model *m, const struct batch *b)
{
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    model_backward(m, b);
}

struct checked {
    int64_t count;
    double worst;
};

static void check_gradient(struct checked *seen, const char *name, struct tensor grad)
{
    char full[2 * NAME_MAX_LENGTH];
    snprintf(full, sizeof full, "grad.%s", name);
    const struct tensor want = fixture_get(&ref, full);
    seen->count++;
    double norm = 0;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        norm += fabs((double)data_f32(want)[i]);
    }
    if (norm > 0) { // an expert without a token in this batch has none
        check_close(name, grad, want, 1e-4);
        seen->worst = fmax(seen->worst, relative_error(grad, want));
        return;
    }
    for (int64_t i = 0; i < tensor_count(grad); i++) {
        assert_true(data_f32(grad)[i] == 0);
    }
}

static bool check_own(void *user, const struct adapter_tensor *t, struct error *err)
{
    (void)err;
    check_gradient(user, t->name, t->grad);
    return true;
}

// Every gradient of the reference, and no other.
static double check_gradients(const struct model *m)
{
    struct checked seen = {0};
    struct error err = {0};
    int64_t want = 0;
    check_ok(m->setup.tuning->format->tensors(m->tuning_state, check_own, &seen, &err), &err);
    for (int64_t i = 0; i < m->weights.count; i++) {
        const struct weight *w = &m->weights.weight[i];
        if (w->learns) check_gradient(&seen, w->name, w->grad);
    }
    for (int64_t i = 0; i < ref.st.count; i++) {
        want += !strncmp(ref.st.entry[i].name, "grad.", 5);
    }
    assert_int_equal(seen.count, want);
    return seen.worst;
}

static void one_pass_is_peft_s(void **state)
{
    (void)state;
    for (int i = 0; i < LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i];
        struct parity p;
        struct model m;
        open_case(&p, c);
        const struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        parity_model(&m, &s);
        run(&m, &p.batch[0]);
        const struct tensor logits = parity_logits(&m, &p.batch[0]),
                            want = fixture_get(&ref, "logits");
        const double worst = c->fused ? 0 : check_gradients(&m);
        const double loss = model_take_loss(&m) / (double)p.batch[0].supervised;
        const double reference = (double)*data_f32(fixture_get(&ref, "loss"));
        print_message("%s over %s %s: logits %.1e, worst gradient %.1e\n", c->name, c->model,
                      c->layout, relative_error(logits, want), worst);
        check_close("logits", logits, want, 1e-5);
        assert_true(fabs(loss - reference) < 1e-5 * reference);
        mem_free(logits.data);
        model_close(&m);
        close_case(&p);
    }
}

// As in make_parity.py.
static const struct train_options options = {
    .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};

static void losses_are_peft_s(void **state)
{
    (void)state;
    for (int i = 0; i < LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i];
        struct parity p;
        struct model m;
        struct optimizer o;
        struct error err = {0};
        if (c->fused) continue; // one A for gate and up moves otherwise than two
        open_case(&p, c);
        struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        s.recompute = i % 2;
        parity_model(&m, &s);
        check_ok(optimizer_open(&o, s.ops, &m.leaves, &err), &err);
        const float *loss = data_f32(fixture_get(&ref, "train.loss"));
        const float *norm = data_f32(fixture_get(&ref, "train.grad_norm"));
        double worst = 0, worst_norm = 0;
        for (int n = 0; n < PARITY_STEPS; n++) {
            const struct batch *b = &p.batch[n % PARITY_BATCHES];
            model_zero_grad(&m);
            run(&m, b);
            double got;
            optimizer_measure(&o, m.loss_sum, options.clip);
            optimizer_update(&o, &options, options.lr, n + 1);
            assert_true(optimizer_outcome(&o, &got));
            model_refresh(&m);
            const double l = model_take_loss(&m) / (double)b->supervised;
            worst = fmax(worst, fabs(l / (double)loss[n] - 1));
            worst_norm = fmax(worst_norm, fabs(got / (double)norm[n] - 1));
        }
        print_message("%s over %s: losses within %.1e, norms within %.1e\n", c->name, c->model,
                      worst, worst_norm);
        assert_true(worst < 1e-4 && worst_norm < 1e-3);
        optimizer_close(&o);
        model_close(&m);
        close_case(&p);
    }
}

// Losses, gradients and values of two steps, to be compared bit by bit; free .data.
static struct buf everything(const struct parity *p, const struct model_setup *s)
{
    struct model m;
    struct optimizer o;
    struct error err = {0};
    struct buf all = {0};
    parity_model(&m, s);
    check_ok(optimizer_open(&o, s->ops, &m.leaves, &err), &err);
    for (int n = 0; n < 2; n++) {
        model_zero_grad(&m);
        for (int i = 0; i < 2; i++) {
            m.pass = (uint64_t)(2 * n + i);
            run(&m, &p->batch[2 * n + i]);
        }
        const double loss = model_take_loss(&m);
        assert_true(buf_append(&all, &loss, sizeof loss));
        for (int64_t i = 0; i < m.leaves.count; i++) {
            const struct leaf *f = &m.leaves.leaf[i];
            assert_true(buf_append(&all, f->grad.data, tensor_bytes(f->grad)));
            assert_true(buf_append(&all, f->value.data, tensor_bytes(f->value)));
        }
        optimizer_measure(&o, tensor_absent(), 0);
        optimizer_update(&o, &options, 1e-2, n + 1);
        model_refresh(&m);
    }
    optimizer_close(&o);
    model_close(&m);
    return all;
}

static void check_same_bits(const struct buf *want, struct buf got)
{
    assert_int_equal(want->size, got.size);
    assert_memory_equal(want->data, got.data, want->size);
    buf_free(&got);
}

static void recomputation_and_threads_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i / 4];
        struct parity p;
        parity_open(&p, c->model);
        cpu_configure(2, CPU_PRODUCTS_BF16);
        struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        s.dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        s.tuning_options.lora_dropout = i % 4 < 2 ? 0.3 : 0;
        s.tuning_options.seed = 7;
        struct buf once = everything(&p, &s);
        s.recompute = true;
        check_same_bits(&once, everything(&p, &s));
        cpu_configure(1, CPU_PRODUCTS_BF16);
        check_same_bits(&once, everything(&p, &s));
        s.recompute = false;
        s.max_tokens += 19; // a larger arena
        check_same_bits(&once, everything(&p, &s));
        if (s.tuning_options.lora_dropout > 0) { // and what should matter does
            s.tuning_options.seed = 8;
            struct buf other = everything(&p, &s);
            assert_memory_not_equal(once.data, other.data, once.size);
            buf_free(&other);
        }
        buf_free(&once);
        parity_close(&p);
    }
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

// bf16 on the same adapter: as near as rounding allows.
static void bf16_is_near(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_BF16);
    for (int i = 0; i < LOW_RANK_CASES; i++) {
        const struct low_rank_case *c = &low_rank_cases[i];
        struct parity p;
        struct model m;
        open_case(&p, c);
        struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
        s.dtype = DTYPE_BF16;
        parity_model(&m, &s);
        run(&m, &p.batch[0]);
        const double loss = model_take_loss(&m) / (double)p.batch[0].supervised;
        const double reference = (double)*data_f32(fixture_get(&ref, "loss"));
        print_message("%s over %s in bf16: loss off by %.1e\n", c->name, c->model,
                      fabs(loss / reference - 1));
        assert_true(fabs(loss / reference - 1) < 2e-2);
        model_close(&m);
        close_case(&p);
    }
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

// Dropout belongs to training: an evaluation of the same model has none, whatever the pass.
static void evaluation_drops_nothing(void **state)
{
    (void)state;
    const struct low_rank_case *c = &low_rank_cases[0];
    struct parity p;
    struct model m;
    open_case(&p, c);
    struct model_setup s = low_rank_setup(&p, c, low_rank_folder(c));
    s.tuning_options.lora_dropout = 0.5;
    parity_model(&m, &s);
    model_forward(&m, &p.batch[0], NULL, false);
    struct tensor logits = parity_logits(&m, &p.batch[0]);
    check_close("logits", logits, fixture_get(&ref, "logits"), 1e-5);
    mem_free(logits.data);
    model_forward(&m, &p.batch[0], NULL, true);
    logits = parity_logits(&m, &p.batch[0]);
    assert_true(relative_error(logits, fixture_get(&ref, "logits")) > 0.05);
    mem_free(logits.data);
    model_close(&m);
    close_case(&p);
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_pass_is_peft_s),
        cmocka_unit_test(losses_are_peft_s),
        cmocka_unit_test(recomputation_and_threads_change_no_bit),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(evaluation_drops_nothing),
    };
    return cmocka_run_group_tests_name("low rank parity", tests, NULL, NULL);
}
