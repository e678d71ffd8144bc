// Dropout with the mask of the CPU's: bit for bit the numbers of ChaCha with 8 rounds for the same key.
#include "common.cuh"

struct Key {
    uint32_t words[8];
};

__device__ __forceinline__ void quarter(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d) {
    a += b; d = __funnelshift_l(d ^ a, d ^ a, 16);
    c += d; b = __funnelshift_l(b ^ c, b ^ c, 12);
    a += b; d = __funnelshift_l(d ^ a, d ^ a, 8);
    c += d; b = __funnelshift_l(b ^ c, b ^ c, 7);
}

// A thread makes a block of 16 numbers, for 16 elements in a row. An element is kept where its number reaches the threshold.
template <typename T>
__device__ void dropout(const T *x, int64_t count, Key key, const uint64_t *step, uint64_t threshold, float scale, T *y) {
    // Of a recording: the key's step is the replay's.
    if (step) {
        key.words[4] = uint32_t(*step);
        key.words[5] = uint32_t(*step >> 32);
    }
    const int64_t blocks = (count + 15) / 16;
    for (int64_t block = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; block < blocks;
         block += int64_t(gridDim.x) * blockDim.x) {
        uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
#pragma unroll
        for (int i = 0; i < 8; ++i) start[4 + i] = key.words[i];
        start[12] = uint32_t(block);
        start[13] = uint32_t(uint64_t(block) >> 32);
        start[14] = start[15] = 0;
        uint32_t s[16];
#pragma unroll
        for (int i = 0; i < 16; ++i) s[i] = start[i];
#pragma unroll
        for (int round = 0; round < 4; ++round) {
            quarter(s[0], s[4], s[8], s[12]);
            quarter(s[1], s[5], s[9], s[13]);
            quarter(s[2], s[6], s[10], s[14]);
            quarter(s[3], s[7], s[11], s[15]);
            quarter(s[0], s[5], s[10], s[15]);
            quarter(s[1], s[6], s[11], s[12]);
            quarter(s[2], s[7], s[8], s[13]);
            quarter(s[3], s[4], s[9], s[14]);
        }
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int64_t at = block * 16 + i;
            if (at < count)
                y[at] = uint64_t(s[i] + start[i]) >= threshold ? narrow<T>(widen(x[at]) * scale) : narrow<T>(0.0f);
        }
    }
}

#define DROPOUT(NAME, T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        dropout_##NAME(const T *x, int64_t count, Key key, const uint64_t *step, uint64_t threshold, float scale,        \
                       T *y) {                                                                                           \
        dropout<T>(x, count, key, step, threshold, scale, y);                                                            \
    }
DROPOUT(f32, float)
DROPOUT(bf16, bf16)
DROPOUT(f16, f16)
