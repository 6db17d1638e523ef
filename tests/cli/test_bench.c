// tests/cli/test_bench.c - what a child of `bench` is given: the model's products that it counts, for documents of
// any length.
#include "pairs.h"

#include "cli/bench_child.h"
#include "model/families.h"

// Of the toy at `base`, in documents of `sequence` tokens.
static double forward_flops(const struct toy *t, int tokens, int sequence)
{
    struct options o;
    struct bench_result r;
    struct error err = {""};
    char line[1024];
    snprintf(line, sizeof line,
             "--model %s --tokens %d --sequence %d --dtype f32 --threads 1 --device cpu",
             toy_path(t->base, ""), tokens, sequence);
    check_ok(pairs_options(&o, COMMAND_BENCH, line, &err), &err);
    const struct bench_job job = {BENCH_TRAINING, &o, o.config.model, "topk", "full", true};
    bench_measure(&r, &job);
    check_ok(r.ok, &r.err);
    assert_true(r.load_seconds > 0);
    for (int i = 0; i < BENCH_STEPS; i++) {
        assert_true(r.seconds[i] > 0);
    }
    options_close(&o);
    return r.forward_flops;
}

static void documents_have_the_length_that_was_asked_for(void **state)
{
    (void)state;
    struct toy t;
    struct model_config c;
    const struct family *family;
    struct error err = {""};
    toy_open(&t);
    check_ok(family_read_config(&family, &c, toy_path(t.base, ""), &err), &err);
    // Attention's two products, half of a square for each document.
    const double each = 4.0 * (double)(c.n_heads * c.head_dim * c.n_layers) / 2;
    const double whole = forward_flops(&t, 40, 40);
    assert_true(fabs(whole - forward_flops(&t, 40, 20) - each * (1600 - 2 * 400)) < 1);
    assert_true(fabs(whole - forward_flops(&t, 40, 15) - each * (1600 - 2 * 225 - 100)) < 1);
    toy_close(&t);
}

int main(void)
{
    cpu_configure(1, CPU_PRODUCTS_F32);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_have_the_length_that_was_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
