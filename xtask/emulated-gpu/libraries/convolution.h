// Convolutions of images in any layout, with their two gradients, as products of patches and filters.
#pragma once

#include <cstddef>

namespace emulated {

// [n, c, h, w] with a stride for each, in elements.
struct Images {
    int type = -1;
    long n, c, h, w;
    long stride_n, stride_c, stride_h, stride_w;

    size_t at(long image, long channel, long row, long column) const {
        return image * stride_n + channel * stride_c + row * stride_h + column * stride_w;
    }
    // From the first element to the last, and this one too.
    size_t elements() const { return at(n - 1, c - 1, h - 1, w - 1) + 1; }
};

// [k, c, r, s]: k filters over c channels, r rows and s columns. Packed, with channels last or rows and columns last.
struct Filters {
    int type = -1;
    bool channels_last;
    long k, c, r, s;

    size_t at(long filter, long channel, long row, long column) const {
        return channels_last ? ((filter * r + row) * s + column) * c + channel : ((filter * c + channel) * r + row) * s + column;
    }
    size_t elements() const { return size_t(k) * c * r * s; }
    // The elements of one filter.
    size_t taps() const { return size_t(c) * r * s; }
};

struct Convolution {
    Images x, y;
    Filters w;
    long pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups;
    // Whether f32 is rounded to TF32 before it is multiplied, as tensor cores do.
    bool tf32;

    long filters_of_group() const { return w.k / groups; }
    size_t pixels() const { return size_t(y.h) * y.w; }

    // y = alpha (x * w) + beta y, and the gradients of x and w from that of y. f32 and half precision.
    void forward(const void *x, const void *w, void *y, float alpha, float beta) const;
    void backward_data(const void *w, const void *dy, void *dx, float alpha, float beta) const;
    void backward_filter(const void *x, const void *dy, void *dw, float alpha, float beta) const;
    // The same of f64, which is asked for forward alone.
    void forward64(const double *x, const double *w, double *y, double alpha, double beta) const;
};

}  // namespace emulated
