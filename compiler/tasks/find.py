"""Which task a network does: given by the user, told by its metadata, or found from its outputs.

From shapes alone an output is a task where it can be no other: a vector of scores is a classifier, but of heatmaps and of the
logits of a segmentation at a quarter of the size nobody can tell, and then there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.embedding import Embedding
from edgec.compiler.tasks.heads import find_head
from edgec.compiler.tasks.keypoints import Keypoints
from edgec.compiler.tasks.multi_label import MultiLabel
from edgec.compiler.tasks.names import NAMES, Name
from edgec.compiler.tasks.regression import Regression
from edgec.compiler.tasks.restoration import Restoration
from edgec.compiler.tasks.segmentation import Segmentation
from edgec.compiler.tasks.task import Task
from edgec.compiler.tasks.text_recognition import TextRecognition
from edgec.graph.data import InputSpec
from edgec.graph.errors import UsageError
from edgec.graph.parts import positions, sample_shape
from edgec.graph.views import attribute

_MOVES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout")
_WORDS: Mapping[str, Name] = {
    "pose": "keypoints", "keypoint": "keypoints", "multilabel": "multi-label", "multi-label": "multi-label",
    "classif": "classification", "segment": "segmentation", "detect": "detection", "ssd": "detection", "yolo": "detection",
    "depth": "regression", "regress": "regression", "super": "super-resolution", "embed": "embedding", "retrieval": "embedding",
    "reid": "embedding", "recognise": "text-recognition", "ocr": "text-recognition",
}  # fmt: skip
"""What metadata call a task, by a part of the word."""
_DISTRIBUTIONS = ("Softmax", "LogSoftmax")
LONGEST_SCORES = 63
"""Embeddings begin at 64."""


@dataclass(frozen=True)
class _Output:
    """One output of the network: the shape of a sample, the op that computes it, and where its channels are."""

    index: int
    name: str
    shape: tuple[int, ...]
    whole: bool
    """Class ids, not scores."""
    final: ir.Node | None
    axis: int
    """Of the channels, counting the batch, where it is a map."""
    is_spread: bool = False
    """Its values lie at pixels of a convolution, one row for each place, and are no classes."""
    is_read: bool = False
    """Another node reads it, as a classifier reads the vector in front of it."""

    @property
    def op(self) -> str:
        return "" if self.final is None else self.final.op_type

    @property
    def is_vector(self) -> bool:
        return sum(size > 1 for size in self.shape) == 1 and not self.whole and not self.is_spread

    @property
    def is_number(self) -> bool:
        return all(size == 1 for size in self.shape) and not self.whole

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 3 and not self.whole and min(self.pixels) > 1

    @property
    def is_sequence(self) -> bool:
        """Scores at steps along a line, classes last."""
        return len(self.shape) == 2 and min(self.shape) > 1 and not self.whole

    @property
    def size(self) -> int:
        return max(self.shape, default=1)

    @property
    def channels(self) -> int:
        return self.shape[self.axis - 1]

    @property
    def pixels(self) -> tuple[int, int]:
        sizes = [size for axis, size in enumerate(self.shape, 1) if axis != self.axis]
        return sizes[0], sizes[1]


def find_task(model: ir.Model, told: str = "", given: str | None = None) -> Task | None:
    """The task of ``model``: ``given`` by the user, else ``told`` by its metadata where that fits, else as its outputs say.

    None where they do not say. Raises UsageError for a given task that the outputs do not fit.
    """
    outputs = _outputs(model)
    if given is not None:
        found = _as(given, model, outputs)
        if found is None:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in outputs) or "of unknown shape"
            why = f"for each sample they are {shapes}; it takes {_TAKES[given]}"
            raise UsageError(f"--task {given} does not fit the outputs", why=why)
        return found
    word = next((name for part, name in _WORDS.items() if part in told.lower()), None)
    as_told = None if word is None else _as(word, model, outputs)
    return as_told or _guessed(model, outputs)


_TAKES: Mapping[str, str] = {
    "classification": "a vector of scores, or one number",
    "multi-label": "a vector of scores",
    "detection": "the outputs of a head that is known (docs/tasks.md)",
    "segmentation": "a map of scores, or of class ids",
    "keypoints": "a map for each keypoint, of a network that takes one picture",
    "regression": "numbers",
    "super-resolution": "a picture",
    "embedding": "a vector",
    "text-recognition": "scores of characters, step by step: (steps, classes)",
}


def _outputs(model: ir.Model) -> tuple[_Output, ...]:
    found = []
    for index, value in enumerate(model.graph.outputs):
        shape = sample_shape(value)
        if shape is None:
            continue
        final = _final(value)
        whole = value.dtype is not None and not value.dtype.is_floating_point()
        whole = whole or (final is not None and final.op_type == "ArgMax")
        found.append(
            _Output(
                index,
                value.name or "",
                shape,
                whole,
                final,
                _channel_axis(model, value, shape),
                any(shape[axis - 1] > 1 for axis in positions(value) or ()),
                any(True for _ in value.uses()),
            )
        )
    return tuple(found)


def _final(value: ir.Value) -> ir.Node | None:
    """The node that computes a value, not one that only moves it."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _channel_axis(model: ir.Model, value: ir.Value, shape: tuple[int, ...]) -> int:
    if len(shape) != 3:
        return 1
    pixels = positions(value)
    if pixels in (frozenset((2, 3)), frozenset((1, 2))):
        return 1 if 3 in pixels else 3
    return 3 if InputSpec.of(model)[0].channels_last else 1


def _picture(model: ir.Model) -> tuple[int, int, int] | None:
    """Height, width and channels of the picture that the network takes; None where it takes another thing."""
    specs = InputSpec.of(model)
    return specs[0].picture if specs and len(specs[0].shape) == 3 else None


def _as(name: str, model: ir.Model, outputs: tuple[_Output, ...]) -> Task | None:
    """The outputs read as one task; None where they do not fit it."""
    vector = next((one for one in outputs if one.is_vector), None)
    number = next((one for one in outputs if one.is_number), None)
    maps = next((one for one in outputs if one.is_map), None)
    picture = _picture(model)
    makers: dict[str, Callable[[], Task | None]] = {
        "classification": lambda: _classes(vector or number, outputs),
        "multi-label": lambda: None if vector is None else _labels(vector),
        "detection": lambda: None if (head := find_head(model)) is None else Detection(head),
        "segmentation": lambda: _masks(outputs),
        "keypoints": lambda: (
            None if maps is None or picture is None else Keypoints(picture[:2], maps.index, maps.axis == 3)
        ),
        "regression": lambda: next((Regression(one.index) for one in outputs if not one.whole), None),
        "super-resolution": lambda: None if maps is None else Restoration(maps.index),
        "embedding": lambda: None if vector is None else Embedding(vector.index),
        "text-recognition": lambda: next(
            (TextRecognition(one.index) for one in outputs if one.is_sequence), None
        ),
    }
    assert set(makers) == set(NAMES)
    return makers[name]()


def _guessed(model: ir.Model, outputs: tuple[_Output, ...]) -> Task | None:
    """What the outputs can be only. Of several, scores say more than vectors, and vectors more than maps.

    A vector of any numbers beside a single one is taken for numbers: landmarks beside the score that there are any.
    """
    head = find_head(model)
    if head is not None:
        return Detection(head)
    vectors = [one for one in outputs if one.is_vector]
    plain = [one for one in vectors if not _is_normalised(one.final)]
    plain.sort(key=lambda one: one.op not in _DISTRIBUTIONS)
    numbers = [one for one in outputs if one.is_number]
    if plain and numbers and plain[0].op not in (*_DISTRIBUTIONS, "Sigmoid"):
        return Regression(plain[0].index)
    if plain:
        return _labels(plain[0]) if plain[0].op == "Sigmoid" else _classes(plain[0], outputs)
    if vectors:
        return Embedding(vectors[0].index)
    if numbers:
        return _classes(numbers[0], outputs) if numbers[0].op == "Sigmoid" else Regression(numbers[0].index)
    return next((task for one in outputs if (task := _map(one, _picture(model))) is not None), None)


def _map(one: _Output, picture: tuple[int, int, int] | None) -> Task | None:
    if one.whole or (one.is_map and one.op == "Softmax"):
        return _masks((one,))
    if picture is None or not one.is_map:
        return None
    if one.pixels[0] > picture[0] and one.pixels[1] > picture[1]:
        return Restoration(one.index) if one.channels in (1, 3) else None
    if one.channels == 1:
        return _masks((one,)) if one.op == "Sigmoid" else Regression(one.index)
    large = one.pixels[0] * 2 >= picture[0] and one.pixels[1] * 2 >= picture[1]
    return _masks((one,)) if large and one.channels != picture[2] else None


def _classes(one: _Output | None, outputs: tuple[_Output, ...]) -> Task | None:
    if one is None:
        return None
    if not one.is_vector:
        return Classification(one.index, 2, "probability" if one.op == "Sigmoid" else "logit")
    twins = (other.index for other in outputs if other is not one and _is_scores_too(other, one))
    return Classification(one.index, one.size, twins=tuple(twins))


def _is_scores_too(other: _Output, one: _Output) -> bool:
    """Whether an output beside a classifier's is one too: as long as it, or a distribution, or a short vector of the same kind
    that nothing else reads (a long one may be an embedding, and probabilities beside other numbers are boxes or angles).
    """
    if not other.is_vector or other.shape == one.shape:
        return other.is_vector
    if other.op in _DISTRIBUTIONS:
        return True
    alike = one.op not in _DISTRIBUTIONS and not _is_normalised(other.final)
    return alike and other.size <= LONGEST_SCORES and not other.is_read


def _labels(one: _Output) -> Task:
    return MultiLabel(one.index, one.size, 0.5 if one.op == "Sigmoid" else 0.0)


def _masks(outputs: tuple[_Output, ...]) -> Task | None:
    for one in outputs:
        if one.whole and sum(size > 1 for size in one.shape) == 2:
            return Segmentation(one.index, _ids(one.final), axis=None)
        if one.is_map and one.channels == 1:
            return Segmentation(one.index, 2, one.axis, 0.5 if one.op == "Sigmoid" else 0.0)
        if one.is_map:
            return Segmentation(one.index, one.channels, one.axis)
    return None


def _ids(node: ir.Node | None) -> int:
    """Classes of an ArgMax; 256 where that is not known, as many as a mask of bytes has."""
    source = None if node is None or node.op_type != "ArgMax" else node.inputs[0]
    if node is None or source is None or source.shape is None:
        return 256
    size = source.shape[attribute(node, "axis", 0)]
    return size if isinstance(size, int) else 256


def _is_normalised(node: ir.Node | None) -> bool:
    """Whether a vector is divided by its own length."""
    if node is None or node.op_type != "Div":
        return node is not None and node.op_type == "LpNormalization"
    value = node.inputs[1]
    for _ in range(6):
        before = None if value is None else value.producer()
        if before is None:
            return False
        if before.op_type in ("ReduceL2", "Sqrt"):
            return True
        value = before.inputs[0]
    return False
