"""Arrays in ``.npy`` and ``.npz`` files, read where they lie: memory does not depend on how many samples there are.

The header of an array is checked against the bytes that are there before anything is allocated. Members of an ``.npz`` that are
not compressed are mapped inside it, after their checksum was compared; compressed ones are unpacked, up to half of the free
memory and a hundred times their size. The format is numpy's (numpy.lib.format); headers are read by numpy, data by us.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgec.graph.errors import DataError
from edgec.graph.files import open_regular, reason
from edgec.graph.memory import free_memory
from edgec.graph.text import size

Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX = 1 << 14
"""Bytes in which a header must end; numpy itself takes no header above 10,000."""
_BLOCK = 1 << 20
_MOST_DIRECTORY = 1 << 22
"""Bytes of an archive's list of members: some 50,000 of them."""
_SMALL = 1 << 30
"""Bytes that may be unpacked whatever the packed size."""
_MOST_GROWTH = 100
"""Unpacked over packed size, beyond `_SMALL`: pictures grow by 1.1 to 5, a bomb by 1000."""
_MOST_AXES = 32
_MOST_ADDRESS = (1 << 63) - 1
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1


@dataclass(frozen=True)
class _Header:
    """What a file says of its array; ``length`` is the header's own, in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


def load_npy(path: Path) -> Array:
    """The array of a ``.npy`` file, mapped read-only. Raises DataError, naming the file."""
    try:
        with open_regular(path) as stream:
            header = _header(stream.read(_PREFIX), str(path))
            there = os.fstat(stream.fileno()).st_size - header.length
            if header.nbytes > there:
                why = f"it declares {_words(header)}; {size(there)} follow"
                raise DataError("the array is truncated", where=str(path), why=why)
            return _mapped(stream, header, header.length)
    except OSError as error:
        raise DataError("not a readable .npy file", where=str(path), why=reason(error)) from error


def load_npz(path: Path, wanted: Iterable[str] | None = None) -> dict[str, Array]:
    """Arrays of an ``.npz`` file by name, those ``wanted`` or all; a wanted one that it lacks is left out.

    Raises DataError, naming the file: for a damaged or encrypted archive, a name that stands twice, and arrays that take too
    much memory when they are unpacked.
    """
    with _opened(path) as (stream, archive):
        members = _members(archive, path)
        names = members if wanted is None else [name for name in wanted if name in members]
        chosen = {name: members[name] for name in names}
        _check_room(chosen, path)
        return {name: _member(stream, archive, info, f"{path}: {name}") for name, info in chosen.items()}


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz`` file. Raises DataError, naming the file."""
    with _opened(path) as (_, archive):
        return tuple(_members(archive, path))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, zipfile.ZipFile]]:
    """An archive and the file below it; whatever is wrong with either is a DataError."""
    try:
        with open_regular(path) as plain, _Guarded(plain) as stream, zipfile.ZipFile(stream) as archive:
            yield stream, archive
    except DataError:
        raise
    except OSError as error:
        raise DataError("not a readable .npz file", where=str(path), why=reason(error)) from error
    except (
        Exception
    ) as error:  # zipfile raises its own and a dozen of Python's classes over a damaged archive
        raise DataError("not a readable .npz file", where=str(path), why=_first_line(error)) from error


class _Guarded(io.BufferedReader):
    """A file that gives no more at once than an archive's directory may have: zipfile reads that in one piece."""

    def __init__(self, plain: BinaryIO) -> None:
        super().__init__(io.FileIO(os.dup(plain.fileno())))

    def read(self, count: int | None = -1, /) -> bytes:
        data = super().read(
            _MOST_DIRECTORY + 1 if count is None or count < 0 else min(count, _MOST_DIRECTORY + 1)
        )
        if len(data) > _MOST_DIRECTORY:
            raise zipfile.BadZipFile("its list of members is too long")
        return data


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name; what is no array, such as a folder, is passed over."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            continue
        if name in found:
            raise DataError("not a readable .npz file", where=str(path), why=f"it holds {name!r} twice")
        found[name] = info
    return found


def _check_room(chosen: Mapping[str, zipfile.ZipInfo], path: Path) -> None:
    """Refuse what unpacks to more than half of the free memory, or grows as only zeros do."""
    packed = {name: info for name, info in chosen.items() if info.compress_type != zipfile.ZIP_STORED}
    before = sum(info.compress_size for info in packed.values())
    after = sum(info.file_size for info in packed.values())
    limit = min(free_memory() // 2, max(_SMALL, _MOST_GROWTH * before))
    if after > limit:
        names = ", ".join(repr(name) for name in list(packed)[:3])
        raise DataError(
            "the arrays are too large to unpack",
            where=str(path),
            why=f"{names}: {size(before)} unpack to {size(after)}; {size(limit)} are allowed",
            hint="Save them with np.savez instead of np.savez_compressed: then they are read in place.",
        )


def _member(stream: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Array:
    if info.flag_bits & _ENCRYPTED:
        raise DataError("the array is encrypted", where=where)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            "the array cannot be unpacked", where=where, why="it is compressed as numpy never does"
        )
    with archive.open(info) as packed:
        header = _header(packed.read(_PREFIX), where)
    if header.length + header.nbytes != info.file_size:
        there = max(0, info.file_size - header.length)
        why = f"it declares {_words(header)}; {size(there)} follow"
        raise DataError("the array is damaged", where=where, why=why)
    if info.compress_type == zipfile.ZIP_STORED:
        return _in_place(stream, archive, info, header, where)
    with archive.open(info) as packed:
        packed.read(header.length)
        return _unpacked(packed, header, where)


def _in_place(
    stream: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: _Header, where: str
) -> Array:
    if info.compress_size != info.file_size:
        raise DataError("the array is damaged", where=where, why="its two sizes differ")
    with archive.open(info) as raw:
        while raw.read(_BLOCK):  # to its end, where zipfile compares the checksum
            pass
    stream.seek(info.header_offset)
    *_, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return _mapped(stream, header, info.header_offset + _LOCAL_HEADER.size + name + extra + header.length)


def _unpacked(packed: Any, header: _Header, where: str) -> Array:
    flat = np.empty(header.count, header.dtype)
    raw, done = flat.view(np.uint8), 0
    while count := packed.readinto(raw[done : done + _BLOCK]):
        done += count
    if done < header.nbytes or packed.read(1):
        raise DataError("the array is damaged", where=where, why=f"it unpacks to {size(done)}")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _mapped(stream: BinaryIO, header: _Header, offset: int) -> Array:
    order: Any = "F" if header.fortran else "C"
    if not header.nbytes:  # nothing cannot be mapped
        return np.empty(header.shape, header.dtype, order)
    return np.asarray(np.memmap(stream, header.dtype, "r", offset, header.shape, order))


def _header(prefix: bytes, where: str) -> _Header:
    stream = io.BytesIO(prefix)
    try:
        form: Any = np.lib.format  # numpy declares no types for it
        major, _ = form.read_magic(stream)
        if not 1 <= major <= 3:
            raise ValueError(f"version {major} of the format is not known")
        read = form.read_array_header_1_0 if major == 1 else form.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # numpy evaluates the header as a Python literal, which fails in a dozen ways
        raise DataError("not an array of numpy", where=where, why=_first_line(error)) from error
    if dtype.kind not in "fiub":
        what = "Python objects (a pickle), which are never loaded" if dtype.hasobject else str(dtype)
        raise DataError(
            "the array holds no numbers", where=where, why=f"its type is {what}; numbers are needed"
        )
    sound = len(shape) <= _MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not sound or math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MOST_ADDRESS:
        raise DataError("the array's shape is impossible", where=where, why=_shape(shape))
    return _Header(dtype, shape, fortran, stream.tell())


def _words(header: _Header) -> str:
    return f"{_shape(header.shape)} of {header.dtype}, {size(header.nbytes)}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape[:8]))}{', ...' if len(shape) > 8 else ''})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
