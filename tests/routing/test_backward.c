// tests/routing/test_backward.c - a backward pass comes when other layers have been routed since: it computes again
// what it needs, and gives the same gradient as right after its own forward pass.
#include "routing_test.h"

enum { TOKENS = 4, EXPERTS = 6 };

static void fill(float *x, int64_t n, uint64_t seed)
{
    struct rng r = {.seed = seed};
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)rng_normal(&r);
    }
}

struct gradients {
    float dz[TOKENS * EXPERTS], dx[TOKENS * WIDTH];
};

static void differentiate(struct gradients *g, struct layer *l, const struct route_input *in)
{
    float dweight[TOKENS * 2 * EXPERTS];
    const int64_t S = l->route.expert.dim[1];
    fill(dweight, TOKENS * S, 9);
    memset(g, 0, sizeof *g);
    l->routing->backward(l->state, tensor_2d(g->dz, DTYPE_F32, TOKENS, EXPERTS),
                         tensor_2d(g->dx, DTYPE_F32, TOKENS, WIDTH),
                         tensor_2d(dweight, DTYPE_F32, TOKENS, S), &l->route, in);
}

static void check_later(const char *routing, const struct routing_options *o, bool renormalize)
{
    const struct shape shape = {.N = TOKENS, .E = EXPERTS, .K = 3, .renormalize = renormalize};
    float z[TOKENS * EXPERTS], other[TOKENS * EXPERTS];
    struct gradients now, later;
    struct layer l;
    double sum = 0;
    fill(z, TOKENS * EXPERTS, 7);
    fill(other, TOKENS * EXPERTS, 8);
    layer_open(&l, &shape, routing, o);
    fill(data_f32(l.x), TOKENS * WIDTH, 6);
    layer_route(&l, z);
    const struct route_input in = layer_input(&l, true);
    differentiate(&now, &l, &in);

    // Another layer's turn, with a route and logits of its own.
    const struct route own = l.route;
    const int64_t S = own.expert.dim[1];
    struct route elsewhere = {host(DTYPE_I32, TOKENS, S), host(DTYPE_F32, TOKENS, S)};
    struct route_input of = in;
    of.z = tensor_2d(other, DTYPE_F32, TOKENS, EXPERTS);
    l.routing->select(l.state, &elsewhere, &of);
    differentiate(&later, &l, &in);
    assert_memory_equal(&now, &later, sizeof now);
    for (int i = 0; i < TOKENS * EXPERTS; i++) {
        sum += fabs((double)now.dz[i]);
    }
    assert_true(sum > 0.01);
    mem_free(elsewhere.expert.data);
    mem_free(elsewhere.weight.data);
    layer_close(&l);
}

static void other_layers_change_nothing(void **state)
{
    (void)state;
    for (int renormalize = 0; renormalize < 2; renormalize++) {
        check_later("topk", &(struct routing_options){0}, renormalize);
        check_later("aux", &(struct routing_options){0}, renormalize);
        check_later("densemixer", &(struct routing_options){0}, renormalize);
        check_later("bias", &(struct routing_options){0}, renormalize);
        check_later("bias", &(struct routing_options){.bias_in = BIAS_IN_LOGITS}, renormalize);
        for (int gate = 0; gate < 4; gate++) {
            for (int preset = 0; preset < 2; preset++) {
                check_later("condenser",
                            &(struct routing_options){.condenser_experts = "4,1",
                                                      .condenser_gate = gate,
                                                      .condenser_preset = preset},
                            renormalize);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(other_layers_change_nothing)};
    return cmocka_run_group_tests_name("routing backward", tests, NULL, NULL);
}
