"""Writes golden tensors with a record of what made them.

Each file is a safetensors file whose metadata holds the versions, the seed and the command, so a reader of a test can make it again.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def save(crate, name, tensors, seed):
    """Writes `crates/CRATE/tests/golden/NAME.safetensors`; floats stay as they are, shapes as in PyTorch."""
    path = os.path.join(ROOT, "crates", crate, "tests", "golden", f"{name}.safetensors")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    record = {
        "torch": torch.__version__.split("+")[0],
        "seed": str(seed),
        "command": "cargo xtask golden --python PYTHON",
        "script": "scripts/golden/" + os.path.basename(sys._getframe(1).f_code.co_filename),
    }
    # One key: safetensors keeps metadata in no order, and with one key the file's bytes are a function of its contents.
    metadata = {"record": json.dumps(record)}
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata=metadata)
    print(f"{os.path.relpath(path, ROOT)}  {os.path.getsize(path)} bytes")
