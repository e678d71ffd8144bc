"""Golden files of the ResNets: torchvision's own models, forward, backward and batch-norm statistics, in float64.

Values come from the formula of models.py, so the files need not hold the weights; no entry is at its initial value.
"""
import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from models import formula
from record import save

SEED = 0
CLASSES = 10


def fill(model):
    """Every entry of the state dict from the formula, convolutions scaled so that activations neither grow nor fade."""
    state = model.state_dict()
    for name, t in state.items():
        module, leaf = name.rsplit(".", 1)
        if leaf == "num_batches_tracked":
            continue
        u = formula(name, t.numel())
        weight = state.get(f"{module}.weight")
        if leaf == "running_mean":
            v = 0.2 * u
        elif leaf == "running_var" or (leaf == "weight" and t.dim() == 1):
            v = 1 + 0.5 * u
        elif weight.dim() == 1:
            v = 0.3 * u
        else:
            gain = 6 if weight.dim() == 4 else 1
            v = u * np.sqrt(gain / weight[0].numel())
        t.copy_(torch.from_numpy(v.astype(np.float32)).reshape(t.shape))


def with_cifar_stem(model):
    """The stem for small images, as in He et al. 2015, section 4.2: 3x3 with stride 1, and no pooling."""
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model


def images(batch, size):
    x = 2 * formula("images", batch * 3 * size * size).astype(np.float32)
    return torch.from_numpy(x).reshape(batch, 3, size, size)


def sample(t, n):
    """All of a tensor, or n elements spread over it, over all places of a convolution's kernel too."""
    flat = t.flatten()
    if flat.numel() <= n:
        return flat
    step, i = flat.numel() // n, torch.arange(n)
    return flat[i * step + i % step]


def trace(model, batch, size, n):
    fill(model)
    model = model.double()
    x = images(batch, size).double()
    y = (torch.arange(batch) * 3) % CLASSES
    out = {}
    model.eval()
    with torch.no_grad():
        out["eval.logits"] = model(x)
    model.train()
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    out["train.logits"], out["loss"] = logits.detach(), loss.detach().reshape(1)
    for name, p in model.named_parameters():
        out[f"grad.{name}"] = sample(p.grad, n)
        out[f"grad_norm.{name}"] = p.grad.norm().reshape(1)
    for name, b in model.named_buffers():
        if not name.endswith("num_batches_tracked"):
            out[f"buffer.{name}"] = sample(b, n)
    return out


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    models = torchvision.models
    for name, build, stem, batch, size, n in [
        ("resnet18_224", models.resnet18, None, 2, 224, 32),
        ("resnet18_64", models.resnet18, None, 4, 64, 32),
        ("resnet18_32", models.resnet18, None, 8, 32, 32),
        ("resnet18_cifar", models.resnet18, with_cifar_stem, 4, 32, 16),
        ("resnet34_64", models.resnet34, None, 4, 64, 16),
        ("resnet50_64", models.resnet50, None, 4, 64, 16),
    ]:
        model = build(weights=None, num_classes=CLASSES)
        model = stem(model) if stem else model
        save("kestrel-models", name, trace(model, batch, size, n), SEED)


if __name__ == "__main__":
    main()
