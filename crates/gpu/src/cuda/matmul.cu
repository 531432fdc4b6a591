// Products of all runs at once, blockIdx.z being the run. Twin: kernels::Multiplier.

// Those of one run among rows of all runs.
template <typename Number>
__device__ Rows<Number> rows_of_run(const Number *values, int run, int rows, int columns) {
    return Rows<Number>(values + (long)run * rows * columns, rows, columns);
}

// What `multiply` makes of them, whether they are factors or floats.
template <typename Multiply>
__device__ Tile with_rows_of_run(const void *values, int factors, int run, int rows, int columns, Multiply multiply) {
    if (BF16 && factors) return multiply(rows_of_run((const factor_number *)values, run, rows, columns));
    return multiply(rows_of_run((const float *)values, run, rows, columns));
}

// y (M, O) = x (M, I) Wᵀ + b, or that added to y; and GELU(y) in `activated` (M, O), unless that is null. The weights (O, I) and
// behind them the biases (O) of run r begin at `weights` + r `run_step`.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    linear(const factor_number *x, const float *weights, long run_step, float *y, int rows, int inputs, int outputs, int add,
           factor_number *activated) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    weights += run * run_step;
    y += (long)run * rows * outputs;
    Rows<float> right(weights, outputs, inputs);
    Tile tile = multiply<true, true>(rows_of_run(x, run, rows, inputs), right, first_row, first_column, 0, inputs);
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
        if (!activated) return;
        for (int k = 0; k < count; k++) sums.values[k] = gelu(sums.values[k]);
        store_factors(activated + ((long)run * rows + row) * outputs + column, sums, count, wide);
    });
}
KERNEL(linear)

// x_grad (M, I) = grad (M, O) W. `factors` says whether the gradients are factors.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    linear_backward(const void *grad, int factors, const float *weights, long run_step, float *x_grad, int rows, int inputs,
                    int outputs) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    Rows<float> right(weights + run * run_step, outputs, inputs);
    Tile tile = with_rows_of_run(grad, factors, run, rows, outputs, [&](const auto &left) {
        return multiply<true, false>(left, right, first_row, first_column, 0, outputs);
    });
    x_grad += (long)run * rows * inputs;
    bool wide = has_runs(x_grad, inputs);
    each_run(tile, first_row, first_column, rows, inputs, [&](int row, int column, const Run &sums, int count) {
        store(x_grad + (long)row * inputs + column, sums, count, wide);
    });
}
KERNEL(linear_backward)

// The same where x = GELU(hidden): `hidden_grad` (M, I) = grad (M, O) W GELU'(hidden), and x once more in `activated`, which is
// cheaper to compute than to keep.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    linear_backward_gelu(const float *grad, const float *weights, long run_step, const float *hidden, factor_number *hidden_grad,
                         factor_number *activated, int rows, int inputs, int outputs) {
    int run = blockIdx.z, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    Rows<float> left = rows_of_run(grad, run, rows, outputs), right(weights + run * run_step, outputs, inputs);
    Tile tile = multiply<true, false>(left, right, first_row, first_column, 0, outputs);
    long begin = (long)run * rows * inputs;
    bool wide = has_runs(hidden + begin, inputs);
    each_run(tile, first_row, first_column, rows, inputs, [&](int row, int column, Run sums, int count) {
        long at = begin + (long)row * inputs + column;
        Run x = {}, active;
        if (wide) x = *(const Run *)(hidden + at);
        for (int k = 0; k < count; k++) {
            if (!wide) x.values[k] = hidden[at + k];
            sums.values[k] *= gelu_slope(x.values[k]);
            active.values[k] = gelu(x.values[k]);
        }
        store_factors(hidden_grad + at, sums, count, wide);
        store_factors(activated + at, active, count, wide);
    });
}
KERNEL(linear_backward_gelu)

// The first of the rows that part `part` of `parts` takes.
__device__ int first_of_part(int rows, int part, int parts) {
    return (long)rows * part / parts;
}

// Gradients of weights (O, I) and biases (O), summed over a part of the rows: grad (M, O)ᵀ x (M, I). There are `parts` of
// them, blockIdx.y counting tiles of columns and parts, so that a card has work for all its processors; those of run r begin at
// `sums` + r `run_step`, each `part_step` behind the one before. `factors` and `x_factors` say whether grad and x are factors.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    weight_gradient(const void *grad, int factors, const void *x, int x_factors, float *sums, long run_step, long part_step, int parts, int rows,
                    int inputs, int outputs) {
    int run = blockIdx.z, part = blockIdx.y % parts;
    int first_row = blockIdx.x * TILE, first_column = blockIdx.y / parts * TILE;
    int begin = first_of_part(rows, part, parts), end = first_of_part(rows, part + 1, parts);
    Tile tile = with_rows_of_run(grad, factors, run, rows, outputs, [&](auto left) {
        return with_rows_of_run(x, x_factors, run, rows, inputs, [&](auto right) {
            left.rows = right.rows = end;
            return multiply<false, false>(left, right, first_row, first_column, begin, end, first_column == 0);
        });
    });
    sums += run * run_step + part * part_step;
    bool wide = has_runs(sums, inputs);
    each_run(tile, first_row, first_column, outputs, inputs, [&](int row, int column, const Run &found, int count) {
        store(sums + (long)row * inputs + column, found, count, wide);
    });
    int row = first_row + threadIdx.x;
    if (first_column == 0 && threadIdx.x < TILE && row < outputs) sums[(long)outputs * inputs + row] = tile.left_sum;
}
KERNEL(weight_gradient)
