// tests/routing/test_losses.c - the router's losses against their definitions in double (losses.h), and their
// gradients against the slopes of those; which coefficients hold; a dense layer between.
#include "support.h"

#include "base/mem.h"
#include "routing/losses.h"

#include <math.h>
#include <string.h>

enum { E = 3, N = 4, MOE = 2, MOST = 6 };

static const struct model_config config = {.architecture = "test",
                                           .n_layers = 3,
                                           .n_experts = E,
                                           .experts_per_tok = 2,
                                           .moe_layer = {true, false, true},
                                           .router_aux_loss_coef = 0.25F};
static double logits[MOE][N * E] = {{0.5, -1, 0.25, 1.5, 0, -0.5, -2, 0.75, 1, 0.125, 0.5, -0.25},
                                    {1, 1, -1, 0.5, -0.5, 2, 0, 0.25, 0.5, -1.5, 1.25, 0}};
static const int32_t offsets[MOE][E + 1] = {{0, 3, 5, 8}, {0, 1, 6, 8}}; // two experts a token

struct losses {
    struct router_losses s;
    struct arena arena;
};

static void losses_open(struct losses *l, const char *routing, double aux, double z,
                        const struct model_config *c)
{
    struct error err = {0};
    const struct routing_options o = {.aux_coef = aux, .z_coef = z};
    *l = (struct losses){0};
    for (int placing = 0; placing < 2; placing++) {
        l->arena.used = 0;
        router_losses_open(&l->s, &cpu_ops, c, routing_find(routing, &err), &o, MOST, &l->arena);
        if (placing || !l->arena.used) return;
        l->arena.capacity = l->arena.used;
        l->arena.base = cpu_ops.allocate(l->arena.capacity);
        assert_non_null(l->arena.base);
    }
}

static void losses_close(struct losses *l)
{
    if (l->arena.base) cpu_ops.release(l->arena.base, l->arena.capacity);
}

static double logsumexp(const double *z)
{
    double sum = 0;
    for (int e = 0; e < E; e++) {
        sum += exp(z[e]);
    }
    return log(sum);
}

// aux E sum_e f_e P_e + z mean(logsumexp^2), over the tokens of both layers.
static double definition(double z[MOE][N * E], double aux, double z_coef)
{
    double f[E] = {0}, P[E] = {0}, square = 0, balance = 0;
    for (int l = 0; l < MOE; l++) {
        for (int n = 0; n < N; n++) {
            const double lse = logsumexp(z[l] + n * E);
            square += lse * lse / (N * MOE);
            for (int e = 0; e < E; e++) {
                P[e] += exp(z[l][n * E + e] - lse) / (N * MOE);
            }
        }
        for (int e = 0; e < E; e++) {
            f[e] += (double)(offsets[l][e + 1] - offsets[l][e]) / (N * MOE);
        }
    }
    for (int e = 0; e < E; e++) {
        balance += E * f[e] * P[e];
    }
    return aux * balance + z_coef * square;
}

static struct tensor layer_logits(float *to, int l)
{
    for (int i = 0; i < N * E; i++) {
        to[i] = (float)logits[l][i];
    }
    return tensor_2d(to, DTYPE_F32, N, E);
}

static void micro_batch(struct router_losses *s, double weight)
{
    float z[N * E];
    router_losses_begin(s);
    for (int l = 0; l < MOE; l++) {
        int32_t rows[E + 1];
        memcpy(rows, offsets[l], sizeof rows);
        router_losses_layer(s, layer_logits(z, l), tensor_1d(rows, DTYPE_I32, E + 1), weight);
    }
    router_losses_end(s, N, weight);
}

static const double coefficients[][2] = {{0.5, 0}, {0, 0.125}, {0.5, 0.125}};

static void values_are_those_of_the_definition(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const double aux = coefficients[i][0], z = coefficients[i][1];
        struct losses l;
        losses_open(&l, "topk", aux, z, &config);
        router_losses_take(&l.s); // memory comes as it is
        micro_batch(&l.s, 0.75);
        micro_batch(&l.s, 0.5); // shares of a step add up
        const double want = 1.25 * definition(logits, aux, z), got = router_losses_take(&l.s);
        if (!(fabs(got - want) <= 1e-6)) fail_msg("losses %d: %.9g, %.9g expected", i, got, want);
        assert_true(router_losses_take(&l.s) == 0); // taken
        losses_close(&l);
    }
}

// dz += the slope of the definition, held against central differences of it.
static void gradients_are_slopes(void **state)
{
    (void)state;
    const double step = 1e-4, weight = 0.75;
    for (int i = 0; i < 3; i++) {
        const double aux = coefficients[i][0], z_coef = coefficients[i][1];
        struct losses s;
        losses_open(&s, "topk", aux, z_coef, &config);
        micro_batch(&s.s, weight);
        for (int l = 0; l < MOE; l++) {
            float z[N * E], dz[N * E];
            double moved[MOE][N * E];
            for (int k = 0; k < N * E; k++) {
                dz[k] = 2; // added to
            }
            router_losses_backward(&s.s, tensor_2d(dz, DTYPE_F32, N, E), layer_logits(z, l),
                                   weight);
            for (int k = 0; k < N * E; k++) {
                memcpy(moved, logits, sizeof moved);
                moved[l][k] += step;
                double slope = definition(moved, aux, z_coef);
                moved[l][k] -= 2 * step;
                slope = weight * (slope - definition(moved, aux, z_coef)) / (2 * step);
                if (!(fabs((double)dz[k] - 2 - slope) <= 1e-6))
                    fail_msg("losses %d, layer %d, %d: %.9g, %.9g expected", i, l, k,
                             (double)dz[k] - 2, slope);
            }
        }
        losses_close(&s);
    }
}

static void what_is_not_given_is_the_checkpoint_s_where_it_is_needed(void **state)
{
    (void)state;
    static const struct {
        const char *routing;
        double aux, z, want_aux, want_z;
    } cases[] = {{"aux", -1, -1, 0.25, 0},   {"topk", -1, -1, 0, 0},    {"aux", 0, -1, 0, 0},
                 {"aux", 0.5, -1, 0.5, 0},   {"topk", 0.5, -1, 0.5, 0}, {"topk", -1, 0.5, 0, 0.5},
                 {"aux", -1, 0.5, 0.25, 0.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct losses l;
        losses_open(&l, cases[i].routing, cases[i].aux, cases[i].z, &config);
        const bool on = cases[i].want_aux > 0 || cases[i].want_z > 0;
        assert_true(l.s.aux_coef == cases[i].want_aux && l.s.z_coef == cases[i].want_z);
        assert_int_equal(router_losses_on(&l.s), on);
        assert_int_equal(l.arena.used > 0, on); // no memory for what is off
        losses_close(&l);
    }
}

static void a_model_without_experts_has_none(void **state)
{
    (void)state;
    struct model_config dense = config;
    struct losses l;
    memset(dense.moe_layer, 0, sizeof dense.moe_layer);
    losses_open(&l, "topk", 1, 1, &dense);
    assert_false(router_losses_on(&l.s));
    assert_int_equal(l.arena.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_the_definition),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(what_is_not_given_is_the_checkpoint_s_where_it_is_needed),
        cmocka_unit_test(a_model_without_experts_has_none),
    };
    return cmocka_run_group_tests_name("router losses", tests, NULL, NULL);
}
