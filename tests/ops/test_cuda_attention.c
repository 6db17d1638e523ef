// Attention on the CUDA backend against the CPU's: heads of every size that has a kernel and of sizes that have
// none, grouped heads, spans of packed documents, windows, caches, rows without keys.
#include "cuda_test.h"

enum spans { CAUSAL, DOCUMENTS, WINDOW, HOLES, CACHE };
struct shape {
    int64_t N, M, H, G, D;
    enum spans spans;
};

static const struct shape shapes[] = {
    {70, 70, 2, 1, 64, CAUSAL},     {150, 150, 4, 2, 128, DOCUMENTS}, {133, 133, 3, 3, 96, WINDOW},
    {40, 40, 2, 2, 192, DOCUMENTS}, {66, 66, 4, 1, 256, CAUSAL},      {140, 200, 2, 1, 40, HOLES},
    {37, 37, 3, 1, 17, DOCUMENTS},  {3, 150, 4, 2, 128, CACHE},       {1, 9, 1, 1, 16, CACHE},
    {90, 90, 2, 1, 200, WINDOW},    {200, 90, 6, 2, 32, HOLES},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct tensor make_spans(const struct shape *s)
{
    const struct tensor span = make(DTYPE_I32, s->N, 2);
    for (int64_t n = 0; n < s->N; n++) {
        int64_t first = 0, last = n;
        switch (s->spans) {
        case CAUSAL:
            break;
        case DOCUMENTS: // of 29 rows each
            first = n / 29 * 29;
            break;
        case WINDOW:
            first = n > 20 ? n - 20 : 0;
            break;
        case HOLES: // some rows see nothing, others what lies far off
            first = n % 5 ? n * 31 % s->M : 1;
            last = n % 5 ? first + n % 17 : 0;
            break;
        case CACHE:
            last = s->M - s->N + n;
            break;
        }
        data_i32(span)[2 * n] = (int32_t)first;
        data_i32(span)[2 * n + 1] = (int32_t)(last < s->M ? last : s->M - 1);
    }
    return span;
}

static void check(const struct shape *s, enum dtype t, const char *name, struct tensor got,
                  struct tensor want)
{
    char what[128];
    snprintf(what, sizeof what, "%s %s: N %d, M %d, heads %d/%d of %d, spans %d", dtype_name(t),
             name, (int)s->N, (int)s->M, (int)s->H, (int)s->G, (int)s->D, (int)s->spans);
    check_close(what, from_device(got), want, t == DTYPE_F32 ? 5e-6 : 8e-3);
}

// Rows without keys have lse -infinity, which no relative error can hold.
static void check_lse(const struct shape *s, enum dtype t, struct tensor got, struct tensor want)
{
    const struct tensor back = from_device(got);
    for (int64_t i = 0; i < tensor_count(want); i++) {
        if (data_f32(want)[i] != -INFINITY) continue;
        assert_true(data_f32(back)[i] == -INFINITY);
        data_f32(want)[i] = data_f32(back)[i] = 0;
    }
    char what[128];
    snprintf(what, sizeof what, "%s lse, heads of %d", dtype_name(t), (int)s->D);
    check_close(what, back, want, t == DTYPE_F32 ? 1e-6 : 1e-5);
}

static void one_shape(const struct shape *s, enum dtype t, size_t shift)
{
    const struct tensor span = make_spans(s), span_on = on_device(span);
    const struct tensor q = random_tensor(t, s->N, s->H * s->D, 1),
                        dout = random_tensor(t, s->N, s->H * s->D, 4);
    const struct tensor k = random_tensor(t, s->M, s->G * s->D, 2),
                        v = random_tensor(t, s->M, s->G * s->D, 3);
    const struct tensor o = like(t, q), lse = make(DTYPE_F32, s->N, s->H), dq = like(t, q),
                        dk = like(t, k);
    const struct tensor dv = like(t, k);
    const float scale = 0.7f / sqrtf((float)s->D);
    const struct tensor q_on = shifted_on_device(q, shift), k_on = on_device(k),
                        v_on = on_device(v);
    fill(o, NAN), fill(dq, NAN), fill(dk, NAN), fill(dv, NAN), fill(lse, NAN);
    const struct tensor o_on = on_device(o), lse_on = on_device(lse), dq_on = on_device(dq);
    const struct tensor dk_on = on_device(dk), dv_on = on_device(dv);
    cpu_ops.attention_forward(o, lse, q, k, v, span, s->D, scale);
    device->attention_forward(o_on, lse_on, q_on, k_on, v_on, span_on, s->D, scale);
    check(s, t, "o", o_on, o);
    const struct attention_grads d = {dq, dk, dv}, d_on = {dq_on, dk_on, dv_on};
    const struct attention_saved saved = {dout, o, lse, q, k, v};
    const struct attention_saved saved_on = {
        on_device(dout), on_device(o), on_device(lse), q_on, k_on, v_on};
    cpu_ops.attention_backward(&d, &saved, span, s->D, scale);
    device->attention_backward(&d_on, &saved_on, span_on, s->D, scale);
    check(s, t, "dq", dq_on, dq);
    check(s, t, "dk", dk_on, dk);
    check(s, t, "dv", dv_on, dv);
    const struct tensor again = on_device(dk), dq_again = on_device(dq);
    const struct attention_grads second = {dq_again, again, tensor_absent()};
    device->attention_backward(&second, &saved_on, span_on, s->D, scale);
    assert_true(same_bytes(from_device(again), from_device(dk_on)));
    assert_true(same_bytes(from_device(dq_again), from_device(dq_on)));
    check_lse(s, t, lse_on, lse);
}

static void test_shape(void **item)
{
    const struct shape *s = *item;
    const int i = (int)(s - shapes);
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        set_mode((i + (int)t) % modes());
        one_shape(s, t, i % 4 == 1 ? dtype_size(t) : 0);
        release_device(item);
    }
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_device};
    for (int i = 0; i < SHAPES; i++) {
        const struct shape *s = &shapes[i];
        char name[32];
        snprintf(name, sizeof name, "%d rows, heads of %d", (int)s->N, (int)s->D);
        add_test(&t, "attention", name, test_shape, release_device, s);
    }
    return run_device_tests(&t, argc, argv);
}
