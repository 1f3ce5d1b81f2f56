"""What is right for each sample of the evaluation data, in the task's own form, checked against the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.tasks.average_precision import evaluator
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.embedding import Embedding
from edgec.compiler.tasks.keypoints import Keypoints
from edgec.compiler.tasks.multi_label import MultiLabel
from edgec.compiler.tasks.restoration import Restoration
from edgec.compiler.tasks.segmentation import Segmentation
from edgec.compiler.tasks.task import Task, Truth
from edgec.compiler.tasks.text_recognition import TextRecognition
from edgec.graph.annotations.boxes import TrueBoxes
from edgec.graph.annotations.pairs import Pair
from edgec.graph.data import Dataset
from edgec.graph.errors import DataError
from edgec.graph.parts import sample_shape

Array = np.ndarray[Any, np.dtype[Any]]

_OFFSET = "Shift them with --label-offset if the model counts differently."
_OTHERS = "They are of other classes. A folder of pictures is taken without labels where no CSV lies in it or beside it."


def truth_of(task: Task | None, model: ir.Model, data: Dataset, offset: int) -> Truth | None:
    """Labels by sample, as the task's tally takes them; None where there are none.

    Raises DataError, with what the task takes, where they are of another form.
    """
    found = data.labels if data.labels is not None else data.truth
    if found is None:
        return None
    if task is None:
        why = f"the outputs are {', '.join(str(sample_shape(one)) for one in model.graph.outputs)}"
        hint = "Say what they are with --task, or compare with a function of yours: --metric file.py:func."
        raise DataError("labels, and a network whose task is not known", where=data.name, why=why, hint=hint)
    if isinstance(task, Detection):
        return _boxes(task, data, found)
    if (
        isinstance(found, list)
        and isinstance(found[0], Pair)
        and isinstance(task, (Segmentation, Restoration))
    ):
        return _Files(found, Pair.mask if isinstance(task, Segmentation) else Pair.picture)
    if isinstance(task, TextRecognition):
        hint = "Compare with a function of yours: --metric file.py:func."
        raise DataError(
            "labels, and a network that reads text",
            where=data.name,
            why="lines are compared with the original's alone",
            hint=hint,
        )
    array = _array(task, data, found)
    if isinstance(task, Classification):
        return _classes(task, data, array, offset)
    if isinstance(task, Embedding):
        return _fits(task, data, array, array.ndim == 1 and array.dtype.kind in "iu", "one whole number each")
    if isinstance(task, MultiLabel):
        binary = array.shape == (len(data), task.classes) and bool(np.isin(array, (0, 1)).all())
        return _fits(task, data, array, binary, f"{task.classes} zeros and ones each")
    if isinstance(task, Segmentation):
        whole = array.ndim == 3 and array.dtype.kind in "iub"
        return _fits(task, data, array, whole, "a mask of class numbers each")
    if isinstance(task, Keypoints):
        shape = sample_shape(model.graph.outputs[task.output]) or ()
        count = shape[-1 if task.channels_last else 0] if shape else 0
        good = array.ndim == 3 and array.shape[1] == count and array.shape[2] in (2, 3)
        return _fits(
            task,
            data,
            array,
            good,
            f"{count} rows of x, y (and whether it is seen) each, in pixels of the input",
        )
    shape = sample_shape(model.graph.outputs[task.output]) or ()  # type: ignore[attr-defined]
    size = int(np.prod(shape))
    return _fits(task, data, array, array[0].size == size, f"{size} numbers each, as the output is {shape}")


def _array(task: Task, data: Dataset, found: Any) -> Array:
    if isinstance(found, np.ndarray):
        return found
    raise DataError(
        f"the labels are not those of {task.name}", where=data.name, why=f"they are {type(found[0]).__name__}"
    )


def _classes(task: Classification, data: Dataset, array: Array, offset: int) -> Array:
    """Class numbers, also where they came as one-hot rows or as real numbers."""
    if (
        array.shape == (len(data), task.classes)
        and np.isin(array, (0, 1)).all()
        and (array.sum(axis=1) == 1).all()
    ):
        array = array.argmax(axis=1)
    flat = array.reshape(len(data), -1)
    whole = flat.shape[1] == 1 and np.array_equal(flat, np.round(flat))
    labels = _fits(task, data, flat[:, 0] if whole else flat, whole, "one class number each")
    labels = labels.astype(np.int64) + offset
    lowest, highest = int(np.min(labels)), int(np.max(labels))
    if lowest < 0 or highest >= task.classes:
        why = f"labels run from {lowest} to {highest}, the model has {task.classes} classes"
        hint = _OFFSET if highest - lowest < task.classes else _OTHERS
        raise DataError("the labels do not fit the model", where=data.name, why=why, hint=hint)
    return labels


def _boxes(task: Detection, data: Dataset, found: Any) -> Sequence[Any]:
    if not isinstance(found, list) or not isinstance(found[0], TrueBoxes):
        hint = "Give a COCO json or a YOLO data.yaml as --eval, or compare with a function of yours: --metric file.py:func."
        raise DataError(
            f"the labels are not those of {task.name}", where=data.name, why="they are no boxes", hint=hint
        )
    evaluator()
    classes = task.head.classes
    largest = max((int(one.classes.max()) for one in found if len(one)), default=0)
    if classes is not None and largest >= classes:
        why = f"class {largest} is in them, the model has {classes} classes"
        raise DataError("the labels do not fit the model", where=data.name, why=why)
    return found


def _fits(task: Task, data: Dataset, array: Array, good: bool, takes: str) -> Array:
    if good:
        return array
    why = f"they are {array.dtype} of shape {array.shape} for {len(data)} samples; it takes {takes}"
    raise DataError(f"the labels are not those of {task.name}", where=data.name, why=why)


class _Files(Sequence[Any]):
    """Masks or pictures from files, read when they are needed."""

    def __init__(self, pairs: Sequence[Pair], read: Callable[[Pair], Array]) -> None:
        self._pairs, self._read = pairs, read

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, at: Any) -> Any:
        chosen = self._pairs[at]
        return self._read(chosen) if isinstance(chosen, Pair) else [self._read(one) for one in chosen]
