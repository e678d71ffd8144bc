"""Golden file of the whitened CNN: forward, backward, running statistics, and ten steps of Nesterov's momentum on a smoothed
loss, the biases of the batch norms in a group of their own, and the whitening layer's bias frozen after the fifth.

Values come from the integer formula of models.py. All in float64: the truth that an exact implementation must meet. And the
whitening filters of some images, up to the sign of each, which is not determined.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

import numpy as np

from models import formula, sample
from record import save

SEED = 0
PATCH = 2
WHITENED = 2 * 3 * PATCH**2


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
    def __init__(self, width, classes):
        super().__init__()
        self.whiten = nn.Conv2d(3, WHITENED, PATCH)
        self.whiten.weight.requires_grad = False
        self.block1 = Block(WHITENED, width)
        self.block2 = Block(width, 4 * width)
        self.block3 = Block(4 * width, 4 * width)
        self.head = nn.Linear(4 * width, classes, bias=False)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(F.gelu(self.whiten(x)))))
        return self.head(F.max_pool2d(x, x.shape[-1]).flatten(1)) / 9


def fill(model):
    """Every entry of the state dict from the formula, none at its initial value."""
    state = model.state_dict()
    for name, t in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        u = formula(name, t.numel())
        module, leaf = name.rsplit(".", 1)
        weight = state[f"{module}.weight"]
        if leaf == "running_mean":
            v = 0.2 * u
        elif leaf == "running_var" or (leaf == "weight" and weight.dim() == 1):
            v = 1 + 0.5 * u
        elif weight.dim() == 1:
            v = 0.3 * u
        else:
            v = u / np.sqrt(weight[0].numel())
        t.copy_(torch.from_numpy(v.astype(np.float32)).reshape(t.shape))


def images(batch):
    x = torch.from_numpy(2 * formula("images", batch * 3 * 32 * 32).astype(np.float32))
    return x.reshape(batch, 3, 32, 32).double()


def trace(width, batch):
    model = WhitenedCnn(width, 10)
    fill(model)
    model = model.double()
    x, y = images(batch), (torch.arange(batch) * 3) % 10
    out = {}
    model.eval()
    with torch.no_grad():
        out["eval.logits"] = model(x)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    is_norm = lambda name: ".bn" in name
    opt = torch.optim.SGD(
        [{"params": [p for name, p in trained.items() if not is_norm(name)], "lr": 0.05, "weight_decay": 1e-2},
         {"params": [p for name, p in trained.items() if is_norm(name)], "lr": 0.4, "weight_decay": 1e-2 / 8}],
        momentum=0.85, nesterov=True)
    losses = []
    for step in range(10):
        model.whiten.bias.requires_grad = step < 5
        opt.zero_grad(set_to_none=True)
        logits = model(x)
        loss = F.cross_entropy(logits, y, label_smoothing=0.2)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            out["train.logits"] = logits.detach()
            for name, p in trained.items():
                out[f"grad.{name}"] = sample(p.grad, False)
                out[f"grad_norm.{name}"] = p.grad.norm().reshape(1)
            for name, b in model.named_buffers():
                if not name.endswith("num_batches_tracked"):
                    out[f"buffer.{name}"] = sample(b, False).clone()
        opt.step()
    out["losses"] = torch.stack(losses)
    for name, t in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            out[f"after.{name}"] = sample(t, False)
    return out


def whitening(batch):
    """Eigenvectors of the patches' second moments over the root of their eigenvalues, by falling eigenvalue."""
    patches = F.unfold(images(batch), PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors.T / (values[:, None] + 5e-4).sqrt()
    return filters.flip(0).reshape(-1, 3, PATCH, PATCH)


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    tensors = {"filters": whitening(8)}
    for width in (4, 64):
        tensors |= {f"{width}.{k}": v for k, v in trace(width, 4).items()}
    save("kestrel-models", "whitened_cnn", tensors, SEED)


if __name__ == "__main__":
    main()
