// Whether the emulated GPU finds what it is there to find: each case makes one fault on purpose, in a process of its own, which
// must end with the message that belongs to it. A few make none, and must end well.
#include <cuda.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" int cublasCreate_v2(void **);
extern "C" int cublasDestroy_v2(void *);
extern "C" int cublasSetStream_v2(void *, void *);

namespace {

constexpr size_t BYTES = 100;

void need(CUresult result, const char *call) {
    if (result == CUDA_SUCCESS) return;
    std::fprintf(stderr, "%s gave %d\n", call, int(result));
    std::exit(1);
}
#define NEED(CALL) need(CALL, #CALL)

void expect(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "expected: %s\n", what);
    std::exit(1);
}

CUstream open_stream() {
    CUdevice device;
    CUcontext context;
    CUstream stream;
    NEED(cuInit(0));
    NEED(cuDeviceGet(&device, 0));
    NEED(cuDevicePrimaryCtxRetain(&context, device));
    NEED(cuCtxSetCurrent(context));
    NEED(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

CUdeviceptr allocate(CUstream stream) {
    CUdeviceptr address;
    NEED(cuMemAllocAsync(&address, BYTES, stream));
    return address;
}

// The kernel of update.cu that writes a number to an address.
CUfunction set_step() {
    CUmodule module;
    CUfunction function;
    const char *ptx = ".version 9.0\n.visible .entry set_step(\n\t.param .u64 a,\n\t.param .u64 b\n)\n{\n\tret;\n}\n";
    NEED(cuModuleLoadData(&module, ptx));
    NEED(cuModuleGetFunction(&function, module, "set_step"));
    return function;
}

void launch(CUstream stream, unsigned long long step, CUdeviceptr to) {
    void *arguments[] = {&step, &to};
    NEED(cuLaunchKernel(set_step(), 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr));
}

void begin_capture(CUstream stream) { NEED(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)); }

CUgraphExec end_capture(CUstream stream) {
    CUgraph graph;
    CUgraphExec executable;
    NEED(cuStreamEndCapture(stream, &graph));
    NEED(cuGraphInstantiateWithFlags(&executable, graph, 0));
    return executable;
}

void new_memory_is_nan() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    float values[BYTES / sizeof(float)];
    NEED(cuMemcpyDtoHAsync_v2(values, address, BYTES, stream));
    for (const float value : values) expect(value != value, "NaN in memory that was never written");
}

void a_launch_waits_and_is_seen() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    launch(stream, 7, address);
    unsigned long long step;
    NEED(cuMemcpyDtoHAsync_v2(&step, address, sizeof step, stream));
    expect(step == 7, "the number that the kernel wrote");
}

void a_graph_replays() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    CUfunction loaded = set_step();
    unsigned long long step = 5;
    CUdeviceptr to = address;
    void *arguments[] = {&step, &to};
    begin_capture(stream);
    NEED(cuLaunchKernel(loaded, 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr));
    CUgraphExec graph = end_capture(stream);
    NEED(cuMemsetD8Async(address, 0, BYTES, stream));
    NEED(cuGraphLaunch(graph, stream));
    NEED(cuMemcpyDtoHAsync_v2(&step, address, sizeof step, stream));
    expect(step == 5, "the number that the replay wrote");
}

void a_range_leaves_its_allocation() {
    CUstream stream = open_stream();
    NEED(cuMemsetD8Async(allocate(stream), 0, BYTES + 1, stream));
}

void memory_is_used_after_it_was_freed() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    NEED(cuMemFreeAsync(address, stream));
    launch(stream, 1, address);
}

void memory_is_freed_twice() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    NEED(cuMemFreeAsync(address, stream));
    NEED(cuMemFreeAsync(address, stream));
}

// The last whole number of an allocation of 100 bytes ends at 104: what pads it is overwritten, which its freeing finds.
void a_kernel_writes_past_an_allocation() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    launch(stream, 1, address + 96);
    NEED(cuMemFreeAsync(address, stream));
    NEED(cuStreamSynchronize(stream));
}

void a_kernel_writes_onto_a_guard_page() {
    CUstream stream = open_stream();
    CUdeviceptr address;
    NEED(cuMemAllocAsync(&address, 4096, stream));
    launch(stream, 1, address + 4096);
    NEED(cuStreamSynchronize(stream));
}

void a_number_is_an_address() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    launch(stream, address, address);
}

void a_pointer_is_none() {
    CUstream stream = open_stream();
    launch(stream, 1, 12345);
}

void a_replay_uses_freed_memory() {
    CUstream stream = open_stream();
    const CUdeviceptr address = allocate(stream);
    begin_capture(stream);
    NEED(cuMemsetD8Async(address, 0, BYTES, stream));
    CUgraphExec graph = end_capture(stream);
    NEED(cuMemFreeAsync(address, stream));
    cuGraphLaunch(graph, stream);
}

void a_capture_that_waits_is_invalid() {
    CUstream stream = open_stream();
    begin_capture(stream);
    expect(cuStreamSynchronize(stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "an error of waiting in a capture");
    CUgraph graph;
    expect(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "an invalid capture");
}

void a_stream_is_gone() {
    CUstream stream = open_stream();
    NEED(cuStreamDestroy_v2(stream));
    cuStreamSynchronize(stream);
}

void a_handle_is_gone() {
    CUstream stream = open_stream();
    void *handle;
    cublasCreate_v2(&handle);
    cublasDestroy_v2(handle);
    cublasSetStream_v2(handle, stream);
}

void a_function_is_not_emulated() {
    open_stream();
    cuCtxGetApiVersion(nullptr, nullptr);
}

struct Case {
    const char *name;
    void (*run)();
    // What its message says; nothing where it must end well.
    const char *message;
};

#define CASE(FUNCTION, MESSAGE) {#FUNCTION, FUNCTION, MESSAGE}
const Case CASES[] = {
    CASE(new_memory_is_nan, nullptr),
    CASE(a_launch_waits_and_is_seen, nullptr),
    CASE(a_graph_replays, nullptr),
    CASE(a_capture_that_waits_is_invalid, nullptr),
    CASE(a_range_leaves_its_allocation, "101 bytes from byte +0 of the 100 bytes"),
    CASE(memory_is_used_after_it_was_freed, "may not be used"),
    CASE(memory_is_freed_twice, "cannot be freed"),
    CASE(a_kernel_writes_past_an_allocation, "outside of an allocation were written"),
    CASE(a_kernel_writes_onto_a_guard_page, "set_step, block 0,0,0"),
    CASE(a_number_is_an_address, "is a number, and is given an address"),
    CASE(a_pointer_is_none, "is a pointer, and is given 0x3039"),
    CASE(a_replay_uses_freed_memory, "uses memory that is gone"),
    CASE(a_stream_is_gone, "a stream that was never made or is destroyed"),
    CASE(a_handle_is_gone, "a handle that is destroyed"),
    CASE(a_function_is_not_emulated, "cuCtxGetApiVersion is not emulated"),
};

// Runs a case in a child; its messages, and the status that it ended with.
std::string run(const Case &one, int &status) {
    int ends[2];
    if (pipe(ends)) std::abort();
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        one.run();
        std::_Exit(0);
    }
    close(ends[1]);
    std::string said;
    char buffer[4096];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) said.append(buffer, got);
    close(ends[0]);
    waitpid(child, &status, 0);
    return said;
}

}  // namespace

int main() {
    int failed = 0;
    for (const Case &one : CASES) {
        int status;
        const std::string said = run(one, status);
        const bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
        const bool right = one.message ? aborted && said.find(one.message) != std::string::npos : status == 0;
        if (right) continue;
        ++failed;
        const char *expected = one.message ? one.message : "no fault";
        std::fprintf(stderr, "emulated GPU: %s: expected %s, got status %d and: %s\n", one.name, expected, status, said.c_str());
    }
    const size_t cases = sizeof CASES / sizeof *CASES;
    std::fprintf(stderr, "emulated GPU: %zu of %zu cases, with faults and without, came out as they should\n", cases - failed,
                 cases);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
