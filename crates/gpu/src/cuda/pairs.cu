// The backbone's pass in 32-bit floats on tensor cores, which multiply numbers of TF32, of eleven bits. A float of 24 is the sum of two
// such, but for a 2^23rd of it, and a product of floats that of three: high high + low high + high low; the fourth is as small as what
// rounding leaves. So activations are (images, side, side, 3 channels): all high parts, all low ones, and the high ones again, and filters
// high, high, low. Twin: backbone::channels_last::pairs.

// The number of TF32 that is nearest; of two the even one. What is no number stays.
__device__ float tf32(float value) {
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value;
    return __uint_as_float((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}

// Writes the parts of four channels of a pixel; `channels` in fours.
__device__ void write_pairs(const Four &values, Four *pixel, int channels) {
    Four high, low;
    for (int i = 0; i < 4; i++) {
        high.values[i] = tf32(values.values[i]);
        low.values[i] = tf32(values.values[i] - high.values[i]);
    }
    pixel[0] = high;
    pixel[channels] = low;
    pixel[2 * channels] = high;
}

// What a pixel's parts are those of.
__device__ Four read_pairs(const Four *pixel, int channels) {
    Four sum = pixel[0], low = pixel[channels];
    for (int i = 0; i < 4; i++) sum.values[i] += low.values[i];
    return sum;
}

// Images of so many colours as pairs, and as many zeros behind them, so that a pixel is fours. A thread for each pixel.
template <int COLOURS>
__device__ void split(const float *images, Four *out, long pixels, const float *rates, const float *offsets) {
    long at = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= pixels) return;
    float parts[4 * COLOURS] = {};
#pragma unroll
    for (int colour = 0; colour < COLOURS; colour++) {
        float value = fmaf(images[at * COLOURS + colour], rates[colour], offsets[colour]), high = tf32(value);
        parts[colour] = parts[2 * COLOURS + colour] = high;
        parts[COLOURS + colour] = tf32(value - high);
    }
#pragma unroll
    for (int i = 0; i < COLOURS; i++) out[at * COLOURS + i] = {parts[4 * i], parts[4 * i + 1], parts[4 * i + 2], parts[4 * i + 3]};
}

extern "C" __global__ void split_grey(const float *images, Four *out, long pixels, float rate, float offset) {
    split<1>(images, out, pixels, &rate, &offset);
}
KERNEL(split_grey)

extern "C" __global__ void split_colour(const float *images, Four *out, long pixels, float rate0, float rate1, float rate2,
                                        float offset0, float offset1, float offset2) {
    const float rates[] = {rate0, rate1, rate2}, offsets[] = {offset0, offset1, offset2};
    split<3>(images, out, pixels, rates, offsets);
}
KERNEL(split_colour)

// The stem's sums (images, 112, 112, 64) + their biases, ReLU, and the largest of each window of three by three at every second place, as
// pairs. A thread for each four of the `count`.
extern "C" __global__ void pool(const Four *sums, const Four *biases, Four *out, long count) {
    const int channels = STEM_CHANNELS / 4;
    long at = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    long pixel = at / channels, image = pixel / (POOLED_SIDE * POOLED_SIDE);
    int channel = at % channels, top = pixel / POOLED_SIDE % POOLED_SIDE * 2 - 1, left = pixel % POOLED_SIDE * 2 - 1;
    Four largest = {};
    for (int y = top < 0 ? 0 : top; y < top + 3; y++)
        for (int x = left < 0 ? 0 : left; x < left + 3; x++) {
            Four sum = sums[((image * SUM_SIDE + y) * SUM_SIDE + x) * channels + channel];
            Four bias = biases[(edge(y) * EDGES + edge(x)) * channels + channel];
            for (int i = 0; i < 4; i++) largest.values[i] = larger(largest.values[i], sum.values[i] + bias.values[i]);
        }
    write_pairs(largest, out + pixel * 3 * channels + channel, channels);
}
KERNEL(pool)

// Pairs of sums + bias + shortcut, where there is one, which is pairs; `count` and `channels` in fours, of which a thread takes one.
extern "C" __global__ void finish_pairs(const Four *sums, const Four *bias, const Four *shortcut, Four *out, long count, int channels,
                                        int relu) {
    long at = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int channel = at % channels;
    long pixel = at / channels * 3 * channels + channel;
    Four sum = sums[at], more = bias[channel], other = {};
    if (shortcut) other = read_pairs(shortcut + pixel, channels);
    for (int i = 0; i < 4; i++) {
        float value = sum.values[i] + more.values[i] + other.values[i];
        sum.values[i] = relu && value < 0.0f ? 0.0f : value;
    }
    write_pairs(sum, out + pixel, channels);
}
KERNEL(finish_pairs)

// What pairs are those of.
extern "C" __global__ void join_pairs(const Four *pairs, Four *out, long count, int channels) {
    long at = (long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) out[at] = read_pairs(pairs + at / channels * 3 * channels + at % channels, channels);
}
KERNEL(join_pairs)
