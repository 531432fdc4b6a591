// The product at the bottom of all others: a block of 128 threads computes a tile of 64 by 64 numbers from slices of both factors
// in shared memory. While one pair of slices is multiplied, the next is on its way from memory to registers.

#define TILE 64
#define TILE_THREADS 128
// As many blocks share a processor: what one waits for, others make up. (Four where a processor has 100 KB of shared memory.)
#define TILE_BLOCKS 5

#if BF16
// Factors are rounded to bfloat16 and multiplied on tensor cores, which add in 32-bit floats: four warps of 32 rows by 32 columns,
// 4 by 8 numbers to a thread, two beside each other.
#define SLICE 32
#define THREAD_ROWS 4
#define THREAD_COLUMNS 8
#define RUN 2

// Eight more, and eight after each eighth row, so that the threads of a warp reach for different banks, be their eight rows beside each
// other or each four from the next. Read in pairs.
#define SLICE_ROW (SLICE + 8)
#define EIGHT_ROWS (8 * SLICE_ROW + 8)
__shared__ __align__(16) bf16_bits left_slices[2][TILE / 8 * EIGHT_ROWS], right_slices[2][TILE / 8 * EIGHT_ROWS];
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

// Four numbers beside each other as they are stored.
template <typename Number>
struct FourOf;

template <>
struct FourOf<float> : Four {
    __device__ void set(int i, float number) {
        values[i] = number;
    }
};

#if BF16
// Two to a word: whoever takes them apart waits for them.
template <>
struct __align__(8) FourOf<bf16_bits> {
    unsigned words[2];

    __device__ void set(int i, bf16_bits number) {
        words[i / 2] |= (unsigned)number << i % 2 * 16;
    }
};
#endif

// Rows of numbers, floats or factors, zero beyond their ends.
template <typename Stored>
struct Rows {
    typedef Stored Number;
    const Number *values;
    int rows, columns;

    __device__ Rows(const Number *values, int rows, int columns) : values(values), rows(rows), columns(columns) {}

    // Whether four of them always begin where a wide load may.
    __device__ bool is_wide() const {
        return columns % 4 == 0 && is_aligned(values, sizeof(FourOf<Number>));
    }

    // Those of row `first` + `row` from `column` on, which is a multiple of four. `row` is one of a tile's or a slice's: behind the
    // first, places fit in 32 bits, which take half as many registers.
    template <bool WIDE>
    __device__ FourOf<Number> four(int first, int row, int column) const {
        const Number *from = values + (long)first * columns + (row * columns + column);
        bool within = row < rows - first;
        FourOf<Number> found = {};
        if constexpr (WIDE) {
            if (within && column < columns) found = *(const FourOf<Number> *)from;
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (within && column + i < columns) found.set(i, from[i]);
        }
        return found;
    }
};

// Where in a slice the four numbers lie that this thread brings as its `i`th. With `inner` they lie along the inner dimension, else
// across it.
template <bool INNER>
__device__ void place_in_slice(int i, int *outer, int *inner) {
    if (INNER) {
        // Of eight rows, two that are written at once are four apart, for the banks' sake.
        int row = threadIdx.x / (SLICE / 4);
        *outer = row / 8 * 8 + row % 2 * 4 + row % 8 / 2 + i * (TILE_THREADS / (SLICE / 4));
        *inner = threadIdx.x % (SLICE / 4) * 4;
        return;
    }
#if BF16
    // Two after each other are of neighbouring places along the inner dimension, which are written as one word. Eight of a warp's
    // threads are beside each other, four along the inner dimension: so they write to different banks.
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    *outer = (lane % 8 + warp % 2 * 8) * 4;
    *inner = (lane / 8 + warp / 2 * 4 + i / 2 * 8) * 2 + i % 2;
#else
    *outer = threadIdx.x % (TILE / 4) * 4;
    *inner = threadIdx.x / (TILE / 4) + i * (TILE_THREADS / (TILE / 4));
#endif
}

// The numbers of a factor's slice that this thread brings, as they are stored: what is done with one waits for it, so all are asked
// for first.
template <bool WIDE, bool INNER, typename Factor>
__device__ void fetch(const Factor &factor, int first_outer, int first_inner, FourOf<typename Factor::Number> *fours) {
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int outer, inner;
        place_in_slice<INNER>(i, &outer, &inner);
        fours[i] = INNER ? factor.template four<WIDE>(first_outer, outer, first_inner + inner)
                         : factor.template four<WIDE>(first_inner, inner, first_outer + outer);
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

__device__ FourOf<bf16_bits> as_factors(const FourOf<bf16_bits> &factors) {
    return factors;
}

__device__ FourOf<bf16_bits> as_factors(const FourOf<float> &floats) {
    FourOf<bf16_bits> factors = {};
    for (int i = 0; i < 4; i++) factors.set(i, float_to_bf16(floats.values[i]));
    return factors;
}

// Where a slice's row begins.
__device__ int place_of_row(int row) {
    return row * SLICE_ROW + row / 8 * 8;
}

template <bool INNER, typename Number>
__device__ void put(const FourOf<Number> *fours, bf16_bits *slice) {
    for (int i = 0; i < FOURS; i += INNER ? 1 : 2) {
        int outer, inner;
        place_in_slice<INNER>(i, &outer, &inner);
        bf16_bits *to = slice + place_of_row(outer) + inner;
        FourOf<bf16_bits> factors = as_factors(fours[i]);
        if constexpr (INNER) {
            *(FourOf<bf16_bits> *)to = factors;
        } else {
            FourOf<bf16_bits> next = as_factors(fours[i + 1]);
            for (int j = 0; j < 4; j++) {
                unsigned here = factors.words[j / 2], there = next.words[j / 2];
                *(unsigned *)(to + j * SLICE_ROW) = j % 2 ? here >> 16 | (there & 0xffff0000) : (here & 0xffff) | there << 16;
            }
        }
    }
}

__device__ unsigned pair(const bf16_bits *from) {
    return *(const unsigned *)from;
}

// Adds the products of the slices. Which numbers each thread of a warp brings to a product of 16 by 16 by 8 and gets from it:
// https://docs.nvidia.com/cuda/parallel-thread-execution/#warp-level-matrix-fragment-mma-16816-float
__device__ void add_slice(Tile &tile, int buffer, bool left_sums) {
    const bf16_bits *rows = left_slices[buffer] + place_of_row(tile_row(0));
    const bf16_bits *columns = right_slices[buffer] + place_of_row(threadIdx.x / WARP / 2 * 32 + threadIdx.x % WARP / 4);
    for (int step = 0; step < SLICE; step += 16) {
        int k = step + threadIdx.x % 4 * 2;
        unsigned right[4][2];
        for (int part = 0; part < 4; part++) {
            const bf16_bits *column = columns + part * EIGHT_ROWS + k;
            right[part][0] = pair(column);
            right[part][1] = pair(column + 8);
        }
        for (int i = 0; i < THREAD_ROWS; i += 2) {
            const bf16_bits *row = rows + i * EIGHT_ROWS + k, *below = row + EIGHT_ROWS;
            unsigned left[4] = {pair(row), pair(below), pair(row + 8), pair(below + 8)};
            for (int part = 0; part < 4; part++)
                multiply_add(tile.sums[i] + part * 2, tile.sums[i + 1] + part * 2, left, right[part]);
        }
    }
    if (left_sums && threadIdx.x < TILE) {
        const bf16_bits *row = left_slices[buffer] + place_of_row(threadIdx.x);
        for (int k = 0; k < SLICE; k++) tile.left_sum += bf16_to_float(row[k]);
    }
}
#else
__device__ int tile_row(int i) {
    return threadIdx.x / 16 * 8 + i;
}

__device__ int tile_column(int j) {
    return threadIdx.x % 16 * 4 + j;
}

template <bool INNER>
__device__ void put(const FourOf<float> *fours, float (*slice)[TILE + 4]) {
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

__device__ void add_slice(Tile &tile, int buffer, bool left_sums) {
    for (int k = 0; k < SLICE; k++) {
        const float *left = left_slices[buffer][k] + tile_row(0);
        Four above = *(const Four *)left, below = *(const Four *)(left + 4);
        Four columns = *(const Four *)(right_slices[buffer][k] + tile_column(0));
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                tile.sums[i][j] += above.values[i] * columns.values[j];
                tile.sums[i + 4][j] += below.values[i] * columns.values[j];
            }
        if (left_sums && threadIdx.x < TILE) tile.left_sum += left_slices[buffer][k][threadIdx.x];
    }
}
#endif

// `multiply`, with loads of four numbers or of one.
template <bool WIDE, bool LEFT_INNER, bool RIGHT_INNER, typename Left, typename Right>
__device__ Tile multiply_slices(const Left &left, const Right &right, int first_row, int first_column, int inner_begin, int inner_end,
                                bool left_sums) {
    Tile tile = {};
    FourOf<typename Left::Number> lefts[FOURS];
    FourOf<typename Right::Number> rights[FOURS];
    auto fetch_both = [&](int inner) {
        fetch<WIDE, LEFT_INNER>(left, first_row, inner, lefts);
        fetch<WIDE, RIGHT_INNER>(right, first_column, inner, rights);
    };
    auto put_both = [&](int buffer) {
        put<LEFT_INNER>(lefts, left_slices[buffer]);
        put<RIGHT_INNER>(rights, right_slices[buffer]);
    };
    fetch_both(inner_begin);
    put_both(0);
    __syncthreads();
    int buffer = 0;
    for (int inner = inner_begin; inner < inner_end; inner += SLICE) {
        bool goes_on = inner + SLICE < inner_end;
        if (WIDE && goes_on) fetch_both(inner + SLICE);
        add_slice(tile, buffer, left_sums);
        // Loads of one number are four times as many and would take the product's registers.
        if (!WIDE && goes_on) fetch_both(inner + SLICE);
        // The other buffer was read before the last barrier.
        buffer = 1 - buffer;
        if (goes_on) put_both(buffer);
        __syncthreads();
    }
    return tile;
}

// Sums left(row, k) right(k, column) over `inner_begin` ≤ k < `inner_end`. Factors give zero beyond their ends, and across their
// rows beyond `inner_end`. `left_sums` asks for the sums of the left factor's columns.
template <bool LEFT_INNER, bool RIGHT_INNER, typename Left, typename Right>
__device__ Tile multiply(const Left &left, const Right &right, int first_row, int first_column, int inner_begin, int inner_end,
                         bool left_sums = false) {
    if (left.is_wide() && right.is_wide())
        return multiply_slices<true, LEFT_INNER, RIGHT_INNER>(left, right, first_row, first_column, inner_begin, inner_end, left_sums);
    return multiply_slices<false, LEFT_INNER, RIGHT_INNER>(left, right, first_row, first_column, inner_begin, inner_end, left_sums);
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
