// What all kernels share. Shapes: R runs that are trained at once, B images, N tokens of a sequence, M = B N rows, D width,
// H heads, K classes, P places of the token grid. D, H, N, K and the grid's side are known when the kernels are compiled: WIDTH,
// HEADS, TOKENS, CLASSES, GRID; so is whether a class token is read at the end (CLASS_TOKEN), and whether products round their
// factors to bfloat16 (BF16), and in how many parts gradients are summed at most (MOST_PARTS).
//
// No kernel adds with atomics: whatever the order in which blocks run, sums have one order and results the same bits.

#ifndef KERNEL
// For a card.
#define KERNEL(name)
typedef unsigned short half_bits;

__device__ inline float half_to_float(half_bits bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ inline half_bits float_to_half(float value) {
    half_bits bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// Two in f16, the first in the lower half.
__device__ inline unsigned two_halves(float first, float second) {
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

typedef unsigned short bf16_bits;

__device__ inline bf16_bits float_to_bf16(float value) {
    bf16_bits bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ inline float bf16_to_float(bf16_bits bits) {
    return __uint_as_float((unsigned)bits << 16);
}

// Adds to this thread's numbers of a warp's product, two in each of two rows.
__device__ inline void multiply_add(float *sums, float *sums_below, const unsigned *left, const unsigned *right) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums_below[0]), "+f"(sums_below[1])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

// The same of numbers in f16.
__device__ inline void multiply_add_halves(float *sums, float *sums_below, const unsigned *left, const unsigned *right) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums_below[0]), "+f"(sums_below[1])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

// The larger of two; what is no number stays.
__device__ inline float larger(float one, float other) {
    float value;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(value) : "f"(one), "f"(other));
    return value;
}
#endif

#define WARP 32
#define HEAD_WIDTH (WIDTH / HEADS)

#define PLACES (GRID * GRID)

// Numbers beside each other that are read or written at once.
struct __align__(16) Four {
    float values[4];
};

// The sum over a warp, in each of its threads.
__device__ float warp_sum(float value) {
    for (unsigned mask = WARP / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
}

// The sum over a block of at most 32 warps, in each of its threads.
__shared__ float sums_of_warps[32];

__device__ float block_sum(float value) {
    value = warp_sum(value);
    // Nobody reads the sums of the time before any more.
    __syncthreads();
    if (threadIdx.x % WARP == 0) sums_of_warps[threadIdx.x / WARP] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / WARP; warp++) sum += sums_of_warps[warp];
    return sum;
}

// The row that this warp works on, of those that the blocks of x share.
__device__ int row_of_warp() {
    return blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
}

// What products read, as it is stored: rounded to bfloat16 if that is what they multiply. What a norm's or attention's gradient reads
// of it is rounded then, too.
#if BF16
typedef bf16_bits factor_number;

__device__ factor_number to_factor(float value) {
    return float_to_bf16(value);
}

__device__ float of_factor(factor_number number) {
    return bf16_to_float(number);
}
#else
typedef float factor_number;

__device__ factor_number to_factor(float value) {
    return value;
}

__device__ float of_factor(factor_number number) {
    return number;
}
#endif
