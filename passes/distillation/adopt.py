"""A network from a file in the place of the source: it must take and give the same, and gets the source's names for that.

Inside it keeps its own names behind a prefix, so that none of its values passes for one of the source's; only what goes into a
Softmax or Sigmoid at the end is called as in the source, for there the two are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgec.graph.errors import ModelError
from edgec.graph.inputs import is_channels_last
from edgec.graph.read.metadata import source_metadata
from edgec.graph.views import attribute, shape_of
from edgec.passes.sensitivity.measure import output_names

PREFIX = "student"
ENDS = ("Softmax", "LogSoftmax", "Sigmoid")


def adopted(student: ir.Model, source: ir.Model, where: str) -> ir.Model:
    """A copy of ``student`` with the inputs, outputs and metadata of ``source``.

    Raises ModelError, naming the file ``where``, for a network that takes or gives something else.
    """
    made = student.clone()
    inputs = _paired("input", made.graph.inputs, source.graph.inputs, where)
    outputs = _paired("output", made.graph.outputs, source.graph.outputs, where)
    for mine, his in (*inputs, *outputs):
        _check_shape(mine, his, where)
    for mine, his in inputs:
        _check_layout(mine, his, where)
    for mine, his in outputs:
        _check_meaning(mine, his, where)
    known = dict(zip(_names(source.graph.outputs), output_names(source.graph), strict=True))
    names = {mine: his.name or "" for mine, his in (*inputs, *outputs)}
    for mine, his in outputs:
        maker = mine.producer()
        if maker is not None and maker.op_type in ENDS and maker.inputs[0] not in names:
            names[maker.inputs[0]] = known[his.name or ""]  # type: ignore[index]
    _rename(made.graph, source.graph, names)
    made.graph.inputs[:] = [mine for mine, _ in inputs]
    made.graph.outputs[:] = [mine for mine, _ in outputs]
    made.metadata_props.clear()
    made.metadata_props.update(source_metadata(source))
    return made


def _paired(
    kind: str, mine: Sequence[ir.Value], theirs: Sequence[ir.Value], where: str
) -> list[tuple[ir.Value, ir.Value]]:
    """Ends of both networks in the source's order: by name where all names are the same, else by place."""
    if len(mine) != len(theirs):
        why = f"the source has {len(theirs)} ({_listed(theirs)}), the student {len(mine)} ({_listed(mine)})"
        raise ModelError(f"the student has another number of {kind}s than the source", where=where, why=why)
    known = {value.name: value for value in mine}
    if set(known) == {value.name for value in theirs}:
        return [(known[value.name], value) for value in theirs]
    return list(zip(mine, theirs, strict=True))


def _check_shape(mine: ir.Value, his: ir.Value, where: str) -> None:
    if [str(size) for size in mine.shape or ()] == [
        str(size) for size in his.shape or ()
    ] and mine.dtype == his.dtype:
        return
    why = f"the source's {his.name!r} is {_told(his)}, the student's {mine.name!r} is {_told(mine)}"
    hint = "Export the student for the source's inputs and outputs; only what is between may differ."
    raise ModelError(
        "the student does not take and give what the source does", where=where, why=why, hint=hint
    )


def _check_layout(mine: ir.Value, his: ir.Value, where: str) -> None:
    if is_channels_last(mine) != is_channels_last(his):
        words = {True: "height, width, channels", False: "channels, height, width"}
        first, second = words[is_channels_last(his)], words[is_channels_last(mine)]
        why = (
            f"the source's {his.name!r} is a picture of ({first}), the student's {mine.name!r} of ({second})"
        )
        raise ModelError("the student takes pictures in another layout", where=where, why=why)


def _check_meaning(mine: ir.Value, his: ir.Value, where: str) -> None:
    """The same numbers mean the same only behind the same last op, along the same axis."""
    first, second = _end(his), _end(mine)
    if first != second:
        why = f"the source's {his.name!r} {first or 'ends in no Softmax or Sigmoid'}, the student's {second or 'does not'}"
        hint = "Export the student with the same last op as the source."
        raise ModelError("the student's outputs mean something else", where=where, why=why, hint=hint)


def _end(value: ir.Value) -> str:
    """``ends in Softmax along axis 1``; empty for none."""
    maker = value.producer()
    if maker is None or maker.op_type not in ENDS:
        return ""
    if maker.op_type == "Sigmoid":
        return "ends in Sigmoid"
    return f"ends in {maker.op_type} along axis {attribute(maker, 'axis', -1) % max(len(shape_of(value)), 1)}"


def _rename(graph: ir.Graph, source: ir.Graph, names: dict[ir.Value, str]) -> None:
    """``names`` for the ends; everything else gets a prefix that no name of ``source`` begins with."""
    theirs = [*_all_names(source), *(value.name or "" for value in names)]
    count, prefix = 1, f"{PREFIX}."
    while any(name.startswith(prefix) for name in theirs):
        count, prefix = count + 1, f"{PREFIX}{count + 1}."
    taken = {*names.values(), *_all_names(source)}
    for value in [value for value in graph.initializers.values() if value.name in taken]:
        _rename_initializer(graph, value, lambda name: prefix + name)
    for node in graph:
        node.name = f"{prefix}{node.name}"
        node.metadata_props.clear()
        for value in node.outputs:
            if value.name and value not in names:
                value.name = f"{prefix}{value.name}"
    for value, name in names.items():
        value.name = name


def _rename_initializer(graph: ir.Graph, value: ir.Value, new: Callable[[str], str]) -> None:
    graph.initializers.pop(value.name or "")
    value.name = new(value.name or "")
    if value.const_value is not None:
        value.const_value.name = value.name
    graph.register_initializer(value)


def _all_names(graph: ir.Graph) -> list[str]:
    made = [value.name or "" for node in graph for value in node.outputs]
    return [*made, *(node.name or "" for node in graph), *_names(graph.inputs), *graph.initializers]


def _names(values: Sequence[ir.Value]) -> list[str]:
    return [value.name or "" for value in values]


def _listed(values: Sequence[ir.Value]) -> str:
    return ", ".join(f"{value.name!r}: {_told(value)}" for value in values)


def _told(value: ir.Value) -> str:
    kind = "?" if value.dtype is None else value.dtype.name.lower()
    return f"{kind}[{', '.join(str(size) for size in value.shape or ())}]"
