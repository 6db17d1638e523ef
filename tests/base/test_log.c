// Lines reach the listener whole, warnings without what a terminal would obey; nobody listens by default.
#include "support.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

struct heard {
    enum log_level level;
    char line[4096];
    int lines;
};

static void hear(enum log_level level, const char *line, void *user)
{
    struct heard *h = user;
    h->level = level;
    h->lines++;
    snprintf(h->line, sizeof h->line, "%s", line);
}

static void lines_reach_the_listener(void **state)
{
    (void)state;
    struct heard h = {0};
    log_info("nobody %s", "listens");
    log_set_sink(hear, &h);
    log_info("step %d\tof %s", 3, "a\nb\x7f");
    assert_int_equal(h.level, LOG_INFO);
    assert_string_equal(h.line, "step 3\tof a\nb\x7f"); // ours
    log_warning("%s: \x1b[2J\n\x1f\x7f \x20~\u00e4", "file");
    assert_int_equal(h.level, LOG_WARNING);
    assert_string_equal(h.line, "file: ?[2J???  ~\u00e4"); // a file's
    log_warning("%s", "");
    assert_string_equal(h.line, "");
    assert_int_equal(h.lines, 3);
    log_set_sink(NULL, NULL);
    log_warning("not heard");
    assert_int_equal(h.lines, 3);
}

static void a_long_line_is_cut(void **state)
{
    (void)state;
    struct heard h = {0};
    char longer[3000];
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = 0;
    log_set_sink(hear, &h);
    log_warning("x%s", longer);
    assert_int_equal(strlen(h.line), 2047);
    assert_memory_equal(h.line, "xyy", 3);
    log_set_sink(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_reach_the_listener),
        cmocka_unit_test(a_long_line_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
