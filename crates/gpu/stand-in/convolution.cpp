#include "convolution.h"

#include "card.h"

#include <algorithm>
#include <cstring>

namespace convolution {

namespace {

float bits_to_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// What tensor cores take of a float, of which they overlook the last bits. Numbers of f16 and bfloat16 stay as they are.
float tf32(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits_to_float(bits & ~0x1fffu);
}

// All values of a tensor as floats, in the order of its dims.
std::vector<float> floats(const Dims &of, const void *values) {
    std::vector<float> all(of.dims[0] * of.dims[1] * of.dims[2] * of.dims[3]);
    long next = 0;
    for (long n = 0; n < of.dims[0]; n++)
        for (long c = 0; c < of.dims[1]; c++)
            for (long y = 0; y < of.dims[2]; y++)
                for (long x = 0; x < of.dims[3]; x++)
                    all[next++] = read(values, of.type, of.place(n, c, y, x));
    return all;
}

} // namespace

float read(const void *values, cudnnDataType_t type, long at) {
    if (type == CUDNN_DATA_FLOAT) return static_cast<const float *>(values)[at];
    if (type != CUDNN_DATA_BFLOAT16) card::stop("a convolution is in another precision");
    return bits_to_float(static_cast<unsigned>(static_cast<const unsigned short *>(values)[at]) << 16);
}

void write(void *values, cudnnDataType_t type, long at, float value) {
    if (type == CUDNN_DATA_FLOAT) {
        static_cast<float *>(values)[at] = value;
    } else {
        unsigned bits;
        std::memcpy(&bits, &value, sizeof bits);
        static_cast<unsigned short *>(values)[at] = static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

void convolve(const Dims &in, const void *x, const Dims &filters, const void *w, const Conv &conv, const Dims &out, const Take &take) {
    std::vector<float> values = floats(in, x), weights = floats(filters, w);
    if (conv.tensor_cores)
        for (auto *factors : {&values, &weights})
            for (float &factor : *factors) factor = tf32(factor);
    auto [images, channels, rows, columns] = in.dims;
    auto [outs, ins, kernel, kernel_columns] = filters.dims;
    std::vector<float> sums(out.dims[2] * out.dims[3]);
    for (long n = 0; n < images; n++)
        for (long o = 0; o < outs; o++) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (long c = 0; c < channels; c++)
                for (long ky = 0; ky < kernel; ky++)
                    for (long kx = 0; kx < kernel_columns; kx++) {
                        float weight = weights[((o * ins + c) * kernel + ky) * kernel_columns + kx];
                        // Those whose input is not padding.
                        long shift = kx - conv.padding, first = shift < 0 ? (conv.stride - 1 - shift) / conv.stride : 0;
                        long last = std::min(out.dims[3] - 1, (columns - 1 - shift) / conv.stride);
                        for (long oy = 0; oy < out.dims[2]; oy++) {
                            long iy = oy * conv.stride + ky - conv.padding;
                            if (iy < 0 || iy >= rows) continue;
                            const float *row = &values[((n * channels + c) * rows + iy) * columns] + shift;
                            float *sum = &sums[oy * out.dims[3]];
                            if (conv.stride == 1)
                                for (long ox = first; ox <= last; ox++) sum[ox] += row[ox] * weight;
                            else
                                for (long ox = first; ox <= last; ox++) sum[ox] += row[ox * conv.stride] * weight;
                        }
                    }
            for (long oy = 0; oy < out.dims[2]; oy++)
                for (long ox = 0; ox < out.dims[3]; ox++) take(sums[oy * out.dims[3] + ox], n, o, oy, ox);
        }
}

} // namespace convolution
