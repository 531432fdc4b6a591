// GELU by the error function (Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415): x Φ(x). Twin: kernels::gelu,
// kernels::gelu_backward.

__device__ float normal_cumulative(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f));
}

extern "C" __global__ void gelu(const float *x, float *y, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        y[i] = x[i] * normal_cumulative(x[i]);
}
KERNEL(gelu)

// Turns the gradient of GELU into that of `x`, and gives GELU(`x`) once more: it is cheaper to compute than to keep.
extern "C" __global__ void gelu_backward(const float *x, float *grad, float *y, int count) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        float cumulative = normal_cumulative(x[i]);
        float density = 0.39894228f * expf(-0.5f * x[i] * x[i]);
        grad[i] *= cumulative + x[i] * density;
        y[i] = x[i] * cumulative;
    }
}
KERNEL(gelu_backward)
