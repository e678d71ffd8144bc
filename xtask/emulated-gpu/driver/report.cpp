#include "report.h"

#include <execinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

#include "device.h"

namespace emulated {

std::string running = "nothing: the host called";

namespace {

// Written at once and past all buffers, because the process may be about to die.
void write_line(const char *kind, const char *format, va_list arguments) {
    char line[4096];
    int length = std::snprintf(line, sizeof line, "emulated GPU: %s: ", kind);
    length += std::vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    length = std::min(length, int(sizeof line) - 2);
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0) return;
}

}  // namespace

void fault(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line("fault", format, arguments);
    va_end(arguments);
    note("while running %s; the host is at:", running.c_str());
    void *frames[64];
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    std::abort();
}

void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line("note", format, arguments);
    va_end(arguments);
}

void note_once(const char *kernel, const char *what) {
    static std::set<std::pair<std::string, std::string>> told;
    if (told.emplace(kernel, what).second) note("%s: %s", kernel, what);
}

}  // namespace emulated

extern "C" void emulated_fault(const char *what) { emulated::fault("%s", what); }
