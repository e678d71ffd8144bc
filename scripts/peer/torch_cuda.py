"""PyTorch's training steps on a GPU: the best that its users have, beside `kestrel bench --device cuda`.

    python3 scripts/peer/torch_cuda.py [--cases cnn-train:128 cnn-train:1024:eager:compile] [--seconds 3]

Channels-last, autocast to bf16, fused Adam, cudnn.benchmark; eager, and torch.compile in its default mode and with CUDA graphs
(mode="reduce-overhead"). Prints images a second, the median of five spans of whole steps, each ended by a synchronisation; the
loss is read back once a span, so no step waits for the host.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


def cnn():
    layers, channels = [], [3, 64, 64, 128, 128, 256, 256]
    for i in range(6):
        layers += [nn.Conv2d(channels[i], channels[i + 1], 3, padding=1), nn.BatchNorm2d(channels[i + 1]), nn.ReLU()]
        if i % 2 == 1:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)]
    return nn.Sequential(*layers, *head), 32, 1e-4


def resnet():
    return torchvision.models.resnet18(num_classes=10), 224, 0.0


def measure(make, batch, mode, seconds):
    torch.manual_seed(0)
    model, side, decay = make()
    model = model.cuda().to(memory_format=torch.channels_last).train()
    x = torch.randn(batch, 3, side, side, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=decay, fused=True)

    def loss_of(x, y):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return F.cross_entropy(model(x), y)

    if mode != "eager":
        # Of one shape: another shape before would make it compile for all.
        torch._dynamo.reset()
        loss_of = torch.compile(loss_of, mode=None if mode == "compile" else mode, dynamic=False)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss

    started = time.time()
    for _ in range(12):
        loss = step()
    torch.cuda.synchronize()
    warm = time.time() - started
    begin = time.time()
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    steps = max(5, int(seconds / 5 / ((time.time() - begin) / 5)))
    rates = []
    for _ in range(5):
        begin = time.time()
        for _ in range(steps):
            loss = step()
        loss.item()
        rates.append(steps * batch / (time.time() - begin))
    return statistics.median(rates), min(rates), max(rates), warm


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--cases", nargs="*", default=["cnn-train:128", "cnn-train:1024", "resnet-full:256"], help="NAME:BATCH[:MODE...]"
    )
    parser.add_argument("--modes", nargs="*", default=["eager", "compile", "reduce-overhead"])
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}", flush=True)
    for case in args.cases:
        name, batch, *modes = case.split(":")
        make = {"cnn-train": cnn, "resnet-full": resnet}[name]
        for mode in modes or args.modes:
            try:
                rate, least, most, warm = measure(make, int(batch), mode, args.seconds)
            except Exception as error:  # a mode that does not run is said, not hidden
                print(f"{name}:{batch} {mode}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                continue
            print(f"{name}:{batch:5} {mode:16} {rate:10.0f} img/s ({least:.0f} to {most:.0f}; warm-up {warm:.1f} s)", flush=True)


main()
