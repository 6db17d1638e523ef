// ops/cpu/product.c - see product.h. oneDNN 2.x and 3.x differ in how a product is described; the two
// descriptions stand side by side. BF16 products are kept once made, by shape: making one generates code.
#include "ops/cpu/product.h"

#include "base/mem.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/dropped.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SIDE = 128,
    HEAP_BLOCKS = 64,
    HEAP_BLOCK = 64 << 10,
    EXECUTE_ROOM = 32 << 10,
    CODE_ROOM = 16 << 20
};

static int library_threads = 1; // of one call

// oneDNN says by a status that memory ran out, or chooses another kernel in silence, or throws what C cannot catch.
// errno shows the second. Against the third its operator new asks us before it throws, and we leave the task; what
// it was about stays half done, so it is not called any more.
static _Thread_local bool inside;
static _Atomic bool broken;
typedef void (*new_handler)(void);
static new_handler (*set_new_handler)(new_handler); // the C++ library's
static new_handler others;

static void no_memory_for_new(void)
{
    if (!inside) { // not in our call: as if we were not there
        set_new_handler(others);
        return;
    }
    inside = false;
    broken = true;
    cpu_leave_task();
}

static dnnl_status_t multiply(const struct product *p, float scale)
{
    return dnnl_sgemm(p->transposed_a ? 'T' : 'N', p->transposed_b ? 'T' : 'N', p->m, p->n, p->k,
                      scale, p->a, p->lda, p->b, p->ldb, p->accumulate ? 1.0f : 0.0f, p->c, p->ldc);
}

// Every kind of F32 product once: the library makes their kernels then, some for one row or column alone.
static void make_kernels(float *c, const float *a)
{
    omp_set_num_threads(library_threads);
    static const int64_t sizes[][3] = {{1, 8, 8}, {8, 1, 8}, {8, 8, 8}, {SIDE, SIDE, SIDE}};
    for (unsigned i = 0; i < 64; i++) {
        const int64_t *size = sizes[i / 16];
        const struct product p = {.m = size[0],
                                  .n = size[1],
                                  .k = size[2],
                                  .a = a,
                                  .b = a,
                                  .c = c,
                                  .lda = SIDE,
                                  .ldb = SIDE,
                                  .ldc = SIDE,
                                  .transposed_a = i & 1,
                                  .transposed_b = i & 2,
                                  .accumulate = i & 4};
        multiply(&p, i & 8 ? 0.5f : 1.0f);
    }
}

// Is there address space for the code of kernels? The library maps 256 KB for each.
static bool code_fits(void)
{
    void *p = mmap(NULL, CODE_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED && munmap(p, CODE_ROOM) == 0;
}

// oneDNN 2.6 does not survive that memory runs out while it makes kernels (it uses what it was not given). So the
// heap has memory for them before they are made: in pieces, which it keeps when they are freed. False: there is none.
static bool fill_heap(void)
{
    if (!code_fits()) return false;
    void *block[HEAP_BLOCKS];
    int n = 0;
    while (n < HEAP_BLOCKS && (block[n] = mem_alloc(HEAP_BLOCK))) {
        n++;
    }
    for (int i = 0; i < n; i++) { // the last one last: it holds the others' place in the heap
        mem_free(block[i]);
    }
    return n == HEAP_BLOCKS;
}

static bool prepare_kernels(void)
{
    float *a = mem_zalloc(SIDE * SIDE, sizeof *a), *c = mem_zalloc(SIDE * SIDE, sizeof *c);
    const bool ok = a && c && fill_heap();
    if (ok) make_kernels(c, a);
    mem_free(a);
    mem_free(c);
    return ok;
}

static bool prepare_library(void)
{
    static pthread_mutex_t preparing = PTHREAD_MUTEX_INITIALIZER;
    static bool done;
    pthread_mutex_lock(&preparing);
    if (!set_new_handler) {
        *(void **)&set_new_handler = dlsym(RTLD_DEFAULT, "_ZSt15set_new_handlerPFvvE");
        if (set_new_handler) others = set_new_handler(no_memory_for_new);
    }
    if (!done) done = prepare_kernels();
    const bool ok = done;
    pthread_mutex_unlock(&preparing);
    return ok;
}

static void enter_library(void)
{
    static _Atomic bool prepared;
    if (!prepared) prepared = prepare_library();
    if (!prepared || broken) cpu_leave_task();
    inside = true;
    errno = 0;
}

// False where memory ran out.
static bool leave_library(void)
{
    inside = false;
    return errno != ENOMEM;
}

void product_threads(int threads)
{
    library_threads = threads;
}

void product_f32(const struct product *p, float scale)
{
    if (p->m == 0 || p->n == 0) return;
    // Inside the caller's parallel region only; also where that has one thread.
    omp_set_num_threads(library_threads);
    enter_library();
    const dnnl_status_t status = multiply(p, scale);
    if (!leave_library() || status != dnnl_success) cpu_leave_task(); // for its packed blocks
}

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
    omp_set_num_threads(
        library_threads); // the primitive is cut for as many threads as there are now
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
    if (!fill_heap()) cpu_leave_task();
    enter_library();
    const bool ok = make(m);
    if (!ok) unmake(m);
    if (!leave_library()) {
        unmake(m); // perhaps not the kernel that it is elsewhere
        cpu_leave_task();
    }
}

// The product of this shape, made at its first use; NULL if the library has none, or no memory.
static const struct made *find(const struct shape *s)
{
    struct made **bucket = &buckets[bucket_of(s)];
    pthread_mutex_lock(&lock);
    struct made *m = *bucket;
    while (m && memcmp(&m->shape, s, sizeof *s) != 0) {
        m = m->next;
    }
    if (!m && !(m = mem_zalloc(1, sizeof *m))) {
        cpu_out_of_memory();
    } else if (!m->primitive) {
        m->shape = *s;
        cpu_attempt(try_to_make, &m, 0);
        if (m->primitive) {
            m->next = *bucket;
            *bucket = m;
        } else {
            mem_free(m);
            m = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
    return m;
}

static bool execute(const struct made *m, const struct product *p)
{
    static const dnnl_query_t query[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                         dnnl_query_dst_md, dnnl_query_scratchpad_md};
    void *workspace = m->workspace ? scratch(SCRATCH_LIBRARY, m->workspace) : NULL;
    void *data[] = {(void *)(uintptr_t)p->a, (void *)(uintptr_t)p->b, p->c, workspace};
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, NULL},
                              {DNNL_ARG_WEIGHTS, NULL},
                              {DNNL_ARG_DST, NULL},
                              {DNNL_ARG_SCRATCHPAD, NULL}};
    const int count = m->workspace ? 4 : 3;
    dnnl_stream_t stream = NULL;
    void *room = mem_alloc(EXECUTE_ROOM); // as fill_heap, for the few objects of a call
    if (!room) cpu_leave_task();
    mem_free(room);
    enter_library();
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
    return leave_library() && ok;
}

void product_bf16(const struct product *p)
{
    if (p->m == 0 || p->n == 0) return;
    assert(!(p->accumulate && p->c_is_bf16));
    omp_set_num_threads(library_threads);
    const struct shape s = {
        p->m,          p->n,        p->k, p->lda, p->ldb, p->ldc, p->transposed_a, p->transposed_b,
        p->accumulate, p->c_is_bf16};
    const struct made *m = find(&s);
    if (!m || !execute(m, p)) cpu_leave_task(); // tried at the start by product_bf16_works
}

int64_t product_rows(int64_t left, int64_t most)
{
    const int64_t rows = left < most ? left : most, sixteens = rows / 16;
    if (!sixteens) return rows;
    int dropped = 0;
    while (sixteens >> dropped > 7) {
        dropped++;
    }
    return (sixteens >> dropped << dropped) * 16;
}

bool product_bf16_works(void)
{
    bool works = cpu_free_bytes() > 0; // else no product can be made, and no model is allocated
#pragma omp parallel num_threads(1)
    {
        for (int i = 0; i < 4; i++) { // as the forward pass, dinput and dweight use it
            const struct shape s = {16, 48, 32, 64, 64, 64, i == 2, i == 0, i >= 2, i == 1};
            works = works && find(&s) != NULL;
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
