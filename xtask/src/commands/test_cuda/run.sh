#!/bin/sh
# Runs the tests in bin on this machine's GPU: sh run.sh [FILTER]... Written by cargo xtask test-cuda.
here=$(cd "$(dirname "$0")" && pwd) || exit 2
[ $# -gt 0 ] || set -- @FILTERS@
filters=$*
# Here they are for a device: without one they fail.
export KESTREL_REQUIRE_CUDA=1
# What the machine has comes first.
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib"
passed=0
failed=

run() {
    echo "== $2"
    # Filters are names of tests, which hold no spaces.
    # shellcheck disable=SC2086
    if (cd "$here/crates/$1" && CARGO_MANIFEST_DIR="$here/crates/$1" "$here/bin/$2" --include-ignored $filters); then
        passed=$((passed + 1))
    else
        failed="$failed $2"
    fi
}

@RUNS@

# shellcheck disable=SC2086
set -- $failed
echo "== $passed passed, $# failed:$failed"
[ $# -eq 0 ]
