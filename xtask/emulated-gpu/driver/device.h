// What libcuda gives to the other libraries and to the compiled kernels. A C interface, because each is a shared object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Ends the program with a message.
EXPORT [[noreturn]] void emulated_fault(const char *what);

// Ends the program unless `bytes` from `address` on lie within one allocation that a call on `stream` may use.
EXPORT void emulated_check(void *stream, const char *call, const char *argument, const void *address, size_t bytes);

// Puts work into a stream. `addresses` are those that it uses, which a graph checks at each replay.
EXPORT void emulated_enqueue(void *stream, const char *name, const std::function<void()> &work, const void *const *addresses,
                             size_t count);
