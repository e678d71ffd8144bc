"""Golden tensors for kestrel-data's decoders: files of every format and mode, and `Image.open(file).convert("RGB")` of each.

A file that Pillow cannot write is put together by hand. The lossy kinds are in groups of their own: their pixels are near
Pillow's, not equal. `jpeg.safetensors` of `data.py` has the kinds of JPEG that are not CMYK.
"""
import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image

from record import save

SEED = 20241


def written(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, depth, color, rows, extra=b"", interlace=0):
    """A PNG of packed rows; unfiltered."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def adam7(pixels):
    """The rows of the seven passes of an interlaced image `[H, W, samples]` of bytes."""
    for y, x, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = pixels[y::dy, x::dx]
        if part.size:
            yield from (row.tobytes() for row in part)


def png(rng):
    files = {}
    for depth in (1, 2, 4):
        rows = [rng.integers(0, 256, (13 * depth + 7) // 8, dtype=np.uint8).tobytes() for _ in range(5)]
        files[f"grey_{depth}"] = raw_png(13, 5, depth, 0, rows)
        palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
        files[f"palette_{depth}"] = raw_png(13, 5, depth, 3, rows, palette)
    for name, color, samples in (("grey", 0, 1), ("rgb", 2, 3), ("grey_alpha", 4, 2), ("rgba", 6, 4)):
        values = rng.integers(0, 65536, (5, 7 * samples), dtype=np.uint16)
        values[0, :4] = [0, 255, 256, 65535]
        if name == "grey":
            values[1] = rng.integers(0, 300, 7)
        files[f"{name}_16"] = raw_png(7, 5, 16, color, [row.astype(">u2").tobytes() for row in values])
    bytes_ = rng.integers(0, 256, (11, 13, 3), dtype=np.uint8)
    files["rgb_interlaced"] = raw_png(13, 11, 8, 2, adam7(bytes_), interlace=1)
    files["rgb_transparent"] = raw_png(13, 11, 8, 2, [row.tobytes() for row in bytes_], chunk(b"tRNS", b"\0\1\0\2\0\3"))
    files["grey_transparent"] = raw_png(13, 11, 8, 0, [row[:, 0].tobytes() for row in bytes_], chunk(b"tRNS", b"\0\1"))
    return files


def bmp(rgb, rng):
    grey = rgb.convert("L")
    files = {
        "rgb": written(rgb, "BMP"),
        "grey": written(grey, "BMP"),
        "one_bit": written(grey.convert("1"), "BMP"),
        "palette": written(rgb.quantize(9), "BMP"),
        "rgba": written(Image.merge("RGBA", (*rgb.split(), grey)), "BMP"),
    }
    for bits, compression in ((16, 0), (32, 0)):
        rows = rng.integers(0, 256, (5, 8 * bits // 8), dtype=np.uint8).tobytes()
        head = struct.pack("<IiiHHIIiiII", 40, 8, -5, 1, bits, compression, len(rows), 0, 0, 0, 0)
        files[f"rgb_{bits}"] = b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows
    rows = rng.integers(0, 256, (5, 16), dtype=np.uint8).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 8, 5, 1, 16, 3, len(rows), 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x07E0, 0x1F)
    files["rgb_565"] = b"BM" + struct.pack("<IHHI", 66 + len(rows), 0, 0, 66) + head + rows
    palette = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    palette[:, 3] = 0
    packed = b"\5\1\3\2\0\0" + b"\0\3\1\2\3\0\5\0\0\0" + b"\x08\2\0\0" + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 8, 3, 1, 8, 1, len(packed), 0, 0, 4, 0)
    files["run_length"] = b"BM" + struct.pack("<IHHI", 70 + len(packed), 0, 0, 70) + head + palette.tobytes() + packed
    return files


def gif(rgb):
    palette = rgb.quantize(9)
    small = palette.resize((5, 4))
    files = {
        "palette": written(palette, "GIF"),
        "grey": written(rgb.convert("L"), "GIF"),
        "transparent": written(palette, "GIF", transparency=2),
        "interlaced": written(palette, "GIF", interlace=1),
        "animated": written(palette, "GIF", save_all=True, append_images=[rgb.transpose(0).quantize(7), rgb.rotate(180).quantize(5)]),
    }
    # The first frame covers a part of the screen only: the logical screen is made larger than the frame.
    part = bytearray(written(small, "GIF"))
    part[6:10] = struct.pack("<HH", 9, 8)
    files["smaller_frame"] = bytes(part)
    return files


def tiff(rgb, rng):
    grey = rgb.convert("L")
    rgba = Image.merge("RGBA", (*rgb.split(), grey))
    files = {f"rgb_{name}": written(rgb, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits")}
    files |= {
        "grey": written(grey, "TIFF"),
        "grey_alpha": written(Image.merge("LA", (grey, rgb.getchannel(0))), "TIFF"),
        "one_bit": written(grey.convert("1"), "TIFF"),
        "palette": written(rgb.quantize(9), "TIFF"),
        "rgba": written(rgba, "TIFF"),
        "cmyk": written(Image.fromarray(rng.integers(0, 256, (11, 13, 4), dtype=np.uint8), "CMYK"), "TIFF"),
        "grey_16": written(Image.fromarray(np.array([[0, 1, 128, 255], [256, 300, 4096, 65535]], dtype=np.uint16)), "TIFF"),
        "pages": written(rgb, "TIFF", save_all=True, append_images=[grey]),
    }
    return files


def webp(rgb):
    rgba = Image.merge("RGBA", (*rgb.split(), rgb.convert("L")))
    return {
        "lossless": written(rgb, "WEBP", lossless=True),
        "lossless_alpha": written(rgba, "WEBP", lossless=True, exact=True),
        "animated": written(rgb, "WEBP", lossless=True, save_all=True, append_images=[rgb.rotate(180)]),
    }, {
        "lossy": written(rgb, "WEBP", quality=80),
        "lossy_alpha": written(rgba, "WEBP", quality=60, exact=True),
    }


def cmyk_jpeg(rgb, rng):
    """CMYK with and without Adobe's marker, and YCCK by setting the marker's transform."""
    ink = Image.merge("CMYK", (*rgb.split(), rgb.convert("L").rotate(180)))
    plain = written(ink, "JPEG", quality=95, subsampling=0)
    at = plain.index(b"Adobe")
    ycck = bytearray(plain)
    ycck[at + 11] = 2
    unmarked = plain[: at - 4] + plain[at - 4 + 16 :]
    return {"cmyk": plain, "ycck": bytes(ycck), "cmyk_unmarked": unmarked, "cmyk_progressive": written(ink, "JPEG", progressive=True)}


def record(name, groups):
    tensors = {}
    for group, files in groups.items():
        for kind, data in files.items():
            image = Image.open(io.BytesIO(data))
            print(f"{group}.{kind}: {image.mode} {image.size} {len(data)} bytes")
            tensors[f"{group}.{kind}.file"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            tensors[f"{group}.{kind}.rgb"] = torch.from_numpy(np.array(image.convert("RGB")))
    save("kestrel-data", name, tensors, SEED)


if __name__ == "__main__":
    rng = np.random.default_rng(SEED)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = small.resize((45, 37), Image.Resampling.BICUBIC)
    rough = Image.fromarray(rng.integers(0, 256, (11, 13, 3), dtype=np.uint8))
    lossless, lossy = webp(smooth)
    exact = {"png": png(rng), "bmp": bmp(rough, rng), "gif": gif(rough), "tiff": tiff(rough, rng), "webp": lossless}
    record("formats", exact)
    record("lossy_formats", {"webp": lossy, "jpeg": cmyk_jpeg(smooth, rng)})
