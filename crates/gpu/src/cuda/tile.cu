// The product at the bottom of all others: a block of 256 threads computes a tile of 64 by 64 numbers from slices of both factors
// in shared memory.

#define TILE 64
#define TILE_THREADS 256

#if BF16
// Factors are rounded to bfloat16 and multiplied on tensor cores, which add in 32-bit floats: eight warps of 16 rows by 32 columns,
// 2 by 8 numbers to a thread.
#define SLICE 32
#define THREAD_ROWS 2
#define THREAD_COLUMNS 8

// Eight more, so that the threads of a warp read from different banks; read in pairs.
__shared__ __align__(16) bf16_bits left_slice[TILE][SLICE + 8];
__shared__ __align__(16) bf16_bits right_slice[TILE][SLICE + 8];
#else
// 4 by 4 numbers to a thread.
#define SLICE 16
#define THREAD_ROWS 4
#define THREAD_COLUMNS 4

// One more column, so that the threads of a warp write to different banks.
__shared__ float left_slice[SLICE][TILE + 1], right_slice[SLICE][TILE + 1];
#endif

struct Tile {
    float sums[THREAD_ROWS][THREAD_COLUMNS];
    // Of the left factor's columns over the inner dimension, of which each of the first TILE threads takes one.
    float left_sum;
};

#if BF16
// The place of this thread's numbers in the tile.
__device__ int tile_row(int i) {
    return threadIdx.x / WARP % 4 * 16 + threadIdx.x % WARP / 4 + i * 8;
}

__device__ int tile_column(int j) {
    return threadIdx.x / WARP / 4 * 32 + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2;
}

__device__ void put(float left, int row, int left_k, float right, int column, int right_k) {
    left_slice[row][left_k] = float_to_bf16(left);
    right_slice[column][right_k] = float_to_bf16(right);
}

__device__ unsigned pair(const bf16_bits *from) {
    return *(const unsigned *)from;
}

// Adds the products of the slices. Which numbers each thread of a warp brings to a product of 16 by 16 by 8 and gets from it:
// https://docs.nvidia.com/cuda/parallel-thread-execution/#warp-level-matrix-fragment-mma-16816-float
__device__ void add_slice(Tile &tile) {
    int row = tile_row(0), first = threadIdx.x / WARP / 4 * 32 + threadIdx.x % WARP / 4;
    for (int k = threadIdx.x % 4 * 2; k < SLICE; k += 16) {
        unsigned left[4] = {pair(left_slice[row] + k), pair(left_slice[row + 8] + k), pair(left_slice[row] + k + 8),
                            pair(left_slice[row + 8] + k + 8)};
        for (int part = 0; part < 4; part++) {
            const bf16_bits *column = right_slice[first + part * 8] + k;
            unsigned right[2] = {pair(column), pair(column + 8)};
            multiply_add(tile.sums[0] + part * 2, tile.sums[1] + part * 2, left, right);
        }
    }
    if (threadIdx.x < TILE)
        for (int k = 0; k < SLICE; k++) tile.left_sum += bf16_to_float(left_slice[threadIdx.x][k]);
}
#else
__device__ int tile_row(int i) {
    return threadIdx.x / 16 * 4 + i;
}

__device__ int tile_column(int j) {
    return threadIdx.x % 16 * 4 + j;
}

__device__ void put(float left, int row, int left_k, float right, int column, int right_k) {
    left_slice[left_k][row] = left;
    right_slice[right_k][column] = right;
}

__device__ void add_slice(Tile &tile) {
    for (int k = 0; k < SLICE; k++) {
        float rows[4], columns[4];
        for (int i = 0; i < 4; i++) {
            rows[i] = left_slice[k][tile_row(i)];
            columns[i] = right_slice[k][tile_column(i)];
        }
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) tile.sums[i][j] += rows[i] * columns[j];
        if (threadIdx.x < TILE) tile.left_sum += left_slice[k][threadIdx.x];
    }
}
#endif

// Sums left(row, k) right(k, column) over `inner_begin` ≤ k < `inner_end`. Factors give zero beyond their ends.
template <bool LEFT_BY_ROWS, bool RIGHT_BY_COLUMNS, typename Left, typename Right>
__device__ Tile multiply(Left left, Right right, int first_row, int first_column, int inner_begin, int inner_end) {
    Tile tile = {};
    for (int inner = inner_begin; inner < inner_end; inner += SLICE) {
        for (int i = threadIdx.x; i < TILE * SLICE; i += TILE_THREADS) {
            // Neighbouring threads read neighbouring numbers.
            int row = LEFT_BY_ROWS ? i / SLICE : i % TILE, left_k = LEFT_BY_ROWS ? i % SLICE : i / TILE;
            int column = RIGHT_BY_COLUMNS ? i / SLICE : i % TILE, right_k = RIGHT_BY_COLUMNS ? i % SLICE : i / TILE;
            put(inner + left_k < inner_end ? left(first_row + row, inner + left_k) : 0.0f, row, left_k,
                inner + right_k < inner_end ? right(inner + right_k, first_column + column) : 0.0f, column, right_k);
        }
        __syncthreads();
        add_slice(tile);
        __syncthreads();
    }
    return tile;
}
