"""Golden tensors for kestrel-data: torchvision's geometry and normalisation on given draws, Pillow's conversions to RGB."""
import io

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms import functional as F

from record import save

SEED = 20240
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pixels(image):
    return torch.from_numpy(np.array(image))


def geometry(rng):
    """Per case: the image, the draws `flip before, padding, top, left, height, width, flip after, padding after`, the result."""
    tensors = {}
    cases = [(32, 32, 4, 32, 32), (13, 17, 0, 9, 5), (13, 17, 6, 20, 25), (1, 1, 2, 3, 3), (7, 5, 3, 13, 11), (8, 8, 0, 8, 8)]
    for number, (height, width, padding, crop_height, crop_width) in enumerate(cases * 3):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        flip, flip_after, padding_after = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(3))
        top = int(rng.integers(0, height + 2 * padding - crop_height + 1))
        left = int(rng.integers(0, width + 2 * padding - crop_width + 1))
        result = F.hflip(image) if flip else image
        result = F.crop(F.pad(result, padding, fill=0), top, left, crop_height, crop_width)
        result = F.hflip(result) if flip_after else result
        result = F.pad(result, padding_after, fill=0)
        draws = [flip, padding, top, left, crop_height, crop_width, flip_after, padding_after]
        tensors[f"{number}.image"] = pixels(image)
        tensors[f"{number}.draws"] = torch.tensor(draws)
        tensors[f"{number}.result"] = pixels(result)
    save("kestrel-data", "geometry", tensors, SEED)


def normalize(rng):
    """All 256 values in each channel, and CIFAR's whole training pipeline on given draws `flip, top, left`."""
    tensors = {}
    values = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))
    tensors["values.to_tensor"] = ToTensor()(values)
    for name, (mean, std) in (("cifar", CIFAR), ("imagenet", IMAGENET)):
        tensors[f"values.{name}"] = Compose([ToTensor(), Normalize(mean, std)])(values)
    for number in range(4):
        image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        flip, top, left = number % 2, int(rng.integers(9)), int(rng.integers(9))
        result = F.crop(F.pad(F.hflip(image) if flip else image, 4, fill=0), top, left, 32, 32)
        tensors[f"{number}.image"] = pixels(image)
        tensors[f"{number}.draws"] = torch.tensor([flip, top, left])
        tensors[f"{number}.result"] = Compose([ToTensor(), Normalize(*CIFAR)])(result)
    save("kestrel-data", "normalize", tensors, SEED)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def conversions(rng):
    """PNG files of several modes, and `Image.open(file).convert("RGB")` of each."""
    base = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    rgba = Image.fromarray(base)
    files = {
        "rgb": png(rgba.convert("RGB")),
        "rgba": png(rgba),
        "grey": png(rgba.convert("L")),
        "grey_alpha": png(rgba.convert("LA")),
        "one_bit": png(rgba.convert("1")),
        "palette": png(rgba.convert("RGB").quantize(7)),
        "palette_transparent": png(rgba.convert("RGB").quantize(7), transparency=0),
    }
    tensors = {}
    for name, data in files.items():
        tensors[f"{name}.file"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        tensors[f"{name}.rgb"] = pixels(Image.open(io.BytesIO(data)).convert("RGB"))
    save("kestrel-data", "conversions", tensors, SEED)


def jpeg(rng):
    """JPEG files of several kinds, and Pillow's pixels of each that is converted."""
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    image = small.resize((45, 37), Image.Resampling.BICUBIC)
    kinds = {
        "baseline_444": (image, {"subsampling": 0}),
        "baseline_422": (image, {"subsampling": 1}),
        "baseline_420": (image, {"subsampling": 2}),
        "optimized": (image, {"optimize": True}),
        "progressive_444": (image, {"progressive": True, "subsampling": 0}),
        "progressive_420": (image, {"progressive": True, "subsampling": 2}),
        "restart": (image, {"restart_marker_blocks": 2}),
        "grey": (image.convert("L"), {}),
        "grey_progressive": (image.convert("L"), {"progressive": True}),
        "exif": (image, {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        "cmyk": (image.convert("CMYK"), {}),
    }
    tensors = {}
    for name, (source, options) in kinds.items():
        file = io.BytesIO()
        source.save(file, "JPEG", quality=90, **options)
        tensors[f"{name}.file"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        tensors[f"{name}.rgb"] = pixels(Image.open(file).convert("RGB"))
    save("kestrel-data", "jpeg", tensors, SEED)


if __name__ == "__main__":
    rng = np.random.default_rng(SEED)
    geometry(rng)
    normalize(rng)
    conversions(rng)
    jpeg(rng)
