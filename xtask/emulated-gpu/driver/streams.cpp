#include "streams.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <set>

#include "context.h"
#include "device.h"
#include "graphs.h"
#include "report.h"
#include "settings.h"

namespace emulated {
namespace {

// Work that may wait in a stream; a GPU's queue has an end too, and without one the memory of what waits would have none.
constexpr size_t LONGEST_QUEUE = 1024;

std::set<Stream *> streams;
Stream legacy;
thread_local Stream *of_thread;

// How many pieces of work are running, one within the other: an event may ask for another stream's work.
int depth;
std::atomic<int64_t> worked;

int64_t monotonic() {
    timespec time;
    // Not clock_gettime, which is ours.
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

void run(const Operation &operation) {
    const std::string before = running;
    running = operation.name;
    const int64_t start = monotonic();
    ++depth;
    operation.work();
    --depth;
    if (depth == 0) worked += monotonic() - start;
    running = before;
}

void step(Stream *stream);

void run_until(const std::shared_ptr<Marker> &marker) {
    while (!marker->passed) {
        if (marker->stream->queue.empty()) fault("an event can never come: its stream was destroyed before it");
        step(marker->stream);
    }
}

// Runs the first operation of a queue.
void step(Stream *stream) {
    while (const auto after = stream->queue.front().after) {
        if (after->passed) break;
        run_until(after);
        // To get there, this queue may have been run as well.
        if (stream->queue.empty()) return;
    }
    const Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (operation.work) run(operation);
}

// The legacy stream and the blocking ones each wait for what was put into the other before.
void drain_before(Stream *stream) {
    if (stream == &legacy) {
        for (Stream *other : streams)
            if (other->blocking) drain(other);
    } else if (stream->blocking) {
        drain(&legacy);
    }
}

}  // namespace

Stream *stream_of(CUstream handle) {
    if (!handle || handle == CU_STREAM_LEGACY) return &legacy;
    if (handle == CU_STREAM_PER_THREAD) {
        if (!of_thread) {
            of_thread = new Stream();
            of_thread->blocking = true;
            streams.insert(of_thread);
        }
        return of_thread;
    }
    auto *stream = reinterpret_cast<Stream *>(handle);
    if (!streams.count(stream)) fault("a call has a stream that was never made or is destroyed: %p", static_cast<void *>(stream));
    return stream;
}

void enqueue(Stream *stream, std::string name, std::function<void()> work, std::vector<uintptr_t> addresses) {
    if (stream->capture) {
        add_node(*stream->capture, {std::move(name), std::move(work), std::move(addresses)});
        return;
    }
    drain_before(stream);
    stream->queue.push_back({std::move(name), std::move(work), nullptr});
    if (settings().eager) {
        drain(stream);
    } else if (stream->queue.size() > LONGEST_QUEUE) {
        while (stream->queue.size() > LONGEST_QUEUE / 2) step(stream);
    }
}

void drain(Stream *stream) {
    while (!stream->queue.empty()) step(stream);
}

void drain_all() {
    drain(&legacy);
    for (Stream *stream : streams) drain(stream);
}

void check_address(uintptr_t address, const Stream *stream, const char *call, const char *argument) {
    if (!on_device(address)) return;
    const Allocation *allocation = find(address);
    bool usable = allocation && allocation->has(address);
    if (usable) {
        const Graph *capture = stream->capture.get();
        usable = capture && allocation->graph == capture ? allocation->live_in_capture : allocation->live;
    }
    if (!usable)
        fault("%s: argument %s may not be used%s: %s", call, argument, stream->capture ? " in this capture" : "",
              describe(address).c_str());
}

void check_range(uintptr_t address, size_t bytes, const Stream *stream, const char *call, const char *argument) {
    if (!bytes) return;
    const Allocation *allocation = find(address);
    if (!allocation) fault("%s: argument %s is %#lx, which is no address of the device", call, argument, address);
    check_address(address, stream, call, argument);
    if (bytes > allocation->end() - address)
        fault("%s: argument %s: %lu bytes from %s", call, argument, bytes, describe(address).c_str());
}

int64_t device_time() { return worked; }

}  // namespace emulated

using namespace emulated;

void emulated_check(void *stream, const char *call, const char *argument, const void *address, size_t bytes) {
    Guard guard(device_mutex);
    check_range(reinterpret_cast<uintptr_t>(address), bytes, stream_of(static_cast<CUstream>(stream)), call, argument);
}

void emulated_enqueue(void *stream, const char *name, const std::function<void()> &work, const void *const *addresses,
                      size_t count) {
    Guard guard(device_mutex);
    std::vector<uintptr_t> used;
    for (size_t i = 0; i < count; ++i) used.push_back(reinterpret_cast<uintptr_t>(addresses[i]));
    enqueue(stream_of(static_cast<CUstream>(stream)), name, work, std::move(used));
}

EXPORT CUresult cuStreamCreate(CUstream *created, unsigned flags) {
    WITH_CONTEXT;
    auto *stream = new Stream();
    stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
    streams.insert(stream);
    *created = reinterpret_cast<CUstream>(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (stream->capture) fault("cuStreamDestroy of a stream that is being recorded: end the capture first");
    drain(stream);
    // Not deleted: markers point to it.
    streams.erase(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (stream->capture) return refuse(*stream->capture, "cuStreamSynchronize", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    drain_before(stream);
    drain(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamQuery(CUstream handle) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    if (stream->capture) return refuse(*stream->capture, "cuStreamQuery", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return stream->queue.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
    WITH_CONTEXT;
    Stream *stream = stream_of(handle);
    const Event &event = *reinterpret_cast<Event *>(event_handle);
    const bool never_recorded = !event.capture && !event.marker;
    if (stream->capture) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        if (never_recorded || event.capture == stream->capture->number) return CUDA_SUCCESS;
        return refuse(*stream->capture, "cuStreamWaitEvent for an event from outside", CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    }
    if (capture_of(event)) fault("cuStreamWaitEvent: a second stream joins a capture, which is not emulated");
    if (event.marker && !event.marker->passed) {
        stream->queue.push_back({"a wait for an event", nullptr, event.marker});
        if (settings().eager) drain(stream);
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventCreate(CUevent *created, unsigned) {
    WITH_CONTEXT;
    *created = reinterpret_cast<CUevent>(new Event());
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent handle) {
    WITH_CONTEXT;
    delete reinterpret_cast<Event *>(handle);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
    WITH_CONTEXT;
    Event &event = *reinterpret_cast<Event *>(handle);
    Stream *stream = stream_of(stream_handle);
    if (stream->capture) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event = {nullptr, stream->capture->number};
        return CUDA_SUCCESS;
    }
    auto marker = std::make_shared<Marker>();
    marker->stream = stream;
    event = {marker, 0};
    enqueue(stream, "an event", [marker] { marker->passed = true; });
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventQuery(CUevent handle) {
    WITH_CONTEXT;
    const Event &event = *reinterpret_cast<Event *>(handle);
    if (Graph *capture = capture_of(event)) return refuse(*capture, "cuEventQuery", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (forbidden_while_recording("cuEventQuery")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!event.marker || event.marker->passed) return CUDA_SUCCESS;
    // Otherwise a program that asks until it is there would ask for ever.
    step(event.marker->stream);
    return CUDA_ERROR_NOT_READY;
}

EXPORT CUresult cuEventSynchronize(CUevent handle) {
    WITH_CONTEXT;
    const Event &event = *reinterpret_cast<Event *>(handle);
    if (Graph *capture = capture_of(event)) return refuse(*capture, "cuEventSynchronize", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (event.marker) run_until(event.marker);
    return CUDA_SUCCESS;
}

// The clock that a program sees, without the time that the device worked where that was asked for: launches then seem to be
// what takes long, as on a GPU, and the trainer records graphs.
EXPORT int clock_gettime(clockid_t clock, timespec *time) noexcept {
    const long result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_MONOTONIC && settings().clock_of_host) {
        const int64_t left = int64_t(time->tv_sec) * 1'000'000'000 + time->tv_nsec - device_time();
        *time = {left / 1'000'000'000, left % 1'000'000'000};
    }
    return int(result);
}
