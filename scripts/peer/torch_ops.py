#!/usr/bin/env python3
"""PyTorch's time for the ops and shapes of `cargo bench -p kestrel-kernels`, under the same names.

Usage: torch_ops.py [--threads N] [--samples N] [NAME ...]
A line an op and shape: forward and backward in milliseconds, the median of the samples and (the fastest). The memory format
(or an optimiser's implementation) is the one whose medians have the least sum, and is named. Every input requires its gradient, as
in training. A NAME takes the ops whose line contains it. Needs torch.
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def var(*shape, memory_format=torch.contiguous_format):
    return torch.randn(*shape).contiguous(memory_format=memory_format).requires_grad_()


def conv2d(n, c, size, k, memory_format):
    x = var(n, c, size, size, memory_format=memory_format)
    weight = var(k, c, 3, 3, memory_format=memory_format)
    return lambda: F.conv2d(x, weight, padding=1), [x, weight]


def conv2d_strided(n, c, size, k, kernel, stride, memory_format):
    x = var(n, c, size, size, memory_format=memory_format)
    weight = var(k, c, kernel, kernel, memory_format=memory_format)
    return lambda: F.conv2d(x, weight, stride=stride, padding=kernel // 2), [x, weight]


def batch_norm_relu(n, c, size, memory_format):
    x, weight, bias = var(n, c, size, size, memory_format=memory_format), var(c), var(c)
    mean, variance = torch.zeros(c), torch.ones(c)
    return lambda: F.relu(F.batch_norm(x, mean, variance, weight, bias, training=True)), [x, weight, bias]


def batch_norm_add_relu(n, c, size, memory_format):
    x, residual = (var(n, c, size, size, memory_format=memory_format) for _ in range(2))
    weight, bias, mean, variance = var(c), var(c), torch.zeros(c), torch.ones(c)
    return (lambda: F.relu(F.batch_norm(x, mean, variance, weight, bias, training=True) + residual),
            [x, residual, weight, bias])


def of_images(function):
    """A maker of `function(x)` of images."""
    def make(n, c, size, memory_format):
        x = var(n, c, size, size, memory_format=memory_format)
        return lambda: function(x), [x]
    return make


def max_pool2d(n, c, size, kernel, padding, memory_format):
    x = var(n, c, size, size, memory_format=memory_format)
    return lambda: F.max_pool2d(x, kernel, 2, padding), [x]


def linear(n, c, k):
    x, weight, bias = var(n, c), var(k, c), var(k)
    return lambda: F.linear(x, weight, bias), [x, weight, bias]


def linear_relu(n, c, k):
    op, inputs = linear(n, c, k)
    return lambda: F.relu(op()), inputs


def dropout(n, c):
    x = var(n, c)
    return lambda: F.dropout(x, 0.5), [x]


def cross_entropy(n, c):
    logits = var(n, c)
    targets = torch.arange(n) % c
    return lambda: F.cross_entropy(logits, targets), [logits]


def cases():
    """(name, {variant: () -> (op, inputs)}, calls in a sample) of every op with a backward."""
    def formats(make, *shape):
        return {name: lambda m=memory_format: make(*shape, memory_format=m) for name, memory_format in FORMATS.items()}

    for n, c, size, k in [(128, 64, 32, 64), (128, 64, 16, 128), (128, 128, 16, 128), (128, 128, 8, 256), (128, 256, 8, 256),
                          (16, 64, 56, 64), (16, 128, 28, 128), (16, 256, 14, 256), (16, 512, 7, 512)]:
        yield f"conv2d {c}->{k} @{size} batch {n}", formats(conv2d, n, c, size, k), 1
    for n, c, size, k, kernel, stride in [(128, 3, 32, 64, 3, 1), (16, 3, 224, 64, 7, 2), (16, 64, 56, 128, 3, 2),
                                          (16, 64, 56, 128, 1, 2), (16, 64, 56, 256, 1, 1)]:
        name = f"conv2d_strided {c}->{k} {kernel}x{kernel}/{stride} @{size} batch {n}"
        yield name, formats(conv2d_strided, n, c, size, k, kernel, stride), 1
    for n, c, size in [(128, 64, 32), (128, 256, 8), (16, 64, 56), (16, 512, 7)]:
        yield f"batch_norm_relu {c} @{size} batch {n}", formats(batch_norm_relu, n, c, size), 1
    for n, c, size in [(16, 64, 56), (16, 512, 7)]:
        yield f"batch_norm_add_relu {c} @{size} batch {n}", formats(batch_norm_add_relu, n, c, size), 1
    yield "gelu 64 @32 batch 128", formats(of_images(F.gelu), 128, 64, 32), 1
    yield "avg_pool2d 64 2x2/2 @32 batch 128", formats(of_images(lambda x: F.avg_pool2d(x, 2, 2)), 128, 64, 32), 1
    yield "adaptive_avg_pool2d 512 @7 batch 16", formats(of_images(lambda x: F.adaptive_avg_pool2d(x, 1)), 16, 512, 7), 1
    for n, c, size, kernel, padding in [(128, 64, 32, 2, 0), (128, 128, 16, 2, 0), (128, 256, 8, 2, 0), (16, 64, 112, 3, 1)]:
        name = f"max_pool2d {c} {kernel}x{kernel}/2 @{size} batch {n}"
        yield name, formats(max_pool2d, n, c, size, kernel, padding), 1
    for n, c, k in [(128, 4096, 512), (128, 512, 10), (128, 512, 1000)]:
        yield f"linear {c}->{k} batch {n}", {"": lambda n=n, c=c, k=k: linear(n, c, k)}, 1
    yield "linear_relu 4096->512 batch 128", {"": lambda: linear_relu(128, 4096, 512)}, 1
    yield "dropout 4096 batch 128", {"": lambda: dropout(128, 4096)}, 1
    for n, c in [(128, 10), (128, 1000)]:
        yield f"cross_entropy {c} batch {n}", {"": lambda n=n, c=c: cross_entropy(n, c)}, 10


def time_op(make, samples, calls):
    """Median and least seconds of forward and of backward; the first sample is not counted."""
    op, inputs = make()
    forward, backward = [], []
    for _ in range(samples + 1):
        started = time.perf_counter()
        ys = [op() for _ in range(calls)]
        forward.append((time.perf_counter() - started) / calls)
        # Filling the gradient of ones is part of the backward, as in candle's.
        started = time.perf_counter()
        grads = [torch.autograd.grad(y, inputs, torch.ones_like(y)) for y in ys]
        backward.append((time.perf_counter() - started) / calls)
        del ys, grads
    return [(statistics.median(seconds[1:]), min(seconds[1:])) for seconds in (forward, backward)]


def adam(param, **implementation):
    return torch.optim.Adam([param], lr=1e-3, weight_decay=1e-4, **implementation)


def sgd(param, **implementation):
    return torch.optim.SGD([param], lr=1e-3, momentum=0.9, weight_decay=1e-4, **implementation)


def time_step(make, parameters, samples, implementation):
    param = var(parameters)
    param.grad = torch.randn(parameters)
    optimizer = make(param, **{implementation: True})
    seconds = []
    for _ in range(samples + 1):
        started = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return [(statistics.median(seconds[1:]), min(seconds[1:]))]


def say(name, timed):
    """Prints the variant with the least sum of medians."""
    best = min(timed, key=lambda variant: sum(median for median, _ in timed[variant]))
    columns = [f"{median * 1e3:9.3f} ({least * 1e3:.3f})" for median, least in timed[best]]
    print(f"{name:40}" + "".join(f"{column:22}" for column in columns) + best, flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("names", nargs="*", metavar="NAME")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--samples", type=int, default=15)
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    wanted = lambda name: not a.names or any(part in name for part in a.names)
    print("torch", torch.__version__, "threads", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(),
          "samples", a.samples, "milliseconds, median (fastest)")
    print(f"{'op':40}{'  forward':22}{'  backward':22}best")
    for name, variants, calls in cases():
        if wanted(name):
            say(name, {variant: time_op(make, a.samples, calls) for variant, make in variants.items()})
    for make in [adam, sgd]:
        for parameters in [2_097_152, 147_456]:
            name = f"{make.__name__} {parameters}"
            if wanted(name):
                say(name, {i: time_step(make, parameters, a.samples, i) for i in ["foreach", "fused"]})


if __name__ == "__main__":
    main()
