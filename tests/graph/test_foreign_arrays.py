"""Arrays from elsewhere: every damaged, lying or odd file is read right or refused by name, in bounded memory."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph import stored
from edgec.graph.data import open_data
from edgec.graph.errors import DataError, EdgecError, UsageError
from edgec.graph.stored import load_npy, load_npz
from edgec.graph.text import size

NET = "net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu(x) }"


@pytest.fixture
def model(canonical):
    return canonical(NET)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def raw_npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A file with any header at all."""
    text = header.encode("latin-1")
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


def declared(descr: str, shape: str, data: bytes = b"", fortran: str = "False") -> bytes:
    return raw_npy(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n", data)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
SOUND = npy(PIXELS)
U1 = "'|u1'"

DAMAGED = {
    "empty": (b"", "not an array of numpy"),
    "text": (b"hello, world" * 100, "not an array of numpy"),
    "magic only": (b"\x93NUMPY", "not an array of numpy"),
    "header cut": (SOUND[:40], "not an array of numpy"),
    "data cut": (SOUND[:-1], "it declares (4, 8, 8, 3) of uint8, 768 B; 767 B follow"),
    "version 9": (b"\x93NUMPY\x09\x00" + SOUND[8:], "version 9"),
    "huge shape": (declared(U1, "(1000000000, 3, 8, 8)", b"x"), "192 GB; 1 B follow"),
    "huge axes": (declared(U1, "(9223372036854775807, 2)"), "shape is impossible"),
    "overflow": (declared(U1, "(4294967296, 4294967296)"), "shape is impossible"),
    "overflow of nothing": (declared(U1, "(0, 4294967296, 4294967296)"), "shape is impossible"),
    "long number": (declared(U1, f"({'9' * 5000},)"), ""),
    "negative": (declared(U1, "(-1, 3, 8, 8)"), "shape is impossible: (-1, 3, 8, 8)"),
    "true as size": (declared(U1, "(True, 3, 8, 8)"), "shape is impossible"),
    "float as size": (declared(U1, "(1.0, 3)"), "not an array of numpy"),
    "many axes": (declared(U1, f"({'1,' * 70})"), "shape is impossible"),
    "no tuple": (declared(U1, "12"), "not an array of numpy"),
    "no mapping": (raw_npy("[1, 2]\n"), "not an array of numpy"),
    "code": (raw_npy("__import__('os').abort()\n"), "not an array of numpy"),
    "deep": (raw_npy("(" * 9000), "not an array of numpy"),
    "signs": (raw_npy("-" * 9000 + "1"), "not an array of numpy"),
    "sums": (raw_npy("1" + "+1" * 4000), "not an array of numpy"),
    "NUL": (raw_npy("\0" * 100), "not an array of numpy"),
    "unknown type": (declared("'quack'", "(2,)"), "not an array of numpy"),
    "long header": (raw_npy(" " * 60_000 + "\n", version=b"\x02\x00"), "not an array of numpy"),
    "header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100_000, "not an array of numpy"),
}
NO_NUMBERS = {
    "objects": np.array([{}, None], object),
    "text": np.array(["a", "b"]),
    "bytes": np.array([b"a", b"b"]),
    "complex": np.zeros((2, 3, 8, 8), complex),
    "dates": np.array(["2024-01-01"], "datetime64[D]"),
    "spans": np.array([1], "timedelta64[s]"),
    "fields": np.zeros(3, [("a", "i4"), ("b", "f4")]),
    "void": np.zeros(3, "V7"),
}
SHAPES = {
    "0-d": (np.float32(3), "no samples"),
    "no samples": (PIXELS[:0], "no samples"),
    "empty samples": (PIXELS[:, :, :0], "does not fit"),
    "one sample without its axis": (PIXELS[0], "does not fit"),
    "five axes": (PIXELS[None], "does not fit"),
    "vector": (np.arange(5), "does not fit"),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("place", ["npy", "npz", "packed", "folder"])
def test_damaged_files_are_refused_by_name(kind: str, place: str, model, tmp_path: Path) -> None:
    data, says = DAMAGED[kind]
    path = placed(data, place, tmp_path)
    with pytest.raises(DataError) as caught:
        open_data(path, model)
    assert "bad" in str(caught.value.where)
    if place in ("npy", "folder"):
        assert says in str(caught.value)


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("place", ["npy", "npz", "packed", "folder"])
def test_what_is_no_number_is_refused_by_its_type(kind: str, place: str, model, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, NO_NUMBERS[kind], allow_pickle=True)
    path = placed(stream.getvalue(), place, tmp_path)
    with pytest.raises(DataError, match="numbers are needed") as caught:
        open_data(path, model)
    assert ("pickle" in str(caught.value)) == (kind == "objects")


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("place", ["npy", "npz", "packed"])
def test_shapes_that_cannot_be(kind: str, place: str, model, tmp_path: Path) -> None:
    array, says = SHAPES[kind]
    with pytest.raises(DataError, match=says):
        open_data(placed(npy(np.asarray(array)), place, tmp_path), model)


def placed(data: bytes, place: str, folder: Path) -> Path:
    """``data`` as a .npy file, as a member of an .npz, or as one file of a folder that has a good one too."""
    if place == "npy":
        (folder / "bad.npy").write_bytes(data)
        return folder / "bad.npy"
    if place == "folder":
        (folder / "bad").mkdir()
        (folder / "bad" / "0.npy").write_bytes(npy(PIXELS[0]))
        (folder / "bad" / "bad.npy").write_bytes(data)
        return folder / "bad"
    packed = zipfile.ZIP_DEFLATED if place == "packed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(folder / "bad.npz", "w", packed) as archive:
        archive.writestr("x.npy", data)
    return folder / "bad.npz"


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "bool": lambda a: a > 0,
    "uint16": lambda a: a.astype(np.uint16),
    "int64": lambda a: a.astype(np.int64),
    "float16": lambda a: a.astype(np.float16),
    "float64": lambda a: a.astype(np.float64),
    "big-endian float": lambda a: a.astype(">f4"),
    "long double": lambda a: a.astype(np.longdouble),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["npy", "npz", "packed"])
def test_every_form_of_numbers_is_read_right(form: str, place: str, model, tmp_path: Path) -> None:
    array = FORMS[form](PIXELS)
    data = open_data(placed(npy(array), place, tmp_path), model)
    expected = np.asarray(array, np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in data.batches(3)]), expected)


def test_numbers_beyond_float32_are_refused_without_a_warning(
    model, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    np.save(tmp_path / "d.npy", np.full((2, 3, 8, 8), 1e300))
    with pytest.raises(DataError, match="NaN or infinity, as float32"):
        open_data(tmp_path / "d.npy", model)
    assert not recwarn.list


def test_npz_is_mapped_in_place_and_its_checksum_compared(model, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=PIXELS, y=np.arange(4))
    arrays = load_npz(path)
    assert isinstance(arrays["x"].base, np.memmap)
    np.testing.assert_array_equal(arrays["x"], PIXELS)
    broken = bytearray(path.read_bytes())
    broken[broken.index(PIXELS.tobytes()) + 5] ^= 1
    path.write_bytes(broken)
    with pytest.raises(DataError, match="CRC"):
        open_data(path, model)


def test_what_is_not_asked_for_is_not_read(model, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", SOUND)
        archive.writestr("notes.npy", b"damaged")
        archive.writestr("../../outside.npy", SOUND)
        archive.writestr("folder/", b"")
        archive.writestr("readme.txt", b"hello")
    assert len(open_data(tmp_path / "d.npz", model)) == 4
    assert set(load_npz(tmp_path / "d.npz", ["../../outside"])) == {"../../outside"}
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]


def test_a_bomb_is_refused_with_both_sizes(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((4_000, 3, 8, 8), np.uint8))
    monkeypatch.setattr(stored, "free_memory", lambda: 1_000_000)
    with pytest.raises(DataError) as caught:
        open_data(tmp_path / "d.npz", model)
    packed = zipfile.ZipFile(tmp_path / "d.npz").infolist()[0].compress_size
    says = f"'x': {size(packed)} unpack to 768 kB; 500 kB are allowed"
    assert says in str(caught.value)
    monkeypatch.setattr(stored, "free_memory", lambda: 2_000_000)
    assert len(open_data(tmp_path / "d.npz", model)) == 4_000
    monkeypatch.setattr(stored, "_SMALL", 10_000)
    with pytest.raises(DataError, match="are allowed"):  # it grows by more than a hundred
        open_data(tmp_path / "d.npz", model)
    np.savez_compressed(
        tmp_path / "d.npz", x=np.random.default_rng(1).integers(0, 256, (400, 8, 8, 3), np.uint8)
    )
    assert len(open_data(tmp_path / "d.npz", model)) == 400


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_that_lie_take_no_memory(packed: int, tmp_path: Path) -> None:
    """A header that declares 64 GB over a few bytes, in an archive that declares 64 GB too."""
    header = declared(U1, "(64000000000,)")
    with zipfile.ZipFile(tmp_path / "d.npz", "w", packed) as archive:
        archive.writestr("x.npy", header + b"\0" * 1000)
    data = (tmp_path / "d.npz").read_bytes()
    length = len(header) + 1000
    (tmp_path / "d.npz").write_bytes(data.replace(struct.pack("<I", length), struct.pack("<I", 0xFFFFFFF0)))
    code = (
        "import sys, resource; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\n"
        "from edgec.graph.stored import load_npz\nfrom edgec.graph.errors import DataError\n"
        "try: load_npz(Path(sys.argv[1]))\nexcept DataError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "d.npz"], capture_output=True, text=True, check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "d.npz" in done.stdout
    assert "allocate" not in done.stdout


def archive_of(names: list[str], **options: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:  # type: ignore[arg-type]
        for name in names:
            archive.writestr(name, SOUND)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_numpy_never_writes_are_refused(model, tmp_path: Path) -> None:
    sound = archive_of(["x.npy"])
    encrypted = bytearray(sound)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + at] |= 1
    long_list = io.BytesIO()
    with zipfile.ZipFile(long_list, "w") as archive:
        for number in range(200):
            archive.writestr(zipfile.ZipInfo("n" * 30_000 + f"{number}.npy"), b"")
    cases = {
        "twice": (archive_of(["x.npy", "x.npy"]), "it holds 'x' twice"),
        "encrypted": (bytes(encrypted), "encrypted"),
        "bzip2": (archive_of(["x.npy"], compression=zipfile.ZIP_BZIP2), "as numpy never does"),
        "lzma": (archive_of(["x.npy"], compression=zipfile.ZIP_LZMA), "as numpy never does"),
        "no arrays": (archive_of(["x.txt"]), "the file has none"),
        "empty": (b"", "not a readable"),
        "end cut": (sound[:-10], "not a readable"),
        "front cut": (sound[50:], "not a readable"),
        "npy": (SOUND, "not a readable"),
        "long list": (long_list.getvalue(), "its list of members is too long"),
        "other names": (archive_of(["a.npy", "b.npy"]), "the file has a, b"),
    }
    for kind, (data, says) in cases.items():
        (tmp_path / "bad.npz").write_bytes(data)
        with pytest.raises(DataError) as caught:
            open_data(tmp_path / "bad.npz", model)
        assert says in str(caught.value), kind
        assert "bad.npz" in str(caught.value.where), kind


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_files_are_arrays_or_data_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place, load = data.draw(st.sampled_from([("npy", load_npy), ("npz", load_npz), ("packed", load_npz)]))
    folder = tmp_path_factory.getbasetemp()
    path = placed(SOUND, place, folder)
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    with contextlib.suppress(DataError):
        load(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["npy", "npz", "packed"]))
def test_any_bytes_are_data_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: str
) -> None:
    path = placed(data, place, tmp_path_factory.getbasetemp())
    with contextlib.suppress(DataError):
        load_npy(path) if place == "npy" else load_npz(path)
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        load_npy(path) if place == "npy" else load_npz(path)


def test_a_folder_holds_one_sample_per_file(model, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", PIXELS[0])
    np.save(tmp_path / "1.npy", PIXELS[1:2])
    assert len(open_data(tmp_path, model)) == 2
    np.save(tmp_path / "2.npy", PIXELS[2:4])
    with pytest.raises(DataError, match=r"2.npy: not one sample: an array of shape \(2, 8, 8, 3\)"):
        open_data(tmp_path, model)
    np.save(tmp_path / "2.npy", PIXELS[2, :5])
    with pytest.raises(DataError, match=r"2.npy: the data's shape does not fit"):
        open_data(tmp_path, model)
    data = open_data(tmp_path, model, skip_bad=True)
    assert len(data) == 2
    assert "2.npy" in data.skipped[0]


LABELS = {
    "floats": np.zeros(4),
    "text": np.array(list("abcd")),
    "objects": np.array([1, 2, 3, None], object),
    "one-hot": np.eye(4, dtype=np.int64),
    "too few": np.arange(3),
    "one": np.int64(3),
    "beyond int64": np.full(4, 2**63, np.uint64),
    "yes and no": np.zeros(4, bool),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_none(kind: str, model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=PIXELS, y=LABELS[kind])
    with pytest.raises(DataError) as caught:
        open_data(tmp_path / "d.npz", model)
    assert "d.npz" in str(caught.value)


@pytest.mark.parametrize("name", ["d.npz", "d.npy", "d", "d/x.npy", "d/x.jpg"])
def test_data_that_never_ends_is_refused(name: str, model, tmp_path: Path) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        make(path)
        with pytest.raises(DataError):
            open_data(tmp_path / name.partition("/")[0], model)
        path.unlink()


@pytest.mark.parametrize("path", ["a" * 5000, "nothing", "a\0b", "nothing/there.npz"])
def test_no_such_data(path: str, model) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_data(path, model)


def test_noise_is_bounded(model) -> None:
    with pytest.raises(UsageError, match="so much noise does not fit"):
        open_data("random", model, samples=10**15)


def test_numbers_for_other_channels_are_refused(model, tmp_path: Path) -> None:
    from edgec.graph.preprocess import Preprocess

    np.save(tmp_path / "d.npy", PIXELS)
    for wrong in ({"mean": (1.0,) * 5}, {"std": (1.0, 2.0)}):
        with pytest.raises(EdgecError, match="numbers for 3 channels"):
            open_data(tmp_path / "d.npy", model, Preprocess(**wrong))
