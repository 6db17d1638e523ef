// ops/cpu/product.c - see product.h: F32 products, and calling oneDNN where memory may run out (product_library.h).
#include "ops/cpu/product.h"

#include "base/mem.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/product_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <sys/mman.h>

enum { SIDE = 128, HEAP_BLOCKS = 64, HEAP_BLOCK = 64 << 10, CODE_ROOM = 16 << 20 };

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
    library_set_threads();
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

// In pieces, which the heap keeps when they are freed.
bool library_room(void)
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
    const bool ok = a && c && library_room();
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

void library_enter(void)
{
    static _Atomic bool prepared;
    if (!prepared) prepared = prepare_library();
    if (!prepared || broken) cpu_leave_task();
    inside = true;
    errno = 0;
}

bool library_leave(void)
{
    inside = false;
    return errno != ENOMEM;
}

void product_threads(int threads)
{
    library_threads = threads;
}

void library_set_threads(void)
{
    omp_set_num_threads(library_threads);
}

void product_f32(const struct product *p, float scale)
{
    if (p->m == 0 || p->n == 0) return;
    // Inside the caller's parallel region only; also where that has one thread.
    library_set_threads();
    library_enter();
    const dnnl_status_t status = multiply(p, scale);
    if (!library_leave() || status != dnnl_success) cpu_leave_task(); // for its packed blocks
}
