// The entry points that allocate, free, fill and copy.
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "context.h"
#include "device.h"
#include "graphs.h"
#include "memory.h"
#include "report.h"
#include "streams.h"

using namespace emulated;

namespace {

void *pointer(CUdeviceptr address) { return reinterpret_cast<void *>(address); }

// Calls in streams of a thread's own context need that context; those in streams that were made know theirs.
CUresult stream_error(CUstream stream, const char *call) {
    return !stream || stream == CU_STREAM_PER_THREAD ? context_error(call) : initialised();
}

bool is_invalid(const Stream *stream) { return stream->capture && stream->capture->invalid; }

CUresult allocate_in_capture(CUdeviceptr *address, size_t bytes, Stream *stream) {
    Graph &capture = *stream->capture;
    Allocation *allocation = reserve(bytes, Origin::graph);
    allocation->graph = &capture;
    allocation->live_in_capture = true;
    capture.allocations.push_back(allocation);
    capture.kept.insert(allocation);
    enqueue(stream, "a graph's allocation", [allocation] {
        if (allocation->mapped) fault("a graph allocates memory that it did not free before");
        map(allocation);
    });
    *address = allocation->base;
    return CUDA_SUCCESS;
}

CUresult free_in_capture(CUdeviceptr address, Stream *stream) {
    Graph &capture = *stream->capture;
    Allocation *allocation = find(address);
    const bool own = allocation && allocation->base == address && allocation->graph == &capture && allocation->live_in_capture;
    if (!own) return refuse(capture, "cuMemFreeAsync of memory that the capture did not allocate", CUDA_ERROR_INVALID_VALUE);
    allocation->live_in_capture = false;
    capture.kept.erase(allocation);
    enqueue(stream, "a graph's freeing", [allocation] { unmap(allocation); });
    return CUDA_SUCCESS;
}

// A copy between the host's memory and the device's when a graph runs: the host's may be gone by then, which must not crash.
enum class Direction { to_device, to_host };

void copy_with_host(Direction direction, CUdeviceptr device, void *host, size_t bytes) {
    const iovec here{pointer(device), bytes}, there{host, bytes};
    const auto copied = direction == Direction::to_device ? process_vm_readv(getpid(), &here, 1, &there, 1, 0)
                                                          : process_vm_writev(getpid(), &here, 1, &there, 1, 0);
    if (copied != ssize_t(bytes)) fault("a graph copies %lu bytes at %p of the host's memory, which are gone", bytes, host);
}

}  // namespace

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    WITH_CONTEXT;
    if (forbidden_while_recording("cuMemAlloc")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!bytes || !address) return CUDA_ERROR_INVALID_VALUE;
    const Allocation *allocation = allocate(bytes, Origin::plain);
    if (!allocation) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = allocation->base;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
    WITH_CONTEXT;
    if (forbidden_while_recording("cuMemFree")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!address) return CUDA_SUCCESS;
    Allocation *allocation = find_live(address);
    if (!allocation) fault("cuMemFree of what cannot be freed: %s", describe(address).c_str());
    drain_all();
    give_up(allocation);
    unmap(allocation);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
    Guard guard(device_mutex);
    if (const CUresult error = stream_error(handle, __func__); error != CUDA_SUCCESS) return error;
    Stream *stream = stream_of(handle);
    if (!bytes || !address) return CUDA_ERROR_INVALID_VALUE;
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->capture) return allocate_in_capture(address, bytes, stream);
    const Allocation *allocation = allocate(bytes, Origin::ordered);
    if (!allocation) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = allocation->base;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    Guard guard(device_mutex);
    if (const CUresult error = stream_error(handle, __func__); error != CUDA_SUCCESS) return error;
    Stream *stream = stream_of(handle);
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->capture) return free_in_capture(address, stream);
    Allocation *allocation = find_live(address);
    if (!allocation) fault("cuMemFreeAsync of what cannot be freed: %s", describe(address).c_str());
    give_up(allocation);
    enqueue(stream, "a freeing", [allocation] { unmap(allocation); });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t bytes, CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    check_range(address, bytes, stream, __func__, "dstDevice");
    enqueue(stream, "a filling", [=] { std::memset(pointer(address), value, bytes); }, {address});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    check_range(to, bytes, stream, __func__, "dstDevice");
    if (stream->capture) {
        note("a copy of %lu bytes from the host is recorded: replays read %p again", bytes, from);
        auto *host = const_cast<void *>(from);
        enqueue(stream, "a recorded copy to the device", [=] { copy_with_host(Direction::to_device, to, host, bytes); }, {to});
        return CUDA_SUCCESS;
    }
    // Of memory that is not page-locked the driver takes a copy before it returns.
    const auto *start = static_cast<const char *>(from);
    auto taken = std::make_shared<std::vector<char>>(start, start + bytes);
    enqueue(stream, "a copy to the device", [=] { std::memcpy(pointer(to), taken->data(), bytes); }, {to});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    check_range(from, bytes, stream, __func__, "srcDevice");
    if (stream->capture) {
        note("a copy of %lu bytes to the host is recorded: replays write %p again", bytes, to);
        enqueue(stream, "a recorded copy to the host", [=] { copy_with_host(Direction::to_host, from, to, bytes); }, {from});
        return CUDA_SUCCESS;
    }
    enqueue(stream, "a copy to the host", [=] { std::memcpy(to, pointer(from), bytes); }, {from});
    // To memory that is not page-locked the driver copies before it returns.
    drain(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (is_invalid(stream)) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    check_range(to, bytes, stream, __func__, "dstDevice");
    check_range(from, bytes, stream, __func__, "srcDevice");
    if (to != from && to < from + bytes && from < to + bytes)
        fault("cuMemcpyDtoDAsync between ranges that overlap: %s and %s", describe(to).c_str(), describe(from).c_str());
    enqueue(stream, "a copy on the device", [=] { std::memmove(pointer(to), pointer(from), bytes); }, {to, from});
    return CUDA_SUCCESS;
}
