"""Where samples lie, and how they become the network's input: arrays, pictures, folders of arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_shape
from edgec.graph.errors import DataError
from edgec.graph.files import update_digest
from edgec.graph.pictures import check_picture, decode_picture
from edgec.graph.preprocess import Preprocess
from edgec.graph.stored import load_npy

Array = np.ndarray[Any, np.dtype[Any]]

_ONE_EACH = "In a folder each file holds one sample; many samples go into one .npy or .npz file."


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name and the shape of one sample (channels first where it is a picture)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = ""
    """Where the input takes whole numbers or booleans (class ids, masks), their type: such data is taken as it is."""

    @staticmethod
    def of(model: ir.Model) -> tuple[InputSpec, ...]:
        """The inputs of a canonical graph."""
        return tuple(InputSpec(v.name or "", sample_shape(v), _whole_numbers(v)) for v in model.graph.inputs)


def _whole_numbers(value: ir.Value) -> str:
    kind = ir.DataType.FLOAT if value.dtype is None else value.dtype
    return "" if kind.is_floating_point() else str(kind.numpy())


class Source(Protocol):
    """Where samples come from. ``read`` gives the inputs of the samples at ``indices``, preprocessed, float32."""

    def __len__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        """Inputs of these samples by name."""

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        """Hash their content and how it is preprocessed."""


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
        if spec.dtype:
            return _as_whole(raw, spec, self.preprocess)
        if raw.dtype.kind == "f":
            with np.errstate(
                over="ignore"
            ):  # float64 beyond float32 becomes infinite, which is refused by name
                values = raw.astype(np.float32, copy=False)
            return _to_model_layout(values, spec, self.preprocess)
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

    def check(self, index: int) -> None:
        """Judge one file by its header. Raises DataError, naming it."""
        check_picture(self.paths[index])

    def decode(self, index: int) -> Array:
        """One sample; DataError, naming the file, where it is damaged or of the wrong size."""
        path = self.paths[index]
        return _fit_picture(decode_picture(path, self.preprocess), self.preprocess, self.spec, str(path))

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

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> dict[str, Array]:
        return {self.spec.name: np.stack([self._one(self.paths[index]) for index in indices])}

    def _one(self, path: Path) -> Array:
        raw = load_npy(path)
        rows = raw[None] if raw.ndim == len(self.spec.shape) else raw
        if not rows.ndim or len(rows) != 1:
            why = f"an array of shape {raw.shape}; the model takes {self.spec.shape}"
            raise DataError("not one sample", where=str(path), why=why, hint=_ONE_EACH)
        source = ArraySource({self.spec.name: rows}, self.preprocess, (self.spec,))
        try:
            one: Array = source.read([0])[self.spec.name][0]
        except DataError as error:
            raise DataError(error.what, where=str(path), why=error.why) from None
        return one

    def update_hash(self, digest: Any, indices: Sequence[int]) -> None:
        digest.update(json.dumps(self.preprocess.to_dict()).encode())
        for index in indices:
            update_digest(digest, self.paths[index])


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
        rows.append(_fit_picture(preprocess.picture(image), preprocess, spec, "array"))
    return np.stack(rows)


def _fit_picture(pixels: Array, preprocess: Preprocess, spec: InputSpec, where: str) -> Array:
    """Pixels (height, width, channels) to the input's shape, normalised."""
    channels, height, width = spec.shape
    if pixels.shape == (height, width, channels):
        return np.ascontiguousarray(preprocess.normalise(pixels).transpose(2, 0, 1))
    if pixels.shape == spec.shape:
        return preprocess.normalise(pixels)
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


def _as_whole(raw: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Whole numbers for an input that takes them, not normalised. Raises DataError where it cannot hold them."""
    values: Array = raw.astype(spec.dtype)
    if not np.array_equal(values, raw):
        why = f"input {spec.name!r} takes {spec.dtype}, the data holds {raw.dtype} values that are none"
        raise DataError("the data's type does not fit the model", why=why)
    return _to_model_layout(values, spec, preprocess)


def _to_model_layout(values: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    shape = values.shape[1:]
    if len(spec.shape) == 3 and values.ndim == 4:
        first = _is_channels_first(shape, spec, preprocess)
        return values if first else np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if shape != spec.shape:
        why = f"samples are {shape}, the model takes {spec.shape}"
        raise DataError("the data's shape does not fit the model", why=why)
    return values
