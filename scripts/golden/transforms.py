"""Golden tensors for kestrel-data's transforms: torchvision on PIL images, with the draws given."""
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, RandAugment, RandomErasing, Resize, TrivialAugmentWide
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import CutMix, MixUp

from record import save

SEED = 20250
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def pixels(image):
    return torch.from_numpy(np.array(image))


def noise(rng, height, width):
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(rng, height, width):
    """Something between a photograph and noise: blobs, and one pixel in eight of noise."""
    blobs = noise(rng, max(height // 6, 1), max(width // 6, 1)).resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.fromarray((rng.random((height, width)) < 0.125).astype(np.uint8) * 255)
    return Image.composite(noise(rng, height, width), blobs, mask)


def resize(rng):
    """Images of several sizes, resized to exact sizes, to shorter sides, and as parts: `top, left, height, width, size`."""
    tensors = {}
    exact = [((40, 31), (17, 23)), ((9, 7), (32, 20)), ((33, 48), (33, 20)), ((33, 48), (11, 48)), ((1, 5), (3, 3)), ((64, 64), (5, 7))]
    for mode, interpolation in MODES.items():
        for number, (size, to) in enumerate(exact):
            image = (noise if number % 2 else smooth)(rng, *size)
            tensors[f"exact.{mode}.{number}.image"] = pixels(image)
            tensors[f"exact.{mode}.{number}.result"] = pixels(Resize(to, interpolation)(image))
        for number, (size, to) in enumerate([((30, 47), 19), ((47, 30), 40), ((20, 20), 13), ((24, 50), 24)]):
            image = smooth(rng, *size)
            tensors[f"side.{mode}.{number}.image"] = pixels(image)
            tensors[f"side.{mode}.{number}.size"] = torch.tensor([to])
            tensors[f"side.{mode}.{number}.result"] = pixels(Resize(to, interpolation)(image))
        for number in range(4):
            image = smooth(rng, 37, 45)
            top, left = int(rng.integers(0, 20)), int(rng.integers(0, 20))
            height, width = int(rng.integers(1, 37 - top + 1)), int(rng.integers(1, 45 - left + 1))
            tensors[f"part.{mode}.{number}.image"] = pixels(image)
            tensors[f"part.{mode}.{number}.draws"] = torch.tensor([top, left, height, width, 24])
            tensors[f"part.{mode}.{number}.result"] = pixels(F.resized_crop(image, top, left, height, width, [24, 24], interpolation))
    for number, ((height, width), size) in enumerate([((9, 14), 5), ((9, 14), 8), ((8, 13), 10), ((5, 4), 9), ((7, 7), 7), ((4, 9), 6)]):
        image = noise(rng, height, width)
        tensors[f"center.{number}.image"] = pixels(image)
        tensors[f"center.{number}.size"] = torch.tensor([size])
        tensors[f"center.{number}.result"] = pixels(CenterCrop(size)(image))
    save("kestrel-data", "resize", tensors, SEED)


def padding(rng):
    """`RandomCrop`'s padding in every mode, then the crop: draws `padding, top, left, size`."""
    tensors = {}
    for mode in ("constant", "edge", "reflect", "symmetric"):
        for number, (height, width, padding) in enumerate([(9, 7, 3), (6, 6, 5), (5, 8, 1)]):
            image = noise(rng, height, width)
            padded = F.pad(image, padding, fill=(9, 200, 77) if mode == "constant" else 0, padding_mode=mode)
            size = min(padded.size) - 1
            top = int(rng.integers(0, padded.height - size + 1))
            left = int(rng.integers(0, padded.width - size + 1))
            tensors[f"{mode}.{number}.image"] = pixels(image)
            tensors[f"{mode}.{number}.draws"] = torch.tensor([padding, top, left, size])
            tensors[f"{mode}.{number}.result"] = pixels(F.crop(padded, top, left, size, size))
    save("kestrel-data", "padding", tensors, SEED)


CHANGES = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def color(rng):
    """`ColorJitter` on given draws: the order, and the four factors (nan for none)."""
    tensors = {}
    for number in range(24):
        image = (noise if number % 3 else smooth)(rng, 16, 16)
        factors = [float(np.float32(rng.uniform(0, 2.5))) for _ in range(3)] + [float(np.float32(rng.uniform(-0.5, 0.5)))]
        order = rng.permutation(4)
        if number < 8:
            # One change alone.
            factors = [factor if place == number % 4 else float("nan") for place, factor in enumerate(factors)]
        result = image
        for which in order:
            if factors[which] == factors[which]:
                result = CHANGES[which](result, factors[which])
        tensors[f"{number}.image"] = pixels(image)
        tensors[f"{number}.order"] = torch.tensor(order)
        tensors[f"{number}.factors"] = torch.tensor(factors, dtype=torch.float64)
        tensors[f"{number}.result"] = pixels(result)
    # Every hue, at several saturations and values.
    wheel = np.stack(np.meshgrid(np.arange(0, 256, 15), np.arange(0, 256, 15), np.arange(0, 256, 15)), -1).astype(np.uint8)
    image = Image.fromarray(wheel.reshape(-1, 18, 3))
    tensors["wheel.image"] = pixels(image)
    for number, factor in enumerate((0.0, 0.3, -0.45)):
        tensors[f"wheel.{number}"] = pixels(F.adjust_hue(image, factor))
    save("kestrel-data", "color", tensors, SEED)


def augment(rng):
    """Every operation at given magnitudes, and the tables of magnitudes for an image of 20x14."""
    tensors = {}
    spaces = {
        "rand": RandAugment()._augmentation_space(31, (20, 14)),
        "wide": TrivialAugmentWide()._augmentation_space(31),
    }
    for space, table in spaces.items():
        for op, (magnitudes, signed) in table.items():
            values = magnitudes.double() if magnitudes.ndim else torch.zeros(31, dtype=torch.float64)
            tensors[f"table.{space}.{op}"] = torch.cat([values, torch.tensor([float(signed)], dtype=torch.float64)])
    for op, (magnitudes, signed) in spaces["wide"].items():
        chosen = [float(magnitudes[bin]) for bin in (0, 7, 20, 30)] if magnitudes.ndim else [0.0]
        chosen = chosen + [-value for value in chosen] if signed else chosen
        for number, magnitude in enumerate(chosen):
            height, width = ((20, 14), (16, 16))[number % 2]
            image = smooth(rng, height, width)
            fill = [30, 60, 90] if number % 2 else None
            result = _apply_op(image, op, magnitude, InterpolationMode.NEAREST, fill)
            tensors[f"op.{op}.{number}.image"] = pixels(image)
            tensors[f"op.{op}.{number}.magnitude"] = torch.tensor([magnitude], dtype=torch.float64)
            tensors[f"op.{op}.{number}.fill"] = torch.tensor(fill or [0, 0, 0])
            tensors[f"op.{op}.{number}.result"] = pixels(result)
    save("kestrel-data", "augment", tensors, SEED)


def batch(rng):
    """`RandomErasing`, `MixUp` and `CutMix` on given draws."""
    tensors = {}
    image = torch.from_numpy(rng.standard_normal((3, 9, 12)).astype(np.float32))
    tensors["erase.image"] = image
    for number, (value, rectangle) in enumerate([([0.5], (2, 3, 4, 5)), ([0.1, -2.0, 3.0], (0, 7, 9, 5))]):
        top, left, height, width = rectangle
        tensors[f"erase.{number}.draws"] = torch.tensor(rectangle)
        tensors[f"erase.{number}.value"] = torch.tensor(value)
        tensors[f"erase.{number}.result"] = F.erase(image, top, left, height, width, torch.tensor(value)[:, None, None])
    images = torch.from_numpy(rng.standard_normal((5, 3, 6, 8)).astype(np.float32))
    labels = torch.tensor([3, 0, 2, 3, 1])
    tensors["images"], tensors["labels"] = images, labels
    for number, lam in enumerate((0.3, 0.8125, 1.0)):
        params = {"lam": lam, "labels": labels, "batch_size": 5}
        transform = MixUp(num_classes=4)
        tensors[f"mix_up.{number}.lam"] = torch.tensor([lam], dtype=torch.float64)
        tensors[f"mix_up.{number}.images"] = transform.transform(images, params)
        tensors[f"mix_up.{number}.targets"] = transform.transform(labels, params)
    for number, (lam, x, y) in enumerate([(0.3, 4, 2), (0.9, 0, 5), (0.5, 7, 0)]):
        # The arithmetic of CutMix.make_params on these draws.
        r = 0.5 * np.sqrt(1.0 - lam)
        half_w, half_h = int(r * 8), int(r * 6)
        box = (max(x - half_w, 0), max(y - half_h, 0), min(x + half_w, 8), min(y + half_h, 6))
        adjusted = float(1.0 - (box[2] - box[0]) * (box[3] - box[1]) / (6 * 8))
        transform = CutMix(num_classes=4)
        params = {"box": box, "lam_adjusted": adjusted, "labels": labels, "batch_size": 5}
        tensors[f"cut_mix.{number}.lam"] = torch.tensor([lam], dtype=torch.float64)
        tensors[f"cut_mix.{number}.draws"] = torch.tensor([y, x])
        tensors[f"cut_mix.{number}.images"] = transform.transform(images, params)
        tensors[f"cut_mix.{number}.targets"] = transform.transform(labels, params)
    save("kestrel-data", "batch", tensors, SEED)


if __name__ == "__main__":
    rng = np.random.default_rng(SEED)
    resize(rng)
    padding(rng)
    color(rng)
    augment(rng)
    batch(rng)
