// tests/io/test_dataset_split.c - what moves into a validation part and what stays: every example once, whole and
// in order, by a hash that the seed alone decides; the figures of a data set; a file's examples alone.
#include "data_fixtures.h"

#include "base/mem.h"

#include <math.h>

enum { VOCAB = 1 << 20 };

// Example i of `file` has 2 + i % 5 ids from 10 * i on, all of which learn but the first.
static void append_ids(struct buf *text, int64_t i)
{
    assert_true(buf_puts(text, "{\"input_ids\":["));
    for (int64_t k = 0; k < 2 + i % 5; k++) {
        assert_true(buf_printf(text, "%s%d", k ? "," : "", (int)(10 * i + k)));
    }
    assert_true(buf_puts(text, "],\"labels\":["));
    for (int64_t k = 0; k < 2 + i % 5; k++) {
        assert_true(buf_printf(text, k ? ",%d" : "-100", (int)(10 * i + k)));
    }
    assert_true(buf_puts(text, "]}\n"));
}

// Examples 0 to n - 1 in a file and, with `second`, 100 to 129 in another.
static struct dataset numbered(int64_t n, bool second)
{
    struct buf text = {0}, more = {0};
    struct error err = {0};
    struct dataset d;
    char other[1200];
    for (int64_t i = 0; i < n; i++) {
        append_ids(&text, i);
    }
    for (int64_t i = 0; i < 30; i++) {
        append_ids(&more, i + 100);
    }
    const char *files[] = {file_of(text.data), other};
    snprintf(other, sizeof other, "%s.2", files[0]);
    check_ok(file_write(other, more.data, more.size, &err), &err);
    const struct dataset_options o = {.files = files, .n_files = 1 + second, .vocab = VOCAB};
    check_ok(dataset_open(&d, &o, NULL, &err), &err);
    buf_free(&text);
    buf_free(&more);
    return d;
}

// Every example is as append_ids wrote it; marks those that are there.
static void check_examples(const struct dataset *d, bool *there)
{
    int64_t tokens = 0, supervised = 0;
    for (int64_t k = 0; k < d->count; k++) {
        const struct example *e = &d->example[k];
        const int64_t i = e->line - 1;
        assert_int_equal(e->first, tokens); // without gaps
        assert_int_equal(e->count, 2 + i % 5);
        assert_int_equal(e->supervised, e->count - 1);
        for (int64_t t = 0; t < e->count; t++) {
            assert_int_equal(d->id[e->first + t], 10 * i + t);
            assert_int_equal(d->learn[e->first + t], t > 0);
        }
        if (k) assert_true(e->line > d->example[k - 1].line);
        assert_false(there[i]);
        there[i] = true;
        tokens += e->count;
        supervised += e->supervised;
    }
    assert_int_equal(d->n_tokens, tokens);
    assert_int_equal(d->supervised, supervised);
}

static void every_example_is_on_one_side(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        bool there[40] = {0};
        struct dataset d = numbered(40, false), held;
        struct error err = {0};
        check_ok(dataset_split(&d, &held, 0.3, seed, &err), &err);
        check_examples(&d, there);
        check_examples(&held, there);
        assert_int_equal(d.count + held.count, 40);
        dataset_close(&held);
        dataset_close(&d);
    }
}

static void split_lines(bool *held_lines, int64_t n, double fraction, uint64_t seed)
{
    struct dataset d = numbered(n, false), held;
    struct error err = {0};
    memset(held_lines, 0, (size_t)n);
    check_ok(dataset_split(&d, &held, fraction, seed, &err), &err);
    for (int64_t k = 0; k < held.count; k++) {
        held_lines[held.example[k].line - 1] = true;
    }
    dataset_close(&held);
    dataset_close(&d);
}

// A larger fraction takes the same examples and more, and the data's length changes none of the choices.
static void the_seed_alone_decides(void **state)
{
    (void)state;
    enum { MANY = 200 };
    bool few[MANY], more[MANY], longer[MANY + 50], other[MANY];
    int n_few = 0, n_more = 0, differ = 0;
    split_lines(few, MANY, 0.2, 5);
    split_lines(more, MANY, 0.5, 5);
    split_lines(longer, MANY + 50, 0.5, 5);
    split_lines(other, MANY, 0.5, 6);
    for (int i = 0; i < MANY; i++) {
        if (few[i]) assert_true(more[i]);
        assert_int_equal(more[i], longer[i]);
        differ += more[i] != other[i];
        n_few += few[i];
        n_more += more[i];
    }
    assert_in_range(n_few, 22, 58); // 40 and 100, give or take three deviations
    assert_in_range(n_more, 79, 121);
    assert_in_range(differ, 79, 121); // half of them
}

static void at_least_one_moves_and_one_stays(void **state)
{
    (void)state;
    static const double fractions[] = {1e-300, 1e-6, 0.999999, 1 - 0x1p-53};
    for (int64_t n = 2; n < 8; n++) {
        for (uint64_t seed = 0; seed < 10; seed++) {
            for (int k = 0; k < 4; k++) {
                struct dataset d = numbered(n, false), held;
                struct error err = {0};
                check_ok(dataset_split(&d, &held, fractions[k], seed, &err), &err);
                assert_int_equal(held.count, k < 2 ? 1 : n - 1);
                assert_int_equal(d.count, k < 2 ? n - 1 : 1);
                dataset_close(&held);
                dataset_close(&d);
            }
        }
    }
}

static void what_is_no_fraction_is_refused(void **state)
{
    (void)state;
    const struct {
        double fraction;
        const char *words;
    } cases[] = {{0, "found 0, expected more than 0 and less than 1"},
                 {1, "found 1, expected more than 0 and less than 1"},
                 {-0.5, "found -0.5, expected"},
                 {1.5, "found 1.5, expected"},
                 {(double)NAN, "nan, expected"}};
    struct dataset d = numbered(3, false), one = numbered(1, false), held;
    struct error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_error(dataset_split(&d, &held, cases[i].fraction, 1, &err), &err, cases[i].words);
        assert_int_equal(d.count, 3);
        dataset_close(&held);
    }
    check_error(dataset_split(&one, &held, 0.5, 1, &err), &err, "one example cannot be split");
    dataset_close(&one);
    dataset_close(&d);
}

// A part set aside outlives the rest, and knows its files; a view is of one file.
static void files_are_told_apart(void **state)
{
    (void)state;
    struct error err = {0};
    struct dataset d = numbered(20, true), held;
    assert_int_equal(d.count, 50);
    for (int64_t f = 0; f < 2; f++) {
        const struct dataset of = dataset_of_file(&d, f);
        int64_t tokens = 0;
        assert_int_equal(of.count, f ? 30 : 20);
        for (int64_t k = 0; k < of.count; k++) {
            assert_ptr_equal(of.example[k].file, d.file[f]);
            assert_int_equal(of.id[of.example[k].first], 10 * (k + 100 * f));
            tokens += of.example[k].count;
        }
        assert_int_equal(of.n_tokens, tokens);
        assert_int_equal(of.supervised, tokens - of.count);
    }
    check_ok(dataset_split(&d, &held, 0.5, 1, &err), &err);
    const struct dataset stays = dataset_of_file(&d, 1);
    int64_t of_second = stays.count;
    dataset_close(&d);
    assert_int_equal(held.n_files, 2);
    for (int64_t k = 0; k < held.count; k++) {
        const struct example *e = &held.example[k];
        const bool later = held.id[e->first] >= 1000;
        assert_ptr_equal(e->file, held.file[later]);
        of_second += later;
    }
    assert_non_null(strstr(held.file[1], "data.jsonl.2"));
    assert_int_equal(of_second, 30);
    dataset_close(&held);
}

static void without_memory_nothing_moves(void **state)
{
    (void)state;
    struct dataset d = numbered(10, false), held;
    struct error err = {0};
    const int64_t before = mem_count();
    check_ok(dataset_split(&d, &held, 0.5, 3, &err), &err);
    const int64_t count = mem_count() - before;
    dataset_close(&held);
    dataset_close(&d);
    for (int64_t n = 1; n <= count; n++) {
        bool there[10] = {0};
        d = numbered(10, false);
        mem_fail_at(n, false);
        const bool ok = dataset_split(&d, &held, 0.5, 3, &err);
        mem_fail_at(0, false);
        check_error(ok, &err, "validation fraction: out of memory");
        assert_int_equal(d.count, 10);
        check_examples(&d, there);
        dataset_close(&d);
    }
}

static void figures_of_known_lengths(void **state)
{
    (void)state;
    enum { MANY = 101 };
    struct example example[MANY];
    struct dataset d = {.example = example, .count = MANY, .n_tokens = 5151, .supervised = 1717};
    struct dataset_stats s;
    struct error err = {0};
    for (int64_t i = 0; i < MANY; i++) {
        example[i] = (struct example){.count = 1 + 37 * i % MANY}; // each of 1 to 101 once
    }
    check_ok(dataset_stats(&s, &d, &err), &err);
    assert_int_equal(s.examples, MANY);
    assert_int_equal(s.tokens, 5151);
    assert_int_equal(s.supervised, 1717);
    assert_true(fabs(s.supervised_share - 1.0 / 3) < 1e-12);
    assert_int_equal(s.shortest, 1);
    assert_int_equal(s.median, 51);
    assert_int_equal(s.p90, 91);
    assert_int_equal(s.p99, 100);
    assert_int_equal(s.longest, 101);
    d.count = 2; // 1 and 38
    check_ok(dataset_stats(&s, &d, &err), &err);
    assert_int_equal(s.median, 1); // the lower of two
    assert_int_equal(s.p99, 1);
    assert_int_equal(s.longest, 38);
    d = (struct dataset){0};
    check_ok(dataset_stats(&s, &d, &err), &err);
    assert_true(s.examples == 0 && s.longest == 0 && s.supervised_share == 0);
    d = (struct dataset){.example = example, .count = 2};
    mem_fail_at(1, false);
    const bool ok = dataset_stats(&s, &d, &err);
    mem_fail_at(0, false);
    check_error(ok, &err, "data: out of memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_is_on_one_side),
        cmocka_unit_test(the_seed_alone_decides),
        cmocka_unit_test(at_least_one_moves_and_one_stays),
        cmocka_unit_test(what_is_no_fraction_is_refused),
        cmocka_unit_test(files_are_told_apart),
        cmocka_unit_test(without_memory_nothing_moves),
        cmocka_unit_test(figures_of_known_lengths),
    };
    return cmocka_run_group_tests_name("dataset split", tests, NULL, NULL);
}
