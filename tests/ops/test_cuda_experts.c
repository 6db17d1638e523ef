// The ops for experts that stand for several others, on the CUDA backend: against those others on the CPU, and in an
// emulation against those others on the device, whose results they must have to the bit. Experts without rows, with
// one, with more than a tile; sizes that no tile divides; tensors and matrices at any address; every family of
// kernels. Rows that no expert has stay as they are.
#include "cuda_test.h"

struct shape {
    const char *name;
    int64_t N, S, E, C, F; // tokens, slots, experts, widths
    size_t shift;          // bytes by which tensors lie off on the device
};

static const struct shape shapes[] = {
    {"few rows", 7, 2, 5, 40, 48, 0},         {"odd", 60, 2, 7, 37, 45, 0},
    {"several tiles", 110, 3, 5, 72, 136, 0}, {"whole", 90, 2, 4, 64, 256, 0},
    {"wide", 40, 2, 3, 24, 520, 0},           {"unaligned", 70, 1, 4, 56, 64, 2},
    {"rows in parts", 700, 2, 4, 24, 40, 0}, // of weights' gradients
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// A route in which the first expert has most of the slots, the second none, the third one; some weights are 0.
struct route {
    struct tensor expert, weight;
};

static struct route make_route(const struct shape *s)
{
    const struct route r = {make(DTYPE_I32, s->N, s->S), make(DTYPE_F32, s->N, s->S)};
    uint32_t state = 7;
    for (int64_t i = 0; i < s->N * s->S; i++) {
        state = state * 1664525U + 1013904223U;
        const int64_t other = 3 + (int64_t)(state >> 24) % (s->E > 3 ? s->E - 3 : 1);
        const bool rare = state >> 8 & 1 && other < s->E;
        data_i32(r.expert)[i] = i == 2 ? 2 : rare ? (int32_t)other : 0;
        data_f32(r.weight)[i] = i == 2 ? 0.3f : i % 5 == 1 ? 0 : 0.1f + 0.01f * (float)(i % 17);
    }
    return r;
}

// The same rows on the host and on the device: those of weight != 0, or of weight 0 from expert `first` on.
struct two_dispatches {
    struct dispatch host, device;
};

static struct two_dispatches dispatch_route(const struct shape *s, const struct route *r,
                                            bool zeros, int64_t first)
{
    const struct dispatch d = {make(DTYPE_I32, 1, s->E - first + 1),
                               make(DTYPE_I32, 1, s->N * s->S), make(DTYPE_I32, s->N, s->S)};
    cpu_ops.dispatch(&d, r->expert, r->weight, zeros, first);
    return (struct two_dispatches){d, {on_device(d.offsets), on_device(d.slot), on_device(d.row)}};
}

// Output `what`: as on the CPU, and in an emulation the bytes of the ops one by one.
static void check(const struct shape *s, const char *what, struct tensor got, struct tensor single,
                  struct tensor want)
{
    char name[160];
    snprintf(name, sizeof name, "%s: %s, %s", what, s->name, dtype_name(want.dtype));
    const struct tensor x = from_device(got);
    check_close(name, x, want, 2 * rounding_of(want.dtype));
    if (!cuda_emulate || !single.data) return;
    if (!same_bytes(x, from_device(single))) fail_msg("%s: not the bytes of the single ops", name);
}

struct types {
    enum dtype a, w;
};

static struct matrices from_group(struct matrices m, int64_t first)
{
    m.groups -= first;
    m.data += first;
    return m;
}

// Groups from `first` on, of rows of weight != 0 or, if `zeros`, 0: then nothing but g and u is asked for.
static void expert_up(const struct shape *s, const struct types *t, bool zeros, int64_t first)
{
    const struct route r = make_route(s);
    const struct two_dispatches d = dispatch_route(s, &r, zeros, first);
    const size_t shift = s->shift / 2 * dtype_size(t->a);
    const int64_t R = s->N * s->S;
    struct two_banks gate, up;
    make_banks(&gate, t->w, s->E, s->F, s->C, s->shift, -1);
    make_banks(&up, t->w, s->E, s->F, s->C, 0, -1);
    for (int64_t g = 0; g < s->E; g++) { // another than gate
        fill_random(tensor_1d(up.at[g], t->w, s->F * s->C), 500U + (uint32_t)g);
        device->upload(up.device_at[g], up.at[g], (size_t)(s->F * s->C) * dtype_size(t->w));
    }
    const struct matrices wg = from_group(gate.host, first), wu = from_group(up.host, first);
    const struct matrices on_g = from_group(gate.device, first),
                          on_u = from_group(up.device, first);
    const struct tensor x = random_tensor(t->a, s->N, s->C, 1), rows = make(t->a, R, s->C);
    const struct tensor g = random_tensor(t->a, R, s->F, 2), u = random_tensor(t->a, R, s->F, 3);
    const struct tensor a = random_tensor(t->a, R, s->F, 4), none = tensor_absent();
    const struct expert_hidden out = {shifted_on_device(g, shift), shifted_on_device(u, shift),
                                      zeros ? none : shifted_on_device(a, shift)};
    const struct tensor on_x = shifted_on_device(x, shift), on_rows = on_device(rows);
    const struct tensor on_weight = on_device(r.weight);
    const struct expert_hidden one = {on_device(g), on_device(u), on_device(a)};
    device->expert_up(&out, on_x, &on_g, &on_u, on_weight, &d.device);
    device->gather_tokens(on_rows, on_x, &d.device);
    device->matmul_forward(one.g, on_rows, &on_g, d.device.offsets, false);
    device->matmul_forward(one.u, on_rows, &on_u, d.device.offsets, false);
    device->swiglu_forward(one.a, one.g, one.u, on_weight, &d.device);
    cpu_ops.gather_tokens(rows, x, &d.host);
    cpu_ops.matmul_forward(g, rows, &wg, d.host.offsets, false);
    cpu_ops.matmul_forward(u, rows, &wu, d.host.offsets, false);
    cpu_ops.swiglu_forward(a, g, u, r.weight, &d.host);
    check(s, "g", out.g, one.g, g);
    check(s, "u", out.u, one.u, u);
    if (!zeros) check(s, "a", out.a, one.a, a);
}

// The same rows back: over g and u or, if `zeros`, nothing but dweight, where slots of other rows stay.
static void expert_dhidden(const struct shape *s, const struct types *t, bool zeros, int64_t first)
{
    const struct route r = make_route(s);
    const struct two_dispatches d = dispatch_route(s, &r, zeros, first);
    const size_t shift = s->shift / 2 * dtype_size(t->a);
    const int64_t R = s->N * s->S;
    struct two_banks down;
    make_banks(&down, t->w, s->E, s->C, s->F, s->shift, -1);
    const struct matrices w = from_group(down.host, first), on_w = from_group(down.device, first);
    const struct tensor dy = random_tensor(t->a, s->N, s->C, 1), rows = make(t->a, R, s->C);
    const struct tensor g = random_tensor(t->a, R, s->F, 2), u = random_tensor(t->a, R, s->F, 3);
    const struct tensor a = random_tensor(t->a, R, s->F, 4), none = tensor_absent();
    const struct tensor dweight =
        zeros ? random_tensor(DTYPE_F32, s->N, s->S, 5) : make(DTYPE_F32, s->N, s->S);
    const struct tensor on_g = shifted_on_device(g, shift), on_u = shifted_on_device(u, shift);
    const struct tensor on_dy = shifted_on_device(dy, shift), on_rows = on_device(rows);
    const struct tensor on_dweight = on_device(dweight), weight = zeros ? none : r.weight;
    const struct tensor on_weight = on_device(weight);
    const struct swiglu_grads one = {on_device(g), on_device(u), on_device(a), none};
    const struct swiglu_grads all = {on_g, on_u, shifted_on_device(a, shift), on_dweight};
    const struct swiglu_grads dot = {none, none, none, on_dweight};
    device->expert_dhidden(zeros ? &dot : &all, on_dy, &on_w, on_g, on_u, on_weight, &d.device);
    device->gather_tokens(on_rows, on_dy, &d.device);
    device->matmul_dinput(one.a, on_rows, &on_w, d.device.offsets, false);
    device->swiglu_backward(&one, one.a, one.dg, one.du, on_weight, &d.device);
    cpu_ops.gather_tokens(rows, dy, &d.host);
    cpu_ops.matmul_dinput(a, rows, &w, d.host.offsets, false);
    if (zeros) {
        cpu_ops.swiglu_dot(dweight, a, g, u, &d.host);
    } else {
        const struct swiglu_grads out = {g, u, a, dweight};
        cpu_ops.swiglu_backward(&out, a, g, u, weight, &d.host);
        check(s, "dg", on_g, one.dg, g);
        check(s, "du", on_u, one.du, u);
        check(s, "a again", all.a, one.a, a);
    }
    // Its factors are rounded, its sum is not.
    const struct tensor got = from_device(on_dweight);
    check_close("dweight", got, dweight, t->a == DTYPE_BF16 || t->w != DTYPE_F32 ? 6e-3 : 4e-6);
}

// dW of a linear into experts (x is that of tokens) or, if `back`, out of them (dy is). The last but one matrix is not
// wanted.
static void expert_dweight(const struct shape *s, const struct types *t, bool back, int64_t first)
{
    const struct route r = make_route(s);
    const struct two_dispatches d = dispatch_route(s, &r, first > 0, first);
    const size_t shift = s->shift / 2 * dtype_size(t->a);
    const int64_t R = s->N * s->S, out = back ? s->C : s->F, in = back ? s->F : s->C;
    struct two_banks w, one;
    make_banks(&w, DTYPE_F32, s->E, out, in, 0, s->E - 2);
    make_banks(&one, DTYPE_F32, s->E, out, in, 0, s->E - 2);
    const struct matrices dw = from_group(w.host, first), on_dw = from_group(w.device, first);
    const struct matrices on_one = from_group(one.device, first);
    const struct tensor tokens = random_tensor(t->a, s->N, s->C, 1);
    const struct tensor hidden = random_tensor(t->a, R, s->F, 2), rows = make(t->a, R, s->C);
    const struct tensor on_tokens = shifted_on_device(tokens, shift), on_rows = on_device(rows);
    const struct tensor on_hidden = shifted_on_device(hidden, shift);
    device->expert_dweight(&on_dw, back ? on_tokens : on_hidden, back ? on_hidden : on_tokens,
                           &d.device, back);
    device->gather_tokens(on_rows, on_tokens, &d.device);
    device->matmul_dweight(&on_one, back ? on_rows : on_hidden, back ? on_hidden : on_rows,
                           d.device.offsets);
    cpu_ops.gather_tokens(rows, tokens, &d.host);
    cpu_ops.matmul_dweight(&dw, back ? rows : hidden, back ? hidden : rows, d.host.offsets);
    for (int64_t e = first; e < s->E; e++) {
        const int64_t size = out * in;
        if (!w.at[e]) continue;
        check(s, "dw", tensor_1d(w.device_at[e], DTYPE_F32, size),
              tensor_1d(one.device_at[e], DTYPE_F32, size), tensor_1d(w.at[e], DTYPE_F32, size));
    }
}

typedef void expert_op(const struct shape *s, const struct types *t, bool back, int64_t first);

// Types that tensor cores have in every mode and with both families, the others once.
static void every_type(const struct shape *s, expert_op *op)
{
    const enum dtype weights[] = {DTYPE_BF16, DTYPE_F32, DTYPE_F16};
    const int shape = (int)(s - shapes);
    for (int n = 0; n < 2 * modes(); n++) {
        const int i = 2 * modes() * shape + n;
        cuda_configure_products(i % 2 ? CUDA_PRODUCTS_PORTABLE : CUDA_PRODUCTS_AUTO);
        set_mode(i / 2 % modes());
        op(s, &(struct types){DTYPE_BF16, DTYPE_BF16}, i / 2 % 2, i / 2 % 2);
        release_device(NULL);
    }
    for (int i = 6 * shape; i < 6 * shape + 6; i++) {
        const struct types t = {i % 2 ? DTYPE_BF16 : DTYPE_F32, weights[i / 2 % 3]};
        set_mode(i / 2 % modes());
        op(s, &t, i % 4 == 1, i % 4 == 1 ? 2 : 0);
        release_device(NULL);
    }
}

static void test_up(void **item)
{
    every_type(*item, expert_up);
}

static void test_dhidden(void **item)
{
    every_type(*item, expert_dhidden);
}

static void test_dweight(void **item)
{
    every_type(*item, expert_dweight);
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_device};
    for (int i = 0; i < SHAPES; i++) {
        add_test(&t, "up", shapes[i].name, test_up, release_device, &shapes[i]);
        add_test(&t, "dhidden", shapes[i].name, test_dhidden, release_device, &shapes[i]);
        add_test(&t, "dweight", shapes[i].name, test_dweight, release_device, &shapes[i]);
    }
    return run_device_tests(&t, argc, argv);
}
