// Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762): two threads for each query
// forward, for each query and then for each key backward, each with half of the head's width; the others come by in shared memory.
// Sequences of any length: the softmax is summed as its scores come (Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867)
// and computed again in the backward pass. Twin: kernels::Attention.

// Rows that a block works on, and how many come by at a time.
#define ATTENTION_ROWS 64
// Threads that share a row, each of which takes a part of it.
#define LANES (HEAD_WIDTH % 2 == 0 ? 2 : 1)
#define PART_WIDTH (HEAD_WIDTH / LANES)
#define ATTENTION_THREADS (ATTENTION_ROWS * LANES)

// Below any score.
#define LOWEST -3.402823466e38f

// Loaded and stored four numbers at a time where a part's width allows it.
struct __align__(PART_WIDTH % 4 == 0 ? 16 : 4) Part {
    float values[PART_WIDTH];
};

__shared__ Part one_rows[ATTENTION_ROWS][LANES], other_rows[ATTENTION_ROWS][LANES];
__shared__ float largest_of_rows[ATTENTION_ROWS], rate_of_rows[ATTENTION_ROWS], product_of_rows[ATTENTION_ROWS];

// The row of this thread in its block, and its part of it.
__device__ int attention_row() {
    return threadIdx.x / LANES;
}

__device__ int attention_lane() {
    return threadIdx.x % LANES;
}

__device__ Part load_part(const float *from) {
    return *(const Part *)from;
}

__device__ Part load_part_of_factors(const factor_number *from) {
    Part part;
    for (int i = 0; i < PART_WIDTH; i++) part.values[i] = of_factor(from[i]);
    return part;
}

struct __align__(PART_WIDTH % 4 == 0 ? 4 * sizeof(factor_number) : sizeof(factor_number)) FactorPart {
    factor_number values[PART_WIDTH];
};

__device__ void store_part(factor_number *to, const Part &part, float scale) {
    FactorPart factors;
    for (int i = 0; i < PART_WIDTH; i++) factors.values[i] = to_factor(part.values[i] * scale);
    *(FactorPart *)to = factors;
}

// Of whole rows, in all threads that share them.
__device__ float dot(const Part &one, const Part &other) {
    float sum = 0.0f;
    for (int i = 0; i < PART_WIDTH; i++) sum += one.values[i] * other.values[i];
    for (unsigned mask = LANES / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

__device__ void add_times(Part *sum, const Part &part, float factor) {
    for (int i = 0; i < PART_WIDTH; i++) sum->values[i] += factor * part.values[i];
}

// Where the parts of one image and head begin that this thread takes, with blockIdx.x counting images and heads, of which there may
// be more than the other two may count, blockIdx.y rows by blocks, and blockIdx.z runs.
struct HeadPlace {
    long first_row;
    int head;

    // Of queries, keys or values, and of their gradients.
    __device__ long wide(int row, int which) const {
        return (first_row + row) * 3 * WIDTH + which * WIDTH + head * HEAD_WIDTH + attention_lane() * PART_WIDTH;
    }

    __device__ long narrow(int row) const {
        return (first_row + row) * WIDTH + head * HEAD_WIDTH + attention_lane() * PART_WIDTH;
    }

    __device__ long statistic(int row) const { return (first_row + row) * HEADS + head; }
};

__device__ HeadPlace head_place() {
    long image = (long)blockIdx.z * (gridDim.x / HEADS) + blockIdx.x / HEADS;
    return {image * TOKENS, (int)(blockIdx.x % HEADS)};
}

__device__ int smaller(int one, int other) {
    return one < other ? one : other;
}

__device__ float score_scale() {
    return 1.0f / sqrtf((float)HEAD_WIDTH);
}

// Brings the keys and values from `first` on to shared memory.
__device__ void bring_keys(const float *qkv, const HeadPlace &place, int first) {
    int key = first + attention_row();
    if (key >= TOKENS) return;
    one_rows[attention_row()][attention_lane()] = load_part(qkv + place.wide(key, 1));
    other_rows[attention_row()][attention_lane()] = load_part(qkv + place.wide(key, 2));
}

// y (…, D) of queries, keys and values (…, 3D), and for each row and head the largest score and 1 / the sum of the powers.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention(const float *qkv, factor_number *y, float *largest, float *rate) {
    HeadPlace place = head_place();
    int query = blockIdx.y * ATTENTION_ROWS + attention_row(), lane = attention_lane();
    bool works = query < TOKENS;
    Part q = {}, sum = {};
    if (works) q = load_part(qkv + place.wide(query, 0));
    float scale = score_scale(), top = LOWEST, total = 0.0f;
    for (int first = 0; first < TOKENS; first += ATTENTION_ROWS) {
        bring_keys(qkv, place, first);
        __syncthreads();
        int count = smaller(ATTENTION_ROWS, TOKENS - first);
        for (int k = 0; k < count; k++) {
            float score = scale * dot(q, one_rows[k][lane]);
            if (score > top) {
                float shrink = expf(top - score);
                total *= shrink;
                for (int i = 0; i < PART_WIDTH; i++) sum.values[i] *= shrink;
                top = score;
            }
            float power = expf(score - top);
            total += power;
            add_times(&sum, other_rows[k][lane], power);
        }
        __syncthreads();
    }
    if (!works) return;
    store_part(y + place.narrow(query), sum, 1.0f / total);
    if (lane > 0) return;
    largest[place.statistic(query)] = top;
    rate[place.statistic(query)] = 1.0f / total;
}
KERNEL(attention)

// The gradient of the queries, and for each row and head what the scores' gradients have in common: y · grad.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward_queries(const float *qkv, const factor_number *y, const float *largest, const float *rate,
                               const float *grad, factor_number *qkv_grad, float *product) {
    HeadPlace place = head_place();
    int query = blockIdx.y * ATTENTION_ROWS + attention_row(), lane = attention_lane();
    bool works = query < TOKENS;
    Part q = {}, y_grad = {}, answer = {}, q_grad = {};
    float scale = score_scale(), top = 0.0f, per_total = 0.0f;
    if (works) {
        q = load_part(qkv + place.wide(query, 0));
        y_grad = load_part(grad + place.narrow(query));
        answer = load_part_of_factors(y + place.narrow(query));
        top = largest[place.statistic(query)];
        per_total = rate[place.statistic(query)];
    }
    float common = dot(answer, y_grad);
    if (works && lane == 0) product[place.statistic(query)] = common;
    for (int first = 0; first < TOKENS; first += ATTENTION_ROWS) {
        bring_keys(qkv, place, first);
        __syncthreads();
        int count = smaller(ATTENTION_ROWS, TOKENS - first);
        for (int k = 0; k < count; k++) {
            float weight = expf(scale * dot(q, one_rows[k][lane]) - top) * per_total;
            add_times(&q_grad, one_rows[k][lane], weight * (dot(y_grad, other_rows[k][lane]) - common));
        }
        __syncthreads();
    }
    if (works) store_part(qkv_grad + place.wide(query, 0), q_grad, scale);
}
KERNEL(attention_backward_queries)

// The gradients of keys and values.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward_keys(const float *qkv, const float *largest, const float *rate, const float *product,
                            const float *grad, factor_number *qkv_grad) {
    HeadPlace place = head_place();
    int row = attention_row(), lane = attention_lane(), key = blockIdx.y * ATTENTION_ROWS + row;
    bool works = key < TOKENS;
    Part k = {}, v = {}, k_grad = {}, v_grad = {};
    if (works) {
        k = load_part(qkv + place.wide(key, 1));
        v = load_part(qkv + place.wide(key, 2));
    }
    float scale = score_scale();
    for (int first = 0; first < TOKENS; first += ATTENTION_ROWS) {
        int query = first + row;
        if (query < TOKENS) {
            one_rows[row][lane] = load_part(qkv + place.wide(query, 0));
            other_rows[row][lane] = load_part(grad + place.narrow(query));
            if (lane == 0) {
                largest_of_rows[row] = largest[place.statistic(query)];
                rate_of_rows[row] = rate[place.statistic(query)];
                product_of_rows[row] = product[place.statistic(query)];
            }
        }
        __syncthreads();
        int count = smaller(ATTENTION_ROWS, TOKENS - first);
        for (int q = 0; q < count; q++) {
            float weight = expf(scale * dot(one_rows[q][lane], k) - largest_of_rows[q]) * rate_of_rows[q];
            add_times(&v_grad, other_rows[q][lane], weight);
            add_times(&k_grad, one_rows[q][lane], weight * (dot(other_rows[q][lane], v) - product_of_rows[q]));
        }
        __syncthreads();
    }
    if (!works) return;
    store_part(qkv_grad + place.wide(key, 1), k_grad, scale);
    store_part(qkv_grad + place.wide(key, 2), v_grad, 1.0f);
}
KERNEL(attention_backward_keys)
