// cuDNN: descriptors, the choice of algorithms, and convolutions, with the checks that the real one makes.
//
// All algorithms compute the same way. They differ in what they say of themselves: whether they repeat to the bit, and how much
// scratch memory they want, which is poisoned before and after, so that nothing can be kept there.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "convolution.h"
#include "device.h"
#include "numbers.h"

using namespace emulated;

namespace {

enum Status { SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };
// Of cudnnDataType_t.
enum { DATA_FLOAT = 0, DATA_DOUBLE = 1, DATA_HALF = 2, DATA_BFLOAT16 = 9 };
// Of cudnnTensorFormat_t, cudnnConvolutionMode_t and cudnnMathType_t.
enum { FORMAT_NCHW = 0, FORMAT_NHWC = 1 };
enum { CROSS_CORRELATION = 1 };
enum { LAST_MATH = 3, FMA_MATH = 3 };
enum Pass { FORWARD, BACKWARD_DATA, BACKWARD_FILTER };

constexpr const char *NAMES[] = {"cudnnConvolutionForward", "cudnnConvolutionBackwardData", "cudnnConvolutionBackwardFilter"};
// More than the kernels take where there is another algorithm.
constexpr size_t TOO_MUCH = size_t(2) << 30;
constexpr int ALIVE = 0xD4A5;

struct Handle {
    void *stream = nullptr;
    int alive = ALIVE;
};

struct ConvolutionDescriptor {
    int pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, mode, compute, groups = 1, math = 0;
};

// cudnnConvolutionFwdAlgoPerf_t, and the two others, which are laid out alike.
struct Performance {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};

Handle *alive(void *handle) {
    auto *found = static_cast<Handle *>(handle);
    if (found->alive != ALIVE) emulated_fault("cuDNN: a handle that is destroyed");
    return found;
}

// Our name of a type; -1 of one that is not emulated.
int type_of(int data_type) {
    switch (data_type) {
        case DATA_FLOAT: return F32;
        case DATA_DOUBLE: return F64;
        case DATA_HALF: return F16;
        case DATA_BFLOAT16: return BF16;
        default: return -1;
    }
}

// Makes one convolution of the descriptors; an error where they do not fit together.
int join(const void *x, const void *w, const void *descriptor, const void *y, Convolution &joined) {
    const auto &d = *static_cast<const ConvolutionDescriptor *>(descriptor);
    joined = {*static_cast<const Images *>(x), *static_cast<const Images *>(y), *static_cast<const Filters *>(w), d.pad_h, d.pad_w,
              d.stride_h, d.stride_w, d.dilation_h, d.dilation_w, d.groups, false};
    const Images &in = joined.x, &out = joined.y;
    const Filters &filters = joined.w;
    if (in.type != filters.type || in.type != out.type || in.type < 0) return NOT_SUPPORTED;
    const bool in_half = d.compute == DATA_HALF && in.type == F16;
    if (in.type == F64 ? d.compute != DATA_DOUBLE : d.compute != DATA_FLOAT && !in_half) return NOT_SUPPORTED;
    if (d.mode != CROSS_CORRELATION) emulated_fault("cuDNN: convolutions with flipped filters are not emulated");
    joined.tf32 = in.type == F32 && d.math != FMA_MATH;
    if (in.c != filters.c * d.groups || filters.k % d.groups || out.c != filters.k || out.n != in.n) return BAD_PARAM;
    const long h = (in.h + 2 * d.pad_h - ((filters.r - 1) * d.dilation_h + 1)) / d.stride_h + 1;
    const long w_out = (in.w + 2 * d.pad_w - ((filters.s - 1) * d.dilation_w + 1)) / d.stride_w + 1;
    return h == out.h && w_out == out.w && h >= 1 && w_out >= 1 ? SUCCESS : BAD_PARAM;
}

// What an algorithm says of itself.
struct Algorithm {
    int number;
    bool works, repeats;
    size_t offered_memory;
    // What it really wants; less than it offers for the one that candle takes without a look at its memory.
    size_t memory;
};

// From the fastest to the slowest, as cuDNN offers them: among them one that wants too much memory, some whose results differ from
// run to run, and one that does not work. Amounts of memory are no round numbers, so that a mix-up shows.
std::vector<Algorithm> algorithms(Pass pass, const Convolution &c) {
    const size_t weights = c.w.elements(), inputs = size_t(c.x.n) * c.x.h * c.x.w;
    switch (pass) {
        case FORWARD:
            return {{7, true, true, TOO_MUCH, 1 << 20}, {1, true, true, 1000 + 16 * weights, 1000 + 16 * weights},
                    {0, true, true, 0, 0}, {6, false, true, 4096, 4096}};
        case BACKWARD_DATA:
            return {{0, true, false, 0, 0}, {5, true, true, TOO_MUCH, TOO_MUCH},
                    {1, true, true, 3000 + 8 * inputs, 3000 + 8 * inputs}, {4, false, true, 4096, 4096}};
        default:
            const size_t memory = 5000 + 12 * weights + 4 * c.pixels();
            return {{3, true, false, 777, 777}, {0, true, false, 0, 0}, {5, true, true, TOO_MUCH, TOO_MUCH},
                    {1, true, true, memory, memory}, {4, false, true, 4096, 4096}};
    }
}

int offer(Pass pass, const void *x, const void *w, const void *descriptor, const void *y, int asked, int *given, Performance *to) {
    Convolution joined;
    if (const int error = join(x, w, descriptor, y, joined)) return error;
    if (asked < 1) return BAD_PARAM;
    const int math = static_cast<const ConvolutionDescriptor *>(descriptor)->math;
    *given = 0;
    for (const Algorithm &algorithm : algorithms(pass, joined)) {
        if (*given == asked) break;
        const float time = algorithm.works ? 0.1f * *given : -1.0f;
        to[(*given)++] = {algorithm.number, algorithm.works ? SUCCESS : NOT_SUPPORTED, time, algorithm.offered_memory,
                          algorithm.repeats, math, {0, 0, 0}};
    }
    return SUCCESS;
}

// The tensors of a call, by what they are to a forward pass.
struct Tensors {
    const void *x, *w, *y;
};

// Runs one of the three passes. alpha and beta are f64 for f64, f32 for all else.
int convolve(Pass pass, void *handle, const void *alpha, const void *beta, const void *x, const void *w, const void *descriptor,
             const void *y, Tensors data, int number, void *workspace, size_t workspace_bytes) {
    void *stream = alive(handle)->stream;
    Convolution joined;
    if (const int error = join(x, w, descriptor, y, joined)) return error;
    if (!alpha || !beta || !data.x || !data.w || !data.y) return BAD_PARAM;
    const bool double_precision = joined.x.type == F64;
    if (double_precision && pass != FORWARD) return NOT_SUPPORTED;
    const Algorithm *algorithm = nullptr;
    const std::vector<Algorithm> all = algorithms(pass, joined);
    for (const Algorithm &candidate : all)
        if (candidate.number == number && candidate.works) algorithm = &candidate;
    if (!algorithm) return NOT_SUPPORTED;
    const size_t scratch = algorithm->memory, bytes = bytes_of(joined.x.type);
    const char *name = NAMES[pass];
    if (workspace_bytes < scratch || (scratch && !workspace)) emulated_fault("cuDNN: less scratch memory than the algorithm wants");
    emulated_check(stream, name, "x", data.x, joined.x.elements() * bytes);
    emulated_check(stream, name, "w", data.w, joined.w.elements() * bytes);
    emulated_check(stream, name, "y", data.y, joined.y.elements() * bytes);
    emulated_check(stream, name, "workSpace", workspace, scratch);
    const double factor = double_precision ? *static_cast<const double *>(alpha) : *static_cast<const float *>(alpha);
    const double keep = double_precision ? *static_cast<const double *>(beta) : *static_cast<const float *>(beta);
    const auto work = [=] {
        // Bytes of 0xFF are NaN in every type.
        if (scratch) std::memset(workspace, 0xFF, scratch);
        if (double_precision)
            joined.forward64(static_cast<const double *>(data.x), static_cast<const double *>(data.w),
                             static_cast<double *>(const_cast<void *>(data.y)), factor, keep);
        else if (pass == FORWARD)
            joined.forward(data.x, data.w, const_cast<void *>(data.y), float(factor), float(keep));
        else if (pass == BACKWARD_DATA)
            joined.backward_data(data.w, data.y, const_cast<void *>(data.x), float(factor), float(keep));
        else
            joined.backward_filter(data.x, data.y, const_cast<void *>(data.w), float(factor), float(keep));
    };
    const void *used[] = {data.x, data.w, data.y, workspace};
    emulated_enqueue(stream, (std::string(name) + " of " + name_of(joined.x.type)).c_str(), work, used, 4);
    return SUCCESS;
}

template <class Descriptor> int create(void **descriptor) {
    *descriptor = new Descriptor();
    return SUCCESS;
}

template <class Descriptor> int destroy(void *descriptor) {
    delete static_cast<Descriptor *>(descriptor);
    return SUCCESS;
}

}  // namespace

EXPORT int cudnnCreate(void **handle) { return create<Handle>(handle); }

EXPORT int cudnnDestroy(void *handle) {
    // Kept, so that a late use finds that it is destroyed.
    alive(handle)->alive = 0;
    return SUCCESS;
}

EXPORT int cudnnSetStream(void *handle, void *stream) {
    alive(handle)->stream = stream;
    return SUCCESS;
}

EXPORT size_t cudnnGetVersion() { return 91002; }

EXPORT int cudnnCreateTensorDescriptor(void **descriptor) { return create<Images>(descriptor); }
EXPORT int cudnnDestroyTensorDescriptor(void *descriptor) { return destroy<Images>(descriptor); }
EXPORT int cudnnCreateFilterDescriptor(void **descriptor) { return create<Filters>(descriptor); }
EXPORT int cudnnDestroyFilterDescriptor(void *descriptor) { return destroy<Filters>(descriptor); }
EXPORT int cudnnCreateConvolutionDescriptor(void **descriptor) { return create<ConvolutionDescriptor>(descriptor); }
EXPORT int cudnnDestroyConvolutionDescriptor(void *descriptor) { return destroy<ConvolutionDescriptor>(descriptor); }

EXPORT int cudnnSetTensor4dDescriptorEx(void *descriptor, int type, int n, int c, int h, int w, int stride_n, int stride_c,
                                        int stride_h, int stride_w) {
    if (n < 1 || c < 1 || h < 1 || w < 1) return BAD_PARAM;
    *static_cast<Images *>(descriptor) = {type_of(type), n, c, h, w, stride_n, stride_c, stride_h, stride_w};
    return SUCCESS;
}

EXPORT int cudnnSetTensor4dDescriptor(void *descriptor, int format, int type, int n, int c, int h, int w) {
    if (format == FORMAT_NCHW) return cudnnSetTensor4dDescriptorEx(descriptor, type, n, c, h, w, c * h * w, h * w, w, 1);
    if (format == FORMAT_NHWC) return cudnnSetTensor4dDescriptorEx(descriptor, type, n, c, h, w, c * h * w, 1, w * c, c);
    return BAD_PARAM;
}

EXPORT int cudnnSetFilter4dDescriptor(void *descriptor, int type, int format, int k, int c, int r, int s) {
    if (k < 1 || c < 1 || r < 1 || s < 1 || format > FORMAT_NHWC) return BAD_PARAM;
    *static_cast<Filters *>(descriptor) = {type_of(type), format == FORMAT_NHWC, k, c, r, s};
    return SUCCESS;
}

EXPORT int cudnnSetConvolution2dDescriptor(void *descriptor, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                           int dilation_w, int mode, int compute) {
    if (pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 || dilation_h < 1 || dilation_w < 1) return BAD_PARAM;
    auto &d = *static_cast<ConvolutionDescriptor *>(descriptor);
    d = {pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, mode, compute, d.groups, d.math};
    return SUCCESS;
}

EXPORT int cudnnSetConvolutionGroupCount(void *descriptor, int groups) {
    if (groups < 1) return BAD_PARAM;
    static_cast<ConvolutionDescriptor *>(descriptor)->groups = groups;
    return SUCCESS;
}

EXPORT int cudnnSetConvolutionMathType(void *descriptor, int math) {
    if (math < 0 || math > LAST_MATH) return BAD_PARAM;
    static_cast<ConvolutionDescriptor *>(descriptor)->math = math;
    return SUCCESS;
}

EXPORT int cudnnGetConvolutionForwardAlgorithm_v7(void *, void *x, void *w, void *descriptor, void *y, int asked, int *given,
                                                  Performance *to) {
    return offer(FORWARD, x, w, descriptor, y, asked, given, to);
}

EXPORT int cudnnGetConvolutionBackwardDataAlgorithm_v7(void *, void *w, void *dy, void *descriptor, void *dx, int asked, int *given,
                                                       Performance *to) {
    return offer(BACKWARD_DATA, dx, w, descriptor, dy, asked, given, to);
}

EXPORT int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *, void *x, void *dy, void *descriptor, void *dw, int asked, int *given,
                                                         Performance *to) {
    return offer(BACKWARD_FILTER, x, dw, descriptor, dy, asked, given, to);
}

EXPORT int cudnnGetConvolutionForwardWorkspaceSize(void *, void *x, void *w, void *descriptor, void *y, int number, size_t *bytes) {
    Convolution joined;
    if (const int error = join(x, w, descriptor, y, joined)) return error;
    for (const Algorithm &algorithm : algorithms(FORWARD, joined))
        if (algorithm.number == number) {
            *bytes = algorithm.memory;
            return SUCCESS;
        }
    return NOT_SUPPORTED;
}

EXPORT int cudnnConvolutionForward(void *handle, const void *alpha, void *x, const void *x_data, void *w, const void *w_data,
                                   void *descriptor, int algorithm, void *workspace, size_t bytes, const void *beta, void *y,
                                   void *y_data) {
    return convolve(FORWARD, handle, alpha, beta, x, w, descriptor, y, {x_data, w_data, y_data}, algorithm, workspace, bytes);
}

EXPORT int cudnnConvolutionBackwardData(void *handle, const void *alpha, void *w, const void *w_data, void *dy, const void *dy_data,
                                        void *descriptor, int algorithm, void *workspace, size_t bytes, const void *beta, void *dx,
                                        void *dx_data) {
    const Tensors data{dx_data, w_data, dy_data};
    return convolve(BACKWARD_DATA, handle, alpha, beta, dx, w, descriptor, dy, data, algorithm, workspace, bytes);
}

EXPORT int cudnnConvolutionBackwardFilter(void *handle, const void *alpha, void *x, const void *x_data, void *dy, const void *dy_data,
                                          void *descriptor, int algorithm, void *workspace, size_t bytes, const void *beta, void *dw,
                                          void *dw_data) {
    const Tensors data{x_data, dw_data, dy_data};
    return convolve(BACKWARD_FILTER, handle, alpha, beta, x, dw, descriptor, dy, data, algorithm, workspace, bytes);
}
