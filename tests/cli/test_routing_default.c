// test_routing_default.c - the options that travel with a routing's state are options of every command that
// opens a model: same field, same names of values. And where the weights, among which a state may lie, do not
// open, nobody goes on as if there were none.
#include "support.h"

#include "base/file.h"
#include "cli/setup.h"

#include <string.h>
#include <sys/stat.h>

static void stated_options_are_options(void **state)
{
    (void)state;
    static const enum command running[] = {COMMAND_TRAIN, COMMAND_PLAN, COMMAND_EVAL,
                                           COMMAND_GENERATE, COMMAND_DUMP};
    int seen = 0;
    for (int r = 0; routings[r]; r++) {
        assert_true(!routings[r]->save == !routings[r]->stated);
        for (const struct routing_stated *const *s = routings[r]->stated; s && *s; s++, seen++) {
            char name[64];
            snprintf(name, sizeof name, "%s", (*s)->name);
            for (char *p = name; *p; p++) {
                *p = *p == '_' ? '-' : *p;
            }
            for (size_t c = 0; c < sizeof running / sizeof *running; c++) {
                const struct option *row = option_find(running[c], name);
                assert_non_null(row);
                assert_int_equal(row->type, OPTION_CHOICE);
                assert_ptr_equal(row->choices, (*s)->choices);
                assert_int_equal(row->field,
                                 offsetof(struct run_config, routing_options) + (*s)->field);
            }
        }
    }
    assert_true(seen >= 4);
}

// The routing that a command is run by; NULL on error.
static const struct routing *settled(enum command c, int argc, char **argv, struct error *err)
{
    struct options o;
    check_ok(options_parse(&o, c, argc, argv, err), err);
    const struct routing *r = routing_settle(&o, err) ? routing_find(o.config.routing, err) : NULL;
    options_close(&o);
    return r;
}

static void a_state_among_weights_is_not_missed(void **state)
{
    (void)state;
    struct error err = {0};
    float bias[4] = {0.5F, 0, -0.5F, 0.25F};
    char model[1024], path[1100], out[1100];
    char *argv[] = {"--model", model, "--batch", "batch.json", "--out", out};
    char *logs[] = {"--from-log", "log", "--model", model};
    snprintf(model, sizeof model, "%s/base", test_dir());
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    snprintf(out, sizeof out, "%s/out", model);
    assert_int_equal(mkdir(model, 0777), 0);
    const struct st_named tensor = {"model.layers.1.mlp.bias", tensor_1d(bias, DTYPE_F32, 4)};
    check_ok(safetensors_write(path, &tensor, 1, NULL, &err), &err);
    assert_ptr_equal(settled(COMMAND_DUMP, 6, argv, &err), routing_find("bias", &err));
    check_ok(file_write(path, "cut", 3, &err), &err);
    check_error(settled(COMMAND_DUMP, 6, argv, &err), &err, "model.safetensors");
    assert_int_equal(remove(path), 0); // a log needs the config alone
    check_ok(settled(COMMAND_EXPERTS, 4, logs, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stated_options_are_options),
        cmocka_unit_test(a_state_among_weights_is_not_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
