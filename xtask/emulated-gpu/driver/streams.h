// Streams: queues of work that runs, unless the device is eager, only when somebody waits for it.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"

namespace emulated {

struct Stream;

// A place in a stream's queue, as an event keeps it.
struct Marker {
    Stream *stream;
    bool passed = false;
};

struct Operation {
    std::string name;
    // Nothing where it only waits.
    std::function<void()> work;
    // What must have passed before.
    std::shared_ptr<Marker> after;
};

struct Stream {
    std::deque<Operation> queue;
    // What its work is taken down in, while it is recorded.
    std::shared_ptr<Graph> capture;
    // Whether it and the legacy stream wait for each other.
    bool blocking = false;
};

struct Event {
    std::shared_ptr<Marker> marker;
    // The capture in which it was recorded last; 0 outside of one.
    int capture = 0;
};

// The stream of a handle, which must be there.
Stream *stream_of(CUstream handle);

// Puts work into a stream, or into the graph that the stream is recorded in. `addresses` are those that it uses.
void enqueue(Stream *stream, std::string name, std::function<void()> work, std::vector<uintptr_t> addresses = {});

// Runs what is queued in a stream, and what it waits for.
void drain(Stream *stream);
void drain_all();

// Ends the program unless an address of device memory is one that work in the stream may use now. Others are left alone.
void check_address(uintptr_t address, const Stream *stream, const char *call, const char *argument);
// The same for a range that must be device memory.
void check_range(uintptr_t address, size_t bytes, const Stream *stream, const char *call, const char *argument);

// Nanoseconds of the process that the device worked.
int64_t device_time();

}  // namespace emulated
