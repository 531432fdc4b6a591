// Each piece of memory has pages of its own, behind which nothing is; what is left of them before and behind it is marked, and
// looked at in the end.

#include "card.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace card {

namespace {

constexpr size_t PAGE = 4096, ALIGNMENT = 256;
constexpr unsigned char MARK = 0xC9, UNWRITTEN = 0xFF;

struct Piece {
    char *pages;
    size_t paged, before, bytes;
    bool is_there, of_pool;
};

std::map<CUdeviceptr, Piece> pieces;
std::map<const char *, size_t> pinned;
size_t used;
// Of the pool, not in use, and how much of that may be.
size_t kept;
uint64_t most_kept;

size_t up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

size_t total() {
    static const char *said = std::getenv("CARD_BYTES");
    static size_t bytes = said ? std::strtoull(said, nullptr, 10) : size_t(2) << 30;
    return bytes;
}

// The allocation that fails although there is memory, from 1 on; 0 for none.
long failing() {
    static const char *said = std::getenv("CARD_FAILS");
    static long number = said ? std::atol(said) : 0;
    return number;
}

// Stops if somebody wrote beyond a piece's ends.
void look_at_ends(const Piece &piece) {
    for (size_t at = 0; piece.is_there && at < piece.paged; at++) {
        if (at == piece.before) at += piece.bytes;
        if (at < piece.paged && static_cast<unsigned char>(piece.pages[at]) != MARK)
            stop("somebody wrote " + std::to_string(long(at) - long(piece.before)) + " bytes behind the beginning of " +
                 std::to_string(piece.bytes) + " bytes");
    }
}

struct AtTheEnd {
    ~AtTheEnd() {
        for (const auto &[_, piece] : pieces) look_at_ends(piece);
    }
} at_the_end;

char *pages(size_t bytes) {
    void *found = mmap(nullptr, bytes + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) stop("the processor itself has no memory left");
    return static_cast<char *>(found);
}

void fault(int signal, siginfo_t *info, void *) {
    char text[256];
    std::snprintf(text, sizeof text, "card: %s at %p, which was not its to touch then or in that way, while the card ran: %s\n",
                  signal == SIGILL ? "undefined behaviour" : "a fault", info->si_addr, running.c_str());
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) _exit(70);
}

} // namespace

void name_faults() {
    struct sigaction action = {};
    action.sa_sigaction = fault;
    // Once: the fault comes again, and ends the process.
    action.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGILL}) sigaction(signal, &action, nullptr);
}

CUdeviceptr allocate(size_t bytes, bool of_pool) {
    static long count;
    if (++count == failing()) {
        std::fprintf(stderr, "card: allocation %ld, of %zu bytes, fails as told\n", count, bytes);
        return 0;
    }
    auto taken = [&] { return used + kept + bytes - (of_pool ? std::min(kept, bytes) : 0); };
    if (taken() > total()) finish_all();
    if (taken() > total()) return 0;
    if (of_pool) kept -= std::min(kept, bytes);
    size_t room = up(bytes, ALIGNMENT), paged = up(room, PAGE);
    Piece piece = {pages(paged), paged, paged - room, bytes, false, of_pool};
    CUdeviceptr address = reinterpret_cast<CUdeviceptr>(piece.pages + piece.before);
    used += bytes;
    pieces[address] = piece;
    return address;
}

void appear(CUdeviceptr address) {
    Piece &piece = pieces.at(address);
    if (mprotect(piece.pages, piece.paged, PROT_READ | PROT_WRITE) != 0) stop("the processor itself has no memory left");
    std::memset(piece.pages, MARK, piece.before);
    std::memset(piece.pages + piece.before, UNWRITTEN, piece.bytes);
    std::memset(piece.pages + piece.before + piece.bytes, MARK, piece.paged - piece.before - piece.bytes);
    piece.is_there = true;
}

void vanish(CUdeviceptr address) {
    auto found = pieces.find(address);
    if (found == pieces.end() || !found->second.is_there) stop("memory is given back that is not there");
    Piece piece = found->second;
    look_at_ends(piece);
    munmap(piece.pages, piece.paged);
    // Nothing comes to lie there again: what reaches for it later shall fault.
    mmap(piece.pages, piece.paged + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    used -= piece.bytes;
    if (piece.of_pool) kept = std::min<uint64_t>(kept + piece.bytes, most_kept);
    pieces.erase(found);
}

bool is_memory(CUdeviceptr address) { return pieces.count(address) > 0; }

void free_bytes(size_t *free, size_t *all) {
    *all = total();
    *free = total() - used - kept;
}

void keep(uint64_t most) { most_kept = most; }

void trim(size_t to) { kept = std::min(kept, to); }

void *allocate_pinned(size_t bytes) {
    size_t paged = up(bytes, PAGE);
    char *at = pages(paged);
    if (mprotect(at, paged, PROT_READ | PROT_WRITE) != 0) return nullptr;
    std::memset(at, UNWRITTEN, bytes);
    pinned[at] = bytes;
    return at;
}

bool free_pinned(void *address) {
    auto found = pinned.find(static_cast<char *>(address));
    if (found == pinned.end()) return false;
    munmap(address, up(found->second, PAGE));
    pinned.erase(found);
    return true;
}

bool is_pinned(const void *address, size_t bytes) {
    const char *at = static_cast<const char *>(address);
    auto next = pinned.upper_bound(at);
    if (next == pinned.begin()) return false;
    auto [begin, length] = *--next;
    return at + bytes <= begin + length;
}

void stop(const std::string &why) {
    std::fprintf(stderr, "card: %s, while it ran: %s\n", why.c_str(), running.c_str());
    std::abort();
}

} // namespace card
