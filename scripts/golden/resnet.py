"""Golden files of the ResNets: torchvision's own models, forward, backward and batch-norm statistics, in float64.

Values come from the formula of models.py, so the files need not hold the weights; no entry is at its initial value.

A relu whose input is nearly 0, or a maximum that is nearly tied, goes the other way under any rounding, and each is a sizeable
part of a gradient of a few images. So of many batches of images that one is taken whose nearest tie is farthest away; its
number stands in the file.
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


def images(batch, size, key):
    x = 2 * formula(f"images{key}", batch * 3 * size * size).astype(np.float32)
    return torch.from_numpy(x).reshape(batch, 3, size, size)


def margin(model, x):
    """How far the nearest tie of a training pass is: the least input of a relu, and the least lead of a maximum over another
    value of its window, in units of the tensor's root mean square."""
    least, hooks = [], []

    def relu(_module, inputs):
        least.append((inputs[0].abs().min() / inputs[0].square().mean().sqrt()).item())

    def max_pool(_module, inputs):
        x = inputs[0]
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=-1), 3, stride=2).unflatten(1, (x.shape[1], 9))
        first, second = windows.topk(2, dim=2).values.unbind(2)
        # Windows of zeros only, or with one value twice, pass nothing on or the same.
        lead = (first - second)[first > 0]
        least.append((lead.min() / x.square().mean().sqrt()).item())

    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            hooks.append(module.register_forward_pre_hook(relu))
        if isinstance(module, torch.nn.MaxPool2d):
            hooks.append(module.register_forward_pre_hook(max_pool))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    with torch.no_grad():
        model(x)
    model.load_state_dict(before)
    for hook in hooks:
        hook.remove()
    return min(least)


def quietest(model, batch, size, tries):
    return max(range(tries), key=lambda key: margin(model, images(batch, size, key).double()))


def sample(t, n):
    """All of a tensor, or n elements spread over it, over all places of a convolution's kernel too."""
    flat = t.flatten()
    if flat.numel() <= n:
        return flat
    step, i = flat.numel() // n, torch.arange(n)
    return flat[i * step + i % step]


def trace(model, batch, size, n, tries):
    fill(model)
    model = model.double()
    key = quietest(model, batch, size, tries)
    x = images(batch, size, key).double()
    print(f"images {key}: the nearest tie is {margin(model, x):.1e} away")
    y = (torch.arange(batch) * 3) % CLASSES
    out = {"images": torch.tensor([key])}
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
    for name, build, stem, batch, size, n, tries in [
        ("resnet18_224", models.resnet18, None, 1, 224, 32, 100),
        ("resnet18_64", models.resnet18, None, 2, 64, 32, 100),
        ("resnet18_32", models.resnet18, None, 8, 32, 32, 100),
        ("resnet18_cifar_16", models.resnet18, with_cifar_stem, 4, 16, 16, 100),
        ("resnet34_96", models.resnet34, None, 2, 96, 16, 100),
        ("resnet50_96", models.resnet50, None, 3, 96, 16, 50),
    ]:
        model = build(weights=None, num_classes=CLASSES)
        model = stem(model) if stem else model
        save("kestrel-models", name, trace(model, batch, size, n, tries), SEED)


if __name__ == "__main__":
    main()
