// From a batch's stored feature maps to the embedded tokens of all runs, and back. Twins: kernels::Standardise,
// vit::native::Embed.

// A source's maps (I, side, side, channels), of which a patch of `patch` by `patch` pixels makes a token; if there are more tokens
// than pixels, several share one. Value i of a token is multiplied by rate[i] and offset[i] is added. Or tokens that are ready,
// (I P, W). Which of these I images those of the batch are say `images` (B); without them they are the batch's own.
struct Source {
    const half_bits *maps;
    const float *ready, *rate, *offset;
    // The batch's tokens, (B P, W).
    factor_number *tokens;
    const int *images;
    int width, side, channels, patch;
};

// Calls `each` with the place of each value of token `row` that this thread of a warp takes, and with the value before the token's
// norm.
template <typename Each>
__device__ void each_value(const Source &source, int row, Each each) {
    int lane = threadIdx.x % WARP, token = row % PLACES, run = source.patch * source.channels;
    long image = source.images ? source.images[row / PLACES] : row / PLACES;
    if (source.ready) {
        const float *values = source.ready + (image * PLACES + token) * source.width;
        for (int i = lane; i < source.width; i += WARP) each(i, values[i]);
        return;
    }
    long top = image * source.side + token / GRID * source.side / GRID, left = token % GRID * source.side / GRID;
    for (int y = 0; y < source.patch; y++) {
        const half_bits *values = source.maps + ((top + y) * source.side + left) * source.channels;
        for (int x = lane; x < run; x += WARP) {
            int i = y * run + x;
            each(i, half_to_float(values[x]) * source.rate[i] + source.offset[i]);
        }
    }
}

// The tokens of the batch, once for all runs: a warp for each, blockIdx.y counting sources. Stored ones are brought to mean 0 and
// variance 1 with `norm`; those that are ready are as they are.
extern "C" __global__ void cut_tokens(const Source *sources, int rows, int norm, float epsilon) {
    Source source = sources[blockIdx.y];
    int row = row_of_warp();
    if (row >= rows) return;
    float mean = 0.0f, rate = 1.0f;
    if (norm && !source.ready) {
        float sum = 0.0f, squares = 0.0f;
        each_value(source, row, [&](int, float value) { sum += value; });
        mean = warp_sum(sum) / source.width;
        each_value(source, row, [&](int, float value) { squares += (value - mean) * (value - mean); });
        rate = 1.0f / sqrtf(warp_sum(squares) / source.width + epsilon);
    }
    factor_number *to = source.tokens + (long)row * source.width;
    each_value(source, row, [&](int i, float value) { to[i] = to_factor((value - mean) * rate); });
}
KERNEL(cut_tokens)

// A run's projection of a source: which one, where its tokens begin in the sequence, where its weights (D, W) and biases (D) lie
// among the run's effective weights, and the source's embedding among its parameters.
struct Projection {
    int source, first_token;
    long weights;
    int source_embed;
};

// Where a run's position embedding and class token lie among its parameters; -1 without.
struct Embedding {
    int position, class_token;
};

__device__ bool covers(const Projection &projection, int token) {
    return token >= projection.first_token && token < projection.first_token + PLACES;
}

// What the products are added to: x (M, D) of biases, source and position embeddings, a thread for each number.
extern "C" __global__ void embed_begin(const Source *sources, const Projection *projections, const int *counts, int most,
                                       const Embedding *embeddings, const float *parameters, long parameter_step,
                                       const float *weights, long weight_step, float *x, int images) {
    int run = blockIdx.z, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= TOKENS * WIDTH) return;
    int token = at / WIDTH, d = at % WIDTH;
    parameters += run * parameter_step;
    weights += run * weight_step;
    Embedding embedding = embeddings[run];
    float begin = 0.0f;
    if (embedding.class_token >= 0 && token == 0) begin = parameters[embedding.class_token + d];
    for (int slot = 0; slot < counts[run]; slot++) {
        Projection projection = projections[run * most + slot];
        if (!covers(projection, token)) continue;
        begin += parameters[embedding.position + (token - projection.first_token) * WIDTH + d];
        begin += parameters[projection.source_embed + d];
        begin += weights[projection.weights + (long)WIDTH * sources[projection.source].width + d];
    }
    for (int image = 0; image < images; image++)
        x[(((long)run * images + image) * TOKENS + token) * WIDTH + d] = begin;
}
KERNEL(embed_begin)

// The row of the sequence that token `row` of a source has.
__device__ long sequence_row(int row, int first_token) {
    return (long)(row / PLACES) * TOKENS + first_token + row % PLACES;
}

// Adds the products of all sources to x (M, D); blockIdx.x counts tiles of tokens, blockIdx.y of the width.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    embed(const Source *sources, const Projection *projections, const int *counts, int most, const float *weights,
          long weight_step, float *x, int images) {
    int run = blockIdx.z, rows = images * PLACES, first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    weights += run * weight_step;
    x += (long)run * images * TOKENS * WIDTH;
    bool wide = has_runs(x, WIDTH);
    for (int slot = 0; slot < counts[run]; slot++) {
        Projection projection = projections[run * most + slot];
        Source source = sources[projection.source];
        Rows<factor_number> left(source.tokens, rows, source.width);
        Rows<float> right(weights + projection.weights, WIDTH, source.width);
        Tile tile = multiply<true, true>(left, right, first_row, first_column, 0, source.width);
        each_run(tile, first_row, first_column, rows, WIDTH, [&](int row, int column, Run sums, int count) {
            float *to = x + sequence_row(row, projection.first_token) * WIDTH + column;
            Run before = {};
            if (wide) before = *(const Run *)to;
            for (int k = 0; k < count; k++) sums.values[k] += wide ? before.values[k] : to[k];
            store(to, sums, count, wide);
        });
    }
}
KERNEL(embed)

// The gradient of a source's tokens among that of the sequence, as a factor.
struct SequenceRows {
    typedef float Number;
    Rows<float> grad;
    int rows, first_token;

    __device__ bool is_wide() const {
        return grad.is_wide();
    }

    template <bool WIDE>
    __device__ FourOf<float> four(int first, int row, int column) const {
        return grad.four<WIDE>(first + row < rows ? sequence_row(first + row, first_token) : grad.rows, 0, column);
    }
};

// Gradients of the projections' weights: grad (M, D)ᵀ tokens (B P, W). blockIdx.x counts tiles of a token's values, blockIdx.y
// those of the width, blockIdx.z runs and their projections.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    embed_gradient(const Source *sources, const Projection *projections, const int *counts, int most, const float *grad,
                   float *sums, long sum_step, int images) {
    int run = blockIdx.z / most, slot = blockIdx.z % most, rows = images * PLACES;
    if (slot >= counts[run]) return;
    Projection projection = projections[run * most + slot];
    Source source = sources[projection.source];
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    if (first_column >= source.width) return;
    grad += (long)run * images * TOKENS * WIDTH;
    SequenceRows left = {Rows<float>(grad, images * TOKENS, WIDTH), rows, projection.first_token};
    Rows<factor_number> right(source.tokens, rows, source.width);
    Tile tile = multiply<false, false>(left, right, first_row, first_column, 0, rows);
    sums += run * sum_step + projection.weights;
    bool wide = has_runs(sums, source.width);
    each_run(tile, first_row, first_column, WIDTH, source.width, [&](int row, int column, const Run &found, int count) {
        store(sums + (long)row * source.width + column, found, count, wide);
    });
}
KERNEL(embed_gradient)

// The gradient of the embedded tokens (N, D): that of all images, a thread for each number.
extern "C" __global__ void token_sums(const float *grad, float *sums, int images) {
    int run = blockIdx.z, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= TOKENS * WIDTH) return;
    grad += (long)run * images * TOKENS * WIDTH;
    float sum = 0.0f;
    for (int image = 0; image < images; image++) sum += grad[(long)image * TOKENS * WIDTH + at];
    sums[(long)run * TOKENS * WIDTH + at] = sum;
}
KERNEL(token_sums)

// Gradients of positions and class token, and for each source of its embedding and, among the sums, of its biases; a thread for
// each number of a place, of which blockIdx.x counts blocks.
extern "C" __global__ void embedding_from_sums(const Source *sources, const Projection *projections, const int *counts, int most,
                                               const Embedding *embeddings, const float *token_sums, float *gradients,
                                               long parameter_step, float *sums, long sum_step) {
    int run = blockIdx.z, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= PLACES * WIDTH) return;
    int place = at / WIDTH, d = at % WIDTH;
    token_sums += (long)run * TOKENS * WIDTH;
    gradients += run * parameter_step;
    Embedding embedding = embeddings[run];
    float position = 0.0f;
    for (int slot = 0; slot < counts[run]; slot++) {
        Projection projection = projections[run * most + slot];
        position += token_sums[(projection.first_token + place) * WIDTH + d];
        if (place > 0) continue;
        float sum = 0.0f;
        for (int other = 0; other < PLACES; other++) sum += token_sums[(projection.first_token + other) * WIDTH + d];
        gradients[projection.source_embed + d] = sum;
        sums[run * sum_step + projection.weights + (long)WIDTH * sources[projection.source].width + d] = sum;
    }
    gradients[embedding.position + at] = position;
    if (place == 0 && embedding.class_token >= 0) gradients[embedding.class_token + d] = token_sums[d];
}
KERNEL(embedding_from_sums)
