#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>

#include "device.h"
#include "report.h"
#include "settings.h"

// Within braces these are definitions, which behind a mere extern "C" they are not.
extern "C" {
__attribute__((visibility("default"))) EmulatedDim emulated_threadIdx, emulated_blockIdx, emulated_blockDim, emulated_gridDim;
__attribute__((visibility("default"), aligned(16))) char emulated_shared[EMULATED_SHARED + EMULATED_SHARED_CANARY];
}

// Puts the registers that a callee must keep onto the stack, writes the stack's address to `save`, and goes on with the fiber
// whose stack is `to`, which left by the same way or was never there.
asm(R"(
.text
.type emulated_switch,@function
emulated_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
extern "C" __attribute__((visibility("hidden"))) void emulated_switch(void **save, void *to);
constexpr int SAVED_REGISTERS = 6;

namespace emulated {
namespace {

constexpr unsigned LANES = 32;
// Not a power of two, so that the stacks of a block do not all lie in the same lines of the cache.
constexpr size_t STACK_BYTES = 32 * 1024 + 192;
static_assert(STACK_BYTES % 64 == 0, "the stacks are aligned");
constexpr uint64_t STACK_CANARY = 0x5AFE57AC6C0FFEE5;
// NaN, as fresh memory of the device.
constexpr int POISON = 0xFF;

enum class State { ready, at_barrier, exchanging, done };

struct Fiber {
    void *stack;
    State state;
    long barrier;
};

// An exchange of values between lanes, which is complete when all of the mask are here.
struct Warp {
    uint64_t given[LANES];
    unsigned arrived, mask;
    int kind;
    // How many exchanges there were. The results of the last two are kept: a lane may read those of one when others are in the
    // next, but none can be two further.
    unsigned rounds;
    uint64_t results[2][LANES];
    unsigned lanes_of[2];
};

char *stacks;
Fiber fibers[MOST_THREADS];
Warp warps[MOST_THREADS / LANES];
// The place of each thread in the grid's language, the order in which they run, and each one's place in the order.
EmulatedDim places[MOST_THREADS];
unsigned order[MOST_THREADS], place_in_order[MOST_THREADS];
unsigned threads, done, current;
void *scheduler;

// What runs.
const EmulatedKernel *kernel;
void **kernel_arguments;
bool with_fibers;

// Goes on with the next thread in the order that can, or with the scheduler.
void leave(void **save) {
    for (unsigned place = place_in_order[current] + 1; place < threads; ++place) {
        const unsigned thread = order[place];
        if (fibers[thread].state != State::ready) continue;
        current = thread;
        emulated_threadIdx = places[thread];
        emulated_switch(save, fibers[thread].stack);
        return;
    }
    emulated_switch(save, scheduler);
}

void run_fiber() {
    kernel->call(kernel_arguments);
    fibers[current].state = State::done;
    ++done;
    leave(&fibers[current].stack);
    __builtin_unreachable();
}

unsigned lanes_in(unsigned warp) { return std::min(LANES, threads - warp * LANES); }

// Ends a warp's exchange if all lanes of its mask are here that still run.
bool complete(unsigned number) {
    Warp &warp = warps[number];
    if (!warp.arrived) return false;
    unsigned awaited = 0, exited = 0;
    for (unsigned lane = 0; lane < lanes_in(number); ++lane) {
        if (!(warp.mask >> lane & 1)) continue;
        (fibers[number * LANES + lane].state == State::done ? exited : awaited) |= 1u << lane;
    }
    if ((warp.arrived & awaited) != awaited) return false;
    if (exited) note_once(kernel->name, "an exchange names lanes that have exited");
    std::memcpy(warp.results[warp.rounds % 2], warp.given, sizeof warp.given);
    warp.lanes_of[warp.rounds % 2] = warp.arrived;
    for (unsigned lane = 0; lane < LANES; ++lane)
        if (warp.arrived >> lane & 1) fibers[number * LANES + lane].state = State::ready;
    warp.arrived = 0;
    ++warp.rounds;
    return true;
}

// Takes part in an exchange; gives back which of the two results is its own.
unsigned exchange(unsigned mask, uint64_t value, int kind) {
    if (!with_fibers) fault("%s exchanges values between lanes, and its PTX does not: build again", kernel->name);
    Warp &warp = warps[current / LANES];
    const unsigned lane = current % LANES;
    if (!(mask >> lane & 1)) fault("%s: a lane takes part in an exchange without being in its mask, %#x", kernel->name, mask);
    if (warp.arrived && (warp.mask != mask || warp.kind != kind))
        fault("%s: lanes of a warp meet in different exchanges, of masks %#x and %#x", kernel->name, warp.mask, mask);
    warp.mask = mask;
    warp.kind = kind;
    warp.given[lane] = value;
    warp.arrived |= 1u << lane;
    const unsigned round = warp.rounds;
    fibers[current].state = State::exchanging;
    if (warp.arrived == mask) complete(current / LANES);
    while (warp.rounds == round) leave(&fibers[current].stack);
    return round % 2;
}

void start_fibers() {
    for (unsigned thread = 0; thread < threads; ++thread) {
        // Where the first switch returns to, and above it what run_fiber would find as its caller: it begins with the alignment
        // that a call leaves.
        auto **stack = reinterpret_cast<void **>(stacks + (thread + 1) * STACK_BYTES) - 2;
        stack[0] = reinterpret_cast<void *>(run_fiber);
        stack[1] = nullptr;
        fibers[thread] = {stack - SAVED_REGISTERS, State::ready, 0};
    }
    for (unsigned warp = 0; warp * LANES < threads; ++warp) warps[warp].arrived = warps[warp].rounds = 0;
    done = 0;
}

bool any_ready() {
    return std::any_of(fibers, fibers + threads, [](const Fiber &fiber) { return fiber.state == State::ready; });
}

// Lets all go on that wait at the barrier: all that are not done, or the block would wait for ever.
void open_barrier() {
    long barrier = 0;
    unsigned waiting = 0;
    for (unsigned thread = 0; thread < threads; ++thread) {
        Fiber &fiber = fibers[thread];
        if (fiber.state != State::at_barrier) continue;
        if (waiting && fiber.barrier != barrier)
            fault("%s: threads of a block wait at different barriers, of lines %ld and %ld", kernel->name, barrier,
                  fiber.barrier);
        barrier = fiber.barrier;
        ++waiting;
        fiber.state = State::ready;
    }
    if (waiting + done != threads)
        fault("%s waits for ever: of %u threads %u are at a barrier and %u have exited", kernel->name, threads, waiting, done);
    if (done) note_once(kernel->name, "a barrier after some threads of the block have exited");
}

void run_block_with_fibers() {
    start_fibers();
    while (done < threads) {
        for (unsigned place = 0; place < threads; ++place) {
            const unsigned thread = order[place];
            if (fibers[thread].state != State::ready) continue;
            current = thread;
            emulated_threadIdx = places[thread];
            emulated_switch(&scheduler, fibers[thread].stack);
        }
        if (done == threads) break;
        // Exchanges whose missing lanes have exited.
        bool completed = false;
        for (unsigned warp = 0; warp * LANES < threads; ++warp) completed |= complete(warp);
        if (!completed && !any_ready()) open_barrier();
    }
}

void run_block() {
    if (with_fibers) return run_block_with_fibers();
    for (unsigned place = 0; place < threads; ++place) {
        current = order[place];
        emulated_threadIdx = places[current];
        kernel->call(kernel_arguments);
    }
}

std::vector<unsigned> in_order(unsigned count, Order how) {
    static std::mt19937 generator(settings().seed);
    std::vector<unsigned> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    if (how == Order::reversed) std::reverse(numbers.begin(), numbers.end());
    if (how == Order::shuffled) std::shuffle(numbers.begin(), numbers.end(), generator);
    return numbers;
}

EmulatedDim place_of(unsigned number, EmulatedDim size) {
    return {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

// The last word that a thread's stack may grow to.
uint64_t &stack_end(unsigned thread) { return *reinterpret_cast<uint64_t *>(stacks + thread * STACK_BYTES); }

void prepare_threads(EmulatedDim block) {
    if (!stacks) {
        const size_t bytes = STACK_BYTES * MOST_THREADS;
        void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) fault("cannot map the stacks of a block's threads");
        madvise(mapped, bytes, MADV_HUGEPAGE);
        stacks = static_cast<char *>(mapped);
    }
    threads = block.x * block.y * block.z;
    const std::vector<unsigned> chosen = in_order(threads, settings().threads);
    for (unsigned place = 0; place < threads; ++place) {
        order[place] = chosen[place];
        place_in_order[chosen[place]] = place;
        places[place] = place_of(place, block);
        stack_end(place) = STACK_CANARY;
    }
}

}  // namespace

void run_grid(const Function &function, EmulatedDim grid, EmulatedDim block, size_t shared, std::vector<void *> &arguments) {
    kernel = function.kernel;
    kernel_arguments = arguments.data();
    with_fibers = function.entry->threads_meet;
    emulated_gridDim = grid;
    emulated_blockDim = block;
    prepare_threads(block);
    for (const unsigned number : in_order(grid.x * grid.y * grid.z, settings().blocks)) {
        emulated_blockIdx = place_of(number, grid);
        // Threads that do not meet have no use for shared memory.
        if (with_fibers) {
            const EmulatedKernels &library = *function.library;
            std::memset(library.variables, POISON, library.variables_end - library.variables);
            if (shared) std::memset(emulated_shared, POISON, shared + EMULATED_SHARED_CANARY);
        }
        run_block();
        if (with_fibers && shared)
            for (size_t at = shared; at < shared + EMULATED_SHARED_CANARY; ++at)
                if (emulated_shared[at] != char(POISON))
                    fault("%s writes past its %lu bytes of shared memory", kernel->name, shared);
    }
    for (unsigned thread = 0; thread < threads; ++thread)
        if (stack_end(thread) != STACK_CANARY) fault("%s needs a larger stack than STACK_BYTES of fibers.cpp", kernel->name);
    kernel = nullptr;
}

bool in_kernel() { return kernel != nullptr; }

std::string place_in_kernel() {
    if (!kernel) return "no kernel runs";
    char text[256];
    const EmulatedDim &b = emulated_blockIdx, &bs = emulated_gridDim, &t = emulated_threadIdx, &ts = emulated_blockDim;
    std::snprintf(text, sizeof text, "%s, block %u,%u,%u of %u,%u,%u, thread %u,%u,%u of %u,%u,%u", kernel->name, b.x, b.y, b.z,
                  bs.x, bs.y, bs.z, t.x, t.y, t.z, ts.x, ts.y, ts.z);
    return text;
}

}  // namespace emulated

using namespace emulated;

EXPORT void emulated_barrier(long place) {
    if (!with_fibers) fault("%s has a barrier, and its PTX has none: build again", kernel->name);
    fibers[current].state = State::at_barrier;
    fibers[current].barrier = place;
    leave(&fibers[current].stack);
}

EXPORT uint64_t emulated_shuffle(unsigned mask, uint64_t value, int source, int kind) {
    const unsigned result = exchange(mask, value, kind);
    const Warp &warp = warps[current / LANES];
    if (!(warp.lanes_of[result] >> source & 1)) {
        // What a GPU gives then is not defined.
        note_once(kernel->name, "a shuffle reads a lane that took no part");
        return value;
    }
    return warp.results[result][source];
}

EXPORT unsigned emulated_ballot(unsigned mask, bool condition) {
    // No shuffle has this kind.
    const unsigned result = exchange(mask, condition, 0);
    const Warp &warp = warps[current / LANES];
    unsigned lanes = 0;
    for (unsigned lane = 0; lane < LANES; ++lane)
        if (warp.lanes_of[result] >> lane & 1 && warp.results[result][lane]) lanes |= 1u << lane;
    return lanes;
}
