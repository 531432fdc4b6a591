// Products of all runs at once, blockIdx.z being the run. Twin: kernels::Multiplier.

// Rows of numbers, zero beyond their ends.
struct Rows {
    const float *values;
    int rows, columns;

    __device__ float at(int row, int column) const {
        return row < rows && column < columns ? values[(long)row * columns + column] : 0.0f;
    }
};

struct LeftRows {
    Rows of;
    __device__ float operator()(int row, int k) const { return of.at(row, k); }
};

struct LeftColumns {
    Rows of;
    __device__ float operator()(int row, int k) const { return of.at(k, row); }
};

struct RightRows {
    Rows of;
    __device__ float operator()(int k, int column) const { return of.at(k, column); }
};

struct RightColumns {
    Rows of;
    __device__ float operator()(int k, int column) const { return of.at(column, k); }
};

// y (M, O) = x (M, I) Wᵀ + b, or that added to y. The weights (O, I) and behind them the biases (O) of run r begin at
// `weights` + r `run_step`.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    linear(const float *x, const float *weights, long run_step, float *y, int rows, int inputs, int outputs, int add) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    weights += run * run_step;
    y += (long)run * rows * outputs;
    LeftRows left = {{x + (long)run * rows * inputs, rows, inputs}};
    RightColumns right = {{weights, outputs, inputs}};
    Tile tile = multiply<true, true>(left, right, first_row, first_column, 0, inputs);
    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_COLUMNS; j++) {
            int row = first_row + tile_row(i), column = first_column + tile_column(j);
            if (row < rows && column < outputs) {
                float *to = y + (long)row * outputs + column;
                *to = tile.sums[i][j] + weights[(long)outputs * inputs + column] + (add ? *to : 0.0f);
            }
        }
}
KERNEL(linear)

// x_grad (M, I) = grad (M, O) W.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    linear_backward(const float *grad, const float *weights, long run_step, float *x_grad, int rows, int inputs, int outputs) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    LeftRows left = {{grad + (long)run * rows * outputs, rows, outputs}};
    RightRows right = {{weights + run * run_step, outputs, inputs}};
    Tile tile = multiply<true, false>(left, right, first_row, first_column, 0, outputs);
    x_grad += (long)run * rows * inputs;
    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_COLUMNS; j++) {
            int row = first_row + tile_row(i), column = first_column + tile_column(j);
            if (row < rows && column < inputs) x_grad[(long)row * inputs + column] = tile.sums[i][j];
        }
}
KERNEL(linear_backward)

// The first of the rows that part `part` of `parts` takes.
__device__ int first_of_part(int rows, int part, int parts) {
    return (long)rows * part / parts;
}

// Gradients of weights (O, I) and biases (O), summed over a part of the rows: grad (M, O)ᵀ x (M, I). There are `parts` of
// them, blockIdx.y counting tiles of columns and parts, so that a card has work for all its processors; those of run r begin at
// `sums` + r `run_step`, each `part_step` behind the one before.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    weight_gradient(const float *grad, const float *x, float *sums, long run_step, long part_step, int parts, int rows,
                    int inputs, int outputs) {
    int run = blockIdx.z, part = blockIdx.y % parts;
    int first_row = blockIdx.x * TILE, first_column = blockIdx.y / parts * TILE;
    LeftColumns left = {{grad + (long)run * rows * outputs, rows, outputs}};
    RightRows right = {{x + (long)run * rows * inputs, rows, inputs}};
    Tile tile = multiply<false, false>(left, right, first_row, first_column, first_of_part(rows, part, parts),
                                       first_of_part(rows, part + 1, parts));
    sums += run * run_step + part * part_step;
    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_COLUMNS; j++) {
            int row = first_row + tile_row(i), column = first_column + tile_column(j);
            if (row < outputs && column < inputs) sums[(long)row * inputs + column] = tile.sums[i][j];
        }
    int row = first_row + threadIdx.x;
    if (first_column == 0 && threadIdx.x < TILE && row < outputs) sums[(long)outputs * inputs + row] = tile.left_sum;
}
KERNEL(weight_gradient)
