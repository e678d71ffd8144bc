#include "settings.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>

#include "report.h"

namespace emulated {
namespace {

// The place of a variable's value among `words`; the first of them where it is not set.
int choice(const char *variable, std::initializer_list<const char *> words) {
    const char *value = std::getenv(variable);
    if (!value || !*value) return 0;
    int place = 0;
    std::string all;
    for (const char *word : words) {
        if (!std::strcmp(word, value)) return place;
        all += (place++ ? ", " : "") + std::string(word);
    }
    fault("%s is \"%s\", expected one of: %s", variable, value, all.c_str());
}

Order order(const char *variable) { return Order(choice(variable, {"forward", "reversed", "shuffled"})); }

unsigned number(const char *variable, unsigned otherwise) {
    const char *value = std::getenv(variable);
    if (!value || !*value) return otherwise;
    char *end;
    const unsigned long parsed = std::strtoul(value, &end, 10);
    if (*end || parsed < 1 || parsed > 1'000'000) fault("%s is \"%s\", expected a number from 1 to 1000000", variable, value);
    return unsigned(parsed);
}

Settings from_environment() {
    Settings read;
    read.eager = choice("EMULATED_GPU_STREAMS", {"lazy", "eager"}) == 1;
    read.blocks = order("EMULATED_GPU_BLOCKS");
    read.threads = order("EMULATED_GPU_THREADS");
    read.seed = number("EMULATED_GPU_SEED", 1);
    read.guard_before = choice("EMULATED_GPU_GUARD", {"after", "before"}) == 1;
    // As many as an H100 has.
    read.multiprocessors = int(number("EMULATED_GPU_MULTIPROCESSORS", 132));
    read.clock_of_host = choice("EMULATED_GPU_CLOCK", {"all", "host"}) == 1;
    return read;
}

}  // namespace

const Settings &settings() {
    static const Settings read = from_environment();
    return read;
}

}  // namespace emulated
