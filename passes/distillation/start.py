"""What a student from a file can have before it learns: weights of the source, and least squares towards its maps.

Layers of both networks are aligned in running order: those of the same form (op, kernel, strides, channels on both sides, size of
the output) that follow in the same order. They take the source's weights. Then these layers, and the last ones in front of
each output, are fitted front to back to what their counterpart makes, on what the student makes in front of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import onnx_ir as ir

from edgec.graph.sharing import shares_weight
from edgec.graph.views import shape_of, sole_consumer
from edgec.passes.base import Context, LayerReport
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.fit import FitOptions, fit_site
from edgec.passes.refit.layer_fits import LayerFits
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.sensitivity.measure import output_names


def closed_form(
    student: ir.Model, context: Context, batches: Batches, label: str
) -> tuple[ir.Model, tuple[LayerReport, ...]]:
    """A copy of ``student`` that starts from the teacher, and what became of each layer that has a counterpart."""
    made = student.clone()
    alike = list(_alike(made, context.teacher))
    for mine, his in alike:
        mine.set_columns(his.columns())
    pairs = {mine.name: (mine, his) for mine, his in (*alike, *_last(made, context.teacher))}
    old = {name: (mine.y.name, mine.node.name) for name, (mine, _) in pairs.items()}
    for mine, his in pairs.values():  # `LayerFits` looks for the counterpart under the same name
        mine.node.name, mine.y.name = his.node.name, his.y.name
    names = [node.name or "" for node in made.graph if any(node is mine.node for mine, _ in pairs.values())]
    sites = LayerFits(made, context, names, batches)
    options = FitOptions(seed=context.seed, threads=context.threads)
    reports = [fit_site(site, options) for site in context.progress.over(label, sites, len(sites))]
    back = {his.name: name for name, (_, his) in pairs.items()}
    for name, (mine, _) in pairs.items():
        mine.y.name, mine.node.name = old[name]
    return made, tuple(replace(report, node=back[report.node]) for report in reports)


def _alike(student: ir.Model, teacher: ir.Model) -> Iterator[tuple[Layer, Layer]]:
    mine, theirs = (
        [layer for layer in layers_of(model).values() if not shares_weight(layer.node)]
        for model in (student, teacher)
    )
    matcher = SequenceMatcher(
        None, [_form(one) for one in mine], [_form(one) for one in theirs], autojunk=False
    )
    for block in matcher.get_matching_blocks():
        yield from zip(mine[block.a :][: block.size], theirs[block.b :][: block.size], strict=True)


def _form(layer: Layer) -> tuple[Any, ...]:
    """What two layers must have in common for the weights of one to be those of the other."""
    bias = layer.view.bias is not None
    return (layer.node.op_type, layer.view.weight.shape, bias, layer.patches, _sizes(layer.y))


def _last(student: ir.Model, teacher: ir.Model) -> Iterator[tuple[Layer, Layer]]:
    """The last layers in front of the same output, where what lies behind them is the same."""
    for mine, his in zip(output_names(student.graph), output_names(teacher.graph), strict=True):
        first, second = _in_front(student, mine), _in_front(teacher, his)
        if (
            first is not None
            and second is not None
            and first[1] == second[1]
            and not shares_weight(first[0].node)
        ):
            yield first[0], second[0]


def _in_front(model: ir.Model, name: str) -> tuple[Layer, tuple[Any, ...]] | None:
    """The layer that makes ``name`` by itself, with what stands between: op by op, with the size of what each takes."""
    value = next((one for node in model.graph for one in node.outputs if one.name == name), None)
    between: list[tuple[str, tuple[Any, ...]]] = []
    while value is not None and (node := value.producer()) is not None:
        layer = Layer.of(node)
        if layer is not None:
            return layer, (*between, ("", _sizes(layer.y)))
        source = node.inputs[0]
        if source is None or sole_consumer(source) is not node:
            return None
        between.append((node.op_type, _sizes(source)))
        value = source
    return None


def _sizes(value: ir.Value) -> tuple[Any, ...]:
    return () if value.shape is None else tuple(map(str, shape_of(value)))
