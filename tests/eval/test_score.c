// test_score.c - what score_loss counts besides the loss: the rows that each expert got.
#include "parity.h"

#include "base/mem.h"
#include "base/rng.h"
#include "eval/score.h"

#include <string.h>

enum { EXAMPLES = 7 };

// Examples of unequal length, so that micro-batches are unequal too.
static void make_data(struct dataset *d, int64_t vocab)
{
    struct rng r = {.seed = 3};
    *d = (struct dataset){.count = EXAMPLES};
    d->example = mem_zalloc(EXAMPLES, sizeof *d->example);
    d->id = mem_alloc(EXAMPLES * 12 * sizeof *d->id);
    d->learn = mem_alloc(EXAMPLES * 12);
    for (int64_t i = 0; i < EXAMPLES; i++) {
        const int64_t n = 3 + rng_below(&r, 9);
        d->example[i] = (struct example){.first = d->n_tokens, .count = n, .supervised = n - 1};
        for (int64_t j = 0; j < n; j++) {
            d->id[d->n_tokens] = (int32_t)rng_below(&r, vocab);
            d->learn[d->n_tokens++] = j > 0;
        }
        d->supervised += n - 1;
    }
}

static void free_data(struct dataset *d)
{
    mem_free(d->id);
    mem_free(d->learn);
    mem_free(d->example);
}

// The same from the routes of a training pass, example by example.
static void count_routes(int64_t *usage, struct model *m, const struct dataset *d)
{
    const int64_t E = m->config.n_experts;
    struct batch b = {0};
    struct error err = {0};
    check_ok(batch_reserve(&b, 12, &err), &err);
    for (int64_t i = 0; i < d->count; i++) {
        const struct example *x = &d->example[i];
        batch_clear(&b);
        batch_append(&b, d->id + x->first, d->learn + x->first, x->count);
        model_forward(m, &b, NULL, true);
        for (int64_t l = 0; l < m->config.n_layers; l++) {
            const struct tensor expert = model_route(m, l).expert;
            for (int64_t s = 0; expert.data && s < tensor_count(expert); s++) {
                usage[l * E + data_i32(expert)[s]]++;
            }
        }
    }
    batch_free(&b);
}

static void check_case(const char *name, const char *layout)
{
    struct parity p;
    struct model m;
    struct dataset d;
    struct loss_score s;
    struct error err = {0};
    parity_open(&p, name);
    struct model_setup setup = parity_setup(&p, &(struct parity_case){name, layout}, DTYPE_F32);
    setup.max_tokens = 30; // several micro-batches of several examples
    parity_model(&m, &setup);
    make_data(&d, m.config.vocab);
    const int64_t L = m.config.n_layers, E = m.config.n_experts;
    int64_t *want = mem_zalloc((size_t)(L * E), sizeof *want);
    count_routes(want, &m, &d); // training counts too, and the score must not hold that

    check_ok(score_loss(&s, &m, &d, NULL, &err), &err);
    assert_int_equal(s.tokens, d.n_tokens);
    assert_memory_equal(s.usage, want, (size_t)(L * E) * sizeof *want);
    for (int64_t l = 0; l < L; l++) {
        int64_t all = 0;
        for (int64_t e = 0; e < E; e++) {
            all += s.usage[l * E + e];
        }
        assert_int_equal(all, m.config.moe_layer[l] ? d.n_tokens * m.config.experts_per_tok : 0);
    }
    mem_free(s.usage);
    mem_free(want);
    free_data(&d);
    model_close(&m);
    parity_close(&p);
}

static void usage_is_of_the_routes(void **state)
{
    (void)state;
    check_case("olmoe-gqa", "v5");
    check_case("qwen-dense", "v4");
}

// An evaluation in the middle of training leaves no trace in what training counts.
static void evaluation_counts_on_request_only(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    parity_open(&p, "olmoe-gqa");
    const struct model_setup setup =
        parity_setup(&p, &(struct parity_case){"olmoe-gqa", "v5"}, DTYPE_F32);
    parity_model(&m, &setup);
    const int64_t n = m.config.n_layers * m.config.n_experts;
    float *rows = mem_alloc((size_t)n * sizeof *rows);
    model_take_usage(&m, rows);
    model_forward(&m, &p.batch[0], NULL, false);
    model_take_usage(&m, rows);
    for (int64_t i = 0; i < n; i++) {
        assert_true(rows[i] == 0);
    }
    mem_free(rows);
    model_close(&m);
    parity_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_is_of_the_routes),
        cmocka_unit_test(evaluation_counts_on_request_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
