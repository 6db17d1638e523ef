// tests/cuda/test_rows.c - ops on rows sorted by expert, losses, adapters.
#include "cases.h"

// ---- rows sorted by expert. All slots of all experts, and those of weight 0 of some.

static struct dispatch dispatch_of(struct tensor *t, int first)
{
    return (struct dispatch){.offsets = t[first], .slot = t[first + 1], .row = t[first + 2]};
}

ARGUMENTS(dispatch)
{
    const int64_t R = s->N * s->K;
    SET(0, ZEROS, DTYPE_I32, 1, s->E + 1);
    SET(1, ZEROS, DTYPE_I32, 1, R);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
    SET(5, ZEROS, A, R, s->C);
    SET(6, NORMAL, A, s->N, s->C);
    SET(7, NORMAL, A, s->N, s->C);
    SET(8, NORMAL, A, s->N, s->C);
    SET(9, NORMAL, A, R, s->C);
}
RUN(dispatch)
{
    const struct dispatch d = dispatch_of(t, 0);
    o->dispatch(&d, t[3], t[4], false, 0);
    o->gather_tokens(t[5], t[6], &d);
    o->combine_slots(t[7], t[9], &d, false);
    o->combine_slots(t[8], t[9], &d, true);
}

ARGUMENTS(dispatch_zeros)
{
    SET(0, ZEROS, DTYPE_I32, 1, s->E - 1);
    SET(1, ZEROS, DTYPE_I32, 1, s->N * s->K);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
}
RUN(dispatch_zeros)
{
    const struct dispatch d = dispatch_of(t, 0);
    o->dispatch(&d, t[3], t[4], true, 1);
}

ARGUMENTS(rows)
{
    SET(0, ZEROS, A, 13, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, DISTINCT, DTYPE_I32, 1, 13, s->N);
    SET(3, NORMAL, A, s->N, s->C);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, ZEROS, A, 13, 3);
    SET(6, NORMAL, A, s->N, 3);
}
RUN(rows)
{
    o->gather_rows(t[0], t[1], t[2]);
    o->gather_rows(t[5], t[6], t[2]);
    o->scatter_rows(t[3], t[0], t[2]);
    o->place_rows(t[4], t[0], t[2]);
}

ARGUMENTS(swiglu)
{
    const int64_t R = s->N * s->K;
    SET(0, ZEROS, DTYPE_I32, 1, s->E + 1);
    SET(1, ZEROS, DTYPE_I32, 1, R);
    SET(2, ZEROS, DTYPE_I32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(4, GATES, DTYPE_F32, s->N, s->K);
    SET(5, ZEROS, A, R, s->C);
    SET(6, NORMAL, A, R, s->C);
    SET(7, NORMAL, A, R, s->C);
    SET(8, NORMAL, A, R, s->C);
    SET(9, NORMAL, DTYPE_F32, s->N, s->K);
}
RUN(swiglu)
{
    const struct dispatch d = dispatch_of(t, 0);
    const struct tensor none = tensor_absent();
    o->dispatch(&d, t[3], t[4], true, 0);
    o->swiglu_dot(t[9], t[8], t[6], t[7], &d);
    o->dispatch(&d, t[3], t[4], false, 0);
    o->swiglu_forward(t[5], t[6], t[7], t[4], &d);
    const struct swiglu_grads two = {none, t[5], none, none};
    o->swiglu_backward(&two, t[8], t[6], t[7], t[4], &d);
    const struct swiglu_grads all = {t[6], t[7], t[8], t[4]}; // over its inputs
    struct tensor weight = t[9];
    o->swiglu_backward(&all, t[8], t[6], t[7], weight, &d);
}

ARGUMENTS(swiglu_dense)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, A, s->N, s->C);
    SET(3, NORMAL, A, s->N, s->C);
}
RUN(swiglu_dense)
{
    const struct tensor none = tensor_absent();
    o->swiglu_forward(t[0], t[1], t[2], none, NULL);
    const struct swiglu_grads all = {t[1], t[2], t[3], none};
    o->swiglu_backward(&all, t[3], t[1], t[2], none, NULL);
}

ARGUMENTS(cross_entropy)
{
    SET(0, ZEROS, DTYPE_F32, 1, s->N);
    SET(1, NORMAL, A, s->N, 37 * s->C);
    SET(2, INDEX, DTYPE_I32, 1, s->N, 37 * s->C);
    SET(3, ZEROS, DTYPE_F32, 1, s->N);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, INDEX, DTYPE_I32, 1, s->N, s->C);
}
RUN(cross_entropy)
{
    o->cross_entropy(t[0], t[1], t[2], 0.013f);
    o->cross_entropy(t[3], t[4], t[5], 0);
}

// ---- adapters

ARGUMENTS(dropout)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N - 3);
    SET(3, DISTINCT, DTYPE_I32, 1, s->N, s->N);
    SET(4, ZEROS, DTYPE_I32, s->N, 2);
    SET(5, NORMAL, DTYPE_F32, s->N, s->C);
}
RUN(dropout)
{
    const struct dispatch rows = dispatch_of(t, 2);
    const struct dropout plain = {.key = 0x123456789abcdefULL, .p = 0.1f};
    const struct dropout by_expert = {.key = 77, .p = 0.5f, .rows = &rows, .first = 5};
    o->dropout(t[0], t[1], &plain, false);
    o->dropout(t[5], t[1], &by_expert, true);
    o->dropout(t[0], t[1], &by_expert, true);
}

ARGUMENTS(dropped)
{
    SET(0, ZEROS, A, s->N, 16);
    SET(1, NORMAL, A, s->N, 16);
    SET(2, NORMAL, A, s->N, s->C);
    SET(3, NORMAL, DTYPE_F32, s->E * 16, s->C);
    SET(4, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N);
    SET(5, DISTINCT, DTYPE_I32, 1, s->N, s->N);
    SET(6, ZEROS, DTYPE_I32, s->N, 1);
    SET(7, NORMAL, A, s->N, s->C);
}
RUN(dropped)
{
    const struct matrices w = bank_in(o, t[3], t[3].dim[0] / 16);
    const struct dispatch rows = dispatch_of(t, 4);
    const struct dropout d = {.key = 5, .p = 0.25f, .rows = &rows};
    o->matmul_forward(t[1], t[2], &w, t[4], false);
    o->dropped_forward(t[0], t[1], t[2], &w, &d);
    o->dropped_dinput(t[7], t[1], &w, &d);
}

ARGUMENTS(scale_columns)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, DTYPE_F32, s->E, s->C);
    SET(3, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N - 2);
    SET(4, NORMAL, DTYPE_F32, s->E, s->C);
    SET(5, NORMAL, A, s->N, s->C);
    SET(6, NORMAL, DTYPE_F32, s->E, s->C);
    SET(7, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(scale_columns)
{
    const struct tensor one = tensor_2d(t[7].data, DTYPE_F32, 1, tensor_count(t[7]));
    o->scale_columns(t[0], t[1], t[2], t[3], false);
    o->scale_columns(t[1], t[1], t[2], t[3], true);
    o->scale_columns(t[5], t[1], one, tensor_absent(), true);
    o->dot_columns(t[6], t[4], t[1], t[5], t[3]);
    o->dot_columns(one, one, t[1], t[5], tensor_absent());
}

ARGUMENTS(column_scores)
{
    SET(0, NORMAL, DTYPE_F64, s->E, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N);
    SET(3, NORMAL, DTYPE_F64, s->E, s->C);
    SET(4, NORMAL, DTYPE_F64, 1, s->C);
}
RUN(column_scores)
{
    o->column_scores(t[0], t[1], t[2], BLOCK_SUM_SQUARES, true);
    o->column_scores(t[3], t[1], t[2], BLOCK_SUM_ABS, false);
    const struct tensor one = tensor_2d(t[4].data, DTYPE_F64, 1, tensor_count(t[4]));
    o->column_scores(one, t[1], tensor_absent(), BLOCK_SUM, true);
}

ARGUMENTS(norms)
{
    const int64_t rows = s->E * s->N;
    SET(0, ZEROS, DTYPE_F32, 1, rows);
    SET(1, NORMAL, A, rows, s->C);
    SET(2, NORMAL, DTYPE_F16, rows, s->C);
    SET(3, ZEROS, DTYPE_F32, 1, rows);
    SET(4, NORMAL, DTYPE_F32, 1, rows);
    SET(5, NORMAL, A, rows, s->K);
    SET(6, NORMAL, DTYPE_F32, rows, s->K);
    SET(7, POSITIVE, DTYPE_F32, rows, s->K);
    SET(8, ZEROS, DTYPE_F32, 3, rows);
}
RUN(norms)
{
    const struct matrices w = bank_in(o, t[1], t[1].dim[0] / 29), h = bank_in(o, t[2], 1);
    o->row_squares(t[0], &w);
    o->row_squares(t[3], &h);
    const int64_t N = tensor_count(t[0]);
    const struct magnitude_scale out = {tensor_rows(t[8], 0, 1), tensor_rows(t[8], 1, 1),
                                        tensor_rows(t[8], 2, 1)};
    const struct magnitude_norm in = {
        .magnitude = t[4], .squares = t[0], .b = t[5], .p = t[6], .q = t[7], .a = 0.125f};
    assert_true(N == tensor_count(out.scale));
    o->magnitude_scale(&out, &in);
}

static const struct ops_case cases[] = {
    {"dropped", dropped_arguments, dropped_run, 2e-2}, // differences of rounded products
    CASE(dispatch),
    CASE(dispatch_zeros),
    CASE(rows),
    CASE(swiglu),
    CASE(swiglu_dense),
    CASE(cross_entropy),
    CASE(dropout),
    CASE(scale_columns),
    CASE(column_scores),
    CASE(norms),
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
