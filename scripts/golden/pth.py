"""Files made by `torch.save`, which the reader of `.pth` must take: state dicts, and views of every kind."""
import gzip
import io
import os
from collections import OrderedDict

import torch
import torchvision

from models import Cnn, fill, formula
from record import ROOT, save

SEED = 0


def save_pth(name, state):
    path = os.path.join(ROOT, "crates", "kestrel-models", "tests", "golden", f"{name}.pth")
    torch.save(state, path)
    print(f"{os.path.relpath(path, ROOT)}  {os.path.getsize(path)} bytes")


def resnet18_pattern():
    """torchvision's ResNet-18 of 1,000 classes, whole, small when packed: each tensor repeats 251 numbers of its own."""
    model = torchvision.models.resnet18()
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        module, leaf = name.rsplit(".", 1)
        n = tensor.numel()
        u = torch.from_numpy(formula(name, 251)).float().repeat(n // 251 + 1)[:n].reshape(tensor.shape)
        if leaf == "running_var" or (leaf == "weight" and tensor.dim() == 1):
            u = 1 + 0.5 * u
        elif leaf == "weight":
            gain = 6 if tensor.dim() == 4 else 1
            u = u * (gain / tensor[0].numel()) ** 0.5
        else:
            u = 0.2 * u
        tensor.copy_(u)
    plain = io.BytesIO()
    torch.save(state, plain)
    path = os.path.join(ROOT, "crates", "kestrel", "tests", "golden", "resnet18_pattern.pth.gz")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(plain.getvalue())
    print(f"{os.path.relpath(path, ROOT)}  {os.path.getsize(path)} bytes")


def values(name, shape, dtype=torch.float32):
    n = int(torch.tensor(shape).prod())
    return torch.from_numpy(formula(name, n)).reshape(shape).to(dtype)


def main():
    torch.manual_seed(SEED)
    model = Cnn(1, 2)
    fill(model)
    save_pth("cnn_width1", model.state_dict())
    x = torch.from_numpy(2 * formula("images", 2 * 3 * 32 * 32)).float().reshape(2, 3, 32, 32)
    with torch.no_grad():
        logits = model.double().eval()(x.double())
    save("kestrel-models", "cnn_width1", {"eval.logits": logits}, SEED)

    shared = values("shared", (4, 6))
    state = OrderedDict(
        transposed=values("transposed", (3, 5)).t(),
        channels_last=values("channels_last", (2, 3, 4, 5)).to(memory_format=torch.channels_last),
        rows=shared[1:3],
        columns=shared[:, 2:5],
        broadcast=values("broadcast", (3, 1)).expand(3, 4),
        parameter=torch.nn.Parameter(values("parameter", (2, 2))),
        scalar=values("scalar", (1,)).reshape(()),
        empty=torch.zeros(0, 3),
        double=values("double", (3,), torch.float64),
        half=values("half", (3,), torch.float16),
        bfloat16=values("bfloat16", (3,), torch.bfloat16),
        long=torch.tensor([1, -2, 1 << 40]),
    )
    save_pth("views", state)
    resnet18_pattern()
    save("kestrel-models", "views", {k: v.detach().double() for k, v in state.items()}, SEED)


if __name__ == "__main__":
    main()
