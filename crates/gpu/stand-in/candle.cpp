// Those of candle's kernels that run between the project's own: conversions and fillings of tensors that lie in their memory as they
// are.

#include "card.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace card {

namespace {

struct Bf16 {
    unsigned short bits;

    explicit operator _Float16() const { return static_cast<_Float16>(static_cast<float>(*this)); }

    operator float() const {
        unsigned wide = static_cast<unsigned>(bits) << 16;
        float value;
        std::memcpy(&value, &wide, sizeof value);
        return value;
    }
};

// The numbers of the tensor that a kernel is given.
size_t count_of(void **arguments) {
    if (*static_cast<const size_t **>(arguments[2])) stop("a kernel of candle's is given strides, which the stand-in lacks");
    return *static_cast<size_t *>(arguments[0]);
}

template <typename From, typename To> void cast(void **arguments) {
    size_t count = count_of(arguments);
    const From *from = *static_cast<const From **>(arguments[3]);
    To *to = *static_cast<To **>(arguments[4]);
    for (size_t at = 0; at < count; at++) to[at] = static_cast<To>(from[at]);
}

void fill(void **arguments) {
    double *to = *static_cast<double **>(arguments[4]);
    std::fill(to, to + count_of(arguments), *static_cast<double *>(arguments[3]));
}

} // namespace

const CandleEntry *candle_kernel(const char *name) {
    static const std::vector<size_t> sizes(5, 8);
    static const std::map<std::string, CandleEntry> all = {
        {"cast_bf16_f16", {cast<Bf16, _Float16>, sizes}},
        {"cast_bf16_f32", {cast<Bf16, float>, sizes}},
        {"cast_f64_f32", {cast<double, float>, sizes}},
        {"const_set_f64", {fill, sizes}},
        {"cast_f32_f16", {cast<float, _Float16>, sizes}},
    };
    auto found = all.find(name);
    return found == all.end() ? nullptr : &found->second;
}

} // namespace card
