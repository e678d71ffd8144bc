// The threads of a block. Where they wait for one another each is a fiber with a stack of its own, on the one thread that runs
// the kernel: a switch costs a few nanoseconds, and the order in which they run is ours to choose.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace emulated {

constexpr unsigned MOST_THREADS = 1024;

// Runs a grid; the arguments are addresses of values.
void run_grid(const Function &function, EmulatedDim grid, EmulatedDim block, size_t shared, std::vector<void *> &arguments);

// Whether a kernel runs, and where it is, for messages.
bool in_kernel();
std::string place_in_kernel();

}  // namespace emulated
