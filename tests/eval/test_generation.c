// test_generation.c - 100 prompts on two families against transformers' generate(), greedy and with beams of 4, beside
// each other and alone, with a KV cache and without; and sums of log-probabilities (fixtures/make_generation.py).
#include "parity.h"

#include "base/mem.h"
#include "eval/generate.h"
#include "eval/loglik.h"
#include "eval/sample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROMPTS = 100, NEW = 20, VOCAB = 256 };

static const struct parity_case cases[] = {{"olmoe-gqa", "v4"}, {"qwen-dense", "v4"}};

struct references {
    const struct parity_case *of;
    struct parity parity;
    struct fixture f;
    struct tokens stop;
};

static void open_references(struct references *r, const struct parity_case *c)
{
    char path[128];
    *r = (struct references){.of = c};
    parity_open(&r->parity, c->name);
    snprintf(path, sizeof path, "generation/%s.safetensors", c->name);
    fixture_open(&r->f, path);
    const struct tensor stop = fixture_get(&r->f, "stop");
    for (int64_t i = 0; i < tensor_count(stop); i++) {
        tokens_add(&r->stop, data_i32(stop)[i]);
    }
}

static void close_references(struct references *r)
{
    tokens_free(&r->stop);
    fixture_close(&r->f);
    parity_close(&r->parity);
}

static void open_model(struct model *m, const struct references *r, int64_t max_tokens,
                       int64_t cache_rows)
{
    struct model_setup s = parity_setup(&r->parity, r->of, DTYPE_F32);
    s.tuning = NULL;
    s.max_tokens = max_tokens;
    s.cache_rows = cache_rows;
    parity_model(m, &s);
}

// Row i of a fixture's ragged array.
static const int32_t *ragged(const struct references *r, const char *name, int64_t i, int64_t *n)
{
    char first[64];
    snprintf(first, sizeof first, "%s.first", name);
    const int32_t *at = data_i32(fixture_get(&r->f, first));
    *n = at[i + 1] - at[i];
    return data_i32(fixture_get(&r->f, name)) + at[i];
}

static void check_sequence(const struct references *r, const char *what, int64_t i,
                           const struct tokens *out, int32_t stop)
{
    int64_t n;
    const int32_t *want = ragged(r, what, i, &n);
    const int64_t got = out->count + (stop >= 0);
    bool same = got == n;
    for (int64_t t = 0; same && t < n; t++) {
        same = want[t] == (t < out->count ? out->id[t] : stop);
    }
    if (!same) fail_msg("%s, %s: prompt %d differs", r->of->name, what, (int)i);
}

// `side` prompts at a time, in batches of at most `max_tokens` rows.
static void check_generate(const struct references *r, const char *what, int64_t beams,
                           int64_t side, int64_t max_tokens)
{
    struct model m;
    struct error err = {0};
    struct sequence s[PROMPTS] = {0};
    const struct generate_options o = {.max_new_tokens = NEW, .beams = beams, .stop = &r->stop};
    open_model(&m, r, max_tokens, side * beams * (40 + NEW));
    for (int64_t first = 0; first < PROMPTS; first += side) {
        const int64_t n = PROMPTS - first < side ? PROMPTS - first : side;
        for (int64_t i = 0; i < n; i++) {
            s[i].prompt = ragged(r, "prompt", first + i, &s[i].n_prompt);
        }
        check_ok(generate(&m, s, n, &o, &err), &err);
        for (int64_t i = 0; i < n; i++) {
            check_sequence(r, what, first + i, &s[i].out, s[i].stop);
        }
    }
    for (int64_t i = 0; i < PROMPTS; i++) {
        tokens_free(&s[i].out);
    }
    model_close(&m);
}

static void each_case(void (*check)(const struct references *r))
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct references r;
        open_references(&r, &cases[i]);
        check(&r);
        close_references(&r);
    }
}

static void check_greedy(const struct references *r)
{
    check_generate(r, "greedy", 1, 33, 64);
    check_generate(r, "greedy", 1, 1, 7);
}

static void greedy_ids_are_those_of_transformers(void **state)
{
    (void)state;
    each_case(check_greedy);
}

static void check_beams(const struct references *r)
{
    check_generate(r, "beam", 4, 1, 64);
    check_generate(r, "beam", 4, 7, 30); // prompts in chunks, searches that end at different times
}

static void beams_are_those_of_transformers(void **state)
{
    (void)state;
    each_case(check_beams);
}

// The likeliest token after the whole sequence so far, computed without a cache.
static int32_t next_without_cache(struct model *m, struct batch *b, const struct tokens *ids)
{
    float logits[VOCAB];
    const uint8_t learn[128] = {0};
    const int32_t row = (int32_t)ids->count - 1;
    const struct sampling greedy = {0};
    batch_clear(b);
    batch_append(b, ids->id, learn, ids->count);
    model_forward(m, b, NULL, false);
    model_logits(m, &row, 1, logits);
    return sample_token(logits, m->config.vocab, &greedy, NULL, NULL);
}

static bool is_stop(const struct references *r, int32_t id)
{
    for (int64_t i = 0; i < r->stop.count; i++) {
        if (r->stop.id[i] == id) return true;
    }
    return false;
}

static void check_without_cache(const struct references *r)
{
    struct model m;
    struct batch b = {0};
    struct error err = {0};
    open_model(&m, r, 64, 0);
    assert_true(m.config.vocab <= VOCAB);
    check_ok(batch_reserve(&b, 64, &err), &err);
    for (int64_t i = 0; i < PROMPTS; i++) {
        struct tokens ids = {0}, out = {0};
        int64_t n;
        int32_t stop = -1;
        const int32_t *prompt = ragged(r, "prompt", i, &n);
        for (int64_t t = 0; t < n; t++) {
            tokens_add(&ids, prompt[t]);
        }
        while (out.count < NEW && stop < 0) {
            const int32_t id = next_without_cache(&m, &b, &ids);
            if (is_stop(r, id)) {
                stop = id;
                continue;
            }
            tokens_add(&ids, id);
            tokens_add(&out, id);
        }
        check_sequence(r, "greedy", i, &out, stop);
        tokens_free(&ids);
        tokens_free(&out);
    }
    batch_free(&b);
    model_close(&m);
}

static void a_cache_changes_nothing(void **state)
{
    (void)state;
    each_case(check_without_cache);
}

static bool has_failed(struct error *err)
{
    snprintf(err->msg, sizeof err->msg, "the device failed");
    return false;
}

// The fixture's pairs as choices; batches that hold one, or several of unequal length.
static void check_sums(const struct references *r, int64_t max_tokens)
{
    struct model m;
    struct error err = {0};
    struct loglik_choice choice[PROMPTS] = {0};
    struct loglik_item item = {.choice = choice, .n_choices = PROMPTS};
    struct loglik_score score;
    const int32_t *first = data_i32(fixture_get(&r->f, "loglik.first"));
    const int32_t *context = data_i32(fixture_get(&r->f, "loglik.context"));
    const struct tensor ids = fixture_get(&r->f, "loglik.ids");
    const double *want = fixture_get(&r->f, "loglik.sum").data;
    struct loglik_data d = {.item = &item, .count = 1, .longest = 59};
    d.ids = (struct tokens){.id = data_i32(ids), .count = tensor_count(ids)};
    for (int64_t i = 0; i < PROMPTS; i++) {
        choice[i] = (struct loglik_choice){.first = first[i],
                                           .n = first[i + 1] - first[i],
                                           .context = context[i],
                                           .characters = 1 + i % 7,
                                           .bytes = 1 + i % 5};
    }
    open_model(&m, r, max_tokens, 0);
    check_ok(loglik_score(&score, &m, &d, NULL, &err), &err);
    double worst = 0;
    int64_t best = 0, by_characters = 0;
    for (int64_t i = 0; i < PROMPTS; i++) {
        worst = fmax(worst, fabs(choice[i].sum - want[i]));
        if (want[i] > want[best]) best = i;
        if (want[i] / (double)(1 + i % 7) > want[by_characters] / (double)(1 + by_characters % 7)) {
            by_characters = i;
        }
    }
    struct ops failed = *m.setup.ops;
    failed.check = has_failed;
    m.setup.ops = &failed;
    check_error(loglik_score(&score, &m, &d, NULL, &err), &err, "the device failed");
    print_message("%s: sums within %.1e\n", r->of->name, worst);
    assert_true(worst < 1e-4);
    assert_int_equal(item.best, best);
    assert_int_equal(item.best_by_characters, by_characters);
    model_close(&m);
}

static void check_loglik(const struct references *r)
{
    check_sums(r, 59);
    check_sums(r, 200);
}

static void sums_are_those_of_transformers(void **state)
{
    (void)state;
    each_case(check_loglik);
}

static bool stop_at_once(void *user, int64_t sequence, int32_t id)
{
    (void)sequence, (void)id;
    ++*(int *)user;
    return false;
}

static void beams_hand_over_and_end(void **state)
{
    (void)state;
    struct references r;
    struct model m;
    struct error err = {0};
    int told = 0;
    open_references(&r, &cases[0]);
    struct sequence s = {0};
    s.prompt = ragged(&r, "prompt", 0, &s.n_prompt);
    struct generate_options o = {
        .max_new_tokens = 8, .beams = 3, .token = stop_at_once, .user = &told};
    open_model(&m, &r, 8, 3 * (s.n_prompt + 8));
    check_ok(generate(&m, &s, 1, &o, &err), &err);
    assert_int_equal(s.out.count, 8);
    assert_int_equal(s.stop, -1);
    assert_int_equal(told, 1);
    struct ops failed = *m.setup.ops;
    failed.check = has_failed;
    m.setup.ops = &failed;
    s.out.count = 0;
    check_error(generate(&m, &s, 1, &o, &err), &err, "the device failed");
    assert_int_equal(s.out.count, 0);
    o.beams = 4;
    check_error(generate(&m, &s, 1, &o, &err), &err, "a cache of");
    o.beams = 9;
    check_error(generate(&m, &s, 1, &o, &err), &err, "at most 8 side by side");
    tokens_free(&s.out);
    model_close(&m);
    close_references(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ids_are_those_of_transformers),
        cmocka_unit_test(beams_are_those_of_transformers),
        cmocka_unit_test(a_cache_changes_nothing),
        cmocka_unit_test(sums_are_those_of_transformers),
        cmocka_unit_test(beams_hand_over_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
