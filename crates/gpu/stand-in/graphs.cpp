// cuDNN's graph API, of which the pass uses: a convolution, then a shortcut, a bias and ReLU, or some of them in that order.

#include "card.h"
#include "convolution.h"
#include "handle.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

using namespace card;
using namespace convolution;

namespace {

struct Tensor {
    Dims dims;
    int64_t id;
    bool is_virtual;
};

// What is computed: kept by whatever is made of it, whoever destroys the descriptors.
struct Fused {
    Tensor in, filters, out;
    Conv conv;
    std::optional<Tensor> shortcut, bias;
    bool relu = false, keeps_nan = false;
    // Whether it is of the form that there are kernels for.
    bool is_known = true;
};

struct Engine {
    std::vector<int> numerical, behaviour;
    bool runs = true;
};

struct Descriptor {
    explicit Descriptor(cudnnBackendDescriptorType_t kind) : kind(kind) {}

    cudnnBackendDescriptorType_t kind;
    bool is_final = false;
    std::map<int, std::vector<unsigned char>> attributes;
    std::shared_ptr<Fused> graph;
    Engine engine{};
    // Those that it speaks of, and how many that are there speak of it.
    std::vector<void *> of;
    int users = 0;
};

Descriptor &descriptor_of(cudnnBackendDescriptor_t raw) { return *static_cast<Descriptor *>(raw); }

size_t bytes_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4;
    }
}

template <typename T> std::vector<T> all(const Descriptor &of, int name) {
    auto found = of.attributes.find(name);
    if (found == of.attributes.end()) return {};
    std::vector<T> values(found->second.size() / sizeof(T));
    std::memcpy(static_cast<void *>(values.data()), found->second.data(), found->second.size());
    return values;
}

template <typename T> T one(const Descriptor &of, int name) {
    auto values = all<T>(of, name);
    if (values.size() != 1) stop("cuDNN: attribute " + std::to_string(name) + " of descriptor " + std::to_string(of.kind) + " is missing");
    return values[0];
}

Descriptor &other(const Descriptor &of, int name) { return descriptor_of(one<void *>(of, name)); }

bool has(const Descriptor &of, int name) { return of.attributes.count(name); }

Tensor tensor(const Descriptor &of, int name) {
    auto &from = other(of, name);
    auto dims = all<int64_t>(from, CUDNN_ATTR_TENSOR_DIMENSIONS), strides = all<int64_t>(from, CUDNN_ATTR_TENSOR_STRIDES);
    if (dims.size() != 4 || strides.size() != 4) stop("cuDNN: a tensor has not four dimensions");
    Tensor tensor{{one<cudnnDataType_t>(from, CUDNN_ATTR_TENSOR_DATA_TYPE), {}, {}}, one<int64_t>(from, CUDNN_ATTR_TENSOR_UNIQUE_ID),
                  has(from, CUDNN_ATTR_TENSOR_IS_VIRTUAL) && one<unsigned char>(from, CUDNN_ATTR_TENSOR_IS_VIRTUAL)};
    std::copy(dims.begin(), dims.end(), tensor.dims.dims.begin());
    std::copy(strides.begin(), strides.end(), tensor.dims.strides.begin());
    return tensor;
}

// All operations behind each other.
std::shared_ptr<Fused> graph_of(const Descriptor &descriptor) {
    auto graph = std::make_shared<Fused>();
    std::optional<Tensor> last;
    for (void *raw : all<void *>(descriptor, CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        auto &operation = descriptor_of(raw);
        if (operation.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) {
            if (last) stop("cuDNN: a convolution that is not the first");
            auto &conv = other(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
            auto both = [&](int name) {
                auto values = all<int64_t>(conv, name);
                if (values.size() != 2 || values[0] != values[1]) stop("cuDNN: rows and columns differ");
                return values[0];
            };
            if (both(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS) != both(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS) ||
                both(CUDNN_ATTR_CONVOLUTION_DILATIONS) != 1 || one<float>(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA) != 1 ||
                one<float>(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA) != 0 ||
                one<int>(conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
                one<int>(conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
                stop("cuDNN: another kind of convolution");
            graph->conv = {both(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), both(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), true};
            graph->in = tensor(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
            graph->filters = tensor(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
            last = tensor(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
            continue;
        }
        auto from = tensor(operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
        if (!last || from.id != last->id) stop("cuDNN: an operation on something else than the one before gave");
        // Rounded in between, sums are none of those that there are kernels for.
        graph->is_known &= last->is_virtual && last->dims.type == CUDNN_DATA_FLOAT;
        auto &pointwise = other(operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
        auto mode = one<cudnnPointwiseMode_t>(pointwise, CUDNN_ATTR_POINTWISE_MODE);
        if (mode == CUDNN_POINTWISE_RELU_FWD) {
            graph->relu = true;
            graph->keeps_nan = has(pointwise, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION) &&
                               one<cudnnNanPropagation_t>(pointwise, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION) == CUDNN_PROPAGATE_NAN;
        } else if (mode == CUDNN_POINTWISE_ADD) {
            auto added = tensor(operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
            bool is_bias = added.dims.dims[0] == 1 && added.dims.dims[2] == 1;
            graph->is_known &= !graph->relu && !graph->bias && (is_bias || !graph->shortcut) && added.dims.type == graph->in.dims.type;
            (is_bias ? graph->bias : graph->shortcut) = added;
        } else {
            stop("cuDNN: another operation");
        }
        last = tensor(operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    }
    if (!last || last->is_virtual) stop("cuDNN: a graph without an output");
    graph->out = *last;
    return graph;
}

// The heuristics' answer: kernels that would have to be compiled, without tensor cores, with another result each time, one that does not
// run on this card, and one that does.
const Engine ENGINES[] = {
    {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, true},
    {{}, {}, true},
    {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, true},
    {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, false},
    {{CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, true},
};

template <typename T> void give(std::vector<T> values, int64_t room, int64_t *count, void *into) {
    *count = values.size();
    if (into) std::memcpy(into, values.data(), sizeof(T) * std::min<int64_t>(room, values.size()));
}

} // namespace

extern "C" {

void cudnnGetLastErrorString(char *message, size_t room) { std::strncpy(message, "the stand-in says so", room); }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t *made) {
    *made = new Descriptor(kind);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t made) {
    Lock lock(everything);
    auto &descriptor = descriptor_of(made);
    if (descriptor.users > 0) stop("cuDNN: a descriptor goes before those that speak of it");
    for (void *of : descriptor.of) descriptor_of(of).users--;
    if (descriptor.kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && descriptor.is_final)
        one<Handle *>(descriptor, CUDNN_ATTR_EXECUTION_PLAN_HANDLE)->plans--;
    delete &descriptor;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t made, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t count, const void *values) {
    Lock lock(everything);
    auto &descriptor = descriptor_of(made);
    if (descriptor.is_final) stop("cuDNN: an attribute is set after the descriptor was final");
    auto from = static_cast<const unsigned char *>(values);
    descriptor.attributes[name].assign(from, from + count * bytes_of(type));
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (void *raw : all<void *>(descriptor, name)) {
            if (!descriptor_of(raw).is_final) stop("cuDNN: a descriptor is used before it is final");
            descriptor_of(raw).users++;
            descriptor.of.push_back(raw);
        }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t made) {
    Lock lock(everything);
    auto &descriptor = descriptor_of(made);
    if (descriptor.kind == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
        one<void *>(descriptor, CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
        descriptor.graph = graph_of(descriptor);
    } else if (descriptor.kind == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) {
        descriptor.graph = other(descriptor, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).graph;
    } else if (descriptor.kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        one<void *>(descriptor, CUDNN_ATTR_EXECUTION_PLAN_HANDLE);
        auto &config = other(descriptor, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
        if (!config.engine.runs) return CUDNN_STATUS_NOT_SUPPORTED;
        if (!config.engine.behaviour.empty() || config.engine.numerical != std::vector<int>{CUDNN_NUMERICAL_NOTE_TENSOR_CORE})
            stop("cuDNN: a kernel that the pass should not want");
        descriptor.graph = config.graph;
        one<Handle *>(descriptor, CUDNN_ATTR_EXECUTION_PLAN_HANDLE)->plans++;
    }
    descriptor.is_final = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t made, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t,
                                       int64_t room, int64_t *count, void *into) {
    auto &descriptor = descriptor_of(made);
    auto fill = [&](long number, const std::shared_ptr<Fused> &graph, const Engine &engine) {
        auto &to = descriptor_of(static_cast<void **>(into)[number]);
        to.graph = graph, to.engine = engine, to.is_final = true;
    };
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        *count = descriptor.graph->is_known && !std::getenv("CARD_UNFUSED") ? std::size(ENGINES) : 0;
        for (long number = 0; into && number < std::min(*count, room); number++) fill(number, descriptor.graph, ENGINES[number]);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        *count = 1;
        if (into && room > 0) fill(0, descriptor.graph, descriptor.engine);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        give(descriptor.engine.numerical, room, count, into);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        give(descriptor.engine.behaviour, room, count, into);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        give(std::vector<int64_t>{1000}, room, count, into);
        return CUDNN_STATUS_SUCCESS;
    default: stop("cuDNN: attribute " + std::to_string(name) + " is asked for, which the stand-in lacks");
    }
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t made, cudnnBackendDescriptor_t pack) {
    Lock lock(everything);
    auto &plan = descriptor_of(made), &given = descriptor_of(pack);
    if (one<void *>(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE) != handle) stop("cuDNN: a plan is run with another handle than its own");
    auto ids = all<int64_t>(given, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto places = all<char *>(given, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    auto *workspace = one<char *>(given, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    std::map<int64_t, char *> at;
    for (size_t number = 0; number < ids.size() && number < places.size(); number++) at[ids[number]] = places[number];
    auto place = [&](const Tensor &tensor) {
        if (!at.count(tensor.id)) stop("cuDNN: a tensor of the graph has no place");
        return at[tensor.id];
    };
    Fused graph = *plan.graph;
    char *x = place(graph.in), *w = place(graph.filters), *y = place(graph.out);
    char *z = graph.shortcut ? place(*graph.shortcut) : nullptr, *b = graph.bias ? place(*graph.bias) : nullptr;
    ask(stream_of(reinterpret_cast<Handle *>(handle)->stream), [=] {
        running = "a fused convolution";
        std::memset(workspace, 0, 1000);
        const Dims &out = graph.out.dims;
        convolve(graph.in.dims, x, graph.filters.dims, w, graph.conv, out, [&](float sum, long n, long c, long row, long column) {
            if (z) sum += read(z, graph.shortcut->dims.type, graph.shortcut->dims.place(n, c, row, column));
            if (b) sum += read(b, graph.bias->dims.type, graph.bias->dims.place(0, c, 0, 0));
            if (graph.relu && (sum < 0 || (sum != sum && !graph.keeps_nan))) sum = 0;
            write(y, out.type, out.place(n, c, row, column), sum);
        });
    });
    return CUDNN_STATUS_SUCCESS;
}

} // extern "C"
