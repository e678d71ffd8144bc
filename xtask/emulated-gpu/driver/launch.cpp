// cuLaunchKernel, and what it checks before a kernel runs.
#include <cuda.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "context.h"
#include "device.h"
#include "fibers.h"
#include "graphs.h"
#include "report.h"
#include "streams.h"

using namespace emulated;

namespace {

constexpr size_t ARGUMENT_ALIGNMENT = 16;

// The values of a launch's arguments, which the caller's may be gone when the kernel runs.
struct Arguments {
    std::vector<char> bytes;
    std::vector<size_t> offsets;

    std::vector<void *> addresses() {
        std::vector<void *> found;
        for (const size_t offset : offsets) found.push_back(bytes.data() + offset);
        return found;
    }
};

// Whether the device can run such a grid; otherwise the driver refuses it.
bool is_launchable(const Function &function, EmulatedDim grid, EmulatedDim block, size_t shared) {
    const size_t threads = size_t(block.x) * block.y * block.z;
    const bool grid_fits = grid.x && grid.y && grid.z && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535;
    const bool block_fits = threads && threads <= MOST_THREADS && block.z <= 64;
    const int most = function.entry->most_threads;
    return grid_fits && block_fits && shared <= EMULATED_SHARED && (!most || threads <= size_t(most));
}

// Checks what an argument holds of addresses: alone, or in a struct. Gives them back.
std::vector<uintptr_t> addresses_in(const EmulatedKernel &kernel, int index, const char *value, const Stream *stream) {
    std::vector<uintptr_t> found;
    const int size = kernel.sizes[index];
    const std::string name = std::to_string(index);
    for (int at = 0; at + int(sizeof(uintptr_t)) <= size; at += sizeof(uintptr_t)) {
        uintptr_t word;
        std::memcpy(&word, value + at, sizeof word);
        if (!on_device(word)) {
            if (kernel.pointers[index] && word)
                fault("%s: argument %d is a pointer, and is given %#lx, which is no address of the device", kernel.name, index,
                      word);
            continue;
        }
        if (size == sizeof word && !kernel.pointers[index])
            fault("%s: argument %d is a number, and is given an address: %s", kernel.name, index, describe(word).c_str());
        check_address(word, stream, kernel.name, name.c_str());
        found.push_back(word);
    }
    return found;
}

}  // namespace

EXPORT CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared, CUstream stream_handle, void **values,
                               void **extra) {
    WITH_CONTEXT;
    Stream *stream = stream_of(stream_handle);
    const auto *function = reinterpret_cast<Function *>(handle);
    const EmulatedKernel &kernel = *function->kernel;
    const EmulatedDim grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    if (stream->capture && stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (extra) fault("%s: cuLaunchKernel with arguments in a buffer (extra), which is not emulated", kernel.name);
    if (!is_launchable(*function, grid, block, shared)) {
        note("the launch of %s is refused: grid %u,%u,%u, block %u,%u,%u, %u bytes of shared memory", kernel.name, grid_x, grid_y,
             grid_z, block_x, block_y, block_z, shared);
        return CUDA_ERROR_INVALID_VALUE;
    }
    auto arguments = std::make_shared<Arguments>();
    std::vector<uintptr_t> used;
    for (int i = 0; i < kernel.count; ++i) {
        const size_t offset = arguments->bytes.size(), size = kernel.sizes[i];
        arguments->offsets.push_back(offset);
        arguments->bytes.resize(offset + (size + ARGUMENT_ALIGNMENT - 1) / ARGUMENT_ALIGNMENT * ARGUMENT_ALIGNMENT);
        std::memcpy(arguments->bytes.data() + offset, values[i], size);
        for (const uintptr_t address : addresses_in(kernel, i, arguments->bytes.data() + offset, stream)) used.push_back(address);
    }
    auto work = [=] {
        std::vector<void *> addresses = arguments->addresses();
        run_grid(*function, grid, block, shared, addresses);
    };
    enqueue(stream, kernel.name, work, std::move(used));
    return CUDA_SUCCESS;
}
