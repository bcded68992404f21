// CUDA's model of execution on the host: a fibre a thread, switched at barriers and exchanges, the next drawn at random;
// one block after another, in random order. device.cuh includes it where no CUDA compiler is at work.
//
// Shared memory is an allocation of its own for every array and block, so AddressSanitizer sees what lies outside, and
// starts as NaN. A barrier that not all threads reach, or that they reach at different places, is an error.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATE_ASAN 1
#endif
#endif
#ifdef EMULATE_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulate {

constexpr size_t STACK = 64 << 10;

// Where a thread waits.
struct Place {
    const char* file = nullptr;
    int line = 0;
    bool operator==(const Place& other) const { return line == other.line && !std::strcmp(file, other.file); }
    std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

// Where the caller stands, as the last two parameters.
#define EMULATE_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

enum class State { Ready, InWarp, InBlock, Done };

// 16-byte copies that have begun.
struct Copy {
    void* to;
    const void* from;
};

// Where a fibre, or what runs them, goes on.
struct Spot {
    ucontext_t context;
    jmp_buf jump;
    bool begun = false;
};

struct Fibre {
    Spot spot;
    std::unique_ptr<char[]> stack{new char[STACK]};
    State state = State::Done;
    Place place;
    u32 parity = 0;
    std::vector<Copy> copies;
    void* asan_stack = nullptr;
};

// What a lane shows the others in one exchange.
struct Slot {
    alignas(8) unsigned char bytes[24];
};

struct Machine {
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<u32> ready;
    std::vector<u32> in_warp;  // [warps], lanes that wait
    std::vector<Slot> slots;   // [2, threads]
    u32 in_block = 0;
    u32 threads = 0;
    u32 running = 0;
    u32 done = 0;
    u32 block[2] = {0, 0};
    u32 grid[2] = {0, 0};
    u64 random = 0;
    std::function<void()> body;
    std::string error;
    Spot home;
    const void* home_bottom = nullptr;
    size_t home_size = 0;
    void* home_asan = nullptr;
    std::map<const void*, std::unique_ptr<unsigned char[]>> shared;
    std::unique_ptr<unsigned char[]> at_launch;

    // splitmix64
    u64 next_random() {
        u64 z = (random += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    u32 below(u32 n) { return static_cast<u32>(next_random() % n); }

    Fibre& now() { return *fibres[running]; }

    // Runs any thread that can go on; without one, goes home.
    void leave() {
        Fibre& from = now();
        if (ready.empty()) {
            if (done < threads && error.empty()) error = stuck();
            go(from, nullptr);
            return;
        }
        const u32 pick = below(static_cast<u32>(ready.size()));
        const u32 next = ready[pick];
        ready[pick] = ready.back();
        ready.pop_back();
        running = next;
        if (fibres[next].get() != &from) go(from, fibres[next].get());
    }

    // Leaves one spot and goes on at another. swapcontext asks the system for the signals' mask each time, which takes longer
    // than most of what lies between two barriers; it is for the first time, and for AddressSanitizer.
    static void swap(Spot& from, Spot& to) {
#ifdef EMULATE_ASAN
        swapcontext(&from.context, &to.context);
#else
        if (_setjmp(from.jump)) return;
        from.begun = true;
        if (to.begun) _longjmp(to.jump, 1);
        setcontext(&to.context);
#endif
    }

    void go([[maybe_unused]] Fibre& from, Fibre* to) {
#ifdef EMULATE_ASAN
        // A thread that has ended gives its fake stack back.
        void** save = from.state == State::Done ? nullptr : &from.asan_stack;
        if (to) {
            __sanitizer_start_switch_fiber(save, to->stack.get(), STACK);
        } else {
            __sanitizer_start_switch_fiber(save, home_bottom, home_size);
        }
#endif
        swap(from.spot, to ? to->spot : home);
#ifdef EMULATE_ASAN
        __sanitizer_finish_switch_fiber(from.asan_stack, nullptr, nullptr);
#endif
    }

    std::string stuck() {
        std::string text = "a barrier that not all threads reach:";
        u32 told = 0;
        for (u32 t = 0; t < threads && told < 3; t++) {
            const Fibre& fibre = *fibres[t];
            if (fibre.state == State::InWarp || fibre.state == State::InBlock) {
                text += " thread " + std::to_string(t) + " waits at " + fibre.place.text() + ";";
                told++;
            }
        }
        return text + " " + std::to_string(done) + " of " + std::to_string(threads) + " have ended";
    }

    void fail(const std::string& text) {
        if (error.empty()) error = text;
        go(now(), nullptr);  // and never comes back
    }

    // Lets threads `first .. first + count` go on, if they wait at the same place.
    void release(u32 first, u32 count) {
        for (u32 t = first; t < first + count; t++) {
            if (!(fibres[t]->place == fibres[first]->place)) {
                fail("threads " + std::to_string(first) + " and " + std::to_string(t) + " meet at different places: " +
                     fibres[first]->place.text() + " and " + fibres[t]->place.text());
            }
            fibres[t]->state = State::Ready;
            ready.push_back(t);
        }
    }

    void wait_block(Place place) {
        now().state = State::InBlock;
        now().place = place;
        if (++in_block == threads) {
            in_block = 0;
            release(0, threads);
        }
        leave();
    }

    void wait_warp(Place place) {
        now().state = State::InWarp;
        now().place = place;
        const u32 warp = running / WARP;
        if (++in_warp[warp] == WARP) {
            in_warp[warp] = 0;
            release(warp * WARP, WARP);
        }
        leave();
    }

    // Shows `mine` to the warp; gives the slots of all lanes. They stay as they are until the next exchange but one.
    const Slot* exchange(const void* mine, size_t size, Place place) {
        Fibre& fibre = now();
        Slot* slots = &this->slots[fibre.parity * threads];
        fibre.parity ^= 1;
        const u32 warp = running / WARP;
        std::memcpy(slots[running].bytes, mine, size);
        wait_warp(place);
        return slots + warp * WARP;
    }

    void* array(const void* key, size_t bytes) {
        auto& memory = shared[key];
        if (!memory) memory = nan_bytes(bytes);
        return memory.get();
    }

    static std::unique_ptr<unsigned char[]> nan_bytes(size_t bytes) {
        std::unique_ptr<unsigned char[]> memory(new unsigned char[bytes]);
        std::memset(memory.get(), 0xff, bytes);
        return memory;
    }

    static void enter();
    void start(u32 t);
    void run_block(size_t bytes_at_launch);
    void run(u32 grid_x, u32 grid_y, u32 block_threads, size_t bytes_at_launch, u64 seed);
};

inline Machine machine;

// A fibre's first function.
inline void Machine::enter() {
    Machine& m = machine;
#ifdef EMULATE_ASAN
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    // The first thread to run comes from home, whose stack nobody has told us.
    if (!m.home_bottom) m.home_bottom = bottom, m.home_size = size;
#endif
    // A fibre that comes back after its end is the same thread of another block.
    for (;;) {
        m.body();
        m.now().state = State::Done;
        m.done++;
        m.leave();
    }
}

inline void Machine::start(u32 t) {
    if (t >= fibres.size()) fibres.push_back(std::make_unique<Fibre>());
    Fibre& fibre = *fibres[t];
    Spot& spot = fibre.spot;
    if (!spot.begun || fibre.state != State::Done) {
        getcontext(&spot.context);
        spot.context.uc_stack.ss_sp = fibre.stack.get();
        spot.context.uc_stack.ss_size = STACK;
        spot.context.uc_link = nullptr;
        makecontext(&spot.context, enter, 0);
        spot.begun = false;
    }
    fibre.state = State::Ready;
    fibre.parity = 0;
    fibre.copies.clear();
    fibre.asan_stack = nullptr;
    ready.push_back(t);
}

inline void Machine::run_block(size_t bytes_at_launch) {
    ready.clear();
    shared.clear();
    at_launch = nan_bytes(bytes_at_launch);
    in_warp.assign(threads / WARP, 0);
    slots.assign(2 * threads, Slot{});
    in_block = done = 0;
    for (u32 t = 0; t < threads; t++) start(t);
    running = below(threads);
    ready[running] = ready.back();
    ready.pop_back();
#ifdef EMULATE_ASAN
    __sanitizer_start_switch_fiber(&home_asan, now().stack.get(), STACK);
#endif
    swap(home, now().spot);
#ifdef EMULATE_ASAN
    __sanitizer_finish_switch_fiber(home_asan, nullptr, nullptr);
#endif
    for (u32 t = 0; t < threads && error.empty(); t++) {
        if (!fibres[t]->copies.empty()) error = "thread " + std::to_string(t) + " ended before its copies were done";
    }
}

inline void Machine::run(u32 grid_x, u32 grid_y, u32 block_threads, size_t bytes_at_launch, u64 seed) {
    error.clear();
    random = seed;
    threads = block_threads;
    grid[0] = grid_x, grid[1] = grid_y;
    std::vector<u32> order(static_cast<size_t>(grid_x) * grid_y);
    for (u32 i = 0; i < order.size(); i++) {
        const u32 j = below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (u32 i = 0; i < order.size() && error.empty(); i++) {
        block[0] = order[i] % grid_x, block[1] = order[i] / grid_x;
        run_block(bytes_at_launch);
    }
}

// The arguments of a launch as bytes, one string each.
using Arguments = std::vector<std::string>;

template <class... A, size_t... I>
std::function<void()> bind(void (*kernel)(A...), const Arguments& bytes, std::index_sequence<I...>) {
    if (bytes.size() != sizeof...(A) || !((bytes[I].size() == sizeof(A)) && ...)) return nullptr;
    std::tuple<A...> arguments;
    (std::memcpy(&std::get<I>(arguments), bytes[I].data(), sizeof(A)), ...);
    return [=] { std::apply(kernel, arguments); };
}

struct Kernel {
    u32 threads;
    // Empty when the arguments are not the kernel's.
    std::function<std::function<void()>(const Arguments&)> bind;
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

struct Registered {
    template <class... A>
    Registered(const char* name, u32 threads, void (*kernel)(A...)) {
        kernels()[name] = Kernel{threads, [kernel](const Arguments& bytes) {
                                     return emulate::bind(kernel, bytes, std::index_sequence_for<A...>{});
                                 }};
    }
};

template <class T>
T exchanged(T mine, u32 from, Place place) {
    T theirs;
    std::memcpy(&theirs, machine.exchange(&mine, sizeof(T), place)[from].bytes, sizeof(T));
    return theirs;
}

}  // namespace emulate

#define DEVICE [[maybe_unused]] static inline
#define DEVICE_MEMBER inline
#define TABLE [[maybe_unused]] static const
#define KERNEL(threads, name, parameters)                                          \
    static void name parameters;                                                   \
    static const emulate::Registered registered_##name{#name, threads, &name};     \
    static void name parameters
#define SHARED(type, name, count)                                                  \
    static char key_of_##name;                                                     \
    type* const name = static_cast<type*>(emulate::machine.array(&key_of_##name, sizeof(type) * (count)))
#define SHARED_AT_LAUNCH(name) unsigned char* const name = emulate::machine.at_launch.get()

DEVICE u32 thread_index() { return emulate::machine.running; }
DEVICE u32 threads_in_block() { return emulate::machine.threads; }
DEVICE u32 block_x() { return emulate::machine.block[0]; }
DEVICE u32 block_y() { return emulate::machine.block[1]; }
DEVICE u32 blocks_x() { return emulate::machine.grid[0]; }

DEVICE void block_barrier(EMULATE_PLACE) { emulate::machine.wait_block({file, line}); }
DEVICE void warp_barrier(EMULATE_PLACE) { emulate::machine.wait_warp({file, line}); }
template <class T>
DEVICE T shuffle_xor(T x, u32 mask, EMULATE_PLACE) {
    return emulate::exchanged(x, (emulate::machine.running % WARP) ^ mask, {file, line});
}
template <class T>
DEVICE T shuffle(T x, u32 from, EMULATE_PLACE) {
    return emulate::exchanged(x, from, {file, line});
}
DEVICE int largest_of_warp(int x, EMULATE_PLACE) {
    const emulate::Slot* slots = emulate::machine.exchange(&x, sizeof(x), {file, line});
    for (u32 lane = 0; lane < WARP; lane++) {
        int other;
        std::memcpy(&other, slots[lane].bytes, sizeof(other));
        if (other > x) x = other;
    }
    return x;
}
DEVICE u32 vote(bool yes, EMULATE_PLACE) {
    const emulate::Slot* slots = emulate::machine.exchange(&yes, sizeof(yes), {file, line});
    u32 bits = 0;
    for (u32 lane = 0; lane < WARP; lane++) bits |= static_cast<u32>(slots[lane].bytes[0]) << lane;
    return bits;
}

template <class To, class From>
DEVICE To same_bits(From from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    std::memcpy(&to, &from, sizeof(to));
    return to;
}
DEVICE u32 bits_of(float x) { return same_bits<u32>(x); }
DEVICE float of_bits(u32 x) { return same_bits<float>(x); }
DEVICE u64 bits_of(double x) { return same_bits<u64>(x); }
DEVICE double of_bits(u64 x) { return same_bits<double>(x); }
DEVICE u32 multiply_high(u32 a, u32 b) { return static_cast<u32>((static_cast<u64>(a) * b) >> 32); }
DEVICE u32 leading_zeros(u32 x) { return x ? static_cast<u32>(__builtin_clz(x)) : 32; }

DEVICE u32 bf16_pair(float low, float high) {
    u32 pair = 0;
    for (int half = 0; half < 2; half++) {
        const u32 bits = bits_of(half ? high : low);
        // Adding just below half of the last place carries where it has to; NaN must not become infinite.
        const u32 rounded = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        pair |= rounded << (16 * half);
    }
    return pair;
}

DEVICE u32 pair_at(const u16* x) {
    u32 pair;
    std::memcpy(&pair, x, sizeof(pair));
    return pair;
}

DEVICE void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMULATE_PLACE) {
    const u32 mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const emulate::Slot* slots = emulate::machine.exchange(mine, sizeof(mine), {file, line});
    // Register `word` of the lane with group g and place t; k is the index that is summed over.
    const auto value = [slots](u32 lane, u32 word, u32 half) {
        u32 pair;
        std::memcpy(&pair, slots[lane].bytes + 4 * word, 4);
        return of_bits(half ? pair & 0xffff0000u : pair << 16);
    };
    const u32 lane = emulate::machine.running % WARP;
    for (u32 r = 0; r < 4; r++) {
        const u32 row = lane / 4 + (r < 2 ? 0 : 8), column = 2 * (lane % 4) + r % 2;
        for (u32 k = 0; k < 16; k++) {
            const u32 t = k % 8 / 2, upper = k / 8;
            const float x = value(row % 8 * 4 + t, row / 8 + 2 * upper, k % 2);
            d[r] = fmaf(x, value(column * 4 + t, 4 + upper, k % 2), d[r]);
        }
    }
}

DEVICE void copy_16(void* shared, const void* global, EMULATE_PLACE) {
    if ((reinterpret_cast<u64>(shared) | reinterpret_cast<u64>(global)) % 16 != 0) {
        emulate::machine.fail("a copy that is not aligned to 16 bytes: " + emulate::Place{file, line}.text());
    }
    emulate::machine.now().copies.push_back(emulate::Copy{shared, global});
}
DEVICE void copies_done() {
    for (const emulate::Copy& copy : emulate::machine.now().copies) std::memcpy(copy.to, copy.from, 16);
    emulate::machine.now().copies.clear();
}
