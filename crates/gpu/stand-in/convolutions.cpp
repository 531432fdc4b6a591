// cuDNN's functions that the pass calls: convolutions as they are defined, in the order of their definition.

#include "card.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <cudnn.h>

using namespace card;

namespace {

struct Dims {
    cudnnDataType_t type;
    std::array<long, 4> dims, strides; // images or filters, channels, rows, columns
};

struct Conv {
    long padding, stride;
};

struct Handle {
    CUstream stream;
};

float bits_to_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float read(const void *values, cudnnDataType_t type, long at) {
    if (type == CUDNN_DATA_FLOAT) return static_cast<const float *>(values)[at];
    if (type == CUDNN_DATA_HALF) return static_cast<float>(static_cast<const _Float16 *>(values)[at]);
    return bits_to_float(static_cast<unsigned>(static_cast<const unsigned short *>(values)[at]) << 16);
}

void write(void *values, cudnnDataType_t type, long at, float value) {
    if (type == CUDNN_DATA_FLOAT) {
        static_cast<float *>(values)[at] = value;
    } else if (type == CUDNN_DATA_HALF) {
        static_cast<_Float16 *>(values)[at] = static_cast<_Float16>(value);
    } else {
        unsigned bits;
        std::memcpy(&bits, &value, sizeof bits);
        static_cast<unsigned short *>(values)[at] = static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

// All values of a tensor as floats, in the order of its dims.
std::vector<float> floats(const Dims &of, const void *values) {
    std::vector<float> all(of.dims[0] * of.dims[1] * of.dims[2] * of.dims[3]);
    long next = 0;
    for (long n = 0; n < of.dims[0]; n++)
        for (long c = 0; c < of.dims[1]; c++)
            for (long y = 0; y < of.dims[2]; y++)
                for (long x = 0; x < of.dims[3]; x++)
                    all[next++] = read(values, of.type, n * of.strides[0] + c * of.strides[1] + y * of.strides[2] + x * of.strides[3]);
    return all;
}

void convolve(const Dims &in, const void *x, const Dims &filters, const void *w, const Conv &conv, const Dims &out, void *y) {
    std::vector<float> values = floats(in, x), weights = floats(filters, w);
    auto [images, channels, rows, columns] = in.dims;
    auto [outs, ins, kernel, kernel_columns] = filters.dims;
    std::vector<float> sums(out.dims[2] * out.dims[3]);
    for (long n = 0; n < images; n++)
        for (long o = 0; o < outs; o++) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (long c = 0; c < channels; c++)
                for (long ky = 0; ky < kernel; ky++)
                    for (long kx = 0; kx < kernel_columns; kx++) {
                        float weight = weights[((o * ins + c) * kernel + ky) * kernel_columns + kx];
                        // Those whose input is not padding.
                        long shift = kx - conv.padding, first = shift < 0 ? (conv.stride - 1 - shift) / conv.stride : 0;
                        long last = std::min(out.dims[3] - 1, (columns - 1 - shift) / conv.stride);
                        for (long oy = 0; oy < out.dims[2]; oy++) {
                            long iy = oy * conv.stride + ky - conv.padding;
                            if (iy < 0 || iy >= rows) continue;
                            const float *row = &values[((n * channels + c) * rows + iy) * columns] + shift;
                            float *sum = &sums[oy * out.dims[3]];
                            if (conv.stride == 1)
                                for (long ox = first; ox <= last; ox++) sum[ox] += row[ox] * weight;
                            else
                                for (long ox = first; ox <= last; ox++) sum[ox] += row[ox * conv.stride] * weight;
                        }
                    }
            for (long oy = 0; oy < out.dims[2]; oy++)
                for (long ox = 0; ox < out.dims[3]; ox++)
                    write(y, out.type, n * out.strides[0] + o * out.strides[1] + oy * out.strides[2] + ox * out.strides[3],
                          sums[oy * out.dims[3] + ox]);
        }
}

Dims dims_of(cudnnTensorFormat_t format, cudnnDataType_t type, std::array<long, 4> dims) {
    auto [n, c, h, w] = dims;
    if (format == CUDNN_TENSOR_NHWC) return {type, dims, {h * w * c, 1, w * c, c}};
    return {type, dims, {c * h * w, h * w, w, 1}};
}

template <typename Of, typename Descriptor> Of &of(Descriptor descriptor) { return *reinterpret_cast<Of *>(descriptor); }

template <typename Of, typename Descriptor> cudnnStatus_t create(Descriptor *descriptor) {
    *descriptor = reinterpret_cast<Descriptor>(new Of{});
    return CUDNN_STATUS_SUCCESS;
}

template <typename Of, typename Descriptor> cudnnStatus_t destroy(Descriptor descriptor) {
    delete reinterpret_cast<Of *>(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

extern "C" {

size_t cudnnGetVersion() { return CUDNN_VERSION; }

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) { return create<Handle>(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy<Handle>(handle); }
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *made) { return create<Dims>(made); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t made) { return destroy<Dims>(made); }
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *made) { return create<Dims>(made); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t made) { return destroy<Dims>(made); }
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *made) { return create<Conv>(made); }
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t made) { return destroy<Conv>(made); }

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    of<Handle>(handle).stream = reinterpret_cast<CUstream>(stream);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format, cudnnDataType_t type, int n,
                                         int c, int h, int w) {
    of<Dims>(tensor) = dims_of(format, type, {n, c, h, w});
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filters, cudnnDataType_t type, cudnnTensorFormat_t format, int k,
                                         int c, int h, int w) {
    of<Dims>(filters) = dims_of(format, type, {k, c, h, w});
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t conv, int padding, int, int stride, int, int, int,
                                              cudnnConvolutionMode_t, cudnnDataType_t) {
    of<Conv>(conv) = {padding, stride};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                                     cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int, int *count,
                                                     cudnnConvolutionFwdAlgoPerf_t *found) {
    *count = 1;
    found[0] = {};
    found[0].algo = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                                      cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t,
                                                      cudnnConvolutionFwdAlgo_t, size_t *bytes) {
    *bytes = 1000;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *, cudnnTensorDescriptor_t in, const void *x,
                                      cudnnFilterDescriptor_t filters, const void *w, cudnnConvolutionDescriptor_t conv,
                                      cudnnConvolutionFwdAlgo_t, void *workspace, size_t workspace_bytes, const void *,
                                      cudnnTensorDescriptor_t out, void *y) {
    Lock lock(everything);
    ask(stream_of(of<Handle>(handle).stream), [=, in = of<Dims>(in), filters = of<Dims>(filters), conv = of<Conv>(conv),
                                               out = of<Dims>(out)] {
        running = "a convolution";
        std::memset(workspace, 0, workspace_bytes);
        convolve(in, x, filters, w, conv, out, y);
    });
    return CUDNN_STATUS_SUCCESS;
}

} // extern "C"
