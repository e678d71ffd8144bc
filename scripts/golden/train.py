"""Golden files of kestrel-train: ReduceLROnPlateau over adversarial metric sequences, and metrics of given logits."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from record import save

SEED = 0


def rates(sequence, **options):
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, **options)
    out = []
    for metric in sequence:
        scheduler.step(metric)
        out.append(opt.param_groups[0]["lr"])
    return torch.tensor(out, dtype=torch.float64)


def plateau():
    rng = np.random.default_rng(SEED)
    sequences = {
        "falling": [1.0 / (i + 1) for i in range(40)],
        "flat": [1.0] * 40,
        "rising": [0.1 * i for i in range(40)],
        # Improvements just below and just above the threshold.
        "creeping_below": [1.0 * (1 - 0.9e-4) ** i for i in range(40)],
        "creeping_above": [1.0 * (1 - 1.1e-4) ** i for i in range(40)],
        "sawtooth": [1.0 - 0.01 * i + 0.5 * (i % 5) for i in range(40)],
        "negative": [-0.01 * i for i in range(40)],
        "nan_and_inf": [math.inf, 1.0, math.nan, math.nan, math.nan, math.nan, math.nan, 0.5, math.inf, -math.inf] * 4,
        "noise": list(rng.normal(1.0, 0.2, 40)),
    }
    options = {
        "reference": dict(mode="min", factor=0.1, patience=3, threshold=1e-4),
        "max_abs": dict(mode="max", factor=0.5, patience=2, threshold=0.05, threshold_mode="abs"),
        "max_rel": dict(mode="max", factor=0.5, patience=0, threshold=0.1),
        "cooldown": dict(mode="min", factor=0.3, patience=1, cooldown=3, threshold_mode="abs", threshold=1e-3),
        "floor": dict(mode="min", factor=0.1, patience=0, min_lr=1e-3, eps=1e-4),
        "eps": dict(mode="min", factor=0.99, patience=0, eps=0.02),
    }
    out = {}
    for s, sequence in sequences.items():
        out[f"metric.{s}"] = torch.tensor(sequence, dtype=torch.float64)
        for o, option in options.items():
            out[f"lr.{o}.{s}"] = rates(sequence, **option)
    save("kestrel-train", "reduce_on_plateau", out, SEED)


def metrics():
    torch.manual_seed(SEED)
    logits = torch.randn(60, 5)
    logits[::7, 2] = logits[::7].max(1).values  # ties
    targets = torch.randint(0, 5, (60,))
    batches = [slice(0, 25), slice(25, 50), slice(50, 60)]
    losses = [F.cross_entropy(logits[b], targets[b]) for b in batches]
    predicted = logits.argmax(1)
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for t, p in zip(targets, predicted):
        confusion[t, p] += 1
    save("kestrel-train", "metrics", {
        "logits": logits,
        "targets": targets,
        "loss": torch.stack(losses).mean().reshape(1),
        "predicted": predicted,
        "confusion": confusion,
        "accuracy": (predicted == targets).double().mean().reshape(1),
    }, SEED)


if __name__ == "__main__":
    plateau()
    metrics()
