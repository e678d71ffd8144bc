#!/usr/bin/env python3
"""Times PyTorch's three passes of a convolution on layers of ResNet-18 and ResNet-50, to set Kestrel's kernels beside them.

Usage: torch_conv.py [--threads N] [--batch N] [--repeats N] [--layer PREFIX]
Prints a line `<layer> <pass> <best ms> <median ms> <memory format>` for each layer and pass, in the better of the two memory
formats (channels last and contiguous, by the best time). A layer's name is `<kernel>s<stride>_<C>_<K>@<H>`. The backward
passes include no bias. Needs torch.
"""
import argparse
import statistics
import time

import torch

# C, K, H, kernel, stride, padding
LAYERS = [
    (3, 64, 224, 7, 2, 3),
    (64, 128, 56, 3, 2, 1),
    (128, 256, 28, 3, 2, 1),
    (256, 512, 14, 3, 2, 1),
    (64, 128, 56, 1, 2, 0),
    (128, 256, 28, 1, 2, 0),
    (256, 512, 14, 1, 2, 0),
    (64, 256, 56, 1, 1, 0),
    (256, 64, 56, 1, 1, 0),
    (512, 2048, 7, 1, 1, 0),
    (64, 64, 56, 3, 1, 1),
    (128, 128, 28, 3, 1, 1),
    (256, 256, 14, 3, 1, 1),
    (512, 512, 7, 3, 1, 1),
]


def times(run, repeats):
    run()
    run()
    result = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        result.append((time.perf_counter() - start) * 1e3)
    return min(result), statistics.median(result)


def passes(x, w, dy, stride, padding):
    def backward(mask):
        return torch.ops.aten.convolution_backward(
            dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask
        )

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, None, stride, padding),
        "backward_data": lambda: backward([True, False, False]),
        "backward_weights": lambda: backward([False, True, False]),
    }


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--batch", type=int, default=16)
    a.add_argument("--repeats", type=int, default=9)
    a.add_argument("--layer", default="", help="only layers whose name begins so")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    for c, k, h, kernel, stride, padding in LAYERS:
        name = f"{kernel}x{kernel}s{stride}_{c}_{k}@{h}"
        if not name.startswith(a.layer):
            continue
        best = {}
        for label, memory_format in formats.items():
            x = torch.rand(a.batch, c, h, h).contiguous(memory_format=memory_format)
            w = torch.rand(k, c, kernel, kernel).contiguous(memory_format=memory_format)
            with torch.no_grad():
                y = torch.nn.functional.conv2d(x, w, None, stride, padding)
                dy = torch.rand_like(y).contiguous(memory_format=memory_format)
                for step, run in passes(x, w, dy, stride, padding).items():
                    measured = (*times(run, a.repeats), label)
                    best[step] = min(best.get(step, measured), measured)
        for step, (fastest, median, label) in best.items():
            print(f"{name} {step} {fastest:.3f} {median:.3f} {label}", flush=True)


if __name__ == "__main__":
    main()
