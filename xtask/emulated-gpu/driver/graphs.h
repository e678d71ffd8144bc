// Captures, and the graphs that they become.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "memory.h"
#include "streams.h"

namespace emulated {

struct Node {
    std::string name;
    std::function<void()> work;
    // What it uses of the device's memory; looked at again at each replay.
    std::vector<uintptr_t> addresses;
};

struct Graph {
    int number;
    CUstreamCaptureMode mode;
    // The thread that began the capture.
    int thread;
    // A call that a capture forbids ends it: nothing more is taken, and its end is an error.
    bool invalid = false;
    std::vector<Node> nodes;
    std::vector<Allocation *> allocations;
    // Those that no node frees: the host must free them before the graph runs again.
    std::set<Allocation *> kept;
};

void add_node(Graph &capture, Node node);

// Invalidates a capture for what was called; gives the error back.
CUresult refuse(Graph &capture, const char *call, CUresult error);
// The same for every capture that is on; whether there was one.
bool refuse_all(const char *call);
// The same for those whose mode forbids this thread what may wait for the device, such as allocating without a stream.
bool forbidden_while_recording(const char *call);

// The capture that an event was recorded in, if it is still on.
Graph *capture_of(const Event &event);

}  // namespace emulated
