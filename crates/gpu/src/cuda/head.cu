// From the tokens behind the last block to the loss, and back: pooled normalised tokens, logits, weighted cross-entropy against
// soft targets. A block for each image. Twin: vit::native::Chunk.

#define HEAD_THREADS 128
#define POOLED (CLASS_TOKEN ? 1 : TOKENS)

// What a block needs of its image: normalised tokens summed by its warps, their mean, and the logits.
__shared__ float pool_parts[HEAD_THREADS / WARP][WIDTH], pooled_normal[WIDTH], image_logits[CLASSES];

// Leaves the last two, of the image whose tokens are `x`; the block can read them.
__device__ void pool_and_answer(const float *x, float epsilon, const float *weights) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int d = lane; d < WIDTH; d += WARP) pool_parts[warp][d] = 0.0f;
    for (int row = warp; row < POOLED; row += HEAD_THREADS / WARP) {
        float mean, rate;
        row_moments(x + row * WIDTH, epsilon, &mean, &rate);
        for (int d = lane; d < WIDTH; d += WARP) pool_parts[warp][d] += (x[row * WIDTH + d] - mean) * rate;
    }
    __syncthreads();
    for (int d = threadIdx.x; d < WIDTH; d += HEAD_THREADS) {
        float sum = 0.0f;
        for (int part = 0; part < HEAD_THREADS / WARP; part++) sum += pool_parts[part][d];
        pooled_normal[d] = sum / POOLED;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < CLASSES; c += HEAD_THREADS) {
        float sum = weights[CLASSES * WIDTH + c];
        for (int d = 0; d < WIDTH; d++) sum += weights[c * WIDTH + d] * pooled_normal[d];
        image_logits[c] = sum;
    }
    __syncthreads();
}

// The logits (B, K) alone.
extern "C" __global__ void __launch_bounds__(HEAD_THREADS)
    answers(const float *x, float epsilon, const float *weights, long run_step, float *logits) {
    long at = (long)blockIdx.z * gridDim.x + blockIdx.x;
    pool_and_answer(x + at * TOKENS * WIDTH, epsilon, weights + blockIdx.z * run_step);
    for (int c = threadIdx.x; c < CLASSES; c += HEAD_THREADS) logits[at * CLASSES + c] = image_logits[c];
}
KERNEL(answers)

extern "C" __global__ void __launch_bounds__(HEAD_THREADS)
    head(const float *x, float epsilon, const float *weights, long run_step, const float *targets, const float *image_weights,
         float smoothing, float *pooled, float *logits_grad, float *losses, int *correct, float *x_grad) {
    __shared__ float slopes[CLASSES], pooled_grad[WIDTH];
    int run = blockIdx.z, image = blockIdx.x, images = gridDim.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    long at = (long)run * images + image;
    x += at * TOKENS * WIDTH;
    x_grad += at * TOKENS * WIDTH;
    weights += run * run_step;
    pool_and_answer(x, epsilon, weights);
    for (int d = threadIdx.x; d < WIDTH; d += HEAD_THREADS) pooled[at * WIDTH + d] = pooled_normal[d];
    if (threadIdx.x == 0) {
        const float *target = targets + image * CLASSES;
        int answer = 0, truth = 0;
        for (int c = 1; c < CLASSES; c++) {
            if (image_logits[c] > image_logits[answer]) answer = c;
            if (target[c] > target[truth]) truth = c;
        }
        float total = 0.0f, loss = 0.0f, weight = image_weights ? image_weights[image] : 1.0f;
        for (int c = 0; c < CLASSES; c++) total += expf(image_logits[c] - image_logits[answer]);
        for (int c = 0; c < CLASSES; c++) {
            float shifted = image_logits[c] - image_logits[answer];
            float wanted = target[c] * (1.0f - smoothing) + smoothing / CLASSES;
            loss -= wanted * (shifted - logf(total));
            slopes[c] = weight * (expf(shifted) / total - wanted) / images;
            logits_grad[at * CLASSES + c] = slopes[c];
        }
        losses[at] = weight * loss;
        correct[at] = answer == truth;
    }
    __syncthreads();
    for (int d = threadIdx.x; d < WIDTH; d += HEAD_THREADS) {
        float sum = 0.0f;
        for (int c = 0; c < CLASSES; c++) sum += slopes[c] * weights[c * WIDTH + d];
        pooled_grad[d] = sum / POOLED;
    }
    __syncthreads();
    for (int row = warp; row < TOKENS; row += HEAD_THREADS / WARP) {
        float mean, rate, sum = 0.0f, product = 0.0f;
        row_moments(x + row * WIDTH, epsilon, &mean, &rate);
        for (int d = lane; d < WIDTH; d += WARP) {
            sum += pooled_grad[d];
            product += pooled_grad[d] * (x[row * WIDTH + d] - mean) * rate;
        }
        sum = warp_sum(sum) / WIDTH;
        product = warp_sum(product) / WIDTH;
        for (int d = lane; d < WIDTH; d += WARP) {
            float y = (x[row * WIDTH + d] - mean) * rate;
            x_grad[row * WIDTH + d] = row < POOLED ? norm_gradient(y, pooled_grad[d], rate, sum, product) : 0.0f;
        }
    }
}
KERNEL(head)
