// The stem: a convolution of 7 by 7 at every second place with what lies outside the image zero, + bias, ReLU, and the largest of each
// window of three by three at every second place. All of it at once: what the convolution gives is as much as all that follows it in the
// first stage, and is never in memory.
//
// As a product: 16 sums beside each other are the rows, 32 channels the columns, and a row of a filter with an eighth tap of zero is half
// of the sixteen numbers of the inner dimension. (So what is no number counts one column further to the right than it should.) Pixels lie
// in shared memory in f16, so that two taps of a row are one word there wherever the filter stands; filters stay in registers. A warp goes
// down the image with 16 columns of sums, which are those of seven pooled ones, and keeps what the row above leaves to the next window.
//
// Filters are (channels by 32, steps, 4 pairs of channels, 2, lanes, 2) in f16: in each step two rows of taps, colour by colour, of which
// lane 4 g + t has the taps 2 t and 2 t + 1, for channel 8 (g / 2) + 2 pair + g % 2 of its 32. So thread t of each four gets eight
// channels beside each other of the product's columns.
#define IMAGE_SIDE 224
#define SUM_SIDE (IMAGE_SIDE / 2)
#define POOLED_SIDE (IMAGE_SIDE / 4)
#define STEM_CHANNELS 64
#define TAPS 7
// Pooled columns of a warp, channels of a block, and of a thread. Who launches it counts blocks by these and by POOLED_ROWS: PassKernel.
#define WARP_COLUMNS 7
#define BLOCK_CHANNELS 32
#define THREAD_CHANNELS 8
// Pixels before an image's first column that the first column of sums of the first warp reads, which is column -1.
#define BEFORE 5
// Columns of pixels in shared memory, of which IMAGE_SIDE + 2 BEFORE are read: as many for each thread of a warp.
#define TILE_COLUMNS 256

// Which taps lie within the image, along one side: none of them counts at -1, and four kinds are within.
#define EDGES 5

__device__ int edge(int at) {
    return at < 0 ? 0 : at < 2 ? at + 1 : at < SUM_SIDE - 1 ? 3 : 4;
}

// The place within the image that is nearest along a side.
__device__ int nearest(int at) {
    return at < 0 ? 0 : at < IMAGE_SIDE ? at : IMAGE_SIDE - 1;
}

// Eight channels of two of the 16 sums: at an odd column, with which a window begins, and at the even one beside it.
struct Sums {
    float odd[THREAD_CHANNELS], even[THREAD_CHANNELS];
};

// `biases` of one row's edge and both columns'.
__device__ Sums begin_with(const float *odd_biases, const float *even_biases) {
    Sums sums;
#pragma unroll
    for (int i = 0; i < THREAD_CHANNELS; i += 4) {
        Four odd = *(const Four *)(odd_biases + i), even = *(const Four *)(even_biases + i);
        for (int j = 0; j < 4; j++) {
            sums.odd[i + j] = odd.values[j];
            sums.even[i + j] = even.values[j];
        }
    }
    return sums;
}

// What a block does of images of so many colours: rows of filters, two for each step; pooled rows; rows of pixels that these read.
template <int COLOURS>
struct Strip {
    static constexpr int ROWS = TAPS * COLOURS, STEPS = (ROWS + 1) / 2;
    static constexpr int POOLED_ROWS = COLOURS == 1 ? 14 : 4, TILE_ROWS = 4 * POOLED_ROWS + 7;
    static_assert(TILE_COLUMNS >= IMAGE_SIDE + 2 * BEFORE && TILE_COLUMNS % (2 * WARP) == 0, "there is room for all, in equal parts");
    static_assert(POOLED_SIDE % POOLED_ROWS == 0 && POOLED_SIDE % WARP_COLUMNS == 0, "all blocks and warps have as much to do");
    half_bits pixels[COLOURS][TILE_ROWS][TILE_COLUMNS];
};

__shared__ __align__(16) Strip<1> grey_strip;
__shared__ __align__(16) Strip<3> colour_strip;

template <int COLOURS>
__device__ void stem(Strip<COLOURS> &strip, const float *images, const unsigned *filters, const float *biases, Eight *out,
                     float rate0, float rate1, float rate2, float offset0, float offset1, float offset2) {
    constexpr int ROWS = Strip<COLOURS>::ROWS, STEPS = Strip<COLOURS>::STEPS;
    constexpr int POOLED_ROWS = Strip<COLOURS>::POOLED_ROWS, TILE_ROWS = Strip<COLOURS>::TILE_ROWS;
    constexpr int GROUPS = STEM_CHANNELS / BLOCK_CHANNELS, STRIPS = POOLED_SIDE / POOLED_ROWS;
    int group = blockIdx.x % GROUPS, first = blockIdx.x / GROUPS % STRIPS * POOLED_ROWS, first_pixel = 4 * first - BEFORE;
    long image = blockIdx.x / (GROUPS * STRIPS);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    unsigned right[STEPS][THREAD_CHANNELS / 2][2];
    filters += group * STEPS * THREAD_CHANNELS * WARP + lane;
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        for (int i = 0; i < THREAD_CHANNELS; i++) right[step][i / 2][i % 2] = filters[(step * THREAD_CHANNELS + i) * WARP];

    // A warp brings a row of pixels at once, those outside as copies of the nearest, which count for nothing: what memory is asked for in
    // one go it answers in the time of one.
    float rates[3] = {rate0, rate1, rate2}, offsets[3] = {offset0, offset1, offset2};
    constexpr int ROUNDS = TILE_COLUMNS / 2 / WARP;
    images += image * IMAGE_SIDE * IMAGE_SIDE * COLOURS;
    for (int row = warp; row < TILE_ROWS; row += blockDim.x / WARP) {
        int y = first_pixel + row;
        const float *pixels = images + nearest(y) * IMAGE_SIDE * COLOURS;
        float values[ROUNDS * 2][COLOURS];
#pragma unroll
        for (int i = 0; i < ROUNDS * 2; i++)
            for (int colour = 0; colour < COLOURS; colour++)
                values[i][colour] = pixels[nearest((i / 2 * WARP + lane) * 2 + i % 2 - BEFORE) * COLOURS + colour];
#pragma unroll
        for (int i = 0; i < ROUNDS * 2; i += 2) {
            int column = (i / 2 * WARP + lane) * 2, x = column - BEFORE;
            for (int colour = 0; colour < COLOURS; colour++) {
                float one = fmaf(values[i][colour], rates[colour], offsets[colour]);
                float other = fmaf(values[i + 1][colour], rates[colour], offsets[colour]);
                bool is_row = nearest(y) == y;
                *(unsigned *)(strip.pixels[colour][row] + column) =
                    two_halves(is_row && nearest(x) == x ? one : 0.0f, is_row && nearest(x + 1) == x + 1 ? other : 0.0f);
            }
        }
    }

    int pooled_column = warp * WARP_COLUMNS + lane / 4;
    int channel = group * BLOCK_CHANNELS + lane % 4 * THREAD_CHANNELS, odd_column = 2 * pooled_column - 1;
    const float *odd_biases = biases + edge(odd_column) * STEM_CHANNELS + channel;
    const float *even_biases = biases + edge(odd_column + 1) * STEM_CHANNELS + channel;
    Sums within = begin_with(odd_biases + edge(2) * EDGES * STEM_CHANNELS, even_biases + edge(2) * EDGES * STEM_CHANNELS);
    int tile_column = 2 * odd_column - 3 + BEFORE + lane % 4 * 2;
    __syncthreads();

    // The largest sums of the three columns of each window, in row `y` of sums, which reads pixels from `tile_row` on.
    auto row_of_windows = [&](int y, int tile_row, float *largest) {
        int biases_of_row = edge(y) * EDGES * STEM_CHANNELS;
        Sums sums = edge(y) == edge(2) ? within : begin_with(odd_biases + biases_of_row, even_biases + biases_of_row);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            unsigned left[4] = {};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = 2 * step + half;
                if (row >= ROWS) continue;
                const half_bits *taps = strip.pixels[row / TAPS][tile_row + row % TAPS] + tile_column;
                left[2 * half] = *(const unsigned *)taps;
                left[2 * half + 1] = *(const unsigned *)(taps + 2);
            }
#pragma unroll
            for (int i = 0; i < THREAD_CHANNELS; i += 2)
                multiply_add_halves(sums.odd + i, sums.even + i, left, right[step][i / 2]);
        }
#pragma unroll
        for (int i = 0; i < THREAD_CHANNELS; i++) {
            float next_odd = __shfl_down_sync(0xffffffffu, sums.odd[i], 4);
            largest[i] = larger(larger(sums.odd[i], sums.even[i]), next_odd);
        }
    };

    float above[THREAD_CHANNELS], middle[THREAD_CHANNELS], below[THREAD_CHANNELS];
    row_of_windows(2 * first - 1, 0, above);
    out += ((image * POOLED_SIDE + first) * POOLED_SIDE + pooled_column) * (STEM_CHANNELS / 8) + channel / 8;
    for (int row = 0; row < POOLED_ROWS; row++, out += POOLED_SIDE * (STEM_CHANNELS / 8)) {
        row_of_windows(2 * (first + row), 4 * row + 2, middle);
        row_of_windows(2 * (first + row) + 1, 4 * row + 4, below);
        Eight pooled;
#pragma unroll
        for (int i = 0; i < THREAD_CHANNELS; i++) {
            float value = larger(larger(above[i], middle[i]), below[i]);
            pooled.values[i] = float_to_bf16(value < 0.0f ? 0.0f : value);
            above[i] = below[i];
        }
        // The last four threads have what the others' windows end with.
        if (lane / 4 < WARP_COLUMNS) *out = pooled;
    }
}

extern "C" __global__ void __launch_bounds__(256) stem_grey(const float *images, const unsigned *filters, const float *biases,
    Eight *out, float rate0, float rate1, float rate2, float offset0, float offset1, float offset2) {
    stem(grey_strip, images, filters, biases, out, rate0, rate1, rate2, offset0, offset1, offset2);
}
KERNEL(stem_grey)

extern "C" __global__ void __launch_bounds__(256) stem_colour(const float *images, const unsigned *filters, const float *biases,
    Eight *out, float rate0, float rate1, float rate2, float offset0, float offset1, float offset2) {
    stem(colour_strip, images, filters, biases, out, rate0, rate1, rate2, offset0, offset1, offset2);
}
KERNEL(stem_colour)
