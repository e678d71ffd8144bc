// Optimiser steps over all parameters in one launch.
//
// A launch takes up to TENSORS tensors: blockIdx.y is the tensor, blockIdx.x a share of its elements. Where `gate` is given and
// holds 0, nothing moves: a step that was found not to be finite is left out without the host's knowing.
#include "common.cuh"

#include <cfloat>

constexpr int TENSORS = 48;

struct Tensors {
    float *param[TENSORS];
    const float *grad[TENSORS];
    float *first[TENSORS];
    float *second[TENSORS];
    int64_t count[TENSORS];
};

// Calls f(i) for this thread's elements of its tensor.
template <typename F> __device__ __forceinline__ void each(const Tensors &tensors, const float *gate, F f) {
    if (gate && *gate == 0.0f) return;
    const int64_t count = tensors.count[blockIdx.y];
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) f(i);
}

// What is stored as 0 below, as by the CPU's steps: a parameter, and a number of the state.
constexpr float LEAST_PARAM = FLT_MIN * (1 << 26), LEAST_STATE = FLT_MIN;

__device__ __forceinline__ float flush_below(float value, float least) {
    return fabsf(value) < least ? copysignf(0.0f, value) : value;
}

// In the order of operations of the CPU's, each rounded by itself.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const __grid_constant__ Tensors tensors, float weight_decay, float share1, float beta2, float share2, float step_size,
         float sqrt_correction2, float eps, float keep, const float *gate) {
    float *param = tensors.param[blockIdx.y], *first = tensors.first[blockIdx.y], *second = tensors.second[blockIdx.y];
    const float *grad = tensors.grad[blockIdx.y];
    each(tensors, gate, [=](int64_t i) {
        const float p = param[i];
        const float g = weight_decay == 0.0f ? grad[i] : __fadd_rn(grad[i], __fmul_rn(weight_decay, p));
        const float m = __fadd_rn(first[i], __fmul_rn(share1, __fsub_rn(g, first[i])));
        const float v = __fadd_rn(__fmul_rn(second[i], beta2), __fmul_rn(__fmul_rn(share2, g), g));
        const float denom = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), sqrt_correction2), eps);
        const float moved = __fsub_rn(__fmul_rn(p, keep), __fdiv_rn(__fmul_rn(step_size, m), denom));
        param[i] = flush_below(moved, LEAST_PARAM);
        first[i] = flush_below(m, LEAST_STATE);
        second[i] = flush_below(v, LEAST_STATE);
    });
}

// `has_buffer`: with momentum. `started`: the buffers hold a step already.
extern "C" __global__ void __launch_bounds__(THREADS)
    sgd(const __grid_constant__ Tensors tensors, float lr, float momentum, float share, float weight_decay, int nesterov,
        int has_buffer, int started, const float *gate) {
    float *param = tensors.param[blockIdx.y], *buffer = tensors.first[blockIdx.y];
    const float *grad = tensors.grad[blockIdx.y];
    each(tensors, gate, [=](int64_t i) {
        const float p = param[i];
        float g = weight_decay == 0.0f ? grad[i] : __fadd_rn(grad[i], __fmul_rn(weight_decay, p));
        if (has_buffer) {
            const float b = started ? __fadd_rn(__fmul_rn(momentum, buffer[i]), __fmul_rn(share, g)) : g;
            buffer[i] = flush_below(b, LEAST_STATE);
            g = nesterov ? __fadd_rn(g, __fmul_rn(momentum, b)) : b;
        }
        param[i] = flush_below(__fsub_rn(p, __fmul_rn(lr, g)), LEAST_PARAM);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS) copy(const __grid_constant__ Tensors tensors) {
    float *to = tensors.param[blockIdx.y];
    const float *from = tensors.grad[blockIdx.y];
    each(tensors, nullptr, [=](int64_t i) { to[i] = from[i]; });
}

// The number of the step that is replayed next.
extern "C" __global__ void set_step(uint64_t step, uint64_t *to) { *to = step; }

// result[tensor] = Σ grad², in f64, in fixed order. partial: [gridDim.y, gridDim.x]; counters: [gridDim.y].
extern "C" __global__ void __launch_bounds__(THREADS)
    squared_norms(const __grid_constant__ Tensors tensors, double *partial, unsigned int *counters, double *result) {
    __shared__ double buffer[THREADS];
    __shared__ bool last;
    const float *grad = tensors.grad[blockIdx.y];
    partial += blockIdx.y * gridDim.x;
    double sum = 0.0;
    each(tensors, nullptr, [&](int64_t i) { sum += double(grad[i]) * double(grad[i]); });
    auto total = [&](double value) {
        __syncthreads();
        buffer[threadIdx.x] = value;
        __syncthreads();
        for (int half = THREADS / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) buffer[threadIdx.x] += buffer[threadIdx.x + half];
            __syncthreads();
        }
        return buffer[0];
    };
    sum = total(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(counters + blockIdx.y, 1u) + 1 == gridDim.x;
        if (last) counters[blockIdx.y] = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    sum = 0.0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) sum += __ldcg(partial + i);
    sum = total(sum);
    if (threadIdx.x == 0) result[blockIdx.y] = sum;
}
