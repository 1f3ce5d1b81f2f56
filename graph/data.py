"""Calibration and evaluation data: a folder of pictures, an ``.npz`` or ``.npy``, or a folder of ``.npy`` files.

A `Dataset` knows where its samples lie and reads them batch by batch, so its memory does not depend on their number.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import DataError, UsageError
from edgec.graph.preprocess import Preprocess
from edgec.graph.sources import ArraySource, InputSpec, NpyFolderSource, PictureSource, Source, load_npy

__all__ = ["ArraySource", "Dataset", "InputSpec", "Source", "open_data", "require"]

Array = np.ndarray[Any, np.dtype[Any]]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
RANDOM = "random"


@dataclass(frozen=True)
class Dataset:
    """Samples of a `Source`, in the order of ``indices``; ``labels`` are aligned with the source, not the indices."""

    name: str
    source: Source
    indices: tuple[int, ...]
    all_labels: Array | None = None
    is_random: bool = False
    skipped: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Array | None:
        """Class indices of the samples, or None."""
        return None if self.all_labels is None else self.all_labels[list(self.indices)]

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Inputs by name, ``size`` samples at a time, float32."""
        for start in range(0, len(self.indices), size):
            yield self.source.read(self.indices[start : start + size])

    def take(self, count: int, seed: int = 0) -> Dataset:
        """``count`` samples chosen by ``seed`` (all of them where there are no more), in their old order."""
        if count >= len(self.indices):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.indices))[:count])
        return replace(self, indices=tuple(self.indices[i] for i in chosen))

    def split(self, held_out_fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the second with ``held_out_fraction`` of the samples (at least one)."""
        count = min(max(1, round(len(self) * held_out_fraction)), len(self) - 1) if len(self) > 1 else 0
        order = np.random.default_rng(seed).permutation(len(self))
        held = set(order[:count].tolist())
        fit = tuple(index for i, index in enumerate(self.indices) if i not in held)
        out = tuple(index for i, index in enumerate(self.indices) if i in held)
        return replace(self, indices=fit), replace(self, indices=out)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the samples' content and preprocessing."""
        digest = hashlib.sha256()
        self.source.update_hash(digest, self.indices)
        return digest.hexdigest()


def open_data(
    path: str | Path,
    model: ir.Model,
    preprocess: Preprocess | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    labels: str | Path | None = None,
) -> Dataset:
    """Open ``path`` for ``model`` and check every chosen sample: shape, type, NaN, damaged files.

    ``samples`` picks that many by ``seed``. ``labels`` is a CSV ``file,label``, or is found beside the folder. The word
    ``random`` instead of a path gives noise, marked as such. Raises DataError, naming the file.
    """
    preprocess = preprocess or Preprocess()
    specs = InputSpec.of(model)
    if str(path) == RANDOM:
        return _noise(specs, samples or 64, seed)
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))
    if path.is_dir():
        data = _open_folder(path, specs, preprocess, labels)
    elif path.suffix in (".npz", ".npy"):
        data = _open_arrays(path, specs, preprocess)
    else:
        raise DataError(
            "not a data set", where=str(path), hint="Give a folder of pictures, an .npz or an .npy file."
        )
    if samples is not None:
        data = data.take(samples, seed)
    return _checked(data, skip_bad)


def _checked(data: Dataset, skip_bad: bool) -> Dataset:
    """Read every sample once: what is wrong with the data is said now, not in the middle of a pass."""
    good: list[int] = []
    skipped: list[str] = []
    for index in data.indices:
        try:
            inputs = data.source.read([index])
        except DataError as error:
            if not (skip_bad and isinstance(data.source, (PictureSource, NpyFolderSource))):
                raise
            skipped.append(f"{error.where}: {error.what}")
            continue
        for name, array in inputs.items():
            if not np.isfinite(array).all():
                why = f"input {name!r} holds NaN or infinity"
                raise DataError("a sample is not finite", where=f"{data.name}: sample {index}", why=why)
        good.append(index)
    if not good:
        raise DataError("no sample can be read", where=data.name, why="; ".join(skipped[:3]) or None)
    return replace(data, indices=tuple(good), skipped=tuple(skipped))


def _open_folder(
    path: Path, specs: tuple[InputSpec, ...], preprocess: Preprocess, labels: str | Path | None
) -> Dataset:
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    pictures = tuple(p for p in files if p.suffix.lower() in PICTURES)
    arrays = tuple(p for p in files if p.suffix == ".npy")
    if not pictures and not arrays:
        why = "it is empty" if not files else f"it holds no pictures and no .npy files ({files[0].name}, ...)"
        raise DataError("no samples in this folder", where=str(path), why=why)
    if len(specs) > 1:
        names = ", ".join(spec.name for spec in specs)
        raise DataError(
            f"the model has {len(specs)} inputs",
            where=str(path),
            hint=f"Give an .npz with the arrays {names}.",
        )
    if pictures:
        if len(specs[0].shape) != 3:
            why = f"the model's input has the shape {specs[0].shape}"
            raise DataError("pictures do not fit this model", where=str(path), why=why)
        source: Source = PictureSource(pictures, preprocess, specs[0])
        chosen = pictures
    else:
        source = NpyFolderSource(arrays, preprocess, specs[0])
        chosen = arrays
    values = _read_labels(path, chosen, labels)
    return Dataset(path.name, source, tuple(range(len(chosen))), values)


def _read_labels(folder: Path, files: Sequence[Path], labels: str | Path | None) -> Array | None:
    beside = [
        folder / "labels.csv",
        folder.with_name(folder.name + ".csv"),
        folder.with_name(folder.name + "_labels.csv"),
    ]
    table = Path(labels) if labels is not None else next((p for p in beside if p.is_file()), None)
    if table is None:
        return None
    if not table.is_file():
        raise DataError("no such file", where=str(table))
    found: dict[str, int] = {}
    with table.open(newline="", encoding="utf-8") as stream:
        for line, row in enumerate(csv.reader(stream), start=1):
            if not row or (line == 1 and not row[-1].strip().lstrip("-").isdigit()):
                continue
            if len(row) != 2 or not row[1].strip().lstrip("-").isdigit():
                raise DataError("not a line of file,label", where=f"{table}:{line}", why=",".join(row)[:80])
            found[Path(row[0].strip()).name] = int(row[1])
    missing = [path.name for path in files if path.name not in found]
    if missing:
        why = f"{len(files)} files, {len(files) - len(missing)} of them labelled; {missing[0]} has no label"
        raise DataError("the labels do not fit the folder", where=str(table), why=why)
    return np.asarray([found[path.name] for path in files], np.int64)


def _open_arrays(path: Path, specs: tuple[InputSpec, ...], preprocess: Preprocess) -> Dataset:
    stored = _load_npz(path) if path.suffix == ".npz" else {"x": load_npy(path)}
    labels = stored.pop("y", None)
    arrays: dict[str, Array] = {}
    for spec in specs:
        if spec.name in stored:
            arrays[spec.name] = stored[spec.name]
        elif len(specs) == 1 and ("x" in stored or len(stored) == 1):
            arrays[spec.name] = stored["x"] if "x" in stored else next(iter(stored.values()))
        else:
            why = f"the file has {', '.join(sorted(stored)) or 'none'}"
            raise DataError(f"no array for the input {spec.name!r}", where=str(path), why=why)
    sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    count = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        raise DataError("the inputs have different numbers of samples", where=str(path), why=str(sizes))
    if not count:
        raise DataError("no samples", where=str(path))
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"array {name!r} has the type {array.dtype}", where=str(path), why="numbers are needed"
            )
    if labels is not None and (labels.ndim != 1 or len(labels) != count or labels.dtype.kind not in "iu"):
        why = f"{count} samples, labels of shape {labels.shape} and type {labels.dtype}"
        raise DataError("the labels do not fit the samples", where=str(path), why=why)
    source = ArraySource(arrays, preprocess, specs)
    try:
        source.read([0])
    except DataError as error:
        raise DataError(error.what, where=str(path), why=error.why, hint=error.hint) from None
    return Dataset(
        path.name, source, tuple(range(count)), None if labels is None else labels.astype(np.int64)
    )


def _load_npz(path: Path) -> dict[str, Array]:
    import zipfile
    import zlib

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            "not a readable .npz file", where=str(path), why=str(error).splitlines()[0]
        ) from error


def _noise(specs: tuple[InputSpec, ...], count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        spec.name: rng.standard_normal((count, *spec.shape)).astype(np.float32) for spec in specs
    }
    source = ArraySource(arrays, Preprocess(layout="nchw"), specs)
    return Dataset(RANDOM, source, tuple(range(count)), is_random=True)


def require(data: Dataset | None, what: str) -> Dataset:
    """``data``, or a UsageError that names what needs it. Data is never invented."""
    if data is None:
        hint = "Add --data FOLDER (unlabelled inputs), or ask for noise with --data random."
        raise UsageError(f"{what} needs calibration data", hint=hint)
    return data
