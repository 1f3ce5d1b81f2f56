"""Cases of hostile arrays: .npy, .npz, and folders of them."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile

import numpy as np
from cell import Cell, Plan, Stock
from wild import integer, scramble, special, text


def data_command(rng: random.Random, stock: Stock, path: str, extra: list[str]) -> tuple[str, ...]:
    """Most cases open and read the data with the model at hand; some go the whole way of a command."""
    if rng.random() < 0.8:
        return ("fuzz-data", path, str(stock.canonical), *extra)
    if rng.random() < 0.5:
        return ("verify", str(stock.model), str(stock.model), "--data", path, *extra)
    return (
        "compile",
        str(stock.model),
        "--data",
        path,
        *extra,
        "--precision",
        "int8",
        "--no-bench",
        "-o",
        "out",
    )


DTYPES = (
    "<f4",
    "<f8",
    "<f2",
    ">f4",
    "|u1",
    "|i1",
    "<i8",
    "<u8",
    "|b1",
    "<c8",
    "<U4",
    "|S3",
    "|O",
    "<M8[s]",
    "<m8[D]",
    "|V4",
    "<f16",
    "<f3",
    "x",
    "",
)


def npy(header: str | bytes, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file with this header text."""
    text_ = header if isinstance(header, bytes) else header.encode("latin1", "replace")
    size = struct.pack("<H", len(text_) % 65536) if version == (1, 0) else struct.pack("<I", len(text_))
    return b"\x93NUMPY" + bytes(version) + size + text_ + data


def _npy(rng: random.Random) -> tuple[bytes, str]:
    """A damaged or lying .npy."""
    how = rng.choice(
        (
            "dtype",
            "dtype",
            "shape",
            "shape",
            "values",
            "header",
            "scramble",
            "pickle",
            "version",
            "long header",
            "sound",
        )
    )
    good = np.zeros((3, 3, 8, 8), np.float32)
    if how == "dtype":
        kind = rng.choice(DTYPES)
        fields = "[('a', '<f4'), ('b', '<f4')]" if rng.random() < 0.1 else repr(kind)
        return npy(
            f"{{'descr': {fields}, 'fortran_order': False, 'shape': (3, 3, 8, 8), }}\n", b"\0" * 10_000
        ), f"{how} {kind}"
    if how == "shape":
        shape = rng.choice(
            (
                "()",
                "(0,)",
                "(0, 3, 8, 8)",
                "(3, 0, 8, 8)",
                "(-1, 3, 8, 8)",
                "(10**9, 3, 8, 8)",
                "(10000000000, 3, 8, 8)",
                "(3, 3, 8)",
                "(2**62, 2**62)",
                "(1,)*40",
                "(3, 3, 8, 8, 1)",
                "(3.0, 3)",
                "('a',)",
                "None",
                "3",
                "(True, 3, 8, 8)",
                f"({integer(rng)}, 3, 8, 8)",
                "(3, 8, 8, 3)",
                "(192, 3)",
            )
        )
        return npy(
            f"{{'descr': '<f4', 'fortran_order': {rng.choice((True, False, None, 1))}, 'shape': {shape}, }}\n",
            good.tobytes(),
        ), f"{how} {shape}"
    if how == "header":
        words = rng.choice(
            (
                b"{",
                b"[" * 5000,
                b"",
                b"\xff\xfe",
                b"__import__('os').system('touch ../outside/executed')",
                b"{'descr': '<f4'}",
                b"{1: 2}",
                b"(" * 200 + b")" * 200,
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,3,8,8), 'x': 1}",
                b"-" * 4000 + b"1",
                b"9" * 6000,
            )
        )
        return npy(words, good.tobytes()), f"{how} {words[:30]!r}"
    if how == "pickle":
        out = io.BytesIO()
        np.save(out, np.array([{"a": 1}], object), allow_pickle=True)
        return out.getvalue(), how
    if how == "version":
        return npy(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 8, 8), }\n",
            good.tobytes(),
            rng.choice(((2, 0), (3, 0), (9, 9), (0, 0))),
        ), how
    if how == "long header":
        return b"\x93NUMPY\x02\0" + struct.pack(
            "<I", rng.choice((2**32 - 1, 2**31, 100_000))
        ) + b" " * 70_000, how
    array = good
    if how == "values":
        wild = rng.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45))
        array = (
            np.full_like(good, wild)
            if rng.random() < 0.5
            else np.where(np.arange(good.size).reshape(good.shape) == 200, wild, good).astype(np.float32)
        )
        how = f"values {wild}"
    out = io.BytesIO()
    np.save(out, array)
    if how == "scramble":
        data, said = scramble(rng, out.getvalue())
        return data, said
    return out.getvalue(), how


def _npz(rng: random.Random) -> tuple[bytes, str]:
    """Members that are not arrays, too many, too large, of the wrong names; a damaged archive."""
    out = io.BytesIO()
    how = rng.choice(
        (
            "member",
            "member",
            "bomb",
            "names",
            "labels",
            "no members",
            "duplicate",
            "scramble",
            "outside",
            "encrypted",
            "text",
            "many",
        )
    )
    good = io.BytesIO()
    np.save(good, np.zeros((3, 3, 8, 8), np.float32))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if how == "member":
            data, said = _npy(rng)
            how = f"member: {said}"
            archive.writestr("x.npy", data)
        elif how == "bomb":
            rows = rng.choice((10**6, 3 * 10**6))
            head = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 3, 8, 8), }}\n")
            with archive.open("x.npy", "w", force_zip64=True) as stream:
                stream.write(head)
                for _ in range(rows * 768 // 2**24):
                    stream.write(b"\0" * 2**24)
        elif how == "names":
            for name in (text(rng), text(rng)):
                archive.writestr(f"{name}.npy", good.getvalue())
        elif how == "labels":
            archive.writestr("x.npy", good.getvalue())
            archive.writestr("y.npy", _npy(rng)[0])
        elif how == "duplicate":
            archive.writestr("x.npy", good.getvalue())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                archive.writestr("x.npy", good.getvalue())
        elif how == "outside":
            archive.writestr("../outside/written.npy", good.getvalue())
        elif how == "text":
            archive.writestr("x", "words")
            archive.writestr("x.txt", "words")
        elif how == "many":
            for index in range(3000):
                archive.writestr(f"a{index}.npy", b"")
        elif how in ("scramble", "encrypted"):
            archive.writestr("x.npy", good.getvalue())
    data = out.getvalue()
    if how == "scramble":
        data, how = scramble(rng, data)
    elif how == "encrypted":
        data = data.replace(b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\x01\0").replace(
            b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"
        )
    return data, how


def array(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """An .npy, an .npz, or a folder of .npy files."""
    form = rng.choice(("npy", "npz", "npz", "folder"))
    data, done = _npz(rng) if form == "npz" else _npy(rng)
    if form == "folder":
        folder = cell.case / "data"
        folder.mkdir()
        for index in range(2):
            np.save(folder / f"a{index}.npy", np.zeros((3, 8, 8), np.float32))
        file, path = folder / "odd.npy", "data"
    else:
        path = f"x.{form if rng.random() < 0.95 else 'npz'}"
        file = cell.case / path
    file.write_bytes(data)
    if rng.random() < 0.04:
        done = special(rng, file, cell.outside)
    extra = rng.choice(
        (
            [],
            [],
            [],
            ["--skip-bad"],
            ["--layout", "nhwc"],
            ["--resize", "8"],
            ["--samples", "2"],
            ["--mean", "1", "--std", "0"],
        )
    )
    return Plan(data_command(rng, stock, path, list(extra)), (form, done))
