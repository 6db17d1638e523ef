// Products over banks on the CUDA backend against the CPU's: every type, groups without rows and with few, sizes
// that no tile divides, rows and matrices at any address, each by every family of kernels.
#include "cuda_test.h"

struct shape {
    const char *name;
    int64_t G, rows, cols;
    int sizes[MOST_GROUPS]; // rows of each group; all 0: no offsets, `count` rows
    int count;              // rows that x and y hold; those beyond the groups' stay as they are
    size_t shift;           // bytes by which tensors lie off on the device
};

static const struct shape shapes[] = {
    {"one group", 1, 72, 136, {0}, 150, 0},
    {"few rows", 3, 67, 96, {2, 0, 11}, 14, 0},
    {"few rows, odd", 2, 33, 37, {9, 1}, 10, 0},
    {"groups", 7, 136, 200, {130, 0, 1, 40, 0, 129, 0}, 310, 0},
    {"wide", 2, 264, 72, {70, 64}, 134, 0},
    {"whole", 2, 256, 256, {70, 60}, 130, 0},
    {"odd columns", 3, 65, 71, {40, 3, 21}, 64, 0},
    {"unaligned", 2, 80, 88, {33, 60}, 100, 2},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct tensor shape_offsets(const struct shape *s)
{
    return s->sizes[0] || s->sizes[1] ? offsets_of(s->sizes, s->G) : tensor_absent();
}

struct types {
    enum dtype x, w, y;
};

static void check(const struct shape *s, const struct types *t, const char *op, struct tensor got,
                  struct tensor want)
{
    char what[160];
    snprintf(what, sizeof what, "%s: %s, x %s, w %s, y %s", op, s->name, dtype_name(t->x),
             dtype_name(t->w), dtype_name(t->y));
    check_close(what, from_device(got), want, rounding_of(t->y));
}

static void rows_products(const struct shape *s, const struct types *t)
{
    struct two_banks w;
    make_banks(&w, t->w, s->G, s->rows, s->cols, s->shift, -1);
    const size_t shift = s->shift / 2 * dtype_size(t->x), out = s->shift / 2 * dtype_size(t->y);
    const struct tensor offsets = shape_offsets(s), on = on_device(offsets);
    const struct tensor x = random_tensor(t->x, s->count, s->cols, 1);
    const struct tensor dy = random_tensor(t->x, s->count, s->rows, 2);
    const struct tensor y = random_tensor(t->y, s->count, s->rows, 3);
    const struct tensor dx = random_tensor(t->y, s->count, s->cols, 4);
    const struct tensor y_device = shifted_on_device(y, out),
                        dx_device = shifted_on_device(dx, out);
    const struct tensor x_device = shifted_on_device(x, shift),
                        dy_device = shifted_on_device(dy, shift);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        cpu_ops.matmul_forward(y, x, &w.host, offsets, accumulate);
        device->matmul_forward(y_device, x_device, &w.device, on, accumulate);
        check(s, t, accumulate ? "y +=" : "y =", y_device, y);
        cpu_ops.matmul_dinput(dx, dy, &w.host, offsets, accumulate);
        device->matmul_dinput(dx_device, dy_device, &w.device, on, accumulate);
        check(s, t, accumulate ? "dx +=" : "dx =", dx_device, dx);
    }
}

static void weights_product(const struct shape *s, enum dtype tdy, enum dtype tx)
{
    struct two_banks dw;
    make_banks(&dw, DTYPE_F32, s->G, s->rows, s->cols, 0, s->G - 2);
    const struct tensor offsets = shape_offsets(s);
    const struct tensor x = random_tensor(tx, s->count, s->cols, 1);
    const struct tensor dy = random_tensor(tdy, s->count, s->rows, 2);
    cpu_ops.matmul_dweight(&dw.host, dy, x, offsets);
    device->matmul_dweight(&dw.device, shifted_on_device(dy, s->shift / 2 * dtype_size(tdy)),
                           shifted_on_device(x, s->shift / 2 * dtype_size(tx)), on_device(offsets));
    const struct types t = {tx, tdy, DTYPE_F32};
    for (int64_t g = 0; g < s->G; g++) {
        if (!dw.at[g]) continue;
        const int64_t size = s->rows * s->cols;
        check(s, &t, "dw", tensor_1d(dw.device_at[g], DTYPE_F32, size),
              tensor_1d(dw.at[g], DTYPE_F32, size));
    }
}

static void every_type(const struct shape *s, enum cuda_products products)
{
    const enum dtype weights[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    cuda_configure_products(products);
    set_mode((int)(s - shapes) % modes());
    for (enum dtype x = DTYPE_F32; x <= DTYPE_BF16; x++) {
        for (enum dtype y = DTYPE_F32; y <= DTYPE_BF16; y++) {
            weights_product(s, y, x);
            for (int w = 0; w < 3; w++) {
                rows_products(s, &(struct types){x, weights[w], y});
            }
            release_device(NULL);
        }
    }
}

static void test_products(void **item)
{
    every_type(*item, CUDA_PRODUCTS_AUTO);
}

static void test_portable(void **item)
{
    every_type(*item, CUDA_PRODUCTS_PORTABLE);
}

// The types of tensor cores, in every mode.
static void test_modes(void **item)
{
    const struct shape *s = *item;
    for (int n = 0; n < 2 * modes(); n++) {
        const int i = 2 * modes() * (int)(s - shapes) + n;
        const struct types t = {DTYPE_BF16, DTYPE_BF16, i % 3 ? DTYPE_BF16 : DTYPE_F32};
        cuda_configure_products(i % 2 ? CUDA_PRODUCTS_PORTABLE : CUDA_PRODUCTS_AUTO);
        set_mode(i / 2 % modes());
        rows_products(s, &t);
        weights_product(s, DTYPE_BF16, DTYPE_BF16);
        release_device(NULL);
    }
}

// Rows cut in parts, and a second call the same to the bit.
static void test_parts(void **state)
{
    const struct shape s = {"parts", 2, 24, 40, {1501, 699}, 2300, 0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        cuda_configure_products(i ? CUDA_PRODUCTS_PORTABLE : CUDA_PRODUCTS_AUTO);
        weights_product(&s, DTYPE_F32, DTYPE_BF16);
        weights_product(&s, DTYPE_BF16, DTYPE_BF16);
    }
}

static void test_matrices(void **state)
{
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    (void)state;
    for (int i = 0; i < 18; i++) {
        struct two_banks w, a;
        cuda_configure_products(i / 9 ? CUDA_PRODUCTS_PORTABLE : CUDA_PRODUCTS_AUTO);
        make_banks(&w, types[i % 3], 3, 70, 88, 0, -1);
        make_banks(&a, types[i / 3 % 3], 3, 9, 88, 0, -1);
        const struct tensor y = make(DTYPE_F32, 3 * 70, 9), on = on_device(y);
        cpu_ops.matrices_multiply(y, &w.host, &a.host);
        device->matrices_multiply(on, &w.device, &a.device);
        const struct types t = {types[i % 3], types[i / 3 % 3], DTYPE_F32};
        check(&(struct shape){.name = "matrices"}, &t, "w a^T", on, y);
    }
}

int main(int argc, char **argv)
{
    static struct device_tests t = {.open = open_device};
    for (int i = 0; i < SHAPES; i++) {
        const struct shape *s = &shapes[i];
        add_test(&t, "products", s->name, test_products, release_device, s);
        add_test(&t, "portable", s->name, test_portable, release_device, s);
        add_test(&t, "modes", s->name, test_modes, release_device, s);
    }
    add_test(&t, "parts", "", test_parts, release_device, NULL);
    add_test(&t, "matrices", "", test_matrices, release_device, NULL);
    return run_device_tests(&t, argc, argv);
}
