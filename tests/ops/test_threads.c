// Every op gives the same bytes with 1, 2 and 7 threads, in both types of activations and of products.
#include "ops_test.h"

#include "base/crc32c.h"

#include <stdio.h>

static uint32_t seed, sum;

static struct tensor in(enum dtype t, int64_t rows, int64_t cols)
{
    return random_tensor(t, rows, cols, ++seed);
}

static struct tensor indices(int64_t rows, int64_t cols, int64_t below)
{
    const struct tensor x = make(DTYPE_I32, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        data_i32(x)[i] = (int32_t)((i * 7919 + i * i % 31) % below);
    }
    return x;
}

static void note(struct tensor x)
{
    sum = crc32c(sum, x.data, tensor_bytes(x));
}

static void run_elementwise(enum dtype t)
{
    const int64_t N = 61, C = 2311;
    const struct tensor x = in(t, N, C), y = in(t, N, C), b = in(DTYPE_F32, 1, C);
    const struct tensor out = make(DTYPE_F64, 1, 1), f = in(DTYPE_F32, N, C);
    cpu_ops.add(y, y, x);
    cpu_ops.bias_forward(y, b);
    cpu_ops.clamp_forward(y, 1);
    cpu_ops.clamp_backward(x, y, 1);
    cpu_ops.bias_backward(b, y);
    cpu_ops.scale(y, 1.7f);
    cpu_ops.sum(out, f);
    cpu_ops.sum_squares(out, f);
    note(x), note(y), note(b), note(out);
    cpu_ops.convert(f, y);
    cpu_ops.sigmoid_forward(f, f);
    cpu_ops.sigmoid_backward(f, f, f);
    note(f);
    cpu_ops.zero(y);
    note(y);
}

static void run_layers(enum dtype t)
{
    const int64_t N = 150, C = 520, V = 71;
    const struct tensor table = in(DTYPE_BF16, V, C), dtable = make(DTYPE_F32, V, C);
    const struct tensor x = make(t, N, C), ids = indices(N, 1, V), rstd = make(DTYPE_F32, N, 1);
    const struct tensor w = in(DTYPE_F32, 1, C), dw = make(DTYPE_F32, 1, C), y = make(t, N, C);
    const struct tensor angles = in(DTYPE_F32, N, 20);
    cpu_ops.embedding_forward(x, table, ids);
    cpu_ops.embedding_backward(dtable, x, ids);
    cpu_ops.rmsnorm_forward(y, rstd, x, w, 1e-5f);
    cpu_ops.rope(y, indices(N, 1, N), angles, 26, false);
    note(dtable), note(rstd), note(y);
    cpu_ops.rmsnorm_backward(y, dw, y, x, w, rstd);
    note(y), note(dw);

    const struct tensor logits = in(t, 9, 5003), loss = make(DTYPE_F32, 1, 9);
    cpu_ops.cross_entropy(loss, logits, indices(9, 1, 5003), 0.1f);
    note(logits), note(loss);
    const struct tensor m = in(DTYPE_F32, N, C), v = in(DTYPE_F32, N, C), g = in(DTYPE_F32, N, C);
    const struct tensor weights = in(DTYPE_F32, N, C);
    cpu_ops.scale(v, 0);
    const struct adamw p = {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001};
    const struct adamw_leaf leaf = {
        .w = weights, .m = m, .v = v, .copy = t == DTYPE_F32 ? tensor_absent() : y, .grad = g};
    adamw_one(&leaf, &p, 0.5f, 0, 0);
    note(weights), note(m), note(v), note(y);
}

// A leaf in fewer bits: value in t, states in codes and in BF16.
static void run_reduced(enum dtype t)
{
    const int64_t n = 70001, blocks = ceil_div(n, 256);
    const enum dtype states[] = {DTYPE_U8, DTYPE_BF16};
    const struct adamw p = {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001};
    for (int i = 0; i < 2; i++) {
        const struct adamw_leaf x = {.w = in(t, 1, n),
                                     .m = make(states[i], 1, n),
                                     .v = make(states[i], 1, n),
                                     .m_scale = make(DTYPE_F32, 1, blocks),
                                     .v_scale = make(DTYPE_F32, 1, blocks),
                                     .copy = tensor_absent(),
                                     .grad = in(DTYPE_F32, 1, n),
                                     .decays = true};
        const struct tensor out = make(DTYPE_F64, 1, 1);
        adamw_one(&x, &p, 0.5f, 3, 4);
        memcpy(x.grad.data, in(DTYPE_F32, 1, n).data, tensor_bytes(x.grad));
        adamw_one(&x, &p, 0.7f, 3, 5);
        cpu_ops.sum_squares(out, x.w);
        note(x.w), note(x.m), note(x.v), note(x.m_scale), note(x.v_scale), note(out);
    }
}

static void run_routing(enum dtype t)
{
    const int64_t N = 400, E = 60, S = 4, C = 130;
    const struct tensor z = in(DTYPE_F32, N, E), p = make(DTYPE_F32, N, E),
                        w = make(DTYPE_F32, N, S);
    const struct tensor index = make(DTYPE_I32, N, S), rows = make(DTYPE_F32, N, 1);
    cpu_ops.softmax_forward(p, z);
    cpu_ops.topk(index, p);
    cpu_ops.pick_forward(w, p, index);
    cpu_ops.normalize_forward(w, rows, w);
    const struct dispatch d = {make(DTYPE_I32, 1, E + 1), make(DTYPE_I32, 1, N * S),
                               make(DTYPE_I32, N, S)};
    cpu_ops.dispatch(&d, index, w, false, 0);
    const struct tensor x = in(t, N, C), xs = make(t, N * S, C), u = in(t, N * S, C),
                        y = in(t, N, C);
    cpu_ops.gather_tokens(xs, x, &d);
    const struct swiglu_grads out = {xs, u, make(t, N * S, C), make(DTYPE_F32, N, S)};
    cpu_ops.swiglu_forward(out.a, xs, u, w, &d);
    note(out.a), note(index), note(w), note(d.slot), note(d.row), note(d.offsets);
    cpu_ops.swiglu_backward(&out, out.a, xs, u, w, &d);
    cpu_ops.combine_slots(y, xs, &d, true);
    cpu_ops.normalize_backward(out.dweight, out.dweight, w, rows);
    cpu_ops.pick_backward(z, out.dweight, index);
    cpu_ops.softmax_backward(z, z, p);
    note(out.a), note(out.dweight), note(xs), note(u), note(y), note(z);
}

static void run_attention(enum dtype t)
{
    const int64_t N = 700, H = 6, G = 2, D = 24;
    const struct tensor q = in(t, N, H * D), k = in(t, N, G * D), v = in(t, N, G * D);
    const struct tensor span = make(DTYPE_I32, N, 2), lse = make(DTYPE_F32, N, H);
    for (int64_t n = 0; n < N; n++) {
        data_i32(span)[2 * n] = (int32_t)(n < 333 ? 0 : max_i64(333, n - 150));
        data_i32(span)[2 * n + 1] = (int32_t)n;
    }
    const struct attention_saved s = {in(t, N, H * D), make(t, N, H * D), lse, q, k, v};
    const struct attention_grads d = {make(t, N, H * D), make(t, N, G * D), make(t, N, G * D)};
    cpu_ops.attention_forward(s.o, lse, q, k, v, span, D, 0.2f);
    cpu_ops.attention_backward(&d, &s, span, D, 0.2f);
    note(s.o), note(lse), note(d.dq), note(d.dk), note(d.dv);
    const struct tensor few = tensor_rows(s.o, 600, 3); // as in generation
    cpu_ops.attention_forward(few, tensor_absent(), tensor_rows(q, 600, 3), k, v,
                              tensor_rows(span, 600, 3), D, 0.2f);
    note(few);
}

static void run_matmul(enum dtype t)
{
    const int64_t G = 3, rows = 600, cols = 90;
    const int32_t offset[] = {0, 3, 900, 1100};
    const struct tensor offsets = make(DTYPE_I32, 1, G + 1), x = in(t, 1100, cols);
    memcpy(offsets.data, offset, sizeof offset);
    const struct tensor y = make(t, 1100, rows), dx = in(t, 1100, cols);
    for (enum dtype wt = DTYPE_F32; wt <= DTYPE_F16; wt++) {
        const struct tensor w = in(wt, G * rows, cols), dw = in(DTYPE_F32, G * rows, cols);
        void *data[3], *grad[3];
        for (int64_t g = 0; g < G; g++) {
            data[g] = tensor_rows(w, g * rows, rows).data;
            grad[g] = tensor_rows(dw, g * rows, rows).data;
        }
        const struct matrices bank = {G, rows, cols, wt, data},
                              grads = {G, rows, cols, DTYPE_F32, grad};
        cpu_ops.matmul_forward(y, x, &bank, offsets, false);
        cpu_ops.matmul_dinput(dx, y, &bank, offsets, true);
        cpu_ops.matmul_dweight(&grads, y, x, offsets);
        note(y), note(dx), note(dw);
    }
}

static void run_blocks(enum dtype t)
{
    const int64_t rows = 300, cols = 700;
    const int32_t offset[] = {0, 40, 1500};
    const struct matrix_block by_row[] = {{0, 0, 128, 128, 128, 0},
                                          {0, 0, 128, 640, 60, 16384},
                                          {0, 256, 44, 128, 128, 24064},
                                          {1, 128, 128, 0, 128, 29696}};
    const struct matrix_block by_column[] = {by_row[0], by_row[2], by_row[1], by_row[3]};
    const struct matrix_blocks list = {4, 0, by_row, by_column};
    const struct tensor offsets = make(DTYPE_I32, 1, 3), x = in(t, 1500, cols);
    memcpy(offsets.data, offset, sizeof offset);
    const struct tensor y = in(t, 1500, rows), delta = in(t, 1, 46080);
    const struct tensor grad = in(DTYPE_F32, 1, 46080);
    const struct tensor sums = make(DTYPE_F64, 2, 18), columns = make(DTYPE_F64, 2, cols);
    cpu_ops.blocks_forward(y, x, delta, &list, offsets);
    cpu_ops.blocks_dinput(x, y, delta, &list, offsets);
    cpu_ops.blocks_dweight(grad, y, x, &list, offsets);
    cpu_ops.block_scores(sums, y, x, offsets, 128, BLOCK_SUM_ABS);
    cpu_ops.column_scores(columns, x, offsets, BLOCK_SUM, true);
    note(y), note(x), note(grad), note(sums), note(columns);
}

static void run_low_rank(enum dtype t)
{
    const int64_t G = 3, R = 900, C = 611, rows = 1300, K = 7;
    const int32_t offset[] = {0, 3, 700, 900};
    const struct tensor offsets = make(DTYPE_I32, 1, G + 1), x = in(t, R, C), y = in(t, R, C);
    const struct tensor c = in(DTYPE_F32, G, C), d = in(DTYPE_F32, G, C);
    const struct dropout drop = {.key = 9, .p = 0.1f};
    memcpy(offsets.data, offset, sizeof offset);
    cpu_ops.dropout(y, x, &drop, true);
    cpu_ops.scale_columns(y, y, c, offsets, false);
    cpu_ops.dot_columns(d, c, x, y, offsets);
    note(y), note(d);
    const struct tensor w = in(t, G * rows, C), a = in(t, G * K, C), b = in(t, G * rows, K);
    const struct tensor wa = make(DTYPE_F32, G * rows, K), squares = make(DTYPE_F32, 1, G * rows);
    void *data[2][3];
    for (int64_t g = 0; g < G; g++) {
        data[0][g] = tensor_rows(w, g * rows, rows).data;
        data[1][g] = tensor_rows(a, g * K, K).data;
    }
    const struct matrices W = {G, rows, C, t, data[0]}, A = {G, K, C, t, data[1]};
    cpu_ops.matrices_multiply(wa, &W, &A);
    cpu_ops.row_squares(squares, &W);
    const struct magnitude_scale out = {like(DTYPE_F32, squares), like(DTYPE_F32, squares),
                                        like(DTYPE_F32, squares)};
    const struct magnitude_norm norm = {in(DTYPE_F32, 1, G * rows), squares, b, wa, wa, 0.3f};
    cpu_ops.magnitude_scale(&out, &norm);
    struct dispatch groups = {offsets, make(DTYPE_I32, 1, R), make(DTYPE_I32, R, 1)};
    for (int32_t r = 0; r < R; r++) {
        data_i32(groups.slot)[r] = r;
    }
    const struct dropout by_group = {.key = 9, .p = 0.1f, .rows = &groups};
    const struct tensor u = make(t, R, rows), v = in(t, R, rows);
    cpu_ops.dropped_forward(u, v, x, &W, &by_group);
    cpu_ops.dropped_dinput(x, v, &W, &by_group);
    note(u), note(v), note(x);
    note(wa), note(squares), note(out.scale), note(out.rest), note(out.inverse);
}

static const struct {
    const char *name;
    void (*run)(enum dtype t);
} groups[] = {{"elementwise", run_elementwise}, {"layers", run_layers},  {"routing", run_routing},
              {"attention", run_attention},     {"matmul", run_matmul},  {"blocks", run_blocks},
              {"low rank", run_low_rank},       {"reduced", run_reduced}};

static uint32_t checksum(size_t group, enum dtype t, int threads, enum cpu_products products)
{
    cpu_configure(threads, products);
    seed = sum = 0;
    groups[group].run(t);
    release_all(NULL);
    return sum;
}

static void same_for_all_threads(enum cpu_products products)
{
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
            const uint32_t one = checksum(i, t, 1, products);
            if (checksum(i, t, 2, products) != one || checksum(i, t, 7, products) != one) {
                fail_msg("%s in %s depends on threads", groups[i].name, dtype_name(t));
            }
        }
    }
}

static void test_products_f32(void **state)
{
    (void)state;
    same_for_all_threads(CPU_PRODUCTS_F32);
}

static void test_products_bf16(void **state)
{
    (void)state;
    same_for_all_threads(CPU_PRODUCTS_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_products_f32, release_all),
        cmocka_unit_test_teardown(test_products_bf16, release_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
