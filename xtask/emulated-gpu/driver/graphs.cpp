#include "graphs.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "context.h"
#include "device.h"
#include "report.h"

namespace emulated {
namespace {

// Those that are on.
std::vector<std::shared_ptr<Graph>> captures;

// What a CUgraph and a CUgraphExec point to. The graph itself never changes, so both share it.
struct Handle {
    std::shared_ptr<Graph> graph;
};

int this_thread() { return int(syscall(SYS_gettid)); }

void check_nodes(const Graph &graph) {
    for (const Node &node : graph.nodes)
        for (const uintptr_t address : node.addresses) {
            if (!on_device(address)) continue;
            const Allocation *allocation = find(address);
            const bool own = allocation && allocation->graph == &graph;
            if (!allocation || !allocation->has(address) || !(own || allocation->live))
                fault("graph %d is replayed, whose node \"%s\" uses memory that is gone: %s", graph.number, node.name.c_str(),
                      describe(address).c_str());
        }
}

void run(const Graph &graph) {
    for (const Node &node : graph.nodes) {
        running = node.name + ", of graph " + std::to_string(graph.number);
        node.work();
    }
}

}  // namespace

void add_node(Graph &capture, Node node) {
    if (capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture.thread != this_thread())
        fault("another thread puts \"%s\" into a stream that is being recorded", node.name.c_str());
    capture.nodes.push_back(std::move(node));
}

CUresult refuse(Graph &capture, const char *call, CUresult error) {
    if (!capture.invalid) note("capture %d is invalid from here on: %s", capture.number, call);
    capture.invalid = true;
    return error;
}

bool refuse_all(const char *call) {
    for (const auto &capture : captures) refuse(*capture, call, CUDA_SUCCESS);
    return !captures.empty();
}

bool forbidden_while_recording(const char *call) {
    bool forbidden = false;
    for (const auto &capture : captures) {
        const bool own = capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && capture->thread == this_thread();
        if (capture->mode != CU_STREAM_CAPTURE_MODE_GLOBAL && !own) continue;
        refuse(*capture, call, CUDA_SUCCESS);
        forbidden = true;
    }
    return forbidden;
}

Graph *capture_of(const Event &event) {
    for (const auto &capture : captures)
        if (event.capture == capture->number) return capture.get();
    return nullptr;
}

}  // namespace emulated

using namespace emulated;

EXPORT CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (stream == stream_of(CU_STREAM_LEGACY)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    static int count;
    auto graph = std::make_shared<Graph>();
    graph->number = ++count;
    graph->mode = mode;
    graph->thread = this_thread();
    stream->capture = graph;
    captures.push_back(graph);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    WITH_CONTEXT;
    const Stream *stream = stream_of(handle);
    *status = !stream->capture            ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph *made) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    *made = nullptr;
    const auto graph = stream->capture;
    if (!graph) return CUDA_ERROR_ILLEGAL_STATE;
    if (graph->mode != CU_STREAM_CAPTURE_MODE_RELAXED && graph->thread != this_thread())
        return refuse(*graph, "cuStreamEndCapture on another thread", CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    stream->capture = nullptr;
    captures.erase(std::find(captures.begin(), captures.end(), graph));
    if (graph->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    for (Allocation *allocation : graph->allocations) allocation->live_in_capture = false;
    *made = reinterpret_cast<CUgraph>(new Handle{graph});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
    WITH_CONTEXT;
    if (flags) fault("cuGraphInstantiateWithFlags with flags %llu, which are not emulated", flags);
    *made = reinterpret_cast<CUgraphExec>(new Handle(*reinterpret_cast<Handle *>(graph)));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(stream_handle);
    const auto graph = reinterpret_cast<Handle *>(handle)->graph;
    if (stream->capture) fault("cuGraphLaunch in a capture, which is not emulated");
    for (const Allocation *allocation : graph->kept)
        if (allocation->live) {
            note("graph %d is launched again, and what it allocated last time is not freed", graph->number);
            return CUDA_ERROR_INVALID_VALUE;
        }
    check_nodes(*graph);
    for (Allocation *allocation : graph->kept) allocation->live = true;
    // The work holds the graph, which may be destroyed before it runs.
    enqueue(stream, "a graph", [graph] { run(*graph); });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec handle) {
    WITH_CONTEXT;
    delete reinterpret_cast<Handle *>(handle);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph handle) {
    WITH_CONTEXT;
    delete reinterpret_cast<Handle *>(handle);
    return CUDA_SUCCESS;
}
