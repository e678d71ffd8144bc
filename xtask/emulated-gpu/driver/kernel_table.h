// What a library of compiled kernels and the driver know of each other.
#pragma once

#include <cstddef>
#include <cstdint>

struct EmulatedDim {
    unsigned x, y, z;
};

struct EmulatedKernel {
    const char *name;
    // Runs one thread, with the addresses of its arguments.
    void (*call)(void **arguments);
    int count;
    // The bytes of each argument, and whether it is a pointer.
    const int *sizes;
    const bool *pointers;
};

// All kernels of a library, and the library's own variables: among them is all its shared memory.
struct EmulatedKernels {
    const EmulatedKernel *kernels;
    size_t count;
    char *variables;
    char *variables_end;
};

// The most shared memory that a block may ask for, with room to see that it writes past it.
constexpr size_t EMULATED_SHARED = 48 * 1024;
constexpr size_t EMULATED_SHARED_CANARY = 256;

extern "C" {
// What a library of kernels exports.
EmulatedKernels emulated_kernels();

// Where the thread that runs is.
extern EmulatedDim emulated_threadIdx, emulated_blockIdx, emulated_blockDim, emulated_gridDim;
// The shared memory whose size the launch says.
extern char emulated_shared[];

// Waits for all threads of the block. `place` tells one barrier from another.
void emulated_barrier(long place);
// Gives a value to the lanes of the mask, and returns that of the lane `source`. `kind` tells one exchange from another.
uint64_t emulated_shuffle(unsigned mask, uint64_t value, int source, int kind);
// The lanes of the mask whose condition holds.
unsigned emulated_ballot(unsigned mask, bool condition);
}
