"""Cases of hostile pictures."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from cell import Cell, Plan, Stock
from kind_arrays import data_command
from PIL import Image
from wild import scramble, special, text

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO")


MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "I;16", "F", "I", "YCbCr", "HSV", "LAB")


def pictures(folder: Path, count: int) -> None:
    """Sound pictures p0.png, p1.png, ..."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"p{index}.png")


def _saved(rng: random.Random) -> tuple[bytes, str, str]:
    """A sound picture of a random format and mode: (bytes, suffix, words)."""
    form, mode = rng.choice(FORMATS), rng.choice(MODES)
    size = rng.choice(((8, 8), (8, 8), (1, 1), (1, 500), (9, 7)))
    image = (
        Image.new("RGB", size, (1, 2, 3)).convert("L").convert(mode)
        if mode in ("I;16", "F", "I", "1")
        else Image.new("RGB", size)
    )
    try:
        image = image.convert(mode)
        out = io.BytesIO()
        image.save(out, form)
    except (ValueError, OSError, KeyError):
        mode, size, out = (
            "RGB",
            (32, 32),
            io.BytesIO(),
        )  # an .ico of one pixel is one that Pillow does not write
        Image.new("RGB", size, (1, 2, 3)).save(out, form)
    return out.getvalue(), form.lower().replace("jpeg", "jpg"), f"{form} {mode} {size}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", extra: bytes = b""
) -> bytes:
    """A PNG with this header, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )


def _header(rng: random.Random) -> tuple[bytes, str, str]:
    """Headers that promise what is not there: sizes, depths, compressed text, animation."""
    edge = rng.choice((0, 1, 8, 20_000, 65_500, 2**31 - 1, 2**32 - 1))
    other = rng.choice((0, 1, 8, 20_000, 65_500))
    how = rng.choice(
        (
            "png size",
            "png bomb",
            "png depth",
            "png text",
            "bmp",
            "gif",
            "ppm",
            "tiff",
            "jpeg",
            "ico",
            "webp",
            "exif",
            "svg",
            "eps",
        )
    )
    if how == "png size":
        return png(edge, other, data=zlib.compress(b"\0" * 200)), "png", f"{how} {edge}x{other}"
    if how == "png bomb":
        side = rng.choice((9000, 14_000, 20_000))
        packed = zlib.compressobj(9)
        line = b"\0" * (side // 8 + 1)
        body = b"".join(packed.compress(line * 100) for _ in range(side // 100)) + packed.flush()
        return png(side, side, 1, 0, body), "png", f"{how} {side}"
    if how == "png depth":
        return (
            png(
                8,
                8,
                rng.choice((0, 1, 3, 16, 255)),
                rng.choice((0, 1, 2, 3, 4, 6, 99)),
                zlib.compress(b"\0" * 200),
            ),
            "png",
            how,
        )
    if how == "png text":
        note = (
            _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 100_000_000))
            if rng.random() < 0.5
            else _chunk(b"iCCP", b"n\0\0" + zlib.compress(b"\xff" * 5000))
        )
        return png(8, 8, data=zlib.compress(b"\0" * 200), extra=note), "png", how
    if how == "bmp":
        size = struct.pack("<ii", rng.choice((edge, -8)) % 2**31, rng.choice((other, -(2**31))))
        return (
            b"BM"
            + struct.pack("<IHHI", 100, 0, 0, 54)
            + struct.pack("<I", 40)
            + size
            + struct.pack(
                "<HHIIiiII",
                1,
                rng.choice((0, 1, 4, 24, 32, 77)),
                rng.choice((0, 1, 2, 3, 9)),
                0,
                0,
                0,
                2**31,
                0,
            )
            + b"\0" * 64,
            "bmp",
            how,
        )
    if how == "gif":
        return (
            b"GIF89a" + struct.pack("<HHBBB", edge % 65536, other % 65536, 0xF7, 0, 0) + rng.randbytes(300),
            "gif",
            how,
        )
    if how == "ppm":
        return (
            rng.choice(
                (
                    b"P6 99999 99999 255\n",
                    b"P6 0 0 255\n",
                    b"P6 -1 8 255 ",
                    b"P5 8 8 70000 ",
                    b"P6 " + b"9" * 5000,
                    b"Pf 8 8 -1.0\n",
                    b"P3 8 8 255\n1 2 x",
                )
            ),
            "ppm",
            how,
        )
    if how == "tiff":
        tags = b"".join(
            struct.pack(
                "<HHII",
                rng.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 339)),
                rng.choice((1, 3, 4, 16, 99)),
                rng.choice((1, 3, 2**31, 10**6)),
                rng.choice((edge, 8, 0)) % 2**32,
            )
            for _ in range(10)
        )
        return (
            b"II*\0"
            + struct.pack("<I", 8)
            + struct.pack("<H", 10)
            + tags
            + struct.pack("<I", rng.choice((0, 8)))
            + b"\0" * 200,
            "tif",
            how,
        )
    if how == "jpeg":
        start = (
            b"\xff\xd8\xff\xc0\0\x11\x08"
            + struct.pack(">HH", other % 65536, edge % 65536)
            + b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01"
        )
        return start + b"\xff\xda\0\x0c\x03\x01\0\x02\x11\x03\x11\0\x3f\0" + rng.randbytes(200), "jpg", how
    if how == "ico":
        return (
            struct.pack("<HHH", 0, 1, 1)
            + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**31, 22)
            + png(edge, other),
            "ico",
            how,
        )
    if how == "webp":
        return (
            b"RIFF"
            + struct.pack("<I", 2**32 - 1)
            + b"WEBPVP8X"
            + struct.pack("<I", 10)
            + b"\xff" * 10
            + b"\0" * 40,
            "webp",
            how,
        )
    if how == "exif":
        out = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = rng.choice((0, 3, 6, 9, 255))
        Image.new("RGB", (8, 8)).save(out, "JPEG", exif=exif)
        data, _ = scramble(rng, out.getvalue()) if rng.random() < 0.5 else (out.getvalue(), "")
        return data, "jpg", how
    words = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(../outside/executed) (w) file\n",
    }
    return words[how], rng.choice(("png", "jpg", how)), how


def picture(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A folder of pictures with one that is none."""
    folder = cell.case / "data"
    pictures(folder, 2)
    chance = rng.random()
    if chance < 0.45:
        data, suffix, done = _saved(rng)
        data, how = scramble(rng, data) if rng.random() < 0.85 else (data, "sound")
        done = f"{done}: {how}"
    elif chance < 0.95:
        data, suffix, done = _header(rng)
    else:
        data, suffix, done = b"", "png", "empty"
    name = f"{text(rng)[:200]}.{suffix}" if rng.random() < 0.06 else f"odd.{suffix}"
    try:
        file = folder / name.replace("/", "_")
        file.write_bytes(data)
    except (OSError, ValueError):
        file = folder / f"odd.{suffix}"
        file.write_bytes(data)
    if rng.random() < 0.04:
        done = special(rng, file, cell.outside)
    if rng.random() < 0.03:
        (folder / "round").symlink_to("..")
        done += ", a link to the folder above"
    extra = [*(("--skip-bad",) if rng.random() < 0.4 else ())]
    if rng.random() < 0.5:
        extra += rng.choice(
            (
                ["--resize", "8x8"],
                ["--resize", "8"],
                ["--crop", "8"],
                ["--resize", "8x8", "--letterbox", "0"],
                ["--channels", "gray"],
                ["--channels", "bgr"],
            )
        )
    return Plan(data_command(rng, stock, "data", extra), (done,))
