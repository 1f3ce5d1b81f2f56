"""nudenet's own NudeDetector with compiled files as its model: does it open them, and are its boxes the source's?"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from packages import unpacked

from edgec.compiler.tasks.boxes import Boxes, matched
from edgec.compiler.tasks.detection import SAME


def in_its_loader(cache: Path, pictures: Path) -> Iterator[str]:
    """A line about each file: boxes of the source at the loader's own threshold, those that are found again, the metadata."""
    for package in ("nudenet==3.4.2", "opencv-python-headless==4.10.0.84"):
        sys.path.insert(0, str(unpacked(package, cache)))
    module = importlib.import_module("nudenet")
    source = Path(module.__file__).parent / "320n.onnx"
    files = sorted((cache / "runs" / "nudenet").glob("*/model*.onnx"))
    wanted = found(module.NudeDetector(str(source)), pictures)
    for file in files:
        kept = total = 0
        made = found(module.NudeDetector(str(file)), pictures)
        for one, other in zip(wanted, made, strict=True):
            kept, total = kept + len(matched(one, other, SAME)), total + len(one)
        words = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
        ours = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        same = sum(ours.get(key) == value for key, value in words.items())
        yield (
            f"{file.parent.name}/{file.name}: {kept} of {total} boxes found again, {sum(map(len, made)) - kept} new, "
            f"{same} of {len(words)} entries of the metadata as they were"
        )


def found(detector: Any, pictures: Path) -> list[Boxes]:
    """Its answers, picture by picture."""
    return [boxes_of(detector.detect(str(file))) for file in sorted(pictures.iterdir())]


def boxes_of(answers: Sequence[Mapping[str, Any]]) -> Boxes:
    """The loader's boxes are left, top, width, height; its classes are names."""
    rectangles = np.array([one["box"] for one in answers], np.float64).reshape(-1, 4)
    return Boxes(
        np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1),
        np.array([one["score"] for one in answers], np.float64),
        np.array([one["class"] for one in answers], np.str_),
    )
