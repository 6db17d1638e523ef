// tests/emulate/runtime.cpp - the runtime's functions that the backend calls, over memory of the host that
// is only accessible while a kernel or a copy runs: see cuda_runtime.h.
#include "emulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, MOST = 65536 };
static const size_t RESERVED = (size_t)64 << 30;

struct piece {
    char *pages; // followed by a page that stays closed
    size_t size; // of the pages
    char *data;  // ends where the pages end
};
static struct {
    char *base;
    size_t next, in_use;
    struct piece piece[MOST];
    int pieces, depth;
} memory;
static struct {
    int count, generation, driver;
    size_t bytes;
} device = {1, 90, 13000, (size_t)8 << 30};
static int64_t launches, waits, fail_in = -1, refuse_in = -1;
static cudaError_t lost = cudaSuccess;

static void protect(int how)
{
    for (int i = 0; i < memory.pieces; i++) {
        const struct piece *p = &memory.piece[i];
        if (p->data && mprotect(p->pages, p->size, how) != 0) abort();
    }
}

int64_t emulate_launches(void)
{
    return launches;
}

cudaError_t emulate_open_memory(void)
{
    launches++;
    if (fail_in >= 0 && fail_in-- == 0) lost = cudaErrorLaunchFailure;
    if (lost != cudaSuccess) return lost;
    if (device.generation / 10 > 9) return cudaErrorNoKernelImageForDevice;
    if (refuse_in >= 0 && refuse_in-- == 0) return cudaErrorLaunchOutOfResources;
    if (!memory.depth++) protect(PROT_READ | PROT_WRITE);
    return cudaSuccess;
}

void emulate_close_memory(void)
{
    if (!--memory.depth) protect(PROT_NONE);
}

void emulate_set_device(int count, int generation, size_t bytes, int driver)
{
    device = {count, generation, driver, bytes};
}

void emulate_fail_at(int64_t launch)
{
    fail_in = launch;
    lost = cudaSuccess;
}

void emulate_refuse_at(int64_t launch)
{
    refuse_in = launch;
}

int64_t emulate_waits(void)
{
    return waits;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorLaunchOutOfResources:
        return "too many resources requested for launch";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    default:
        return "unspecified launch failure";
    }
}

cudaError_t cudaGetLastError(void)
{
    return lost;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = device.count;
    if (device.driver < 13000) return cudaErrorInsufficientDriver;
    return device.count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int)
{
    snprintf(p->name, sizeof p->name, "emulated");
    p->totalGlobalMem = device.bytes;
    p->sharedMemPerBlockOptin = (size_t)(device.generation == 80   ? 163
                                         : device.generation == 90 ? 227
                                                                   : 99)
                                << 10;
    p->major = device.generation / 10;
    p->minor = device.generation % 10;
    p->multiProcessorCount = 2;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = device.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int)
{
    return lost;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = device.bytes;
    *available = device.bytes - memory.in_use;
    return lost;
}

static struct piece *free_piece(void)
{
    for (int i = 0; i < memory.pieces; i++) {
        if (!memory.piece[i].data) return &memory.piece[i];
    }
    if (memory.pieces == MOST) return nullptr;
    return &memory.piece[memory.pieces++];
}

// Addresses are never used twice, so that what was released stays closed.
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    if (lost != cudaSuccess) return lost;
    if (bytes > device.bytes - memory.in_use) return cudaErrorMemoryAllocation;
    if (!memory.base) {
        void *base =
            mmap(nullptr, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) abort();
        memory.base = (char *)base;
    }
    const size_t used = (bytes + 255) / 256 * 256, size = (used + PAGE - 1) / PAGE * PAGE;
    struct piece *piece = free_piece();
    if (!piece || size + PAGE > RESERVED - memory.next) return cudaErrorMemoryAllocation;
    piece->pages = memory.base + memory.next;
    piece->size = size;
    piece->data = piece->pages + size - used;
    memory.next += size + PAGE;
    memory.in_use += size;
    if (mprotect(piece->pages, size, PROT_READ | PROT_WRITE) != 0) return cudaErrorMemoryAllocation;
    memset(piece->pages, 0xff, size); // what was not written is not a number
    if (!memory.depth && mprotect(piece->pages, size, PROT_NONE) != 0) abort();
    *p = piece->data;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    for (int i = 0; p && i < memory.pieces; i++) {
        struct piece *piece = &memory.piece[i];
        if (piece->data != p) continue;
        madvise(piece->pages, piece->size, MADV_DONTNEED);
        if (mprotect(piece->pages, piece->size, PROT_NONE) != 0) abort();
        memory.in_use -= piece->size;
        *piece = {};
        waits++;
        return lost;
    }
    return lost;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    *p = malloc(bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = nullptr;
    return lost;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    waits++;
    return lost;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return lost;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = nullptr;
    return lost;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return lost;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return lost; // of copies, which are done at once here: no wait for the work of a step
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    const cudaError_t e = emulate_open_memory();
    if (e != cudaSuccess) return e;
    memmove(to, from, bytes);
    emulate_close_memory();
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t)
{
    const cudaError_t e = emulate_open_memory();
    if (e != cudaSuccess) return e;
    memset(to, value, bytes);
    emulate_close_memory();
    return cudaSuccess;
}
