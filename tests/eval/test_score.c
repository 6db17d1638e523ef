// test_score.c - what score_loss counts besides the loss: the rows that each expert got; and of several files, what
// each has alone. Nothing of a device that failed.
#include "parity.h"

#include "base/mem.h"
#include "base/rng.h"
#include "eval/prune.h"
#include "eval/similarity.h"

#include <math.h>
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

struct told {
    int64_t done, of, times;
};

static bool told(void *user, int64_t done, int64_t of)
{
    struct told *t = user;
    assert_int_equal(done, t->done + 1);
    if (t->times++) assert_int_equal(of, t->of);
    *t = (struct told){done, of, t->times};
    return true;
}

// Three files, of which one gave no example: each as if it were alone, and all as the data are.
static void check_files(struct model *m, struct dataset *d, const struct loss_score *want)
{
    static char first[] = "a", none[] = "b", last[] = "c";
    char *names[] = {first, none, last};
    struct loss_score all, file[3], alone;
    struct error err = {0};
    struct told t = {0};
    d->file = names;
    d->n_files = 3;
    for (int64_t i = 0; i < d->count; i++) {
        d->example[i].file = i < 3 ? first : last;
    }
    check_ok(score_loss_files(&all, file, m, d, &(struct score_listener){&t, told}, &err), &err);
    assert_true(t.done == t.of && t.of >= 2);
    assert_int_equal(all.supervised, want->supervised);
    assert_int_equal(all.tokens, want->tokens);
    assert_int_equal(all.examples, d->count);
    assert_true(fabs(all.loss - want->loss) < 1e-6);
    const int64_t n = m->config.n_layers * m->config.n_experts;
    assert_memory_equal(all.usage, want->usage, (size_t)n * sizeof *all.usage);
    mem_free(all.usage);
    for (int64_t i = 0; i < 3; i++) {
        const struct dataset of = dataset_of_file(d, i);
        assert_int_equal(of.count, i == 0 ? 3 : i == 1 ? 0 : d->count - 3);
        assert_int_equal(file[i].examples, of.count);
        assert_int_equal(file[i].tokens, of.n_tokens);
        assert_int_equal(file[i].supervised, of.supervised);
        assert_null(file[i].usage);
        if (!of.count) continue;
        check_ok(score_loss(&alone, m, &of, NULL, &err), &err);
        assert_true(alone.loss == file[i].loss);
        mem_free(alone.usage);
    }
    assert_true(file[0].loss != file[2].loss);
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
    check_files(&m, &d, &s);
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

static bool has_failed(struct error *err)
{
    snprintf(err->msg, sizeof err->msg, "the device failed");
    return false;
}

// What it computed means nothing, and nothing of it is handed on.
static void a_device_that_failed_gives_no_result(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct dataset d;
    struct error err = {0};
    parity_open(&p, "olmoe-gqa");
    struct model_setup setup =
        parity_setup(&p, &(struct parity_case){"olmoe-gqa", "v5"}, DTYPE_F32);
    setup.max_tokens = 30;
    parity_model(&m, &setup);
    make_data(&d, m.config.vocab);
    struct ops failed = *setup.ops;
    failed.check = has_failed;
    const struct usage_options how = {.batch_tokens = 30};
    struct expert_usage use;
    struct pruning pruning;
    struct prune_point point = {.percent = 30};
    struct loss_score score;
    struct similarity similar;
    int64_t seen;
    check_ok(usage_on_data(&use, &seen, &m, &d, &how, NULL, &err), &err);
    check_ok(prune_open(&pruning, &m, &d, &how, use.slots, &err), &err);
    m.setup.ops = &failed;
    check_error(prune_measure(&point, &pruning, NULL, &err), &err, "the device failed");
    prune_close(&pruning);
    expert_usage_close(&use);
    check_error(usage_on_data(&use, &seen, &m, &d, &how, NULL, &err), &err, "the device failed");
    expert_usage_close(&use);
    check_error(score_loss(&score, &m, &d, NULL, &err), &err, "the device failed");
    check_error(similarity_of_weights(&similar, &m, NULL, 0, &err), &err, "the device failed");
    free_data(&d);
    model_close(&m);
    parity_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_is_of_the_routes),
        cmocka_unit_test(evaluation_counts_on_request_only),
        cmocka_unit_test(a_device_that_failed_gives_no_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
