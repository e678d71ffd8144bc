#include "signals.h"

#include <signal.h>

#include <cstdint>

#include "fibers.h"
#include "memory.h"
#include "report.h"

namespace emulated {
namespace {

void on_signal(int number, siginfo_t *info, void *) {
    // Also for a fault within the messages.
    signal(number, SIG_DFL);
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    // Others are the program's own: the access is tried again when this returns, and ends it.
    if (!in_arena(address) && !in_kernel()) return;
    fault("signal %d at %s; %s", number, describe(address).c_str(), place_in_kernel().c_str());
}

}  // namespace

void catch_signals() {
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (const int number : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(number, &action, nullptr);
}

}  // namespace emulated
