"""nudenet's own NudeDetector with compiled files as its model: does it open them, and are its boxes the source's?"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from packages import unpacked

SAME = 0.5


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
            kept, total = kept + matched(one, other), total + len(one)
        words = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
        ours = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        same = sum(ours.get(key) == value for key, value in words.items())
        yield (
            f"{file.parent.name}/{file.name}: {kept} of {total} boxes found again, {sum(map(len, made)) - kept} new, "
            f"{same} of {len(words)} entries of the metadata as they were"
        )


def found(detector: Any, pictures: Path) -> list[list[dict[str, Any]]]:
    """Its answers, picture by picture."""
    return [detector.detect(str(file)) for file in sorted(pictures.iterdir())]


def matched(wanted: Sequence[dict[str, Any]], made: Sequence[dict[str, Any]]) -> int:
    """How many boxes have one of their class over them, each used once, the surest first."""
    left = list(made)
    for one in sorted(wanted, key=lambda box: -box["score"]):
        best = max(
            (other for other in left if other["class"] == one["class"]),
            key=lambda other: overlap(one["box"], other["box"]),
            default=None,
        )
        if best is not None and overlap(one["box"], best["box"]) >= SAME:
            left.remove(best)
    return len(made) - len(left)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes as left, top, width, height."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    tall = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(tall, 0)
    return both / max(a[2] * a[3] + b[2] * b[3] - both, 1e-9)
