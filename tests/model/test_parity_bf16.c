// tests/model/test_parity_bf16.c - the bfloat16 pass against transformers' own (model.to(bfloat16)). Both
// round at every step, so routes may differ where two scores nearly tie; where they agree the logits do.
#include "parity.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_EXPERTS_HERE = 16 };

static void softmax(double *p, const float *z, int64_t E)
{
    double sum = 0;
    for (int64_t e = 0; e < E; e++) {
        sum += p[e] = exp((double)z[e]);
    }
    for (int64_t e = 0; e < E; e++) {
        p[e] /= sum;
    }
}

static bool has(const int32_t *route, int64_t K, int32_t expert)
{
    for (int64_t k = 0; k < K; k++) {
        if (route[k] == expert) return true;
    }
    return false;
}

// The largest distance, as a share of the larger score, between an expert that only `a` chose and one
// that only `b` chose, by the scores of z.
static double disagreement(const int32_t *a, const int32_t *b, int64_t K, const float *z, int64_t E)
{
    double p[MAX_EXPERTS_HERE], worst = 0;
    softmax(p, z, E);
    for (int64_t i = 0; i < K; i++) {
        for (int64_t j = 0; j < K; j++) {
            if (has(b, K, a[i]) || has(a, K, b[j])) continue;
            const double d = fabs(p[a[i]] - p[b[j]]) / fmax(p[a[i]], p[b[j]]);
            if (d > worst) worst = d;
        }
    }
    return worst;
}

// Marks the tokens that took another route in this layer, and checks that it was a near tie: within 1 %
// by the scores that the rounded weights give exactly (to those both sides add noise). A token that left
// transformers' path in a layer below is not judged again.
static void compare_routes(const struct parity *p, const struct model *m, int64_t l, bool *apart)
{
    const struct tensor theirs = parity_of_layer(p, "bf16.routes", l);
    const struct tensor exact = parity_of_layer(p, "bf16.exact_router_logits", l);
    const struct tensor ours = model_route(m, l).expert;
    const int64_t N = exact.dim[0], E = exact.dim[1], K = ours.dim[1];
    int64_t differ = 0;
    assert_in_range(E, 1, MAX_EXPERTS_HERE);
    assert_int_equal(tensor_count(ours), tensor_count(theirs));
    for (int64_t n = 0; n < N; n++) {
        const int32_t *a = data_i32(ours) + n * K, *b = data_i32(theirs) + n * K;
        const double d = disagreement(a, b, K, row_f32(exact, n), E);
        differ += d > 0;
        if (apart[n] || d <= 0) continue;
        apart[n] = true;
        print_message("%s: layer %d token %d routed otherwise, exact scores %.2f %% apart\n",
                      p->name, (int)l, (int)n, 100 * d);
        assert_true(d <= 0.01);
    }
    assert_true((double)differ <= 0.1 * (double)N);
}

static double error_where_together(struct tensor got, struct tensor want, const bool *apart)
{
    double difference = 0, norm = 0;
    for (int64_t n = 0; n < got.dim[0]; n++) {
        for (int64_t v = 0; !apart[n] && v < got.dim[1]; v++) {
            const double w = (double)row_f32(want, n)[v], d = (double)row_f32(got, n)[v] - w;
            difference += d * d, norm += w * w;
        }
    }
    return sqrt(difference / norm);
}

static void compare(const struct parity *p, struct model *m)
{
    const struct batch *b = &p->batch[0];
    bool apart[64] = {0};
    int64_t together = 0;
    assert_in_range(b->n, 1, 64);
    model_forward(m, b, NULL, true);
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        if (m->config.moe_layer[l]) compare_routes(p, m, l, apart);
    }
    for (int64_t n = 0; n < b->n; n++) {
        together += !apart[n];
    }
    const struct tensor logits = parity_logits(m, b);
    const double e = error_where_together(logits, fixture_get(&p->reference, "bf16.logits"), apart);
    print_message("%s: %d of %d tokens on the same way throughout, logits there %.1e\n", p->name,
                  (int)together, (int)b->n, e);
    assert_true((double)together >= 0.8 * (double)b->n); // in all layers at once
    assert_true(e <= 3e-2);
    mem_free(logits.data);
}

static void matches_transformers_in_bfloat16(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * parity_n_cases; i++) {
        const struct parity_case *c = &parity_cases[i / 2];
        struct parity p;
        struct model m;
        parity_open(&p, c->name);
        struct model_setup s = parity_setup(&p, c, DTYPE_BF16);
        if (i % 2) { // read as stored
            s.tuning_options.freeze =
                parity_dense(&p) ? "*mlp*,*self_attn*" : "*experts*,*self_attn*";
        }
        parity_model(&m, &s);
        compare(&p, &m);
        model_close(&m);
        parity_close(&p);
    }
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_BF16);
    if (cpu_ops.bf16_activations() != DTYPE_BF16) {
        print_message("skipped: no products of bfloat16 on this processor\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_transformers_in_bfloat16)};
    return cmocka_run_group_tests_name("parity in bf16", tests, NULL, NULL);
}
