// ops/cpu/memory.c - memory of the CPU backend: mapped pages for what it is asked for, and each
// thread's scratch.
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, ZERO_BLOCK = 1 << 20 };

static size_t mapped_size(size_t bytes)
{
    return (bytes + PAGE) / PAGE * PAGE; // never 0
}

static _Atomic bool failed;
static _Thread_local jmp_buf *end_of_task; // of the attempt that runs; NULL: none

bool cpu_check(struct error *err)
{
    return !failed || fail(err, "no memory for the scratch space of a computation");
}

void cpu_out_of_memory(void)
{
    failed = true;
}

void cpu_forget_failure(void)
{
    failed = false;
}

void cpu_leave_task(void)
{
    failed = true;
    assert(end_of_task);
    longjmp(*end_of_task, 1);
}

void cpu_attempt(cpu_task task, const void *op, int64_t i)
{
    if (failed) return;
    jmp_buf here, *const outer = end_of_task;
    end_of_task = &here;
    if (!setjmp(here)) task(op, i);
    end_of_task = outer;
}

void cpu_tasks(int64_t n, bool worth, cpu_task task, const void *op)
{
    if (failed) return;
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads()) if (worth)
    for (int64_t i = 0; i < n; i++) {
        cpu_attempt(task, op, i);
    }
}

// Address space that is taken besides what is asked for, by products (their code, packed blocks) and by each
// thread (its stack, its heap); where it cannot be had oneDNN 2.6 crashes. Measured: 155 MB, 70 MB a thread more.
enum { LIBRARY_SPACE = 176 << 20, THREAD_SPACE = 80 << 20 };

// Of a limit on this process, of which `used` pages are taken.
static size_t left_of(const struct rlimit *r, size_t used)
{
    const size_t besides = LIBRARY_SPACE + (size_t)(cpu_threads() - 1) * THREAD_SPACE;
    const size_t taken = used * (size_t)sysconf(_SC_PAGESIZE) + besides;
    if (r->rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    return r->rlim_cur > taken ? (size_t)r->rlim_cur - taken : 0;
}

// Without `ulimit -v` and `ulimit -d`, whatever the machine gives (cpu_allocate).
size_t cpu_free_bytes(void)
{
    size_t space = 0, data = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return SIZE_MAX;
    const bool known = fscanf(f, "%zu %*s %*s %*s %*s %zu", &space, &data) == 2;
    fclose(f);
    if (!known) return SIZE_MAX;
    struct rlimit all, private;
    if (getrlimit(RLIMIT_AS, &all) != 0 || getrlimit(RLIMIT_DATA, &private) != 0) return SIZE_MAX;
    const size_t a = left_of(&all, space), b = left_of(&private, data);
    return a < b ? a : b;
}

static _Atomic size_t held; // bytes mapped by all allocations

// More than the machine's memory and swap together: the kernel would promise it all the same, and end some
// process when it is used.
static bool beyond_machine(size_t bytes)
{
    struct sysinfo s;
    return sysinfo(&s) == 0 && bytes / s.mem_unit > (size_t)s.totalram + s.totalswap;
}

void *cpu_allocate(size_t bytes)
{
    if (bytes > SIZE_MAX / 4) return NULL;
    const size_t size = mapped_size(bytes);
    if (beyond_machine(held + size)) return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    held += size;
    if (size >= HUGE_PAGE)
        madvise(p, size, MADV_HUGEPAGE); // a hint: random reads in a third of the time
    return p;
}

void cpu_release(void *p, size_t bytes)
{
    if (!p) return;
    munmap(p, mapped_size(bytes));
    held -= mapped_size(bytes);
}

void cpu_upload(void *dst, const void *src, size_t bytes)
{
    if (bytes) memcpy(dst, src, bytes);
}

void cpu_download(void *dst, const void *src, size_t bytes)
{
    if (bytes) memcpy(dst, src, bytes);
}

void cpu_zero(struct tensor x)
{
    const int64_t bytes = (int64_t)tensor_bytes(x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (bytes > ZERO_BLOCK)
    for (int64_t first = 0; first < bytes; first += ZERO_BLOCK) {
        memset((char *)x.data + first, 0, (size_t)min_i64(ZERO_BLOCK, bytes - first));
    }
}

void cpu_convert(struct tensor y, struct tensor x)
{
    const int64_t count = tensor_count(y);
    assert(count == tensor_count(x));
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        char *to = (char *)y.data + (size_t)first * dtype_size(y.dtype);
        const char *from = element_at(x, first);
        float buffer[BLOCK];
        if (x.dtype == y.dtype) {
            memcpy(to, from, (size_t)n * dtype_size(x.dtype));
        } else if (x.dtype == DTYPE_F64) { // straight, so that nothing is rounded twice
            dtype_convert(to, y.dtype, from, x.dtype, n);
        } else {
            to_f32(buffer, from, x.dtype, n);
            from_f32(to, y.dtype, buffer, n);
        }
    }
}

void cpu_import(struct tensor y, struct tensor host)
{
    const int64_t count = tensor_count(y);
    assert(count == tensor_count(host));
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (count > SMALL_WORK)
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = min_i64(BLOCK, count - first);
        double aligned[BLOCK]; // of any type, as the file may not have it
        memcpy(aligned, (const char *)host.data + (size_t)first * dtype_size(host.dtype),
               (size_t)n * dtype_size(host.dtype));
        dtype_convert((char *)y.data + (size_t)first * dtype_size(y.dtype), y.dtype, aligned,
                      host.dtype, n);
    }
}

struct scratch_block {
    void *data;
    size_t size;
};
static _Thread_local struct scratch_block blocks[SCRATCH_USES];
static pthread_key_t at_thread_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void release_blocks(void *thread_blocks)
{
    struct scratch_block *b = thread_blocks;
    for (int i = 0; i < SCRATCH_USES; i++) {
        cpu_release(b[i].data, b[i].size);
        b[i] = (struct scratch_block){0};
    }
}

static void make_key(void)
{
    pthread_key_create(&at_thread_exit, release_blocks);
}

void *scratch(enum scratch_use use, size_t bytes)
{
    struct scratch_block *b = &blocks[use];
    if (bytes <= b->size) return b->data;
    pthread_once(&once, make_key);
    pthread_setspecific(at_thread_exit, blocks);
    cpu_release(b->data, b->size);
    *b = (struct scratch_block){cpu_allocate(bytes), bytes};
    if (b->data) return b->data;
    *b = (struct scratch_block){0};
    cpu_leave_task();
}
