// What stands between the convolutions of the backbone's pass in bfloat16, which are cuDNN's. Activations are (images, side, side, channels) in
// bfloat16, those of the stem in f16; a thread takes eight channels at once. Twins: backbone::channels_last.

struct __align__(16) Eight {
    unsigned short values[8];
};

// This thread's number among all.
__device__ long thread_number() {
    return (long)blockIdx.x * blockDim.x + threadIdx.x;
}

// From images (I, side, side, colours) in floats to cells (I, side / 2 + 3, side / 2 + 3, 8 or 16): a cell has the four pixels of a
// square of two by two, so that a 7 by 7 convolution of stride 2 becomes a 4 by 4 one of stride 1 that tensor cores like. A grey
// pixel has two channels, its value and 1, and others have four, their values and 0. Two cells of zeros stand before each row and
// column, one behind.
extern "C" __global__ void stem_cells(const float *images, half_bits *cells, int count, int side, int colours, float rate0,
                                      float rate1, float rate2, float offset0, float offset1, float offset2) {
    int along = side / 2 + 3, channels = colours == 1 ? 2 : 4;
    long cell = thread_number();
    if (cell >= (long)count * along * along) return;
    int image = cell / (along * along), top = cell / along % along * 2 - 4, left = cell % along * 2 - 4;
    float rates[3] = {rate0, rate1, rate2}, offsets[3] = {offset0, offset1, offset2};
    cells += cell * 4 * channels;
    for (int pixel = 0; pixel < 4; pixel++) {
        int y = top + pixel / 2, x = left + pixel % 2;
        bool inside = y >= 0 && y < side && x >= 0 && x < side;
        const float *values = images + (((long)image * side + y) * side + x) * colours;
        for (int channel = 0; channel < channels; channel++) {
            float value = channel < colours && inside ? values[channel] * rates[channel] + offsets[channel] : 0.0f;
            if (colours == 1 && channel == 1 && inside) value = 1.0f;
            cells[pixel * channels + channel] = float_to_half(value);
        }
    }
}
KERNEL(stem_cells)

// out = sums + bias + shortcut, where there is one; `count` and `channels` in eights.
extern "C" __global__ void finish(const Eight *sums, const float *bias, const Eight *shortcut, Eight *out, long count,
                                  int channels, int relu) {
    long at = thread_number();
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

// The largest sums in windows of three by three at every second place, + bias, negative values made zero: as the bias is the same
// for all of a window, it can come last. `channels` in eights.
extern "C" __global__ void finish_pool(const Eight *sums, const float *bias, Eight *out, int count, int side, int channels) {
    int half = side / 2;
    long at = thread_number();
    if (at >= (long)count * half * half * channels) return;
    int channel = at % channels, x = at / channels % half, y = at / channels / half % half;
    sums += at / channels / half / half * side * side * channels + channel;
    float largest[8];
    for (int i = 0; i < 8; i++) largest[i] = -3.402823466e38f;
    for (int window = 0; window < 9; window++) {
        int from_y = 2 * y + window / 3 - 1, from_x = 2 * x + window % 3 - 1;
        if (from_y < 0 || from_y >= side || from_x < 0 || from_x >= side) continue;
        Eight sum = sums[((long)from_y * side + from_x) * channels];
        for (int i = 0; i < 8; i++) {
            float value = half_to_float(sum.values[i]);
            // What is no number stays.
            if (value > largest[i] || value != value) largest[i] = value;
        }
    }
    Eight pooled;
    for (int i = 0; i < 8; i++) {
        float value = largest[i] + bias[channel * 8 + i];
        pooled.values[i] = float_to_bf16(value < 0.0f ? 0.0f : value);
    }
    out[at] = pooled;
}
KERNEL(finish_pool)
