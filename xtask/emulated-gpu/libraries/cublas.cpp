// cuBLAS: the matrix products that candle asks for. All types are multiplied and added in f32, f64 in itself.
#include <functional>
#include <string>
#include <vector>

#include "device.h"
#include "numbers.h"

using namespace emulated;

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7 };
// Of cublasComputeType_t: those that compute in f32, or in less where that is faster.
enum Compute { COMPUTE_32F = 68, COMPUTE_32F_FAST_16BF = 75, COMPUTE_32F_FAST_TF32 = 77 };

constexpr int ALIVE = 0xB1A5;

struct Handle {
    void *stream = nullptr;
    int alive = ALIVE;
};

Handle *alive(void *handle) {
    auto *found = static_cast<Handle *>(handle);
    if (found->alive != ALIVE) emulated_fault("cuBLAS: a handle that is destroyed");
    return found;
}

// A matrix [rows, columns] in column-major order, of which there is one for each of the batch.
struct Matrix {
    const void *data;
    long rows, columns, leading, stride;
    bool transposed;

    // The place of an element of the matrix as it is multiplied.
    size_t at(long batch, long row, long column) const {
        return batch * stride + (transposed ? row * leading + column : column * leading + row);
    }
    bool is_valid() const { return rows >= 0 && columns >= 0 && leading >= 1 && leading >= (transposed ? columns : rows); }
    size_t elements(long batch) const {
        if (!rows || !columns || !batch) return 0;
        const long inner = transposed ? columns : rows, outer = transposed ? rows : columns;
        return (batch - 1) * stride + (outer - 1) * leading + inner;
    }
};

// C = alpha A B + beta C.
struct Product {
    Matrix a, b, c;
    long inner, batch;
    int type;

    void check(void *stream) const {
        const struct {
            const char *name;
            const Matrix &matrix;
        } all[] = {{"A", a}, {"B", b}, {"C", c}};
        for (const auto &[name, matrix] : all)
            emulated_check(stream, "cublasGemm", name, matrix.data, matrix.elements(batch) * bytes_of(type));
    }

    void enqueue(void *stream, const std::function<void()> &work) const {
        const void *used[] = {a.data, b.data, c.data};
        emulated_enqueue(stream, (std::string("cuBLAS's product of ") + name_of(type)).c_str(), work, used, 3);
    }

    void run(float alpha, float beta) const {
        const size_t m = c.rows, n = c.columns, k = inner;
        std::vector<float> left(m * k), right(k * n), result(m * n);
        for (long number = 0; number < batch; ++number) {
            for (size_t i = 0; i < m; ++i)
                for (size_t step = 0; step < k; ++step) left[i * k + step] = load(a.data, a.at(number, i, step), type);
            for (size_t step = 0; step < k; ++step)
                for (size_t j = 0; j < n; ++j) right[step * n + j] = load(b.data, b.at(number, step, j), type);
            gemm(m, n, k, left.data(), right.data(), result.data());
            for (size_t j = 0; j < n; ++j)
                for (size_t i = 0; i < m; ++i)
                    blend(const_cast<void *>(c.data), c.at(number, i, j), type, alpha, result[i * n + j], beta);
        }
    }

    void run64(double alpha, double beta) const {
        const auto *left = static_cast<const double *>(a.data), *right = static_cast<const double *>(b.data);
        auto *result = static_cast<double *>(const_cast<void *>(c.data));
        for (long number = 0; number < batch; ++number)
            for (long j = 0; j < c.columns; ++j)
                for (long i = 0; i < c.rows; ++i) {
                    double sum = 0;
                    for (long step = 0; step < inner; ++step) sum += left[a.at(number, i, step)] * right[b.at(number, step, j)];
                    double &to = result[c.at(number, i, j)];
                    to = alpha * sum + (beta == 0.0 ? 0.0 : beta * to);
                }
    }
};

}  // namespace

EXPORT int cublasCreate_v2(void **handle) {
    *handle = new Handle();
    return SUCCESS;
}

EXPORT int cublasDestroy_v2(void *handle) {
    // Kept, so that a late use finds that it is destroyed.
    alive(handle)->alive = 0;
    return SUCCESS;
}

EXPORT int cublasSetStream_v2(void *handle, void *stream) {
    alive(handle)->stream = stream;
    return SUCCESS;
}

EXPORT int cublasGemmStridedBatchedEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                                      const void *a, int a_type, int lda, long long stride_a, const void *b, int b_type, int ldb,
                                      long long stride_b, const void *beta, void *c, int c_type, int ldc, long long stride_c,
                                      int batch, int compute, int) {
    void *stream = alive(handle)->stream;
    const Product product{{a, m, k, lda, stride_a, transpose_a != 0}, {b, k, n, ldb, stride_b, transpose_b != 0},
                          {c, m, n, ldc, stride_c, false}, k, batch, a_type};
    if (!product.a.is_valid() || !product.b.is_valid() || !product.c.is_valid() || batch < 0) return INVALID_VALUE;
    if (a_type != b_type || a_type != c_type || (a_type != F32 && a_type != F16 && a_type != BF16))
        emulated_fault("cublasGemmStridedBatchedEx of types that are not emulated");
    if (compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_16BF && compute != COMPUTE_32F_FAST_TF32)
        emulated_fault("cublasGemmStridedBatchedEx that computes in a type that is not emulated");
    if (!m || !n || !batch) return SUCCESS;
    product.check(stream);
    const float factor = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
    product.enqueue(stream, [=] { product.run(factor, keep); });
    return SUCCESS;
}

EXPORT int cublasDgemmStridedBatched(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const double *alpha,
                                     const double *a, int lda, long long stride_a, const double *b, int ldb, long long stride_b,
                                     const double *beta, double *c, int ldc, long long stride_c, int batch) {
    void *stream = alive(handle)->stream;
    const Product product{{a, m, k, lda, stride_a, transpose_a != 0}, {b, k, n, ldb, stride_b, transpose_b != 0},
                          {c, m, n, ldc, stride_c, false}, k, batch, F64};
    if (!product.a.is_valid() || !product.b.is_valid() || !product.c.is_valid() || batch < 0) return INVALID_VALUE;
    if (!m || !n || !batch) return SUCCESS;
    product.check(stream);
    const double factor = *alpha, keep = *beta;
    product.enqueue(stream, [=] { product.run64(factor, keep); });
    return SUCCESS;
}
