#!/usr/bin/env python3
"""Makes the small Fashion-MNIST sample that the trainer carries.

    python3 scripts/make_fashion_mnist_sample.py FOLDER

FOLDER holds the four original files (`train-images-idx3-ubyte.gz`, ...), for example from Debian's package
`dataset-fashion-mnist`. The sample takes the first 600 training images and the first 100 test images of each class, in
their original order, and writes them as IDX, gzipped without a time stamp, so that the same input gives the same bytes.
"""
import gzip
import hashlib
import os
import struct
import sys

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "fashion-mnist-sample")
CLASSES = 10


def read(path, magic, dims):
    """The dimensions and the bytes of a gzipped IDX file of unsigned bytes."""
    with gzip.open(path, "rb") as file:
        data = file.read()
    header = struct.unpack(f">{1 + dims}I", data[: 4 + 4 * dims])
    body = data[4 + 4 * dims :]
    size = 1
    for dim in header[1:]:
        size *= dim
    if header[0] != magic or size != len(body):
        sys.exit(f"{path}: not the IDX file that was expected")
    return header[1:], body


def write(name, magic, dims, body):
    """Writes an IDX file; returns its line for SHA256SUMS."""
    path = os.path.join(OUT, name)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(struct.pack(f">{1 + len(dims)}I", magic, *dims) + body)
    with open(path, "rb") as file:
        return f"{hashlib.sha256(file.read()).hexdigest()}  {name}\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sums = []
    os.makedirs(OUT, exist_ok=True)
    for part, per_class in (("train", 600), ("t10k", 100)):
        images, labels = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
        (count, height, width), pixels = read(os.path.join(sys.argv[1], images), 2051, 3)
        (label_count,), targets = read(os.path.join(sys.argv[1], labels), 2049, 1)
        if count != label_count:
            sys.exit(f"{part}: {count} images, {label_count} labels")
        taken, chosen = [0] * CLASSES, []
        for index, target in enumerate(targets):
            if taken[target] < per_class:
                taken[target] += 1
                chosen.append(index)
        if taken != [per_class] * CLASSES:
            sys.exit(f"{part}: too few images of a class: {taken}")
        size = height * width
        body = b"".join(pixels[index * size : (index + 1) * size] for index in chosen)
        sums.append(write(images, 2051, (len(chosen), height, width), body))
        sums.append(write(labels, 2049, (len(chosen),), bytes(targets[index] for index in chosen)))
    with open(os.path.join(OUT, "SHA256SUMS"), "w", encoding="ascii") as file:
        file.writelines(sorted(sums, key=lambda line: line.split()[1]))


if __name__ == "__main__":
    main()
