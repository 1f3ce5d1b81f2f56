"""Where samples lie, and how they become the network's input: arrays, pictures, folders of arrays."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgec.graph.errors import DataError
from edgec.graph.files import update_digest
from edgec.graph.inputs import InputSpec
from edgec.graph.pictures import check_picture, decode_picture
from edgec.graph.preprocess import Preprocess, resized_numbers
from edgec.graph.stored import load_npy

Array = np.ndarray[Any, np.dtype[Any]]

KEPT_BYTES = 32 << 20
"""Decoded pixels of a folder of pictures, of the size that the network takes: 200 of 224 by 224."""
LOOKED_AT = 16
"""Samples that say whether prepared numbers are pictures."""
LEVELS = 256
_ONE_EACH = "In a folder each file holds one sample; many samples go into one .npy or .npz file."


class Source(Protocol):
    """Where samples come from. ``read`` gives the inputs of the samples at ``indices``, preprocessed, in the inputs' types."""

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs that it is read for."""

    def __len__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        """Inputs of these samples by name."""

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        """Hash their content and how it is preprocessed."""

    def at(self, specs: tuple[InputSpec, ...]) -> Source:
        """The same samples for inputs of other sizes, each made from what was given, once. Raises DataError, UsageError."""


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
            with np.errstate(
                over="ignore"
            ):  # float64 beyond float32 becomes infinite, which is refused by name
                values = raw if raw.dtype == spec.dtype else raw.astype(np.float32, copy=False)
            return spec.typed(_to_model_layout(values, spec, self.preprocess))
        if len(spec.shape) != 3 and spec.dtype.kind != "f":  # class ids, switches, masks: no pictures
            return spec.typed(_to_model_layout(raw, spec, self.preprocess))
        if self.preprocess.resize is None and self.preprocess.crop is None:
            return _raw_to_input(raw, spec, self.preprocess)
        return _pictures_to_input(raw, spec, self.preprocess)

    def at(self, specs: tuple[InputSpec, ...]) -> Source:
        """Pixels go the way of pictures; ready numbers are resized as they are, where they are those of pictures."""
        (old, new), *others = [pair for pair in zip(self.specs, specs, strict=True) if pair[0] != pair[1]]
        if others:
            names = ", ".join(one.name for _, one in (*others, (old, new)))
            raise DataError("several inputs have another size", why=names)
        array = self.arrays[old.name]
        if array.dtype.kind == "f":
            return ReadySource(self, old, new)
        if array.ndim != 4:
            why = f"samples of {old.name!r} have the shape {array.shape[1:]}"
            raise DataError("what is no picture cannot be resized", why=why)
        preprocess = self.preprocess.at(old.picture[:2], new.picture[:2])
        return replace(self, preprocess=preprocess, specs=specs)

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(name.encode() + str(array.dtype).encode() + str(array.shape[1:]).encode())
            for start in range(0, len(indices), 64):
                digest.update(np.ascontiguousarray(array[list(indices[start : start + 64])]).tobytes())


@dataclass(frozen=True)
class PictureSource:
    """Picture files. Every pass over the data reads them again, so decoded pixels are kept, up to `KEPT_BYTES`."""

    paths: tuple[Path, ...]
    preprocess: Preprocess
    spec: InputSpec
    _kept: dict[int, Array] = field(init=False, default_factory=dict, compare=False, repr=False)
    """Decoded pixels. Not handed on: with another size or crop they are others."""

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Its one input."""
        return (self.spec,)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        rows = [self.decode(index) for index in indices]
        return {self.spec.name: np.stack(rows)}

    def at(self, specs: tuple[InputSpec, ...]) -> Source:
        """From the same files."""
        preprocess = self.preprocess.at(self.spec.picture[:2], specs[0].picture[:2])
        return replace(self, preprocess=preprocess, spec=specs[0])

    def check(self, index: int) -> None:
        """Judge one file by its header. Raises DataError, naming it."""
        check_picture(self.paths[index])

    def decode(self, index: int) -> Array:
        """One sample; DataError, naming the file, where it is damaged or of the wrong size."""
        path = self.paths[index]
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = decode_picture(path, self.preprocess)
            if (len(self._kept) + 1) * pixels.nbytes <= KEPT_BYTES:
                self._kept[index] = pixels = pixels.copy()  # not a view of the whole picture
        return _fit_picture(pixels, self.preprocess, self.spec, str(path))

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for index in indices:
            one = hashlib.sha256()
            update_digest(one, self.paths[index])
            digest.update(one.digest())


@dataclass(frozen=True)
class NpyFolderSource:
    """A folder of ``.npy`` files, one sample each."""

    paths: tuple[Path, ...]
    preprocess: Preprocess
    spec: InputSpec

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Its one input."""
        return (self.spec,)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        return {self.spec.name: np.stack([self._one(self.paths[index]) for index in indices])}

    def at(self, specs: tuple[InputSpec, ...]) -> Source:
        """From the same files, each as its numbers say; the first one speaks for all."""
        first = self._array(self.paths[0]).at(specs)
        if isinstance(first, ArraySource):
            return replace(self, preprocess=first.preprocess, spec=specs[0])
        return ReadySource(self, self.spec, specs[0])

    def _array(self, path: Path) -> ArraySource:
        """One file."""
        raw = load_npy(path)
        rows = raw[None] if raw.ndim == len(self.spec.shape) else raw
        if not rows.ndim or len(rows) != 1:
            why = f"an array of shape {raw.shape}; the model takes {self.spec.shape}"
            raise DataError("not one sample", where=str(path), why=why, hint=_ONE_EACH)
        return ArraySource({self.spec.name: rows}, self.preprocess, (self.spec,))

    def _one(self, path: Path) -> Array:
        try:
            one: Array = self._array(path).read([0])[self.spec.name][0]
        except DataError as error:
            raise DataError(error.what, where=str(path), why=error.why) from None
        return one

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for index in indices:
            update_digest(digest, self.paths[index])


@dataclass(frozen=True)
class ReadySource:
    """Samples of ``inner`` that were prepared for an input of ``old`` size, as numbers: resized to that of ``new``."""

    inner: ArraySource | NpyFolderSource
    old: InputSpec
    new: InputSpec

    def __post_init__(self) -> None:
        step = max(1, len(self) // LOOKED_AT)
        few = self.inner.read(list(range(0, len(self), step))[:LOOKED_AT])[self.old.name]
        if not are_pictures(self.old.unplaced(few)):
            why = f"the arrays for {self.old.name!r} hold other numbers than prepared pixels do"
            hint = "Give pictures, or uint8 pixels with --mean, --std and --scale; or keep the input's size."
            raise DataError("what is no picture cannot be resized", why=why, hint=hint)

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Those of ``inner``, with the new one in place of the old."""
        return tuple(self.new if one == self.old else one for one in self.inner.specs)

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        found = self.inner.read(indices)
        pixels = self.old.unplaced(found[self.old.name]).astype(np.float32)
        resized = np.stack([resized_numbers(one, self.new.picture[:2]) for one in pixels])
        return {**found, self.old.name: self.new.typed(self.new.placed(resized))}

    def at(self, specs: tuple[InputSpec, ...]) -> Source:
        """From what was given."""
        return self.inner.at(specs)

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(f"resized to {self.new.shape}".encode())
        self.inner.update_hash(digest, indices)


def are_pictures(pixels: Array) -> bool:
    """Whether prepared numbers (samples, height, width, channels) can be pixels' that were shifted and scaled.

    Pixels of 8 bits have 256 levels in a channel, whatever they were scaled by. Pictures that were resized as real numbers have
    more: they are known by their range where there are three channels (0 to 1, 0 to 255, -1 to 1, or ImageNet's), since
    spectra and the like have one.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        return False
    if all(len(np.unique(pixels[..., channel])) <= LEVELS for channel in range(pixels.shape[-1])):
        return True
    low, high = float(pixels.min()), float(pixels.max())
    known = (low >= 0 and (high <= 1 or 16 < high <= 255)) or (-1 <= low < -0.5 and high <= 1)
    return pixels.shape[-1] == 3 and (known or (-3 < low < -1 and 1 < high < 3))


def _raw_to_input(raw: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Whole numbers, of the input's shape in either layout: normalised along their channel axis."""
    if len(spec.shape) != 3:
        return spec.typed(_to_model_layout(preprocess.normalise(raw), spec, preprocess))
    first = _is_channels_first(raw.shape[1:], spec, preprocess)
    last = raw.transpose(0, 2, 3, 1) if first else raw
    if preprocess.channels == "bgr":
        last = last[..., ::-1]
    return spec.typed(spec.placed(_normalised(last, spec, preprocess))).reshape(len(raw), *spec.shape)


def _normalised(pixels: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """As `Preprocess.normalise`; whole numbers that go in as they are keep their type, whatever their size."""
    if spec.dtype.kind != "f" and preprocess.is_raw:
        return pixels
    return preprocess.normalise(pixels)


def _pictures_to_input(raw: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Whole numbers that are to be resized or cropped: each sample goes the way of a picture."""
    from PIL import Image

    if raw.ndim != 4 or raw.dtype != np.uint8:
        raise DataError("only uint8 pictures can be resized", why=f"got {raw.dtype} of shape {raw.shape[1:]}")
    counts = (1, 4) if preprocess.channels == "rgba" else (1, 3)
    first = preprocess.layout == "nchw" or (preprocess.layout == "auto" and raw.shape[1] in counts)
    last = raw.transpose(0, 2, 3, 1) if first else raw
    if last.shape[-1] not in (1, 3, 4):
        why = f"they have {last.shape[-1]} channels; pictures have 1, 3, or 4 with alpha"
        raise DataError(
            "these arrays cannot be resized", why=why, hint="Give them at the network's own size."
        )
    rows = []
    for pixels in last:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        rows.append(_fit_picture(preprocess.picture(image), preprocess, spec, "array"))
    return np.stack(rows)


def _fit_picture(pixels: Array, preprocess: Preprocess, spec: InputSpec, where: str) -> Array:
    """Pixels (height, width, channels) to the input's shape, normalised."""
    if pixels.shape == spec.picture:
        return spec.typed(spec.placed(_normalised(pixels, spec, preprocess)))
    if pixels.shape == spec.shape:
        return spec.typed(_normalised(pixels, spec, preprocess))
    height, width, channels = spec.picture
    given = f"{pixels.shape[0]}x{pixels.shape[1]} with {pixels.shape[2]} channels"
    why = f"it gives {given}; the model takes {height}x{width} with {channels}"
    raise DataError(
        "the picture does not fit the model", where=where, why=why, hint=_remedy(pixels.shape, spec)
    )


def _remedy(shape: tuple[int, ...], spec: InputSpec) -> str:
    """What makes pictures of this shape (height, width, channels) fit, if anything does."""
    *size, channels = spec.picture
    name = {1: "gray", 3: "rgb", 4: "rgba"}.get(channels)
    if shape[2] != channels and name is None:
        return "Give arrays of that many channels (.npz): pictures have 1, 3, or 4 with alpha."
    colours = [f"--channels {name}"] if shape[2] != channels else []
    sides = [f"--resize {size[0]}x{size[1]} or --crop"] if list(shape[:2]) != size else []
    return f"Set {' and '.join(sides + colours)}."


def _is_channels_first(shape: tuple[int, ...], spec: InputSpec, preprocess: Preprocess) -> bool:
    """Whether samples of this shape are (channels, height, width). What the model itself takes is tried first."""
    height, width, channels = spec.picture
    fits_first = shape == (channels, height, width)
    fits_last = shape == (height, width, channels)
    if preprocess.layout == "auto" and (fits_first or fits_last):
        return not fits_last if spec.channels_last else fits_first
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
        if first == (not spec.channels_last):
            return values
        return np.ascontiguousarray(values.transpose((0, 2, 3, 1) if first else (0, 3, 1, 2)))
    if shape != spec.shape:
        if math.prod(shape) == math.prod(spec.shape) == 1:  # a number, under whatever shape
            return values.reshape(len(values), *spec.shape)
        why = f"samples are {shape}, the model takes {spec.shape}"
        raise DataError("the data's shape does not fit the model", why=why)
    return values
