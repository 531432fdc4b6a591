// Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762), a thread for each query
// forward, for each query and then for each key backward; the others come by in shared memory. Sequences of any length: the
// softmax is summed as its scores come (Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867) and computed again in the
// backward pass. Twin: kernels::Attention.

// Threads of a block, and how many rows come by at a time.
#define ATTENTION_THREADS 64

// Below any score.
#define LOWEST -3.402823466e38f

// Loaded and stored four numbers at a time where a head's width allows it.
struct __align__(HEAD_WIDTH % 4 == 0 ? 16 : 4) HeadRow {
    float values[HEAD_WIDTH];
};

__shared__ HeadRow one_rows[ATTENTION_THREADS], other_rows[ATTENTION_THREADS];
__shared__ float largest_of_rows[ATTENTION_THREADS], rate_of_rows[ATTENTION_THREADS], product_of_rows[ATTENTION_THREADS];

__device__ HeadRow load_row(const float *from) {
    return *(const HeadRow *)from;
}

__device__ void store_row(float *to, HeadRow row, float scale) {
    for (int i = 0; i < HEAD_WIDTH; i++) row.values[i] *= scale;
    *(HeadRow *)to = row;
}

__device__ float dot(const HeadRow &one, const HeadRow &other) {
    float sum = 0.0f;
    for (int i = 0; i < HEAD_WIDTH; i++) sum += one.values[i] * other.values[i];
    return sum;
}

__device__ void add_times(HeadRow *sum, const HeadRow &row, float factor) {
    for (int i = 0; i < HEAD_WIDTH; i++) sum->values[i] += factor * row.values[i];
}

// Where the rows of one image and head begin, with blockIdx.y counting images and heads and blockIdx.z runs.
struct HeadPlace {
    long first_row;
    int head;

    __device__ const float *part(const float *qkv, int row, int which) const {
        return qkv + (first_row + row) * 3 * WIDTH + which * WIDTH + head * HEAD_WIDTH;
    }

    __device__ long narrow(int row) const { return (first_row + row) * WIDTH + head * HEAD_WIDTH; }
    __device__ long statistic(int row) const { return (first_row + row) * HEADS + head; }
};

__device__ HeadPlace head_place() {
    long image = (long)blockIdx.z * (gridDim.y / HEADS) + blockIdx.y / HEADS;
    return {image * TOKENS, (int)(blockIdx.y % HEADS)};
}

__device__ int smaller(int one, int other) {
    return one < other ? one : other;
}

__device__ float score_scale() {
    return 1.0f / sqrtf((float)HEAD_WIDTH);
}

// y (…, D) of queries, keys and values (…, 3D), and for each row and head the largest score and 1 / the sum of the powers.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention(const float *qkv, float *y, float *largest, float *rate) {
    HeadPlace place = head_place();
    int query = blockIdx.x * ATTENTION_THREADS + threadIdx.x;
    bool works = query < TOKENS;
    HeadRow q = {}, sum = {};
    if (works) q = load_row(place.part(qkv, query, 0));
    float scale = score_scale(), top = LOWEST, total = 0.0f;
    for (int first = 0; first < TOKENS; first += ATTENTION_THREADS) {
        int key = first + threadIdx.x;
        if (key < TOKENS) {
            one_rows[threadIdx.x] = load_row(place.part(qkv, key, 1));
            other_rows[threadIdx.x] = load_row(place.part(qkv, key, 2));
        }
        __syncthreads();
        int count = smaller(ATTENTION_THREADS, TOKENS - first);
        for (int k = 0; works && k < count; k++) {
            float score = scale * dot(q, one_rows[k]);
            if (score > top) {
                float shrink = expf(top - score);
                total *= shrink;
                for (int i = 0; i < HEAD_WIDTH; i++) sum.values[i] *= shrink;
                top = score;
            }
            float power = expf(score - top);
            total += power;
            add_times(&sum, other_rows[k], power);
        }
        __syncthreads();
    }
    if (works) {
        store_row(y + place.narrow(query), sum, 1.0f / total);
        largest[place.statistic(query)] = top;
        rate[place.statistic(query)] = 1.0f / total;
    }
}
KERNEL(attention)

// The gradient of the queries, and for each row and head what the scores' gradients have in common: y · grad.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward_queries(const float *qkv, const float *y, const float *largest, const float *rate, const float *grad,
                               float *qkv_grad, float *product) {
    HeadPlace place = head_place();
    int query = blockIdx.x * ATTENTION_THREADS + threadIdx.x;
    bool works = query < TOKENS;
    HeadRow q = {}, y_grad = {}, q_grad = {};
    float scale = score_scale(), top = 0.0f, per_total = 0.0f, common = 0.0f;
    if (works) {
        q = load_row(place.part(qkv, query, 0));
        y_grad = load_row(grad + place.narrow(query));
        common = dot(load_row(y + place.narrow(query)), y_grad);
        top = largest[place.statistic(query)];
        per_total = rate[place.statistic(query)];
        product[place.statistic(query)] = common;
    }
    for (int first = 0; first < TOKENS; first += ATTENTION_THREADS) {
        int key = first + threadIdx.x;
        if (key < TOKENS) {
            one_rows[threadIdx.x] = load_row(place.part(qkv, key, 1));
            other_rows[threadIdx.x] = load_row(place.part(qkv, key, 2));
        }
        __syncthreads();
        int count = smaller(ATTENTION_THREADS, TOKENS - first);
        for (int k = 0; works && k < count; k++) {
            float weight = expf(scale * dot(q, one_rows[k]) - top) * per_total;
            add_times(&q_grad, one_rows[k], weight * (dot(y_grad, other_rows[k]) - common));
        }
        __syncthreads();
    }
    if (works) store_row(qkv_grad + (place.part(qkv, query, 0) - qkv), q_grad, scale);
}
KERNEL(attention_backward_queries)

// The gradients of keys and values.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_backward_keys(const float *qkv, const float *largest, const float *rate, const float *product,
                            const float *grad, float *qkv_grad) {
    HeadPlace place = head_place();
    int key = blockIdx.x * ATTENTION_THREADS + threadIdx.x;
    bool works = key < TOKENS;
    HeadRow k = {}, v = {}, k_grad = {}, v_grad = {};
    if (works) {
        k = load_row(place.part(qkv, key, 1));
        v = load_row(place.part(qkv, key, 2));
    }
    float scale = score_scale();
    for (int first = 0; first < TOKENS; first += ATTENTION_THREADS) {
        int query = first + threadIdx.x;
        if (query < TOKENS) {
            one_rows[threadIdx.x] = load_row(place.part(qkv, query, 0));
            other_rows[threadIdx.x] = load_row(grad + place.narrow(query));
            largest_of_rows[threadIdx.x] = largest[place.statistic(query)];
            rate_of_rows[threadIdx.x] = rate[place.statistic(query)];
            product_of_rows[threadIdx.x] = product[place.statistic(query)];
        }
        __syncthreads();
        int count = smaller(ATTENTION_THREADS, TOKENS - first);
        for (int q = 0; works && q < count; q++) {
            float weight = expf(scale * dot(one_rows[q], k) - largest_of_rows[q]) * rate_of_rows[q];
            add_times(&v_grad, other_rows[q], weight);
            add_times(&k_grad, one_rows[q], weight * (dot(other_rows[q], v) - product_of_rows[q]));
        }
        __syncthreads();
    }
    if (works) {
        store_row(qkv_grad + (place.part(qkv, key, 1) - qkv), k_grad, scale);
        store_row(qkv_grad + (place.part(qkv, key, 2) - qkv), v_grad, 1.0f);
    }
}
KERNEL(attention_backward_keys)
