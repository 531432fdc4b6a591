// Layer norm without gain and offset (Ba et al. 2016, https://arxiv.org/abs/1607.06450), a warp for each row, and its
// gradient. Twin: kernels::normalise, kernels::normalise_backward.

// Mean and 1 / standard deviation of a row.
__device__ void row_moments(const float *x, float epsilon, float *mean, float *inverse_std) {
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x % WARP; i < WIDTH; i += WARP) sum += x[i];
    *mean = warp_sum(sum) / WIDTH;
    for (int i = threadIdx.x % WARP; i < WIDTH; i += WARP) squares += (x[i] - *mean) * (x[i] - *mean);
    *inverse_std = 1.0f / sqrtf(warp_sum(squares) / WIDTH + epsilon);
}

extern "C" __global__ void normalise(const float *x, float epsilon, factor_number *y, float *inverse_std, int rows) {
    int row = row_of_warp();
    if (row >= rows) return;
    x += (long)row * WIDTH;
    y += (long)row * WIDTH;
    float mean, rate;
    row_moments(x, epsilon, &mean, &rate);
    for (int i = threadIdx.x % WARP; i < WIDTH; i += WARP) y[i] = to_factor((x[i] - mean) * rate);
    if (threadIdx.x % WARP == 0) inverse_std[row] = rate;
}
KERNEL(normalise)

// What the gradient `grad` of a normalised row `y` makes of that of the row itself, at `i`.
__device__ float norm_gradient(float y, float grad, float rate, float mean_grad, float mean_product) {
    return rate * (grad - mean_grad - y * mean_product);
}

// Adds to `x_grad` what the gradient `grad` of `y` makes of it.
extern "C" __global__ void normalise_backward(const factor_number *y, const float *inverse_std, const float *grad, float *x_grad,
                                              int rows) {
    int row = row_of_warp();
    if (row >= rows) return;
    long begin = (long)row * WIDTH;
    float sum = 0.0f, product = 0.0f;
    for (int i = threadIdx.x % WARP; i < WIDTH; i += WARP) {
        sum += grad[begin + i];
        product += grad[begin + i] * of_factor(y[begin + i]);
    }
    sum = warp_sum(sum) / WIDTH;
    product = warp_sum(product) / WIDTH;
    for (int i = threadIdx.x % WARP; i < WIDTH; i += WARP)
        x_grad[begin + i] += norm_gradient(of_factor(y[begin + i]), grad[begin + i], inverse_std[row], sum, product);
}
KERNEL(normalise_backward)
