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
    # Of sixteen indices, the palette has five.
    short = chunk(b"PLTE", bytes_[0, :5].tobytes())
    files["palette_short"] = raw_png(7, 3, 4, 3, [row[:4, 0].tobytes() for row in bytes_[:3]], short)
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
    # Of 256 indices, the palette has four.
    indices = np.array([[0, 3, 4, 5, 100, 200, 254, 255]], dtype=np.uint8).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 8, 1, 1, 8, 0, 8, 0, 0, 4, 0)
    files["palette_short"] = b"BM" + struct.pack("<IHHI", 78, 0, 0, 70) + head + palette.tobytes() + indices
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
    # Of nine indices, the palette has four.
    whole = files["palette"]
    end = 13 + 3 * (2 << (whole[10] & 7))
    files["palette_short"] = whole[:10] + bytes([whole[10] & 0xF8 | 1]) + whole[11 : 13 + 3 * 4] + whole[end:]
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
        "white_is_zero": white_is_zero(written(grey, "TIFF")),
        "white_is_zero_16": white_is_zero(written(Image.fromarray(np.array([[0, 1, 128, 255], [256, 300, 4096, 65535]], dtype=np.uint16)), "TIFF")),
    }
    # Every orientation, of which Pillow takes 2 to 8 as an order to turn the picture, and others as none.
    files |= {f"orientation_{value}": written(rgb, "TIFF", tiffinfo={274: value}) for value in range(10)}
    return files


def white_is_zero(file):
    """A grey TIFF whose header says that 0 is white: little-endian, as Pillow writes it, with 262 as a number of 16 bits."""
    changed = bytearray(file)
    at = changed.index(struct.pack("<HHI", 262, 3, 1)) + 8
    changed[at : at + 2] = b"\0\0"
    return bytes(changed)


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


def jpeg_of_scans(rgb, samplings):
    """A baseline JPEG with a scan a component, put together of grey ones; Pillow writes no such file.

    `samplings`: how often the luma is sampled across and down for each sample of the chroma.
    """
    across, down = samplings
    luma, *chroma = rgb.convert("YCbCr").split()
    reduced = tuple(-(-length // factor) for length, factor in zip(rgb.size, (across, down)))
    planes = [luma, *(plane.resize(reduced, Image.Resampling.BOX) for plane in chroma)]
    files = [written(plane, "JPEG", quality=90) for plane in planes]
    start = files[0].index(b"\xff\xc0")
    length = struct.unpack(">H", files[0][start + 2 : start + 4])[0]
    after = start + 2 + length
    frame = struct.pack(">BHHB", 8, rgb.height, rgb.width, 3) + bytes([1, across << 4 | down, 0, 2, 0x11, 0, 3, 0x11, 0])
    data = files[0][:start] + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame
    data += files[0][after : files[0].index(b"\xff\xda")]
    for number, file in enumerate(files):
        scan = file.index(b"\xff\xda") + 2 + 8
        data += b"\xff\xda\0\x08\x01" + bytes([number + 1]) + b"\0\0\x3f\0" + file[scan:-2]
    return data + b"\xff\xd9"


def bits_of(file):
    """The entropy-coded bits of a grey JPEG whose last block ends early, without the ones that fill its last byte."""
    scan = file[file.index(b"\xff\xda") + 2 + 8 : -2].replace(b"\xff\0", b"\xff")
    return "".join(f"{byte:08b}" for byte in scan).rstrip("1")


def jpeg_of_mcus(rgb, samplings):
    """A baseline JPEG of one scan whose MCUs are put together of grey images, with a restart marker after each."""
    across, down = samplings
    file = jpeg_of_scans(rgb, samplings)
    luma, *chroma = (np.array(plane) for plane in rgb.convert("YCbCr").split())
    planes = [(luma, 8 * across, 8 * down)] + [(np.array(Image.fromarray(plane).reduce((across, down))), 8, 8) for plane in chroma]
    rows, columns = -(-rgb.height // (8 * down)), -(-rgb.width // (8 * across))
    scan = b""
    for mcu in range(rows * columns):
        bits = ""
        for plane, width, height in planes:
            y, x = mcu // columns * height, mcu % columns * width
            part = plane[y : y + height, x : x + width]
            part = np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1])), "edge")
            bits += bits_of(written(Image.fromarray(part), "JPEG", quality=90))
        bits += "1" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
        scan += data if mcu == rows * columns - 1 else data + bytes([0xFF, 0xD0 + mcu % 8])
    head = file[: file.index(b"\xff\xda")]
    return head + b"\xff\xdd\0\4\0\1\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + scan + b"\xff\xd9"


def unusual_jpeg(rgb):
    """Baseline files that are left to the other decoder: a scan a component, unusual samplings, RGB as it is."""
    files = {f"scans_{name}": jpeg_of_scans(rgb, of) for name, of in (("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2)), ("440", (1, 2)), ("411", (4, 1)))}
    files |= {f"mcus_{name}": jpeg_of_mcus(rgb, of) for name, of in (("420", (2, 2)), ("440", (1, 2)), ("411", (4, 1)), ("410", (4, 2)))}
    return files | {"rgb": written(rgb, "JPEG", quality=90, keep_rgb=True)}


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
    record("lossy_formats", {"webp": lossy, "jpeg": cmyk_jpeg(smooth, rng) | unusual_jpeg(smooth)})
