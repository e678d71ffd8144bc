#include "kernels.h"

#include <cuda.h>
#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <cstring>
#include <regex>

#include "context.h"
#include "device.h"
#include "graphs.h"
#include "report.h"

namespace emulated {
namespace {

struct Compiled {
    const EmulatedKernel *kernel;
    const EmulatedKernels *library;
};

// In a function, for it is needed before main.
std::map<std::string, Compiled> &compiled() {
    static std::map<std::string, Compiled> by_name;
    return by_name;
}

void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fault("cannot open kernels: %s; build them again", dlerror());
    const auto table = reinterpret_cast<decltype(&emulated_kernels)>(dlsym(library, "emulated_kernels"));
    if (!table) fault("%s holds no kernels; remove it, and build again", path);
    const auto *kernels = new EmulatedKernels(table());
    for (size_t i = 0; i < kernels->count; ++i) {
        const EmulatedKernel *kernel = &kernels->kernels[i];
        if (!compiled().emplace(kernel->name, Compiled{kernel, kernels}).second)
            fault("two kernels are named %s: rename one, or tell them apart by their module", kernel->name);
    }
}

bool contains_any(const std::string &text, std::initializer_list<const char *> words) {
    for (const char *word : words)
        if (text.find(word) != std::string::npos) return true;
    return false;
}

// The bytes of each parameter in the list of an entry: `.param .u64 name` or `.param .align 8 .b8 name[1920]`.
std::vector<int> parameter_sizes(const std::string &list) {
    static const std::regex parameter(R"(\.param\s+(?:\.align\s+\d+\s+)?\.[a-z]+(\d+)[^,\[]*(?:\[(\d+)\])?)");
    std::vector<int> sizes;
    for (std::sregex_iterator at(list.begin(), list.end(), parameter), end; at != end; ++at) {
        const int elements = (*at)[2].matched ? std::stoi((*at)[2]) : 1;
        sizes.push_back(std::stoi((*at)[1]) / 8 * elements);
    }
    return sizes;
}

Entry parse_entry(const std::string &head, const std::string &body, bool functions_meet) {
    Entry entry;
    entry.sizes = parameter_sizes(head);
    static const std::regex limit(R"(\.maxntid\s+(\d+)\s*,\s*(\d+)\s*,\s*(\d+))");
    std::smatch found;
    if (std::regex_search(head, found, limit))
        entry.most_threads = std::stoi(found[1]) * std::stoi(found[2]) * std::stoi(found[3]);
    entry.threads_meet = contains_any(body, {"bar.", "barrier.", "shfl.", "vote.", "match."}) ||
                         (functions_meet && body.find("call") != std::string::npos);
    return entry;
}

// Entries as nvcc writes them: `.entry NAME(PARAMETERS) DIRECTIVES {`, and a closing brace on a line of its own.
Module parse(const std::string &ptx) {
    Module module;
    const size_t function = ptx.find(".func");
    const bool functions_meet = function != std::string::npos && contains_any(ptx.substr(function), {"bar.sync", "shfl."});
    const std::string mark = ".entry ";
    for (size_t at = ptx.find(mark); at != std::string::npos; at = ptx.find(mark, at)) {
        at += mark.size();
        const size_t name_end = ptx.find_first_of("( \n", at), open = ptx.find('{', at), close = ptx.find("\n}\n", open);
        if (open == std::string::npos) fault("cuModuleLoadData: PTX ends within an entry");
        module.entries[ptx.substr(at, name_end - at)] =
            parse_entry(ptx.substr(name_end, open - name_end), ptx.substr(open, close - open), functions_meet);
        at = open;
    }
    return module;
}

std::string list(const int *sizes, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += (i ? " " : "") + std::to_string(sizes[i]);
    return text;
}

}  // namespace

void load_kernels() {
    Dl_info driver;
    dladdr(reinterpret_cast<void *>(&load_kernels), &driver);
    std::string folder = driver.dli_fname;
    folder.resize(folder.rfind('/') + 1);
    glob_t found;
    glob((folder + "kernels/*.so").c_str(), 0, nullptr, &found);
    for (size_t i = 0; i < found.gl_pathc; ++i) load(found.gl_pathv[i]);
    globfree(&found);
}

}  // namespace emulated

using namespace emulated;

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    WITH_CONTEXT;
    if (forbidden_while_recording("cuModuleLoadData")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    const char *text = static_cast<const char *>(image);
    if (!std::strstr(text, ".version")) fault("cuModuleLoadData of what is no PTX, which is not emulated");
    *module = reinterpret_cast<CUmodule>(new Module(parse(text)));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule) {
    WITH_CONTEXT;
    // Kept: functions point into it.
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule handle, const char *name) {
    WITH_CONTEXT;
    const auto &entries = reinterpret_cast<Module *>(handle)->entries;
    const auto entry = entries.find(name);
    if (entry == entries.end()) {
        note("cuModuleGetFunction: the PTX has no kernel %s", name);
        return CUDA_ERROR_NOT_FOUND;
    }
    const auto found = compiled().find(name);
    if (found == compiled().end()) fault("kernel %s was not compiled for the CPU: add its source to build.py", name);
    const EmulatedKernel &kernel = *found->second.kernel;
    const std::vector<int> &sizes = entry->second.sizes;
    const std::string in_ptx = list(sizes.data(), sizes.size()), here = list(kernel.sizes, kernel.count);
    if (in_ptx != here)
        fault("kernel %s takes arguments of %s bytes in PTX, and of %s here: build again", name, in_ptx.c_str(), here.c_str());
    *function = reinterpret_cast<CUfunction>(new Function{&kernel, found->second.library, &entry->second});
    return CUDA_SUCCESS;
}
