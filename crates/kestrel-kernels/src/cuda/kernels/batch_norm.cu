// Batch norm over [rows, channels], fused with what follows it, forward and backward.
//
// Arithmetic is a few operations a byte, so each kernel is a walk over memory: statistics read x once; the normalisation
// reads x and writes y; the backward reads x and dy for its two sums, and both again to write dx.
#include "common.cuh"

// Rows whose loads are in flight together: in a pass that writes, and in one that only reads.
constexpr int AT_ONCE = 4;
constexpr int IN_FLIGHT = 8;

// Count, mean and sum of squared deviations; joined by Chan, Golub and LeVeque 1983.
struct Moments {
    float n, mean, m2;

    __device__ __forceinline__ void join(const Moments &other) {
        const float total = n + other.n;
        if (other.n == 0.0f) return;
        const float share = other.n / total;
        const float delta = other.mean - mean;
        mean += delta * share;
        m2 += other.m2 + delta * delta * n * share;
        n = total;
    }
};

// Joins the moments of the rows of a block's threads, in fixed order; the result is valid where threadIdx.y = 0.
__device__ __forceinline__ Moments join_rows(Moments mine, float (*buffer)[THREADS]) {
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();
    buffer[0][at] = mine.n;
    buffer[1][at] = mine.mean;
    buffer[2][at] = mine.m2;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
            const int other = at + half * blockDim.x;
            mine.join({buffer[0][other], buffer[1][other], buffer[2][other]});
            buffer[0][at] = mine.n;
            buffer[1][at] = mine.mean;
            buffer[2][at] = mine.m2;
        }
        __syncthreads();
    }
    return mine;
}

// What a normalisation is made of; each [channels].
struct Normalization {
    float *mean, *inv_std, *scale, *shift;
};

// Statistics of x, and the scale and shift that normalise by them; moves the running statistics.
// partial: [gridDim.y, 3, channels]. bias: what the convolution before would have added, or null.
template <typename T, int V>
__device__ void statistics(const T *x, int64_t rows, int channels, const float *weight, const float *bias,
                           const float *conv_bias, float *running_mean, float *running_var, float momentum, float eps,
                           Normalization out, float *partial, unsigned int *counter) {
    __shared__ float buffer[3][THREADS];
    const Place<V> at(channels);
    Moments mine[V];
    {
        // Sums about a value of the channel itself lose no digits to a mean far from 0.
        float pivot[V], sum[V], squares[V], count = 0.0f;
#pragma unroll
        for (int i = 0; i < V; ++i) pivot[i] = sum[i] = squares[i] = 0.0f;
        if (at.inside && at.row < rows) {
            const auto first = Pack<T, V>::load(x + at.row * channels + at.channel);
#pragma unroll
            for (int i = 0; i < V; ++i) pivot[i] = first.get(i);
            int64_t row = at.row;
            for (; row + (IN_FLIGHT - 1) * at.stride < rows; row += IN_FLIGHT * at.stride) {
                Pack<T, V> packs[IN_FLIGHT];
#pragma unroll
                for (int k = 0; k < IN_FLIGHT; ++k)
                    packs[k] = Pack<T, V>::load(x + (row + k * at.stride) * channels + at.channel);
#pragma unroll
                for (int k = 0; k < IN_FLIGHT; ++k)
#pragma unroll
                    for (int i = 0; i < V; ++i) {
                        const float d = packs[k].get(i) - pivot[i];
                        sum[i] += d;
                        squares[i] += d * d;
                    }
                count += IN_FLIGHT;
            }
            for (; row < rows; row += at.stride) {
                const auto pack = Pack<T, V>::load(x + row * channels + at.channel);
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    const float d = pack.get(i) - pivot[i];
                    sum[i] += d;
                    squares[i] += d * d;
                }
                count += 1.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float mean = count > 0.0f ? sum[i] / count : 0.0f;
            mine[i] = {count, pivot[i] + mean, count > 0.0f ? fmaxf(squares[i] - sum[i] * mean, 0.0f) : 0.0f};
            // max would hide a NaN.
            if (isnan(squares[i])) mine[i].m2 = squares[i];
        }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const Moments block = join_rows(mine[i], buffer);
        if (threadIdx.y == 0 && at.inside) {
            float *to = partial + int64_t(blockIdx.y) * 3 * channels + at.channel + i;
            to[0] = block.n;
            to[channels] = block.mean;
            to[2 * channels] = block.m2;
        }
    }
    if (!last_of_column(counter)) return;
#pragma unroll
    for (int i = 0; i < V; ++i) mine[i] = {0.0f, 0.0f, 0.0f};
    if (at.inside)
        for (int block = threadIdx.y; block < gridDim.y; block += blockDim.y) {
            const float *from = partial + int64_t(block) * 3 * channels + at.channel;
            Moments other[V];
#pragma unroll
            for (int i = 0; i < V; ++i)
                other[i] = {__ldcg(from + i), __ldcg(from + channels + i), __ldcg(from + 2 * channels + i)};
#pragma unroll
            for (int i = 0; i < V; ++i) mine[i].join(other[i]);
        }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const Moments sum = join_rows(mine[i], buffer);
        if (threadIdx.y != 0 || !at.inside) continue;
        const int c = at.channel + i;
        const float var = sum.m2 / sum.n;
        const float inv_std = 1.0f / sqrtf(var + eps);
        const float scale = weight[c] * inv_std;
        out.mean[c] = sum.mean;
        out.inv_std[c] = inv_std;
        out.scale[c] = scale;
        out.shift[c] = bias[c] - sum.mean * scale;
        const float moved = sum.mean + (conv_bias ? conv_bias[c] : 0.0f);
        running_mean[c] += momentum * (moved - running_mean[c]);
        running_var[c] += momentum * (sum.m2 / (sum.n - 1.0f) - running_var[c]);
    }
}

#define STATISTICS(NAME, T, V)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_norm_statistics_##NAME(                                  \
        const T *x, int64_t rows, int channels, const float *weight, const float *bias, const float *conv_bias,          \
        float *running_mean, float *running_var, float momentum, float eps, float *mean, float *inv_std, float *scale,   \
        float *shift, float *partial, unsigned int *counter) {                                                           \
        statistics<T, V>(x, rows, channels, weight, bias, conv_bias, running_mean, running_var, momentum, eps,           \
                         {mean, inv_std, scale, shift}, partial, counter);                                               \
    }
INSTANCES(STATISTICS)

// The normalisation by running statistics, of x without the convolution's bias.
extern "C" __global__ void batch_norm_fixed(int channels, const float *weight, const float *bias, const float *conv_bias,
                                            const float *running_mean, const float *running_var, float eps, float *mean,
                                            float *inv_std, float *scale, float *shift) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    mean[c] = running_mean[c] - (conv_bias ? conv_bias[c] : 0.0f);
    inv_std[c] = 1.0f / sqrtf(running_var[c] + eps);
    scale[c] = weight[c] * inv_std[c];
    shift[c] = bias[c] - mean[c] * scale[c];
}

// y = activation(x · scale + shift + residual); scale, shift and residual may be null.
template <typename T, int V>
__device__ void apply(const T *x, const T *residual, int64_t rows, int channels, const float *scale, const float *shift,
                      int activation, T *y) {
    const Place<V> at(channels);
    if (!at.inside) return;
    const auto a = Channels<V>::load(scale, at.channel, true, 1.0f);
    const auto b = Channels<V>::load(shift, at.channel, true);
    auto one = [&](Pack<T, V> pack, const Pack<T, V> &added, int64_t offset) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            float z = fmaf(pack.get(i), a.v[i], b.v[i]);
            if (residual) z += added.get(i);
            pack.set(i, activate(z, activation));
        }
        pack.store(y + offset);
    };
    int64_t row = at.row;
    for (; row + (AT_ONCE - 1) * at.stride < rows; row += AT_ONCE * at.stride) {
        Pack<T, V> packs[AT_ONCE], added[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const int64_t offset = (row + k * at.stride) * channels + at.channel;
            packs[k] = Pack<T, V>::load(x + offset);
            if (residual) added[k] = Pack<T, V>::load(residual + offset);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) one(packs[k], added[k], (row + k * at.stride) * channels + at.channel);
    }
    for (; row < rows; row += at.stride) {
        const int64_t offset = row * channels + at.channel;
        Pack<T, V> added;
        if (residual) added = Pack<T, V>::load(residual + offset);
        one(Pack<T, V>::load(x + offset), added, offset);
    }
}

#define APPLY(NAME, T, V)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                \
        scale_shift_##NAME(const T *x, const T *residual, int64_t rows, int channels, const float *scale,                \
                           const float *shift, int activation, T *y) {                                                   \
        apply<T, V>(x, residual, rows, channels, scale, shift, activation, y);                                           \
    }
INSTANCES(APPLY)

// The gradient of the activation's argument, and its sums by channel:
// g = dy through the activation, at z = x · scale + shift, or by the sign of `out` where that is given;
// dbias = Σ g, dweight = Σ g (x − mean) · inv_std; written to `masked` if that is given.
// coefficients [3, channels] make dx = a · g + b · x + c. partial: [gridDim.y, 2, channels].
// Without x there are no statistics: dbias alone is made.
template <typename T, int V>
__device__ void backward_sums(const T *dy, const T *x, const T *out, int64_t rows, int channels, const float *mean,
                              const float *inv_std, const float *scale, const float *shift, int activation, int training,
                              T *masked, float *dweight, float *dbias, float *dconv_bias, float *coefficients,
                              float *partial, unsigned int *counter) {
    __shared__ float buffer[THREADS];
    const Place<V> at(channels);
    float sum[V], products[V];
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = products[i] = 0.0f;
    if (at.inside) {
        const auto a = Channels<V>::load(scale, at.channel, true, 1.0f);
        const auto b = Channels<V>::load(shift, at.channel, true);
        const auto m = Channels<V>::load(mean, at.channel, true);
        auto one = [&](Pack<T, V> g, const Pack<T, V> &xs, const Pack<T, V> &outs, int64_t offset) {
#pragma unroll
            for (int i = 0; i < V; ++i) {
                float value = g.get(i);
                if (out)
                    value = outs.get(i) <= 0.0f ? 0.0f : value;
                else if (activation != IDENTITY)
                    value = pass_back(value, fmaf(xs.get(i), a.v[i], b.v[i]), activation);
                sum[i] += value;
                if (x) products[i] += value * (xs.get(i) - m.v[i]);
                if (masked) g.set(i, value);
            }
            if (masked) g.store(masked + offset);
        };
        constexpr int N = 2;
        int64_t row = at.row;
        for (; row + (N - 1) * at.stride < rows; row += N * at.stride) {
            Pack<T, V> g[N], xs[N], outs[N];
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const int64_t offset = (row + k * at.stride) * channels + at.channel;
                g[k] = Pack<T, V>::load(dy + offset);
                if (x) xs[k] = Pack<T, V>::load(x + offset);
                if (out) outs[k] = Pack<T, V>::load(out + offset);
            }
#pragma unroll
            for (int k = 0; k < N; ++k) one(g[k], xs[k], outs[k], (row + k * at.stride) * channels + at.channel);
        }
        for (; row < rows; row += at.stride) {
            const int64_t offset = row * channels + at.channel;
            Pack<T, V> xs, outs;
            if (x) xs = Pack<T, V>::load(x + offset);
            if (out) outs = Pack<T, V>::load(out + offset);
            one(Pack<T, V>::load(dy + offset), xs, outs, offset);
        }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float s = sum_rows(sum[i], buffer);
        const float p = x ? sum_rows(products[i], buffer) : 0.0f;
        if (threadIdx.y == 0 && at.inside) {
            float *to = partial + int64_t(blockIdx.y) * 2 * channels + at.channel + i;
            to[0] = s;
            to[channels] = p;
        }
    }
    if (!last_of_column(counter)) return;
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = products[i] = 0.0f;
    if (at.inside)
        for (int block = threadIdx.y; block < gridDim.y; block += blockDim.y) {
            const float *from = partial + int64_t(block) * 2 * channels + at.channel;
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sum[i] += __ldcg(from + i);
                products[i] += __ldcg(from + channels + i);
            }
        }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float s = sum_rows(sum[i], buffer);
        const float p = sum_rows(products[i], buffer);
        if (threadIdx.y != 0 || !at.inside) continue;
        const int c = at.channel + i;
        dbias[c] = s;
        if (!x) continue;
        dweight[c] = p * inv_std[c];
        // Batch statistics take a bias of the convolution out again.
        if (dconv_bias) dconv_bias[c] = training ? 0.0f : s * scale[c];
        const float count = float(rows);
        const float b = training ? -scale[c] * inv_std[c] * inv_std[c] * p / count : 0.0f;
        coefficients[c] = scale[c];
        coefficients[channels + c] = b;
        coefficients[2 * channels + c] = training ? -scale[c] * s / count - b * mean[c] : 0.0f;
    }
}

#define BACKWARD_SUMS(NAME, T, V)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_norm_backward_sums_##NAME(                               \
        const T *dy, const T *x, const T *out, int64_t rows, int channels, const float *mean, const float *inv_std,      \
        const float *scale, const float *shift, int activation, int training, T *masked, float *dweight, float *dbias,   \
        float *dconv_bias, float *coefficients, float *partial, unsigned int *counter) {                                 \
        backward_sums<T, V>(dy, x, out, rows, channels, mean, inv_std, scale, shift, activation, training, masked,       \
                            dweight, dbias, dconv_bias, coefficients, partial, counter);                                 \
    }
INSTANCES(BACKWARD_SUMS)

// dx = a · g + b · x + c, with g = dy through the activation, or by the sign of `out` where that is given.
template <typename T, int V>
__device__ void backward_apply(const T *dy, const T *x, const T *out, int64_t rows, int channels, const float *scale,
                               const float *shift, int activation, const float *coefficients, T *dx) {
    const Place<V> at(channels);
    if (!at.inside) return;
    const auto s = Channels<V>::load(scale, at.channel, true, 1.0f);
    const auto t = Channels<V>::load(shift, at.channel, true);
    const auto a = Channels<V>::load(coefficients, at.channel, true);
    const auto b = Channels<V>::load(coefficients + channels, at.channel, true);
    const auto c = Channels<V>::load(coefficients + 2 * channels, at.channel, true);
    auto one = [&](Pack<T, V> g, const Pack<T, V> &xs, const Pack<T, V> &outs, int64_t offset) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            float value = g.get(i);
            if (out)
                value = outs.get(i) <= 0.0f ? 0.0f : value;
            else if (activation != IDENTITY)
                value = pass_back(value, fmaf(xs.get(i), s.v[i], t.v[i]), activation);
            g.set(i, fmaf(a.v[i], value, fmaf(b.v[i], xs.get(i), c.v[i])));
        }
        g.store(dx + offset);
    };
    constexpr int N = 2;
    int64_t row = at.row;
    for (; row + (N - 1) * at.stride < rows; row += N * at.stride) {
        Pack<T, V> g[N], xs[N], outs[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const int64_t offset = (row + k * at.stride) * channels + at.channel;
            g[k] = Pack<T, V>::load(dy + offset);
            xs[k] = Pack<T, V>::load(x + offset);
            if (out) outs[k] = Pack<T, V>::load(out + offset);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) one(g[k], xs[k], outs[k], (row + k * at.stride) * channels + at.channel);
    }
    for (; row < rows; row += at.stride) {
        const int64_t offset = row * channels + at.channel;
        Pack<T, V> outs;
        if (out) outs = Pack<T, V>::load(out + offset);
        one(Pack<T, V>::load(dy + offset), Pack<T, V>::load(x + offset), outs, offset);
    }
}

#define BACKWARD_APPLY(NAME, T, V)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_norm_backward_apply_##NAME(                              \
        const T *dy, const T *x, const T *out, int64_t rows, int channels, const float *scale, const float *shift,       \
        int activation, const float *coefficients, T *dx) {                                                              \
        backward_apply<T, V>(dy, x, out, rows, channels, scale, shift, activation, coefficients, dx);                    \
    }
INSTANCES(BACKWARD_APPLY)
