// tests/tuning/test_esft.c - the choice of experts against Python's floats and round() (fixtures/make_esft.py),
// and expert_cfg.json: written as it is read, and refused by name where it does not fit.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "tuning/esft.h"

#include <stdio.h>
#include <string.h>

static void choices_follow_the_rule(void **state)
{
    (void)state;
    struct fixture ref;
    int cases = 0, cut = 0;
    fixture_open(&ref, "esft/select.safetensors");
    for (;; cases++) {
        char name[32];
        double score[256];
        int32_t order[256];
        snprintf(name, sizeof name, "x.%d", cases);
        if (!fixture_has(&ref, name)) break;
        const struct tensor x = fixture_get(&ref, name);
        snprintf(name, sizeof name, "p.%d", cases);
        const double top_p = *(const double *)fixture_get(&ref, name).data;
        snprintf(name, sizeof name, "score.%d", cases);
        const struct tensor want = fixture_get(&ref, name);
        snprintf(name, sizeof name, "order.%d", cases);
        const struct tensor chosen = fixture_get(&ref, name);
        const int64_t E = tensor_count(x);
        assert_true(esft_scores(score, x.data, E));
        if (memcmp(score, want.data, tensor_bytes(want)) != 0) fail_msg("case %d: scores", cases);
        const int64_t n = esft_choose(order, score, E, top_p);
        if (n != tensor_count(chosen) || memcmp(order, chosen.data, tensor_bytes(chosen)) != 0) {
            fail_msg("case %d: %lld experts, or others than the %lld expected", cases, (long long)n,
                     (long long)tensor_count(chosen));
        }
        assert_true(n <= esft_at_most(top_p, E));
        cut += n < E;
    }
    assert_true(cases > 30 && cut > 20);
    fixture_close(&ref);
}

static void no_scores_without_use(void **state)
{
    (void)state;
    const double zero[3] = {0, 0, 0}, nan[3] = {1, (double)__builtin_nanf(""), 1};
    double score[3];
    assert_false(esft_scores(score, zero, 3));
    assert_false(esft_scores(score, nan, 3));
    struct expert_usage u;
    struct esft_selection s;
    struct error err = {0};
    check_ok(expert_usage_open(&u, 2, 3, &err), &err);
    u.slots[3] = 2; // layer 1 was used, and its gates are all 0
    check_error(esft_select(&s, &u, ESFT_GATE, 0.2, &err), &err, "layer 1");
    check_ok(esft_select(&s, &u, ESFT_TOKEN, 0.2, &err), &err);
    assert_int_equal(s.count[0], -1);
    assert_int_equal(s.count[1], 1);
    assert_int_equal(esft_selection_total(&s), 1);
    esft_selection_close(&s);
    expert_usage_close(&u);
}

// Experts that are used alike are the worst case, whichever way rounding goes.
static void never_more_than_at_most(void **state)
{
    (void)state;
    assert_int_equal(esft_at_most(0.2, 64), 13);
    assert_int_equal(esft_at_most(0.2, 60), 13); // 60 * 0.2 is 12, but 12 * 0.0166 would be less
    assert_int_equal(esft_at_most(1, 64), 64);
    assert_int_equal(esft_at_most(1e-9, 64), 1);
    int tight = 0;
    for (int64_t E = 1; E <= 300; E++) {
        double x[300], score[300];
        int32_t order[300];
        for (int64_t e = 0; e < E; e++) {
            x[e] = 7;
        }
        esft_scores(score, x, E);
        for (int p = 1; p <= 20; p++) {
            const int64_t n = esft_choose(order, score, E, p / 20.0);
            assert_true(n <= esft_at_most(p / 20.0, E));
            tight += n == esft_at_most(p / 20.0, E);
        }
    }
    assert_true(tight > 3000);
}

static struct model_config model(void)
{
    struct model_config c = {.n_layers = 4, .n_experts = 6};
    c.moe_layer[1] = c.moe_layer[3] = true;
    return c;
}

static void the_file_comes_back(void **state)
{
    (void)state;
    static const char golden[] = "{\n"
                                 "  \"experts\": {\n"
                                 "    \"1\": [\n"
                                 "      5,\n"
                                 "      0\n"
                                 "    ],\n"
                                 "    \"3\": []\n"
                                 "  },\n"
                                 "  \"shared_experts\": true,\n"
                                 "  \"non_expert_modules\": false\n"
                                 "}\n";
    struct error err = {0};
    struct esft_selection s;
    char path[1024], *text;
    size_t size;
    const struct model_config c = model();
    snprintf(path, sizeof path, "%s/expert_cfg.json", test_dir());
    check_ok(file_write(path, golden, strlen(golden), &err), &err);
    check_ok(esft_selection_read(&s, path, &c, &err), &err);
    assert_int_equal(s.count[0], -1);
    assert_int_equal(s.count[1], 2);
    assert_int_equal(s.expert[6], 5);
    assert_int_equal(s.expert[7], 0);
    assert_int_equal(s.count[2], -1);
    assert_int_equal(s.count[3], 0);
    assert_true(s.shared_experts && !s.non_expert_modules);
    check_ok(file_write(path, "x", 1, &err), &err);
    check_ok(esft_selection_write(&s, path, &err), &err);
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    assert_string_equal(text, golden);
    mem_free(text);
    esft_selection_close(&s);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"experts\": {\"4\": [1]}}", "layer '4'; 0 to 3 expected"},
        {"{\"experts\": {\"-1\": [1]}}", "layer '-1'"},
        {"{\"experts\": {\"01\": [1]}}", "layer '01'"},
        {"{\"experts\": {\"99999999999999999999\": [1]}}", "layer '99999999999999999999'"},
        {"{\"experts\": {\"\": [1]}}", "layer ''"},
        {"{\"experts\": {\"2\": [1]}}", "layer 2 has no experts"},
        {"{\"experts\": {\"1\": [6]}}", "layer 1: expert 6; 0 to 5 expected"},
        {"{\"experts\": {\"1\": [-1]}}", "expert -1"},
        {"{\"experts\": {\"1\": [1.5]}}", "expert 1.5"},
        {"{\"experts\": {\"1\": [\"x\"]}}", "expert \"x\""},
        {"{\"experts\": {\"3\": [2, 0, 2]}}", "layer 3 names expert 2 twice"},
        {"{\"experts\": {\"3\": 2}}", "layer 3: a list"},
        {"{\"experts\": {\"1\": [1], \"1\": [2]}}", "not valid JSON"},
        {"{\"experts\": [1]}", "no object 'experts'"},
        {"{\"shared_experts\": true}", "no object 'experts'"},
        {"[]", "no object 'experts'"},
        {"{\"experts\": {}, \"shared_experts\": 1}", "shared_experts: found 1"},
        {"{\"experts\": {}, \"shared_expert\": true}", "key 'shared_expert'"},
        {"{\"experts\": {\"1\": [1]}", "not valid JSON"},
    };
    struct error err = {0};
    struct esft_selection s;
    char path[1024];
    const struct model_config c = model();
    snprintf(path, sizeof path, "%s/cfg.json", test_dir());
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_ok(file_write(path, bad[i].text, strlen(bad[i].text), &err), &err);
        check_error(esft_selection_read(&s, path, &c, &err), &err, bad[i].says);
        check_error(false, &err, "cfg.json");
        assert_null(strchr(err.msg, '\n'));
    }
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    static const char text[] = "{\"experts\": {\"1\": [5, 0], \"3\": [2]}}";
    struct error err = {0};
    struct esft_selection s;
    char path[1024];
    const struct model_config c = model();
    int failures = 0;
    snprintf(path, sizeof path, "%s/cfg.json", test_dir());
    check_ok(file_write(path, text, strlen(text), &err), &err);
    for (int64_t n = 1;; n++, failures++) {
        mem_fail_at(n, false);
        const bool ok =
            esft_selection_read(&s, path, &c, &err) && esft_selection_write(&s, path, &err);
        mem_fail_at(0, false);
        esft_selection_close(&s);
        if (ok) break;
        check_error(ok, &err, "");
    }
    assert_true(failures > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_follow_the_rule),    cmocka_unit_test(no_scores_without_use),
        cmocka_unit_test(never_more_than_at_most),    cmocka_unit_test(the_file_comes_back),
        cmocka_unit_test(what_does_not_fit_is_named), cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
