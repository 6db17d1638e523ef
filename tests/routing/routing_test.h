// tests/routing/routing_test.h - one layer's routing by itself, over the CPU's ops: opened for a shape, fed
// with logits, and asked for its route and the logits' gradient.
#pragma once
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "routing/routing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 8 }; // C

struct shape {
    int64_t N, E, K;
    bool renormalize;
};

struct layer {
    struct shape shape;
    struct model_config config;
    const struct routing *routing;
    struct routing_state *state;
    struct arena arena;
    struct leaves leaves;
    struct tensor x, z; // (N,C), (N,E): x is fixed; z as the routing left it
    struct route route;
};

// Condensers' own gates begin from rows of ones; the routes do not look at them.
static inline void row_of_ones(void *user, int64_t layer, int64_t expert, float *row)
{
    (void)user, (void)layer, (void)expert;
    for (int c = 0; c < WIDTH; c++) {
        row[c] = 1;
    }
}

static inline struct tensor host(enum dtype t, int64_t rows, int64_t cols)
{
    struct tensor x = tensor_2d(NULL, t, rows, cols);
    x.data = mem_zalloc((size_t)(rows * cols), dtype_size(t));
    assert_non_null(x.data);
    return x;
}

static inline void layer_open(struct layer *l, const struct shape *s, const char *routing,
                              const struct routing_options *o)
{
    struct error err = {0};
    *l = (struct layer){.shape = *s, .routing = routing_find(routing, &err)};
    l->config = (struct model_config){.architecture = "test",
                                      .width = WIDTH,
                                      .n_layers = 1,
                                      .n_experts = s->E,
                                      .experts_per_tok = s->K,
                                      .moe_layer = {true},
                                      .renormalize_topk = s->renormalize};
    check_ok(!l->routing->check || l->routing->check(o, &l->config, &err), &err);
    for (int placing = 0; placing < 2; placing++) {
        l->arena.used = 0;
        l->leaves.count = 0;
        check_ok(
            l->routing->open(&l->state, &cpu_ops, &l->config, o, s->N, &l->arena, &l->leaves, &err),
            &err);
        if (placing) break;
        l->arena.capacity = l->arena.used;
        l->arena.base = cpu_ops.allocate(l->arena.capacity);
    }
    const struct router_rows rows = {NULL, row_of_ones};
    if (l->routing->begin) check_ok(l->routing->begin(l->state, 0, &rows, &err), &err);
    const int64_t S = l->routing->slots(l->state, 0, true);
    l->x = host(DTYPE_F32, s->N, WIDTH);
    l->z = host(DTYPE_F32, s->N, s->E);
    l->route = (struct route){host(DTYPE_I32, s->N, S), host(DTYPE_F32, s->N, S)};
}

static inline void layer_close(struct layer *l)
{
    l->routing->close(l->state);
    cpu_ops.release(l->arena.base, l->arena.capacity);
    leaves_free(&l->leaves);
    mem_free(l->x.data);
    mem_free(l->z.data);
    mem_free(l->route.expert.data);
    mem_free(l->route.weight.data);
}

static inline struct route_input layer_input(const struct layer *l, bool training)
{
    return (struct route_input){
        .x = l->x, .z = l->z, .real = tensor_absent(), .training = training};
}

// The route of these logits (N,E), which stay as they are.
static inline void layer_route(struct layer *l, const float *z)
{
    memcpy(l->z.data, z, tensor_bytes(l->z));
    const struct route_input in = layer_input(l, true);
    l->routing->select(l->state, &l->route, &in);
}

static inline const int32_t *experts_of(const struct layer *l, int64_t n)
{
    return data_i32(l->route.expert) + n * l->route.expert.dim[1];
}

static inline const float *weights_of(const struct layer *l, int64_t n)
{
    return row_f32(l->route.weight, n);
}

// Not through file_write, which waits for the disk: hundreds of these are written.
static inline void write_bias(const char *path, const float *bias, int64_t E)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"moe_bias_states\":{\"model.layers.0.mlp\":{\"bias_values\":", f);
    for (int64_t e = 0; e < E; e++) {
        fprintf(f, "%c%.9g", e ? ',' : '[', (double)bias[e]);
    }
    fputs("]}}}", f);
    assert_int_equal(fclose(f), 0);
}
