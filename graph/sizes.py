"""Sizes of axes that a model leaves open: given by the user, by order or by name, or told by the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgec.graph.errors import ModelError, UnsupportedError, did_you_mean
from edgec.graph.read.told import size_told

STAND_IN = 256
"""Pixels of a side that stands in for all: every total stride divides it, and no usual network is too deep for it."""

PIXELS = (1, 3, 4)
"""Channels of a picture."""

InputShape = Sequence[int] | Mapping[str, Sequence[int]]
"""Of the first input without its leading axis; or of inputs by name, whole."""


class OpenSizeError(UnsupportedError):
    """An axis of an input has no size, and nobody gave one."""


def fix_shapes(model: onnx.ModelProto, input_shape: InputShape | None) -> None:
    """Every axis but the leading one must have a size; in place. What one input says holds for axes of that name in others.

    Height and width that nobody gives are those of the model's own metadata. Raises ModelError for a shape that does not fit,
    OpenSizeError for an axis that stays open.
    """
    given = _by_name(model, input_shape)
    known: dict[str, int] = {}
    for value in model.graph.input:
        _give(value, given.get(value.name), known)
    told = size_told({one.key: one.value for one in model.metadata_props})
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if axis and dim.dim_param in known:  # another input's axis of that name
                dim.dim_value = known[dim.dim_param]
        if told is not None and len(dims) == 4 and dims[1].dim_value in (1, 3):
            for dim, size in zip(list(dims)[2:], told, strict=True):
                if dim.WhichOneof("value") != "dim_value":
                    dim.dim_value = size
        for axis, dim in enumerate(dims):
            if axis and dim.WhichOneof("value") != "dim_value":
                raise OpenSizeError(
                    f"axis {axis} has no fixed size", where=f"input {value.name!r}", hint=_hint(model, value)
                )


def stand_in(model: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], str] | None:
    """A shape for the one input whose height or width alone are open, and which of them are ("h", "w", "hw"); else None."""
    constants = {tensor.name for tensor in model.graph.initializer}
    pictures = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        dims = list(value.type.tensor_type.shape.dim)
        sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]
        if None not in sizes[1:]:
            continue
        last = len(sizes) == 4 and sizes[3] is not None and (sizes[1] is None or _ends_in_pixels(sizes))
        places = (1, 2) if last else (2, 3)
        if len(sizes) != 4 or any(size is None for at, size in enumerate(sizes) if at and at not in places):
            return None
        sides = "".join(side for side, at in zip("hw", places, strict=True) if sizes[at] is None)
        pictures.append(
            (value.name, tuple(size or (STAND_IN if at else 1) for at, size in enumerate(sizes)), sides)
        )
    if len(pictures) != 1:
        return None
    name, shape, sides = pictures[0]
    return {name: shape}, sides


def _ends_in_pixels(sizes: Sequence[int | None]) -> bool:
    return sizes[3] in PIXELS and sizes[1] not in PIXELS


def has_open_size(path: Path) -> bool:
    """Whether an ONNX file leaves axes behind the batch open; of other files nothing is asked."""
    if path.suffix != ".onnx" or not path.is_file():
        return False
    graph = onnx.load_model(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in constants]
    return any(dim.dim_value <= 0 for shape in shapes for dim in shape[1:])


def shape_outputs(model: onnx.ModelProto) -> None:
    """Outputs that declare no shape, or no type, get those that inference finds: runtimes ask for none, libraries do."""
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return  # what is wrong is said where the model is checked
    for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
        if known.type.tensor_type.HasField("shape"):
            value.type.CopyFrom(known.type)


def _by_name(model: onnx.ModelProto, input_shape: InputShape | None) -> dict[str, list[int | None]]:
    """Shapes by input; None stands for the leading axis where it is not given."""
    if input_shape is None or not model.graph.input:
        return {}
    if not isinstance(input_shape, Mapping):
        return {model.graph.input[0].name: [None, *input_shape]}
    names = [value.name for value in model.graph.input]
    for name in input_shape:
        if name not in names:
            why = f"the inputs are {', '.join(names)}"
            raise ModelError(f"--input-shape: no input {name!r}", why=why, hint=did_you_mean(name, names))
    return {name: list(sizes) for name, sizes in input_shape.items()}


def _give(value: onnx.ValueInfoProto, sizes: Sequence[int | None] | None, known: dict[str, int]) -> None:
    """Write ``sizes`` into an input's shape; ``known`` learns the names of its axes."""
    tensor, where = value.type.tensor_type, f"input {value.name!r}"
    if not tensor.HasField("shape"):
        if sizes is None:
            raise UnsupportedError("its rank is unknown", where=where, hint=GIVE_SIZE)
        for size in sizes:
            tensor.shape.dim.add().dim_value = 1 if size is None else size
        return
    dims = tensor.shape.dim
    for dim in dims:
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value < 0:
            dim.ClearField("dim_value")  # what some exporters write for an open size
    if sizes is None:
        return
    if len(dims) != len(sizes):
        batch = " and the batch" if sizes[:1] == [None] else ""
        why = f"the model's input has {len(dims)} axes, --input-shape gives {len(sizes) - bool(batch)}{batch}"
        raise ModelError("--input-shape does not fit", where=where, why=why)
    for axis, (dim, one) in enumerate(zip(dims, sizes, strict=True)):
        if one is None:
            continue
        if axis == 0 and dim.WhichOneof("value") != "dim_value":
            continue  # an open batch stays open
        if axis and dim.dim_param:
            known[dim.dim_param] = one
        dim.ClearField("dim_param")
        dim.dim_value = one


GIVE_SIZE = "Give the sizes behind the batch axis, e.g. --input-shape 3,224,224."


def _hint(model: onnx.ModelProto, value: Any) -> str:
    if len(model.graph.input) == 1:
        return GIVE_SIZE
    sizes = [
        str(dim.dim_value or ("1" if axis == 0 else "SIZE"))
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    ]
    return f"Give its shape by name, batch too: --input-shape {value.name}:{'x'.join(sizes)}"
