#include "convolution.h"

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace emulated {
namespace {

// To the ten bits of TF32: to the nearest, and of two the one that is further from 0.
float to_tf32(float x) {
    const uint32_t bits = bits_of(x), exponent = 0x7f800000;
    return (bits & exponent) == exponent ? x : from_bits((bits + 0x1000) & ~0x1fffu);
}

void narrow(const Convolution &convolution, std::vector<float> &values) {
    if (convolution.tf32)
        for (float &value : values) value = to_tf32(value);
}

// Calls f(tap row, tap column, image row, image column) for each tap over an output's pixel; the latter may lie outside.
template <class F> void for_taps(const Convolution &c, long row, long column, F &&f) {
    for (long r = 0; r < c.w.r; ++r)
        for (long s = 0; s < c.w.s; ++s)
            f(r, s, row * c.stride_h + r * c.dilation_h - c.pad_h, column * c.stride_w + s * c.dilation_w - c.pad_w);
}

bool is_inside(const Images &images, long row, long column) {
    return row >= 0 && row < images.h && column >= 0 && column < images.w;
}

// [pixels of y, taps]: what each output of an image sees in a group's channels.
std::vector<float> patches(const Convolution &c, const void *x, long image, long group) {
    std::vector<float> values(c.pixels() * c.w.taps());
    float *next = values.data();
    for (long i = 0; i < c.y.h; ++i)
        for (long j = 0; j < c.y.w; ++j)
            for_taps(c, i, j, [&](long, long, long row, long column) {
                const bool inside = is_inside(c.x, row, column);
                for (long channel = 0; channel < c.w.c; ++channel)
                    *next++ = inside ? load(x, c.x.at(image, group * c.w.c + channel, row, column), c.x.type) : 0.0f;
            });
    narrow(c, values);
    return values;
}

// [taps, filters of a group], with the taps in the order of patches.
std::vector<float> taps_by_filters(const Convolution &c, const void *w, long group) {
    const long filters = c.filters_of_group();
    std::vector<float> values(c.w.taps() * filters);
    float *next = values.data();
    for (long r = 0; r < c.w.r; ++r)
        for (long s = 0; s < c.w.s; ++s)
            for (long channel = 0; channel < c.w.c; ++channel)
                for (long k = 0; k < filters; ++k) *next++ = load(w, c.w.at(group * filters + k, channel, r, s), c.w.type);
    narrow(c, values);
    return values;
}

std::vector<float> transposed(const std::vector<float> &matrix, size_t rows, size_t columns) {
    std::vector<float> values(matrix.size());
    for (size_t i = 0; i < rows; ++i)
        for (size_t j = 0; j < columns; ++j) values[j * rows + i] = matrix[i * columns + j];
    return values;
}

// [pixels of y, filters of a group]: the gradient of an image's outputs.
std::vector<float> output_gradients(const Convolution &c, const void *dy, long image, long group) {
    const long filters = c.filters_of_group();
    std::vector<float> values(c.pixels() * filters);
    float *next = values.data();
    for (long i = 0; i < c.y.h; ++i)
        for (long j = 0; j < c.y.w; ++j)
            for (long k = 0; k < filters; ++k) *next++ = load(dy, c.y.at(image, group * filters + k, i, j), c.y.type);
    narrow(c, values);
    return values;
}

}  // namespace

void Convolution::forward(const void *x_data, const void *w_data, void *y_data, float alpha, float beta) const {
    const long filters = filters_of_group();
    std::vector<float> out(pixels() * filters);
    for (long group = 0; group < groups; ++group) {
        const std::vector<float> weights = taps_by_filters(*this, w_data, group);
        for (long image = 0; image < x.n; ++image) {
            gemm(pixels(), filters, w.taps(), patches(*this, x_data, image, group).data(), weights.data(), out.data());
            const float *next = out.data();
            for (long i = 0; i < y.h; ++i)
                for (long j = 0; j < y.w; ++j)
                    for (long k = 0; k < filters; ++k)
                        blend(y_data, y.at(image, group * filters + k, i, j), y.type, alpha, *next++, beta);
        }
    }
}

void Convolution::backward_data(const void *w_data, const void *dy, void *dx, float alpha, float beta) const {
    const long filters = filters_of_group();
    std::vector<float> by_patch(pixels() * w.taps()), sums(size_t(x.h) * x.w * w.c);
    for (long group = 0; group < groups; ++group) {
        const std::vector<float> weights = transposed(taps_by_filters(*this, w_data, group), w.taps(), filters);
        for (long image = 0; image < x.n; ++image) {
            const std::vector<float> gradients = output_gradients(*this, dy, image, group);
            gemm(pixels(), w.taps(), filters, gradients.data(), weights.data(), by_patch.data());
            std::fill(sums.begin(), sums.end(), 0.0f);
            const float *next = by_patch.data();
            for (long i = 0; i < y.h; ++i)
                for (long j = 0; j < y.w; ++j)
                    for_taps(*this, i, j, [&](long, long, long row, long column) {
                        if (is_inside(x, row, column)) {
                            float *sum = &sums[(row * x.w + column) * w.c];
                            for (long channel = 0; channel < w.c; ++channel) sum[channel] += next[channel];
                        }
                        next += w.c;
                    });
            for (long row = 0; row < x.h; ++row)
                for (long column = 0; column < x.w; ++column)
                    for (long channel = 0; channel < w.c; ++channel)
                        blend(dx, x.at(image, group * w.c + channel, row, column), x.type, alpha,
                              sums[(row * x.w + column) * w.c + channel], beta);
        }
    }
}

void Convolution::backward_filter(const void *x_data, const void *dy, void *dw, float alpha, float beta) const {
    const long filters = filters_of_group();
    std::vector<float> sums(filters * w.taps());
    for (long group = 0; group < groups; ++group) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (long image = 0; image < x.n; ++image) {
            const std::vector<float> gradients = transposed(output_gradients(*this, dy, image, group), pixels(), filters);
            gemm_add(filters, w.taps(), pixels(), gradients.data(), patches(*this, x_data, image, group).data(), sums.data());
        }
        const float *next = sums.data();
        for (long k = 0; k < filters; ++k)
            for (long r = 0; r < w.r; ++r)
                for (long s = 0; s < w.s; ++s)
                    for (long channel = 0; channel < w.c; ++channel)
                        blend(dw, w.at(group * filters + k, channel, r, s), w.type, alpha, *next++, beta);
    }
}

void Convolution::forward64(const double *x_data, const double *w_data, double *y_data, double alpha, double beta) const {
    for (long image = 0; image < y.n; ++image)
        for (long k = 0; k < w.k; ++k)
            for (long i = 0; i < y.h; ++i)
                for (long j = 0; j < y.w; ++j) {
                    const long first_channel = k / filters_of_group() * w.c;
                    double sum = 0;
                    for_taps(*this, i, j, [&](long r, long s, long row, long column) {
                        if (!is_inside(x, row, column)) return;
                        for (long channel = 0; channel < w.c; ++channel)
                            sum += x_data[x.at(image, first_channel + channel, row, column)] * w_data[w.at(k, channel, r, s)];
                    });
                    double &to = y_data[y.at(image, k, i, j)];
                    to = alpha * sum + (beta == 0.0 ? 0.0 : beta * to);
                }
}

}  // namespace emulated
