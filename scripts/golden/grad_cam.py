"""Golden file of Grad-CAM: heatmaps by hooks on the last feature map of the CNN, of a ResNet-18 for small images and of the whitened
CNN, in float64, and one of them resized.

Weights and images come from the integer formula of models.py, filled as the golden files of each network are.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

import models
import resnet
import whitened_cnn
from record import save

SEED = 0
CLASSES = [0, 3, 7, 9]


class Cnn(models.Cnn):
    """With a module whose output is the last feature map, after its relu and before its pooling."""

    def __init__(self, width, classes):
        super().__init__(width, classes)
        self.map = nn.Identity()

    def forward(self, x):
        for i in range(1, 7):
            x = torch.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if i == 6:
                x = self.map(x)
            if i % 2 == 0:
                x = F.max_pool2d(x, 2, 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def images(name, height, width):
    x = torch.from_numpy(2 * models.formula(name, 3 * height * width).astype("float32"))
    return x.reshape(1, 3, height, width).double()


def heatmaps(model, layer, x):
    """The logits, and relu(sum_k w_k A_k) over its maximum for each class, w_k the mean of the gradient at channel k."""
    maps, gradients = [], []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: maps.append(output)),
        layer.register_full_backward_hook(lambda _module, _inputs, outputs: gradients.append(outputs[0])),
    ]
    logits = model(x)
    for c in CLASSES:
        logits[0, c].backward(retain_graph=True)
    for hook in hooks:
        hook.remove()
    out = {"logits": logits}
    for c, gradient in zip(CLASSES, gradients, strict=True):
        weights = gradient.mean((2, 3), keepdim=True)
        cam = torch.relu((weights * maps[0]).sum(1))
        # Where nothing speaks for a class, all is 0.
        out[f"heatmap.{c}"] = cam / cam.max() if cam.max() > 0 else cam
    return out


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    cnn = Cnn(4, 10)
    models.fill(cnn)
    resnet18 = resnet.with_cifar_stem(torchvision.models.resnet18(num_classes=10))
    resnet.fill(resnet18)
    whitened = whitened_cnn.WhitenedCnn(8, 10)
    whitened_cnn.fill(whitened)
    tensors = {}
    for name, model, layer, size in [
        ("cnn", cnn, cnn.map, (32, 32)),
        ("resnet18", resnet18, resnet18.layer4, (40, 56)),
        ("whitened_cnn", whitened, whitened.block3, (32, 32)),
    ]:
        found = heatmaps(model.double().eval(), layer, images("images", *size))
        tensors |= {f"{name}.{k}": v for k, v in found.items()}
    tensors["resized"] = F.interpolate(tensors["resnet18.heatmap.0"][None], (13, 30), mode="bilinear", align_corners=False)[0]
    save("kestrel-train", "grad_cam", tensors, SEED)


if __name__ == "__main__":
    main()
