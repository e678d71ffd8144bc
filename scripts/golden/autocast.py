"""Golden tensors of a small net under `torch.autocast("cpu", ...)`: loss, logits, every gradient, running statistics."""
import torch
import torch.nn.functional as F
from record import save

SEED = 26
CRATE = "kestrel-kernels"


def net(p, images):
    """Convolution, batch norm, relu, maximum pooling, a residual block, average pooling, two linear layers."""
    norm = lambda x, i: F.batch_norm(x, p[f"mean{i}"], p[f"var{i}"], p[f"gamma{i}"], p[f"beta{i}"], True, 0.1, 1e-5)
    x = F.relu(norm(F.conv2d(images, p["conv1"], p["bias1"], padding=1), 1))
    x = F.max_pool2d(x, 2, 2)
    y = F.relu(norm(F.conv2d(x, p["conv2"], padding=1), 2))
    x = F.relu(norm(F.conv2d(y, p["conv3"], padding=1), 3) + x)
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    x = F.relu(F.linear(x, p["fc1"], p["fc1_bias"]))
    return F.linear(x, p["fc2"], p["fc2_bias"])


def params():
    shapes = {"conv1": (16, 3, 3, 3), "bias1": (16,), "conv2": (16, 16, 3, 3), "conv3": (16, 16, 3, 3),
              "fc1": (24, 16), "fc1_bias": (24,), "fc2": (5, 24), "fc2_bias": (5,)}
    p = {name: torch.randn(shape) / max(1, sum(shape[1:])) ** 0.5 for name, shape in shapes.items()}
    for i in 1, 2, 3:
        p |= {f"gamma{i}": torch.rand(16) + 0.5, f"beta{i}": torch.randn(16) * 0.2}
    return {name: value.requires_grad_() for name, value in p.items()}


def main():
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    images, targets, p = torch.randn(6, 3, 12, 10), torch.randint(5, (6,)), params()
    tensors = {"images": images, "targets": targets, **p}
    # The loss is multiplied before the backward, as a GradScaler does, so that no gradient of float16 vanishes.
    for case, dtype, scale in ("bf16", torch.bfloat16, 1.0), ("f16", torch.float16, 1024.0):
        buffers = {f"{kind}{i}": fill(16) for i in (1, 2, 3) for kind, fill in (("mean", torch.zeros), ("var", torch.ones))}
        x = images.clone().requires_grad_()
        for leaf in p.values():
            leaf.grad = None
        with torch.autocast("cpu", dtype=dtype):
            logits = net(p | buffers, x)
            loss = F.cross_entropy(logits, targets)
        assert logits.dtype == dtype and loss.dtype == torch.float32
        (loss * scale).backward()
        tensors |= {f"{case}.{name}": value for name, value in buffers.items()}
        tensors |= {f"{case}.d{name}": leaf.grad for name, leaf in p.items()}
        tensors |= {f"{case}.logits": logits.float(), f"{case}.loss": loss, f"{case}.dimages": x.grad,
                    f"{case}.scale": torch.tensor(scale)}
    save(CRATE, "autocast", tensors, SEED)


main()
