// The measuring run and the placing run agree, pieces are aligned and do not overlap, and leaves are laid
// out by purpose.
#include "support.h"

#include "base/arena.h"
#include "base/leaf.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct pieces {
    struct tensor a, b, c, none;
};

static void lay_out(struct pieces *p, struct arena *m)
{
    m->purpose = PURPOSE_WEIGHTS;
    p->a = arena_2d(m, DTYPE_F32, 3, 5);
    m->purpose = PURPOSE_SCRATCH;
    p->b = arena_1d(m, DTYPE_U8, 1);
    p->none = arena_1d(m, DTYPE_F32, 0);
    p->c = arena_tensor(m, DTYPE_BF16, 3, (const int64_t[]){2, 3, 7});
}

static void measures_what_it_places(void **state)
{
    (void)state;
    struct pieces p;
    struct arena m = {0};
    assert_true(arena_measuring(&m));
    lay_out(&p, &m);
    assert_null(p.a.data);
    assert_int_equal(m.used, 64 + 64 + 128); // 60, 1 and 84 bytes, each rounded up
    assert_int_equal(m.by_purpose[PURPOSE_WEIGHTS], 64);
    assert_int_equal(m.by_purpose[PURPOSE_SCRATCH], 64 + 128);

    struct arena placed = {.base = aligned_alloc(64, m.used), .capacity = m.used};
    assert_non_null(placed.base);
    assert_false(arena_measuring(&placed));
    lay_out(&p, &placed);
    assert_int_equal(placed.used, m.used);
    assert_memory_equal(placed.by_purpose, m.by_purpose, sizeof m.by_purpose);
    const struct tensor all[] = {p.a, p.b, p.c};
    for (int i = 0; i < 3; i++) {
        assert_int_equal((uintptr_t)all[i].data % 64, 0);
        memset(all[i].data, i + 1, tensor_bytes(all[i]));
    }
    for (int i = 0; i < 3; i++) { // none was written over
        const unsigned char *bytes = all[i].data;
        assert_true(bytes[0] == i + 1 && bytes[tensor_bytes(all[i]) - 1] == i + 1);
    }
    assert_true(p.c.rank == 3 && p.c.dim[2] == 7 && p.c.dim[3] == 1);
    free(placed.base);
    for (int i = 0; i < PURPOSE_COUNT; i++) {
        assert_non_null(purpose_name((enum purpose)i));
    }
}

static void leaves_have_their_parts_by_purpose(void **state)
{
    (void)state;
    struct leaves l = {0};
    struct error err;
    struct arena m = {.purpose = PURPOSE_DATA};
    const struct tensor matrix = tensor_2d(NULL, DTYPE_BF16, 4, 8);
    const struct tensor vector = tensor_1d(NULL, DTYPE_F32, 32);
    struct leaf *f = leaves_add(&l, &m, "w", matrix, DTYPE_BF16, &err);
    assert_non_null(f);
    assert_true(f->decays && f->value.dtype == DTYPE_F32 && f->copy.dtype == DTYPE_BF16);
    assert_true(f->copy.dim[0] == 4 && f->copy.dim[1] == 8 && f->grad.dtype == DTYPE_F32);
    f = leaves_add(&l, &m, "b", vector, DTYPE_F32, &err);
    assert_non_null(f);
    assert_false(f->decays);
    assert_int_equal(tensor_count(f->copy), 0); // the master is the working copy
    assert_int_equal(m.by_purpose[PURPOSE_WEIGHTS], 128 + 64 + 128);
    assert_int_equal(m.by_purpose[PURPOSE_GRADIENTS], 2 * 128);
    assert_int_equal(m.by_purpose[PURPOSE_OPTIMIZER], 4 * 128);
    assert_true(m.purpose == PURPOSE_DATA); // left as it was

    for (int i = 0; i < 100; i++) {
        assert_non_null(leaves_add(&l, &m, "more", vector, DTYPE_F32, &err));
    }
    assert_int_equal(l.count, 102);
    assert_string_equal(l.leaf[0].name, "w");
    char name[NAME_MAX_LENGTH + 1];
    memset(name, 'x', sizeof name);
    name[NAME_MAX_LENGTH] = 0;
    check_error(leaves_add(&l, &m, name, vector, DTYPE_F32, &err), &err, "longer than");
    name[NAME_MAX_LENGTH - 1] = 0;
    assert_non_null(leaves_add(&l, &m, name, vector, DTYPE_F32, &err));
    leaves_free(&l);
    leaves_free(&l);
    mem_fail_at(1, true);
    check_error(leaves_add(&l, &m, "w", vector, DTYPE_F32, &err), &err, "no memory");
    mem_fail_at(0, false);
}

static void views_know_their_rows(void **state)
{
    (void)state;
    float x[12];
    for (int i = 0; i < 12; i++) {
        x[i] = (float)i;
    }
    const struct tensor t = tensor_2d(x, DTYPE_F32, 4, 3), rows = tensor_rows(t, 1, 2);
    assert_int_equal(tensor_count(t), 12);
    assert_int_equal(tensor_bytes(rows), 24);
    assert_true(row_f32(rows, 1)[2] == 8);
    assert_ptr_equal(tensor_rows(t, 0, 2).data, x);
    assert_int_equal(tensor_rows(t, 0, 4).dim[0], 4);
    assert_int_equal(tensor_rows(t, 4, 0).dim[0], 0);
    assert_int_equal(tensor_rows(tensor_2d(x, DTYPE_F32, 0, 3), 0, 0).dim[0], 0); // of none
    assert_int_equal(tensor_reshape_2d(t, 2, 6).dim[1], 6);
    assert_int_equal(tensor_count(tensor_make(NULL, DTYPE_F32, 0, NULL)), 1); // a scalar
    assert_null(tensor_absent().data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measures_what_it_places),
        cmocka_unit_test(leaves_have_their_parts_by_purpose),
        cmocka_unit_test(views_know_their_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
