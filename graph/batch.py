"""The batch axis: free it where the graph allows it, and say how N samples are run where it does not.

Files fixed at batch 1 are common, and calibrating them image by image is several times slower. Three things bake the
batch in: the inputs' leading axis, constant Reshape targets, and constant Resize sizes. They are rewritten; whether the
result treats samples independently is then a question for numbers (`equivalence.Reference`), not for rules.

A canonical graph is one of two kinds. *Free*: the leading axis of every input is open, N samples run at once, and an inner
value that depends on them has them on axis 0. *Fixed*: a run takes one sample, and `SampleBySample` says how N of them are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.errors import ModelError
from edgec.graph.views import attribute, constant, own_constant, set_attribute

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = "batch"


def is_free(model: ir.Model) -> bool:
    """True where N samples run at once; in a canonical graph either all inputs are open or none is."""
    return any(
        value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int)
        for value in model.graph.inputs
    )


def sample_bytes(value: ir.Value) -> int:
    """Bytes of one sample of an inner value in float32; an axis whose size is open counts once."""
    size = 4
    for axis in value.shape or ():
        size *= axis if isinstance(axis, int) and axis else 1
    return size


def samples_within(limit: int, per_sample: int, most: int) -> int:
    """How many samples of ``per_sample`` bytes go together into ``limit`` bytes: from 1 to ``most``."""
    return max(1, min(most, limit // max(per_sample, 1)))


def sample_shape(value: ir.Value) -> tuple[int, ...]:
    """Shape of one sample of a graph input or output: without its leading axis where that is open or 1, else all of it."""
    sizes = tuple(size if isinstance(size, int) else 1 for size in value.shape or ())
    return sizes[1:] if sizes[:1] == (1,) else sizes


@dataclass(frozen=True)
class SampleBySample:
    """How values of a fixed graph hold N samples.

    At the graph's ``ends`` (inputs and outputs) as N of `sample_shape`, samples first. Inside as one sample behind the other
    along axis 0, (N * k, ...), where k is the leading size of one: any value can be cut again, whatever its axes mean, and
    rows of a layer stay rows.
    """

    ends: frozenset[str]

    @staticmethod
    def of(model: ir.Model) -> SampleBySample:
        values = (*model.graph.inputs, *model.graph.outputs)
        return SampleBySample(frozenset(value.name or "" for value in values))

    def count(self, feeds: Mapping[str, Array], shapes: Mapping[str, Sequence[Any]]) -> int:
        """Samples in ``feeds``; ``shapes`` are those that one run takes."""
        for name, array in feeds.items():
            shape = shapes[name]
            if array.ndim > len(shape):
                return len(array)
            if len(shape) and isinstance(shape[0], int) and shape[0]:
                return len(array) // shape[0]
        return 1

    def one(self, array: Array, index: int, count: int, rank: int) -> Array:
        """Sample ``index`` of ``count``, as a run takes it (``rank`` axes)."""
        if array.ndim > rank:
            return np.asarray(array[index])
        lead = len(array) // count if array.ndim else 1
        return array[index * lead : (index + 1) * lead] if array.ndim else array

    def together(self, name: str, parts: Sequence[Array]) -> Array:
        """What the runs gave for ``name``. Raises ModelError where their shapes differ."""
        shapes = sorted({part.shape for part in parts})
        if len(shapes) > 1:
            why = " and ".join(str(shape) for shape in shapes[:2])
            hint = "Export the network without what selects among its results (NonMaxSuppression, NonZero)."
            raise ModelError("its shape depends on the data", where=f"value {name!r}", why=why, hint=hint)
        if name in self.ends and shapes[0][:1] != (1,):
            return np.stack(parts)
        return np.concatenate([np.atleast_1d(part) for part in parts])


def as_inside(array: Array, rank: int) -> Array:
    """A value at the graph's ends, held as (N, k, ...), in the form of those inside, (N * k, ...)."""
    return array.reshape(-1, *array.shape[2:]) if array.ndim > rank > 0 else array


def can_free(model: ir.Model) -> bool:
    """True when every input has a leading axis, and all of them are open or of one size."""
    sizes = {
        1 if value.shape is None or not len(value.shape) else _size(value.shape[0])
        for value in model.graph.inputs
    }
    axes = all(value.shape is not None and len(value.shape) for value in model.graph.inputs)
    return axes and bool(model.graph.inputs) and len(sizes - {None}) <= 1


def free_batch(model: ir.Model) -> None:
    """Make the leading axis symbolic throughout; in place. The caller checks the result by numbers."""
    sizes = {_size(value.shape[0]) for value in model.graph.inputs if value.shape is not None}
    size = next(iter(sizes - {None}), 1) or 1
    _lead(model.graph.inputs, BATCH)
    for node in list(model.graph):
        if node.op_type == "Reshape":
            _free_reshape(model.graph, node, size)
        elif node.op_type == "Resize":
            _free_resize(model.graph, node, size)
    _lead(model.graph.outputs, BATCH)


def fix_batch(model: ir.Model) -> None:
    """Make every open leading axis 1; in place."""
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    for value in model.graph.outputs:
        value.shape = None  # its leading size may be that of something else: inference says


def fix_open_batch(model: onnx.ModelProto) -> bool:
    """Make open leading axes 1 in a file; in place. True where there were any."""
    opened = False
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim[:1]:
            if dim.WhichOneof("value") != "dim_value":
                dim.dim_value, opened = 1, True
    if opened:
        for value in model.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
        del model.graph.value_info[:]
    return opened


def leads_cleanly(free: ir.Model, fixed: ir.Model) -> bool:
    """Is the batch alone on axis 0 of everything in ``free``? ``fixed`` is the same graph at batch 1.

    An open axis behind the first is a batch that moved; an open first axis of more than one entry per sample is one that was
    merged with another (tokens).
    """
    single = {value.name: value.shape for value in _computed(fixed)}
    for value in _computed(free):
        if value.shape is None or not len(value.shape):
            continue
        if not all(isinstance(size, int) for size in list(value.shape)[1:]):
            return False
        alone = single.get(value.name)
        if not isinstance(value.shape[0], int) and (alone is None or not len(alone) or alone[0] != 1):
            return False
    return True


def divide_batch(model: ir.Model) -> None:
    """A batch fixed at N becomes one of 1; in place. The caller checks the result by numbers."""
    size = next(_size(value.shape[0]) for value in model.graph.inputs if value.shape is not None) or 1
    _lead(model.graph.inputs, 1)
    for node in list(model.graph):
        if node.op_type in ("Reshape", "Expand"):
            target = constant(node.inputs[1])
            if target is not None and target.ndim == 1:
                own_constant(model.graph, node, 1, _divided(target, size))
        elif node.op_type == "Resize":
            _free_resize(model.graph, node, size)
        elif node.op_type == "Concat":
            for index, value in enumerate(node.inputs):
                array = constant(value)
                if array is not None and len(array) == size and (array == array[:1]).all():
                    own_constant(model.graph, node, index, array[:1])
    for value in model.graph.outputs:
        value.shape = None


def _divided(target: Array, size: int) -> Array:
    """The batch in a shape divided out: alone on axis 0, merged with what follows, or the first axis of its size."""
    if target[0] > 0 and target[0] % size == 0:
        places = [0]
    else:
        places = [] if -1 in target[:1] else [axis for axis, one in enumerate(target) if one == size][:1]
    one = target.copy()
    one[places] //= size
    return one


def _computed(model: ir.Model) -> Iterable[ir.Value]:
    return (value for node in model.graph for value in node.outputs)


def _size(dimension: Any) -> int | None:
    return dimension if isinstance(dimension, int) else None


def _lead(values: Iterable[ir.Value], size: int | str) -> None:
    for value in values:
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([size, *list(value.shape)[1:]])


def _free_reshape(graph: ir.Graph, node: ir.Node, size: int) -> None:
    """[1, 512] -> [-1, 512]; where a -1 already stands elsewhere, what it comes to is written out, or [0, ...]."""
    target = constant(node.inputs[1])
    if target is None or target.ndim != 1 or not len(target) or target[0] != size:
        return
    free = target.copy()
    rest = list(node.outputs[0].shape or ())[1:]
    if -1 not in target[1:]:
        free[0] = -1
    elif len(rest) == len(target) - 1 and all(isinstance(one, int) for one in rest):
        free[:] = [-1, *rest]
    elif not attribute(node, "allowzero", 0):
        free[0] = 0
    else:
        return
    own_constant(graph, node, 1, free)


def _free_resize(graph: ir.Graph, node: ir.Node, size: int) -> None:
    """Sizes of all axes -> sizes of the spatial axes only (the ``axes`` attribute of opset 18)."""
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is None or "axes" in node.attributes or len(sizes) < 3 or sizes[0] != size:
        return
    set_attribute(node, "axes", tuple(range(2, len(sizes))))
    own_constant(graph, node, 3, np.asarray(sizes[2:]))
