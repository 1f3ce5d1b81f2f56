"""A node of the graph as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.provenance import place
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Op:
    """``run`` takes the operands ``reads`` as tensors (None where the node leaves one out) and gives the node's result, a tuple
    where there are several. What other operands hold (shapes, axes, bounds) is in ``run`` already: it is a function of a module,
    or a `functools.partial` of one, so that networks can be copied and pickled.

    ``weights``: those of ``reads`` whose constants are learned.
    """

    run: Callable[..., Any]
    reads: tuple[int, ...] = (0,)
    weights: tuple[int, ...] = ()


Builder = Callable[[ir.Node], Op]
Table = Mapping[str, Builder]


def plain(run: Callable[..., Any], count: int = 1) -> Builder:
    """An op without attributes that takes ``count`` tensors."""
    return lambda node: Op(run, tuple(range(count)))


def refuse(node: ir.Node, why: str) -> NoReturn:
    """Raise UnsupportedError with the op and the node's name."""
    hint = "Leave learning out for this network: --learn off."
    raise UnsupportedError(f"no {node.op_type} like this in torch", where=place(node), why=why, hint=hint)


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Operand ``index``, None where the node leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None


def static(node: ir.Node, index: int) -> Array | None:
    """The constant behind an operand that says what to do; None where it is left out. Refuses one that is computed."""
    value = operand(node, index)
    if value is None:
        return None
    array = constant(value)
    if array is None:
        refuse(node, f"its operand {value.name!r} is computed")
    return array


def numbers(node: ir.Node, index: int, name: str = "") -> tuple[int, ...] | None:
    """Whole numbers that an operand holds, or in older opsets the attribute ``name``; None where there are none."""
    array = static(node, index)
    if array is not None:
        return tuple(int(one) for one in array.reshape(-1))
    given = attribute(node, name, None) if name else None
    return None if given is None else tuple(int(one) for one in given)


def only_result(node: ir.Node) -> None:
    """Refuses a node whose further results are read."""
    for value in node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            refuse(node, f"its result {value.name!r} is read")


def number(array: Array) -> float:
    """The one number that an array holds; a whole one where it holds whole ones."""
    found: float = array.reshape(-1)[0].item()
    return found
