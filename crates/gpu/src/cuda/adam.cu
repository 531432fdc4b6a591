// The update of Adam and AdamW in one pass over weights, gradients and moments. Twin: kernels::adam.

// As kernels::AdamStep.
struct AdamStep {
    float gradient_scale, gradient_decay, weight_scale, beta1, beta1_rest, beta2, beta2_rest, rate, root_scale, epsilon;
};

// Squares of a run's gradients, summed in double precision by each block.
extern "C" __global__ void square_sums(const float *gradients, const int *counts, long run_step, double *sums) {
    __shared__ double parts[256];
    int run = blockIdx.z;
    gradients += run * run_step;
    double sum = 0.0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < counts[run]; i += gridDim.x * blockDim.x)
        sum += (double)gradients[i] * gradients[i];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned left = blockDim.x / 2; left > 0; left /= 2) {
        if (threadIdx.x < left) parts[threadIdx.x] += parts[threadIdx.x + left];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[(long)run * gridDim.x + blockIdx.x] = parts[0];
}
KERNEL(square_sums)

// What is to be known of a step, in double precision: for each run the sum of its images' losses, how many of its answers are
// right, and the sum of its gradient's squares. A thread for each.
extern "C" __global__ void summary(const float *losses, const int *correct, int images, const double *squares, int parts,
                                   double *found) {
    int run = blockIdx.z, which = threadIdx.x;
    double sum = 0.0;
    if (which == 0)
        for (int image = 0; image < images; image++) sum += losses[(long)run * images + image];
    if (which == 1)
        for (int image = 0; image < images; image++) sum += correct[(long)run * images + image];
    if (which == 2)
        for (int part = 0; part < parts; part++) sum += squares[(long)run * parts + part];
    if (which < 3) found[run * 3 + which] = sum;
}
KERNEL(summary)

// Moves the weights of all runs. `decayed` marks the numbers that weight decay applies to.
extern "C" __global__ void adam(float *weights, const float *gradients, float *mean, float *square,
                                const unsigned char *decayed, const int *counts, long run_step, const AdamStep *steps) {
    int run = blockIdx.z;
    AdamStep step = steps[run];
    long begin = run * run_step;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < counts[run]; i += gridDim.x * blockDim.x) {
        long at = begin + i;
        bool decays = decayed[at];
        float gradient = gradients[at] * step.gradient_scale + (decays ? step.gradient_decay * weights[at] : 0.0f);
        mean[at] = step.beta1 * mean[at] + step.beta1_rest * gradient;
        square[at] = step.beta2 * square[at] + step.beta2_rest * gradient * gradient;
        float update = step.rate * mean[at] / (sqrtf(square[at]) * step.root_scale + step.epsilon);
        weights[at] = weights[at] * (decays ? step.weight_scale : 1.0f) - update;
    }
}
KERNEL(adam)
