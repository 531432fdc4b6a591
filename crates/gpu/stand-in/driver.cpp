// The driver's functions that the project and its libraries call, as its reference has them:
// https://docs.nvidia.com/cuda/cuda-driver-api/

#include "card.h"

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <unistd.h>
#include <utility>

using namespace card;

namespace {

struct Event {
    Stream *stream = nullptr;
    uint64_t place = 0;
    bool captured = false;
};

// One module: compiled kernels of ours, or candle's, whose names alone count.
struct Module {
    void *library = nullptr;
};

struct Function {
    std::string name;
    std::vector<size_t> sizes;
    Module *module = nullptr;
    const CandleEntry *candle = nullptr;
};

thread_local bool has_context;

#define NEEDS_CONTEXT                                                                                                              \
    Lock lock(everything);                                                                                                         \
    if (!has_context) return CUDA_ERROR_INVALID_CONTEXT

Event &event_of(CUevent event) { return *reinterpret_cast<Event *>(event); }

void run_kernel(const Function &function, const unsigned *grid, unsigned threads, void **arguments) {
    running = function.name;
    if (function.candle) {
        function.candle->run(arguments);
    } else {
        using Launch = int (*)(const char *, const unsigned *, unsigned, void **);
        auto launch = reinterpret_cast<Launch>(dlsym(function.module->library, "launch"));
        if (launch(function.name.c_str(), grid, threads, arguments) != 0) stop("a kernel is gone");
    }
    running = "nothing";
}

} // namespace

extern "C" {

CUresult cuInit(unsigned) {
    name_faults();
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name) {
    static const std::map<int, const char *> names = {
        {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
        {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? "another error" : found->second;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
    if (error != CUDA_ERROR_OUT_OF_MEMORY) return cuGetErrorName(error, text);
    *text = "out of memory";
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice) {
    std::strncpy(name, "a card that is none", length);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice) {
    Lock lock(everything);
    size_t free;
    free_bytes(&free, bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    static const std::map<int, int> values = {
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},       {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},         {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},       {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152}};
    auto found = values.find(attribute);
    if (found == values.end()) return CUDA_ERROR_INVALID_VALUE;
    *value = found->second;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    *context = reinterpret_cast<CUcontext>(&everything);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = has_context ? reinterpret_cast<CUcontext>(&everything) : nullptr;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    has_context = context != nullptr;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    NEEDS_CONTEXT;
    // Whatever their modes.
    if (breaks_recording(true)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    finish_all();
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    NEEDS_CONTEXT;
    if (flags != CU_STREAM_NON_BLOCKING) stop("a stream is made that waits for the one that all share");
    *stream = reinterpret_cast<CUstream>(new_stream());
    return CUDA_SUCCESS;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

// What it was asked for still runs.
CUresult cuStreamDestroy(CUstream) {
    NEEDS_CONTEXT;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    if (stream.graph) {
        stream.broken = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    finish(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    Event &of = event_of(event);
    if (!of.stream) return CUDA_SUCCESS;
    if (of.captured != (stream.graph != nullptr)) {
        stream.broken = true;
        return of.captured ? CUDA_ERROR_CAPTURED_EVENT : CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (stream.graph) return CUDA_SUCCESS;
    ask(stream, [other = of.stream, place = of.place] { advance(*other, place); });
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    NEEDS_CONTEXT;
    *status = stream_of(handle).graph ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    if (handle == nullptr || handle == CU_STREAM_LEGACY || stream.graph || mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    stream.graph = new Graph;
    stream.recorder = std::this_thread::get_id();
    stream.broken = false;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    if (!stream.graph || stream.recorder != std::this_thread::get_id()) return CUDA_ERROR_INVALID_VALUE;
    Graph *taken_down = std::exchange(stream.graph, nullptr);
    if (!stream.broken) {
        *graph = reinterpret_cast<CUgraph>(taken_down);
        return CUDA_SUCCESS;
    }
    delete taken_down;
    *graph = nullptr;
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long) {
    NEEDS_CONTEXT;
    *exec = reinterpret_cast<CUgraphExec>(new Graph(*reinterpret_cast<Graph *>(graph)));
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    NEEDS_CONTEXT;
    for (const Work &work : reinterpret_cast<Graph *>(exec)->works) ask(stream_of(handle), work);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec, CUstream) { return CUDA_SUCCESS; }

CUresult cuGraphDestroy(CUgraph graph) {
    delete reinterpret_cast<Graph *>(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    delete reinterpret_cast<Graph *>(exec);
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned) {
    NEEDS_CONTEXT;
    *event = reinterpret_cast<CUevent>(new Event);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    NEEDS_CONTEXT;
    delete &event_of(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream handle) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    event_of(event) = {&stream, stream.asked, stream.graph != nullptr};
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    NEEDS_CONTEXT;
    Event &of = event_of(event);
    if (of.captured) return CUDA_ERROR_CAPTURED_EVENT;
    if (of.stream) advance(*of.stream, of.place);
    return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
    NEEDS_CONTEXT;
    Event &of = event_of(event);
    return !of.stream || of.stream->done >= of.place ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent, CUevent) {
    *milliseconds = 1.0f;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t *free, size_t *total) {
    NEEDS_CONTEXT;
    free_bytes(free, total);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice) {
    *pool = reinterpret_cast<CUmemoryPool>(&everything);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) stop("another attribute of a pool is set");
    keep(*static_cast<uint64_t *>(value));
    return CUDA_SUCCESS;
}

CUresult cuMemPoolTrimTo(CUmemoryPool, size_t bytes) {
    trim(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) {
    NEEDS_CONTEXT;
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (breaks_recording()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    *address = allocate(bytes, false);
    if (*address) appear(*address);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    // A graph may have memory of its own; none here does.
    if (stream.graph) {
        stream.broken = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    *address = allocate(bytes, true);
    if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
    ask(stream, [address = *address] { appear(address); });
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
    NEEDS_CONTEXT;
    if (!is_memory(address)) return CUDA_ERROR_INVALID_VALUE;
    if (breaks_recording()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    finish_all();
    vanish(address);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    NEEDS_CONTEXT;
    if (!is_memory(address)) return CUDA_ERROR_INVALID_VALUE;
    ask(stream_of(handle), [address] {
        running = "a release of memory";
        vanish(address);
    });
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    NEEDS_CONTEXT;
    if (breaks_recording()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    *address = allocate_pinned(bytes);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *address) {
    NEEDS_CONTEXT;
    return free_pinned(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream handle) {
    NEEDS_CONTEXT;
    auto deliver = [to, bytes](const void *from) {
        running = "a copy to the card";
        std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    };
    if (is_pinned(from, bytes)) {
        ask(stream_of(handle), [=] { deliver(from); });
        return CUDA_SUCCESS;
    }
    if (stream_of(handle).graph) stop("a copy from memory that is not pinned is taken down");
    // What the bus does not reach is put down elsewhere before the call returns.
    std::vector<char> staged(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    ask(stream_of(handle), [deliver, staged = std::move(staged)] { deliver(staged.data()); });
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream handle) {
    NEEDS_CONTEXT;
    Stream &stream = stream_of(handle);
    ask(stream, [=] {
        running = "a copy from the card";
        std::memcpy(to, reinterpret_cast<void *>(from), bytes);
    });
    // To what the bus does not reach, the call returns when it is done.
    if (!is_pinned(to, bytes) && !stream.graph) finish(stream);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream handle) {
    NEEDS_CONTEXT;
    ask(stream_of(handle), [=] {
        running = "a copy within the card";
        std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    });
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream handle) {
    NEEDS_CONTEXT;
    ask(stream_of(handle), [=] {
        running = "a filling of memory";
        std::memset(reinterpret_cast<void *>(to), value, bytes);
    });
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    NEEDS_CONTEXT;
    // What the stand-in's compiler wrote is a library; all else is code for a real card, of which only names count here.
    const char *text = static_cast<const char *>(image), *mark = "library ";
    Module *loaded = new Module;
    if (std::strncmp(text, mark, std::strlen(mark)) == 0) {
        char *code, path[] = "/tmp/card-XXXXXX";
        size_t bytes = std::strtoull(text + std::strlen(mark), &code, 10);
        int file = mkstemp(path);
        if (file < 0 || write(file, code + 1, bytes) != static_cast<ssize_t>(bytes)) stop("there is no room for kernels");
        close(file);
        loaded->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!loaded->library) stop(dlerror());
        // What is loaded stays, also without its file.
        std::filesystem::remove(path);
    }
    *module = reinterpret_cast<CUmodule>(loaded);
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

CUresult cuModuleGetFunction(CUfunction *function, CUmodule of, const char *name) {
    NEEDS_CONTEXT;
    Module *module = reinterpret_cast<Module *>(of);
    Function found = {name, {}, module, nullptr};
    if (module->library) {
        using Sizes = const std::vector<size_t> *(*)(const char *);
        auto sizes = reinterpret_cast<Sizes>(dlsym(module->library, "sizes"))(name);
        if (!sizes) return CUDA_ERROR_NOT_FOUND;
        found.sizes = *sizes;
    } else {
        found.candle = candle_kernel(name);
        if (!found.candle) stop("candle asks for its kernel `" + std::string(name) + "`, which the stand-in lacks");
        found.sizes = found.candle->sizes;
    }
    *function = reinterpret_cast<CUfunction>(new Function(found));
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction of, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y, unsigned threads_z,
                        unsigned, CUstream handle, void **arguments, void **) {
    NEEDS_CONTEXT;
    constexpr unsigned MOST_X = 2147483647, MOST_YZ = 65535, MOST_THREADS = 1024;
    bool fits = x > 0 && y > 0 && z > 0 && x <= MOST_X && y <= MOST_YZ && z <= MOST_YZ && threads > 0 && threads <= MOST_THREADS;
    if (!fits || threads_y != 1 || threads_z != 1) return CUDA_ERROR_INVALID_VALUE;
    if (stream_of(handle).graph && stream_of(handle).broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    const Function &function = *reinterpret_cast<Function *>(of);
    std::vector<std::vector<char>> values;
    for (size_t at = 0; at < function.sizes.size(); at++) {
        const char *value = static_cast<const char *>(arguments[at]);
        values.emplace_back(value, value + function.sizes[at]);
    }
    ask(stream_of(handle), [=]() mutable {
        std::vector<void *> places;
        for (std::vector<char> &value : values) places.push_back(value.data());
        const unsigned grid[] = {x, y, z};
        run_kernel(function, grid, threads, places.data());
    });
    return CUDA_SUCCESS;
}

} // extern "C"
