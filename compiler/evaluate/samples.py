"""Inputs to look at: those that are typical, whose answer changed, and that are furthest off, as both networks answer them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.keypoints import Keypoints
from edgec.compiler.tasks.task import Task, TaskTally
from edgec.graph.compare import by_sample
from edgec.graph.data import Dataset, InputSpec
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.graph.resolution.resize import size_of

Array = np.ndarray[Any, np.dtype[Any]]
Why = Literal["typical", "changed", "largest"]

EACH = 8
"""Inputs of each kind."""
SIDE = 160
"""Pixels of a picture's longer side in the report."""
MOST_BOXES = 60
"""Of one picture, the best, in the report."""
MOST_CONFUSED = 10


@dataclass(frozen=True)
class Samples:
    """Objects of report.json about the network of one stage, but for the name of its artifact; None where there is nothing."""

    stage: str
    strip: dict[str, Any] | None
    classes: dict[str, Any] | None


@dataclass
class Watched:
    """What the report keeps of every sample of one network, while it is judged (`quality.judge`)."""

    stage: str
    task: Task | None
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    """Classes, where the network names one of several."""
    after: list[int] = field(default_factory=list)

    @staticmethod
    def of(task: Task | None, models: Mapping[str, ir.Model]) -> Watched:
        """The last of ``models`` by stage: the precision that the headline speaks of."""
        return Watched(list(models)[-1], task)

    def __call__(self, name: str, source: Sequence[Array], made: Sequence[Array]) -> None:
        if name != self.stage:
            return
        if isinstance(self.task, Classification):
            self.before += self.task.scores(source).argmax(axis=1).tolist()
            self.after += self.task.scores(made).argmax(axis=1).tolist()
        elif self.task is None and _by_sample(source, made):
            self.errors += _relative(source, made)

    def with_errors(self, answers: TaskTally | None) -> Watched:
        """With the errors that the task's own comparison found, sample by sample."""
        if answers is not None:
            self.errors, self.changed = list(answers.errors), list(answers.changed)
        self.changed = self.changed or [False] * len(self.errors)
        return self

    @property
    def error(self) -> str:
        """What the errors are, in words."""
        return _ERRORS.get("" if self.task is None else self.task.name, _OTHERWISE)


_ERRORS: Mapping[str, str] = {
    "": "error of the outputs, relative",
    "classification": "probability that moved to other classes",
    "detection": "share of the boxes that only one of the two finds; those of both count by how far their score moved",
    "segmentation": "share of the picture that is painted otherwise",
    "text-recognition": "characters to be changed, as a share of the original's line",
}
_OTHERWISE = "distance to the original's answer, in the task's terms"


def _by_sample(source: Sequence[Array], made: Sequence[Array]) -> bool:
    """Whether every output has the samples on its first axis, and both networks' are alike."""
    alike = all(one.ndim and one.shape == two.shape for one, two in zip(source, made, strict=True))
    return alike and len({len(one) for one in source}) == 1


def _relative(source: Sequence[Array], made: Sequence[Array]) -> list[float]:
    """By sample: the error of the worst output over its size."""
    worst = np.zeros(len(source[0]))
    for one, other in zip(source, made, strict=True):
        a, b = by_sample(np.asarray(one, np.float64)), by_sample(np.asarray(other, np.float64))
        energy, apart = (a * a).sum(axis=1), ((a - b) ** 2).sum(axis=1)
        share = np.divide(apart, energy, out=np.asarray(apart > 0, float), where=energy > 0)
        worst = np.maximum(worst, np.sqrt(share))
    return [float(one) for one in worst]


def strip(
    watched: Watched,
    source: ir.Model,
    made: ir.Model,
    data: Dataset,
    settings: Preprocess,
    names: Sequence[str],
    right: Any,
) -> dict[str, Any] | None:
    """The strip of report.json but for its artifact; None where samples were not judged one by one.

    ``settings``: how pictures were prepared; ``names``: of the classes; ``right``: the right class of each sample, or None.
    """
    if len(watched.errors) != len(data) or not watched.errors:
        return None
    left, right_hand, theirs = Executor(source), Executor(made), data.at(made)
    task, other = watched.task, _at_size(watched.task, made)
    shown = []
    for index, why in choose(watched.errors, watched.changed):
        feeds, others = _sample(data, index), _sample(theirs, index)
        shown.append({
            "name": _name(data, index),
            "why": why,
            "error": watched.errors[index],
            "changed": watched.changed[index],
            "right": "" if right is None else class_name(int(right[index]), names),
            "picture": picture_of(feeds, InputSpec.of(source), settings),
            "before": _bounded({} if task is None else task.answers(list(left.run(feeds).values()))[0]),
            "after": _bounded({} if other is None else other.answers(list(right_hand.run(others).values()))[0]),
        })  # fmt: skip
    counts = {"samples": len(watched.errors), "changed": sum(watched.changed)}
    return {**counts, "error": watched.error, "shares": watched.error != _OTHERWISE, "inputs": shown}


def _at_size(task: Task | None, made: ir.Model) -> Task | None:
    """The task of what was made of the source, whose picture may have another size."""
    if isinstance(task, Keypoints):
        return replace(task, size=InputSpec.of(made)[0].picture[:2])
    if isinstance(task, Detection):
        return replace(task, head=replace(task.head, size=size_of(made)))
    return task


def _sample(data: Dataset, index: int) -> dict[str, Array]:
    return next(replace(data, indices=(data.indices[index],)).batches(1))


def _name(data: Dataset, index: int) -> str:
    """The file, or the number in the array."""
    place = data.indices[index]
    paths = getattr(data.source, "paths", None)
    return f"no. {place}" if paths is None else str(paths[place].name)


def choose(errors: Sequence[float], changed: Sequence[bool]) -> list[tuple[int, Why]]:
    """Up to eight of each kind, none twice: changed answers, those furthest off; then the largest errors; then the middle."""
    ranked = sorted(range(len(errors)), key=lambda index: (-errors[index], index))
    other = [index for index in ranked if changed[index]][:EACH]
    largest = [index for index in ranked if index not in other and errors[index] > 0][:EACH]
    rest = [index for index in ranked if index not in {*other, *largest} and not changed[index]]
    middle = float(np.median(errors))
    typical = sorted(rest, key=lambda index: (abs(errors[index] - middle), index))[:EACH]
    groups: tuple[tuple[list[int], Why], ...] = (
        (sorted(typical), "typical"),
        (other, "changed"),
        (largest, "largest"),
    )
    return [(index, why) for group, why in groups for index in group]


def classes(watched: Watched, labels: Any, names: Sequence[str]) -> dict[str, Any] | None:
    """The table of classes of report.json but for its artifact; None without labels, or where the network names no classes."""
    if labels is None or len(labels) != len(watched.after):
        return None
    right, before, after = np.asarray(labels), np.asarray(watched.before), np.asarray(watched.after)
    rows = [
        {
            "label": int(label),
            "name": class_name(int(label), names) if names else "",
            "count": int((right == label).sum()),
            "before": int(((right == label) & (before == right)).sum()),
            "after": int(((right == label) & (after == right)).sum()),
        }
        for label in np.unique(right)
    ]
    wrong = [(int(a), int(b)) for a, b in zip(right, after, strict=True) if a != b]
    pairs = sorted(set(wrong), key=lambda pair: (-wrong.count(pair), pair))[:MOST_CONFUSED]
    confused = [
        {
            "label": label,
            "answer": answer,
            "count": wrong.count((label, answer)),
            "before": int(((right == label) & (before == answer)).sum()),
        }
        for label, answer in pairs
    ]
    return {"samples": len(right), "rows": rows, "confused": confused}


def class_name(label: int, names: Sequence[str]) -> str:
    """A class in words where the model has them, else its number."""
    return names[label] if 0 <= label < len(names) and names[label] else str(label)


def _bounded(answer: dict[str, Any]) -> dict[str, Any]:
    if "boxes" not in answer:
        return answer
    best = np.argsort(-np.asarray(answer["scores"]), kind="stable")[:MOST_BOXES]
    return {key: [values[index] for index in best] for key, values in answer.items()}


def picture_of(feeds: Mapping[str, Array], specs: Sequence[InputSpec], settings: Preprocess) -> str:
    """What the network sees, as a JPEG in base64; empty where the input is no picture.

    The preparation is undone. Where that gives no pixels, as with arrays that were prepared otherwise, values are stretched.
    """
    spec = next((one for one in specs if len(one.shape) == 3 and one.picture[2] in (1, 3, 4)), None)
    if spec is None or min(spec.picture[:2]) < 2:
        return ""
    from PIL import Image

    values = np.asarray(feeds[spec.name][0], np.float64)
    seen = values if spec.channels_last else np.moveaxis(values, 0, -1)
    pixels = (seen * np.asarray(settings.std) + np.asarray(settings.mean)) / settings.scale
    low, high = float(pixels.min()), float(pixels.max())
    if low < -1 or high > 256 or high - low <= 2:
        pixels = (pixels - low) * (255 / (high - low) if high > low else 0)
    grey = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    if settings.channels == "bgr":
        grey = grey[..., ::-1]
    image = Image.fromarray(grey[..., 0] if grey.shape[-1] == 1 else np.ascontiguousarray(grey[..., :3]))
    image.thumbnail((SIDE, SIDE))
    saved = io.BytesIO()
    image.save(saved, "JPEG", quality=80)
    return base64.b64encode(saved.getvalue()).decode("ascii")
