// tests/train/test_train_parity.c - the loss of 20 steps of AdamW with clipping against transformers and
// torch.optim.AdamW (fixtures/make_parity.py, train()), in float32 and in bfloat16.
#include "parity.h"

#include "train/optimizer.h"

#include <math.h>

// As in make_parity.py.
static const struct train_options options = {
    .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};

static double step(struct model *m, struct optimizer *o, const struct batch *b, int n, double *norm)
{
    model_zero_grad(m);
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)b->supervised);
    model_backward(m, b);
    optimizer_measure(o, m->loss_sum, options.clip);
    optimizer_update(o, &options, options.lr, n + 1);
    assert_true(optimizer_outcome(o, norm));
    return model_take_loss(m) / (double)b->supervised;
}

// Trains, and returns the largest relative difference of a step's loss from the reference; *curve: of all
// losses together (Frobenius).
static double train(const struct parity *p, const struct model_setup *s, const char *reference,
                    double *norm_error, double *curve)
{
    struct model m;
    struct optimizer o;
    struct error err = {0};
    const float *want = data_f32(fixture_get(&p->reference, reference));
    const float *norm = data_f32(fixture_get(&p->reference, "train.grad_norm"));
    double worst = 0, difference = 0, square = 0;
    parity_model(&m, s);
    check_ok(optimizer_open(&o, s->ops, &m.leaves, &err), &err);
    *norm_error = 0;
    for (int n = 0; n < PARITY_STEPS; n++) {
        double got_norm = 0;
        const double w = (double)want[n];
        const double got = step(&m, &o, &p->batch[n % PARITY_BATCHES], n, &got_norm);
        worst = fmax(worst, fabs(got - w) / w);
        difference += (got - w) * (got - w), square += w * w;
        *norm_error = fmax(*norm_error, fabs(got_norm / (double)norm[n] - 1));
    }
    *curve = sqrt(difference / square);
    optimizer_close(&o);
    model_close(&m);
    return worst;
}

static void losses_match_in_float32(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        parity_open(&p, parity_cases[i].name);
        struct model_setup s = parity_setup(&p, &parity_cases[i], DTYPE_F32);
        double norm = 0, curve = 0;
        s.recompute = i % 2;
        const double worst = train(&p, &s, "train.loss", &norm, &curve);
        print_message("%s %s: losses within %.1e, norms within %.1e\n", p.name,
                      parity_cases[i].layout, worst, norm);
        assert_true(worst <= 1e-4);
        assert_true(norm <= 1e-3);
        parity_close(&p);
    }
}

static void losses_match_in_bfloat16(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_BF16);
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        parity_open(&p, parity_cases[i].name);
        const struct model_setup s = parity_setup(&p, &parity_cases[i], DTYPE_BF16);
        double norm = 0, curve = 0;
        const double worst = train(&p, &s, "bf16.train.loss", &norm, &curve);
        print_message("%s %s: bf16 curve within %.1e, its worst step %.1e\n", p.name,
                      parity_cases[i].layout, curve, worst);
        assert_true(worst <= 1e-2 && curve <= 1e-2);
        parity_close(&p);
    }
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_match_in_float32),
        cmocka_unit_test(losses_match_in_bfloat16),
    };
    return cmocka_run_group_tests_name("train parity", tests, NULL, NULL);
}
