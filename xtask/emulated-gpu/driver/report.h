// What the device has to say: faults, which end the program, and notes.
#pragma once

#include <string>

namespace emulated {

// The piece of work that runs now, for messages.
extern std::string running;

// Says what is wrong and where, and aborts: the program did what breaks, or may break, on a GPU.
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Says what is allowed, and worth a look.
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A note that is made once for each kernel.
void note_once(const char *kernel, const char *what);

}  // namespace emulated
