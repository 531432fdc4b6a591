// A card that is none: what an NVIDIA driver promises, kept to the letter and in the unkindest way, on a processor.
//
// Work that a stream is asked for runs when somebody waits for it (CARD_ORDER = late), at once (early), or, with a number, at once in
// some streams and late in the others, others with each number: so that whatever two streams share without saying so comes in either
// order. Memory is there from where its stream has come to the allocation until where it has come to its release: who touches it before
// or after is stopped and named. What is written up to a page beyond its ends is found when it is given back, or in the end; what is
// read there is nonsense. CARD_BYTES is how much of it there is; CARD_FAILS the allocation that fails although there is room.
// CARD_UNFUSED has cuDNN know no kernels for graphs of operations.
//
// Refused though a card would not: forks within what is taken down, and memory of its own there. Not kept: what streams that are not
// made non-blocking wait for by themselves. Who asks for such a thing is stopped.

#pragma once

#include <cuda.h>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace card {

using Work = std::function<void()>;

// All that follows is called with this held. Kernels run while it is: one after the other, as the processor has no more.
extern std::recursive_mutex everything;
using Lock = std::lock_guard<std::recursive_mutex>;

struct Graph {
    std::vector<Work> works;
};

struct Stream {
    std::deque<Work> waiting;
    uint64_t asked = 0, done = 0;
    // Whether its work runs at once.
    bool is_early = false;
    // What is taken down, since when and by whom; broken by what may not be asked for meanwhile.
    Graph *graph = nullptr;
    std::thread::id recorder;
    bool broken = false;
};

// The stream of a handle: also the one that all share, and each thread's own.
Stream &stream_of(CUstream handle);
Stream *new_stream();
// Asks for `work`, or takes it down.
void ask(Stream &stream, Work work);
// Lets a stream come to `place`, and others as far as it waits for them.
void advance(Stream &stream, uint64_t place);
void finish(Stream &stream);
void finish_all();
// Whether this thread, or any with `of_others`, is taking something down, which what it asks for now breaks.
bool breaks_recording(bool of_others = false);

// Memory of the card. 0 if there is not as much.
CUdeviceptr allocate(size_t bytes, bool of_pool);
void appear(CUdeviceptr address);
void vanish(CUdeviceptr address);
bool is_memory(CUdeviceptr address);
void free_bytes(size_t *free, size_t *total);
// What was given back of a pool's memory stays the pool's, up to so many bytes; nobody else gets it until it is trimmed.
void keep(uint64_t most);
void trim(size_t to);

// Memory of the processor that the bus reaches.
void *allocate_pinned(size_t bytes);
bool free_pinned(void *address);
bool is_pinned(const void *address, size_t bytes);

// What is running, for who reads of a fault.
extern std::string running;
// Has faults say so, from now on.
void name_faults();

// Ends the process: somebody broke a rule that a card would not have told him of.
[[noreturn]] void stop(const std::string &why);

// A kernel of candle's, by its name; none if the stand-in lacks it.
using CandleKernel = void (*)(void **arguments);
struct CandleEntry {
    CandleKernel run;
    std::vector<size_t> sizes;
};
const CandleEntry *candle_kernel(const char *name);

} // namespace card
