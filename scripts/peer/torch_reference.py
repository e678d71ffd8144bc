#!/usr/bin/env python3
"""The reference program in PyTorch, to set a run of Kestrel beside it on the same images and machine.

Usage: torch_reference.py FOLDER [--limit N] [--epochs N] [--seed N] [--threads N]
FOLDER holds train/<class>/* and test/<class>/*. --limit takes the first N images, balanced over the classes, as `kestrel train
--limit` does. Images are decoded once, before the clock starts. Needs torch and torchvision.
"""
import argparse
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
import torchvision.transforms as T

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Cnn(nn.Module):
    def __init__(self, classes):
        super().__init__()
        for i, (a, b) in enumerate([(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)], 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, 3, padding=1))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.fc1, self.drop, self.fc2 = nn.Linear(4096, 512), nn.Dropout(0.5), nn.Linear(512, classes)

    def forward(self, x):
        for i in range(1, 7):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if i % 2 == 0:
                x = F.max_pool2d(x, 2, 2)
        return self.fc2(self.drop(F.relu(self.fc1(x.flatten(1)))))


class InMemory(torch.utils.data.Dataset):
    def __init__(self, folder, transform, per_class=None):
        taken, self.items = {}, []
        for path, label in folder.samples:
            taken[label] = taken.get(label, 0) + 1
            if per_class is None or taken[label] <= per_class:
                self.items.append((folder.loader(path), label))
        self.transform = transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        image, label = self.items[i]
        return self.transform(image), label


def main():
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    a.add_argument("--limit", type=int)
    a.add_argument("--epochs", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--threads", type=int, default=2)
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    print("torch", torch.__version__, "threads", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    normalize = [T.ToTensor(), T.Normalize(MEAN, STD)]
    train_folder = torchvision.datasets.ImageFolder(f"{a.folder}/train")
    classes = len(train_folder.classes)
    per_class = a.limit // classes if a.limit else None
    train = InMemory(train_folder, T.Compose([T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4), *normalize]), per_class)
    test = InMemory(torchvision.datasets.ImageFolder(f"{a.folder}/test"), T.Compose(normalize))
    train_loader = torch.utils.data.DataLoader(train, batch_size=128, shuffle=True, num_workers=2)
    test_loader = torch.utils.data.DataLoader(test, batch_size=100, num_workers=2)
    model = Cnn(classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=3)
    for epoch in range(a.epochs):
        model.train()
        started, total, correct, losses = time.perf_counter(), 0, 0, []
        for x, y in train_loader:
            optimizer.zero_grad()
            logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            correct += (logits.argmax(1) == y).sum().item()
            total += len(y)
        seconds = time.perf_counter() - started
        model.eval()
        val, hits = [], 0
        with torch.no_grad():
            for x, y in test_loader:
                logits = model(x.contiguous(memory_format=torch.channels_last))
                val.append(F.cross_entropy(logits, y).item())
                hits += (logits.argmax(1) == y).sum().item()
        val_loss = sum(val) / len(val)
        scheduler.step(val_loss)
        print(
            f"Epoch [{epoch + 1}/{a.epochs}]: Loss: {sum(losses) / len(losses):.4f}, Acc: {100 * correct / total:.2f}%, "
            f"Val Loss: {val_loss:.4f}, Val Acc: {100 * hits / len(test):.2f}%, {total / seconds:.1f} img/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
