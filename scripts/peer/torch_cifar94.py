#!/usr/bin/env python3
"""The cifar-94 recipe in PyTorch, to set beside Kestrel's on the same machine: the speed of a step, or a whole run.

Usage: torch_cifar94.py [--steps N] [--batch N] [--threads N] [--seed N]
       torch_cifar94.py --folder FOLDER [--limit N] [--epochs N] [--batch N] [--threads N] [--seed N]
                         [--device cuda]
Without a folder, a step is forward, backward and update on random images that are ready in memory: nothing is loaded or
augmented. One step in warm-up, then the median of --steps. Both parts of the recipe are timed: with the whitening layer's bias
trained, and frozen. With a folder (train/<class>/*, test/<class>/*) the recipe of configs/cifar-94.toml is trained to its end on
its images; --limit takes the first images of each class, as `kestrel train --limit` does.
"""
import argparse
import os
import statistics
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


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


def optimizer_of(model):
    norm_biases = [p for name, p in model.named_parameters() if ".bn" in name and p.requires_grad]
    others = [p for name, p in model.named_parameters() if ".bn" not in name and p.requires_grad]
    return torch.optim.SGD(
        [{"params": others, "lr": 1.5, "weight_decay": 1.33e-3},
         {"params": norm_biases, "lr": 96.0, "weight_decay": 1.33e-3 / 64}],
        lr=1.5, momentum=0.85, nesterov=True)


def initialise(model, images):
    """Dirac's delta in as many filters as there are inputs, and filters that whiten the images' patches."""
    with torch.no_grad():
        for block in (model.block1, model.block2, model.block3):
            for conv in (block.conv1, block.conv2):
                nn.init.dirac_(conv.weight[: conv.weight.size(1)])
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors.T / (values[:, None] + 5e-4).sqrt()).reshape(12, 3, 2, 2)
        model.whiten.weight.copy_(torch.cat([filters, -filters]))
        model.whiten.bias.zero_()


def load(folder, limit=None):
    """The images of a split, normalised, and their classes, in the order of the classes' folders."""
    images, targets = [], []
    classes = sorted(os.listdir(folder))
    for number, name in enumerate(classes):
        files = sorted(os.listdir(os.path.join(folder, name)))
        for file in files[: limit // len(classes) if limit else None]:
            images.append(np.asarray(Image.open(os.path.join(folder, name, file)).convert("RGB")))
            targets.append(number)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return x, torch.tensor(targets)


def augmented(x, mirrored, odd):
    """Shifted by up to two pixels, what comes in reflected; mirrored as drawn once, and the other way in odd epochs."""
    padded = F.pad(x, (2,) * 4, "reflect")
    top, left = torch.randint(5, (2, len(x)))
    rows = (top[:, None] + torch.arange(32))[:, None, :, None]
    columns = left[:, None] + torch.arange(32)
    columns = torch.where((mirrored ^ odd)[:, None], columns.flip(1), columns)[:, None, None, :]
    rows, columns = rows.to(x.device), columns.to(x.device)
    at = torch.arange(len(x), device=x.device)[:, None, None, None]
    return padded[at, torch.arange(3, device=x.device)[None, :, None, None], rows, columns]


def logits(model, x, tta):
    if not tta:
        return model(x)
    both = lambda x: (model(x) + model(x.flip(-1))) / 2
    padded = F.pad(x, (1,) * 4, "reflect")
    return (both(x) + (both(padded[:, :, :32, :32]) + both(padded[:, :, 2:, 2:])) / 2) / 2


def accuracy(model, x, y, tta):
    model.eval()
    with torch.no_grad():
        hits = [(logits(model, a, tta).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500))]
    return 100 * sum(hits) / len(x)


def train(a, model):
    x, y = load(os.path.join(a.folder, "train"), a.limit)
    test = load(os.path.join(a.folder, "test"))
    initialise(model, x[torch.arange(0, len(x), max(len(x) // 5000, 1))][:5000])
    model, x, y = model.to(a.device), x.to(a.device), y.to(a.device)
    test = [t.to(a.device) for t in test]
    optimizer = optimizer_of(model)
    total = a.epochs * -(-len(x) // a.batch)
    # OneCycleLR with straight lines: from a fifth of the rate up to it and down to 7%.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [1.5, 96.0], total_steps=total + 1, pct_start=0.23, anneal_strategy="linear", div_factor=5.0,
        final_div_factor=0.2 / 0.07, cycle_momentum=False)
    floats = [t for t in model.state_dict().values() if t.is_floating_point()]
    slow = [t.clone() for t in floats]
    mirrored, step, started = torch.rand(len(x)) < 0.5, 0, time.perf_counter()
    for epoch in range(a.epochs):
        model.train()
        model.whiten.bias.requires_grad = epoch < 3
        losses, hits = [], 0
        for batch in torch.randperm(len(x)).split(a.batch):
            images = augmented(x[batch], mirrored[batch], epoch % 2 == 1).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            out = model(images)
            loss = F.cross_entropy(out, y[batch], label_smoothing=0.2)
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            losses.append(loss.detach())
            hits += (out.argmax(1) == y[batch]).sum()
            if step % 5 == 0:
                alpha = 1 - (1 - 0.226) * (step / total) ** 3
                with torch.no_grad():
                    for fast, kept in zip(floats, slow):
                        kept.lerp_(fast, alpha)
                        fast.copy_(kept)
        print(f"Epoch [{epoch + 1}/{a.epochs}]: Loss: {torch.stack(losses).mean().item():.4f}, Acc: {100 * hits / len(x):.2f}%, "
              f"Val Acc: {accuracy(model, *test, False):.2f}%, {time.perf_counter() - started:.0f} s", flush=True)
    print(f"with flips and shifts: {accuracy(model, *test, True):.2f}%")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--steps", type=int, default=5)
    a.add_argument("--batch", type=int, default=1024)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--folder")
    a.add_argument("--limit", type=int)
    a.add_argument("--epochs", type=int, default=10)
    a.add_argument("--device", default="cpu")
    parser, a = a, a.parse_args()
    if a.device != "cpu" and not a.folder:
        parser.error("--device needs --folder: without a folder steps are timed on the CPU")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    print("torch", torch.__version__, "threads", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    model = WhitenedCnn().to(memory_format=torch.channels_last).train()
    if a.folder:
        return train(a, model)
    optimizer = optimizer_of(model)
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
