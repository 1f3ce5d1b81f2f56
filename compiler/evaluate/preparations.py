"""The usual preparations of pictures, to be tried in the place of the one that was given (see `evaluate.plausibility`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.graph.data import Dataset
from edgec.graph.inputs import InputSpec
from edgec.graph.sources import ArraySource, NpyFolderSource, PictureSource

Array = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[Array], Array]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Way:
    """A preparation: pixels between 0 and 1, RGB, channels first, to the input; ``options`` of the command line for it."""

    name: str
    options: str
    prepare: Change


def preparations(spec: InputSpec) -> Iterator[Way]:
    """The usual ones for a picture like ``spec``, the plainest first."""
    mean, std = (np.array(one, np.float32)[:, None, None] for one in (_MEAN, _STD))
    coloured = spec.picture[2] == 3
    plain: list[tuple[str, str, Change]] = [
        ("pixels from 0 to 255", "--scale 1", lambda u: u * np.float32(255)),
        ("pixels from 0 to 1", "--scale 1/255", lambda u: u),
        ("pixels from -1 to 1", "--scale 1/127.5 --mean 1", lambda u: u * np.float32(2) - np.float32(1)),
    ]
    if coloured:
        numbers = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --scale 1/255"
        plain.append(("ImageNet's mean and deviation", numbers, lambda u: (u - mean) / std))
    for name, options, prepare in plain:
        yield Way(name, options, prepare)
        if coloured:
            yield Way(f"{name} and blue first", f"{options} --channels bgr", _reversed(prepare))


def _reversed(prepare: Change) -> Change:
    return lambda u: prepare(np.ascontiguousarray(u[:, ::-1]))


def pixels_of(data: Dataset, spec: InputSpec) -> Array | None:
    """The pictures as RGB between 0 and 1, channels first; None where that cannot be known."""
    if len(spec.shape) != 3 or spec.picture[2] not in (1, 3) or spec.dtype.kind != "f":
        return None
    source = data.source
    if not isinstance(source, ArraySource | PictureSource | NpyFolderSource):
        return None
    given = source.preprocess
    neutral = replace(
        given, mean=(0.0,), std=(1.0,), scale=1.0, channels="gray" if given.channels == "gray" else "rgb"
    )
    raw = channels_first(read_all(replace(data, source=replace(source, preprocess=neutral)))[spec.name], spec)
    low, high = float(raw.min()), float(raw.max())
    if low >= 0 and 16 < high <= 255:
        return raw / np.float32(255)
    if low >= 0 and high <= 1:
        return raw
    if -1 <= low < -0.5 and high <= 1:
        return (raw + np.float32(1)) / np.float32(2)
    if -3 < low < -1 and high < 3 and spec.picture[2] == 3:
        mean, std = (np.array(one, np.float32)[:, None, None] for one in (_MEAN, _STD))
        return np.asarray(np.clip(raw * std + mean, 0, 1))
    return None


def small_changes(kind: str, spec: InputSpec) -> tuple[Change, ...]:
    """Small changes that should not matter to classes. A map's scores have places: there nothing moves."""
    high, wide = (-3, -2) if spec.channels_last else (-2, -1)
    if kind != "classes":
        return (lambda x: (x + sum(np.roll(x, s, a) for a in (high, wide) for s in (1, -1))) / np.float32(5),)
    step = max(1, spec.picture[1] // 16)
    return (lambda x: np.flip(x, wide), lambda x: np.roll(x, step, wide), lambda x: np.roll(x, step, high))


def read_all(data: Dataset) -> dict[str, Array]:
    """All samples at once, by input."""
    parts = list(data.batches(8))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def channels_first(x: Array, spec: InputSpec) -> Array:
    """``x``, which is as the input declares it, channels first."""
    return np.moveaxis(x, -1, 1) if spec.channels_last else x


def as_declared(x: Array, spec: InputSpec) -> Array:
    """``x``, channels first, as the input declares it."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1) if spec.channels_last else x)
