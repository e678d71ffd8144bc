// How the device behaves, as the environment says; README.md lists the variables.
#pragma once

namespace emulated {

// The order in which blocks of a grid, or threads of a block, run.
enum class Order { forward, reversed, shuffled };

struct Settings {
    // Whether work runs when it is put into a stream. Otherwise it waits until somebody must see its result.
    bool eager;
    Order blocks;
    Order threads;
    // Of the shuffled orders.
    unsigned seed;
    // Whether the guard page lies before an allocation, where it finds reads of index -1, or after it.
    bool guard_before;
    int multiprocessors;
    // Whether the clock stands still while the device works, so that a program sees its launches alone.
    bool clock_of_host;
};

// Read once; a value that is not understood ends the program.
const Settings &settings();

}  // namespace emulated
