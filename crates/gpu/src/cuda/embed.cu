// From a batch's stored feature maps to the embedded tokens of all runs, and back. Maps stay in half precision until a product
// reads them. Twins: kernels::Standardise, vit::native::Embed.

// A source's maps (I, side, side, channels), of which a patch of `patch` by `patch` pixels makes a token; if there are more tokens
// than pixels, several share one. Value i of a token is multiplied by rate[i] and offset[i] is added. Or tokens that are ready,
// (I P, W). Which of these I images those of the batch are say `images` (B); without them they are the batch's own.
struct Source {
    const half_bits *maps;
    const float *ready, *rate, *offset;
    // Mean and 1 / standard deviation of each token, (B P, 2).
    float *moments;
    const int *images;
    int width, side, channels, patch;
};

// The image of token `row` of the batch.
__device__ long image_of(const Source &source, int row) {
    int image = row / PLACES;
    return source.images ? source.images[image] : image;
}

// Where value `i` of token `row` lies in the maps.
__device__ long place_in_maps(const Source &source, int row, int i) {
    int token = row % PLACES, run = source.patch * source.channels;
    long y = token / GRID * source.side / GRID + i / run, x = token % GRID * source.side / GRID;
    return ((image_of(source, row) * source.side + y) * source.side + x) * source.channels + i % run;
}

// Before the token's norm.
__device__ float stored_value(const Source &source, int row, int i) {
    return half_to_float(source.maps[place_in_maps(source, row, i)]) * source.rate[i] + source.offset[i];
}

__device__ float token_value(const Source &source, int row, int i) {
    if (source.ready) return source.ready[(image_of(source, row) * PLACES + row % PLACES) * source.width + i];
    return (stored_value(source, row, i) - source.moments[2 * row]) * source.moments[2 * row + 1];
}

// A warp for each token; blockIdx.y counts sources. Without `norm` a token is left as it is.
extern "C" __global__ void token_moments(const Source *sources, int rows, int norm, float epsilon) {
    Source source = sources[blockIdx.y];
    int row = row_of_warp();
    if (row >= rows || source.ready) return;
    float mean = 0.0f, rate = 1.0f;
    if (norm) {
        float sum = 0.0f, squares = 0.0f;
        for (int i = threadIdx.x % WARP; i < source.width; i += WARP) sum += stored_value(source, row, i);
        mean = warp_sum(sum) / source.width;
        for (int i = threadIdx.x % WARP; i < source.width; i += WARP) {
            float apart = stored_value(source, row, i) - mean;
            squares += apart * apart;
        }
        rate = 1.0f / sqrtf(warp_sum(squares) / source.width + epsilon);
    }
    if (threadIdx.x % WARP == 0) {
        source.moments[2 * row] = mean;
        source.moments[2 * row + 1] = rate;
    }
}
KERNEL(token_moments)

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

struct TokenRows {
    Source source;
    int rows;
    __device__ float operator()(int row, int k) const {
        return row < rows && k < source.width ? token_value(source, row, k) : 0.0f;
    }
};

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
    for (int slot = 0; slot < counts[run]; slot++) {
        Projection projection = projections[run * most + slot];
        Source source = sources[projection.source];
        TokenRows left = {source, rows};
        RightColumns right = {{weights + projection.weights, WIDTH, source.width}};
        Tile tile = multiply<true, true>(left, right, first_row, first_column, 0, source.width);
        for (int i = 0; i < THREAD_ROWS; i++)
            for (int j = 0; j < THREAD_COLUMNS; j++) {
                int row = first_row + tile_row(i), column = first_column + tile_column(j);
                if (row < rows && column < WIDTH)
                    x[sequence_row(row, projection.first_token) * WIDTH + column] += tile.sums[i][j];
            }
    }
}
KERNEL(embed)

struct SequenceColumns {
    const float *grad;
    int rows, first_token;
    __device__ float operator()(int d, int k) const {
        return d < WIDTH && k < rows ? grad[sequence_row(k, first_token) * WIDTH + d] : 0.0f;
    }
};

struct TokenColumns {
    Source source;
    int rows;
    __device__ float operator()(int k, int column) const {
        return k < rows && column < source.width ? token_value(source, k, column) : 0.0f;
    }
};

// Gradients of the projections' weights: grad (M, D)ᵀ tokens (B P, W). blockIdx.x counts tiles of a token's values, blockIdx.y
// those of the width, blockIdx.z runs and their projections.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    embed_gradient(const Source *sources, const Projection *projections, const int *counts, int most, const float *grad,
                   float *sums, long sum_step, int images) {
    int run = blockIdx.z / most, slot = blockIdx.z % most, rows = images * PLACES;
    if (slot >= counts[run]) return;
    Projection projection = projections[run * most + slot];
    Source source = sources[projection.source];
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    if (first_column >= source.width) return;
    SequenceColumns left = {grad + (long)run * images * TOKENS * WIDTH, rows, projection.first_token};
    TokenColumns right = {source, rows};
    Tile tile = multiply<false, false>(left, right, first_row, first_column, 0, rows);
    sums += run * sum_step + projection.weights;
    for (int i = 0; i < THREAD_ROWS; i++)
        for (int j = 0; j < THREAD_COLUMNS; j++) {
            int row = first_row + tile_row(i), column = first_column + tile_column(j);
            if (row < WIDTH && column < source.width) sums[(long)row * source.width + column] = tile.sums[i][j];
        }
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
