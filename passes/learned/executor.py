"""The canonical graph as a torch module: autograd through every op that edgec prunes or quantises.

It computes what onnxruntime computes (1e-4 of an output's range, usually 1e-6). Constants of layers are parameters, other
constants are buffers; shapes, axes and bounds are part of the functions. `write_back` takes what was learned into the graph.

    module = GraphModule(model)                     # torch.nn.Module
    logits = module(images)                         # as the graph: its inputs in order, its output or outputs
    found = module.run({"x": images}, ["y", "r"])   # any values by name
    write_back(module, model)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.batch import SampleBySample, is_free
from edgec.graph.errors import UnsupportedError
from edgec.graph.provenance import place as place_of
from edgec.graph.views import constant, set_constant
from edgec.passes.learned.ops.op import Op, operand
from edgec.passes.learned.ops.table import OPS
from edgec.passes.learned.parameters import homes, place


@dataclass(frozen=True)
class Step:
    """One node: ``run`` makes the values ``makes`` of the values ``takes`` (None: left out)."""

    node: str
    op: str
    run: Callable[..., Any]
    takes: tuple[str | None, ...]
    makes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.makes)} = {self.op}({', '.join(name or '-' for name in self.takes)})"


class GraphModule(torch.nn.Module):
    """A graph as a module. It can be copied, pickled, trained, exported, and compiled by edgec again."""

    def __init__(self, model: ir.Model) -> None:
        """Raises UnsupportedError, with the node's name, for an op that torch does not compute here."""
        super().__init__()
        self.input_names: tuple[str, ...] = tuple(value.name or "" for value in model.graph.inputs)
        self.output_names: tuple[str, ...] = tuple(value.name or "" for value in model.graph.outputs)
        self.singly: SampleBySample | None = None if is_free(model) else SampleBySample.of(model)
        self.ranks: dict[str, int] = {
            value.name or "": len(value.shape or ()) for value in model.graph.inputs
        }
        pairs = [(node, _op(node)) for node in model.graph if node.op_type != "Constant"]
        self.program: tuple[Step, ...] = tuple(_step(node, op) for node, op in pairs)
        constants = _constants(model, pairs)
        learned = {
            value.name or ""
            for node, op in pairs
            for index in op.weights
            if (value := operand(node, index)) is not None
        }
        self.homes: dict[str, str] = homes(constants)
        """Of every constant that is a tensor here: its parameter or buffer."""
        for name, array in constants.items():
            tensor = torch.from_numpy(np.array(array))
            place(self, self.homes[name], tensor, learned=name in learned and tensor.is_floating_point())

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Outputs in the graph's order; the tensor itself where there is one."""
        found = self.run(dict(zip(self.input_names, inputs, strict=True)), self.output_names)
        outputs = tuple(found[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """The values ``wanted``, any names in the graph, from ``feeds``: its inputs, or whatever they are computed from."""
        held = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        values: dict[str, Tensor] = {name: held[path] for name, path in self.homes.items()}
        values.update(feeds)
        for step, done in self._needed(frozenset(feeds), wanted):
            made = step.run(*(None if name is None else values[name] for name in step.takes))
            values.update(zip(step.makes, made if isinstance(made, tuple) else (made,), strict=False))
            for name in done:
                values.pop(name, None)
        return {name: values[name] for name in wanted}

    def samples(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """`run` for any number of samples: one by one where the graph's batch is fixed, held as `SampleBySample` says."""
        if self.singly is None:
            return self.run(feeds, wanted)
        lone = {name: rank for name, rank in self.ranks.items() if name in feeds}
        count = len(next(iter(feeds.values())))
        runs = []
        for index in range(count):
            one = {
                name: tensor[index] if tensor.ndim > lone[name] else tensor[index : index + 1]
                for name, tensor in feeds.items()
            }
            runs.append(self.run(one, wanted))
        return {name: self._together(name, [run[name] for run in runs]) for name in wanted}

    def _together(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if self.singly is not None and name in self.singly.ends and parts[0].shape[:1] != (1,):
            return torch.stack(list(parts))
        return torch.cat([part if part.ndim else part.reshape(1) for part in parts])

    def _needed(self, given: Iterable[str], wanted: Sequence[str]) -> list[tuple[Step, tuple[str, ...]]]:
        """The steps from ``given`` to ``wanted``, each with the values that nobody reads after it."""
        missing, keep = set(wanted) - set(given), {*wanted, *self.homes}
        seen: set[str] = set()
        chosen: list[tuple[Step, tuple[str, ...]]] = []
        for step in reversed(self.program):
            if missing.isdisjoint(step.makes):
                continue
            takes = {name for name in step.takes if name is not None}
            touched = takes | set(step.makes)
            chosen.append((step, tuple(sorted(touched - seen - keep))))
            seen |= touched
            missing = (missing - set(step.makes)) | (takes - set(given))
        return chosen[::-1]

    def learns_only(self, nodes: Collection[str]) -> None:
        """What these nodes alone read learns, and nothing else."""
        mine, others = ({name for step in self.program if (step.node in nodes) is inside for name in step.takes}
                        for inside in (True, False))  # fmt: skip
        wanted = {self.homes[name] for name in mine - others if name in self.homes}
        for path, parameter in self.named_parameters():
            parameter.requires_grad_(path in wanted)

    def extra_repr(self) -> str:
        """The program, one node to a line."""
        return "\n".join(map(str, self.program))


def write_back(module: GraphModule, model: ir.Model) -> None:
    """Take the parameters into the initialisers of ``model``, the graph that ``module`` was made of; in place."""
    held = dict(module.named_parameters())
    for name, path in module.homes.items():
        if path in held:
            value = model.graph.initializers[name]
            set_constant(value, held[path].detach().cpu().numpy().astype(value.const_value.numpy().dtype))  # type: ignore[union-attr]


def _op(node: ir.Node) -> Op:
    builder = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if builder is None:
        hint = "Leave learning out for this network: --learn off."
        raise UnsupportedError(f"no {node.op_type} in torch", where=place_of(node), hint=hint)
    return builder(node)


def _step(node: ir.Node, op: Op) -> Step:
    values = [operand(node, index) for index in op.reads]
    takes = tuple(None if value is None else value.name for value in values)
    return Step(
        node.name or "", node.op_type, op.run, takes, tuple(value.name or "" for value in node.outputs)
    )


def _constants(
    model: ir.Model, pairs: Sequence[tuple[ir.Node, Op]]
) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Those that a function takes as tensors, or that are outputs, by name."""
    read = [operand(node, index) for node, op in pairs for index in op.reads]
    found = {}
    for value in (*read, *model.graph.outputs):
        array = None if value is None or value.is_graph_input() else constant(value)
        if value is not None and array is not None:
            found[value.name or ""] = array
    return found
