"""Golden files of the CNN: forward, backward, batch-norm statistics, and ten steps of Adam with coupled weight decay.

Values come from an integer formula that the Rust test repeats, so the files need not hold the weights. Dropout is off.
Both networks run in float64 (the truth that an exact implementation must meet) and in float32 (what PyTorch itself gives).
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from record import save

SEED = 0


def name_key(name):
    h = 0x811C9DC5
    for b in name.encode():
        h = ((h ^ b) * 0x01000193) & 0xFFFFFFFF
    return h


def formula(name, n):
    """n numbers in [-1, 1): a 32-bit integer hash of name and index, exact in float32."""
    x = (np.arange(n, dtype=np.uint64) * 0x9E3779B1 + name_key(name)).astype(np.uint32)
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    x ^= x >> 16
    return (x >> 8).astype(np.float64) / 2**23 - 1.0


class Cnn(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        w = width
        for i, (a, b) in enumerate([(3, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)], 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, 3, padding=1))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.fc1, self.fc2 = nn.Linear(64 * w, 8 * w), nn.Linear(8 * w, classes)

    def forward(self, x):
        for i in range(1, 7):
            x = torch.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if i % 2 == 0:
                x = F.max_pool2d(x, 2, 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def fill(model):
    """Every entry of the state dict from the formula, none at its initial value."""
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        u = formula(name, t.numel())
        layer, leaf = name.split(".")
        if layer.startswith("bn"):
            v = {"weight": 1 + 0.5 * u, "bias": 0.3 * u, "running_mean": 0.2 * u, "running_var": 1 + 0.5 * u}[leaf]
        else:
            weight = model.state_dict()[f"{layer}.weight"]
            v = u / np.sqrt(weight[0].numel())
        t.copy_(torch.from_numpy(v.astype(np.float32)).reshape(t.shape))


def sample(t, whole):
    """All of a tensor, or 64 elements spread over it."""
    flat = t.flatten()
    if whole or flat.numel() <= 64:
        return flat
    return flat[torch.arange(64) * (flat.numel() // 64)]


def trace(width, batch, dtype, whole):
    model = Cnn(width, 10)
    fill(model)
    model = model.to(dtype)
    x = torch.from_numpy(2 * formula("images", batch * 3 * 32 * 32).astype(np.float32)).reshape(batch, 3, 32, 32)
    x = x.to(dtype)
    y = (torch.arange(batch) * 3) % 10
    out = {}
    model.eval()
    with torch.no_grad():
        out["eval.logits"] = model(x)
    model.train()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4)
    losses = []
    for step in range(10):
        opt.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            out["train.logits"] = logits.detach()
            for name, p in model.named_parameters():
                out[f"grad.{name}"] = sample(p.grad, whole)
                out[f"grad_norm.{name}"] = p.grad.norm().reshape(1)
            for name, b in model.named_buffers():
                if not name.endswith("num_batches_tracked"):
                    out[f"buffer.{name}"] = b.clone()
        opt.step()
    out["losses"] = torch.stack(losses)
    for name, t in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            out[f"after.{name}"] = sample(t, whole)
            out[f"after_norm.{name}"] = t.norm().reshape(1)
    return out


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    for name, width, batch, whole in [("cnn_narrow", 4, 4, True), ("cnn_full", 64, 4, False)]:
        tensors = {}
        for tag, dtype in [("f64", torch.float64), ("f32", torch.float32)]:
            tensors |= {f"{tag}.{k}": v for k, v in trace(width, batch, dtype, whole).items()}
        save("kestrel-models", name, tensors, SEED)


if __name__ == "__main__":
    main()
