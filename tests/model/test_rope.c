// tests/model/test_rope.c - rotary frequencies against transformers at the sizes of released models
// (fixtures/make_rope.py), and the table made of them.
#include "support.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/families.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct model_config read_case(const char *name)
{
    char path[2048], *text;
    size_t size;
    struct error err;
    struct model_config c;
    const struct family *family;
    snprintf(path, sizeof path, "%s/rope/%s.json", FIXTURES, name);
    check_ok(file_read(&text, &size, path, 1 << 16, &err), &err);
    check_ok(family_parse_config(&family, &c, text, size, path, &err), &err);
    mem_free(text);
    return c;
}

// Element by element: the small frequencies are those that a long text hangs on.
static void check_frequencies(const char *name, const float *got, struct tensor want)
{
    double worst = 0;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        const double w = (double)data_f32(want)[i];
        worst = fmax(worst, fabs((double)got[i] - w) / w);
    }
    print_message("%s: frequencies within %.1e\n", name, worst);
    assert_true(worst <= 3e-7); // a few roundings of float32
}

// Row p: size * cos(p f), then size * sin(p f).
static void check_table(const struct model_config *c, const float *f, double size)
{
    enum { POSITIONS = 11 };
    const int64_t half = c->head_dim / 2;
    float *table = mem_alloc((size_t)(POSITIONS * 2 * half) * sizeof *table);
    assert_non_null(table);
    rope_table(table, POSITIONS, c);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)p * (double)f[i];
            const float *row = table + p * 2 * half;
            assert_true(fabs((double)row[i] - size * cos(angle)) <= 2e-6);
            assert_true(fabs((double)row[half + i] - size * sin(angle)) <= 2e-6);
        }
    }
    mem_free(table);
}

static void frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    static const char suffix[] = ".attention";
    struct fixture ref;
    int cases = 0;
    fixture_open(&ref, "rope/frequencies.safetensors");
    for (int64_t i = 0; i < ref.st.count; i++) {
        const char *name = ref.st.entry[i].name, *end = strstr(name, suffix);
        if (end && !end[sizeof suffix - 1]) continue;
        char attention[128];
        float f[256];
        const struct model_config c = read_case(name);
        const struct tensor want = fixture_get(&ref, name);
        snprintf(attention, sizeof attention, "%s%s", name, suffix);
        assert_int_equal(c.head_dim / 2, tensor_count(want));
        rope_frequencies(f, &c);
        check_frequencies(name, f, want);
        check_table(&c, data_f32(want), (double)*data_f32(fixture_get(&ref, attention)));
        cases++;
    }
    assert_int_equal(cases, 10);
    fixture_close(&ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frequencies_are_those_of_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
