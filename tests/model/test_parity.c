// tests/model/test_parity.c - forward and backward against transformers in float32 (fixtures and their
// source: fixtures/make_parity.py), and what must not change a result: layout, recomputation, threads,
// frozen weights, micro-batches, a cache.
#include "parity.h"

#include "base/mem.h"

#include <string.h>

static void run(struct model *m, const struct batch *b, int64_t tokens)
{
    model_forward(m, b, NULL, true);
    model_loss(m, b, 1.0F / (float)tokens);
    model_backward(m, b);
}

static double check_gradients(const struct parity *p, const struct model *m, double limit)
{
    double worst = 0;
    for (int64_t i = 0; i < m->leaves.count; i++) {
        const struct leaf *l = &m->leaves.leaf[i];
        const struct tensor want = parity_gradient(p, l->name);
        check_close(l->name, l->grad, want, limit);
        const double e = relative_error(l->grad, want);
        if (e > worst) worst = e;
    }
    return worst;
}

static void check_routes(const struct parity *p, const struct model *m)
{
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        if (!m->config.moe_layer[l]) continue;
        const struct route r = model_route(m, l);
        check_close("router logits", model_router_logits(m, l),
                    parity_of_layer(p, "router_logits", l), 1e-5);
        check_close("routes", r.expert, parity_of_layer(p, "routes", l), 0);
        check_close("route weights", r.weight, parity_of_layer(p, "route_weights", l), 1e-5);
    }
}

static void check_loss(const struct parity *p, struct model *m)
{
    const double want = (double)*data_f32(fixture_get(&p->reference, "loss"));
    const double got = model_take_loss(m) / (double)p->batch[0].supervised;
    assert_true(got > want * (1 - 1e-5) && got < want * (1 + 1e-5));
}

// Every element of every gradient of the reference belongs to a leaf, and no other.
static void check_coverage(const struct parity *p, const struct model *m)
{
    int64_t want = 0, got = 0;
    for (int64_t i = 0; i < p->reference.st.count; i++) {
        const struct st_entry *e = &p->reference.st.entry[i];
        if (!strncmp(e->name, "grad.", 5)) want += tensor_count(e->tensor);
    }
    for (int64_t i = 0; i < m->leaves.count; i++) {
        got += tensor_count(m->leaves.leaf[i].grad);
    }
    assert_int_equal(got, want);
}

static void matches_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        struct model m;
        parity_open(&p, parity_cases[i].name);
        const struct model_setup s = parity_setup(&p, &parity_cases[i], DTYPE_F32);
        parity_model(&m, &s);
        check_coverage(&p, &m);
        run(&m, &p.batch[0], p.batch[0].supervised);
        check_routes(&p, &m);
        check_loss(&p, &m);
        const double worst = check_gradients(&p, &m, 1e-4);
        const struct tensor logits = parity_logits(&m, &p.batch[0]);
        const struct tensor want = fixture_get(&p.reference, "logits");
        print_message("%s %s: logits %.1e, worst gradient %.1e\n", p.name, parity_cases[i].layout,
                      relative_error(logits, want), worst);
        check_close("logits", logits, want, 1e-5);
        mem_free(logits.data);
        model_close(&m);
        parity_close(&p);
    }
}

// Where the second document of a packed batch begins.
static int64_t second_document(const struct batch *b)
{
    int64_t n = 1;
    while (b->position[n]) {
        n++;
    }
    return n;
}

// One document of a packed batch as a batch of its own. span: room for 2n.
static struct batch document(const struct batch *b, int64_t first, int64_t n, int32_t *span)
{
    for (int64_t i = 0; i < n; i++) {
        span[2 * i] = 0, span[2 * i + 1] = (int32_t)i;
    }
    return (struct batch){.n = n,
                          .id = b->id + first,
                          .position = b->position + first,
                          .span = span,
                          .target = b->target + first};
}

// Two micro-batches of unequal size add up to the step of both, and a gradient is added to.
static void micro_batches_add_up(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        struct model m;
        int32_t span[128];
        parity_open(&p, parity_cases[i].name);
        const struct model_setup s = parity_setup(&p, &parity_cases[i], DTYPE_F32);
        parity_model(&m, &s);
        const struct batch *b = &p.batch[0];
        const int64_t second = second_document(b);
        assert_in_range(b->n, second + 1, 64);
        run(&m, b, 3); // swept away
        model_take_loss(&m);
        model_zero_grad(&m);
        const struct batch tail = document(b, second, b->n - second, span);
        run(&m, &tail, b->supervised);
        const struct batch head = document(b, 0, second, span);
        run(&m, &head, b->supervised);
        check_gradients(&p, &m, 1e-4);
        check_loss(&p, &m);
        model_close(&m);
        parity_close(&p);
    }
}

// All that a step computes, to be compared bit by bit; free .data.
static struct buf everything(const struct parity *p, const struct model_setup *s)
{
    struct model m;
    struct buf all = {0};
    parity_model(&m, s);
    for (int i = 0; i < PARITY_BATCHES; i++) {
        run(&m, &p->batch[i], p->batch[i].supervised);
    }
    const struct tensor logits = parity_logits(&m, &p->batch[PARITY_BATCHES - 1]);
    const double loss = model_take_loss(&m);
    assert_true(buf_append(&all, &loss, sizeof loss));
    assert_true(buf_append(&all, logits.data, tensor_bytes(logits)));
    for (int64_t i = 0; i < m.leaves.count; i++) {
        const struct tensor g = m.leaves.leaf[i].grad;
        assert_true(buf_append(&all, g.data, tensor_bytes(g)));
    }
    mem_free(logits.data);
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
    for (int i = 0; i < 2 * parity_n_cases; i++) {
        const struct parity_case *c = &parity_cases[i / 2];
        struct parity p;
        parity_open(&p, c->name);
        struct model_setup s = parity_setup(&p, c, i % 2 ? DTYPE_BF16 : DTYPE_F32);
        cpu_configure(2, CPU_PRODUCTS_BF16);
        struct buf once = everything(&p, &s);
        check_same_bits(&once, everything(&p, &s));
        s.recompute = true;
        check_same_bits(&once, everything(&p, &s));
        s.recompute = false;
        cpu_configure(1, CPU_PRODUCTS_BF16);
        check_same_bits(&once, everything(&p, &s));
        s.max_tokens += 19; // a larger arena
        check_same_bits(&once, everything(&p, &s));
        buf_free(&once);
        parity_close(&p);
    }
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

// Frozen weights are read as they are stored (bf16, f16); the rest learns as before.
static void frozen_weights_change_no_gradient(void **state)
{
    (void)state;
    static const char *const freeze[][2] = {
        // with experts; dense
        {"*experts*", "*mlp*"},
        {"model.embed_tokens.weight,model.layers.0.*",
         "model.embed_tokens.weight,model.layers.0.*"},
        {"*norm*,*self_attn*", "*norm*,*self_attn*"},
        {"*gate.weight,model.embed_tokens.weight", "*up_proj*,model.embed_tokens.weight"},
        {"model.layers.1.*", "model.layers.1.*"}};
    enum { WAYS = sizeof freeze / sizeof *freeze };
    for (int i = 0; i < WAYS * parity_n_cases; i++) {
        const struct parity_case *c = &parity_cases[i / WAYS];
        struct parity p;
        struct model m;
        parity_open(&p, c->name);
        struct model_setup s = parity_setup(&p, c, DTYPE_F32);
        s.tuning_options.freeze = freeze[i % WAYS][parity_dense(&p)];
        s.recompute = i % 2;
        parity_model(&m, &s);
        assert_in_range(m.leaves.count, 1, m.weights.count - 1);
        run(&m, &p.batch[0], p.batch[0].supervised);
        check_gradients(&p, &m, 1e-4);
        model_close(&m);
        parity_close(&p);
    }
}

// Without a tuning everything is mapped as stored, and the pass keeps nothing.
static void evaluation_gives_the_same_logits(void **state)
{
    (void)state;
    cpu_configure(2, CPU_PRODUCTS_F32); // then "bf16" means float32 products on stored values
    for (int i = 0; i < 2 * parity_n_cases; i++) {
        const struct parity_case *c = &parity_cases[i / 2];
        struct parity p;
        struct model m;
        parity_open(&p, c->name);
        struct model_setup s = parity_setup(&p, c, i % 2 ? DTYPE_BF16 : DTYPE_F32);
        s.tuning = NULL;
        parity_model(&m, &s);
        model_forward(&m, &p.batch[0], NULL, false);
        model_loss(&m, &p.batch[0], 0);
        check_loss(&p, &m);
        const struct tensor logits = parity_logits(&m, &p.batch[0]);
        check_close("logits", logits, fixture_get(&p.reference, "logits"), 1e-5);
        mem_free(logits.data);
        model_close(&m);
        parity_close(&p);
    }
    cpu_configure(2, CPU_PRODUCTS_AUTO);
}

enum { CACHE_ROWS = 40 }; // of one sequence

// Token t of both documents (of the first alone where the second has ended), in one batch.
static void check_cached_step(const struct parity *p, struct model *m, int32_t t)
{
    const struct batch *b = &p->batch[0];
    const int64_t second = second_document(b), source[2] = {t, second + t};
    const bool both = source[1] < b->n;
    int32_t id[2] = {b->id[source[0]], both ? b->id[source[1]] : 0};
    int32_t position[2] = {t, t}, target[2] = {-100, -100};
    const int32_t row[2] = {t, CACHE_ROWS + t};
    int32_t span[4] = {0, t, CACHE_ROWS, CACHE_ROWS + t};
    const struct batch now = {
        .n = both ? 2 : 1, .id = id, .position = position, .span = span, .target = target};
    model_forward(m, &now, row, false);
    const struct tensor logits = parity_logits(m, &now);
    const struct tensor want = fixture_get(&p->reference, "logits");
    for (int64_t n = 0; n < now.n; n++) {
        check_close("logits", tensor_rows(logits, n, 1), tensor_rows(want, source[n], 1), 3e-5);
    }
    mem_free(logits.data);
}

static void cache_gives_the_same_logits(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        struct model m;
        parity_open(&p, parity_cases[i].name);
        struct model_setup s = parity_setup(&p, &parity_cases[i], DTYPE_F32);
        s.tuning = NULL;
        s.cache_rows = 2 * CACHE_ROWS;
        parity_model(&m, &s);
        for (int32_t t = 0; t < second_document(&p.batch[0]); t++) {
            check_cached_step(&p, &m, t);
        }
        model_close(&m);
        parity_close(&p);
    }
}

int main(void)
{
    cpu_configure(2, CPU_PRODUCTS_AUTO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_transformers),
        cmocka_unit_test(micro_batches_add_up),
        cmocka_unit_test(recomputation_and_threads_change_no_bit),
        cmocka_unit_test(frozen_weights_change_no_gradient),
        cmocka_unit_test(evaluation_gives_the_same_logits),
        cmocka_unit_test(cache_gives_the_same_logits),
    };
    return cmocka_run_group_tests_name("parity", tests, NULL, NULL);
}
