// test_routing_default.c - the options that travel with a routing's state are options of every command that
// opens a model: same field, same names of values.
#include "support.h"

#include "cli/options.h"

#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stated_options_are_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
