#include "memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>

#include "report.h"
#include "settings.h"

namespace emulated {

std::recursive_mutex device_mutex;

namespace {

constexpr size_t PAGE = 4096;
// Addresses are not used twice, so there must be many.
constexpr size_t ARENA_BYTES = size_t(16) << 40;
// What the widest load of a kernel wants.
constexpr size_t ALIGNMENT = 16;
// Between an allocation and the ends of its pages.
constexpr uint8_t CANARY = 0xC5;
// All bits are set: NaN in every type of floats.
constexpr int POISON = 0xFF;

uintptr_t arena, arena_end, next_pages;
std::map<uintptr_t, Allocation *> allocations;  // by their pages
size_t in_use;
uint64_t count;

size_t round_up(size_t size, size_t to) { return (size + to - 1) / to * to; }

void *pointer(uintptr_t address) { return reinterpret_cast<void *>(address); }

void check_canary(uintptr_t from, uintptr_t to) {
    for (uintptr_t at = from; at < to; ++at)
        if (*static_cast<const uint8_t *>(pointer(at)) != CANARY)
            fault("bytes outside of an allocation were written: %s", describe(at).c_str());
}

}  // namespace

void open_arena() {
    void *start = mmap(nullptr, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) fault("cannot reserve 16 TiB of addresses: %s; is there a limit (ulimit -v)?", std::strerror(errno));
    arena = reinterpret_cast<uintptr_t>(start);
    arena_end = arena + ARENA_BYTES;
    // The first guard.
    next_pages = arena + PAGE;
}

bool on_device(uintptr_t address) { return address >= arena && address < next_pages; }
bool in_arena(uintptr_t address) { return address >= arena && address < arena_end; }

Allocation *reserve(size_t size, Origin origin) {
    const size_t padded = round_up(size, ALIGNMENT);
    auto *allocation = new Allocation();  // never deleted: messages speak of what was freed long ago
    allocation->pages = next_pages;
    allocation->page_bytes = round_up(padded, PAGE);
    // An end of the allocation meets an end of its pages, so that one step further is a fault.
    const size_t gap = settings().guard_before ? 0 : allocation->page_bytes - padded;
    allocation->base = next_pages + gap;
    allocation->size = size;
    allocation->origin = origin;
    allocation->number = ++count;
    next_pages += allocation->page_bytes + PAGE;
    if (next_pages + PAGE > arena_end) fault("16 TiB of addresses are used up; run fewer tests at once");
    allocations[allocation->pages] = allocation;
    return allocation;
}

Allocation *allocate(size_t size, Origin origin) {
    if (size > DEVICE_MEMORY || in_use > DEVICE_MEMORY - size) return nullptr;
    Allocation *allocation = reserve(size, origin);
    map(allocation);
    allocation->live = true;
    in_use += size;
    return allocation;
}

void map(Allocation *allocation) {
    if (mprotect(pointer(allocation->pages), allocation->page_bytes, PROT_READ | PROT_WRITE))
        fault("cannot map memory: %s; are there too many maps (sysctl vm.max_map_count)?", std::strerror(errno));
    const uintptr_t end = allocation->pages + allocation->page_bytes;
    std::memset(pointer(allocation->pages), CANARY, allocation->base - allocation->pages);
    std::memset(pointer(allocation->base), POISON, allocation->size);
    std::memset(pointer(allocation->end()), CANARY, end - allocation->end());
    allocation->mapped = true;
}

void unmap(Allocation *allocation) {
    if (!allocation->mapped) return;
    check_canary(allocation->pages, allocation->base);
    check_canary(allocation->end(), allocation->pages + allocation->page_bytes);
    madvise(pointer(allocation->pages), allocation->page_bytes, MADV_DONTNEED);
    mprotect(pointer(allocation->pages), allocation->page_bytes, PROT_NONE);
    allocation->mapped = false;
}

void give_up(Allocation *allocation) {
    allocation->live = false;
    // A graph's memory was never counted.
    if (allocation->origin != Origin::graph) in_use -= allocation->size;
}

size_t bytes_in_use() { return in_use; }

Allocation *find(uintptr_t address) {
    auto after = allocations.upper_bound(address);
    if (!on_device(address) || after == allocations.begin()) return nullptr;
    return std::prev(after)->second;
}

Allocation *find_live(uintptr_t base) {
    Allocation *allocation = find(base);
    return allocation && allocation->base == base && allocation->live ? allocation : nullptr;
}

std::string describe(uintptr_t address) {
    const Allocation *allocation = find(address);
    char text[256];
    if (!allocation) {
        std::snprintf(text, sizeof text, "%#lx, which is no address of the device", address);
        return text;
    }
    const char *origins[] = {"cuMemAlloc", "cuMemAllocAsync", "a graph"};
    std::snprintf(text, sizeof text, "byte %+ld of the %lu bytes of allocation %lu (by %s, %s, %s)",
                  long(address - allocation->base), allocation->size, allocation->number, origins[int(allocation->origin)],
                  allocation->live ? "live" : "not live", allocation->mapped ? "mapped" : "unmapped");
    return text;
}

}  // namespace emulated
