"""Calibration and evaluation data: a folder of pictures, an ``.npz`` or ``.npy``, or a folder of ``.npy`` files.

A `Dataset` knows where its samples lie and reads them batch by batch, so its memory does not depend on their number.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import DataError, UsageError
from edgec.graph.files import reason
from edgec.graph.inputs import InputSpec, noise
from edgec.graph.labels import read_labels
from edgec.graph.memory import free_memory
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.metadata import require_size
from edgec.graph.sources import ArraySource, NpyFolderSource, PictureSource, ReadySource, Source
from edgec.graph.stored import load_npy, load_npz, npz_names
from edgec.graph.text import size, visible

__all__ = ["ArraySource", "Dataset", "InputSpec", "Source", "noise", "open_data", "require"]

Array = np.ndarray[Any, np.dtype[Any]]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
UNREAD = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2"})
"""Pictures too, as phones write them beside the others, in formats that are not read: refused by name, not overlooked."""
RANDOM = "random"


@dataclass(frozen=True)
class Dataset:
    """Samples of a `Source`, in the order of ``indices``; ``labels`` are aligned with the source, not the indices."""

    name: str
    source: Source
    indices: tuple[int, ...]
    all_labels: Array | None = None
    is_random: bool = False
    seed: int = 0
    """Of noise, which is made anew for a picture of another size."""
    skipped: tuple[str, ...] = field(default=())
    all_truth: Sequence[Any] | Array | None = field(default=None, compare=False)
    """What is right for each sample where it is no class: numbers, masks, boxes; aligned with the source."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Array | None:
        """Class indices of the samples, or None."""
        return None if self.all_labels is None else self.all_labels[list(self.indices)]

    @property
    def truth(self) -> Sequence[Any] | Array | None:
        """What is right for the samples where that is no class, or None."""
        if self.all_truth is None or isinstance(self.all_truth, np.ndarray):
            return None if self.all_truth is None else self.all_truth[list(self.indices)]
        return [self.all_truth[index] for index in self.indices]

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Inputs by name, ``size`` samples at a time, in the inputs' types."""
        for start in range(0, len(self.indices), size):
            yield self.source.read(self.indices[start : start + size])

    def at(self, model: ir.Model | tuple[InputSpec, ...]) -> Dataset:
        """The same samples for a network that takes its picture at another size; itself where the inputs are the same.

        Each sample is made from what was given, once. Raises DataError for samples that cannot be resized.
        """
        specs = model if isinstance(model, tuple) else InputSpec.of(model)
        if specs == self.specs:
            return self
        if self.is_random:
            return replace(_noise(specs, len(self.source), self.seed), indices=self.indices)
        try:
            return replace(self, source=self.source.at(specs))
        except DataError as error:
            raise DataError(error.what, where=self.name, why=error.why, hint=error.hint) from None

    @property
    def is_resized_numbers(self) -> bool:
        """Whether samples are made from prepared arrays, not from pixels."""
        return isinstance(self.source, ReadySource)

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs that it is read for."""
        return self.source.specs

    def take(self, count: int, seed: int = 0) -> Dataset:
        """``count`` samples chosen by ``seed`` (all of them where there are no more), in their old order."""
        if count >= len(self.indices):
            return self
        return self.only(np.random.default_rng(seed).permutation(len(self.indices))[:count].tolist())

    def only(self, chosen: Iterable[int]) -> Dataset:
        """The samples at these places, in their old order."""
        return replace(self, indices=tuple(self.indices[i] for i in sorted(chosen)))

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
    model: ir.Model | tuple[InputSpec, ...],
    preprocess: Preprocess | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    labels: str | Path | None = None,
    any_truth: bool = False,
) -> Dataset:
    """Open ``path`` for ``model`` (or its inputs) and check every chosen sample: shape, type, NaN, damaged files.

    ``any_truth``: an array ``y`` may hold other things than classes, one for each sample.

    ``samples`` picks that many by ``seed``. ``labels`` is a CSV ``file,label``, or is found beside the folder. The word
    ``random`` instead of a path gives noise, marked as such. Raises DataError, naming the file; OpenSizeError for samples of a
    network whose height or width is open.
    """
    preprocess = preprocess or Preprocess()
    specs = model if isinstance(model, tuple) else InputSpec.of(model)
    if str(path) == RANDOM:
        return _noise(specs, samples or 64, seed)
    if isinstance(model, ir.Model):
        require_size(model, "samples are")
    path = Path(path)
    if not os.path.exists(path):  # noqa: PTH110 - False for any text that can be no path
        raise DataError("no such file or folder", where=str(path))
    if path.is_dir():
        data = _open_folder(path, specs, preprocess, labels)
    elif path.suffix in (".npz", ".npy"):
        data = _open_arrays(path, specs, preprocess, any_truth)
    else:
        raise DataError(
            "not a data set", where=str(path), hint="Give a folder of pictures, an .npz or an .npy file."
        )
    if samples is not None:
        data = data.take(samples, seed)
    return checked(data, skip_bad)


def checked(data: Dataset, skip_bad: bool = False) -> Dataset:
    """Look at every sample once: what is wrong with the data is said now, not in the middle of a pass.

    Headers of pictures come first, so that a picture of a billion pixels is refused before others are decoded.
    """
    skips = skip_bad and isinstance(data.source, (PictureSource, NpyFolderSource))
    bad: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on oddities that it can read
        for look in _looks(data):
            for index in data.indices:
                if index in bad:
                    continue
                try:
                    look(index)
                except DataError as error:
                    if not skips:
                        raise
                    bad[index] = visible(f"{error.where}: {error.what}")
    good = tuple(index for index in data.indices if index not in bad)
    skipped = tuple(bad[index] for index in data.indices if index in bad)
    if not good:
        raise DataError("no sample can be read", where=data.name, why="; ".join(skipped[:3]) or None)
    return replace(data, indices=good, skipped=skipped)


def _looks(data: Dataset) -> list[Callable[[int], None]]:
    """What each sample must pass, cheap checks first."""

    def read(index: int) -> None:
        for name, array in data.source.read([index]).items():
            if not np.isfinite(array).all():
                why = f"input {name!r} holds NaN or infinity, as {array.dtype}"
                raise DataError("a sample is not finite", where=f"{data.name}: sample {index}", why=why)

    return [data.source.check, read] if isinstance(data.source, PictureSource) else [read]


def _open_folder(
    path: Path, specs: tuple[InputSpec, ...], preprocess: Preprocess, labels: str | Path | None
) -> Dataset:
    files = _listed(path)
    pictures = tuple(p for p in files if p.suffix.lower() in PICTURES | UNREAD)
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
    values = read_labels(path, chosen, labels)
    return Dataset(visible(path.name), source, tuple(range(len(chosen))), values)


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder and its folders, in order, hidden names left out; links to other folders are not followed."""

    def fail(error: OSError) -> None:
        raise DataError("the folder cannot be read", where=str(error.filename), why=reason(error)) from error

    found = [Path(at) / name for at, _, names in os.walk(folder, onerror=fail) for name in names]
    return sorted(path for path in found if not path.name.startswith("."))


def _open_arrays(
    path: Path, specs: tuple[InputSpec, ...], preprocess: Preprocess, any_truth: bool
) -> Dataset:
    names = set(npz_names(path)) if path.suffix == ".npz" else {"x"}
    homes = {spec.name: _home(spec, specs, names - {"y"}, path) for spec in specs}
    wanted = {*homes.values(), *({"y"} & names)}
    stored = load_npz(path, sorted(wanted)) if path.suffix == ".npz" else {"x": load_npy(path)}
    labels = stored.pop("y", None)
    arrays = {name: stored[home] for name, home in homes.items()}
    sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    count = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        raise DataError("the inputs have different numbers of samples", where=str(path), why=str(sizes))
    if not count:
        raise DataError("no samples", where=str(path))
    classes = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    truth = labels if any_truth and not classes else None
    _check_labels(labels, count, path, any_truth)
    source = ArraySource(arrays, preprocess, specs)
    try:
        source.read([0])
    except DataError as error:
        raise DataError(error.what, where=str(path), why=error.why, hint=error.hint) from None
    values = labels.astype(np.int64) if labels is not None and classes else None
    return Dataset(visible(path.name), source, tuple(range(count)), values, all_truth=truth)


def _home(spec: InputSpec, specs: tuple[InputSpec, ...], names: set[str], path: Path) -> str:
    """The array in the file that goes into an input: the one of its name, or the only one there is."""
    if spec.name in names:
        return spec.name
    if len(specs) == 1 and ("x" in names or len(names) == 1):
        return "x" if "x" in names else next(iter(names))
    why = f"the file has {', '.join(sorted(names)) or 'none'}"
    raise DataError(f"no array for the input {spec.name!r}", where=str(path), why=why)


def _check_labels(labels: Array | None, count: int, path: Path, any_truth: bool) -> None:
    if labels is None:
        return
    if any_truth and labels.ndim and len(labels) == count and labels.dtype.kind in "fb":
        if not np.isfinite(labels).all():
            raise DataError("the labels are not finite", where=str(path))
        return
    if any_truth and labels.ndim > 1 and len(labels) == count and labels.dtype.kind in "iu":
        return
    if labels.ndim != 1 or len(labels) != count or labels.dtype.kind not in "iu":
        why = f"{count} samples, labels of shape {labels.shape} and type {labels.dtype}"
        raise DataError("the labels do not fit the samples", where=str(path), why=why)
    if labels.dtype.kind == "u" and int(labels.max()) > np.iinfo(np.int64).max:
        why = f"{labels.max()} is no class"
        raise DataError("the labels do not fit the samples", where=str(path), why=why)


def _noise(specs: tuple[InputSpec, ...], count: int, seed: int) -> Dataset:
    needed, limit = count * sum(12 * math.prod(spec.shape) for spec in specs), free_memory() // 2
    if needed > limit:
        why = f"{size(needed)} for {count} samples; half of the free memory is {size(limit)}"
        raise UsageError("so much noise does not fit", why=why, hint="Ask for fewer --samples.")
    rng = np.random.default_rng(seed)
    arrays = {spec.name: noise(rng, (count, *spec.shape), spec.dtype) for spec in specs}
    source = ArraySource(arrays, Preprocess(), specs)
    return Dataset(RANDOM, source, tuple(range(count)), is_random=True, seed=seed)


def require(data: Dataset | None, what: str) -> Dataset:
    """``data``, or a UsageError that names what needs it. Data is never invented."""
    if data is None:
        hint = "Add --data FOLDER (unlabelled inputs), or ask for noise with --data random."
        raise UsageError(f"{what} needs calibration data", hint=hint)
    return data
