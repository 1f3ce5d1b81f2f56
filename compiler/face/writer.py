"""Samples into an ``.npz`` as they come: memory holds one item, whatever their number."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
from numpy.lib.format import write_array_header_1_0

from edgec.graph.disk import disk_errors, free_bytes
from edgec.graph.errors import DataError
from edgec.graph.text import size

Array = np.ndarray[Any, np.dtype[Any]]

_LONGEST = "Give samples=N, to take the first N."


class NpzWriter:
    """Arrays that grow sample by sample. Use as a context manager; ``finish`` makes the file.

    They lie uncompressed beside ``path`` until then, because the head of an array says how long it is.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._open: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]] = {}
        self._bytes = 0
        self.count: int = 0

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Samples, first axis their number. Raises DataError where they are not like those before, or the disk ends."""
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1:
            raise DataError(f"{self._name}: the inputs of a batch have different numbers of samples")
        if self._open and set(self._open) != set(arrays):
            why = f"{', '.join(sorted(arrays))} after {', '.join(sorted(self._open))}"
            raise DataError(f"{self._name}: samples have different inputs", why=why)
        new = sum(array.nbytes for array in arrays.values())
        free = free_bytes(self._path.parent)
        if free is not None and self._bytes + 2 * new > free:  # once more when it is packed
            why = f"{size(self._bytes + new)} after {self.count} samples, {size(free)} free"
            raise DataError(
                f"{self._name}: no end, or too much for the disk",
                where=str(self._path.parent),
                why=why,
                hint=_LONGEST,
            )
        for key, array in arrays.items():
            self._write(key, np.ascontiguousarray(array))
        self._bytes += new
        self.count += counts.pop()

    def _write(self, key: str, array: Array) -> None:
        if array.dtype.kind not in "fiub":
            raise DataError(f"{self._name}: values of type {array.dtype}", why="numbers are needed")
        if key not in self._open:
            raw = self._path.with_name(f"{self._path.name}.{len(self._open)}.raw")
            with disk_errors(raw):
                self._open[key] = (raw.open("w+b"), array.dtype, array.shape[1:])
        stream, dtype, shape = self._open[key]
        if array.shape[1:] != shape or array.dtype != dtype:
            why = f"{array.dtype} {array.shape[1:]} after {dtype} {shape}"
            raise DataError(
                f"{self._name}: samples differ in shape or type", where=f"sample {self.count}", why=why
            )
        with disk_errors(self._path):
            stream.write(array.data if array.size else b"")

    def finish(self, more: Mapping[str, Array]) -> None:
        """Write the archive, with ``more`` whole arrays."""
        with disk_errors(self._path), zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED) as archive:
            for key, (stream, dtype, shape) in self._open.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                    head = {"descr": dtype.str, "fortran_order": False, "shape": (self.count, *shape)}
                    cast("Callable[..., None]", write_array_header_1_0)(member, head)
                    stream.seek(0)
                    shutil.copyfileobj(stream, member, 1 << 20)
            for key, array in more.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                    np.save(member, array, allow_pickle=False)

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream, _, _ in self._open.values():
            stream.close()
            Path(stream.name).unlink(missing_ok=True)
