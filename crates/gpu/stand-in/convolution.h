// Convolutions as they are defined, in the order of their definition.

#pragma once

#include <array>
#include <cudnn.h>
#include <functional>
#include <vector>

namespace convolution {

struct Dims {
    cudnnDataType_t type;
    std::array<long, 4> dims, strides; // images or filters, channels, rows, columns

    long place(long n, long c, long y, long x) const { return n * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]; }
};

struct Conv {
    long padding, stride;
    // Whether it is done on tensor cores, which take of a 32-bit float what a number of TF32 has.
    bool tensor_cores = false;
};

// What becomes of a sum for image n and channel c, in row y and column x.
using Take = std::function<void(float sum, long n, long c, long y, long x)>;

float read(const void *values, cudnnDataType_t type, long at);
void write(void *values, cudnnDataType_t type, long at, float value);
// Sums of `out`'s extent.
void convolve(const Dims &in, const void *x, const Dims &filters, const void *w, const Conv &conv, const Dims &out, const Take &take);

} // namespace convolution
