"""Reports with inputs to look at: one of each kind of answer, on pictures that are made here."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from edgec.runtime.report.schema import (
    Answered,
    Classes,
    ClassRow,
    Confused,
    ModelInput,
    Quality,
    Report,
    Strip,
)

SIDE = 96
ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classification": ({"class": 3, "score": 0.93}, {"class": 1, "score": 0.51}),
    "multi-label": ({"labels": [1, 3], "scores": [0.9, 0.6]}, {"labels": [1], "scores": [0.8]}),
    "detection": (
        {"boxes": [[8, 10, 40, 60], [50, 4, 90, 30]], "scores": [0.9, 0.4], "classes": [0, 2]},
        {"boxes": [[8, 11, 41, 60]], "scores": [0.88], "classes": [0]},
    ),
    "segmentation": (
        {"mask": {"size": [4, 4], "runs": [[0, 5], [1, 6], [2, 5]]}},
        {"mask": {"size": [4, 4], "runs": [[0, 7], [1, 4], [2, 5]]}},
    ),
    "keypoints": ({"keypoints": [[10, 12, 0.9], [40, 60, 0.8]]}, {"keypoints": [[12, 12, 0.9], [40, 61, 0.7]]}),
    "regression": ({"numbers": [1.25, 7.0]}, {"numbers": [1.3, 6.9]}),
    "text-recognition": ({"text": [0, 2, 4]}, {"text": []}),
    "unknown": ({}, {}),
}  # fmt: skip


def picture(seed: int) -> str:
    """A JPEG in base64."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    saved = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(saved, "JPEG")
    return base64.b64encode(saved.getvalue()).decode()


def with_strip(report: Report, kind: str, names: tuple[str, ...] = ("cat", "dog", "horse", "cow")) -> Report:
    """``report`` with twenty-four inputs, and for a classifier the table of classes."""
    before, after = ANSWERS[kind]
    inputs = tuple(
        Answered(
            name=f"picture_{index:04d}.jpg",
            why=why,
            error=0.08 / (1 + index),
            changed=why == "changed",
            right="cat",
            picture=picture(index),
            before=before,
            after=after if why == "changed" else before,
        )
        for index, why in enumerate(["typical"] * 8 + ["changed"] * 8 + ["largest"] * 8)
    )
    path = report.artifacts[0].path
    strip = Strip(artifact=path, samples=500, changed=8, error="probability that moved", inputs=inputs)
    rows = tuple(
        ClassRow(label=i, name=f"class no. {i}", count=50, before=45 - i, after=45 - 2 * i) for i in range(22)
    )
    classes = Classes(
        artifact=path, samples=1100, rows=rows, confused=(Confused(label=3, answer=1, count=4, before=2),)
    )
    model = report.model.model_copy(
        update={"labels": names, "inputs": (ModelInput(name="x", shape=(3, SIDE, SIDE), dtype="float32"),)}
    )
    passes = tuple(
        run.model_copy(
            update={"quality": Quality(images=64, sqnr_db=40.0 - index, agreement=1 - 0.01 * index)}
        )
        for index, run in enumerate(report.passes)
    )
    update = {"strip": strip, "model": model, "passes": passes}
    return report.model_copy(update={**update, "classes": classes if kind == "classification" else None})
