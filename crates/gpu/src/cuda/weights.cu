// A linear layer with the layer norm before it and the layer scale after it multiplied into its weight, and from the gradient of
// the product to those of what it consists of: W' = c · diag(s) W diag(g), b' = s ⊙ (b + c · W t). Twin: vit::native::Linear.

// Where a layer's parts lie among a run's parameters, -1 where there is none, and W' (O, I) with b' (O) behind it among its
// effective weights; their gradients lie in the same place among its sums.
struct Linear {
    int weight, bias, norm_gain, norm_offset, scale, inputs, outputs;
    // In how many parts the gradient has been summed.
    int parts;
    long effective;
    // c
    float gain;
};

__device__ float scale_of(const Linear &linear, const float *parameters, int row) {
    return linear.scale < 0 ? 1.0f : parameters[linear.scale + row];
}

// blockIdx counts a layer's outputs, layers and runs; all layers of run r lie at `linears` + r `most`.
extern "C" __global__ void effective_weights(const Linear *linears, const int *counts, int most, const float *parameters,
                                             long parameter_step, float *effective, long effective_step) {
    int run = blockIdx.z, row = blockIdx.x;
    if ((int)blockIdx.y >= counts[run]) return;
    Linear linear = linears[run * most + blockIdx.y];
    if (row >= linear.outputs) return;
    parameters += run * parameter_step;
    effective += run * effective_step + linear.effective;
    const float *weight = parameters + linear.weight + (long)row * linear.inputs;
    float scale = scale_of(linear, parameters, row), factor = linear.gain * scale, offset = 0.0f;
    for (int i = threadIdx.x; i < linear.inputs; i += blockDim.x) {
        float gain = linear.norm_gain < 0 ? 1.0f : parameters[linear.norm_gain + i];
        effective[(long)row * linear.inputs + i] = factor * weight[i] * gain;
        if (linear.norm_offset >= 0) offset += weight[i] * parameters[linear.norm_offset + i];
    }
    offset = block_sum(offset);
    if (threadIdx.x == 0)
        effective[(long)linear.outputs * linear.inputs + row] = scale * (parameters[linear.bias + row] + linear.gain * offset);
}
KERNEL(effective_weights)

// The sum of a gradient's parts, at most MOST_PARTS, which are asked for at once. Zero is added for those that are missing.
__device__ float sum_of_parts(const float *sums, long at, int parts, long part_step) {
    float sum = 0.0f;
#pragma unroll
    for (int part = 0; part < MOST_PARTS; part++) sum += part < parts ? sums[at + part * part_step] : 0.0f;
    return sum;
}

// Gradients of weights, biases and layer scales. The sums of run r lie at `sums` + r `sum_step`, its parts `part_step` apart.
extern "C" __global__ void weights_from_sums(const Linear *linears, const int *counts, int most, const float *parameters,
                                             float *gradients, long parameter_step, const float *sums, long sum_step,
                                             long part_step) {
    int run = blockIdx.z, row = blockIdx.x;
    if ((int)blockIdx.y >= counts[run]) return;
    Linear linear = linears[run * most + blockIdx.y];
    if (row >= linear.outputs) return;
    parameters += run * parameter_step;
    gradients += run * parameter_step;
    sums += run * sum_step + linear.effective;
    long begin = (long)row * linear.inputs;
    const float *weight = parameters + linear.weight + begin;
    float scale = scale_of(linear, parameters, row), factor = linear.gain * scale;
    float bias_sum = sum_of_parts(sums, (long)linear.outputs * linear.inputs + row, linear.parts, part_step);
    float inner = linear.gain * scale * bias_sum, along = 0.0f, offset = 0.0f;
    for (int i = threadIdx.x; i < linear.inputs; i += blockDim.x) {
        float sum = sum_of_parts(sums, begin + i, linear.parts, part_step);
        float gain = linear.norm_gain < 0 ? 1.0f : parameters[linear.norm_gain + i];
        float shift = linear.norm_offset < 0 ? 0.0f : parameters[linear.norm_offset + i];
        gradients[linear.weight + begin + i] = factor * gain * sum + inner * shift;
        along += gain * sum * weight[i];
        offset += weight[i] * shift;
    }
    along = block_sum(along);
    offset = block_sum(offset);
    if (threadIdx.x == 0) {
        gradients[linear.bias + row] = scale * bias_sum;
        if (linear.scale >= 0)
            gradients[linear.scale + row] =
                linear.gain * along + bias_sum * (parameters[linear.bias + row] + linear.gain * offset);
    }
}
KERNEL(weights_from_sums)

// Inputs and rows that a block of norms_from_sums takes at once.
#define NORM_INPUTS 32
#define NORM_ROWS 8

// Gradients of the norms' gains and offsets: a thread for each of 32 inputs and each eighth row, whose sums are added in their
// order; blockIdx.x counts inputs by blocks. There are few blocks, which may take a processor's registers each: so a thread asks for
// all parts of four rows at once.
extern "C" __global__ void __launch_bounds__(NORM_INPUTS *NORM_ROWS, 1)
    norms_from_sums(const Linear *linears, const int *counts, int most, const float *parameters, float *gradients,
                    long parameter_step, const float *sums, long sum_step, long part_step) {
    __shared__ float gains[NORM_ROWS][NORM_INPUTS], offsets[NORM_ROWS][NORM_INPUTS];
    int run = blockIdx.z, lane = threadIdx.x % NORM_INPUTS, turn = threadIdx.x / NORM_INPUTS;
    int i = blockIdx.x * NORM_INPUTS + lane;
    if ((int)blockIdx.y >= counts[run]) return;
    Linear linear = linears[run * most + blockIdx.y];
    if (linear.norm_gain < 0) return;
    parameters += run * parameter_step;
    sums += run * sum_step + linear.effective;
    float gain = 0.0f, offset = 0.0f;
    int rows = i < linear.inputs ? linear.outputs : 0;
#pragma unroll 4
    for (int row = turn; row < rows; row += NORM_ROWS) {
        long at = (long)row * linear.inputs + i;
        float factor = linear.gain * scale_of(linear, parameters, row), weight = parameters[linear.weight + at];
        gain += factor * weight * sum_of_parts(sums, at, linear.parts, part_step);
        offset += factor * weight *
                  sum_of_parts(sums, (long)linear.outputs * linear.inputs + row, linear.parts, part_step);
    }
    gains[turn][lane] = gain;
    offsets[turn][lane] = offset;
    __syncthreads();
    if (turn > 0 || i >= linear.inputs) return;
    for (int other = 1; other < NORM_ROWS; other++) {
        gain += gains[other][lane];
        offset += offsets[other][lane];
    }
    gradients[run * parameter_step + linear.norm_gain + i] = gain;
    gradients[run * parameter_step + linear.norm_offset + i] = offset;
}
KERNEL(norms_from_sums)
