// tests/cuda/test_ops.c - ops on elements, norms, the router's values and what policies are made of.
#include "cases.h"

ARGUMENTS(zero)
{
    SET(0, NORMAL, A, s->N, s->C);
}
RUN(zero)
{
    o->zero(t[0]);
}

ARGUMENTS(convert)
{
    static const int types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    for (int i = 0; i < 4; i++) {
        SET(i, NORMAL, types[i], s->N, s->C);
        SET(4 + i, ZEROS, types[i], s->N, s->C);
    }
    (void)A;
}
RUN(convert)
{
    for (int i = 0; i < 4; i++) {
        o->convert(t[4 + i], t[(i + 1) % 4]);
        o->convert(t[4 + i], t[i]);
        o->convert(t[4 + i], t[(i + 2) % 4]);
    }
}

ARGUMENTS(add)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, NORMAL, A, s->N, s->C);
}
RUN(add)
{
    o->add(t[0], t[1], t[2]);
    o->add(t[1], t[1], t[0]);
}

ARGUMENTS(bias)
{
    SET(0, NORMAL, A, s->N, s->C);
    SET(1, NORMAL, DTYPE_F32, 1, s->C);
    SET(2, NORMAL, A, 1, s->C);
    SET(3, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(bias)
{
    o->bias_forward(t[0], t[1]);
    o->bias_forward(t[0], t[2]);
    o->bias_backward(t[3], t[0]);
}

ARGUMENTS(clamp)
{
    SET(0, NORMAL, A, s->N, s->C);
    SET(1, NORMAL, A, s->N, s->C);
    SET(2, TIES, A, s->N, s->C);
}
RUN(clamp)
{
    o->clamp_forward(t[0], 1.003f);
    o->clamp_backward(t[1], t[0], 1.003f);
    o->clamp_forward(t[2], 1.0f);
}

ARGUMENTS(embedding)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, NORMAL, A, 601, s->C);
    SET(2, INDEX, DTYPE_I32, 1, s->N, 601);
    SET(3, NORMAL, DTYPE_F32, 601, s->C);
    SET(4, INDEX, DTYPE_I32, 1, s->N, 3);
    SET(5, NORMAL, DTYPE_F16, 601, s->C);
    SET(6, ZEROS, A, s->N, s->C);
}
RUN(embedding)
{
    o->embedding_forward(t[0], t[1], t[2]);
    o->embedding_forward(t[6], t[5], t[2]);
    o->embedding_backward(t[3], t[0], t[2]);
    o->embedding_backward(t[3], t[0], t[4]); // the same few ids again and again
}

ARGUMENTS(rmsnorm)
{
    SET(0, ZEROS, A, s->N, s->C);
    SET(1, ZEROS, DTYPE_F32, s->N, 1);
    SET(2, NORMAL, A, s->N, s->C);
    SET(3, NORMAL, DTYPE_BF16, 1, s->C);
    SET(4, NORMAL, A, s->N, s->C);
    SET(5, NORMAL, DTYPE_F32, 1, s->C);
    SET(6, ZEROS, A, s->N, s->C);
    SET(7, NORMAL, DTYPE_F32, 1, s->C);
}
RUN(rmsnorm)
{
    o->rmsnorm_forward(t[0], t[1], t[2], t[3], 1e-5f);
    o->rmsnorm_backward(t[6], t[5], t[4], t[2], t[3], t[1]);
    o->rmsnorm_forward(t[0], tensor_absent(), t[0], t[7], 1e-5f);
    o->rmsnorm_backward(t[4], tensor_absent(), t[4], t[2], t[7], t[1]);
}

// Heads of 1.5 times the turned part, where columns allow, else of all.
ARGUMENTS(rope)
{
    const int64_t D = s->C % 8 == 0 ? 48 : 6;
    SET(0, NORMAL, A, s->N, 3 * D);
    SET(1, INDEX, DTYPE_I32, 1, s->N, 11);
    SET(2, NORMAL, DTYPE_F32, 11, D / 3 * 2);
    SET(3, NORMAL, A, s->N, 3 * D);
}
RUN(rope)
{
    o->rope(t[0], t[1], t[2], t[0].dim[1] / 3, false);
    o->rope(t[3], t[1], t[2], t[0].dim[1] / 3, true);
}

ARGUMENTS(softmax)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, NORMAL, DTYPE_F32, s->N, s->E);
    SET(3, ZEROS, DTYPE_F32, s->N, s->E);
    SET(4, ZEROS, DTYPE_F32, 1, s->N);
}
RUN(softmax)
{
    o->softmax_forward(t[0], t[1]);
    o->softmax_backward(t[3], t[2], t[0]);
    o->softmax_backward(t[2], t[2], t[0]);
    o->logsumexp(t[4], t[1]);
}

ARGUMENTS(topk)
{
    SET(0, ZEROS, DTYPE_I32, s->N, s->K);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, ZEROS, DTYPE_I32, s->N, s->E);
    SET(3, TIES, DTYPE_F32, s->N, s->E);
}
RUN(topk)
{
    o->topk(t[0], t[1]);
    o->topk(t[2], t[3]);
}

ARGUMENTS(pick)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->K);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(3, NORMAL, DTYPE_F32, s->N, s->E);
    SET(4, NORMAL, DTYPE_F32, s->N, 45);
    SET(5, INDEX, DTYPE_I32, s->N, 45, s->E); // more than a warp has lanes, with repetitions
    SET(6, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(pick)
{
    o->pick_forward(t[0], t[1], t[2]);
    o->pick_backward(t[3], t[0], t[2]);
    o->pick_backward(t[6], t[4], t[5]);
}

ARGUMENTS(normalize)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->K);
    SET(1, ZEROS, DTYPE_F32, 1, s->N);
    SET(2, POSITIVE, DTYPE_F32, s->N, s->K);
    SET(3, NORMAL, DTYPE_F32, s->N, s->K);
    SET(4, GATES, DTYPE_F32, s->N, s->E);
    SET(5, POSITIVE, DTYPE_F32, 1, s->N);
    SET(6, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(normalize)
{
    o->normalize_forward(t[0], t[1], t[2]);
    o->normalize_backward(t[3], t[3], t[0], t[1]);
    o->normalize_backward_through(t[6], t[6], t[4], t[5]);
    o->normalize_forward(t[2], tensor_absent(), t[2]);
}

ARGUMENTS(sigmoid)
{
    SET(0, ZEROS, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->E);
    SET(2, NORMAL, DTYPE_F32, s->N, s->E);
    SET(3, NORMAL, A, s->N, s->C);
    SET(4, NORMAL, DTYPE_F16, s->N, s->C);
}
RUN(sigmoid)
{
    o->sigmoid_forward(t[0], t[1]);
    o->sigmoid_backward(t[2], t[2], t[0]);
    o->scale(t[3], 0.37f);
    o->scale(t[4], -2.5f);
}

ARGUMENTS(columns)
{
    SET(0, NORMAL, DTYPE_F32, s->N, s->E);
    SET(1, NORMAL, DTYPE_F32, s->N, s->K);
    SET(2, ZEROS, DTYPE_F32, s->N, s->K);
    SET(3, INDEX, DTYPE_I32, s->N, s->E, 1 << 20);
    SET(4, INDEX, DTYPE_I32, s->N, s->K, 1 << 20);
    SET(5, INDEX, DTYPE_I32, 1, s->E, 1 << 20);
    SET(6, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(7, NORMAL, DTYPE_F32, s->N, s->E);
    SET(8, POSITIVE, DTYPE_F32, 1, s->N);
    SET(9, NORMAL, DTYPE_F32, s->N, s->E);
}
RUN(columns)
{
    o->take_columns(t[2], t[0], 1);
    o->place_columns(t[0], t[1], t[0].dim[1] - t[1].dim[1]);
    o->repeat_row(t[3], t[5]);
    o->place_columns(t[3], t[4], 0);
    o->fill(t[1], 0.25f);
    o->put(t[9], t[6], -INFINITY);
    o->add_scaled_rows(t[7], t[0], t[8], -0.7f);
}

ARGUMENTS(counts)
{
    SET(0, NORMAL, DTYPE_F32, 1, s->E);
    SET(1, INDEX, DTYPE_I32, s->N, s->K, s->E);
    SET(2, NORMAL, DTYPE_F64, 1, s->E);
    SET(3, POSITIVE, DTYPE_F32, s->N, s->K);
    SET(4, NORMAL, DTYPE_F64, 1, 1);
    SET(5, NORMAL, DTYPE_F64, 1, 1);
    SET(6, INDEX, DTYPE_I32, s->N, 3, s->E);
    SET(7, OFFSETS, DTYPE_I32, 1, s->E + 1, s->N);
}
RUN(counts)
{
    o->count_slots(t[0], t[1]);
    o->add_slots(t[2], t[1], t[3]);
    o->add_slots(t[2], t[1], tensor_absent());
    o->count_changed(t[4], t[5], t[1], t[6]);
    o->count_rows(t[0], t[7]);
}

ARGUMENTS(sums)
{
    SET(0, NORMAL, DTYPE_F64, 1, 1);
    SET(1, NORMAL, DTYPE_F32, s->N, 101 * s->C);
    SET(2, NORMAL, DTYPE_F64, 1, 1);
    SET(3, NORMAL, DTYPE_F64, 1, 1);
    SET(4, NORMAL, DTYPE_F32, s->N, s->C);
    SET(5, NORMAL, DTYPE_F32, s->N, s->C);
}
RUN(sums)
{
    o->sum(t[0], t[1]);
    o->sum_squares(t[2], t[1]);
    o->dot(t[3], t[4], t[5], 0.3);
}

ARGUMENTS(sign_step)
{
    SET(0, NORMAL, DTYPE_F32, 1, s->E);
    SET(1, INDEX, DTYPE_F32, 1, s->E, 9);
    SET(2, NORMAL, DTYPE_F32, 1, s->E);
}
RUN(sign_step)
{
    o->sign_step(t[0], t[1], 0.01f, 0.5f);
    o->sign_step(t[2], t[1], 0.01f, 0);
}

static const struct ops_case cases[] = {
    CASE(zero),    CASE(convert), CASE(add),     CASE(bias), CASE(clamp),     CASE(embedding),
    CASE(rmsnorm), CASE(rope),    CASE(softmax), CASE(topk), CASE(pick),      CASE(normalize),
    CASE(sigmoid), CASE(columns), CASE(counts),  CASE(sums), CASE(sign_step),
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
