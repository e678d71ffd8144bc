// What the kernels share: element types, packs of elements, and the layout of threads over rows and channels.
//
// A tensor is seen as a matrix [rows, channels] in row-major order: channels-last images with one row a pixel, or a batch of
// vectors. A thread owns one pack of neighbouring channels and walks down the rows, so what belongs to a channel stays in its
// registers. All arithmetic is in f32; sums over many rows are combined in a fixed order, so a result never depends on which
// block ran first.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr int THREADS = 256;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(f16 x) { return __half2float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 narrow<f16>(float x) { return __float2half_rn(x); }

// V neighbouring elements, read and written at once where they make 16 bytes; widened when they are used, so that loads in
// flight take few registers.
template <typename T, int V> struct alignas(V * sizeof(T) == 16 ? 16 : alignof(T)) Pack {
    T elements[V];

    __device__ __forceinline__ static Pack load(const T *from) { return *reinterpret_cast<const Pack *>(from); }
    __device__ __forceinline__ void store(T *to) const { *reinterpret_cast<Pack *>(to) = *this; }
    __device__ __forceinline__ float get(int i) const { return widen(elements[i]); }
    __device__ __forceinline__ void set(int i, float value) { elements[i] = narrow<T>(value); }
};

// The place of a thread: blockDim.x packs of channels side by side, blockDim.y rows; THREADS in all.
template <int V> struct Place {
    int channel;
    bool inside;
    int64_t row;
    int64_t stride;

    __device__ __forceinline__ explicit Place(int channels) {
        channel = (blockIdx.x * blockDim.x + threadIdx.x) * V;
        inside = channel < channels;
        row = int64_t(blockIdx.y) * blockDim.y + threadIdx.y;
        stride = int64_t(gridDim.y) * blockDim.y;
    }
};

// Per-channel constants in registers.
template <int V> struct Channels {
    float v[V];

    __device__ __forceinline__ static Channels load(const float *from, int channel, bool inside, float otherwise = 0.0f) {
        Channels c;
#pragma unroll
        for (int i = 0; i < V; ++i) c.v[i] = inside && from ? from[channel + i] : otherwise;
        return c;
    }
};

// True in all threads of the block that is the last of gridDim.y to come here; its reads see what the others wrote.
// The counter is left at 0 for the next launch.
__device__ __forceinline__ bool last_of_column(unsigned int *counter) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        last = atomicAdd(counter + blockIdx.x, 1u) + 1 == gridDim.y;
        if (last) counter[blockIdx.x] = 0;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}

// The sum of a value over the rows of a block's threads, in every thread with threadIdx.y = 0. `buffer` holds THREADS floats.
__device__ __forceinline__ float sum_rows(float value, float *buffer) {
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();
    buffer[at] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) buffer[at] += buffer[at + half * blockDim.x];
        __syncthreads();
    }
    return buffer[threadIdx.x];
}

__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

__device__ __forceinline__ float gelu_slope(float x) {
    const float cumulative = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
    return cumulative + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

enum Activation : int { IDENTITY = 0, RELU = 1, GELU = 2 };

// relu as PyTorch's: NaN stays NaN.
__device__ __forceinline__ float activate(float z, int activation) {
    if (activation == RELU) return z <= 0.0f ? 0.0f : z;
    if (activation == GELU) return gelu(z);
    return z;
}

// What a gradient is multiplied by on its way back through the activation at z.
__device__ __forceinline__ float pass_back(float g, float z, int activation) {
    if (activation == RELU) return z <= 0.0f ? 0.0f : g;
    if (activation == GELU) return g * gelu_slope(z);
    return g;
}

// Instances of a kernel template for the element types, as wide as 16 bytes allow and one by one.
#define INSTANCES(INSTANCE)                                                                                              \
    INSTANCE(f32_wide, float, 4)                                                                                         \
    INSTANCE(f32_one, float, 1)                                                                                          \
    INSTANCE(bf16_wide, bf16, 8)                                                                                         \
    INSTANCE(bf16_one, bf16, 1)                                                                                          \
    INSTANCE(f16_wide, f16, 8)                                                                                           \
    INSTANCE(f16_one, f16, 1)
