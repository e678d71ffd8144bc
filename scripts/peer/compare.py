#!/usr/bin/env python3
"""Sets `cargo xtask bench` beside PyTorch on this machine: rounds of each in turn, and the ratio of their medians.

Usage: compare.py [--rounds N] [--python PYTHON] [--compile] [--folder FOLDER] [CASE ...]
Run it in the repository. PYTHON has torch and torchvision (by default the one that runs this). In a round PyTorch's rate is that of
its fastest variant (see torch_bench.py). Prints a line a round, and then `<case>  ratio  R  (Kestrel A img/s, PyTorch B img/s,
N rounds)`. Nothing else should run meanwhile.
"""
import argparse
import pathlib
import re
import statistics
import subprocess
import sys

CASES = ["cnn-train", "cnn-eval", "resnet-full", "resnet-head", "load-cifar"]
LINE = re.compile(r"^(\S+)\s.*?([0-9.]+) img/s")


def fastest(command, case):
    """The largest rate that `command` prints for `case`."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    rates = [float(m[2]) for m in map(LINE.match, done.stdout.splitlines()) if m and m[1] == case]
    if not rates:
        sys.exit(f"{' '.join(command)} printed no rate for {case}:\n{done.stdout[-2000:]}")
    return max(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder")
    a = parser.parse_args()
    peer = [a.python, str(pathlib.Path(__file__).with_name("torch_bench.py"))]
    for case in a.cases or CASES:
        options = ["--folder", a.folder] if a.folder and case == "load-folder" else []
        torch, kestrel = [], []
        for round_ in range(1, a.rounds + 1):
            compiled = ["--compile"] if a.compile and not case.startswith("load-") else []
            torch.append(fastest([*peer, case, *options, *compiled], case))
            kestrel.append(fastest(["cargo", "xtask", "bench", case, *options], case))
            print(f"{case:12} round {round_}  Kestrel {kestrel[-1]:.1f}, PyTorch {torch[-1]:.1f} img/s", flush=True)
        ours, theirs = statistics.median(kestrel), statistics.median(torch)
        rounds = f"{a.rounds} rounds"
        print(f"{case:12} ratio {ours / theirs:.2f}  (Kestrel {ours:.1f} img/s, PyTorch {theirs:.1f} img/s, {rounds})", flush=True)


if __name__ == "__main__":
    main()
