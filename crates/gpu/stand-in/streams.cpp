#include "card.h"

#include <cstdlib>
#include <cstring>

namespace card {

std::recursive_mutex everything;
std::string running = "nothing yet";

namespace {

enum class Order { Late, Early, Uneven };

uint64_t number;

Order order() {
    static Order chosen = [] {
        const char *said = std::getenv("CARD_ORDER");
        if (!said || !std::strcmp(said, "late")) return Order::Late;
        if (!std::strcmp(said, "early")) return Order::Early;
        number = std::strtoull(said, nullptr, 10);
        return Order::Uneven;
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
    Stream *made = new Stream;
    Order chosen = order();
    uint64_t mixed = (number * 1000003 + streams().size() + 1) * 0x9e3779b97f4a7c15;
    made->is_early = chosen == Order::Early || (chosen == Order::Uneven && mixed >> 63);
    streams().push_back(made);
    return made;
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
    if (stream.is_early) finish(stream);
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

bool breaks_recording(bool of_others) {
    bool breaks = false;
    for (Stream *stream : streams())
        if (stream->graph && (of_others || stream->recorder == std::this_thread::get_id())) breaks = stream->broken = true;
    return breaks;
}

} // namespace card
