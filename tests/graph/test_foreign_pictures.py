"""Pictures and their labels from elsewhere: a bomb is refused by its header, and every odd file by its name."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgec.graph import pictures, sources
from edgec.graph.data import open_data
from edgec.graph.errors import DataError
from edgec.graph.preprocess import MOST_PIXELS, Preprocess

NET = "net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu(x) }"
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def model(canonical):
    return canonical(NET)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures, and room for a bad one between them."""
    for name in ("a.png", "z.png"):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / "p" / name)
    return tmp_path / "p"


def saved(kind: str, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.resize(PIXELS, (size[1], size[0], 3))).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of any size over any data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def gif_that_grows() -> bytes:
    """A GIF of 8 x 8 whose frame has 65535 x 65535 pixels."""
    return saved("GIF").replace(
        b"\x2c" + struct.pack("<HHHH", 0, 0, 8, 8), b"\x2c" + struct.pack("<HHHH", 0, 0, 65535, 65535)
    )


JPEG, PNG, TIFF = saved("JPEG"), saved("PNG"), saved("TIFF")
BAD = {
    "empty.jpg": (b"", "it is empty"),
    "text.png": (b"<html>404</html>", "it is none of JPEG"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "cut.jpg"),
    "cut.png": (PNG[:60], "cut.png"),
    "garbled.png": (PNG[:40] + b"\xff" * 20 + PNG[60:], "garbled.png"),
    "cut.tif": (TIFF[:100], "cut.tif"),
    "bomb.png": (png(60_000, 60_000), "the picture is too large"),
    "near.png": (png(9_000, 11_000), "9000x11000 pixels; 89 million are allowed"),
    "bomb.bmp": (saved("BMP").replace(struct.pack("<ii", 8, 8), struct.pack("<ii", 90_000, 90_000)), "too large"),
    "bomb.ppm": (b"P6 99999 99999 255\n", "too large"),
    "bomb.gif": (saved("GIF").replace(b"GIF87a\x08\0\x08\0", b"GIF87a\xff\xff\xff\xff"), "too large"),
    "grows.gif": (gif_that_grows(), "too large"),
    "nothing.png": (png(0, 5), "nothing.png"),
    "nothing.ppm": (b"P6 0 0 255\n", "nothing.ppm"),
    "long text.png": (PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000)) + PNG[33:], "long text"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", "it is none of"),
    "icon.png": (saved("ICO"), "it is none of"),
    "heic.jpg": (b"\0\0\0\x18ftypheic" + b"\0" * 500, "it is none of"),
    "other size.png": (saved("PNG", (9, 8)), "it gives 8x9 with 3 channels"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused_or_skipped_by_name(
    name: str, folder: Path, model, recwarn: pytest.WarningsRecorder
) -> None:
    content, says = BAD[name]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_data(folder, model)
    assert caught.value.where == str(folder / name)
    assert says in str(caught.value)
    assert caught.value.hint
    data = open_data(folder, model, skip_bad=True)
    assert len(data) == 2
    assert [name in text for text in data.skipped] == [True]
    assert not recwarn.list


GOOD = {
    "png.jpg": PNG,
    "jpg.png": JPEG,
    "gif of frames.gif": saved("GIF", save_all=True, append_images=[Image.new("P", (8, 8))] * 300),
    "tiff of frames.tiff": saved("TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))] * 300),
    "UPPER.JPG": JPEG,
    "webp.webp": saved("WEBP"),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_pictures_are_read(name: str, folder: Path, model) -> None:
    (folder / name).write_bytes(GOOD[name])
    data = open_data(folder, model)
    assert len(data) == 3
    assert data.skipped == ()


def test_a_bomb_is_found_before_any_pixel_is_decoded(
    folder: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "zz.png").write_bytes(png(60_000, 60_000))
    monkeypatch.setattr(Preprocess, "picture", lambda self, image: pytest.fail("a picture was decoded"))
    with pytest.raises(DataError, match=r"zz\.png: the picture is too large"):
        open_data(folder, model)


def test_a_picture_at_the_limit_is_no_bomb(folder: Path, model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 64)
    assert len(open_data(folder, model)) == 2
    monkeypatch.setattr(pictures, "MOST_PIXELS", 63)
    with pytest.raises(DataError, match="8x8 pixels"):
        open_data(folder, model)
    assert MOST_PIXELS == 89_478_485


def test_resizing_is_bounded_too(folder: Path, model) -> None:
    (folder / "thin.png").write_bytes(png(1_000_000, 1, b"\0" + b"\0" * 3_000_000))
    with pytest.raises(DataError, match=r"thin\.png: the resized picture is too large"):
        open_data(folder, model, Preprocess(resize=(224,), crop=(8, 8)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_pictures_are_turned_and_converted_as_pillow_does(
    kind: str, turn: int, mode: str, tmp_path: Path
) -> None:
    image = Image.fromarray(np.resize(PIXELS, (6, 9, 3))).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    try:
        image.save(tmp_path / "a", kind, exif=exif)
    except (OSError, KeyError):
        pytest.skip(f"{kind} does not hold {mode}")
    # Opened by name, Pillow maps an uncompressed TIFF and garbles one that is turned on its side (seen with 13.0).
    with (tmp_path / "a").open("rb") as stream, Image.open(stream) as again:
        expected = np.asarray(ImageOps.exif_transpose(again).convert("RGB"))
    np.testing.assert_array_equal(pictures.decode_picture(tmp_path / "a", Preprocess()), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_masks_are_turned_as_their_pictures_are(kind: str, turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = np.arange(54, dtype=np.uint8).reshape(6, 9)
    Image.fromarray(pixels).save(tmp_path / "mask", kind, exif=exif)
    with (tmp_path / "mask").open("rb") as stream, Image.open(stream) as again:
        upright = ImageOps.exif_transpose(again).size[::-1]  # older Pillows write no TIFF that is turned
    picture = pictures.decode_picture(tmp_path / "mask", Preprocess(channels="gray"))
    mask = pictures.decode_mask(tmp_path / "mask", Preprocess())
    np.testing.assert_array_equal(mask, picture[:, :, 0])
    assert mask.shape == upright
    if kind == "PNG":
        assert upright == ((9, 6) if turn > 4 else (6, 9))


def test_large_files_are_not_read(folder: Path, model) -> None:
    with (folder / "b.jpg").open("wb") as stream:
        stream.write(JPEG)
        stream.truncate(1 << 40)
    with pytest.raises(DataError, match=r"b\.jpg: the picture is too large: 1\.1 TB"):
        open_data(folder, model)


NO_FILES = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_what_is_no_file_is_a_bad_picture(kind: str, ending: str, folder: Path, model) -> None:
    NO_FILES[kind](folder / f"b{ending}")
    with pytest.raises(DataError, match="b\\" + ending):
        open_data(folder, model)
    assert len(open_data(folder, model, skip_bad=True)) == 2


def test_loops_of_folders_end(folder: Path, model) -> None:
    (folder / "again").symlink_to(".")
    (folder / "up").symlink_to("..")
    (folder / "deep" / "x.jpg").mkdir(parents=True)
    Image.fromarray(PIXELS).save(folder / "deep" / "x.jpg" / "b.png")
    assert len(open_data(folder, model)) == 3


def test_a_picture_that_vanishes_is_named(folder: Path, model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sources, "KEPT_BYTES", 0
    )  # with room for its pixels they are read once, and nothing is missed
    data = open_data(folder, model)
    (folder / "z.png").unlink()
    with pytest.raises(DataError, match=r"z\.png: the picture cannot be read"):
        list(data.batches(2))
    with pytest.raises(DataError, match=r"z\.png: cannot be read"):
        _ = data.fingerprint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(folder: Path, model) -> None:
    (folder / "z.png").chmod(0)
    with pytest.raises(DataError, match=r"z\.png: the picture cannot be read: Permission denied"):
        open_data(folder, model)
    (folder / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="closed: the folder cannot be read"):
        open_data(folder, model)


def test_names_are_words(tmp_path: Path, model) -> None:
    place = os.fsencode(tmp_path) + b"/\xff\x1b[2J"
    os.mkdir(place)  # noqa: PTH102 - a name that is no text
    Image.fromarray(PIXELS).save(io.BytesIO(), "PNG")
    for name in (b"\n.png", b"\xfe.png"):
        with open(place + b"/" + name, "wb") as stream:  # noqa: PTH123
            stream.write(PNG if name == b"\n.png" else b"")
    data = open_data(os.fsdecode(place), model, skip_bad=True)
    assert data.name == r"\udcff\x1b[2J"
    assert data.skipped[0].endswith(r"\udcff\x1b[2J/\udcfe.png: the picture cannot be read")
    assert len(data.fingerprint) == 64


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mutated_pictures_are_pixels_or_data_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP"]))
    raw = bytearray(saved(kind))
    for at in data.draw(st.lists(st.integers(0, min(len(raw), 200) - 1), min_size=1, max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    path.write_bytes(raw)
    with contextlib.suppress(DataError):
        pictures.check_picture(path)
        pictures.decode_picture(path, Preprocess())


TABLES = {
    "comma": "file,label\na.png,1\nz.png,2\n",
    "no heading": "a.png,1\nz.png,2",
    "semicolon": "file;label\na.png;1\nz.png;2\n",
    "tab": "file\tlabel\na.png\t1\nz.png\t2\n",
    "carriage returns": "file,label\r\na.png,1\r\nz.png,2\r\n",
    "quotes": '"file","label"\n"a.png","1"\n"z.png","2"\n',
    "spaces": " a.png , 1 \n\n z.png , +2\n",
    "paths": "p/a.png,1\np\\z.png,2\n",
    "dots": "./a.png,1\n./z.png,2\n",
    "same again": "a.png,1\nz.png,2\na.png,1\n",
    "more": "a.png,1\nz.png,2\nother.png,9\n",
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_labels_are_read(kind: str, encoding: str, folder: Path, model, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(TABLES[kind].encode(encoding))
    assert open_data(folder, model, labels=tmp_path / "l.csv").labels.tolist() == [1, 2]


BAD_TABLES = {
    "latin-1": ("a.png,1\nz.png,2\né.png,3\n".encode("latin-1"), ":3: a table of labels is not UTF-8"),
    "NUL": (b"a.png,1\nz.png,2\0\n", ":2: a table of labels is not text"),
    "open quote": (b'a.png,1\n"z.png,2\n', "not a line of file,label: unexpected end of data"),
    "huge field": (b'a.png,1\n"' + b"x" * 200_000 + b'",2\n', ":2: not a line of file,label: field larger"),
    "float": (b"a.png,1.0\nz.png,2\n", ":1: not a line of file,label: a.png,1.0"),
    "floats": (b"a.png,1\nz.png,2.5\n", ":2: not a line of file,label: z.png,2.5"),
    "words": (b"a.png,1\nz.png,cat\n", ":2: not a line of file,label: z.png,cat"),
    "powers": ("a.png,1\nz.png,²\n".encode(), ":2: not a line of file,label"),
    "two signs": (b"a.png,1\nz.png,--2\n", ":2: not a line of file,label"),
    "beyond int64": (b"a.png,1\nz.png,99999999999999999999\n", ":2: not a line of file,label"),
    "digits": (b"a.png,1\nz.png," + b"9" * 9000 + b"\n", ":2: not a line of file,label"),
    "three columns": (b"a.png,1\nz.png,2,3\n", ":2: not a line of file,label: z.png,2,3"),
    "one column": (b"a.png,1\nz.png\n", ":2: not a line of file,label: z.png"),
    "two labels": (
        b"a.png,1\nz.png,2\na.png,3\n",
        ":3: two labels for one file: a.png has the label 1 above",
    ),
    "lacking": (b"a.png,1\n", "2 files, 1 of them labelled; z.png has no label"),
    "empty": (b"", "2 files, 0 of them labelled"),
    "in doubt": (b"q/a.png,1\nr/a.png,2\nz.png,2\n", "a.png stands in it with several labels"),
    "steering": (b"a.png,1\n\x1b[2J,x\n", r":2: not a line of file,label: \x1b[2J,x"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables_are_refused_by_line(kind: str, folder: Path, model, tmp_path: Path) -> None:
    content, says = BAD_TABLES[kind]
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_data(folder, model)
    assert says in str(caught.value)
    assert "p.csv" in str(caught.value.where)


def test_files_of_one_name_have_their_own_labels(folder: Path, model, tmp_path: Path) -> None:
    for sub in ("q", "r"):
        (folder / sub).mkdir()
        (folder / "a.png").rename(folder / sub / "a.png") if sub == "q" else Image.fromarray(PIXELS).save(
            folder / sub / "a.png"
        )
    (tmp_path / "p.csv").write_text("q/a.png,1\nr/a.png,2\nz.png,3\n")
    assert open_data(folder, model).labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_table_that_is_none(make, folder: Path, model, tmp_path: Path) -> None:
    make(tmp_path / "l.csv")
    with pytest.raises(DataError, match=r"l\.csv: a table of labels cannot be read"):
        open_data(folder, model, labels=tmp_path / "l.csv")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.text("a.png,12;\n\r\"'\t", max_size=60))
def test_any_text_is_a_table_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    from edgec.graph.labels import read_labels

    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.encode())
    with contextlib.suppress(DataError):
        read_labels(Path("p"), [Path("p/a.png")], path)
