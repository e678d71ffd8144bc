// Pooling over channels-last images [N, H, W, C], forward and backward.
#include "common.cuh"

struct Window {
    int height, width, channels, out_height, out_width, kernel, stride, padding;
};

// The maximum of each window and the tap that it came from. The first maximum wins, a NaN over any number.
template <typename T, int V>
__device__ void max_forward(const T *x, int64_t images, Window w, T *y, uint8_t *taps) {
    const int packs = w.channels / V;
    const int64_t total = images * w.out_height * w.out_width * packs;
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
        const int channel = int(i % packs) * V;
        int64_t rest = i / packs;
        const int q = int(rest % w.out_width);
        rest /= w.out_width;
        const int p = int(rest % w.out_height);
        const int64_t image = rest / w.out_height;
        float best[V];
        int tap[V];
#pragma unroll
        for (int k = 0; k < V; ++k) {
            best[k] = -INFINITY;
            tap[k] = -1;
        }
        for (int r = 0; r < w.kernel; ++r) {
            const int h = p * w.stride + r - w.padding;
            if (h < 0 || h >= w.height) continue;
            for (int s = 0; s < w.kernel; ++s) {
                const int c = q * w.stride + s - w.padding;
                if (c < 0 || c >= w.width) continue;
                const auto pack = Pack<T, V>::load(x + ((image * w.height + h) * w.width + c) * w.channels + channel);
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    const float value = pack.get(k);
                    if (tap[k] < 0 || value > best[k] || isnan(value)) {
                        best[k] = value;
                        tap[k] = r * w.kernel + s;
                    }
                }
            }
        }
        Pack<T, V> out;
        const int64_t to = i / packs * w.channels + channel;
#pragma unroll
        for (int k = 0; k < V; ++k) out.set(k, best[k]);
        out.store(y + to);
        if (taps) {
            Pack<uint8_t, V> chosen;
#pragma unroll
            for (int k = 0; k < V; ++k) chosen.elements[k] = uint8_t(tap[k]);
            if constexpr (V == 8)
                *reinterpret_cast<uint2 *>(taps + to) = *reinterpret_cast<const uint2 *>(chosen.elements);
            else if constexpr (V == 4)
                *reinterpret_cast<uint32_t *>(taps + to) = *reinterpret_cast<const uint32_t *>(chosen.elements);
            else
                taps[to] = chosen.elements[0];
        }
    }
}

// Each input element gathers the gradients of the windows that chose it, in row-major order of the windows.
template <typename T, int V>
__device__ void max_backward(const T *dy, const uint8_t *taps, int64_t images, Window w, T *dx) {
    const int packs = w.channels / V;
    const int64_t total = images * w.height * w.width * packs;
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
        const int channel = int(i % packs) * V;
        int64_t rest = i / packs;
        const int c = int(rest % w.width);
        rest /= w.width;
        const int h = int(rest % w.height);
        const int64_t image = rest / w.height;
        float sum[V];
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] = 0.0f;
        // Windows p with p · stride ≤ h + padding < p · stride + kernel.
        const int first_p = max(0, (h + w.padding - w.kernel + w.stride) / w.stride);
        const int last_p = min(w.out_height - 1, (h + w.padding) / w.stride);
        const int first_q = max(0, (c + w.padding - w.kernel + w.stride) / w.stride);
        const int last_q = min(w.out_width - 1, (c + w.padding) / w.stride);
        for (int p = first_p; p <= last_p; ++p)
            for (int q = first_q; q <= last_q; ++q) {
                const int tap = (h + w.padding - p * w.stride) * w.kernel + c + w.padding - q * w.stride;
                const int64_t from = ((image * w.out_height + p) * w.out_width + q) * w.channels + channel;
                const auto g = Pack<T, V>::load(dy + from);
                uint8_t chosen[8];
                if constexpr (V == 8)
                    *reinterpret_cast<uint2 *>(chosen) = *reinterpret_cast<const uint2 *>(taps + from);
                else if constexpr (V == 4)
                    *reinterpret_cast<uint32_t *>(chosen) = *reinterpret_cast<const uint32_t *>(taps + from);
                else
                    chosen[0] = taps[from];
#pragma unroll
                for (int k = 0; k < V; ++k)
                    if (chosen[k] == tap) sum[k] += g.get(k);
            }
        Pack<T, V> out;
#pragma unroll
        for (int k = 0; k < V; ++k) out.set(k, sum[k]);
        out.store(dx + i / packs * w.channels + channel);
    }
}

// The mean over all pixels of each image, [N, pixels, C] to [N, C].
template <typename T, int V>
__device__ void mean_forward(const T *x, int64_t images, int pixels, int channels, T *y) {
    const int packs = channels / V;
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= images * packs) return;
    const int channel = int(i % packs) * V;
    const T *from = x + i / packs * pixels * channels + channel;
    float sum[V];
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] = 0.0f;
    for (int pixel = 0; pixel < pixels; ++pixel) {
        const auto pack = Pack<T, V>::load(from + int64_t(pixel) * channels);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += pack.get(k);
    }
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.set(k, sum[k] / float(pixels));
    out.store(y + i / packs * channels + channel);
}

template <typename T, int V>
__device__ void mean_backward(const T *dy, int64_t images, int pixels, int channels, T *dx) {
    const int packs = channels / V;
    const int64_t total = images * pixels * packs;
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
        const int channel = int(i % packs) * V;
        const int64_t image = i / packs / pixels;
        auto pack = Pack<T, V>::load(dy + image * channels + channel);
#pragma unroll
        for (int k = 0; k < V; ++k) pack.set(k, pack.get(k) / float(pixels));
        pack.store(dx + i / packs * channels + channel);
    }
}

#define POOL(NAME, T, V)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        max_pool_forward_##NAME(const T *x, int64_t images, int height, int width, int channels, int out_height,         \
                                int out_width, int kernel, int stride, int padding, T *y, uint8_t *taps) {               \
        max_forward<T, V>(x, images, {height, width, channels, out_height, out_width, kernel, stride, padding}, y,       \
                          taps);                                                                                         \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        max_pool_backward_##NAME(const T *dy, const uint8_t *taps, int64_t images, int height, int width, int channels,  \
                                 int out_height, int out_width, int kernel, int stride, int padding, T *dx) {            \
        max_backward<T, V>(dy, taps, images,                                                                             \
                           {height, width, channels, out_height, out_width, kernel, stride, padding}, dx);               \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        mean_forward_##NAME(const T *x, int64_t images, int pixels, int channels, T *y) {                                \
        mean_forward<T, V>(x, images, pixels, channels, y);                                                              \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        mean_backward_##NAME(const T *dy, int64_t images, int pixels, int channels, T *dx) {                             \
        mean_backward<T, V>(dy, images, pixels, channels, dx);                                                           \
    }
INSTANCES(POOL)
