// Products of all runs at once, blockIdx.z being the run. Twin: kernels::Multiplier.

// y (M, O) = x (M, I) Wᵀ + b, or that added to y. The weights (O, I) and behind them the biases (O) of run r begin at
// `weights` + r `run_step`.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    linear(const float *x, const float *weights, long run_step, float *y, int rows, int inputs, int outputs, int add) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    weights += run * run_step;
    y += (long)run * rows * outputs;
    Rows left(x + (long)run * rows * inputs, rows, inputs), right(weights, outputs, inputs);
    Tile tile = multiply<true, true>(left, right, first_row, first_column, 0, inputs);
    const float *biases = weights + (long)outputs * inputs;
    bool wide = has_runs(y, outputs);
    each_run(tile, first_row, first_column, rows, outputs, [&](int row, int column, Run sums, int count) {
        float *to = y + (long)row * outputs + column;
        Run before = {};
        if (add && wide) before = *(const Run *)to;
        for (int k = 0; k < count; k++) {
            if (add && !wide) before.values[k] = to[k];
            sums.values[k] += biases[column + k] + before.values[k];
        }
        store(to, sums, count, wide);
    });
}
KERNEL(linear)

// x_grad (M, I) = grad (M, O) W.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    linear_backward(const float *grad, const float *weights, long run_step, float *x_grad, int rows, int inputs, int outputs) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    Rows left(grad + (long)run * rows * outputs, rows, outputs), right(weights + run * run_step, outputs, inputs);
    Tile tile = multiply<true, false>(left, right, first_row, first_column, 0, outputs);
    x_grad += (long)run * rows * inputs;
    bool wide = has_runs(x_grad, inputs);
    each_run(tile, first_row, first_column, rows, inputs, [&](int row, int column, const Run &sums, int count) {
        store(x_grad + (long)row * inputs + column, sums, count, wide);
    });
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
    int begin = first_of_part(rows, part, parts), end = first_of_part(rows, part + 1, parts);
    Rows left(grad + (long)run * rows * outputs, end, outputs), right(x + (long)run * rows * inputs, end, inputs);
    Tile tile = multiply<false, false>(left, right, first_row, first_column, begin, end);
    sums += run * run_step + part * part_step;
    bool wide = has_runs(sums, inputs);
    each_run(tile, first_row, first_column, outputs, inputs, [&](int row, int column, const Run &found, int count) {
        store(sums + (long)row * inputs + column, found, count, wide);
    });
    int row = first_row + threadIdx.x;
    if (first_column == 0 && threadIdx.x < TILE && row < outputs) sums[(long)outputs * inputs + row] = tile.left_sum;
}
KERNEL(weight_gradient)
