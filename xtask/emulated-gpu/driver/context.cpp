// The driver, its one device, and its one context.
#include "context.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "graphs.h"
#include "kernels.h"
#include "report.h"
#include "settings.h"
#include "signals.h"
#include "streams.h"

namespace emulated {
namespace {

// Handles that point to nothing: there is one of each.
const auto CONTEXT = reinterpret_cast<CUcontext>(0xC07E);
const auto POOL = reinterpret_cast<CUmemoryPool>(0x9001);

bool is_initialised;
int retained;
thread_local CUcontext current;

// Before the program's main, so that Rust's runtime finds the handlers of signals taken, and leaves them.
struct Start {
    Start() {
        open_arena();
        catch_signals();
        load_kernels();
    }
} start;

}  // namespace

CUresult initialised() { return is_initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED; }

CUresult context_error(const char *call) {
    if (!is_initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (current != CONTEXT) {
        note("%s on a thread without a context: cuCtxSetCurrent comes first", call);
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return retained ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

}  // namespace emulated

using namespace emulated;

EXPORT CUresult cuInit(unsigned) {
    is_initialised = true;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
    WITH_DRIVER;
    *count = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    WITH_DRIVER;
    if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice) {
    WITH_DRIVER;
    std::snprintf(name, length, "Emulated GPU");
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) {
    WITH_DRIVER;
    *bytes = DEVICE_MEMORY;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    WITH_CONTEXT;
    *total = DEVICE_MEMORY;
    *free = DEVICE_MEMORY - bytes_in_use();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice) {
    WITH_DRIVER;
    std::memset(uuid, 7, sizeof *uuid);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    WITH_DRIVER;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = settings().multiprocessors; break;
        case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
        default: fault("cuDeviceGetAttribute of %d, which is not emulated", int(attribute));
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    WITH_DRIVER;
    ++retained;
    *context = CONTEXT;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
    WITH_DRIVER;
    if (!retained) return CUDA_ERROR_INVALID_CONTEXT;
    if (--retained == 0) drain_all();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
    WITH_DRIVER;
    *context = current;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    WITH_DRIVER;
    if (context && context != CONTEXT) return CUDA_ERROR_INVALID_CONTEXT;
    current = context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
    WITH_CONTEXT;
    *device = 0;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSynchronize() {
    WITH_CONTEXT;
    if (refuse_all("cuCtxSynchronize")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    drain_all();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text) {
    Guard guard(device_mutex);
    static std::map<int, std::string> texts;
    std::string &kept = texts[error];
    if (kept.empty()) kept = "the emulated driver's error " + std::to_string(int(error));
    *text = kept.c_str();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **name) { return cuGetErrorString(error, name); }

EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice) {
    WITH_DRIVER;
    *pool = POOL;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    WITH_DRIVER;
    // Freed memory is never kept here, whatever the threshold.
    if (pool != POOL || attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD || !value)
        fault("cuMemPoolSetAttribute of %d, which is not emulated", int(attribute));
    return CUDA_SUCCESS;
}
