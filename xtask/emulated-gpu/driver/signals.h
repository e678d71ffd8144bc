// Signals of memory: an access to a guard page, or to memory that was freed, as a fault that names it.
#pragma once

namespace emulated {

void catch_signals();

}  // namespace emulated
