// CUDA's runtime library: candle's kernels for quantised products are linked with it, and register themselves when a program
// starts. They are never launched here.
#include "device.h"

namespace {
void *registered[1];
}

EXPORT void **__cudaRegisterFatBinary(void *) { return registered; }

EXPORT void __cudaRegisterFatBinaryEnd(void **) {}

EXPORT void __cudaUnregisterFatBinary(void **) {}

EXPORT void __cudaRegisterFunction() {}

EXPORT void __cudaRegisterVar() {}

EXPORT char __cudaInitModule(void **) { return 1; }
