// What goes before and after matrix products: changes of layout and type, and bias with relu.
#include "common.cuh"

// out[b, j, i] = in[b, i, j] for i < I, j < J, with rows of `in` `ldi` apart and rows of `out` `ldo`; 0 for i in I .. ldo.
// Weights [K, C, R·S] to [K, R·S, C] and back, images to channels-last and back, with channels filled up with zeros.
template <typename A, typename B>
__device__ void transpose(const A *in, int64_t batch, int I, int J, int ldi, int ldo, B *out) {
    if (J <= 64 && ldi == J) {
        // Rows are short: a thread reads one whole, and neighbours write side by side.
        const int64_t total = batch * ldo;
        for (int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; at < total; at += int64_t(gridDim.x) * blockDim.x) {
            const int i = int(at % ldo);
            const int64_t b = at / ldo;
            const A *from = in + (b * I + i) * ldi;
            for (int j = 0; j < J; ++j) out[(b * J + j) * ldo + i] = i < I ? narrow<B>(widen(from[j])) : narrow<B>(0.0f);
        }
        return;
    }
    const int64_t total = batch * J * ldo;
    for (int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; at < total; at += int64_t(gridDim.x) * blockDim.x) {
        const int i = int(at % ldo);
        const int64_t rest = at / ldo;
        const int j = int(rest % J);
        out[at] = i < I ? narrow<B>(widen(in[(rest / J * I + i) * ldi + j])) : narrow<B>(0.0f);
    }
}

#define TRANSPOSE(NAME, A, B)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        transpose_##NAME(const A *in, int64_t batch, int I, int J, int ldi, int ldo, B *out) {                           \
        transpose<A, B>(in, batch, I, J, ldi, ldo, out);                                                                 \
    }
TRANSPOSE(f32_f32, float, float)
TRANSPOSE(f32_bf16, float, bf16)
TRANSPOSE(f32_f16, float, f16)
TRANSPOSE(bf16_f32, bf16, float)
TRANSPOSE(f16_f32, f16, float)
TRANSPOSE(bf16_bf16, bf16, bf16)
TRANSPOSE(f16_f16, f16, f16)

// Element types changed.
#define CONVERT(NAME, A, B)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) convert_##NAME(const A *in, int64_t count, B *out) {           \
        for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;                                      \
             i += int64_t(gridDim.x) * blockDim.x)                                                                       \
            out[i] = narrow<B>(widen(in[i]));                                                                            \
    }
CONVERT(f32_bf16, float, bf16)
CONVERT(f32_f16, float, f16)
CONVERT(bf16_f32, bf16, float)
CONVERT(f16_f32, f16, float)
CONVERT(bf16_f16, bf16, f16)
CONVERT(f16_bf16, f16, bf16)

// to += from, place by place.
#define ADD(NAME, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) add_##NAME(const T *from, int64_t count, T *to) {              \
        constexpr int V = 16 / sizeof(T);                                                                                \
        const int64_t first = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;                                            \
        const int64_t stride = int64_t(gridDim.x) * blockDim.x;                                                          \
        for (int64_t i = first; i < count / V; i += stride) {                                                            \
            const auto terms = Pack<T, V>::load(from + i * V);                                                           \
            auto sums = Pack<T, V>::load(to + i * V);                                                                    \
            for (int k = 0; k < V; ++k) sums.set(k, sums.get(k) + terms.get(k));                                         \
            sums.store(to + i * V);                                                                                      \
        }                                                                                                                \
        for (int64_t i = count / V * V + first; i < count; i += stride)                                                  \
            to[i] = narrow<T>(widen(to[i]) + widen(from[i]));                                                            \
    }
ADD(f32, float)
ADD(bf16, bf16)
ADD(f16, f16)

// The activation of each element, and a gradient back through it at x.
#define POINTWISE(NAME, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        activate_##NAME(const T *x, int64_t count, int activation, T *y) {                                               \
        for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;                                      \
             i += int64_t(gridDim.x) * blockDim.x)                                                                       \
            y[i] = narrow<T>(activate(widen(x[i]), activation));                                                         \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        activate_backward_##NAME(const T *dy, const T *x, int64_t count, int activation, T *dx) {                        \
        for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;                                      \
             i += int64_t(gridDim.x) * blockDim.x)                                                                       \
            dx[i] = narrow<T>(pass_back(widen(dy[i]), widen(x[i]), activation));                                         \
    }
POINTWISE(f32, float)
POINTWISE(bf16, bf16)
POINTWISE(f16, f16)
