// Device memory: an arena of addresses in which every allocation has pages of its own, with an unmapped page on each side.
//
// New memory is all NaN, so that what is read before it is written shows. What fills up an allocation's pages is checked when
// it is freed; its addresses are never used again, so that a late use is caught too.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

namespace emulated {

struct Graph;

// How memory came to be: cuMemAlloc, cuMemAllocAsync, or cuMemAllocAsync in a capture.
enum class Origin { plain, ordered, graph };

struct Allocation {
    uintptr_t pages;
    size_t page_bytes;
    // The address that was given out, and the bytes that were asked for.
    uintptr_t base;
    size_t size;
    Origin origin;
    uint64_t number;
    // Whether the host may hand it to work outside of a capture: from its allocation until its freeing is asked for.
    bool live = false;
    // Whether it can be read and written: until its freeing is done in its stream.
    bool mapped = false;
    // Of a graph: which one, and whether it is live within its capture.
    Graph *graph = nullptr;
    bool live_in_capture = false;

    uintptr_t end() const { return base + size; }
    bool has(uintptr_t address) const { return address >= base && address <= end(); }
};

// One lock for the whole device; who holds it may call entry points.
extern std::recursive_mutex device_mutex;
using Guard = std::lock_guard<std::recursive_mutex>;

constexpr size_t DEVICE_MEMORY = size_t(80) << 30;

// Reserves the addresses.
void open_arena();

// Whether an address is one that the device gave out once.
bool on_device(uintptr_t address);
// Whether an address lies in the arena at all, for faults of memory.
bool in_arena(uintptr_t address);

// Addresses without memory, as a graph's allocations have them until it runs.
Allocation *reserve(size_t size, Origin origin);
// Memory that can be used at once; nothing where the device has too little.
Allocation *allocate(size_t size, Origin origin);

void map(Allocation *allocation);
// Takes the memory back, after a check of the bytes around it.
void unmap(Allocation *allocation);
// The host gave it up: the device's count of bytes goes down, though work in streams may still use it.
void give_up(Allocation *allocation);

size_t bytes_in_use();

// The allocation among whose pages, or on whose guard, the address lies.
Allocation *find(uintptr_t address);
// The allocation that begins at the address and may be freed by the host.
Allocation *find_live(uintptr_t base);
// An address in words.
std::string describe(uintptr_t address);

}  // namespace emulated
