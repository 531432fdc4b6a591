// cuDNN's functions for convolutions alone.

#include "card.h"
#include "convolution.h"
#include "handle.h"

#include <cstring>

using namespace card;
using namespace convolution;

namespace {

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
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    Lock lock(everything);
    if (of<Handle>(handle).plans > 0) stop("cuDNN: a handle goes before the plans that were made with it");
    return destroy<Handle>(handle);
}
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
        convolve(in, x, filters, w, conv, out, [&](float sum, long n, long c, long row, long column) {
            write(y, out.type, out.place(n, c, row, column), sum);
        });
    });
    return CUDNN_STATUS_SUCCESS;
}

} // extern "C"
