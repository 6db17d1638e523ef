// tests/eval/test_routing_log.c - the released ESFT's routing logs: their sums and the choices from them against
// Python (fixtures/make_esft.py), the released logs against the released choices where they are, and bad lines.
#include "support.h"

#include "base/file.h"
#include "eval/routing_log.h"
#include "tuning/esft.h"

#include <stdio.h>
#include <string.h>

static void check_sums(const struct expert_usage *u, const double *got, const char *what)
{
    struct fixture ref;
    fixture_open(&ref, "esft/log.safetensors");
    for (int64_t layer = 1; layer <= 4; layer += 3) {
        char name[32];
        snprintf(name, sizeof name, "%s.%d", what, (int)layer);
        const struct tensor want = fixture_get(&ref, name);
        assert_int_equal(u->experts, tensor_count(want));
        for (int64_t e = 0; e < u->experts; e++) {
            const double x = got[layer * u->experts + e], w = ((const double *)want.data)[e];
            assert_true(x >= w * (1 - 1e-12) && x <= w * (1 + 1e-12));
        }
    }
    fixture_close(&ref);
}

static void check_same_choice(const struct esft_selection *a, const struct esft_selection *b)
{
    for (int64_t l = 0; l < a->layers; l++) {
        assert_int_equal(a->count[l], b->count[l]);
        if (a->count[l] <= 0) continue;
        assert_memory_equal(a->expert + l * a->experts, b->expert + l * b->experts,
                            (size_t)a->count[l] * sizeof *a->expert);
    }
}

static struct model_config model(void)
{
    struct model_config c = {.n_layers = 5, .n_experts = 9};
    c.moe_layer[1] = c.moe_layer[4] = true;
    return c;
}

static void sums_and_choices(void **state)
{
    (void)state;
    struct error err = {0};
    struct expert_usage u;
    const struct model_config c = model();
    for (int i = 0; i < 4; i++) {
        struct esft_selection got, want;
        const bool gate = i % 2;
        check_ok(routing_log_read(&u, FIXTURES "/esft/log", i / 2 ? &c : NULL, &err), &err);
        assert_int_equal(u.layers, 5);
        assert_int_equal(expert_usage_slots(&u, 0), 0);
        assert_int_equal(expert_usage_slots(&u, 1), 66);
        check_sums(&u, u.slots, "slots");
        check_sums(&u, u.mass, "mass");
        check_ok(esft_select(&got, &u, gate ? ESFT_GATE : ESFT_TOKEN, 0.45, &err), &err);
        check_ok(
            esft_selection_read(
                &want, gate ? FIXTURES "/esft/gate.json" : FIXTURES "/esft/token.json", &c, &err),
            &err);
        check_same_choice(&got, &want);
        esft_selection_close(&got);
        esft_selection_close(&want);
        expert_usage_close(&u);
    }
}

// Layers in which the choice is the released one, in its order.
static int64_t released(const char *task)
{
    struct error err = {0};
    struct expert_usage u;
    struct esft_selection got, want;
    char path[1024];
    struct model_config c = {.n_layers = 27, .n_experts = 64};
    memset(c.moe_layer + 1, true, 26);
    snprintf(path, sizeof path, "%s/data/esft_scores/%s", SHARED_DATA, task);
    check_ok(routing_log_read(&u, path, &c, &err), &err);
    check_ok(esft_select(&got, &u, ESFT_TOKEN, 0.2, &err), &err);
    snprintf(path, sizeof path, "%s/data/esft_scores/%s/expert_cfg.json", SHARED_DATA, task);
    check_ok(esft_selection_read(&want, path, &c, &err), &err);
    int64_t same = 0;
    for (int64_t l = 1; l < 27; l++) {
        same +=
            got.count[l] == want.count[l] && !memcmp(got.expert + l * 64, want.expert + l * 64,
                                                     (size_t)want.count[l] * sizeof *want.expert);
    }
    esft_selection_close(&got);
    esft_selection_close(&want);
    expert_usage_close(&u);
    return same;
}

static void released_logs_give_the_released_choices(void **state)
{
    (void)state;
    if (!file_exists(SHARED_DATA "/data/esft_scores/intent/expert_cfg.json")) {
        print_message("no %s/data/esft_scores: not compared with the released choices\n",
                      SHARED_DATA);
        skip();
    }
    const int64_t same = released("intent") + released("summary");
    print_message("the released choice in %d of 52 layers\n", (int)same);
    assert_true(same >= 51);
}

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "empty"},
        {"0\t1\t\t0.5\t0.5\n\n", ":2: no two tabs"},
        {"0\t1\t0.5\t0.5\n", ":1: no two tabs"},
        {"0\t1\t\t0.5\n", ":1: 2 experts, but 1 gates"},
        {"0\t1\t\t0.5\t0.25\t0.25\n", ":1: 2 experts, but 3 gates"},
        {"0\t1\t\t\t0.5\t0.5\n", ":1: 2 experts, but 3 gates"},
        {"0\t1\t\t0.5\t0.5\n0\t9\t\t0.5\t0.5\n", ":2: expert '9'; 0 to 8 expected"},
        {"0\t99999999999999999999\t\t0.5\t0.5\n", ":1: expert '99999999999999999999'"},
        {"0\t-1\t\t0.5\t0.5\n", ":1: expert '-1'"},
        {"0\tx\t\t0.5\t0.5\n", ":1: expert 'x'"},
        {"0 \t1\t\t0.5\t0.5\n", ":1: expert '0 '"},
        {"\t\t0.5\n", ":1: expert ''"},
        {"0\t1\t\t0.5\tnan\n", ":1: gate 'nan'"},
        {"0\t1\t\t0.5\tinf\n", ":1: gate 'inf'"},
        {"0\t1\t\t0.5\t1e999\n", ":1: gate '1e999'"},
        {"0\t1\t\t0.5\t-0.5\n", ":1: gate '-0.5'"},
        {"0\t1\t\t0.5\t0.5.5\n", ":1: gate '0.5.5'"},
        {"0\t1\t\t0.5\t0.5", NULL},      // a missing last line end is no fault,
        {"0\t1\t\t0.5\t5e-1\r\n", NULL}, // nor a carriage return
    };
    struct error err = {0};
    struct expert_usage u;
    check_ok(expert_usage_open(&u, 2, 9, &err), &err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const bool ok = routing_log_parse(&u, 1, bad[i].text, strlen(bad[i].text), "log.txt", &err);
        if (!bad[i].says) {
            check_ok(ok, &err);
            continue;
        }
        check_error(ok, &err, bad[i].says);
        check_error(ok, &err, "log.txt:");
        assert_null(strchr(err.msg, '\n'));
    }
    expert_usage_close(&u);
}

static void folders_that_do_not_fit_are_named(void **state)
{
    (void)state;
    struct error err = {0};
    struct expert_usage u;
    char path[1024];
    const char *dir = test_dir();
    struct model_config c = model();
    check_error(routing_log_read(&u, dir, NULL, &err), &err, "no expert_weights_LAYER.txt");
    c.moe_layer[2] = true;
    check_error(routing_log_read(&u, FIXTURES "/esft/log", &c, &err), &err, "expert_weights_2.txt");
    c = model();
    c.moe_layer[4] = false;
    check_error(routing_log_read(&u, FIXTURES "/esft/log", &c, &err), &err, "layer 4");
    c = model();
    c.n_layers = 4;
    check_error(routing_log_read(&u, FIXTURES "/esft/log", &c, &err), &err, "layer '4'");
    c = model();
    c.n_experts = 3;
    check_error(routing_log_read(&u, FIXTURES "/esft/log", &c, &err), &err, "0 to 2 expected");
    snprintf(path, sizeof path, "%s/expert_weights_x.txt", dir);
    check_ok(file_write(path, "0\t\t1\n", 5, &err), &err);
    check_error(routing_log_read(&u, dir, NULL, &err), &err, "layer 'x'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_choices),
        cmocka_unit_test(released_logs_give_the_released_choices),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(folders_that_do_not_fit_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
