// tests/base/test_leaf.c - what a leaf is kept in: masters or none, moments of each type, gradients that share memory
// between sections of the backward pass; the measuring run and the placing one agree.
#include "support.h"

#include "base/leaf.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static const struct tensor matrix = {.dtype = DTYPE_BF16, .rank = 2, .dim = {40, 50, 1, 1}};
static const struct tensor vector = {.dtype = DTYPE_BF16, .rank = 1, .dim = {33, 1, 1, 1}};

static const struct leaf *add(struct leaves *l, struct arena *a, struct tensor shape)
{
    struct error err = {0};
    const struct leaf *f = leaves_add(l, a, "w", shape, DTYPE_BF16, &err);
    check_ok(f != NULL, &err);
    return f;
}

static void moments_are_of_the_type_that_was_asked_for(void **state)
{
    (void)state;
    static const enum dtype types[] = {
        [STATES_F32] = DTYPE_F32, [STATES_BF16] = DTYPE_BF16, [STATES_8BIT] = DTYPE_U8};
    for (int i = 0; i < 3; i++) {
        struct leaves l = {.storage.states = (enum state_type)i};
        struct arena m = {0};
        const struct leaf *f = add(&l, &m, matrix);
        assert_int_equal(f->m.dtype, types[i]);
        assert_int_equal(f->v.dtype, types[i]);
        assert_int_equal(tensor_count(f->v), 2000);
        // A scale for each 256 codes, the last of them for fewer.
        assert_int_equal(tensor_count(f->m_scale), i == STATES_8BIT ? 8 : 0);
        assert_int_equal(tensor_count(f->v_scale), i == STATES_8BIT ? 8 : 0);
        f = add(&l, &m, vector); // always in float32
        assert_int_equal(f->m.dtype, DTYPE_F32);
        assert_int_equal(tensor_count(f->m_scale), 0);
        leaves_free(&l);
    }
}

static void a_matrix_stored_in_bf16_may_do_without_a_master(void **state)
{
    (void)state;
    struct leaves l = {.storage.no_masters = true};
    struct arena m = {0};
    struct tensor stored_f32 = matrix;
    stored_f32.dtype = DTYPE_F32;
    const struct leaf *f = add(&l, &m, matrix);
    assert_int_equal(f->value.dtype, DTYPE_BF16);
    assert_int_equal(tensor_count(f->copy), 0); // it is what the forward pass reads
    f = add(&l, &m, stored_f32);
    assert_int_equal(f->value.dtype, DTYPE_F32);
    assert_int_equal(tensor_count(f->copy), 2000);
    f = add(&l, &m, vector);
    assert_int_equal(f->value.dtype, DTYPE_F32);
    assert_int_equal(tensor_count(f->copy), 33);
    leaves_free(&l);
}

static void what_is_frozen_has_a_value_alone(void **state)
{
    (void)state;
    struct leaves l = {.frozen = true};
    struct arena m = {0};
    const struct leaf *f = add(&l, &m, matrix);
    assert_int_equal(tensor_count(f->value), 2000);
    assert_int_equal(tensor_count(f->copy), 2000);
    assert_int_equal(tensor_count(f->grad) + tensor_count(f->m) + tensor_count(f->v), 0);
    assert_int_equal(m.by_purpose[PURPOSE_GRADIENTS] + m.by_purpose[PURPOSE_OPTIMIZER], 0);
    leaves_free(&l);
}

static void moments_may_lie_in_an_arena_of_their_own(void **state)
{
    (void)state;
    struct arena rest = {0}, states = {0};
    struct leaves l = {.states = &states};
    add(&l, &rest, vector);
    assert_int_equal(states.used, 2 * 192); // 132 bytes each
    assert_int_equal(states.by_purpose[PURPOSE_OPTIMIZER], 2 * 192);
    assert_int_equal(rest.by_purpose[PURPOSE_OPTIMIZER], 0);
    leaves_free(&l);
}

// Three sections: 1 has a matrix and a vector, 2 a vector, none a vector with memory of its own.
static void lay_out(struct leaves *l, struct arena *a)
{
    leaves_begin(l, a);
    l->section = 1;
    add(l, a, matrix);
    add(l, a, vector);
    l->section = 2;
    add(l, a, vector);
    l->section = SECTION_NONE;
    add(l, a, vector);
    leaves_end(l, a);
}

static void gradients_of_sections_lie_in_the_same_memory(void **state)
{
    (void)state;
    struct leaves l = {.storage.shared_gradients = true};
    struct arena m = {.purpose = PURPOSE_DATA};
    for (int again = 0; again < 2; again++) { // a measuring run may be repeated
        m.used = 0;
        memset(m.by_purpose, 0, sizeof m.by_purpose);
        lay_out(&l, &m);
        assert_int_equal(l.shared, 8000 + 192); // the larger of two; 132 bytes take 192
        assert_int_equal(m.by_purpose[PURPOSE_GRADIENTS], 8192 + 192);
        assert_int_equal(m.purpose, PURPOSE_DATA);
        assert_null(l.leaf[0].grad.data);
    }
    struct arena placed = {.base = aligned_alloc(64, m.used), .capacity = m.used};
    assert_non_null(placed.base);
    lay_out(&l, &placed);
    assert_int_equal(placed.used, m.used);
    assert_int_equal(placed.purpose, 0);
    assert_int_equal(l.count, 4);
    const char *first = l.leaf[0].grad.data;
    assert_ptr_equal(first, l.gradients);
    assert_ptr_equal((const char *)l.leaf[1].grad.data, first + 8000);
    assert_ptr_equal(l.leaf[2].grad.data, first); // of the other section
    const char *own = l.leaf[3].grad.data;
    assert_true(own < first || own >= first + l.shared);
    free(placed.base);
    leaves_free(&l);
}

static void no_memory_for_sections_is_an_error(void **state)
{
    (void)state;
    struct leaves l = {.storage.shared_gradients = true, .section = 7};
    struct arena m = {.purpose = PURPOSE_DATA};
    struct error err = {0};
    mem_fail_at(2, false); // the list itself has its memory
    const struct leaf *f = leaves_add(&l, &m, "w", matrix, DTYPE_BF16, &err);
    mem_fail_at(0, false);
    check_error(f != NULL, &err, "no memory for 8 sections");
    assert_int_equal(m.purpose, PURPOSE_DATA);
    leaves_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_of_the_type_that_was_asked_for),
        cmocka_unit_test(a_matrix_stored_in_bf16_may_do_without_a_master),
        cmocka_unit_test(what_is_frozen_has_a_value_alone),
        cmocka_unit_test(moments_may_lie_in_an_arena_of_their_own),
        cmocka_unit_test(gradients_of_sections_lie_in_the_same_memory),
        cmocka_unit_test(no_memory_for_sections_is_an_error),
    };
    return cmocka_run_group_tests_name("leaves", tests, NULL, NULL);
}
