"""Holds exports of Kestrel against the programs that they are for, on real images.

    python scripts/check_onnx.py KESTREL WEIGHTS IMAGES [--tolerance 1e-5]

KESTREL is the binary, WEIGHTS a file that it trained (best.safetensors), IMAGES a folder of pictures. The weights are exported twice.
The safetensors go into PyTorch by the very lines that `kestrel export` prints, the ONNX file through onnx.checker into onnxruntime.
The logits of the two must be equal, at batch 1 and 5. Needs torch, torchvision, safetensors, onnx, onnxruntime and Pillow.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image


def pictures(folder, about, count):
    """The first pictures under a folder, in the network's size, normalised: [count, 3, H, W]."""
    names = sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith((".jpg", ".jpeg", ".png"))
    )
    # From all over the folder, so that there are several classes.
    names = names[:: max(1, len(names) // count)][:count]
    assert len(names) == count, f"{folder} has {len(names)} pictures, {count} are needed"
    side = int(about["image_size"])
    mean, std = (np.array(json.loads(about[key]), dtype=np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    images = [Image.open(name).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for name in names]
    return np.stack([(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255 - mean) / std for image in images])


def export(kestrel, weights, out):
    """Runs `kestrel export`; the lines of Python that it prints."""
    command = [kestrel, "export", "--weights", weights, "--out", out]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return printed.split("\n\n", 1)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kestrel")
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        exported = os.path.join(folder, "model.onnx")
        snippet = export(args.kestrel, args.weights, exported)
        onnx.checker.check_model(exported, full_check=True)
        session = onnxruntime.InferenceSession(exported)
        about = session.get_modelmeta().custom_metadata_map
        names = {}
        exec(export(args.kestrel, args.weights, os.path.join(folder, "model.safetensors")), names)
        model = names["model"]
        assert not model.training
        worst = 0.0
        for batch in (1, 5):
            images = pictures(args.images, about, batch)
            got = session.run(["logits"], {"image": images})[0]
            with torch.no_grad():
                want = model.double()(torch.from_numpy(images).double()).numpy()
            assert got.shape == want.shape, (got.shape, want.shape)
            worst = max(worst, np.abs(got - want).max() / np.abs(want).max())
        # The lines printed for onnxruntime run too.
        exec(snippet, {"images": pictures(args.images, about, 5)})
    ok = worst <= args.tolerance
    print(f"{about['architecture']}: logits of onnxruntime and of PyTorch in f64 differ by {worst:.1e} of the largest, "
          f"{'within' if ok else 'NOT within'} {args.tolerance:.0e}")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
