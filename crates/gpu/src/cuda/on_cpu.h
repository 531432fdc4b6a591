// CUDA's words for a C++ compiler, so that tests run the kernels' own source where there is no card: the threads of a block
// are coroutines that take turns at barriers and shuffles, blocks come one after the other. Slow, and right.
//
// A card promises no order between barriers, nor among blocks. The order here can be chosen: what depends on it lacks a barrier. Nor
// does it promise anything of shared memory that a block has not written: here that is not a number.

#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#ifdef __ELF__
#define __shared__ static __attribute__((section("shared_memory")))
#else
#define __shared__ static
#endif
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};

static Index threadIdx, blockIdx, blockDim, gridDim;

// What a block finds in shared memory before it writes there: nothing that is a number, where the linker tells where that memory is.
#ifdef __ELF__
extern "C" __attribute__((weak, visibility("hidden"))) char __start_shared_memory[], __stop_shared_memory[];

static inline void forget_shared_memory() {
    if (__start_shared_memory) std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
}
#else
static inline void forget_shared_memory() {}
#endif

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Half precision as it lies in memory.
typedef unsigned short half_bits;

static inline float half_to_float(half_bits bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return (float)value;
}

static inline half_bits float_to_half(float value) {
    _Float16 half = (_Float16)value;
    half_bits bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}

static inline unsigned two_halves(float first, float second) {
    return float_to_half(first) | (unsigned)float_to_half(second) << 16;
}

typedef unsigned short bf16_bits;

// To the nearest, the even one of two.
static inline bf16_bits float_to_bf16(float value) {
    unsigned bits = __float_as_uint(value);
    if (value != value) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline float bf16_to_float(bf16_bits bits) {
    return __uint_as_float((unsigned)bits << 16);
}

static inline float larger(float one, float other) {
    return one != one || one > other ? one : other;
}

namespace on_cpu {

constexpr unsigned MOST_THREADS = 1024, WARP = 32, STACK_BYTES = 1 << 16;

// A thread is entered once by its context, which gives it its stack; from then on by jumps, which ask nothing of the system.
struct Thread {
    ucontext_t context;
    jmp_buf place;
    std::vector<char> stack;
    bool begun, done;
};

// In which order warps, the threads in them and blocks come: 0 forwards, 1 backwards, others at random, anew each time.
static unsigned order;
static unsigned long long randomness;

static inline unsigned below(unsigned count) {
    randomness = randomness * 6364136223846793005ULL + 1442695040888963407ULL;
    return (randomness >> 33) % count;
}

static inline void arrange(std::vector<unsigned> &turns, unsigned count) {
    turns.resize(count);
    for (unsigned at = 0; at < count; at++) turns[at] = order == 1 ? count - 1 - at : at;
    if (order > 1)
        for (unsigned at = count; at > 1; at--) std::swap(turns[at - 1], turns[below(at)]);
}

// Lets its threads pass when all have come.
struct Barrier {
    unsigned waiting = 0, passed = 0;
};

static std::vector<Thread> threads(MOST_THREADS);
static ucontext_t entry;
static jmp_buf scheduler;
static unsigned current;
static unsigned long progress;
static Barrier block_barrier, warp_barriers[MOST_THREADS / WARP];
static float exchanged[MOST_THREADS];
static unsigned lefts[MOST_THREADS][4], rights[MOST_THREADS][2];
static void (*body)(void **);
static void **arguments;

static inline void wait(Barrier &barrier, unsigned count) {
    unsigned passed = barrier.passed;
    if (++barrier.waiting == count) {
        barrier.waiting = 0;
        barrier.passed++;
        progress++;
        return;
    }
    while (barrier.passed == passed)
        if (_setjmp(threads[current].place) == 0) _longjmp(scheduler, 1);
}

static void run_thread() {
    body(arguments);
    threads[current].done = true;
    progress++;
    _longjmp(scheduler, 1);
}

// Lets a thread go on until it waits or ends.
static inline void run(unsigned t) {
    Thread &thread = threads[t];
    current = t;
    threadIdx = {t, 0, 0};
    if (_setjmp(scheduler) == 0) {
        if (thread.begun) _longjmp(thread.place, 1);
        thread.begun = true;
        swapcontext(&entry, &thread.context);
    }
}

static inline void run_block() {
    forget_shared_memory();
    for (unsigned t = 0; t < blockDim.x; t++) {
        Thread &thread = threads[t];
        thread.stack.resize(STACK_BYTES);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = STACK_BYTES;
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, run_thread, 0);
        thread.begun = thread.done = false;
    }
    // Each warp goes as far as it gets without the others: as unfair as a card may be.
    static std::vector<unsigned> warps, lanes;
    for (bool left = true; left;) {
        unsigned long before = progress;
        left = false;
        arrange(warps, (blockDim.x + WARP - 1) / WARP);
        for (unsigned warp : warps)
            for (bool moves = true; moves;) {
                unsigned long before_warp = progress;
                arrange(lanes, WARP);
                for (unsigned lane : lanes) {
                    unsigned t = warp * WARP + lane;
                    if (t < blockDim.x && !threads[t].done) {
                        left = true;
                        run(t);
                    }
                }
                moves = progress != before_warp;
            }
        if (left && before == progress) {
            std::fprintf(stderr, "a kernel's threads wait for each other for ever\n");
            std::abort();
        }
    }
}

template <typename... Values, std::size_t... Places>
static void call(void (*kernel)(Values...), void **values, std::index_sequence<Places...>) {
    kernel(*(Values *)values[Places]...);
}

struct Kernel {
    const char *name;
    void (*body)(void **);
    std::vector<std::size_t> sizes;
};

static std::vector<Kernel> &kernels() {
    static std::vector<Kernel> all;
    return all;
}

template <auto function, typename... Values>
static bool add(const char *name, void (*)(Values...)) {
    auto body = [](void **values) { call(function, values, std::index_sequence_for<Values...>()); };
    kernels().push_back({name, body, {sizeof(Values)...}});
    return true;
}

} // namespace on_cpu

#define KERNEL(name) static const bool name##_added = on_cpu::add<name>(#name, name);

static inline void __syncthreads() {
    on_cpu::wait(on_cpu::block_barrier, blockDim.x);
}

// The value of another lane of the warp; a thread's own where there is no such lane.
static inline float of_lane(float value, unsigned lane) {
    using namespace on_cpu;
    unsigned me = current;
    exchanged[me] = value;
    wait(warp_barriers[me / WARP], WARP);
    float other = exchanged[lane < WARP ? me / WARP * WARP + lane : me];
    wait(warp_barriers[me / WARP], WARP);
    return other;
}

static inline float __shfl_xor_sync(unsigned, float value, unsigned mask) {
    return of_lane(value, on_cpu::current % on_cpu::WARP ^ mask);
}

static inline float __shfl_down_sync(unsigned, float value, unsigned lanes) {
    return of_lane(value, on_cpu::current % on_cpu::WARP + lanes);
}

// The warp's product of 16 by 16 by 8: each thread brings pairs of both factors, and adds to its own four numbers.
template <float (*to_float)(unsigned short)>
static inline void multiply_add_pairs(float *sums, float *sums_below, const unsigned *left, const unsigned *right) {
    using namespace on_cpu;
    unsigned me = current, first = me / WARP * WARP, lane = me % WARP;
    std::memcpy(lefts[me], left, sizeof lefts[me]);
    std::memcpy(rights[me], right, sizeof rights[me]);
    wait(warp_barriers[me / WARP], WARP);
    for (unsigned below = 0; below < 2; below++)
        for (unsigned next = 0; next < 2; next++) {
            float sum = 0.0f;
            for (unsigned k = 0; k < 16; k++) {
                unsigned holder = k % 8 / 2, half = k % 2 * 16;
                unsigned a = lefts[first + lane / 4 * 4 + holder][below + k / 8 * 2] >> half;
                unsigned b = rights[first + (lane % 4 * 2 + next) * 4 + holder][k / 8] >> half;
                sum += to_float((unsigned short)a) * to_float((unsigned short)b);
            }
            (below ? sums_below : sums)[next] += sum;
        }
    wait(warp_barriers[me / WARP], WARP);
}

static inline void multiply_add(float *sums, float *sums_below, const unsigned *left, const unsigned *right) {
    multiply_add_pairs<bf16_to_float>(sums, sums_below, left, right);
}

static inline void multiply_add_halves(float *sums, float *sums_below, const unsigned *left, const unsigned *right) {
    multiply_add_pairs<half_to_float>(sums, sums_below, left, right);
}

// Bytes of each of a kernel's arguments; none if there is no such kernel.
extern "C" const std::vector<std::size_t> *sizes(const char *name) {
    for (const on_cpu::Kernel &kernel : on_cpu::kernels())
        if (std::strcmp(kernel.name, name) == 0) return &kernel.sizes;
    return nullptr;
}

// What the driver's `cuLaunchKernel` does; 0, or 1 if there is no such kernel.
extern "C" int launch(const char *name, const unsigned *grid, unsigned threads, void **arguments) {
    for (const on_cpu::Kernel &kernel : on_cpu::kernels()) {
        if (std::strcmp(kernel.name, name) == 0) {
            on_cpu::body = kernel.body;
            on_cpu::arguments = arguments;
            blockDim = {threads, 1, 1};
            gridDim = {grid[0], grid[1], grid[2]};
            std::vector<unsigned> blocks;
            on_cpu::arrange(blocks, grid[0] * grid[1] * grid[2]);
            for (unsigned block : blocks) {
                blockIdx = {block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]};
                on_cpu::run_block();
            }
            return 0;
        }
    }
    return 1;
}

// Chooses the order from now on.
extern "C" void arrange(unsigned order) {
    on_cpu::order = order;
    on_cpu::randomness = order;
}
