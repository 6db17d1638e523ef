// tests/emulate/emulate.cpp - threads of a block as fibers: see cuda_runtime.h. A fiber runs until it waits, at
// a barrier of the block, at a named one, or for the other lanes of its warp; then the next one runs. Only
// when no thread of a warp can go on are its lanes looked at again, so whoever was let go has read what it
// waited for before anything is overwritten.
#include "emulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

enum {
    MOST_THREADS = 1024,
    STACK = 128 << 10,
    WARP_LANES = 32,
    NAMED = 16,
    MOST_SHARED = 232 << 10
};
enum wait { RUNS, AT_BARRIER, AT_NAMED, IN_WARP, ENDED };

struct thread {
    void *stack_pointer;
    enum wait wait;
    unsigned mask; // IN_WARP: whom it waits for
    int barrier;   // AT_NAMED
    uint3 index;
};
struct lanes { // of a warp: what each gave, and what was given when they were let go
    unsigned char given[WARP_LANES][EMULATE_EXCHANGE], taken[WARP_LANES][EMULATE_EXCHANGE];
};
struct named {
    int arrived, count;
};

static struct {
    const char *kernel;
    const std::function<void()> *body;
    int threads, current;
    void *scheduler;
    struct thread thread[MOST_THREADS];
    struct lanes warp[MOST_THREADS / WARP_LANES];
    struct named named[NAMED];
    char *stacks;
} block;
alignas(128) static unsigned char shared_memory[MOST_SHARED];
static unsigned order;

// ---- fibers

extern "C" void emulate_switch(void **save, void *to);
#if defined(__x86_64__)
// The registers that a call preserves go to the old stack and come back from the new one.
asm(R"(
    .text
    .globl emulate_switch
    .hidden emulate_switch
    .type emulate_switch, @function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulate_switch, .-emulate_switch
)");
enum { SAVED = 6 };

static void *fresh_stack(char *stack, void (*entry)(void))
{
    void **top = (void **)(stack + STACK); // aligned to 16: at entry, as after a call, it is 8 off
    *--top = nullptr;
    *--top = (void *)entry;
    for (int i = 0; i < SAVED; i++) {
        *--top = nullptr;
    }
    return top;
}
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl emulate_switch
    .hidden emulate_switch
    .type emulate_switch, %function
emulate_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size emulate_switch, .-emulate_switch
)");
enum { SAVED = 20 };

static void *fresh_stack(char *stack, void (*entry)(void))
{
    void **top = (void **)(stack + STACK) - SAVED;
    for (int i = 0; i < SAVED; i++) {
        top[i] = nullptr;
    }
    top[11] = (void *)entry; // x30
    return top;
}
#else
#error "emulate.cpp: no switch of stacks for this processor"
#endif

// Back to the scheduler, until it lets this thread go on.
static void wait_as(enum wait w)
{
    struct thread *t = &block.thread[block.current];
    t->wait = w;
    emulate_switch(&t->stack_pointer, block.scheduler);
}

__attribute__((no_sanitize_address)) static void fiber(void)
{
    (*block.body)();
    wait_as(ENDED);
    abort(); // nobody resumes what has ended
}

[[noreturn]] static void stuck(const char *why)
{
    fprintf(stderr, "emulate: kernel %s, block (%u, %u, %u): %s\n", block.kernel, blockIdx.x,
            blockIdx.y, blockIdx.z, why);
    const char *const name[] = {"runs", "at __syncthreads", "at a named barrier", "in its warp",
                                "ended"};
    for (int i = 0; i < block.threads; i++) {
        const struct thread *t = &block.thread[i];
        if (i && t->wait == block.thread[i - 1].wait && t->mask == block.thread[i - 1].mask)
            continue;
        fprintf(stderr, "  from thread %d on: %s, mask %08x, barrier %d\n", i, name[t->wait],
                t->mask, t->barrier);
    }
    abort();
}

// ---- waiting

void __syncthreads(void)
{
    wait_as(AT_BARRIER);
}

void emulate_yield(void)
{
    wait_as(RUNS);
}

void emulate_named_barrier(int id, int count, bool wait)
{
    struct named *n = &block.named[id];
    if (id <= 0 || id >= NAMED || count % WARP_LANES || (n->arrived && n->count != count)) {
        stuck("a named barrier of 1 to 15 that counts whole warps, always as many, was expected");
    }
    n->count = count;
    n->arrived++;
    block.thread[block.current].barrier = id;
    const bool last = n->arrived == count;
    if (last) {
        for (int i = 0; i < block.threads; i++) {
            struct thread *t = &block.thread[i];
            if (t->wait == AT_NAMED && t->barrier == id) t->wait = RUNS;
        }
        n->arrived = 0;
    }
    if (wait) wait_as(last ? RUNS : AT_NAMED);
}

const unsigned char *emulate_exchange(unsigned mask, const void *mine, size_t bytes)
{
    struct lanes *w = &block.warp[block.current / WARP_LANES];
    const int lane = block.current % WARP_LANES;
    if (!(mask >> lane & 1)) stuck("a lane calls an exchange whose mask leaves it out");
    if (bytes) memcpy(w->given[lane], mine, bytes);
    block.thread[block.current].mask = mask;
    wait_as(IN_WARP);
    return w->taken[0];
}

unsigned __ballot_sync(unsigned mask, int predicate)
{
    const int mine = predicate != 0;
    const unsigned char *all = emulate_exchange(mask, &mine, sizeof mine);
    unsigned out = 0;
    for (unsigned i = 0; i < WARP_LANES; i++) {
        int theirs;
        memcpy(&theirs, all + i * EMULATE_EXCHANGE, sizeof theirs);
        if (mask >> i & 1 && theirs) out |= 1U << i;
    }
    return out;
}

// ---- the scheduler

static void resume(int i)
{
    struct thread *t = &block.thread[i];
    block.current = i;
    threadIdx = t->index;
    emulate_switch(&block.scheduler, t->stack_pointer);
}

static int in_order(int i, int n)
{
    if (order == 0) return i;
    if (order == 1) return n - 1 - i;
    // An odd factor permutes a power of two; what falls outside is skipped by walking on.
    int size = 1;
    while (size < n)
        size *= 2;
    int at = i;
    do {
        at = (int)((unsigned)at * ((order | 1U) & 0xffffU) + (order >> 3)) & (size - 1);
    } while (at >= n);
    return at;
}

// Lets the lanes go that all wait for each other with one mask. True: some did.
static bool release_lanes(int first, int count)
{
    bool any = false;
    for (int i = 0; i < count; i++) {
        const struct thread *t = &block.thread[first + i];
        if (t->wait != IN_WARP) continue;
        const unsigned mask = t->mask;
        bool all = true;
        for (int j = 0; j < WARP_LANES && all; j++) {
            if (!(mask >> j & 1)) continue;
            const struct thread *o = j < count ? &block.thread[first + j] : nullptr;
            if (!o || o->wait == ENDED)
                stuck("an exchange waits for a lane that has ended or is not there");
            all = o->wait == IN_WARP && o->mask == mask;
        }
        if (!all) continue;
        struct lanes *w = &block.warp[first / WARP_LANES];
        for (int j = 0; j < WARP_LANES; j++) {
            if (!(mask >> j & 1)) continue;
            memcpy(w->taken[j], w->given[j], EMULATE_EXCHANGE);
            block.thread[first + j].wait = RUNS;
        }
        any = true;
    }
    return any;
}

// Runs a warp until none of its threads can go on. A thread that yields gives the other warps a turn.
static void run_warp(int first, int count)
{
    do {
        for (int k = 0; k < count; k++) {
            const int i = first + in_order(k, count);
            if (block.thread[i].wait == RUNS) resume(i);
        }
    } while (release_lanes(first, count));
}

static bool step(void)
{
    const int warps = (block.threads + WARP_LANES - 1) / WARP_LANES;
    for (int k = 0; k < warps; k++) {
        const int first = in_order(k, warps) * WARP_LANES, left = block.threads - first;
        run_warp(first, left < WARP_LANES ? left : WARP_LANES);
    }
    int count[ENDED + 1] = {0};
    for (int i = 0; i < block.threads; i++) {
        count[block.thread[i].wait]++;
    }
    if (count[ENDED] == block.threads) return false;
    if (count[RUNS]) return true;
    if (count[AT_BARRIER] + count[ENDED] != block.threads) stuck("its threads wait for each other");
    for (int i = 0; i < block.threads; i++) {
        if (block.thread[i].wait == AT_BARRIER) block.thread[i].wait = RUNS;
    }
    return true;
}

static void run_block(size_t shared)
{
    memset(shared_memory, 0xff, shared); // not a number
    memset(block.named, 0, sizeof block.named);
    for (int i = 0; i < block.threads; i++) {
        const unsigned u = (unsigned)i, x = blockDim.x, y = blockDim.y;
        block.thread[i] = {fresh_stack(block.stacks + (size_t)i * STACK, fiber),
                           RUNS,
                           0,
                           0,
                           {u % x, u / x % y, u / x / y}};
    }
    while (step()) {
    }
}

void *emulate_dynamic_shared(void)
{
    return shared_memory;
}

void emulate_set_order(unsigned value)
{
    order = value;
}

cudaError_t emulate_launch(const char *name, dim3 grid, dim3 threads, size_t shared,
                           const std::function<void()> &body)
{
    const unsigned long count = (unsigned long)threads.x * threads.y * threads.z;
    const cudaError_t e = emulate_open_memory();
    if (e != cudaSuccess) return e;
    block.kernel = name;
    if (count == 0 || count > MOST_THREADS || shared > MOST_SHARED || grid.x > 0x7fffffffU ||
        grid.y > 65535 || grid.z > 65535) {
        stuck("a launch beyond the device's limits");
    }
    if (!block.stacks) {
        block.stacks = (char *)mmap(nullptr, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block.stacks == MAP_FAILED) stuck("no memory for stacks");
    }
    block.body = &body;
    block.threads = (int)count;
    gridDim = grid;
    blockDim = threads;
    const unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned k = 0; k < blocks; k++) {
        const unsigned b = (unsigned)in_order((int)k, (int)blocks);
        blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        run_block(shared);
    }
    emulate_close_memory();
    return cudaSuccess;
}
