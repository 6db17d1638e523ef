// tests/cuda/test_leaves.c - the optimizer's ops over lists of leaves, of all kinds at once and of odd, unequal sizes,
// as on the CPU; lists of more leaves than a launch has blocks; updates that must not happen. How many launches an
// update takes, and how often it waits for the device, does not depend on the number of leaves.
#include "device.h"

#include "base/codes.h"
#include "train/optimizer.h"

// Emulated, each kind stands at three of the places only.
#ifdef EMULATED
enum { EVERY_TURN = 3 };
#else
enum { EVERY_TURN = 1 };
#endif

// How leaf i of a list is kept: copy I32: none.
static const struct {
    enum dtype w, states, copy;
    bool decays;
} kinds[] = {
    {DTYPE_F32, DTYPE_F32, DTYPE_BF16, true},  {DTYPE_F32, DTYPE_F32, DTYPE_F16, false},
    {DTYPE_F32, DTYPE_BF16, DTYPE_BF16, true}, {DTYPE_F32, DTYPE_U8, DTYPE_F16, true},
    {DTYPE_BF16, DTYPE_U8, DTYPE_I32, true},   {DTYPE_F32, DTYPE_F32, DTYPE_I32, true},
    {DTYPE_BF16, DTYPE_F32, DTYPE_I32, false}, {DTYPE_BF16, DTYPE_BF16, DTYPE_I32, true},
};
enum { KINDS = sizeof kinds / sizeof *kinds, PARTS_OF_LEAF = 7 };

static uint32_t state;

static double uniform(void)
{
    state = state * 1664525U + 1013904223U;
    return (double)(state >> 8) * 0x1p-24 - 0.5;
}

// One block of memory for all leaves of a list, so that tests see what lies between them, too.
struct host_list {
    struct adamw_leaf *leaf;
    struct tensor memory;
    int64_t count;
};

static struct tensor piece(size_t *used, enum dtype t, int64_t n)
{
    const struct tensor x = tensor_1d((void *)(*used + 1), t, n); // a place, not an address yet
    *used += (tensor_bytes(x) + 63) / 64 * 64 + 64;
    return t == DTYPE_I32 ? tensor_absent() : x;
}

static void move_tensor(struct tensor *x, const void *from, const void *to)
{
    if (x->data) x->data = (char *)to + ((const char *)x->data - (const char *)from);
}

static void move_leaf(struct adamw_leaf *x, const void *from, const void *to)
{
    struct tensor *all[PARTS_OF_LEAF] = {&x->w,       &x->m,    &x->v,   &x->m_scale,
                                         &x->v_scale, &x->copy, &x->grad};
    for (int i = 0; i < PARTS_OF_LEAF; i++) {
        move_tensor(all[i], from, to);
    }
}

static void fill(struct tensor x, double size)
{
    for (int64_t i = 0; i < tensor_count(x); i++) {
        const double v = size * uniform();
        dtype_convert((char *)x.data + (size_t)i * dtype_size(x.dtype), x.dtype, &v, DTYPE_F64, 1);
    }
}

// Leaf i of n has size[i % sizes] elements and is kept as kind (i + turn) % KINDS says.
static struct host_list make_list(const int64_t *size, int64_t sizes, int64_t n, int64_t turn)
{
    struct host_list l = {.leaf = pool_allocate(&cpu_ops, (size_t)n * sizeof *l.leaf), .count = n};
    size_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t k = (i + turn) % KINDS, count = size[i % sizes];
        const bool codes = kinds[k].states == DTYPE_U8;
        const enum dtype scales = codes ? DTYPE_F32 : DTYPE_I32;
        const int64_t blocks = (count + CODE_BLOCK - 1) / CODE_BLOCK;
        l.leaf[i] = (struct adamw_leaf){.w = piece(&used, kinds[k].w, count),
                                        .m = piece(&used, kinds[k].states, count),
                                        .v = piece(&used, kinds[k].states, count),
                                        .m_scale = piece(&used, scales, blocks),
                                        .v_scale = piece(&used, scales, blocks),
                                        .copy = piece(&used, kinds[k].copy, count),
                                        .grad = piece(&used, DTYPE_F32, count),
                                        .decays = kinds[k].decays,
                                        .stream = (uint64_t)i * 3};
    }
    l.memory = tensor_1d(pool_allocate(&cpu_ops, used), DTYPE_U8, (int64_t)used);
    for (int64_t i = 0; i < n; i++) {
        move_leaf(&l.leaf[i], (void *)1, l.memory.data);
        fill(l.leaf[i].w, 2);
        fill(l.leaf[i].grad, 3);
    }
    return l;
}

// The same leaves in a backend's memory.
static struct host_list list_in(const struct ops *o, const struct host_list *l)
{
    struct host_list x = *l;
    const size_t bytes = (size_t)l->count * sizeof *l->leaf;
    x.leaf = memcpy(pool_allocate(&cpu_ops, bytes), l->leaf, bytes);
    x.memory = copy_to(o, l->memory);
    for (int64_t i = 0; i < l->count; i++) {
        move_leaf(&x.leaf[i], l->memory.data, x.memory.data);
    }
    return x;
}

static void set_gradients(const struct ops *o, const struct host_list *l, uint32_t seed)
{
    state = seed;
    for (int64_t i = 0; i < l->count; i++) {
        const struct tensor g = l->leaf[i].grad;
        if (!tensor_count(g)) continue;
        float *values = mem_alloc(tensor_bytes(g));
        fill(tensor_1d(values, DTYPE_F32, tensor_count(g)), 3);
        o->upload(g.data, values, tensor_bytes(g));
        mem_free(values);
    }
}

static const struct adamw settings = {1e-2, 0.9, 0.99, 1e-8, 0.1, 0.271, 0.03};

struct seen {
    double squares;
    float scale;
    struct tensor memory; // of all leaves, on the host
};

// Two updates; the second clips to the norm 0.5.
static struct seen run_list(const struct ops *o, const struct host_list *host)
{
    struct host_list l = list_in(o, host);
    struct leaf_list list;
    struct error err = {0};
    struct seen seen = {0};
    const double zero = 0;
    char *numbers = pool_allocate(o, 32);
    const struct tensor squares = tensor_1d(numbers, DTYPE_F64, 1);
    const struct tensor loss = tensor_1d(numbers + 8, DTYPE_F64, 1);
    const struct tensor scale = tensor_1d(numbers + 16, DTYPE_F32, 1);
    check_ok(leaf_list_open(&list, o, l.leaf, l.count, &err), &err);
    o->upload(loss.data, &zero, sizeof zero);
    for (uint64_t n = 1; n <= 2; n++) {
        o->zero(squares);
        o->grad_squares(squares, &list);
        o->clip_scale(scale, squares, loss, n == 2 ? 0.5 : 0);
        o->adamw(&list, &settings, scale, 99, n);
        if (n == 1) set_gradients(o, &l, 5);
    }
    o->download(&seen.squares, squares.data, sizeof seen.squares);
    o->download(&seen.scale, scale.data, sizeof seen.scale);
    seen.memory = copy_back(o, l.memory);
    leaf_list_close(&list, o);
    return seen;
}

static void check_leaf(const struct host_list *l, int64_t i, const struct seen *got,
                       const struct seen *want)
{
    static const char *const names[PARTS_OF_LEAF] = {"w",       "m",    "v",   "m_scale",
                                                     "v_scale", "copy", "grad"};
    struct adamw_leaf x = l->leaf[i], y = l->leaf[i];
    move_leaf(&x, l->memory.data, got->memory.data);
    move_leaf(&y, l->memory.data, want->memory.data);
    const struct tensor a[PARTS_OF_LEAF] = {x.w, x.m, x.v, x.m_scale, x.v_scale, x.copy, x.grad};
    const struct tensor b[PARTS_OF_LEAF] = {y.w, y.m, y.v, y.m_scale, y.v_scale, y.copy, y.grad};
    for (int k = 0; k < PARTS_OF_LEAF; k++) {
        char name[64];
        if (!a[k].data) continue;
        snprintf(name, sizeof name, "leaf %d of %d, %s", (int)i, (int)tensor_count(x.w), names[k]);
        check_same(name, a[k], b[k], 3e-6);
    }
}

static void check_list(const int64_t *size, int64_t sizes, int64_t n, int64_t turn)
{
    state = 4242;
    const struct host_list l = make_list(size, sizes, n, turn);
    const struct seen want = run_list(&cpu_ops, &l);
    struct seen first = {0};
    for (unsigned order = 0; order < 3; order++) {
        device_order(order);
        const struct seen got = run_list(device, &l);
        if (!order) first = got;
        assert_memory_equal(first.memory.data, got.memory.data, tensor_bytes(got.memory));
        assert_true(got.squares == first.squares && got.scale == first.scale);
    }
    device_order(0);
    assert_true(fabs(first.squares - want.squares) <= 1e-12 * want.squares);
    assert_true(fabsf(first.scale - want.scale) <= 1e-6F * want.scale);
    assert_true(want.squares == 0 || (want.scale > 0 && want.scale < 1));
    for (int64_t i = 0; i < n; i++) {
        check_leaf(&l, i, &first, &want);
    }
    release_pool();
}

static void lists_are_moved_as_on_the_cpu(void **unused)
{
    (void)unused;
    static const int64_t odd[] = {1, 0, 733, LEAF_CHUNK + 1, 257, 40, 0, 2 * LEAF_CHUNK - 9, 5};
    for (int64_t turn = 0; turn < KINDS; turn += EVERY_TURN) {
        check_list(odd, 9, 9, turn);
    }
    static const int64_t empty[] = {0};
    check_list(empty, 1, 3, 0);
    check_list(empty, 1, 0, 0);
    static const int64_t one[] = {1};
    check_list(one, 1, 1, 4);
}

// More leaves than blocks, and than parts of the sum.
static void a_block_takes_many_leaves(void **unused)
{
    (void)unused;
    static const int64_t small[] = {3, 0, 17, 1, 8};
    check_list(small, 5, 1500, 0);
}

// The bytes of all leaves, and what lies between them, are those of the same update without it.
static void what_is_not_usable_moves_nothing(void **unused)
{
    (void)unused;
    static const int64_t odd[] = {LEAF_CHUNK + 3, 1, 300, 64};
    static const float nothing = NAN, one = 1;
    state = 7;
    const struct host_list host = make_list(odd, 4, 8, 0), l = list_in(device, &host);
    struct leaf_list list;
    struct error err = {0};
    check_ok(leaf_list_open(&list, device, l.leaf, l.count, &err), &err);
    const struct tensor scale = tensor_1d(pool_allocate(device, 4), DTYPE_F32, 1);
    device->upload(scale.data, &one, sizeof one);
    device->adamw(&list, &settings, scale, 1, 1);
    const struct tensor before = copy_back(device, l.memory);
    set_gradients(device, &l, 3);
    device->upload(scale.data, &nothing, sizeof nothing);
    device->adamw(&list, &settings, scale, 1, 2);
    const struct tensor after = copy_back(device, l.memory);
    assert_memory_equal(before.data, after.data, tensor_bytes(after));
    leaf_list_close(&list, device);
    release_pool();
}

static double nan_at(int bits)
{
    return bits == 1 ? (double)NAN : bits == 2 ? (double)INFINITY : 4;
}

static void clip_scale_is_that_of_the_cpu(void **unused)
{
    (void)unused;
    static const double squares[] = {0, 0.25, 16, 1e18, 1e60, (double)INFINITY, (double)NAN};
    static const double clip[] = {0, 1, 2.5};
    char *numbers = pool_allocate(device, 32);
    const struct tensor from = tensor_1d(numbers, DTYPE_F64, 1);
    const struct tensor of_loss = tensor_1d(numbers + 8, DTYPE_F64, 1);
    const struct tensor to = tensor_1d(numbers + 16, DTYPE_F32, 1);
    for (int i = 0; i < 7 * 3 * 3; i++) {
        double s = squares[i % 7], loss = nan_at(i / 21);
        float want, got;
        device->upload(from.data, &s, sizeof s);
        device->upload(of_loss.data, &loss, sizeof loss);
        device->clip_scale(to, from, i % 2 ? of_loss : tensor_absent(), clip[i / 7 % 3]);
        device->download(&got, to.data, sizeof got);
        cpu_ops.clip_scale(tensor_1d(&want, DTYPE_F32, 1), tensor_1d(&s, DTYPE_F64, 1),
                           i % 2 ? tensor_1d(&loss, DTYPE_F64, 1) : tensor_absent(),
                           clip[i / 7 % 3]);
        if (got != want && !(isnan(got) && isnan(want))) {
            fail_msg("squares %g, loss %g, clip %g: %g, expected %g", s, loss, clip[i / 7 % 3],
                     (double)got, (double)want);
        }
    }
    release_pool();
}

#ifdef EMULATED
// n leaves that learn, kept as `states` says.
static void open_leaves(struct leaves *l, struct arena *a, int64_t n, enum state_type states)
{
    struct error err = {0};
    char name[32];
    l->storage.states = states;
    for (int placing = 0; placing < 2; placing++) {
        l->count = 0;
        a->used = 0;
        for (int64_t i = 0; i < n; i++) {
            snprintf(name, sizeof name, "leaf.%d", (int)i);
            assert_non_null(
                leaves_add(l, a, name, tensor_2d(NULL, DTYPE_BF16, 2, 3), DTYPE_BF16, &err));
        }
        if (!placing) a->base = pool_allocate(device, a->used);
        if (!placing) a->capacity = a->used;
    }
}

static void launches_do_not_grow_with_leaves(void **unused)
{
    (void)unused;
    const struct train_options t = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1};
    int64_t taken[2];
    for (int many = 0; many < 2; many++) {
        struct leaves l = {0};
        struct arena a = {0};
        struct optimizer o;
        struct error err = {0};
        double norm;
        open_leaves(&l, &a, many ? 400 : 1, STATES_8BIT);
        check_ok(optimizer_open(&o, device, &l, &err), &err);
        optimizer_measure(&o, tensor_absent(), 1); // scratch grows
        optimizer_update(&o, &t, 0.1, 1);
        const int64_t launches = emulate_launches(), waits = emulate_waits();
        optimizer_measure(&o, tensor_absent(), 1);
        optimizer_update(&o, &t, 0.1, 2);
        assert_int_equal(emulate_waits(), waits);
        taken[many] = emulate_launches() - launches;
        assert_true(optimizer_outcome(&o, &norm) && norm == 0);
        optimizer_close(&o);
        leaves_free(&l);
        release_pool();
    }
    assert_int_equal(taken[0], taken[1]);
    assert_in_range(taken[1], 1, 5);
}
#endif

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = device_open};
    add_test(&t, "lists are moved as on the CPU", "", lists_are_moved_as_on_the_cpu, leave_pool,
             NULL);
    add_test(&t, "a block takes many leaves", "", a_block_takes_many_leaves, leave_pool, NULL);
    add_test(&t, "what is not usable moves nothing", "", what_is_not_usable_moves_nothing,
             leave_pool, NULL);
    add_test(&t, "clip scale is that of the CPU", "", clip_scale_is_that_of_the_cpu, leave_pool,
             NULL);
#ifdef EMULATED
    add_test(&t, "launches do not grow with leaves", "", launches_do_not_grow_with_leaves,
             leave_pool, NULL);
#endif
    return run_device_tests(&t, argc, argv);
}
