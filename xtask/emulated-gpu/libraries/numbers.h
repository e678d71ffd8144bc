// Elements of three types as f32, and the matrix product that cuBLAS and cuDNN share.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

// The values of cudaDataType_t; cuDNN's own are brought to them.
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };

inline size_t bytes_of(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }
inline const char *name_of(int type) { return type == F64 ? "f64" : type == F32 ? "f32" : type == F16 ? "f16" : "bf16"; }

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// To the nearest, and to the even one of two; any NaN to one NaN.
inline uint16_t to_bf16(float x) {
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float load(const void *from, size_t at, int type) {
    if (type == F32) return static_cast<const float *>(from)[at];
    const uint16_t bits = static_cast<const uint16_t *>(from)[at];
    return type == F16 ? _cvtsh_ss(bits) : from_bits(uint32_t(bits) << 16);
}

inline void store(void *to, size_t at, int type, float x) {
    if (type == F32)
        static_cast<float *>(to)[at] = x;
    else
        static_cast<uint16_t *>(to)[at] = type == F16 ? _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT) : to_bf16(x);
}

// to[at] = alpha x + beta to[at]; where beta is 0, what was there is not read, for it may be NaN.
inline void blend(void *to, size_t at, int type, float alpha, float x, float beta) {
    const float before = beta == 0.0f ? 0.0f : beta * load(to, at, type);
    store(to, at, type, alpha * x + before);
}

// A tile of c[m, n] += a[m, k] b[k, n] in registers: 4 rows and 16 columns, over the steps of k from `from` to `to`.
inline void gemm_tile(size_t n, size_t k, size_t from, size_t to, const float *a, const float *b, float *c) {
    __m256 sums[4][2];
    for (int row = 0; row < 4; ++row)
        for (int half = 0; half < 2; ++half) sums[row][half] = _mm256_loadu_ps(c + row * n + 8 * half);
    for (size_t step = from; step < to; ++step) {
        const __m256 left = _mm256_loadu_ps(b + step * n), right = _mm256_loadu_ps(b + step * n + 8);
        for (int row = 0; row < 4; ++row) {
            const __m256 factor = _mm256_set1_ps(a[row * k + step]);
            sums[row][0] = _mm256_fmadd_ps(factor, left, sums[row][0]);
            sums[row][1] = _mm256_fmadd_ps(factor, right, sums[row][1]);
        }
    }
    for (int row = 0; row < 4; ++row)
        for (int half = 0; half < 2; ++half) _mm256_storeu_ps(c + row * n + 8 * half, sums[row][half]);
}

// c[m, n] += a[m, k] b[k, n], all in row-major order. Each sum is added in the order of k, in one chain.
inline void gemm_add(size_t m, size_t n, size_t k, const float *a, const float *b, float *c) {
    // What stays in the cache of b while the rows go by.
    constexpr size_t STEPS = 256;
    for (size_t from = 0; from < k; from += STEPS) {
        const size_t to = from + STEPS < k ? from + STEPS : k;
        for (size_t i = 0; i < m; i += 4)
            for (size_t j = 0; j < n; j += 16) {
                if (i + 4 <= m && j + 16 <= n) {
                    gemm_tile(n, k, from, to, a + i * k, b + j, c + i * n + j);
                    continue;
                }
                for (size_t row = i; row < i + 4 && row < m; ++row)
                    for (size_t step = from; step < to; ++step)
                        for (size_t column = j; column < j + 16 && column < n; ++column) {
                            float &sum = c[row * n + column];
                            sum = std::fma(a[row * k + step], b[step * n + column], sum);
                        }
            }
    }
}

inline void gemm(size_t m, size_t n, size_t k, const float *a, const float *b, float *c) {
    std::memset(c, 0, m * n * sizeof *c);
    gemm_add(m, n, k, a, b, c);
}

}  // namespace emulated
