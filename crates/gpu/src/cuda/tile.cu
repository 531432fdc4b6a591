// The product at the bottom of all others: a block of 128 threads computes a tile of 64 by 64 numbers from slices of both factors
// in shared memory. While one pair of slices is multiplied, the next is on its way from memory to registers.

#define TILE 64
#define TILE_THREADS 128
// As many blocks share a processor: what one waits for, others make up.
#define TILE_BLOCKS 5

#if BF16
// Factors are rounded to bfloat16 and multiplied on tensor cores, which add in 32-bit floats: four warps of 32 rows by 32 columns,
// 4 by 8 numbers to a thread, two beside each other.
#define SLICE 32
#define THREAD_ROWS 4
#define THREAD_COLUMNS 8
#define RUN 2

// Four more, so that the threads of a warp reach for different banks; read in pairs.
#define SLICE_ROW (SLICE + 4)
__shared__ __align__(16) bf16_bits left_slices[2][TILE][SLICE_ROW], right_slices[2][TILE][SLICE_ROW];
#else
// 8 by 4 numbers to a thread, four beside each other.
#define SLICE 16
#define THREAD_ROWS 8
#define THREAD_COLUMNS 4
#define RUN 4

// Four more columns, so that the threads of a warp write to different banks.
__shared__ __align__(16) float left_slices[2][SLICE][TILE + 4], right_slices[2][SLICE][TILE + 4];
#endif

// Numbers beside each other that a thread fetches at once from a factor's slice, and how often.
#define FOURS (TILE * SLICE / 4 / TILE_THREADS)

// Numbers of a tile that a thread has beside each other.
struct __align__(4 * RUN) Run {
    float values[RUN];
};

struct Tile {
    float sums[THREAD_ROWS][THREAD_COLUMNS];
    // Of the left factor's columns over the inner dimension, of which each of the first TILE threads takes one.
    float left_sum;
};

__device__ bool is_aligned(const void *address, int bytes) {
    return (unsigned long long)address % bytes == 0;
}

struct __align__(4 * sizeof(factor_number)) FourFactors {
    factor_number values[4];
};

// Rows of numbers, floats or factors, zero beyond their ends.
struct Rows {
    const void *values;
    int rows, columns;
    bool factors;
    // Whether four of them always begin where a wide load may.
    bool fours;

    __device__ Rows(const void *values, bool factors, int rows, int columns)
        : values(values), rows(rows), columns(columns), factors(BF16 && factors),
          fours(columns % 4 == 0 && is_aligned(values, 4 * (BF16 && factors ? sizeof(factor_number) : sizeof(float)))) {}

    // Those from `column` on, which is a multiple of four.
    __device__ Four four(int row, int column) const {
        Four found = {};
        if (row >= rows || column >= columns) return found;
        long at = (long)row * columns + column;
        if (factors) {
            const factor_number *from = (const factor_number *)values + at;
            FourFactors read = {};
            if (fours) {
                read = *(const FourFactors *)from;
            } else {
                for (int i = 0; i < 4 && column + i < columns; i++) read.values[i] = from[i];
            }
            for (int i = 0; i < 4; i++) found.values[i] = of_factor(read.values[i]);
            return found;
        }
        const float *from = (const float *)values + at;
        if (fours) return *(const Four *)from;
        for (int i = 0; i < 4 && column + i < columns; i++) found.values[i] = from[i];
        return found;
    }
};

// Where in a slice the four numbers lie that this thread brings as its `i`th. With `inner` they lie along the inner dimension, else
// across it.
template <bool INNER>
__device__ void place_in_slice(int i, int *outer, int *inner) {
    int number = threadIdx.x + i * TILE_THREADS;
    if (INNER) {
        *outer = number / (SLICE / 4);
        *inner = number % (SLICE / 4) * 4;
        return;
    }
#if BF16
    // Two after each other are of neighbouring places along the inner dimension, which are written as one word. Eight of a warp's
    // threads are beside each other, four along the inner dimension: so they write to different banks.
    int lane = threadIdx.x % WARP, part = threadIdx.x / WARP + i / 2 * (TILE_THREADS / WARP);
    *outer = (lane % 8 + part % 2 * 8) * 4;
    *inner = (lane / 8 + part / 2 * 4) * 2 + i % 2;
#else
    *outer = number % (TILE / 4) * 4;
    *inner = number / (TILE / 4);
#endif
}

// The numbers of a factor's slice that this thread brings.
template <bool INNER, typename Factor>
__device__ void fetch(const Factor &factor, int first_outer, int first_inner, Four *fours) {
    for (int i = 0; i < FOURS; i++) {
        int outer, inner;
        place_in_slice<INNER>(i, &outer, &inner);
        fours[i] = INNER ? factor.four(first_outer + outer, first_inner + inner)
                         : factor.four(first_inner + inner, first_outer + outer);
    }
}

#if BF16
// The place of this thread's numbers in the tile.
__device__ int tile_row(int i) {
    return threadIdx.x / WARP % 2 * 32 + i / 2 * 16 + i % 2 * 8 + threadIdx.x % WARP / 4;
}

__device__ int tile_column(int j) {
    return threadIdx.x / WARP / 2 * 32 + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2;
}

struct __align__(8) FourHalves {
    bf16_bits values[4];
};

template <bool INNER>
__device__ void put(const Four *fours, bf16_bits (*slice)[SLICE_ROW]) {
    for (int i = 0; i < FOURS; i += INNER ? 1 : 2) {
        int outer, inner;
        place_in_slice<INNER>(i, &outer, &inner);
        FourHalves halves;
        for (int j = 0; j < 4; j++) halves.values[j] = float_to_bf16(fours[i].values[j]);
        if constexpr (INNER) {
            *(FourHalves *)(slice[outer] + inner) = halves;
        } else {
            for (int j = 0; j < 4; j++) {
                unsigned next = float_to_bf16(fours[i + 1].values[j]);
                *(unsigned *)(slice[outer + j] + inner) = halves.values[j] | next << 16;
            }
        }
    }
}

__device__ unsigned pair(const bf16_bits *from) {
    return *(const unsigned *)from;
}

// Adds the products of the slices. Which numbers each thread of a warp brings to a product of 16 by 16 by 8 and gets from it:
// https://docs.nvidia.com/cuda/parallel-thread-execution/#warp-level-matrix-fragment-mma-16816-float
__device__ void add_slice(Tile &tile, int buffer) {
    const bf16_bits(*left_slice)[SLICE_ROW] = left_slices[buffer], (*right_slice)[SLICE_ROW] = right_slices[buffer];
    int first_column = threadIdx.x / WARP / 2 * 32 + threadIdx.x % WARP / 4;
    for (int step = 0; step < SLICE; step += 16) {
        int k = step + threadIdx.x % 4 * 2;
        unsigned right[4][2];
        for (int part = 0; part < 4; part++) {
            const bf16_bits *column = right_slice[first_column + part * 8] + k;
            right[part][0] = pair(column);
            right[part][1] = pair(column + 8);
        }
        for (int i = 0; i < THREAD_ROWS; i += 2) {
            const bf16_bits *row = left_slice[tile_row(i)] + k, *below = left_slice[tile_row(i + 1)] + k;
            unsigned left[4] = {pair(row), pair(below), pair(row + 8), pair(below + 8)};
            for (int part = 0; part < 4; part++)
                multiply_add(tile.sums[i] + part * 2, tile.sums[i + 1] + part * 2, left, right[part]);
        }
    }
    if (threadIdx.x < TILE)
        for (int k = 0; k < SLICE; k++) tile.left_sum += bf16_to_float(left_slice[threadIdx.x][k]);
}
#else
__device__ int tile_row(int i) {
    return threadIdx.x / 16 * 8 + i;
}

__device__ int tile_column(int j) {
    return threadIdx.x % 16 * 4 + j;
}

template <bool INNER>
__device__ void put(const Four *fours, float (*slice)[TILE + 4]) {
    for (int i = 0; i < FOURS; i++) {
        int outer, inner;
        place_in_slice<INNER>(i, &outer, &inner);
        if (INNER) {
            for (int j = 0; j < 4; j++) slice[inner + j][outer] = fours[i].values[j];
        } else {
            *(Four *)(slice[inner] + outer) = fours[i];
        }
    }
}

__device__ void add_slice(Tile &tile, int buffer) {
    for (int k = 0; k < SLICE; k++) {
        const float *left = left_slices[buffer][k] + tile_row(0);
        Four above = *(const Four *)left, below = *(const Four *)(left + 4);
        Four columns = *(const Four *)(right_slices[buffer][k] + tile_column(0));
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                tile.sums[i][j] += above.values[i] * columns.values[j];
                tile.sums[i + 4][j] += below.values[i] * columns.values[j];
            }
        if (threadIdx.x < TILE) tile.left_sum += left_slices[buffer][k][threadIdx.x];
    }
}
#endif

// Sums left(row, k) right(k, column) over `inner_begin` ≤ k < `inner_end`. Factors give zero beyond their ends, and across their
// rows beyond `inner_end`.
template <bool LEFT_INNER, bool RIGHT_INNER, typename Left, typename Right>
__device__ Tile multiply(const Left &left, const Right &right, int first_row, int first_column, int inner_begin, int inner_end) {
    Tile tile = {};
    Four lefts[FOURS], rights[FOURS];
    fetch<LEFT_INNER>(left, first_row, inner_begin, lefts);
    fetch<RIGHT_INNER>(right, first_column, inner_begin, rights);
    put<LEFT_INNER>(lefts, left_slices[0]);
    put<RIGHT_INNER>(rights, right_slices[0]);
    __syncthreads();
    int buffer = 0;
    for (int inner = inner_begin; inner < inner_end; inner += SLICE) {
        bool goes_on = inner + SLICE < inner_end;
        if (goes_on) {
            fetch<LEFT_INNER>(left, first_row, inner + SLICE, lefts);
            fetch<RIGHT_INNER>(right, first_column, inner + SLICE, rights);
        }
        add_slice(tile, buffer);
        // The other buffer was read before the last barrier.
        buffer = 1 - buffer;
        if (goes_on) {
            put<LEFT_INNER>(lefts, left_slices[buffer]);
            put<RIGHT_INNER>(rights, right_slices[buffer]);
        }
        __syncthreads();
    }
    return tile;
}

// Runs of the tile that lie within `rows` and `columns`: calls `each` with the row and the first column of each, its numbers, and
// how many of them lie within.
template <typename Each>
__device__ void each_run(const Tile &tile, int first_row, int first_column, int rows, int columns, Each each) {
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++) {
        int row = first_row + tile_row(i);
        if (row >= rows) continue;
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; j += RUN) {
            int column = first_column + tile_column(j);
            Run run;
            for (int k = 0; k < RUN; k++) run.values[k] = tile.sums[i][j + k];
            if (column < columns) each(row, column, run, columns - column < RUN ? columns - column : RUN);
        }
    }
}

// Writes the first `count` numbers of a run; `wide` says whether all runs begin where a wide store may.
__device__ void store(float *to, const Run &run, int count, bool wide) {
    if (wide && count == RUN) {
        *(Run *)to = run;
        return;
    }
    for (int k = 0; k < count; k++) to[k] = run.values[k];
}

struct __align__(RUN * sizeof(factor_number)) FactorRun {
    factor_number values[RUN];
};

// The same as factors.
__device__ void store_factors(factor_number *to, const Run &run, int count, bool wide) {
    FactorRun factors;
    for (int k = 0; k < RUN; k++) factors.values[k] = to_factor(run.values[k]);
    if (wide && count == RUN) {
        *(FactorRun *)to = factors;
        return;
    }
    for (int k = 0; k < count; k++) to[k] = factors.values[k];
}

// Whether runs in rows of `columns` numbers begin where wide loads and stores may.
__device__ bool has_runs(const float *rows, int columns) {
    return columns % RUN == 0 && is_aligned(rows, 4 * RUN);
}
