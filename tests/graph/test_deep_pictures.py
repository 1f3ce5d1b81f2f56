"""Pictures that are not three bytes for each pixel: 16 bits, real numbers, alpha. The right tensor, or one sentence that is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgec.graph.data import open_data
from edgec.graph.errors import DataError
from edgec.graph.inputs import InputSpec
from edgec.graph.pictures import decode_picture
from edgec.graph.preprocess import Preprocess

LEVELS = np.random.default_rng(0).integers(29000, 31001, (8, 12)).astype(np.uint16)
REAL = np.random.default_rng(1).random((8, 12), dtype=np.float32)


def written(kind: str, path: Path) -> Path:
    """One picture of `LEVELS`, or of `REAL`."""
    if kind == "pgm":
        path.write_bytes(b"P5 12 8 65535\n" + LEVELS.astype(">u2").tobytes())
    elif kind == "real tiff":
        Image.fromarray(REAL).save(path, "TIFF")
    elif kind == "big-endian tiff":
        Image.frombytes("I;16B", (12, 8), LEVELS.astype(">u2").tobytes()).save(path, "TIFF")
    else:
        Image.fromarray(LEVELS).save(path, {"png": "PNG", "tiff": "TIFF"}[kind])
    return path


@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "pgm", "real tiff"])
@pytest.mark.parametrize(("channels", "count"), [("gray", 1), ("rgb", 3), ("bgr", 3), ("rgba", 4)])
def test_every_level_is_kept(kind: str, channels: str, count: int, tmp_path: Path) -> None:
    """65535 is 255, 30000 is 116.73: what a cast to bytes would call white. Real numbers are what they are."""
    pixels = decode_picture(written(kind, tmp_path / "a"), Preprocess(channels=channels))
    expected = REAL if kind == "real tiff" else LEVELS / np.float32(257)
    assert pixels.shape == (8, 12, count)
    for channel in range(min(count, 3)):
        np.testing.assert_allclose(pixels[..., channel], expected, rtol=1e-6)
    assert count < 4 or (pixels[..., 3] == 255).all()


@pytest.mark.parametrize("how", [{}, {"letterbox": 114}, {"letterbox": 114, "letterbox_at": "centre"}])
def test_resizing_rounds_nothing(how: dict[str, object], tmp_path: Path) -> None:
    pixels = decode_picture(written("png", tmp_path / "a"), Preprocess(channels="gray", resize=(4, 4), **how))
    assert pixels.dtype == np.float32
    grey = pixels == 114
    assert grey.any() == bool(how)
    assert np.abs(pixels[~grey] - 30000 / 257).max() < 4
    assert (pixels[~grey] % 1 != 0).any()


def test_whole_numbers_of_32_bits_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(LEVELS.astype(np.int32) * 1000).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match=r"deep\.tif: the picture has no known range"):
        decode_picture(tmp_path / "deep.tif", Preprocess(channels="gray"))


def spec(*shape: int) -> tuple[InputSpec, ...]:
    return (InputSpec("x", shape, np.dtype(np.float32)),)


@pytest.mark.parametrize("size", [None, (4, 6)])
@pytest.mark.parametrize("form", ["pictures", "bytes last", "bytes first"])
def test_a_fourth_channel_is_data(form: str, size: tuple[int, int] | None, tmp_path: Path) -> None:
    """Colours under a transparent pixel stay what they are, resized too: four channels of any meaning."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 8, 12, 4)).astype(np.uint8)
    pixels[0, ..., 3] = 0
    if form == "pictures":
        for index, one in enumerate(pixels):
            Image.fromarray(one).save(tmp_path / f"{index}.png")
    else:
        np.savez(tmp_path / "x.npz", x=pixels if form == "bytes last" else pixels.transpose(0, 3, 1, 2))
    given = tmp_path if form == "pictures" else tmp_path / "x.npz"
    data = open_data(given, spec(4, *(size or (8, 12))), Preprocess(channels="rgba", resize=size))
    found = next(data.batches(3))["x"]
    if size is None:
        np.testing.assert_array_equal(found, pixels.transpose(0, 3, 1, 2))
    for sample in range(3):
        for channel in range(4):
            plane = Image.fromarray(np.ascontiguousarray(pixels[sample, ..., channel]))
            plane = plane if size is None else plane.resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(found[sample, channel], np.asarray(plane))


@pytest.mark.parametrize(
    ("shape", "mode", "said"),
    [
        ((1, 8, 12), "RGB", r"Set --channels gray\."),
        ((4, 8, 12), "RGBA", r"Set --channels rgba\."),
        ((3, 8, 8), "RGB", r"Set --resize 8x8 or --crop\."),
        ((1, 8, 8), "L", r"Set --resize 8x8 or --crop and --channels gray\."),
        ((5, 8, 12), "RGB", "Give arrays of that many channels"),
    ],
)
def test_the_remedy_helps(shape: tuple[int, ...], mode: str, said: str, tmp_path: Path) -> None:
    Image.new(mode, (12, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the picture does not fit") as caught:
        open_data(tmp_path, spec(*shape))
    assert caught.match(said)


@pytest.mark.parametrize("ending", ["HEIC", "heif", "avif", "jxl", "jp2"])
def test_formats_that_are_not_read_are_not_overlooked(ending: str, tmp_path: Path) -> None:
    Image.new("RGB", (12, 8)).save(tmp_path / "a.png")
    (tmp_path / f"b.{ending}").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    with pytest.raises(DataError, match=rf"b\.{ending}: the picture cannot be read: it is none of JPEG"):
        open_data(tmp_path, spec(3, 8, 12))
    data = open_data(tmp_path, spec(3, 8, 12), skip_bad=True)
    assert len(data) == 1
    assert ending in data.skipped[0]


@pytest.mark.parametrize("channels", [2, 5])
def test_arrays_of_no_picture_are_not_resized(channels: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 8, 12, channels), np.uint8))
    with pytest.raises(DataError, match=f"they have {channels} channels"):
        open_data(tmp_path / "x.npz", spec(channels, 4, 4), Preprocess(resize=(4, 4)))
