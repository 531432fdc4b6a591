#include "card.h"

#include <cstdlib>
#include <cstring>
#include <random>

namespace card {

std::recursive_mutex everything;
std::string running = "nothing yet";

namespace {

enum class Order { Late, Early, Random };

std::mt19937_64 randomness;

Order order() {
    static Order chosen = [] {
        const char *said = std::getenv("CARD_ORDER");
        if (!said || !std::strcmp(said, "late")) return Order::Late;
        if (!std::strcmp(said, "early")) return Order::Early;
        randomness.seed(std::strtoull(said, nullptr, 10));
        return Order::Random;
    }();
    return chosen;
}

// Never given back: an event may tell of a stream that is gone.
std::vector<Stream *> &streams() {
    static std::vector<Stream *> all;
    return all;
}

} // namespace

Stream *new_stream() {
    streams().push_back(new Stream);
    return streams().back();
}

Stream &stream_of(CUstream handle) {
    static Stream *shared = new_stream();
    thread_local Stream *own = nullptr;
    if (handle == nullptr || handle == CU_STREAM_LEGACY) return *shared;
    if (handle != CU_STREAM_PER_THREAD) return *reinterpret_cast<Stream *>(handle);
    if (!own) own = new_stream();
    return *own;
}

void ask(Stream &stream, Work work) {
    if (stream.graph) {
        stream.graph->works.push_back(std::move(work));
        return;
    }
    stream.waiting.push_back(std::move(work));
    stream.asked++;
    let_run();
}

void advance(Stream &stream, uint64_t place) {
    while (stream.done < place) {
        Work work = std::move(stream.waiting.front());
        stream.waiting.pop_front();
        work();
        stream.done++;
    }
}

void finish(Stream &stream) { advance(stream, stream.asked); }

void finish_all() {
    for (size_t at = 0; at < streams().size(); at++) finish(*streams()[at]);
}

void let_run() {
    if (order() == Order::Early) finish_all();
    if (order() != Order::Random) return;
    for (unsigned turns = randomness() % 4; turns > 0; turns--) {
        Stream &stream = *streams()[randomness() % streams().size()];
        uint64_t left = stream.asked - stream.done;
        if (left > 0) advance(stream, stream.done + 1 + randomness() % left);
    }
}

bool breaks_recording(bool of_others) {
    bool breaks = false;
    for (Stream *stream : streams())
        if (stream->graph && (of_others || stream->recorder == std::this_thread::get_id())) breaks = stream->broken = true;
    return breaks;
}

} // namespace card
