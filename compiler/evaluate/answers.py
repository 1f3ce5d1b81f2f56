"""What both networks answered to a few of the samples: typical ones, some whose answer changed, and those furthest apart.

They are chosen from the errors that judging found, and run again: the source, and the headline's file in its own engine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgec.compiler.emit.artifacts import Emission, Emitted
from edgec.compiler.evaluate.evaluate import Evaluation
from edgec.compiler.face.artifact import LoadedArtifact
from edgec.compiler.plan.plan import Plan
from edgec.compiler.tasks.detection import Detection
from edgec.graph.data import Dataset, InputSpec
from edgec.graph.errors import EdgecError
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.graph.sources import ArraySource, NpyFolderSource, PictureSource
from edgec.graph.text import visible

Array = np.ndarray[Any, np.dtype[Any]]

EACH = 8
"""Samples of every sort."""
SIDE = 192
"""Pixels of the longer side of a picture in the report."""


def answers_of(
    plan: Plan, emission: Emission, evaluation: Evaluation, file: str | None
) -> dict[str, Any] | None:
    """The object of report.json for the headline's ``file``; None where the task is not known, or the file does not run here."""
    one = next((one for one in emission.files if one.name == file), None)
    data = plan.judging_data()
    tally = None if one is None else evaluation.answers.get(evaluation.key_of(one))
    if one is None or data is None or tally is None or plan.task is None or not tally.errors:
        return None
    chosen = choose(tally.errors, tally.changed)
    try:
        before, after = _run(plan, emission, one, data, list(chosen))
    except EdgecError:
        return None  # judged elsewhere: here is no engine for it
    rows = [
        {
            "index": index,
            "name": _name(data, index),
            "why": why,
            "error": tally.errors[index],
            "changed": tally.changed[index],
            "before": old,
            "after": new,
            "picture": picture,
        }
        for (index, why), old, new, picture in zip(
            chosen.items(), before, after, _pictures(plan, data, list(chosen)), strict=True
        )
    ]
    spec = InputSpec.of(plan.model)[0]
    size = spec.picture[:2] if len(spec.shape) == 3 else None
    return {"task": plan.task.name, "file": one.name, "size": size, "samples": rows}


def choose(errors: Sequence[float], changed: Sequence[bool]) -> dict[int, str]:
    """``{sample: 'worst' | 'changed' | 'typical'}``: the largest errors, other changed answers, and those nearest the median."""
    order = np.argsort(-np.asarray(errors), kind="stable")
    found = {int(at): "worst" for at in order[:EACH] if errors[at] > 0}
    others = [at for at in np.flatnonzero(changed) if int(at) not in found]
    found |= {
        int(others[int(at)]): "changed" for at in np.linspace(0, len(others) - 1, min(EACH, len(others)))
    }
    middle = np.argsort(np.abs(np.asarray(errors) - np.median(errors)), kind="stable")
    found |= {
        int(at): "typical" for at in [at for at in middle if int(at) not in found and not changed[at]][:EACH]
    }
    return found


def _run(
    plan: Plan, emission: Emission, one: Emitted, data: Dataset, indices: list[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    some = replace(data, indices=tuple(data.indices[index] for index in indices))
    model, task = emission.models["fp32"], plan.task
    assert task is not None  # the caller looked
    source, file = Executor(plan.model, threads=plan.recipe.threads), LoadedArtifact(one.path)
    theirs = task
    if isinstance(task, Detection) and InputSpec.of(model) != InputSpec.of(plan.model):
        theirs = replace(task, head=replace(task.head, size=InputSpec.of(model)[0].picture[:2]))
    before: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    for feeds, others in zip(some.batches(1), some.at(model).batches(1), strict=True):
        before += task.answers(list(source.run(feeds).values()))
        after += theirs.answers(list(file.run(others).values()))
    return before, after


def _name(data: Dataset, index: int) -> str:
    """The file of a sample; empty for those that lie in one array."""
    source = data.source
    if isinstance(source, (PictureSource, NpyFolderSource)):
        return visible(source.paths[data.indices[index]].name)
    return ""


def _pictures(plan: Plan, data: Dataset, indices: list[int]) -> list[str]:
    """Each sample's first input as a small JPEG in a ``data:`` address, as it lies before the network; empty for no picture."""
    spec = InputSpec.of(plan.model)[0]
    if len(spec.shape) != 3 or spec.picture[2] not in (1, 3):
        return [""] * len(indices)
    some = replace(data, indices=tuple(data.indices[index] for index in indices))
    preprocess = plan.recipe.preprocess.build()
    return [_address(_pixels(feeds, spec, preprocess, some)) for feeds in some.batches(1)]


def _pixels(feeds: Mapping[str, Array], spec: InputSpec, preprocess: Preprocess, data: Dataset) -> Array:
    """uint8 (height, width, 1 or 3), RGB: the preparation undone where it was done here, else stretched to what can be seen."""
    x = np.asarray(feeds[spec.name][0], np.float64)
    x = x if spec.channels_last else np.moveaxis(x, 0, -1)
    source = data.source
    prepared = isinstance(source, PictureSource) or (
        isinstance(source, ArraySource) and source.arrays[spec.name].dtype.kind in "iu"
    )
    if prepared:
        x = (x * np.asarray(preprocess.std) + np.asarray(preprocess.mean)) / preprocess.scale
        x = x[..., ::-1] if preprocess.channels == "bgr" else x
    else:
        low, high = float(x.min()), float(x.max())
        x = (x - low) * (255 / (high - low) if high > low else 0.0)
    return np.asarray(np.clip(np.round(x), 0, 255)).astype(np.uint8)


def _address(pixels: Array) -> str:
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
