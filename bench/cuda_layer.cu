// bench/cuda_layer.cu - cuda_bench's larger pieces: a layer of experts with its router, attention, copies.
#include "cuda_bench.h"

#include <stdio.h>
#include <string.h>

// The experts of a layer: the router over the tokens, and the three banks, whose x and y are their rows.
struct experts {
    struct bank gate, up, down;
    struct tensor dg, du; // where up's rows would lie, which are gate's
    struct tensor x, dy, y, dx, expert, weight, dweight;
    struct tensor wr, dwr, wr_table, dwr_table, z, p, dz,
        dp; // of the router: weights, logits, probabilities
    struct matrices router, router_grad;
    struct dispatch d;
};

static void open_router(struct experts *l, int64_t N, int64_t E, int64_t C)
{
    l->wr = make(DTYPE_BF16, E, C), l->dwr = make(DTYPE_F32, E, C);
    cuda_ops.scale(l->wr, 0.02f); // so that no weight is 0
    l->wr_table = make_table(l->wr, 1), l->dwr_table = make_table(l->dwr, 1);
    l->router = {1, E, C, DTYPE_BF16, (void *const *)l->wr_table.data};
    l->router_grad = {1, E, C, DTYPE_F32, (void *const *)l->dwr_table.data};
    for (struct tensor *t : {&l->z, &l->p, &l->dz, &l->dp}) {
        *t = make(DTYPE_F32, N, E);
    }
}

static void route(const struct experts *l)
{
    cuda_ops.matmul_forward(l->z, l->x, &l->router, tensor_absent(), false);
    cuda_ops.softmax_forward(l->p, l->z);
    cuda_ops.topk(l->expert, l->p);
    cuda_ops.pick_forward(l->weight, l->p, l->expert);
    cuda_ops.dispatch(&l->d, l->expert, l->weight, false, 0);
}

static void route_backward(const struct experts *l)
{
    cuda_ops.pick_backward(l->dp, l->dweight, l->expert);
    cuda_ops.softmax_backward(l->dz, l->dp, l->p);
    cuda_ops.matmul_dweight(&l->router_grad, l->dz, l->x, tensor_absent());
    cuda_ops.matmul_dinput(l->dx, l->dz, &l->router, tensor_absent(), true);
}

static void open_experts(struct experts *l, int64_t N, int64_t E, int64_t K, int64_t C, int64_t F)
{
    open_bank(&l->gate, N * K, E, F, C);
    open_bank(&l->up, N * K, E, F, C);
    open_bank(&l->down, N * K, E, C, F);
    expect(2 * F <= C, "experts of at most half the width");
    l->dg = tensor_2d(l->up.x.data, DTYPE_BF16, N * K, F);
    l->du = tensor_2d(data<uint16_t>(l->up.x) + N * K * F, DTYPE_BF16, N * K, F);
    l->x = make(DTYPE_BF16, N, C), l->dy = make(DTYPE_BF16, N, C);
    l->y = make(DTYPE_BF16, N, C), l->dx = make(DTYPE_BF16, N, C);
    l->expert = make(DTYPE_I32, N, K);
    l->weight = make(DTYPE_F32, N, K), l->dweight = make(DTYPE_F32, N, K);
    l->d = {make(DTYPE_I32, 1, E + 1), make(DTYPE_I32, 1, N * K), make(DTYPE_I32, N, K)};
    open_router(l, N, E, C);
    route(l);
}

static void close_experts(struct experts *l)
{
    for (struct bank *b : {&l->gate, &l->up, &l->down}) {
        close_bank(b);
    }
    for (struct tensor t :
         {l->x, l->dy, l->y, l->dx, l->expert, l->weight, l->dweight, l->d.offsets, l->d.slot,
          l->d.row, l->wr, l->dwr, l->wr_table, l->dwr_table, l->z, l->p, l->dz, l->dp}) {
        drop(t);
    }
}

// The parts of a layer that ops join, by those or by the single ones that they stand for (model/moe.c).
static void run_up(const struct experts *l, bool joined)
{
    const struct expert_hidden out = {l->gate.y, l->up.y, l->down.x};
    if (joined) {
        cuda_ops.expert_up(&out, l->x, &l->gate.values, &l->up.values, l->weight, &l->d);
        return;
    }
    cuda_ops.gather_tokens(l->gate.x, l->x, &l->d);
    cuda_ops.matmul_forward(out.g, l->gate.x, &l->gate.values, l->d.offsets, false);
    cuda_ops.matmul_forward(out.u, l->gate.x, &l->up.values, l->d.offsets, false);
    cuda_ops.swiglu_forward(out.a, out.g, out.u, l->weight, &l->d);
}

static void run_dhidden(const struct experts *l, bool joined)
{
    const struct swiglu_grads out = {l->dg, l->du, l->down.x, l->dweight};
    const struct tensor g = l->gate.y, u = l->up.y;
    if (joined) {
        cuda_ops.zero(l->dweight);
        cuda_ops.expert_dhidden(&out, l->dy, &l->down.values, g, u, l->weight, &l->d);
        return;
    }
    cuda_ops.gather_tokens(l->down.y, l->dy, &l->d);
    cuda_ops.matmul_dinput(out.a, l->down.y, &l->down.values, l->d.offsets, false);
    cuda_ops.swiglu_backward(&out, out.a, g, u, l->weight, &l->d);
}

static void run_dweights(const struct experts *l, bool joined) // after run_dhidden
{
    if (joined) {
        cuda_ops.expert_dweight(&l->down.grads, l->dy, l->down.x, &l->d, true);
        cuda_ops.expert_dweight(&l->gate.grads, l->dg, l->x, &l->d, false);
        cuda_ops.expert_dweight(&l->up.grads, l->du, l->x, &l->d, false);
        return;
    }
    cuda_ops.matmul_dweight(&l->down.grads, l->down.y, l->down.x, l->d.offsets);
    cuda_ops.gather_tokens(l->gate.x, l->x, &l->d);
    cuda_ops.matmul_dweight(&l->gate.grads, l->dg, l->gate.x, l->d.offsets);
    cuda_ops.matmul_dweight(&l->up.grads, l->du, l->gate.x, l->d.offsets);
}

static void run_layer(const struct experts *l, bool joined)
{
    route(l);
    run_up(l, joined);
    cuda_ops.matmul_forward(l->down.y, l->down.x, &l->down.values, l->d.offsets, false);
    cuda_ops.combine_slots(l->y, l->down.y, &l->d, false);
    run_dhidden(l, joined);
    run_dweights(l, joined);
    cuda_ops.matmul_dinput(l->gate.x, l->dg, &l->gate.values, l->d.offsets, false);
    cuda_ops.matmul_dinput(l->gate.x, l->du, &l->up.values, l->d.offsets, true);
    cuda_ops.combine_slots(l->dx, l->gate.x, &l->d, false);
    route_backward(l);
}

struct part {
    const char *name;
    void (*run)(const struct experts *l, bool joined);
    double products; // of (tokens K, C, F)
    std::vector<struct tensor> written, added;
};

// What the joined ops write beside what the single ones do.
static void compare_part(const struct experts *l, const struct part &part)
{
    std::vector<struct tensor> want;
    std::vector<struct tensor> out = part.written;
    out.insert(out.end(), part.added.begin(), part.added.end());
    for (int joined = 0; joined < 2; joined++) {
        for (struct tensor t : part.written) {
            poison(t);
        }
        for (struct tensor t : part.added) {
            cuda_ops.zero(t);
        }
        part.run(l, joined);
        for (size_t i = 0; i < out.size(); i++) {
            char what[96];
            snprintf(what, sizeof what, "experts, %s, joined ops, output %d", part.name, (int)i);
            if (joined) same(what, out[i], want[i], 4e-3);
            if (!joined) want.push_back(copy_of(out[i], out[i].dtype));
        }
    }
    for (struct tensor t : want) {
        drop(t);
    }
}

void measure_experts(int64_t N, int64_t E, int64_t K, int64_t C, int64_t F)
{
    struct experts l;
    open_experts(&l, N, E, K, C, F);
    const std::vector<struct tensor> grads = {l.gate.dw, l.up.dw, l.down.dw};
    const std::vector<struct part> parts = {
        {"up", run_up, 2, {l.gate.y, l.up.y, l.down.x}, {}},
        {"dhidden", run_dhidden, 1, {l.dg, l.du, l.down.x}, {l.dweight}},
        {"dweights", run_dweights, 3, {}, grads},
        {"layer with its router", run_layer, 9, {l.y, l.dx}, grads}};
    for (const struct part &part : parts) {
        const bool whole = part.run == run_layer;
        const double flop = 2 * part.products * (double)(N * K) * (double)C * (double)F +
                            (whole ? 6.0 * (double)N * (double)E * (double)C : 0);
        compare_part(&l, part);
        const double joined = milliseconds([&] { part.run(&l, true); });
        const double single = milliseconds([&] { part.run(&l, false); });
        printf("  experts, %-21s joined ops %8.3f ms %6.1f, single ops %8.3f ms %6.1f TFLOP/s\n",
               part.name, joined, flop / joined * 1e-9, single, flop / single * 1e-9);
    }
    const double there = milliseconds([&] { route(&l); }),
                 back = milliseconds([&] { route_backward(&l); });
    printf("  router and dispatch, in that: forward %.3f ms, backward %.3f ms\n", there, back);
    close_experts(&l);
}

// In F32 throughout, by kernels of their own.
static void compare_attention(const struct attention_grads *d, const struct attention_saved *s,
                              struct tensor span, int64_t D, float scale)
{
    const struct tensor in[] = {s->dout, s->q, s->k, s->v};
    const struct tensor out[] = {s->o, d->dq, d->dk, d->dv};
    const char *const names[] = {"o", "dq", "dk", "dv"};
    struct tensor in32[4], out32[4];
    for (int i = 0; i < 4; i++) {
        in32[i] = copy_of(in[i], DTYPE_F32);
        out32[i] = copy_of(out[i], DTYPE_F32);
        poison(out32[i]);
        poison(out[i]);
    }
    const struct tensor lse32 = copy_of(s->lse, DTYPE_F32);
    const struct attention_saved s32 = {in32[0], out32[0], lse32, in32[1], in32[2], in32[3]};
    const struct attention_grads d32 = {out32[1], out32[2], out32[3]};
    cuda_ops.attention_forward(s->o, s->lse, s->q, s->k, s->v, span, D, scale);
    cuda_ops.attention_backward(d, s, span, D, scale);
    cuda_ops.attention_forward(out32[0], lse32, in32[1], in32[2], in32[3], span, D, scale);
    cuda_ops.attention_backward(&d32, &s32, span, D, scale);
    for (int i = 0; i < 4; i++) {
        char what[64];
        const struct tensor got = copy_of(out[i], DTYPE_F32);
        snprintf(what, sizeof what, "attention, heads of %d, %s", (int)D, names[i]);
        same(what, got, out32[i], 2e-2);
        drop(got);
        drop(in32[i]);
        drop(out32[i]);
    }
    drop(lse32);
}

void measure_attention(int64_t N, int64_t T, int64_t H, int64_t G, int64_t D)
{
    const struct tensor q = make(DTYPE_BF16, N, H * D), k = make(DTYPE_BF16, N, G * D),
                        v = make(DTYPE_BF16, N, G * D);
    const struct tensor o = make(DTYPE_BF16, N, H * D), lse = make(DTYPE_F32, N, H),
                        dout = make(DTYPE_BF16, N, H * D);
    const struct tensor dq = make(DTYPE_BF16, N, H * D), dk = make(DTYPE_BF16, N, G * D);
    const struct tensor dv = make(DTYPE_BF16, N, G * D), span = make(DTYPE_I32, N, 2);
    std::vector<int32_t> spans;
    for (int64_t n = 0; n < N; n++) {
        spans.push_back((int32_t)(n / T * T));
        spans.push_back((int32_t)n);
    }
    cuda_ops.upload(span.data, spans.data(), spans.size() * sizeof spans[0]);
    const struct attention_grads d = {dq, dk, dv};
    const struct attention_saved s = {dout, o, lse, q, k, v};
    const float scale = 1.0f / sqrtf((float)D);
    const double product = (double)N * (double)T * (double)(H * D); // 2 N T D H, causal: half
    compare_attention(&d, &s, span, D, scale);
    const double forward =
        milliseconds([&] { cuda_ops.attention_forward(o, lse, q, k, v, span, D, scale); });
    const double backward =
        milliseconds([&] { cuda_ops.attention_backward(&d, &s, span, D, scale); });
    printf("attention: %d rows in documents of %d, heads %d/%d of %d: forward %.3f ms %.1f, "
           "backward %.3f ms %.1f "
           "TFLOP/s\n",
           (int)N, (int)T, (int)H, (int)G, (int)D, forward, 2 * product / forward * 1e-9, backward,
           5 * product / backward * 1e-9);
    for (struct tensor t : {q, k, v, o, lse, dout, dq, dk, dv, span}) {
        drop(t);
    }
}

static void print_rate(const char *what, double bytes, double ms)
{
    printf("copies, %-34s %7.1f GB/s\n", what, bytes / ms * 1e-6);
}

// What a load is measured by: memory to memory, and a host's pages (already read) to the device as a model's are.
void measure_copies(void)
{
    const int64_t count = (int64_t)1 << 30; // bytes
    const struct tensor from = make(DTYPE_BF16, 1, count / 2), to = make(DTYPE_BF16, 1, count / 2);
    std::vector<char> host((size_t)count, 1);
    print_rate("device to device, read and written", 2.0 * (double)count,
               milliseconds([&] { cuda_ops.convert(to, from); }));
    print_rate("upload of a host's pages", (double)count,
               milliseconds([&] { cuda_ops.upload(to.data, host.data(), (size_t)count); }));
    void *pinned = cuda_ops.allocate_host((size_t)count);
    expect(pinned != NULL, "allocation of host memory");
    print_rate("pinned memory to device: the bus", (double)count, milliseconds([&] {
                   cudaMemcpyAsync(to.data, pinned, (size_t)count, cudaMemcpyHostToDevice,
                                   cuda_stream());
               }));
    cuda_ops.release_host(pinned, (size_t)count);
    drop(from);
    drop(to);
}
