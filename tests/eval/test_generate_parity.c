// test_generate_parity.c - generation against transformers, and what must not change it: how prompts are cut
// into chunks, what else is generated beside, and whether there is a cache at all.
#include "parity.h"

#include "base/mem.h"
#include "eval/generate.h"
#include "eval/sample.h"

#include <math.h>
#include <string.h>

enum { MOST = 64 };

static const struct parity_case *current; // of generate_case

static void open_model(struct model *m, const struct parity *p, int64_t max_tokens,
                       int64_t cache_rows)
{
    struct model_setup s = parity_setup(p, current, DTYPE_F32);
    s.tuning = NULL;
    s.max_tokens = max_tokens;
    s.cache_rows = cache_rows;
    parity_model(m, &s);
}

static void check_ids(const struct tokens *got, struct tensor want)
{
    assert_int_equal(got->count, tensor_count(want));
    for (int64_t i = 0; i < got->count; i++) {
        if (got->id[i] != data_i32(want)[i]) {
            fail_msg("%s %s: token %d is %d, expected %d", current->name, current->layout, (int)i,
                     got->id[i], data_i32(want)[i]);
        }
    }
}

static struct sequence whole_prompt(const struct parity *p)
{
    const struct tensor prompt = fixture_get(&p->reference, "greedy.prompt");
    return (struct sequence){.prompt = data_i32(prompt), .n_prompt = tensor_count(prompt)};
}

// With chunks of `chunk` rows, and `n` sequences side by side of which the first is the reference's.
static void run_greedy(const struct parity *p, int64_t chunk, int n)
{
    struct model m;
    struct sequence s[4];
    struct error err = {0};
    const struct tensor want = fixture_get(&p->reference, "greedy.id");
    const struct generate_options o = {.max_new_tokens = tensor_count(want)};
    for (int i = 0; i < n; i++) {
        s[i] = whole_prompt(p);
        s[i].n_prompt -= i; // prompts of unequal length
    }
    open_model(&m, p, chunk, generate_cache_rows(s, n, &o));
    check_ok(generate(&m, s, n, &o, &err), &err);
    check_ids(&s[0].out, want);
    for (int i = 0; i < n; i++) {
        assert_int_equal(s[i].stop, -1);
        tokens_free(&s[i].out);
    }
    model_close(&m);
}

static void greedy_ids_are_those_of_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < parity_n_cases; i++) {
        struct parity p;
        current = &parity_cases[i];
        parity_open(&p, current->name);
        run_greedy(&p, 64, 1);
        run_greedy(&p, 3, 1); // the prompt in chunks
        run_greedy(&p, 5, 3); // beside others
        parity_close(&p);
    }
}

// The likeliest token after the whole sequence so far, computed without a cache.
static int32_t next_without_cache(struct model *m, const struct tokens *ids)
{
    struct batch b = {0};
    struct error err = {0};
    float logits[256];
    const int32_t row = (int32_t)ids->count - 1;
    uint8_t learn[MOST] = {0};
    const struct sampling greedy = {0};
    check_ok(batch_reserve(&b, ids->count, &err), &err);
    batch_append(&b, ids->id, learn, ids->count);
    model_forward(m, &b, NULL, false);
    assert_true(m->config.vocab <= 256);
    model_logits(m, &row, 1, logits);
    batch_free(&b);
    return sample_token(logits, m->config.vocab, &greedy, NULL, NULL);
}

static void a_cache_changes_nothing(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct tokens ids = {0};
    current = &parity_cases[0];
    parity_open(&p, current->name);
    const struct sequence s = whole_prompt(&p);
    const struct tensor want = fixture_get(&p.reference, "greedy.id");
    open_model(&m, &p, MOST, 0);
    for (int64_t i = 0; i < s.n_prompt; i++) {
        tokens_add(&ids, s.prompt[i]);
    }
    for (int64_t i = 0; i < tensor_count(want); i++) {
        const int32_t id = next_without_cache(&m, &ids);
        assert_int_equal(id, data_i32(want)[i]);
        tokens_add(&ids, id);
    }
    tokens_free(&ids);
    model_close(&m);
    parity_close(&p);
}

static bool count_and_stop(void *user, int64_t sequence, int32_t id)
{
    (void)sequence, (void)id;
    return ++*(int *)user < 3;
}

static void sequences_end_where_they_should(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    current = &parity_cases[0];
    parity_open(&p, current->name);
    struct sequence s = whole_prompt(&p);
    int32_t *want = data_i32(fixture_get(&p.reference, "greedy.id"));
    struct tokens stop = {0};
    struct generate_options o = {.max_new_tokens = 12, .stop = &stop};
    open_model(&m, &p, 8, MOST);
    tokens_add(&stop, 60);
    tokens_add(&stop, want[5]);
    int first = 0;
    while (want[first] != want[5]) {
        first++;
    }
    check_ok(generate(&m, &s, 1, &o, &err), &err);
    assert_int_equal(s.out.count, first);
    assert_int_equal(s.stop, want[5]);
    int told = 0;
    o = (struct generate_options){.max_new_tokens = 12, .token = count_and_stop, .user = &told};
    check_ok(generate(&m, &s, 1, &o, &err), &err);
    assert_int_equal(told, 3);
    assert_int_equal(s.out.count, 3);
    tokens_free(&stop);
    tokens_free(&s.out);
    model_close(&m);
    parity_close(&p);
}

static void bad_prompts_are_refused(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    current = &parity_cases[0];
    parity_open(&p, current->name);
    open_model(&m, &p, 2, MOST);
    const struct generate_options o = {.max_new_tokens = 4};
    int32_t ids[MOST + 2] = {1, 2, 61};
    struct sequence s[3] = {{.prompt = ids, .n_prompt = 3}};
    check_error(generate(&m, s, 1, &o, &err), &err, "token id 61 of the prompt, the model has 61");
    ids[2] = -1;
    check_error(generate(&m, s, 1, &o, &err), &err, "token id -1");
    ids[2] = 3;
    s[0].n_prompt = 0;
    check_error(generate(&m, s, 1, &o, &err), &err, "no token");
    s[0].n_prompt = MOST;
    check_error(generate(&m, s, 1, &o, &err), &err, "64 positions");
    s[0].n_prompt = MOST - 2;
    check_error(generate(&m, s, 1, &o, &err), &err, "66 are needed");
    s[2] = s[1] = s[0];
    check_error(generate(&m, s, 3, &o, &err), &err, "at most 2 side by side");
    model_close(&m);
    parity_close(&p);
}

static void the_last_position_ends_a_text(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    current = &parity_cases[0];
    parity_open(&p, current->name);
    open_model(&m, &p, 16, 80);
    const struct generate_options o = {.max_new_tokens = 16};
    const int32_t ids[60] = {7, 8, 9};
    struct sequence s = {.prompt = ids, .n_prompt = 60};
    check_ok(generate(&m, &s, 1, &o, &err), &err);
    assert_int_equal(s.out.count, 4);
    tokens_free(&s.out);
    model_close(&m);
    parity_close(&p);
}

static void draws_depend_on_seed_and_sequence_only(void **state)
{
    (void)state;
    struct parity p;
    struct model m;
    struct error err = {0};
    current = &parity_cases[1];
    parity_open(&p, current->name);
    struct generate_options o = {.max_new_tokens = 12,
                                 .sampling = {.temperature = 1.5, .top_p = 1, .seed = 5}};
    struct sequence a[2] = {whole_prompt(&p), whole_prompt(&p)}, b = whole_prompt(&p);
    open_model(&m, &p, 7, MOST * 2);
    check_ok(generate(&m, a, 2, &o, &err), &err);
    assert_memory_not_equal(a[0].out.id, a[1].out.id, 12 * sizeof *a[0].out.id);
    o.first_stream = 1;
    check_ok(generate(&m, &b, 1, &o, &err), &err);
    assert_memory_equal(a[1].out.id, b.out.id, 12 * sizeof *b.out.id);
    o.sampling.seed = 6;
    check_ok(generate(&m, &b, 1, &o, &err), &err);
    assert_memory_not_equal(a[1].out.id, b.out.id, 12 * sizeof *b.out.id);
    tokens_free(&a[0].out);
    tokens_free(&a[1].out);
    tokens_free(&b.out);
    model_close(&m);
    parity_close(&p);
}

// Shares of many draws against the probabilities that the filters leave.
static void check_shares(const struct sampling *s, const double *want)
{
    const float logits[4] = {logf(0.1F), logf(0.4F), logf(0.2F), logf(0.3F)};
    struct candidate scratch[4];
    int drawn[4] = {0};
    struct rng r = {.seed = s->seed};
    enum { DRAWS = 20000 };
    for (int i = 0; i < DRAWS; i++) {
        drawn[sample_token(logits, 4, s, &r, scratch)]++;
    }
    for (int i = 0; i < 4; i++) {
        const double share = (double)drawn[i] / (double)DRAWS;
        if (fabs(share - want[i]) > 0.015) fail_msg("token %d: %f, expected %f", i, share, want[i]);
        if (want[i] <= 0) assert_int_equal(drawn[i], 0);
    }
}

static void filters_leave_what_they_say(void **state)
{
    (void)state;
    check_shares(&(struct sampling){.temperature = 0}, (double[]){0, 1, 0, 0});
    check_shares(&(struct sampling){.temperature = 1, .top_p = 1}, (double[]){0.1, 0.4, 0.2, 0.3});
    check_shares(&(struct sampling){.temperature = 1, .top_k = 2, .top_p = 1},
                 (double[]){0, 4. / 7, 0, 3. / 7});
    check_shares(&(struct sampling){.temperature = 1, .top_p = 0.75},
                 (double[]){0, 4. / 9, 2. / 9, 3. / 9});
    check_shares(&(struct sampling){.temperature = 1, .top_p = 1e-9}, (double[]){0, 1, 0, 0});
    check_shares(&(struct sampling){.temperature = 0.5, .top_p = 1},
                 (double[]){1. / 30, 16. / 30, 4. / 30, 9. / 30});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ids_are_those_of_transformers),
        cmocka_unit_test(a_cache_changes_nothing),
        cmocka_unit_test(sequences_end_where_they_should),
        cmocka_unit_test(bad_prompts_are_refused),
        cmocka_unit_test(the_last_position_ends_a_text),
        cmocka_unit_test(draws_depend_on_seed_and_sequence_only),
        cmocka_unit_test(filters_leave_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
