// ops/cuda/device.cu - the device: opening it, what is refused, and what failed.
#include "ops/cuda/cuda.h"

#include <stdio.h>

constexpr int NEEDED_GENERATION = 80;

static struct {
    bool open, wgmma;
    cudaStream_t stream;
    int processors, generation;
    size_t shared; // bytes that a block may have
    char name[256];
    const char *op;
    struct error failure; // of the device: the first
    bool failed;
} device;

cudaStream_t cuda_stream(void)
{
    return device.stream;
}

int cuda_processors(void)
{
    return device.processors;
}

int cuda_generation(void)
{
    return device.generation;
}

bool cuda_has_wgmma(void)
{
    return device.wgmma;
}

// ---- failures

void cuda_enter(const char *op)
{
    device.op = op;
}

bool cuda_failed(void)
{
    return device.failed;
}

// The runtime says so of a launch itself; any other error may be that of a kernel that ran before.
static bool is_of_launch(cudaError_t e)
{
    return e == cudaErrorInvalidValue || e == cudaErrorInvalidConfiguration ||
           e == cudaErrorInvalidDeviceFunction || e == cudaErrorNoKernelImageForDevice ||
           e == cudaErrorLaunchOutOfResources || e == cudaErrorMemoryAllocation;
}

static const char *hint(cudaError_t e)
{
    return is_of_launch(e) ? ""
                           : "; maybe of a kernel before it: CUDA_LAUNCH_BLOCKING=1 tells which";
}

void cuda_note(const char *what, cudaError_t result)
{
    if (result == cudaSuccess || device.failed) return;
    fail(&device.failure, "%s: %s failed: %s%s", device.name, what, cudaGetErrorString(result),
         hint(result));
    device.failed = true;
}

static const char *file_of(const struct cuda_place *at)
{
    const char *slash = strrchr(at->file, '/');
    return slash ? slash + 1 : at->file;
}

void cuda_note_launch(const struct cuda_place *at, cudaError_t result)
{
    if (result == cudaSuccess || device.failed) return;
    fail(&device.failure, "%s: %s: %s:%d: launch of %s failed: %s%s", device.name, device.op,
         file_of(at), at->line, at->kernel, cudaGetErrorString(result), hint(result));
    device.failed = true;
}

bool cuda_fits(const struct cuda_place *at, size_t shared)
{
    if (shared <= device.shared) return true;
    fail(&device.failure,
         "%s: %s: %s:%d: %s needs %zu KB of shared memory for a block; the device has %zu KB",
         device.name, device.op, file_of(at), at->line, at->kernel, shared >> 10,
         device.shared >> 10);
    device.failed = true;
    return false;
}

bool cuda_check(struct error *err)
{
    cuda_note("an operation", cudaGetLastError());
    return !device.failed || fail(err, "%s", device.failure.msg);
}

// ---- opening

static bool find_device(struct error *err)
{
    int count = 0, driver = 0, runtime = 0;
    const cudaError_t found = cudaGetDeviceCount(&count);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (!driver) return fail(err, "device cuda: no NVIDIA driver found");
    if (found == cudaErrorInsufficientDriver) {
        return fail(err, "device cuda: the driver supports CUDA %d.%d, at least %d.%d expected",
                    driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (found == cudaErrorNoDevice || (found == cudaSuccess && !count)) {
        return fail(err, "device cuda: no NVIDIA GPU found");
    }
    return found == cudaSuccess || fail(err, "device cuda: %s", cudaGetErrorString(found));
}

static bool no_code(struct error *err)
{
    constexpr int built[] = {__CUDA_ARCH_LIST__};
    char list[256] = "";
    size_t n = 0;
    for (int a : built) {
        if (n + 16 > sizeof list) break;
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%d.%d", n ? ", " : "", a / 100,
                              a / 10 % 10);
    }
    return fail(err,
                "device cuda: %s has compute capability %d.%d; this build has code for %s "
                "(CMAKE_CUDA_ARCHITECTURES=%d makes one for it)",
                device.name, device.generation / 10, device.generation % 10, list,
                device.generation);
}

// Runs before any other kernel: is there code for this device, and of which kind?
static __global__ void probe(int *wgmma)
{
    *wgmma = WGMMA_COMPILED;
}

static cudaError_t run_probe(void)
{
    int *found = NULL;
    cudaError_t e = cudaHostAlloc((void **)&found, sizeof *found, cudaHostAllocMapped);
    if (e != cudaSuccess) return e;
    *found = 0;
    e = cuda_start(probe, "probe", 1, 1, 0, found);
    if (e == cudaSuccess) e = cudaStreamSynchronize(device.stream);
    device.wgmma = e == cudaSuccess && *found;
    if (e != cudaSuccess) cudaGetLastError();
    cudaFreeHost(found);
    return e;
}

static bool take_device(struct error *err)
{
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, 0);
    if (e == cudaSuccess) {
        device.generation = 10 * p.major + p.minor;
        device.processors = p.multiProcessorCount;
        device.shared = p.sharedMemPerBlockOptin;
        device.op = "opening";
        snprintf(device.name, sizeof device.name, "%s", p.name);
        if (device.generation < NEEDED_GENERATION) {
            return fail(err, "device cuda: %s has compute capability %d.%d, at least 8.0 expected",
                        p.name, p.major, p.minor);
        }
        e = cudaSetDevice(0);
    }
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = run_probe();
    if (e == cudaErrorNoKernelImageForDevice) return no_code(err);
    if (e == cudaSuccess) e = cuda_open_copies();
    return e == cudaSuccess || fail(err, "device cuda: %s: %s", device.name, cudaGetErrorString(e));
}

const struct ops *cuda_open(struct error *err)
{
    if (!device.open) device.open = find_device(err) && take_device(err);
    return device.open ? &cuda_ops : NULL;
}

bool cuda_built(void)
{
    return true;
}
