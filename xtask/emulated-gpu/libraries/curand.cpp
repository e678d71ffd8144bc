// cuRAND: candle makes a generator when it opens a device. Numbers of chance are never asked of it: ours are keyed.
#include "device.h"

namespace {
int generator;
}

EXPORT int curandCreateGenerator(void **created, int) {
    *created = &generator;
    return 0;
}

EXPORT int curandDestroyGenerator(void *) { return 0; }

EXPORT int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }

EXPORT int curandSetStream(void *, void *) { return 0; }
