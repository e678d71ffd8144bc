#!/usr/bin/env python3
"""The speed of a training step of the cifar-94 recipe's network in PyTorch, to set beside Kestrel's on the same machine.

Usage: torch_cifar94.py [--steps N] [--batch N] [--threads N] [--seed N]
A step is forward, backward and update on random images that are ready in memory: nothing is loaded or augmented. One step in
warm-up, then the median of --steps. Both parts of the recipe are timed: with the whitening layer's bias trained, and frozen.
"""
import argparse
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class BatchNorm(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), BatchNorm(outputs)

    def forward(self, x):
        x = F.gelu(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.bn2(self.conv2(x)))


class WhitenedCnn(nn.Module):
    def __init__(self, width=64, classes=10):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        self.block1, self.block2 = Block(24, width), Block(width, 4 * width)
        self.block3, self.head = Block(4 * width, 4 * width), nn.Linear(4 * width, classes, bias=False)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(F.gelu(self.whiten(x)))))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / 9


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--steps", type=int, default=5)
    a.add_argument("--batch", type=int, default=1024)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    print("torch", torch.__version__, "threads", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    model = WhitenedCnn().to(memory_format=torch.channels_last).train()
    norm_biases = [p for name, p in model.named_parameters() if ".bn" in name and p.requires_grad]
    others = [p for name, p in model.named_parameters() if ".bn" not in name and p.requires_grad]
    optimizer = torch.optim.SGD(
        [{"params": others, "lr": 1.5, "weight_decay": 1.33e-3},
         {"params": norm_biases, "lr": 96.0, "weight_decay": 1.33e-3 / 64}],
        lr=1.5, momentum=0.85, nesterov=True)
    x = torch.randn(a.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (a.batch,))
    for trained in (True, False):
        model.whiten.bias.requires_grad = trained
        seconds = []
        for _ in range(a.steps + 1):
            started = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y, label_smoothing=0.2).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - started)
        median = statistics.median(seconds[1:])
        what = "trained" if trained else "frozen"
        print(f"whitening bias {what}: {median:.3f} s a step of {a.batch}, {a.batch / median:.0f} img/s", flush=True)


if __name__ == "__main__":
    main()
