// tests/train/test_feed.c - how many steps a run has and what each takes.
#include "toy.h"

#include "train/feed.h"

static struct train_options some_options(void)
{
    return (struct train_options){
        .batch_sequences = 3, .accumulate = 4, .epochs = 1, .seed = 9, .shuffle = true};
}

// 40 examples, 3 to a micro-batch: 14 micro-batches, 4 steps of 4, 4, 4 and 2.
static int64_t steps_of(const struct dataset *d, const struct train_options *o)
{
    struct feed f;
    struct error err = {0};
    check_ok(feed_open(&f, d, o, &err), &err);
    const int64_t steps = f.steps;
    feed_close(&f);
    return steps;
}

static void lengths_are_counted(void **unused)
{
    (void)unused;
    struct dataset d;
    toy_data(&d, 40, 1);
    struct train_options o = some_options();
    assert_int_equal(steps_of(&d, &o), 4);
    o.epochs = 3;
    assert_int_equal(steps_of(&d, &o), 12);
    o.epochs = 1.5;
    assert_int_equal(steps_of(&d, &o), 6);
    o.epochs = 0.1; // 0.4 steps are a step
    assert_int_equal(steps_of(&d, &o), 1);
    o.epochs = 2.51;
    assert_int_equal(steps_of(&d, &o), 11);
    o.max_steps = 5;
    assert_int_equal(steps_of(&d, &o), 5);
    o.accumulate = 1000;
    assert_int_equal(steps_of(&d, &o), 5);
    o.max_steps = 0;
    o.epochs = 2;
    assert_int_equal(steps_of(&d, &o), 2);
    toy_data_free(&d);
}

static void every_example_comes_once_an_epoch(void **unused)
{
    (void)unused;
    struct dataset d;
    struct feed f;
    struct batch b = {0};
    struct error err = {0};
    toy_data(&d, 40, 2);
    struct train_options o = some_options();
    o.epochs = 2;
    check_ok(feed_open(&f, &d, &o, &err), &err);
    check_ok(batch_reserve(&b, f.largest, &err), &err);
    int64_t tokens = 0, supervised = 0, expected = 0, by_batch = 0;
    static const int64_t counts[] = {4, 4, 4, 2};
    for (int64_t s = 0; s < f.steps; s++) {
        struct feed_step step;
        check_ok(feed_seek(&f, s, &step, &err), &err);
        assert_int_equal(step.epoch, s / 4);
        assert_int_equal(step.count, counts[s % 4]);
        tokens += step.tokens;
        supervised += step.supervised;
        for (int64_t i = step.first; i < step.first + step.count; i++) {
            feed_batch(&f, i, &b);
            by_batch += b.supervised;
            expected += b.n;
        }
        assert_int_equal(tokens, expected);
        assert_int_equal(supervised, by_batch);
    }
    assert_int_equal(tokens, 2 * d.n_tokens);
    assert_int_equal(supervised, 2 * d.supervised);
    batch_free(&b);
    feed_close(&f);
    toy_data_free(&d);
}

// A step found by jumping is the step found by walking.
static void a_resumed_run_finds_its_place(void **unused)
{
    (void)unused;
    struct dataset d;
    struct feed walk, jump;
    struct batch a = {0}, b = {0};
    struct error err = {0};
    toy_data(&d, 40, 3);
    struct train_options o = some_options();
    o.max_steps = 11;
    check_ok(feed_open(&walk, &d, &o, &err), &err);
    check_ok(batch_reserve(&a, walk.largest, &err), &err);
    check_ok(batch_reserve(&b, walk.largest, &err), &err);
    for (int64_t s = 0; s < 11; s++) {
        struct feed_step x, y;
        check_ok(feed_seek(&walk, s, &x, &err), &err);
        check_ok(feed_open(&jump, &d, &o, &err), &err);
        check_ok(feed_seek(&jump, s, &y, &err), &err);
        assert_memory_equal(&x, &y, sizeof x);
        feed_batch(&walk, x.first, &a);
        feed_batch(&jump, x.first, &b);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.id, b.id, (size_t)a.n * sizeof *a.id);
        feed_close(&jump);
    }
    batch_free(&a);
    batch_free(&b);
    feed_close(&walk);
    toy_data_free(&d);
}

static void data_have_a_fingerprint(void **unused)
{
    (void)unused;
    struct dataset d;
    toy_data(&d, 5, 4);
    const uint32_t before = feed_fingerprint(&d);
    d.learn[3] ^= 1;
    assert_true(feed_fingerprint(&d) != before);
    d.learn[3] ^= 1;
    d.example[1].count++;
    d.example[2].count--;
    assert_true(feed_fingerprint(&d) != before);
    toy_data_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_counted),
        cmocka_unit_test(every_example_comes_once_an_epoch),
        cmocka_unit_test(a_resumed_run_finds_its_place),
        cmocka_unit_test(data_have_a_fingerprint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
