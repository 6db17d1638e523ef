// tests/cuda/cases.h - ops on the device against the same ops on the CPU, with F32 and with BF16 activations, in
// shapes that are odd and in shapes that kernels access 16 bytes at a time. A case says what its tensors hold
// and what is called.
#pragma once
#include "device.h"

// What a tensor holds before the call.
enum content {
    NONE,
    NORMAL,   // about normal, both signs
    POSITIVE, // in (0.1, 1.1)
    ZEROS,
    INDEX,    // in [0, limit)
    DISTINCT, // a permutation's beginning: limit values, each once
    OFFSETS,  // increasing from 0, uneven, one group empty; the last is limit
    GATES,    // weights of which some are 0
    TIES,     // few different values, an infinity and a NaN
};

enum { A = -1, MOST = 10 }; // type A: that of the activations

struct argument {
    enum content content;
    int type;
    int64_t rows, cols, limit;
};

struct shape {
    int64_t N, C, E, K;
};

struct ops_case {
    const char *name;
    void (*arguments)(struct argument *a, const struct shape *s);
    void (*run)(const struct ops *o, struct tensor *t);
    double limit; // for BF16, where what is rounded twice needs more than check_same allows
};

static uint32_t state;

static inline double uniform(void)
{
    state = state * 1664525U + 1013904223U;
    return (double)(state >> 8) * 0x1p-24;
}

static inline double normal(void)
{
    return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7;
}

static inline double content_at(const struct argument *a, int64_t i)
{
    static const double few[] = {0.5, -1, 0.5, 2, -0.0, 0, 2, -(double)INFINITY, (double)NAN};
    switch (a->content) {
    case NORMAL:
        return normal();
    case POSITIVE:
        return 0.1 + uniform();
    case INDEX:
        return floor(uniform() * (double)a->limit);
    case DISTINCT:
        return (double)((i * 7 + 3) % a->limit); // limits are no multiple of 7
    case OFFSETS: {
        const int64_t G = a->rows * a->cols - 1;
        const double share = (double)i / (double)G;
        return i == 0 ? 0 : i == G ? (double)a->limit : floor((double)a->limit * share * share);
    }
    case GATES:
        return uniform() < 0.3 ? 0 : uniform();
    case TIES:
        return few[(int)(uniform() * 9)];
    default:
        return 0;
    }
}

static inline struct tensor host_tensor(const struct argument *a, enum dtype activations)
{
    if (a->content == NONE) return tensor_absent();
    const enum dtype t = a->type == A ? activations : (enum dtype)a->type;
    struct tensor x =
        a->rows == 1 ? tensor_1d(NULL, t, a->cols) : tensor_2d(NULL, t, a->rows, a->cols);
    x.data = pool_allocate(&cpu_ops, tensor_bytes(x));
    for (int64_t i = 0; i < tensor_count(x); i++) {
        const double v = content_at(a, i);
        if (t == DTYPE_I32) {
            data_i32(x)[i] = (int32_t)v;
        } else if (t != DTYPE_U8) { // codes begin with 0
            dtype_convert((char *)x.data + (size_t)i * dtype_size(t), t, &v, DTYPE_F64, 1);
        }
    }
    return x;
}

#define CASE(op)                                                                                   \
    {                                                                                              \
#op, op##_arguments, op##_run, 0                                                           \
    }

// C: odd; one that kernels take 16 bytes at a time; more than a warp takes in a row. N is that of `norms`, too.
static const struct shape shapes[] = {{29, 33, 7, 3}, {29, 64, 70, 4}, {29, 1104, 5, 2}};

static inline void run_case(const struct ops_case *c, const struct shape *s, enum dtype type)
{
    struct argument a[MOST] = {{0}};
    struct tensor host[MOST], first[MOST];
    char name[128];
    state = 12345;
    c->arguments(a, s);
    for (int i = 0; i < MOST; i++) {
        host[i] = host_tensor(&a[i], type);
    }
    for (unsigned order = 0; order < 3; order++) {
        struct tensor t[MOST];
        for (int i = 0; i < MOST; i++) {
            t[i] = copy_to(device, host[i]);
        }
        device_order(order);
        c->run(device, t);
        for (int i = 0; i < MOST; i++) {
            const struct tensor back = copy_back(device, t[i]);
            if (order && back.data && memcmp(back.data, first[i].data, tensor_bytes(back))) {
                fail_msg("%s, argument %d: another order of threads changes the result", c->name,
                         i);
            }
            if (!order) first[i] = back;
        }
    }
    device_order(0);
    c->run(&cpu_ops, host);
    for (int i = 0; i < MOST; i++) {
        if (!host[i].data) continue;
        snprintf(name, sizeof name, "%s, argument %d, C = %d, %s", c->name, i, (int)s->C,
                 dtype_name(type));
        check_same(name, first[i], host[i], type == DTYPE_BF16 && c->limit > 0 ? c->limit : 3e-6);
    }
    release_pool();
}

// With every shape, F32 and BF16.
static inline void as_on_the_cpu(void **item)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    const struct ops_case *c = *item;
    struct error err;
    for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
        for (size_t k = 0; k < 2; k++) {
            run_case(c, &shapes[j], types[k]);
            if (!device->check(&err)) fail_msg("%s: %s", c->name, err.msg);
        }
    }
}

static inline int run_cases(const struct ops_case *cases, size_t n, int argc, char **argv)
{
    static struct device_tests t = {.open = device_open};
    for (size_t i = 0; i < n; i++) {
        add_test(&t, cases[i].name, "", as_on_the_cpu, leave_pool, &cases[i]);
    }
    return run_device_tests(&t, argc, argv);
}

// ---- the calls; t[i] is argument i

#define ARGUMENTS(op) static void op##_arguments(struct argument *a, const struct shape *s)
#define RUN(op) static void op##_run(const struct ops *o, struct tensor *t)
#define SET_ALL(i, content, type, rows, cols, limit, ...)                                          \
    a[i] = (struct argument)                                                                       \
    {                                                                                              \
        content, type, rows, cols, limit                                                           \
    }
#define SET(i, ...) SET_ALL(i, __VA_ARGS__, 0, 0)
