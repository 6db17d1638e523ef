// tests/io/test_packing.c - micro-batches: every example once, documents kept apart, well filled, and
// the same for the same seed and epoch.
#include "support.h"

#include "base/mem.h"
#include "base/rng.h"
#include "io/packing.h"

#include <string.h>

// `n` examples of 2 to `longest` tokens; the ids count up over all, every third token learns.
static struct dataset make_dataset(int64_t n, int64_t longest)
{
    struct dataset d = {.count = n};
    struct rng r = {.seed = 5};
    d.example = mem_zalloc((size_t)n, sizeof *d.example);
    assert_non_null(d.example);
    for (int64_t i = 0; i < n; i++) {
        const int64_t count = 2 + rng_below(&r, longest - 1);
        d.example[i] =
            (struct example){.first = d.n_tokens, .count = count, .file = "f", .line = i + 1};
        d.n_tokens += count;
    }
    d.id = mem_alloc((size_t)d.n_tokens * sizeof *d.id);
    d.learn = mem_alloc((size_t)d.n_tokens);
    assert_non_null(d.learn);
    for (int64_t i = 0; i < d.n_tokens; i++) {
        d.id[i] = (int32_t)i;
        d.learn[i] = i % 3 == 0;
    }
    return d;
}

static void documents_are_kept_apart(void **state)
{
    (void)state;
    static const int32_t id[] = {7, 8, 9, 4, 5};
    static const uint8_t learn[] = {1, 0, 1, 1, 1};
    struct batch b = {0};
    struct error err = {0};
    check_ok(batch_reserve(&b, 5, &err), &err);
    batch_append(&b, id, learn, 3);
    check_ok(batch_reserve(&b, 9, &err), &err); // growing keeps what is there
    batch_append(&b, id + 3, learn + 3, 2);
    static const int32_t position[] = {0, 1, 2, 0, 1}, target[] = {-100, 9, -100, 5, -100},
                         span[] = {0, 0, 0, 1, 0, 2, 3, 3, 3, 4};
    assert_int_equal(b.n, 5);
    assert_int_equal(b.supervised, 2);
    assert_memory_equal(b.id, id, sizeof id);
    assert_memory_equal(b.position, position, sizeof position);
    assert_memory_equal(b.target, target, sizeof target);
    assert_memory_equal(b.span, span, sizeof span);
    batch_clear(&b);
    assert_int_equal(b.n + b.supervised, 0);
    batch_free(&b);
    check_error(batch_reserve(&b, INT64_MAX, &err), &err, "expected at most");
}

static void check_each_once(const struct packing *p, const struct dataset *d, int64_t max_tokens)
{
    uint8_t *seen = mem_zalloc((size_t)d->count, 1);
    assert_non_null(seen);
    assert_int_equal(p->first[0], 0);
    assert_int_equal(p->first[p->count], d->count);
    for (int64_t i = 0; i < p->count; i++) {
        int64_t tokens = 0;
        assert_true(p->first[i] < p->first[i + 1]);
        for (int64_t k = p->first[i]; k < p->first[i + 1]; k++) {
            assert_in_range(p->order[k], 0, d->count - 1);
            assert_int_equal(seen[p->order[k]]++, 0);
            tokens += d->example[p->order[k]].count;
        }
        assert_true(tokens <= max_tokens);
    }
    mem_free(seen);
}

static struct packing pack(const struct dataset *d, int64_t max_tokens, int64_t sequences,
                           bool shuffle, uint64_t seed, int64_t epoch)
{
    struct packing p;
    struct error err = {0};
    check_ok(packing_make(&p, d, max_tokens, sequences, shuffle, seed, epoch, &err), &err);
    check_each_once(&p, d, max_tokens);
    return p;
}

static bool same(const struct packing *a, const struct packing *b, int64_t n)
{
    return a->count == b->count && !memcmp(a->order, b->order, (size_t)n * sizeof *a->order) &&
           !memcmp(a->first, b->first, (size_t)(a->count + 1) * sizeof *a->first);
}

static void first_fit_fills_well(void **state)
{
    (void)state;
    struct dataset d = make_dataset(3000, 400);
    struct packing p = pack(&d, 2048, 0, true, 1, 0);
    assert_true(packing_fill(&p, &d, 2048) > 0.985);
    assert_true(packing_fill(&p, &d, 2048) <= 1);
    packing_free(&p);
    p = pack(&d, 400, 0, true, 1, 0); // examples up to the whole micro-batch
    assert_true(packing_fill(&p, &d, 400) > 0.9);
    packing_free(&p);
    dataset_close(&d);
}

static void check_order(const struct packing *p, const int64_t *order, const int64_t *first,
                        int64_t count)
{
    assert_int_equal(p->count, count);
    for (int64_t i = 0; i <= count; i++) {
        assert_int_equal(p->first[i], first[i]);
    }
    for (int64_t k = 0; k < first[count]; k++) {
        assert_int_equal(p->order[k], order[k]);
    }
}

// By hand: each goes into the first that has room, to the last token of it.
static void first_fit_is_first_fit(void **state)
{
    (void)state;
    static const int64_t length[] = {6, 5, 4, 5, 3, 8, 2}, order[] = {0, 2, 1, 3, 4, 6, 5};
    static const int64_t first[] = {0, 2, 4, 6, 7};
    struct dataset d = make_dataset(7, 9);
    for (int i = 0; i < 7; i++) {
        d.example[i].count = length[i];
    }
    struct packing p = pack(&d, 10, 0, false, 1, 0);
    check_order(&p, order, first, 4);
    packing_free(&p);
    dataset_close(&d);
}

// 64 stand open: the 65th closes the oldest, though it had room for what comes next.
static void so_many_stay_open(void **state)
{
    (void)state;
    struct dataset d = make_dataset(66, 9);
    for (int i = 0; i < 66; i++) {
        d.example[i].count = i < 65 ? 6 : 4;
    }
    struct packing p = pack(&d, 10, 0, false, 1, 0);
    assert_int_equal(p.count, 65);
    assert_int_equal(p.first[1], 1); // the first alone
    assert_int_equal(p.first[2], 3); // the second, and the last
    assert_int_equal(p.order[1], 1);
    assert_int_equal(p.order[2], 65);
    packing_free(&p);
    d.count = 64; // and 64 of them close none
    d.example[63].count = 4;
    p = pack(&d, 10, 0, false, 1, 0);
    assert_int_equal(p.first[1], 2);
    assert_int_equal(p.order[1], 63);
    packing_free(&p);
    dataset_close(&d);
}

static void the_order_is_the_seeds_and_the_epochs(void **state)
{
    (void)state;
    struct dataset d = make_dataset(200, 50);
    struct packing a = pack(&d, 256, 0, true, 1, 0), again = pack(&d, 256, 0, true, 1, 0),
                   epoch = pack(&d, 256, 0, true, 1, 1), seed = pack(&d, 256, 0, true, 2, 0);
    assert_true(same(&a, &again, d.count));
    assert_false(same(&a, &epoch, d.count));
    assert_false(same(&a, &seed, d.count));
    packing_free(&a), packing_free(&again), packing_free(&epoch), packing_free(&seed);
    dataset_close(&d);
}

static void a_number_of_sequences_a_batch(void **state)
{
    (void)state;
    struct dataset d = make_dataset(10, 9);
    struct packing p = pack(&d, 1000, 4, false, 1, 0);
    assert_int_equal(p.count, 3);
    for (int64_t i = 0; i < d.count; i++) {
        assert_int_equal(p.order[i], i); // not shuffled: the files' order
    }
    assert_int_equal(p.first[1], 4);
    assert_int_equal(p.first[2], 8);
    packing_free(&p);
    p = pack(&d, 12, 4, true, 1, 0); // and never more than max_tokens
    assert_true(p.count > 3);
    packing_free(&p);
    for (int i = 0; i < 10; i++) {
        d.example[i].count = 2 + i % 2;
    }
    p = pack(&d, 10, 9, false, 1, 0); // 2 + 3 + 2 + 3 fill one
    check_order(&p, (const int64_t[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, (const int64_t[]){0, 4, 8, 10},
                3);
    assert_true(packing_fill(&p, &d, 100) == (double)d.n_tokens / 300);
    packing_free(&p);
    dataset_close(&d);
}

static void a_batch_holds_its_examples(void **state)
{
    (void)state;
    struct dataset d = make_dataset(50, 20);
    struct packing p = pack(&d, 64, 0, true, 3, 2);
    struct batch b = {0};
    struct error err = {0};
    check_ok(batch_reserve(&b, 64, &err), &err);
    for (int64_t i = 0; i < p.count; i++) {
        packing_batch(&p, &d, i, &b);
        int64_t row = 0;
        for (int64_t k = p.first[i]; k < p.first[i + 1]; k++) {
            const struct example *e = &d.example[p.order[k]];
            assert_memory_equal(b.id + row, d.id + e->first, (size_t)e->count * sizeof *b.id);
            assert_int_equal(b.position[row], 0);
            row += e->count;
        }
        assert_int_equal(row, b.n);
    }
    batch_free(&b);
    packing_free(&p);
    dataset_close(&d);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    struct dataset d = make_dataset(50, 20), none = {0};
    struct packing p;
    struct error err = {0};
    check_error(packing_make(&p, &d, 10, 0, true, 1, 0, &err), &err, "a micro-batch holds 10");
    check_error(packing_make(&p, &none, 10, 0, true, 1, 0, &err), &err, "no examples");
    for (int64_t n = 1; n <= 4; n++) {
        mem_fail_at(n, false);
        check_error(packing_make(&p, &d, 64, 0, true, 1, 0, &err), &err, "out of memory");
        mem_fail_at(0, false);
    }
    dataset_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_kept_apart),
        cmocka_unit_test(first_fit_fills_well),
        cmocka_unit_test(first_fit_is_first_fit),
        cmocka_unit_test(so_many_stay_open),
        cmocka_unit_test(the_order_is_the_seeds_and_the_epochs),
        cmocka_unit_test(a_number_of_sequences_a_batch),
        cmocka_unit_test(a_batch_holds_its_examples),
        cmocka_unit_test(what_does_not_fit_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
