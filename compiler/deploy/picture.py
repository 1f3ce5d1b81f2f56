"""A picture for the self-test: prepared here and on the device from the same PNG, it must give the same input."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.graph.data import Dataset, open_data
from edgec.graph.depth import is_deep
from edgec.graph.disk import write_whole
from edgec.graph.errors import DataError, UsageError
from edgec.graph.inputs import InputSpec
from edgec.graph.preprocess import Preprocess
from edgec.graph.scratch import scratch_folder, write_scratch

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

PICTURE = "selftest.png"
LARGEST = 1024
"""Pixels of its longer side: a larger one is made smaller before it is saved."""


def save_picture(
    save: Path,
    specs: tuple[InputSpec, ...],
    source: tuple[InputSpec, ...],
    preprocess: Preprocess,
    data: Dataset | None,
) -> dict[str, Array]:
    """Save one picture as ``save``; by input (one at most), (1, ...), what it becomes here for artifacts that take ``specs``.

    One of ``data`` where that holds pictures, else seeded noise. Nothing, and no file, where the network takes no single picture,
    or its preparation does not suit one. ``source``: what the source model takes.
    """
    if len(source) != 1 or len(source[0].shape) != 3 or source[0].picture[2] not in (1, 3, 4):
        return {}
    saved = io.BytesIO()
    (_taken(data, preprocess) or _noise(source[0], preprocess)).save(saved, "PNG")
    with scratch_folder() as folder:
        write_scratch(folder / PICTURE, saved.getvalue())
        try:
            made = next(open_data(folder, source, preprocess).at(specs).batches(1))
        except (DataError, UsageError):
            return {}
    write_whole(save, saved.getvalue())
    return made


def _taken(data: Dataset | None, preprocess: Preprocess) -> Image.Image | None:
    """The first picture of the data: of a folder, or of an array of bytes."""
    from PIL import Image, ImageOps

    if data is None or not len(data):
        return None
    first = data.indices[0]
    paths, arrays = getattr(data.source, "paths", None), getattr(data.source, "arrays", None)
    if paths is not None and paths[first].suffix != ".npy":
        with paths[first].open("rb") as stream, Image.open(stream) as image:
            if is_deep(image):
                return (
                    None if image.mode == "F" else ImageOps.exif_transpose(image)
                )  # PNG holds no real numbers
            mode = "RGBA" if preprocess.channels == "rgba" else "RGB"
            return _smaller(ImageOps.exif_transpose(image).convert(mode), preprocess)
    raw = None if arrays is None else np.asarray(next(iter(arrays.values()))[first])
    if raw is None or raw.dtype != np.uint8 or raw.ndim != 3:
        return None
    counts = (1, 3, 4) if preprocess.channels == "rgba" else (1, 3)
    last = raw if raw.shape[-1] in counts else np.moveaxis(raw, 0, -1)
    if last.shape[-1] not in counts:
        return None
    return Image.fromarray(np.ascontiguousarray(last[..., 0] if last.shape[-1] == 1 else last))


def _smaller(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The picture with sides that a report may be sent with, where the preparation resizes anyway."""
    if preprocess.resize is not None and max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    return image


def _noise(spec: InputSpec, preprocess: Preprocess) -> Image.Image:
    from PIL import Image

    height, width, channels = spec.picture
    if preprocess.resize is not None or preprocess.crop is not None:
        height, width = math.ceil(height * 1.5), math.ceil(width * 1.4)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
