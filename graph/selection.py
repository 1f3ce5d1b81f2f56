"""What selects among a network's answers, parted from the network: suppression of boxes, and all whose shapes it rules.

How many boxes NonMaxSuppression leaves depends on the picture, so nothing behind it can be calibrated, pruned, or run on
several samples. The network in front of it can. `parted` cuts there, `joined` puts the selection back behind whatever was
made of the network; the selection itself is never touched.

Where the cut lies:
1. behind it is everything that depends on an op of `SELECTING` that depends on the inputs' values;
2. then, again and again, a node that only the selection reads, if it
   a. reads nothing but what the selection reads anyway (a Squeeze of boxes that are suppressed, the best class of scores); or
   b. answers with anything but real numbers (a comparison with a threshold); or
   c. has no weights and works on one sample whose batch axis is gone (``pred[0]``): the cut lies where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.batch import is_free
from edgec.graph.canonicalise import freed
from edgec.graph.equivalence import Reference
from edgec.graph.spec import LAYERS, SELECTING
from edgec.graph.tidy import infer_shapes
from edgec.graph.views import fresh_name, is_constant

_SHAPES = ("Shape", "Size")
_DROPS = ("Squeeze", "Reshape", "Gather", "Flatten")


@dataclass(frozen=True)
class Selection:
    """What stands behind the cut."""

    model: ir.Model
    """Its inputs are values of the network, by their names."""
    outputs: tuple[str, ...]
    """Of the whole, in order: those of the network that the source gave out, and the selection's own."""

    @property
    def words(self) -> str:
        """The op that selects, for a person."""
        first = next(node for node in self.model.graph if node.op_type in SELECTING)
        more = self.model.graph.num_nodes() - 1
        return f"{first.op_type} {first.name!r}" + (f" and {more} nodes beside it" if more > 1 else "")


def parted(model: ir.Model) -> tuple[ir.Model, Selection] | None:
    """The network in front of what selects, and the selection; None where nothing does, or where nothing is in front.

    The network's outputs are those that the source has in front of the cut, then what the selection reads. It is canonical;
    its batch axis is freed where that can be.
    """
    behind = _behind(model)
    if not any(value.producer() in behind for value in model.graph.outputs):
        return None
    read = _read(model, behind)
    if not any(value.producer() is not None for value in read):
        return None
    names = [value.name or "" for value in read if value.producer() is not None]
    kept = [value.name or "" for value in model.graph.outputs if value.producer() not in behind]
    network = _network(model, list(dict.fromkeys([*kept, *names])))
    selection = Selection(
        _selection(model, {node.name for node in behind}, read),
        tuple(value.name or "" for value in model.graph.outputs),
    )
    return _free(network), selection


def in_front(model: ir.Model) -> ir.Model:
    """The network alone: what `parted` gives, or the model itself."""
    found = parted(model)
    return model if found is None else found[0]


def joined(network: ir.Model, selection: Selection) -> ir.Model:
    """A copy of ``network``, made of the one that `parted` gave, with the selection behind it."""
    whole, behind = network.clone(), selection.model.clone()
    ends = {value.name: value for value in (*whole.graph.inputs, *whole.graph.outputs)}
    for value in behind.graph.inputs:
        ir.convenience.replace_all_uses_with(value, ends[value.name])
    made = {value.name: value for value in behind.graph.outputs}
    behind.graph.outputs.clear()
    for tensor in list(behind.graph.initializers.values()):
        del behind.graph.initializers[tensor.name or ""]
        tensor.name = fresh_name(whole.graph, tensor.name or "")
        whole.graph.register_initializer(tensor)
    for node in list(behind.graph):
        behind.graph.remove(node)
        node.name = fresh_name(whole.graph, node.name or "")
        for value in node.outputs:
            value.name = value.name if value.name in made else fresh_name(whole.graph, value.name or "")
        whole.graph.append(node)
    whole.graph.outputs[:] = [made.get(name) or ends[name] for name in selection.outputs]
    return whole


def _behind(model: ir.Model) -> set[ir.Node]:
    """The nodes behind the cut."""
    ruled = {id(value) for value in model.graph.inputs}
    behind: set[ir.Node] = set()
    alone: set[ir.Node] = set()
    for node in model.graph:
        moved = any(value is not None and value.producer() in behind for value in node.inputs)
        by_values = node.op_type not in _SHAPES and any(id(value) in ruled for value in node.inputs)
        if by_values:
            ruled.update(id(value) for value in node.outputs)
        if moved or (by_values and node.op_type in SELECTING):
            behind.add(node)
        if _drops_batch(node) or any(
            value is not None and value.producer() in alone for value in node.inputs
        ):
            alone.add(node)
    while more := _with_it(model, behind, alone):
        behind |= more
    return behind


def _drops_batch(node: ir.Node) -> bool:
    if node.op_type not in _DROPS or node.inputs[0] is None:
        return False
    old, new = node.inputs[0].shape, node.outputs[0].shape
    return old is not None and new is not None and len(new) < len(old) and list(old)[1:] == list(new)


def _with_it(model: ir.Model, behind: set[ir.Node], alone: set[ir.Node]) -> set[ir.Node]:
    """Nodes that go behind the cut too; ``alone``: those whose values have no batch axis."""
    read = {id(value) for value in _read(model, behind)}
    found: set[ir.Node] = set()
    for node in reversed(list(model.graph)):
        readers = [reader for value in node.outputs for reader in value.consumers()]
        given_out = any(value.is_graph_output() for value in node.outputs)
        if node in behind or given_out or not readers or not {*readers} <= behind | found:
            continue
        cut_anyway = all(id(value) in read for value in node.inputs if not _is_still(value))
        whole = all(value.dtype is not None and not value.dtype.is_floating_point() for value in node.outputs)
        if cut_anyway or whole or (node in alone and node.op_type not in LAYERS):
            found.add(node)
    return found


def _is_still(value: ir.Value | None) -> bool:
    return value is None or is_constant(value)


def _read(model: ir.Model, behind: set[ir.Node]) -> list[ir.Value]:
    """What the selection reads of the rest, constants aside."""
    found: dict[int, ir.Value] = {}
    for node in model.graph:
        for value in node.inputs if node in behind else ():
            if value is not None and not _is_still(value) and value.producer() not in behind:
                found[id(value)] = value
    return list(found.values())


def _network(model: ir.Model, outputs: Iterable[str]) -> ir.Model:
    network = model.clone()
    made = {value.name: value for node in network.graph for value in node.outputs}
    network.graph.outputs[:] = [made[name] for name in outputs]
    _drop_dead(network)
    return network


def _selection(model: ir.Model, behind: set[str | None], read: Iterable[ir.Value]) -> ir.Model:
    part = model.clone()
    values = {value.name: value for node in part.graph for value in node.outputs}
    values |= {value.name: value for value in part.graph.inputs}
    part.graph.outputs[:] = [v for v in part.graph.outputs if (n := v.producer()) and n.name in behind]
    inputs = []
    for one in read:
        value = values[one.name]
        inputs.append(ir.Value(name=one.name, type=value.type, shape=value.shape))
        ir.convenience.replace_all_uses_with(value, inputs[-1])
    part.graph.remove([node for node in reversed(list(part.graph)) if node.name not in behind], safe=True)
    part.graph.inputs[:] = inputs
    _drop_dead(part)
    return part


def _drop_dead(model: ir.Model) -> None:
    """Nodes that no output needs, and constants that no node reads; in place."""
    live: set[ir.Node] = set()
    front = [value.producer() for value in model.graph.outputs]
    while front:
        node = front.pop()
        if node is not None and node not in live:
            live.add(node)
            front += [value.producer() for value in node.inputs if value is not None]
    model.graph.remove([node for node in reversed(list(model.graph)) if node not in live], safe=True)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]


def _free(network: ir.Model) -> ir.Model:
    """With a free batch axis, where that can be: what selects is often all that kept it from being free."""
    infer_shapes(network)
    if is_free(network):
        return network
    return freed(network, Reference.of(ir.to_proto(network))) or network
