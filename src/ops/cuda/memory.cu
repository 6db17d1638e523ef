// ops/cuda/memory.cu - the device's memory, and copies to and from it.
//
// Copies to the device go through a ring of pinned blocks, so that upload returns when the source was read:
// a step's small ones never wait, and a stream of large ones runs at the bus's speed while the host fills the
// next block.
#include "ops/cuda/cuda.h"

constexpr int SLOTS = 4, COPY_THREADS = 512;
constexpr size_t SLOT = (size_t)8 << 20;

static struct {
    char *slot[SLOTS]; // pinned; slot[current] is filled up to `filled`
    cudaEvent_t copied[SLOTS];
    int current;
    size_t filled;
    struct {
        void *data;
        size_t bytes;
    } scratch[CUDA_SCRATCH_USES];
    size_t held, peak; // device memory: now, and at most
} memory;

cudaError_t cuda_open_copies(void)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; e == cudaSuccess && i < SLOTS; i++) {
        e = cudaHostAlloc((void **)&memory.slot[i], SLOT, cudaHostAllocDefault);
        if (e == cudaSuccess) {
            e = cudaEventCreateWithFlags(&memory.copied[i], cudaEventDisableTiming);
        }
    }
    return e;
}

// ---- memory

static void hold(size_t bytes)
{
    memory.held += bytes;
    if (memory.held > memory.peak) memory.peak = memory.held;
}

size_t cuda_peak_bytes(void)
{
    return memory.peak;
}

void *cuda_allocate(size_t bytes)
{
    void *p = NULL;
    const cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); // asking for too much is no failure of the device
        return NULL;
    }
    cuda_note("allocation", e);
    if (e != cudaSuccess) return NULL;
    hold(bytes);
    cuda_note("clearing", cudaMemsetAsync(p, 0, bytes, cuda_stream()));
    return p;
}

void cuda_release(void *p, size_t bytes)
{
    if (p) memory.held -= bytes;
    cuda_note("release", cudaFree(p));
}

// Pinned and mapped: one address for host and device. Kernels read and write it over the bus.
void *cuda_allocate_host(size_t bytes)
{
    void *p = NULL;
    const cudaError_t e = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocMapped);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    cuda_note("allocation of host memory", e);
    if (e != cudaSuccess) return NULL;
    memset(p, 0, bytes);
    return p;
}

void cuda_release_host(void *p, size_t bytes)
{
    (void)bytes;
    cuda_note("a release", cudaStreamSynchronize(cuda_stream()));
    cuda_note("release of host memory", cudaFreeHost(p));
}

size_t cuda_free_bytes(void)
{
    size_t available = 0, total = 0;
    const cudaError_t e = cudaMemGetInfo(&available, &total);
    cuda_note("asking for free memory", e);
    return e == cudaSuccess ? available : SIZE_MAX;
}

void *cuda_scratch(enum cuda_scratch_use use, size_t bytes)
{
    if (bytes > memory.scratch[use].bytes) {
        cuda_note("release", cudaFree(memory.scratch[use].data)); // waits until nothing uses it
        memory.held -= memory.scratch[use].bytes;
        memory.scratch[use].bytes = 0;
        const cudaError_t e = cudaMalloc(&memory.scratch[use].data, bytes);
        cuda_note("allocation of scratch memory", e);
        if (e != cudaSuccess) return memory.scratch[use].data = NULL;
        memory.scratch[use].bytes = bytes;
        hold(bytes);
    }
    return memory.scratch[use].data;
}

// ---- copies

static void next_slot(void)
{
    cuda_note("a copy", cudaEventRecord(memory.copied[memory.current], cuda_stream()));
    memory.current = (memory.current + 1) % SLOTS;
    memory.filled = 0;
    cuda_note("a copy", cudaEventSynchronize(memory.copied[memory.current]));
}

void cuda_upload(void *dst, const void *src, size_t bytes)
{
    for (size_t done = 0, n; done < bytes && !cuda_failed(); done += n) {
        if (memory.filled == SLOT) next_slot();
        n = bytes - done < SLOT - memory.filled ? bytes - done : SLOT - memory.filled;
        char *from = memory.slot[memory.current] + memory.filled;
        memcpy(from, (const char *)src + done, n);
        memory.filled += n;
        cuda_note("upload", cudaMemcpyAsync((char *)dst + done, from, n, cudaMemcpyHostToDevice,
                                            cuda_stream()));
    }
}

// What could not be read is not a number.
void cuda_download(void *dst, const void *src, size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < SLOT ? bytes - done : SLOT;
        if (!cuda_failed()) {
            next_slot(); // the block is free: uploads from it are done
            cuda_note("download",
                      cudaMemcpyAsync(memory.slot[memory.current], (const char *)src + done, n,
                                      cudaMemcpyDeviceToHost, cuda_stream()));
            cuda_note("an operation", cudaStreamSynchronize(cuda_stream()));
        }
        if (cuda_failed()) {
            memset((char *)dst + done, 0xff, n);
        } else {
            memcpy((char *)dst + done, memory.slot[memory.current], n);
        }
    }
}

void cuda_zero(struct tensor x)
{
    if (tensor_bytes(x)) {
        cuda_note("clearing", cudaMemsetAsync(x.data, 0, tensor_bytes(x), cuda_stream()));
    }
}

template <typename T, typename U> static __global__ void convert(T *y, const U *x, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        y[i] = from_float<T>(to_float(x[i]));
    }
}

void cuda_convert(struct tensor y, struct tensor x)
{
    const int64_t count = tensor_count(y);
    assert(count == tensor_count(x));
    if (x.dtype == y.dtype) {
        if (count) {
            cuda_note("a copy", cudaMemcpyAsync(y.data, x.data, tensor_bytes(x),
                                                cudaMemcpyDeviceToDevice, cuda_stream()));
        }
        return;
    }
    const auto run = [&](auto to, auto from) {
        using T = decltype(to);
        using U = decltype(from);
        LAUNCH((convert<T, U>), cuda_grid(count, COPY_THREADS), COPY_THREADS, 0, data<T>(y),
               data<U>(x), count);
    };
    const auto from_any = [&](auto to) {
        if (x.dtype == DTYPE_F64) {
            run(to, double{});
        } else {
            with_floating(x.dtype, [&](auto from) { run(to, from); });
        }
    };
    if (y.dtype == DTYPE_F64) {
        from_any(double{});
    } else {
        with_floating(y.dtype, from_any);
    }
}

// In its own type straight to its place; else by way of a block on the device, chunk by chunk.
void cuda_import(struct tensor y, struct tensor host)
{
    const int64_t count = tensor_count(y), size = (int64_t)dtype_size(host.dtype);
    assert(count == tensor_count(host));
    if (y.dtype == host.dtype) {
        cuda_upload(y.data, host.data, tensor_bytes(y));
        return;
    }
    char *raw = (char *)cuda_scratch(CUDA_SCRATCH_C, SLOT);
    const int64_t most = (int64_t)SLOT / size;
    for (int64_t at = 0, n; raw && at < count; at += n) {
        n = count - at < most ? count - at : most;
        cuda_upload(raw, (const char *)host.data + at * size, (size_t)(n * size));
        cuda_convert(tensor_1d((char *)y.data + (size_t)at * dtype_size(y.dtype), y.dtype, n),
                     tensor_1d(raw, host.dtype, n));
    }
}
