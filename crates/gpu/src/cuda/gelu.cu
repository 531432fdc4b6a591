// GELU by the error function (Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415): x Φ(x). Twin: kernels::gelu,
// kernels::gelu_backward.

__device__ float normal_cumulative(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f));
}

__device__ float gelu(float x) {
    return x * normal_cumulative(x);
}

__device__ float gelu_slope(float x) {
    return normal_cumulative(x) + x * 0.39894228f * expf(-0.5f * x * x);
}
