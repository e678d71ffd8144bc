#!/usr/bin/env python3
"""PyTorch's throughput on the cases of `cargo xtask bench`, on the CPU.

Usage: torch_bench.py [--threads N] [--repeats N] [--compile] [--folder FOLDER] [CASE ...]
Cases: cnn-train, cnn-eval, resnet-head, resnet-full, load-cifar; load-folder with a FOLDER of <class>/*.
Prints a line `<case>  <variant>  <rate> img/s  (median of N)` for each variant: contiguous and channels-last, both eager, and with
--compile also channels-last through torch.compile (needs a C++ compiler; compiled in warm-up). A repeat is one step on random
images that are ready in memory, or one pass over all images for the loaders (two workers). Needs torch and torchvision.
"""
import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
import torchvision.transforms as T
from PIL import Image
from torch_reference import MEAN, STD, Cnn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def median_rate(step, images, repeats):
    """Images a second: the median of `repeats` steps, after three in warm-up."""
    for _ in range(3):
        step()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        rates.append(images / (time.perf_counter() - started))
    return statistics.median(rates)


def steps(build, batch, size, train, compiled):
    """`(variant, step)` of each variant; `build` makes a model and the parameters to train."""
    variants = [("contiguous", torch.contiguous_format, False), ("channels_last", torch.channels_last, False)]
    if compiled:
        variants.append(("compiled", torch.channels_last, True))
    for name, memory_format, is_compiled in variants:
        torch.manual_seed(0)
        model, parameters = build()
        model = model.to(memory_format=memory_format)
        x = torch.randn(batch, 3, size, size).contiguous(memory_format=memory_format)
        y = torch.randint(0, 10, (batch,))
        run = torch.compile(model) if is_compiled else model
        if not train:

            def step(run=run, x=x):
                with torch.no_grad():
                    return run(x).argmax(1).sum().item()

            yield name, step
            continue
        optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-4)

        def step(run=run, x=x, y=y, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(run(x), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        yield name, step


def cnn(train):
    def build():
        model = Cnn(10).train(train)
        return model, model.parameters()

    return build


def resnet(whole):
    """ResNet-18 with ten classes: all of it trained, or the last layer alone, the rest frozen and in evaluation."""

    def build():
        model = torchvision.models.resnet18(weights=None)
        if not whole:
            model.requires_grad_(False)
        model.fc = nn.Linear(512, 10)
        return model.train(whole), [p for p in model.parameters() if p.requires_grad]

    return build


class InMemory(torch.utils.data.Dataset):
    """Random images of CIFAR-10's size, as `torchvision.datasets.CIFAR10` hands them out."""

    def __init__(self, images, transform):
        self.pixels = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        self.transform = transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), index % 10


def passes(dataset, batch):
    """One pass over the data set, loaded by two workers."""
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=2)

    def step():
        for _ in loader:
            pass

    return [("2 workers", step)], len(dataset)


def cifar_loader():
    augment = [T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4), T.ToTensor(), T.Normalize(MEAN, STD)]
    return passes(InMemory(10000, T.Compose(augment)), 128)


def folder_loader(folder):
    augment = [T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return passes(torchvision.datasets.ImageFolder(folder, T.Compose(augment)), 64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--folder")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    table = {
        "cnn-train": lambda: (steps(cnn(True), 128, 32, True, a.compile), 128),
        "cnn-eval": lambda: (steps(cnn(False), 100, 32, False, a.compile), 100),
        "resnet-head": lambda: (steps(resnet(False), 32, 224, True, a.compile), 32),
        "resnet-full": lambda: (steps(resnet(True), 16, 224, True, a.compile), 16),
        "load-cifar": cifar_loader,
        "load-folder": lambda: folder_loader(a.folder),
    }
    cases = a.cases or [case for case in table if case != "load-folder"]
    if unknown := [case for case in cases if case not in table]:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(table)}")
    if "load-folder" in cases and not a.folder:
        parser.error("load-folder needs --folder FOLDER with <class>/*")
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {a.threads} threads, {capability}")
    for case in cases:
        variants, images = table[case]()
        for name, step in variants:
            rate = median_rate(step, images, a.repeats)
            print(f"{case:12} {name:14} {rate:9.2f} img/s  (median of {a.repeats})", flush=True)


if __name__ == "__main__":
    main()
