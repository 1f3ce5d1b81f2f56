"""Calibration and evaluation data: a folder of pictures, an ``.npz`` or ``.npy``, or a folder of ``.npy`` files.

A `Dataset` knows where its samples lie and reads them batch by batch, so its memory does not depend on their number.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import DataError, UsageError
from edgec.graph.preprocess import Preprocess
from edgec.graph.views import shape_of

Array = np.ndarray[Any, np.dtype[Any]]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
RANDOM = "random"


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name and the shape of one sample (channels first where it is a picture)."""

    name: str
    shape: tuple[int, ...]

    @staticmethod
    def of(model: ir.Model) -> tuple[InputSpec, ...]:
        """The inputs of a canonical graph."""
        return tuple(
            InputSpec(v.name or "", tuple(1 if size is None else size for size in shape_of(v)[1:]))
            for v in model.graph.inputs
        )


class Source(Protocol):
    """Where samples come from. ``read`` gives the inputs of the samples at ``indices``, preprocessed, float32."""

    def __len__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> dict[str, Array]: ...
    def update_hash(self, digest: Any, indices: Sequence[int]) -> None: ...


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


@dataclass(frozen=True)
class ArraySource:
    """Arrays in memory (or memory-mapped), one per input, samples first."""

    arrays: dict[str, Array]
    preprocess: Preprocess
    specs: tuple[InputSpec, ...]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        rows = list(indices)
        return {spec.name: self._one(spec, self.arrays[spec.name][rows]) for spec in self.specs}

    def _one(self, spec: InputSpec, raw: Array) -> Array:
        raw = np.asarray(raw)
        if raw.dtype.kind == "f":
            return _to_model_layout(raw.astype(np.float32, copy=False), spec, self.preprocess)
        if self.preprocess.resize is None and self.preprocess.crop is None:
            return _raw_to_input(raw, spec, self.preprocess)
        return _pictures_to_input(raw, spec, self.preprocess)

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(name.encode() + str(array.dtype).encode() + str(array.shape[1:]).encode())
            for start in range(0, len(indices), 64):
                digest.update(np.ascontiguousarray(array[list(indices[start : start + 64])]).tobytes())


@dataclass(frozen=True)
class PictureSource:
    """Picture files."""

    paths: tuple[Path, ...]
    preprocess: Preprocess
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        rows = [self.decode(index) for index in indices]
        return {self.spec.name: np.stack(rows)}

    def decode(self, index: int) -> Array:
        """One sample; DataError, naming the file, where it is damaged or of the wrong size."""
        from PIL import Image, UnidentifiedImageError

        path = self.paths[index]
        try:
            with Image.open(path) as image:
                pixels = self.preprocess.picture(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            hint = "Remove it, or skip damaged pictures with --skip-bad."
            raise DataError(
                "the picture cannot be read", where=str(path), why=str(error), hint=hint
            ) from error
        except DataError as error:
            raise DataError(error.what, where=str(path), why=error.why, hint=error.hint) from None
        return _fit_picture(self.preprocess.normalise(pixels), self.spec, str(path))

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for index in indices:
            digest.update(hashlib.sha256(self.paths[index].read_bytes()).digest())


@dataclass(frozen=True)
class NpyFolderSource:
    """A folder of ``.npy`` files, one sample each."""

    paths: tuple[Path, ...]
    preprocess: Preprocess
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        rows = []
        for index in indices:
            raw = _load_npy(self.paths[index])
            one = raw[None] if raw.ndim == len(self.spec.shape) else raw
            source = ArraySource({self.spec.name: one}, self.preprocess, (self.spec,))
            try:
                rows.append(source.read([0])[self.spec.name][0])
            except DataError as error:
                raise DataError(error.what, where=str(self.paths[index]), why=error.why) from None
        return {self.spec.name: np.stack(rows)}

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for index in indices:
            digest.update(self.paths[index].read_bytes())


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
    stored = _load_npz(path) if path.suffix == ".npz" else {"x": _load_npy(path)}
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


def _load_npy(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            "not a readable .npy file", where=str(path), why=str(error).splitlines()[0]
        ) from error


def _noise(specs: tuple[InputSpec, ...], count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        spec.name: rng.standard_normal((count, *spec.shape)).astype(np.float32) for spec in specs
    }
    source = ArraySource(arrays, Preprocess(layout="nchw"), specs)
    return Dataset(RANDOM, source, tuple(range(count)), is_random=True)


def _raw_to_input(raw: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Whole numbers, of the input's shape in either layout: normalised along their channel axis."""
    if len(spec.shape) != 3:
        return _to_model_layout(preprocess.normalise(raw), spec, preprocess)
    first = _is_channels_first(raw.shape[1:], spec, preprocess)
    last = raw.transpose(0, 2, 3, 1) if first else raw
    if preprocess.channels == "bgr":
        last = last[..., ::-1]
    return np.ascontiguousarray(preprocess.normalise(last).transpose(0, 3, 1, 2)).reshape(
        len(raw), *spec.shape
    )


def _pictures_to_input(raw: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Whole numbers that are to be resized or cropped: each sample goes the way of a picture."""
    from PIL import Image

    if raw.ndim != 4 or raw.dtype != np.uint8:
        raise DataError("only uint8 pictures can be resized", why=f"got {raw.dtype} of shape {raw.shape[1:]}")
    first = preprocess.layout == "nchw" or (preprocess.layout == "auto" and raw.shape[1] in (1, 3))
    last = raw.transpose(0, 2, 3, 1) if first else raw
    rows = []
    for pixels in last:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        rows.append(_fit_picture(preprocess.normalise(preprocess.picture(image)), spec, "array"))
    return np.stack(rows)


def _fit_picture(pixels: Array, spec: InputSpec, where: str) -> Array:
    """(height, width, channels) to the input's shape."""
    channels, height, width = spec.shape
    if pixels.shape == (height, width, channels):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if pixels.shape == spec.shape:
        return pixels
    why = f"it gives {pixels.shape[0]}x{pixels.shape[1]} with {pixels.shape[2]} channels; the model takes {spec.shape}"
    raise DataError(
        "the picture does not fit the model", where=where, why=why, hint="Set --resize, --crop or --channels."
    )


def _is_channels_first(shape: tuple[int, ...], spec: InputSpec, preprocess: Preprocess) -> bool:
    channels, height, width = spec.shape
    fits_first = shape == spec.shape
    fits_last = shape == (height, width, channels)
    if preprocess.layout == "auto" and (fits_first or fits_last):
        return fits_first
    if (preprocess.layout == "nchw" and fits_first) or (preprocess.layout == "nhwc" and fits_last):
        return preprocess.layout == "nchw"
    hint = "Set --layout, --resize or --crop."
    raise DataError(
        "the data's shape does not fit the model",
        why=f"samples are {shape}, the model takes {spec.shape}",
        hint=hint,
    )


def _to_model_layout(values: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    shape = values.shape[1:]
    if len(spec.shape) == 3 and values.ndim == 4:
        first = _is_channels_first(shape, spec, preprocess)
        return values if first else np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if shape != spec.shape:
        why = f"samples are {shape}, the model takes {spec.shape}"
        raise DataError("the data's shape does not fit the model", why=why)
    return values


def require(data: Dataset | None, what: str) -> Dataset:
    """``data``, or a UsageError that names what needs it. Data is never invented."""
    if data is None:
        hint = "Add --data FOLDER (unlabelled inputs), or ask for noise with --data random."
        raise UsageError(f"{what} needs calibration data", hint=hint)
    return data
