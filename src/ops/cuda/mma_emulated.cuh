// ops/cuda/mma_emulated.cuh - what mma.cuh declares, computed on the CPU from the PTX ISA's description of
// each instruction and from nothing else, so that a kernel with a wrong layout, descriptor or wait gives
// wrong numbers here too. What is asynchronous on the device happens at once, or (emulated_late) at the
// last moment that the device may take: copies at the wait that covers them, products at theirs.
#pragma once
#include <string.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <deque>
#include <functional>

#define EMULATED_CHECK(ok)                                                                         \
    ((ok) ? (void)0 : (fprintf(stderr, "%s:%d: emulated: %s\n", __FILE__, __LINE__, #ok), abort()))

// Addresses begin at EMULATED_BASE: as on the device, dynamic shared memory need not begin at a multiple of
// what a kernel would like.
enum { EMULATED_THREADS = 1024, EMULATED_BASE = 128, EMULATED_SHARED = 227 * 1024 };

extern bool emulated_late; // set by tests; see above

static inline int emulated_thread()
{
    return (int)threadIdx.x;
}

static inline char *emulated_shared()
{
    return (char *)emulate_dynamic_shared() - EMULATED_BASE;
}

// What a thread has begun and not yet waited for, in groups.
struct emulated_queue {
    std::deque<std::deque<std::function<void()>>> closed;
    std::deque<std::function<void()>> open;
};
static inline emulated_queue &emulated_copies()
{
    static thread_local emulated_queue queue[EMULATED_THREADS];
    return queue[emulated_thread()];
}
static inline emulated_queue &emulated_products()
{
    static thread_local emulated_queue queue[EMULATED_THREADS];
    return queue[emulated_thread()];
}

static inline void emulated_begin(emulated_queue &q, std::function<void()> work)
{
    if (emulated_late) {
        q.open.push_back(work);
    } else {
        work();
    }
}

static inline void emulated_commit(emulated_queue &q)
{
    q.closed.push_back(q.open);
    q.open.clear();
}

static inline void emulated_wait(emulated_queue &q, size_t left)
{
    while (q.closed.size() > left) {
        for (auto &work : q.closed.front()) {
            work();
        }
        q.closed.pop_front();
    }
}

static inline float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t shared_address(const void *p)
{
    const int64_t at = (const char *)p - emulated_shared();
    EMULATED_CHECK(at >= EMULATED_BASE && at < EMULATED_SHARED);
    return (uint32_t)at;
}

static inline char *emulated_at(uint32_t address, uint32_t bytes)
{
    EMULATED_CHECK(address % bytes == 0 && address + bytes <= EMULATED_SHARED);
    return emulated_shared() + address;
}

static inline void store_shared(uint32_t to, uint4 v)
{
    memcpy(emulated_at(to, 16), &v, 16);
}

static inline void copy_async(uint32_t to, const void *from, uint32_t bytes)
{
    EMULATED_CHECK(bytes <= 16 && (uintptr_t)from % 16 == 0);
    char *at = emulated_at(to, 16);
    emulated_begin(emulated_copies(), [=]() {
        memset(at, 0, 16);
        memcpy(at, from, bytes);
    });
}

static inline void copy_commit()
{
    emulated_commit(emulated_copies());
}

template <int N> static inline void copy_wait()
{
    emulated_wait(emulated_copies(), N);
}

// What each lane of the warp holds at this instruction.
template <class T> struct emulated_lanes {
    const T *of[32];
    explicit emulated_lanes(const T &mine)
    {
        static thread_local const void *board[EMULATED_THREADS];
        const int thread = emulated_thread(), first = thread / 32 * 32;
        board[thread] = &mine;
        __syncwarp();
        for (int i = 0; i < 32; i++) {
            of[i] = (const T *)board[first + i];
        }
    }
    ~emulated_lanes()
    {
        __syncwarp(); // nobody's values go while others read them
    }
};

static inline void emulated_matrices(uint32_t (&r)[4], uint32_t row, bool transposed)
{
    const int lane = emulated_thread() % 32;
    uint32_t out[4];
    {
        const emulated_lanes<uint32_t> rows(row);
        for (int q = 0; q < 4; q++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                const int down = transposed ? 2 * (lane % 4) + i : lane / 4;
                const int across = transposed ? lane / 4 : 2 * (lane % 4) + i;
                memcpy(&pair[i], emulated_at(*rows.of[8 * q + down], 16) + 2 * across, 2);
            }
            memcpy(&out[q], pair, 4);
        }
    }
    memcpy(r, out, sizeof out);
}

static inline void load_matrices(uint32_t (&r)[4], uint32_t row)
{
    emulated_matrices(r, row, false);
}

static inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t row)
{
    emulated_matrices(r, row, true);
}

static inline float emulated_half(uint32_t pair, int high)
{
    return float_of_bits(high ? pair & 0xFFFF0000U : pair << 16);
}

static inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    struct held {
        uint32_t a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const int lane = emulated_thread() % 32;
    const emulated_lanes<held> lanes(mine);
    for (int e = 0; e < 4; e++) {
        const int row = lane / 4 + (e >= 2 ? 8 : 0), column = 2 * (lane % 4) + e % 2;
        float sum = d[e];
        for (int k = 0; k < 16; k++) {
            const held &ha = *lanes.of[row % 8 * 4 + k % 8 / 2];
            const held &hb = *lanes.of[column * 4 + k % 8 / 2];
            sum += emulated_half(ha.a[(row >= 8) + 2 * (k >= 8)], k % 2) *
                   emulated_half(hb.b[k >= 8], k % 2);
        }
        d[e] = sum;
    }
}

struct emulated_barrier {
    uint16_t pending, count;
    uint32_t phase;
};

static inline void barrier_init(uint32_t barrier, uint32_t count)
{
    const emulated_barrier b = {(uint16_t)count, (uint16_t)count, 0};
    memcpy(emulated_at(barrier, 8), &b, 8);
}

static inline void barrier_arrive(uint32_t barrier)
{
    emulated_barrier *b = (emulated_barrier *)emulated_at(barrier, 8);
    if (--b->pending == 0) {
        b->pending = b->count;
        b->phase++;
    }
}

static inline void barrier_wait(uint32_t barrier, uint32_t parity)
{
    const emulated_barrier *b = (const emulated_barrier *)emulated_at(barrier, 8);
    while ((b->phase & 1) == parity) {
        emulate_yield();
    }
}
