// Mean cross-entropy of logits [rows, classes] in f32, and its gradient.
//
// A warp takes a row. target[c] = (1 − smoothing) · t[c] + smoothing / classes, times the class's weight; t is a class as one
// hot, or a row of probabilities.
#include "common.cuh"

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL, value, offset);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, offset));
    return value;
}

struct Loss {
    const uint32_t *labels;
    const float *probabilities;
    const float *weights;
    int classes;
    float smoothing;

    __device__ __forceinline__ float weight(int c) const { return weights ? weights[c] : 1.0f; }

    __device__ __forceinline__ float share(int64_t row, int c) const {
        const float t = labels ? float(labels[row] == uint32_t(c)) : probabilities[row * classes + c];
        return ((1.0f - smoothing) * t + smoothing / float(classes)) * weight(c);
    }

    // What the sum of the losses is divided by, as this row's part of it. A label out of range makes the loss NaN.
    __device__ __forceinline__ float divisor(int64_t row) const {
        if (!labels) return 1.0f;
        return labels[row] < uint32_t(classes) ? weight(int(labels[row])) : NAN;
    }
};

// row_log_sum: log Σ exp(logit) of each row, for the backward. losses, divisors: [rows]. divisor_of_all: what the sum of the losses is divided by.
extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy_forward(const float *logits, int64_t rows, Loss loss, float *row_log_sum, float *losses, float *divisors,
                          float *mean, float *divisor_of_all, unsigned int *counter) {
    const int lane = threadIdx.x % WARP;
    const int64_t row = blockIdx.y * int64_t(THREADS / WARP) + threadIdx.x / WARP;
    if (row < rows) {
        const float *from = logits + row * loss.classes;
        float max = -INFINITY, sum = 0.0f, total = 0.0f;
        bool nan = false;
        for (int c = lane; c < loss.classes; c += WARP) {
            max = fmaxf(max, from[c]);
            nan |= isnan(from[c]);
        }
        max = warp_max(max);
        for (int c = lane; c < loss.classes; c += WARP) sum += expf(from[c] - max);
        const float log_sum = max + logf(warp_sum(sum));
        for (int c = lane; c < loss.classes; c += WARP) {
            const float share = loss.share(row, c);
            // A class without a share has no part in the sum, not even if its probability is 0.
            if (share != 0.0f || loss.probabilities) total += share * (log_sum - from[c]);
        }
        total = warp_sum(total);
        if (__any_sync(ALL, nan)) total = NAN;
        if (lane == 0) {
            row_log_sum[row] = log_sum;
            losses[row] = total;
            divisors[row] = loss.divisor(row);
        }
    }
    if (!last_of_column(counter)) return;
    __shared__ double buffer[2][THREADS];
    double sum = 0.0, divisor = 0.0;
    for (int64_t i = threadIdx.x; i < rows; i += THREADS) {
        sum += __ldcg(losses + i);
        divisor += __ldcg(divisors + i);
    }
    buffer[0][threadIdx.x] = sum;
    buffer[1][threadIdx.x] = divisor;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            for (int k = 0; k < 2; ++k) buffer[k][threadIdx.x] += buffer[k][threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        mean[0] = float(buffer[0][0] / buffer[1][0]);
        divisor_of_all[0] = float(buffer[1][0]);
    }
}

// grad: the loss's own gradient, one float.
extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy_backward(const float *logits, int64_t rows, Loss loss, const float *row_log_sum, const float *divisor,
                           const float *grad, float *dlogits) {
    const int lane = threadIdx.x % WARP;
    const int64_t row = blockIdx.y * int64_t(THREADS / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    const float scale = grad[0] / divisor[0];
    float total = 0.0f;
    for (int c = lane; c < loss.classes; c += WARP) total += loss.share(row, c);
    total = warp_sum(total);
    for (int c = lane; c < loss.classes; c += WARP) {
        const int64_t at = row * loss.classes + c;
        dlogits[at] = (expf(logits[at] - row_log_sum[row]) * total - loss.share(row, c)) * scale;
    }
}
