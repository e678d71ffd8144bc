// Kernels by name: those that were compiled for the CPU, and what their PTX says of them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernel_table.h"

namespace emulated {

// A kernel's entry in PTX.
struct Entry {
    // The bytes of each argument.
    std::vector<int> sizes;
    // The most threads of a block that it was compiled for; 0 where it does not say.
    int most_threads = 0;
    // Whether its threads wait for one another. Those of others run one after the other, without fibers.
    bool threads_meet = false;
};

// What a CUmodule points to.
struct Module {
    std::map<std::string, Entry> entries;
};

// What a CUfunction points to.
struct Function {
    const EmulatedKernel *kernel;
    const EmulatedKernels *library;
    const Entry *entry;
};

// Opens the libraries of kernels that lie beside the driver.
void load_kernels();

}  // namespace emulated
