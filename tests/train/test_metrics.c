// tests/train/test_metrics.c - the lines of metrics.jsonl: names, numbers under any locale, and what is
// kept when a run goes on.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include "train/metrics.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check_number(double x, const char *text)
{
    char out[NUMBER_TEXT];
    number_text(out, x);
    assert_string_equal(out, text);
}

static void numbers_read_back(void **unused)
{
    (void)unused;
    check_number(0.1, "0.1");
    check_number(1, "1");
    check_number(-2.5e-5, "-2.5e-05");
    check_number(1.0 / 3, "0.3333333333333333");
    check_number(0.1 + 0.2, "0.30000000000000004");
    check_number((double)NAN, "null");
    check_number(-(double)INFINITY, "null");
}

// A decimal comma must not reach the file, whatever locale the program that uses the library sets.
static void a_comma_stays_out(void **unused)
{
    (void)unused;
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "C.UTF-8"};
    for (size_t i = 0; i < sizeof locales / sizeof *locales; i++) {
        if (!setlocale(LC_ALL, locales[i])) continue;
        check_number(0.625, "0.625");
        check_number(1234567.5, "1234567.5");
    }
    setlocale(LC_ALL, "C");
}

static struct train_step step_of(int64_t step)
{
    return (struct train_step){.step = step,
                               .steps = 9,
                               .stage = 0,
                               .loss = 1.0 / (double)step,
                               .lr = 1e-5,
                               .grad_norm = 0.5,
                               .tokens_per_second = 100,
                               .seconds = 0.25,
                               .eval_loss = step == 2 ? 0.75 : (double)NAN,
                               .eval_before = (double)NAN,
                               .tokens = 64,
                               .skipped = 1};
}

static void write_steps(const char *path, int64_t after, int64_t last)
{
    struct metrics m;
    struct error err = {0};
    check_ok(metrics_open(&m, path, after, &err), &err);
    for (int64_t s = after + 1; s <= last; s++) {
        const struct train_step step = step_of(s);
        check_ok(metrics_write(&m, &step, &err), &err);
    }
    check_ok(metrics_sync(&m, &err), &err);
    metrics_close(&m);
}

static char *text_of(const char *path)
{
    char *text;
    size_t size;
    struct error err = {0};
    check_ok(file_read(&text, &size, path, 1 << 20, &err), &err);
    return text;
}

static void names_are_those_promised(void **unused)
{
    (void)unused;
    char path[2048];
    snprintf(path, sizeof path, "%s/metrics.jsonl", test_dir());
    write_steps(path, 0, 2);
    char *text = text_of(path);
    assert_string_equal(text,
                        "{\"step\":1,\"stage\":0,\"loss\":1,\"lr\":1e-05,\"grad_norm\":0.5,"
                        "\"tokens\":64,\"tokens_per_second\":100,\"seconds\":0.25,\"skipped\":1}\n"
                        "{\"step\":2,\"stage\":0,\"loss\":0.5,\"lr\":1e-05,\"grad_norm\":0.5,"
                        "\"tokens\":64,\"tokens_per_second\":100,\"seconds\":0.25,\"skipped\":1,"
                        "\"eval_loss\":0.75}\n");
    mem_free(text);
}

static void append_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void resumed_file_is_that_of_one_run(void **unused)
{
    (void)unused;
    char straight[2048], resumed[2048];
    const char *dir = test_dir();
    snprintf(straight, sizeof straight, "%s/straight.jsonl", dir);
    snprintf(resumed, sizeof resumed, "%s/resumed.jsonl", dir);
    write_steps(straight, 0, 9);
    write_steps(resumed, 0, 7);
    append_text(resumed, "{\"step\":8,\"sta"); // torn by a kill
    write_steps(resumed, 5, 9);
    char *a = text_of(straight), *b = text_of(resumed);
    assert_string_equal(a, b);
    mem_free(a);
    mem_free(b);
    // A fresh run starts the file again; one whose file was lost goes on with what is left.
    write_steps(resumed, 0, 1);
    write_steps(resumed, 3, 4);
    b = text_of(resumed);
    assert_non_null(strstr(b, "\"step\":1,"));
    assert_null(strstr(b, "\"step\":2,"));
    assert_non_null(strstr(b, "\"step\":4,"));
    mem_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_read_back),
        cmocka_unit_test(a_comma_stays_out),
        cmocka_unit_test(names_are_those_promised),
        cmocka_unit_test(resumed_file_is_that_of_one_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
