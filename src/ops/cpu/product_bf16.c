// ops/cpu/product_bf16.c - see product.h. oneDNN 2.x and 3.x differ in how a product is described; the two
// descriptions stand side by side. Products are kept once made, by shape: making one generates code.
#include "base/mem.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/dropped.h"
#include "ops/cpu/product.h"
#include "ops/cpu/product_library.h"

#include <assert.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>

enum {
    EXECUTE_ROOM = 32 << 10,
    FEWEST_ROWS = 16, // of a product whose number of rows differs
};

// What a BF16 product is made for; compared as bytes, so every field is 8 bytes wide.
struct shape {
    int64_t m, n, k, lda, ldb, ldc, transposed_a, transposed_b, accumulate, c_is_bf16;
};

struct made {
    struct shape shape;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    size_t workspace;
    struct made *next;
};

enum { BUCKETS = 1024 };
static struct made *buckets[BUCKETS];
static int64_t shapes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dnnl_engine_t engine;

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t layout;

static bool describe(dnnl_primitive_desc_t *out, const struct shape *s, dnnl_primitive_attr_t attr)
{
    const dnnl_data_type_t type = s->c_is_bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t a = {s->m, s->k}, b = {s->k, s->n}, c = {s->m, s->n};
    const dnnl_dims_t a_step = {s->transposed_a ? 1 : s->lda, s->transposed_a ? s->lda : 1};
    const dnnl_dims_t b_step = {s->transposed_b ? 1 : s->ldb, s->transposed_b ? s->ldb : 1};
    const dnnl_dims_t c_step = {s->ldc, 1};
    dnnl_memory_desc_t la = NULL, lb = NULL, lc = NULL;
    const bool ok =
        dnnl_memory_desc_create_with_strides(&la, 2, a, dnnl_bf16, a_step) == dnnl_success &&
        dnnl_memory_desc_create_with_strides(&lb, 2, b, dnnl_bf16, b_step) == dnnl_success &&
        dnnl_memory_desc_create_with_strides(&lc, 2, c, type, c_step) == dnnl_success &&
        dnnl_matmul_primitive_desc_create(out, engine, la, lb, NULL, lc, attr) == dnnl_success;
    dnnl_memory_desc_destroy(la);
    dnnl_memory_desc_destroy(lb);
    dnnl_memory_desc_destroy(lc);
    return ok;
}

static bool append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef) == dnnl_success;
}
#else
typedef const dnnl_memory_desc_t *layout;

static bool describe(dnnl_primitive_desc_t *out, const struct shape *s, dnnl_primitive_attr_t attr)
{
    const dnnl_data_type_t type = s->c_is_bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t a = {s->m, s->k}, b = {s->k, s->n}, c = {s->m, s->n};
    const dnnl_dims_t a_step = {s->transposed_a ? 1 : s->lda, s->transposed_a ? s->lda : 1};
    const dnnl_dims_t b_step = {s->transposed_b ? 1 : s->ldb, s->transposed_b ? s->ldb : 1};
    const dnnl_dims_t c_step = {s->ldc, 1};
    dnnl_memory_desc_t la, lb, lc;
    dnnl_matmul_desc_t matmul;
    return dnnl_memory_desc_init_by_strides(&la, 2, a, dnnl_bf16, a_step) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(&lb, 2, b, dnnl_bf16, b_step) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(&lc, 2, c, type, c_step) == dnnl_success &&
           dnnl_matmul_desc_init(&matmul, &la, &lb, NULL, &lc) == dnnl_success &&
           dnnl_primitive_desc_create(out, &matmul, attr, engine, NULL) == dnnl_success;
}

static bool append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f) == dnnl_success;
}
#endif

static void unmake(struct made *m)
{
    dnnl_primitive_destroy(m->primitive);
    dnnl_primitive_desc_destroy(m->description);
    m->primitive = NULL;
    m->description = NULL;
}

static bool make(struct made *m)
{
    library_set_threads(); // the primitive is cut for as many threads as there are now
    if (!engine && dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) return false;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t add = NULL;
    bool ok =
        dnnl_primitive_attr_create(&attr) == dnnl_success &&
        dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ok && m->shape.accumulate) {
        ok = dnnl_post_ops_create(&add) == dnnl_success && append_sum(add) &&
             dnnl_primitive_attr_set_post_ops(attr, add) == dnnl_success;
    }
    ok = ok && describe(&m->description, &m->shape, attr) &&
         dnnl_primitive_create(&m->primitive, m->description) == dnnl_success;
    if (ok) {
        const layout md = dnnl_primitive_desc_query_md(m->description, dnnl_query_scratchpad_md, 0);
        m->workspace = md ? dnnl_memory_desc_get_size(md) : 0;
    }
    dnnl_post_ops_destroy(add);
    dnnl_primitive_attr_destroy(attr);
    return ok;
}

static size_t bucket_of(const struct shape *s)
{
    uint64_t hash = 0;
    const int64_t part[] = {
        s->m,          s->n,        s->k, s->lda, s->ldb, s->ldc, s->transposed_a, s->transposed_b,
        s->accumulate, s->c_is_bf16};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        hash = (hash ^ (uint64_t)part[i]) * 0x9e3779b97f4a7c15U;
        hash ^= hash >> 29;
    }
    return hash % BUCKETS;
}

// m->primitive stays NULL if the library has none, or no memory.
static void try_to_make(const void *made, int64_t i)
{
    struct made *m = *(struct made *const *)made;
    (void)i;
    if (!library_room()) cpu_leave_task();
    library_enter();
    const bool ok = make(m);
    if (!ok) unmake(m);
    if (!library_leave()) {
        unmake(m); // perhaps not the kernel that it is elsewhere
        cpu_leave_task();
    }
}

static struct made *look_up(const struct shape *s)
{
    struct made *m = buckets[bucket_of(s)];
    while (m && memcmp(&m->shape, s, sizeof *s) != 0) {
        m = m->next;
    }
    return m;
}

// NULL if the library has no such product, or no memory.
static struct made *make_shape(const struct shape *s)
{
    struct made *m = look_up(s), **bucket = &buckets[bucket_of(s)];
    if (m) return m;
    if (!(m = mem_zalloc(1, sizeof *m))) {
        cpu_out_of_memory();
        return NULL;
    }
    m->shape = *s;
    cpu_attempt(try_to_make, &m, 0);
    if (!m->primitive) {
        mem_free(m);
        return NULL;
    }
    m->next = *bucket;
    *bucket = m;
    shapes++;
    return m;
}

static int64_t *rows_of(struct shape *s)
{
    return s->transposed_a ? &s->k : &s->m;
}

// That in which fewer rows are run (run_padded).
static struct shape padded(struct shape s)
{
    *rows_of(&s) = FEWEST_ROWS;
    s.lda = s.transposed_a ? s.m : s.k;
    if (s.transposed_a) {
        s.ldb = s.n;
    } else {
        s.ldc = s.n;
    }
    return s;
}

static bool make_all_rows(struct shape s, int64_t most)
{
    const struct shape fewest = padded(s);
    int64_t *rows = rows_of(&s);
    bool ok = make_shape(&fewest) != NULL;
    for (*rows = product_rows(most, most); ok && *rows >= FEWEST_ROWS;
         *rows = product_rows(*rows - 1, most)) {
        ok = make_shape(&s) != NULL;
    }
    return ok;
}

// The product of this shape, made at its first use, or with the others of its kind; NULL if the library has none, or no
// memory.
static const struct made *find(struct shape s, int64_t rows_at_most)
{
    const struct shape run_as = rows_at_most && *rows_of(&s) < FEWEST_ROWS ? padded(s) : s;
    pthread_mutex_lock(&lock);
    const struct made *m = look_up(&run_as);
    if (!m && (!rows_at_most || make_all_rows(s, rows_at_most))) m = make_shape(&run_as);
    pthread_mutex_unlock(&lock);
    return m;
}

static bool execute(const struct made *m, const void *a, const void *b, void *c)
{
    static const dnnl_query_t query[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                         dnnl_query_dst_md, dnnl_query_scratchpad_md};
    void *workspace = m->workspace ? scratch(SCRATCH_LIBRARY, m->workspace) : NULL;
    void *data[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, workspace};
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, NULL},
                              {DNNL_ARG_WEIGHTS, NULL},
                              {DNNL_ARG_DST, NULL},
                              {DNNL_ARG_SCRATCHPAD, NULL}};
    const int count = m->workspace ? 4 : 3;
    dnnl_stream_t stream = NULL;
    void *room = mem_alloc(EXECUTE_ROOM); // as library_room, for the few objects of a call
    if (!room) cpu_leave_task();
    mem_free(room);
    library_enter();
    bool ok = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success;
    for (int i = 0; ok && i < count; i++) {
        const layout md = dnnl_primitive_desc_query_md(m->description, query[i], 0);
        ok = dnnl_memory_create(&args[i].memory, md, engine, data[i]) == dnnl_success;
    }
    ok = ok && dnnl_primitive_execute(m->primitive, stream, count, args) == dnnl_success &&
         dnnl_stream_wait(stream) == dnnl_success;
    for (int i = 0; i < count; i++) {
        dnnl_memory_destroy(args[i].memory);
    }
    dnnl_stream_destroy(stream);
    return library_leave() && ok;
}

static struct shape shape_of(const struct product *p)
{
    return (struct shape){
        p->m,          p->n,        p->k, p->lda, p->ldb, p->ldc, p->transposed_a, p->transposed_b,
        p->accumulate, p->c_is_bf16};
}

// p, with its operands or what holds them padded.
static void run(const struct product *p, const void *a, const void *b, void *c)
{
    const struct made *m = find(shape_of(p), p->rows_at_most);
    if (!m || !execute(m, a, b, c)) cpu_leave_task(); // tried at the start by product_bf16_works
}

static void copy_rows(void *to, int64_t to_step, const void *from, int64_t from_step, int64_t rows,
                      size_t bytes, size_t size)
{
    for (int64_t r = 0; r < rows; r++) {
        memcpy((char *)to + (size_t)(r * to_step) * size,
               (const char *)from + (size_t)(r * from_step) * size, bytes);
    }
}

// The rows of an operand, and rows of zeros after them.
static const void *with_zeros(enum scratch_use use, const void *from, int64_t ld, int64_t rows,
                              int64_t n)
{
    const size_t size = sizeof(uint16_t);
    uint16_t *to = scratch(use, (size_t)(FEWEST_ROWS * n) * size);
    copy_rows(to, n, from, ld, rows, (size_t)n * size, size);
    memset(to + rows * n, 0, (size_t)((FEWEST_ROWS - rows) * n) * size);
    return to;
}

// Zeros add nothing to a sum over rows.
static void run_padded_sum(const struct product *p)
{
    run(p, with_zeros(SCRATCH_A, p->a, p->lda, p->k, p->m),
        with_zeros(SCRATCH_B, p->b, p->ldb, p->k, p->n), p->c);
}

// What comes of rows of zeros is dropped.
static void run_padded(const struct product *p)
{
    const size_t size = p->c_is_bf16 ? sizeof(uint16_t) : sizeof(float);
    const size_t row = (size_t)p->n * size;
    void *c = scratch(SCRATCH_SUMS, FEWEST_ROWS * row);
    if (p->accumulate) {
        memset(c, 0, FEWEST_ROWS * row);
        copy_rows(c, p->n, p->c, p->ldc, p->m, row, size);
    }
    run(p, with_zeros(SCRATCH_A, p->a, p->lda, p->m, p->k), p->b, c);
    copy_rows(p->c, p->ldc, c, p->n, p->m, row, size);
}

void product_bf16(const struct product *p)
{
    if (p->m == 0 || p->n == 0) return;
    assert(!(p->accumulate && p->c_is_bf16));
    library_set_threads();
    if (!p->rows_at_most || (p->transposed_a ? p->k : p->m) >= FEWEST_ROWS) {
        run(p, p->a, p->b, p->c);
    } else if (p->transposed_a) {
        run_padded_sum(p);
    } else {
        run_padded(p);
    }
}

int64_t product_rows(int64_t left, int64_t most)
{
    const int64_t rows = left < most ? left : most, sixteens = rows / FEWEST_ROWS;
    if (!sixteens) return rows;
    int dropped = 0;
    while (sixteens >> dropped > 7) {
        dropped++;
    }
    return (sixteens >> dropped << dropped) * FEWEST_ROWS;
}

int64_t product_shapes(void)
{
    pthread_mutex_lock(&lock);
    const int64_t n = shapes;
    pthread_mutex_unlock(&lock);
    return n;
}

bool product_bf16_works(void)
{
    bool works = cpu_free_bytes() > 0; // else no product can be made, and no model is allocated
#pragma omp parallel num_threads(1)
    {
        for (int i = 0; i < 4; i++) { // as the forward pass, dinput and dweight use it
            const struct shape s = {16, 48, 32, 64, 64, 64, i == 2, i == 0, i >= 2, i == 1};
            works = works && find(s, 0) != NULL;
        }
    }
    return works;
}

bool product_bf16_is_fast(void)
{
    // What the library makes use of, which its environment variables can narrow. On a processor without these dot
    // products its answer is in another architecture's terms.
    const int isa = (int)dnnl_get_effective_cpu_isa();
    const int needed = (int)dnnl_cpu_isa_avx512_core_bf16;
    return bf16_dots_work() && (isa & needed) == needed;
}
