// What every entry point begins with.
#pragma once

#include <cuda.h>

#include "device.h"
#include "memory.h"

namespace emulated {

// Why a call is refused that needs the driver to be initialised.
CUresult initialised();
// Why a call is refused that needs a context on the calling thread.
CUresult context_error(const char *call);

}  // namespace emulated

// Takes the device's lock for the rest of an entry point; returns from it where the driver is not initialised.
#define WITH_DRIVER                                     \
    emulated::Guard guard(emulated::device_mutex);      \
    if (const CUresult error = emulated::initialised(); error != CUDA_SUCCESS) return error

// The same, and the calling thread must have a context.
#define WITH_CONTEXT                                    \
    emulated::Guard guard(emulated::device_mutex);      \
    if (const CUresult error = emulated::context_error(__func__); error != CUDA_SUCCESS) return error
