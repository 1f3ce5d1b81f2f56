"""Heads of detectors: from a network's outputs to boxes, as the exporters' own examples do it.

==========  ===================================================================================================================
yolov8      (N, 4 + classes, rows): centre, size in pixels, scores of classes. Ultralytics v8, v9, v11, v12
yolov5      (N, rows, 5 + classes): centre, size in pixels, objectness, scores of classes. v5, v7; YOLOX decoded inside
yolox       (N, rows, 5 + classes) raw: offsets in cells and logarithms of sizes, on grids of strides 8, 16, 32
ssd         two outputs, (N, rows, 4) and (N, rows, classes), decoded with their priors inside
nms         what a NonMaxSuppression of the file itself reads: (N, rows, 4) and (N, classes, rows) (`selected`)
mediapipe   two outputs, (N, rows, 4 + 2 keypoints) and (N, rows, 1) raw: pixels from a cell's middle, logits (`fixed_anchors`);
            or two for each level
==========  ===================================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgec.compiler.tasks.boxes import Boxes, corners_of
from edgec.compiler.tasks.fixed_anchors import layout_of
from edgec.graph.inputs import InputSpec
from edgec.graph.parts import parts_of, sample_shape

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["yolov8", "yolov5", "yolox", "ssd", "nms", "mediapipe"]
Corners = Literal["xy", "yx", "centre"]
"""Two opposite corners, x or y first; or centre and size, x first."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64))
ANCHORS = 3
"""Per cell, of YOLOv5 and v7."""
MOST_SHARE = 4.0
"""Corners in shares of the picture's sides stay below it, wherever they lie; corners in pixels do not."""
LOW = 0.01
"""Rows below this score are dropped before anything else."""
LARGEST_LOGIT = 100.0
"""MediaPipe clips logits there."""


@dataclass(frozen=True)
class Head:
    """What one network's outputs mean. ``size`` is its input's (height, width)."""

    kind: Kind
    size: tuple[int, int]
    strides: tuple[int, ...] = ()
    outputs: tuple[int, int] = (0, 0)
    """Positions of the boxes and of the scores, where they are two outputs."""
    background: bool = False
    """The first class is no object (SSD with Softmax)."""
    classes: int | None = None
    """Kinds of objects, where the shapes say it."""
    corners: Corners = "xy"
    """How two outputs give their boxes."""
    least: float = 0.0
    """The score below which the file's own suppression lets no box out."""
    further: tuple[tuple[int, int], ...] = ()
    """Where every level has outputs of its own: those of the levels behind the first, as ``outputs``."""

    @property
    def read(self) -> tuple[int, ...]:
        """Positions of all outputs that boxes are read from."""
        return (*self.outputs, *(one for level in self.further for one in level))

    @property
    def threshold(self) -> float:
        """The working threshold: a box counts from this score on (Ultralytics' default; MediaPipe's own)."""
        return max(self.least, 0.5 if self.kind == "mediapipe" else 0.25)

    def decode(self, outputs: Sequence[Array], least: float = LOW) -> list[Boxes]:
        """The boxes of each sample from score ``least`` on, in pixels of the input, one for the best class of each row.

        Nothing is suppressed yet.
        """
        return [_kept(*sample, least) for sample in zip(*self.rows(outputs), strict=True)]

    def rows(self, outputs: Sequence[Array]) -> tuple[Array, Array]:
        """All rows as the network gives them: corners (N, rows, 4) in pixels of the input, scores (N, rows, classes)."""
        levels = zip(self.outputs, *self.further, strict=True)
        boxes, scores = (
            np.concatenate([np.asarray(outputs[i], np.float64) for i in one], 1) for one in levels
        )
        if self.kind == "mediapipe":
            return self._fixed(boxes, scores)
        if self.kind in ("ssd", "nms"):
            boxes = self._as_corners(boxes)
            scores = scores.transpose(0, 2, 1) if self.kind == "nms" else scores
            shares = bool(len(boxes)) and float(np.abs(boxes).max()) < MOST_SHARE
            unit = np.array(self.size[::-1] * 2, np.float64) if shares else 1.0
            return boxes * unit, scores[..., 1:] if self.background else scores
        return self._yolo(boxes.transpose(0, 2, 1) if self.kind == "yolov8" else boxes)

    def _as_corners(self, boxes: Array) -> Array:
        """(N, rows, 4) as x1, y1, x2, y2, the smaller ones first where any two opposite corners may be given."""
        if self.corners == "centre":
            half = boxes[..., 2:] / 2
            return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=2)
        if self.kind != "nms":
            return boxes
        pairs = boxes.reshape(*boxes.shape[:2], 2, 2)
        low, high = pairs.min(axis=2), pairs.max(axis=2)
        if self.corners == "yx":
            low, high = low[..., ::-1], high[..., ::-1]
        return np.concatenate([low, high], axis=2)

    def to_pixels_of(self, source: Head) -> Array:
        """What corners (x1, y1, x2, y2) are multiplied by, to be where those of ``source`` are."""
        tall, wide = source.size[0] / self.size[0], source.size[1] / self.size[1]
        return np.array([wide, tall, wide, tall])

    def _yolo(self, rows: Array) -> tuple[Array, Array]:
        centres, sizes, scores = rows[..., :2], rows[..., 2:4], rows[..., 4:]
        if self.kind != "yolov8":
            scores = scores[..., :1] * (scores[..., 1:] if scores.shape[-1] > 1 else 1.0)
        if self.kind == "yolox":
            cells, strides = _grid(self.size, self.strides)
            centres, sizes = (centres + cells) * strides, np.exp(np.minimum(sizes, 20.0)) * strides
        return corners_of(centres, sizes), scores

    def _fixed(self, rows: Array, logits: Array) -> tuple[Array, Array]:
        layout = layout_of(rows.shape[1], self.size)
        assert layout is not None, "the head was found by it"
        scores = 1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)))
        return corners_of(rows[..., :2] + layout.middles(self.size), rows[..., 2:4]), scores


def _kept(corners: Array, scores: Array, least: float) -> Boxes:
    classes, best = scores.argmax(axis=1), scores.max(axis=1)
    kept = np.flatnonzero(best >= least)
    return Boxes(corners[kept], best[kept], classes[kept])


def find_head(model: ir.Model) -> Head | None:
    """The head of ``model``, from the shapes of its outputs and what computes them; None where it is no known detector."""
    specs = InputSpec.of(model)
    shapes = [sample_shape(value) for value in model.graph.outputs]
    if not specs or len(specs[0].shape) != 3 or any(one is None for one in shapes):
        return None
    size = specs[0].picture[:2]
    known = [one for one in shapes if one is not None]
    if len(known) == 1 and len(known[0]) == 2:
        return _one_output(model, known[0], size)
    if len(known) == 2 and all(len(one) == 2 for one in known) and known[0][0] == known[1][0]:
        return _two_outputs(model, known, size)
    return _by_level(known, size)


def _one_output(model: ir.Model, shape: tuple[int, ...], size: tuple[int, int]) -> Head | None:
    if _is_one_distribution(model):
        return None
    for strides in STRIDES:
        rows = sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)
        if shape[1] == rows and shape[0] >= 5:
            return Head("yolov8", size, strides, classes=shape[0] - 4)
        if shape[1] < 5:
            continue
        if shape[0] == ANCHORS * rows:
            return Head("yolov5", size, strides, classes=max(shape[1] - 5, 1))
        if shape[0] == rows:
            kind: Kind = "yolox" if _is_raw(model) else "yolov5"
            return Head(kind, size, strides, classes=max(shape[1] - 5, 1))
    return None


def _is_one_distribution(model: ir.Model) -> bool:
    """Whether one Softmax gives all of the output: the letters at each place of a line, and no boxes beside scores."""
    parts = parts_of(model)
    ops = {node.name: node.op_type for node in model.graph}
    return len(parts) == 1 and ops.get(parts[0].source) in ("Softmax", "LogSoftmax")


def _is_raw(model: ir.Model) -> bool:
    """Whether a convolution itself gives the boxes, so that grid and stride are added outside."""
    source = parts_of(model)[0].source
    return any(node.name == source and node.op_type == "Conv" for node in model.graph)


def _two_outputs(model: ir.Model, shapes: Sequence[tuple[int, ...]], size: tuple[int, int]) -> Head | None:
    """Boxes beside scores: decoded, or raw on anchors that are known. Other raw rows lack priors, which no file holds."""
    fixed = _mediapipe(shapes, size)
    if fixed is not None:
        return fixed
    boxes = [index for index, shape in enumerate(shapes) if shape[1] == 4]
    if not boxes or shapes[0][0] < 16:
        return None
    at = boxes[0] if len(boxes) == 1 else 1
    sources = {part.output: part.source for part in reversed(parts_of(model))}
    ops = {node.name: node.op_type for node in model.graph}
    if ops.get(sources[at]) not in ("Add", "Sub", "Mul", "Div", "Clip"):
        return None
    background = ops.get(sources[1 - at]) == "Softmax"
    if background and shapes[1 - at][1] < 2:
        return None
    classes = shapes[1 - at][1] - background
    return Head("ssd", size, outputs=(at, 1 - at), background=background, classes=classes)


def _mediapipe(shapes: Sequence[tuple[int, ...]], size: tuple[int, int]) -> Head | None:
    """Rows of a box with keypoints beside one logit each, as many as MediaPipe's anchors are."""
    columns = [shape[1] for shape in shapes]
    if 1 not in columns or max(columns) < 6 or max(columns) % 2 or layout_of(shapes[0][0], size) is None:
        return None
    at = columns.index(max(columns))
    return Head("mediapipe", size, outputs=(at, 1 - at), classes=1)


def _by_level(shapes: Sequence[tuple[int, ...]], size: tuple[int, int]) -> Head | None:
    """MediaPipe's rows where each level has outputs of its own, as converters leave them that drop the joins at the end."""
    if len(shapes) < 4 or len(shapes) % 2 or any(len(shape) != 2 for shape in shapes):
        return None
    columns = max(shape[1] for shape in shapes)
    boxes = [index for index, shape in enumerate(shapes) if shape[1] == columns]
    scores = [index for index, shape in enumerate(shapes) if shape[1] == 1]
    rows = [shapes[index][0] for index in boxes]
    if rows != [shapes[index][0] for index in scores]:
        return None
    whole = _mediapipe([(sum(rows), columns), (sum(rows), 1)], size)
    first, *others = zip(boxes, scores, strict=True)
    return None if whole is None else replace(whole, outputs=first, further=tuple(others))


def _grid(size: tuple[int, int], strides: Sequence[int]) -> tuple[Array, Array]:
    """(x, y) of every cell, (rows, 2), and its stride, (rows, 1), level after level."""
    cells, steps = [], []
    for stride in strides:
        y, x = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        steps.append(np.full((x.size, 1), float(stride)))
    return np.concatenate(cells).astype(np.float64), np.concatenate(steps)
