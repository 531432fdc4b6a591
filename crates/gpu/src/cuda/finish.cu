// What stands between the convolutions of the backbone's pass in bfloat16, where cuDNN does not do it within them. Activations are
// (images, side, side, channels). Twin: backbone::channels_last.

struct __align__(16) Eight {
    unsigned short values[8];
};

// out = sums + bias + shortcut, where there is one; `count` and `channels` in eights, of which a thread takes one.
extern "C" __global__ void finish(const Eight *sums, const float *bias, const Eight *shortcut, Eight *out, long count,
                                  int channels, int relu) {
    long at = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    bias += at % channels * 8;
    Eight sum = sums[at], other = {};
    if (shortcut) other = shortcut[at];
    for (int i = 0; i < 8; i++) {
        float value = bf16_to_float(sum.values[i]) + bias[i] + bf16_to_float(other.values[i]);
        sum.values[i] = float_to_bf16(relu && value < 0.0f ? 0.0f : value);
    }
    out[at] = sum;
}
KERNEL(finish)
