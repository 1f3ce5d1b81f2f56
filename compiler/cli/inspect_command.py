"""`edgec inspect`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.findings import as_json as findings_json
from edgec.compiler.cli.findings import findings_of, is_refused, print_findings
from edgec.compiler.cli.group import Command
from edgec.compiler.cli.options import data_options, loading, loading_options, preprocessing
from edgec.graph.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from edgec.compiler.check.finding import Finding
    from edgec.graph.cost import ModelCost


@click.command("inspect", cls=Command)
@click.argument("model")
@click.option("--layers", is_flag=True, help="Every node with its cost.")
@click.option(
    "--groups",
    "show_groups",
    is_flag=True,
    help="Channel groups: what must be pruned together, and what cannot be.",
)
@click.option(
    "--blocks",
    "show_blocks",
    is_flag=True,
    help="Residual blocks: what remove-blocks and distill-convex name.",
)
@click.option(
    "--target",
    type=params.TARGET,
    default=None,
    help="What its runtime would say to the file, and the estimated latency.",
)
@click.option(
    "--jetpack",
    type=params.JETPACK,
    metavar="RELEASE",
    help="Of a Jetson: its JetPack. [default: the target's]",
)
@click.option("--weights", metavar="FILE", help="state_dict for a MODEL given as file.py:factory.")
@params.input_shape
@data_options
@loading_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    model: str,
    layers: bool,
    show_groups: bool,
    show_blocks: bool,
    target: str | None,
    jetpack: str | None,
    weights: str | None,
    input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None,
    as_json: bool,
    **given: Any,
) -> int:
    """What MODEL costs: MACs, parameters, bytes; with --target, what the runtime there would refuse or do slowly (exit code 1 where it
    would refuse); with --groups, what can be pruned and why not the rest; with --data, whether the inputs look as it expects.
    """
    settings = loading(given)
    found = findings_of(model, target, jetpack)
    if model.endswith(".tflite"):
        unused = params.given("show_groups", "show_blocks", "weights", "input_shape", "data")
        params.refuse(unused, "needs an ONNX model", "Inspect the .onnx that the file was made from.")
        _inspect_tflite(model, layers, target, as_json, found)
        return int(is_refused(found))
    from edgec.graph.foreign import begin

    try:
        with begin(model, settings, weights=weights, input_shape=input_shape) as pending:
            from edgec.compiler.cli.output import print_json
            from edgec.graph.channels import groups as find_groups
            from edgec.graph.cost import cost

            graph = pending.model()
    except ModelError:
        if found and not as_json:
            print_findings(
                found, target or ""
            )  # edgec cannot take the file; what the runtime would say is known all the same
        raise
    spent = cost(graph)
    facts = _facts(graph, spent)
    if target is not None:
        facts["estimate"] = _estimate(spent, target)
    if found is not None:
        facts["findings"] = findings_json(found)
    if given["data"] is not None:
        facts["data"] = _looked_at(graph, model, given)
    groups = find_groups(graph) if show_groups else ()
    blocks = _blocks(graph, spent) if show_blocks else []
    if as_json:
        facts["layers"] = [vars(node) for node in spent.nodes]
        if show_blocks:
            facts["blocks"] = blocks
        if show_groups:
            facts["groups"] = [group.as_json() for group in groups]
        print_json(facts)
        return int(is_refused(found))
    _print_summary(model, facts)
    print_findings(found, target or "")
    if given["data"] is not None:
        _print_data(facts["data"])
    if layers:
        _print_layers(spent, facts.get("estimate"))
    if show_blocks:
        _print_blocks(blocks, facts["macs"])
    if show_groups:
        from edgec.graph.channels import describe

        echo()
        echo_lines(describe(groups))
    return int(is_refused(found))


def _looked_at(graph: ir.Model, model: str, given: dict[str, Any]) -> dict[str, Any]:
    """The data's name and number, prepared as a compile would, and what is doubtful about it."""
    from edgec.compiler.evaluate.plausibility import doubts_about
    from edgec.compiler.read.recipe import ModelSource, Preprocessing, Recipe
    from edgec.compiler.read.told import with_told
    from edgec.compiler.tasks.find import find_task
    from edgec.graph.data import open_data
    from edgec.graph.inputs import picture_size
    from edgec.graph.read.metadata import source_metadata
    from edgec.graph.read.told import told_by

    file = Path(model)
    told = told_by(source_metadata(graph), file if file.is_file() else None, picture_size(graph))
    own = Recipe(model=ModelSource(path=model), preprocess=Preprocessing(**preprocessing(given)))
    recipe, remarks = with_told(own, told)
    how = recipe.preprocess.build()
    data = open_data(given["data"], graph, how, samples=given["samples"], skip_bad=given["skip_bad"])
    doubts = [str(one) for one in doubts_about(graph, data, 1, find_task(graph, told.task))]
    return {"name": data.name, "samples": len(data), "remarks": list(remarks), "doubts": doubts}


def _print_data(looked_at: dict[str, Any]) -> None:
    for line in looked_at["remarks"]:
        echo(line)
    told = looked_at["doubts"] or ["nothing doubtful found"]
    echo(f"inputs   {looked_at['samples']} of {looked_at['name']}: {'; '.join(told)}")


def _inspect_tflite(
    path: str, layers: bool, target: str | None, as_json: bool, found: Sequence[Finding] | None
) -> None:
    """A TFLite file is another program: its cost is read from its own operators, and it has no channel groups."""
    from edgec.compiler.cli.output import print_json
    from edgec.compiler.emit.tflite.file_cost import read_cost
    from edgec.graph.tflite.read import read

    file, (spent, precision) = read(path), read_cost(path)
    facts: dict[str, Any] = {
        "inputs": {file.tensors[i].name: list(file.tensors[i].shape) for i in file.inputs},
        "outputs": {file.tensors[i].name: list(file.tensors[i].shape) for i in file.outputs},
        "precision": precision,
        "operators": {f"{op.code} v{op.version}": 0 for op in file.operators},
        **_totals(spent),
    }
    for op in file.operators:
        facts["operators"][f"{op.code} v{op.version}"] += 1
    if target is not None:
        facts["estimate"] = _estimate(spent, target, runtime="ai-edge-litert", precision=precision)
    if found is not None:
        facts["findings"] = findings_json(found)
    if as_json:
        print_json({**facts, "layers": [vars(node) for node in spent.nodes]})
        return
    _print_summary(path, facts)
    print_findings(found, target or "")
    echo()
    echo(
        "operators: " + ", ".join(f"{code} x{number}" for code, number in sorted(facts["operators"].items()))
    )
    if layers:
        _print_layers(spent, facts.get("estimate"))


def _blocks(graph: ir.Model, spent: ModelCost) -> list[dict[str, Any]]:
    """Residual blocks in order, with what they cost."""
    from edgec.graph.regions import regions

    macs = {node.name: node.macs for node in spent.nodes}
    return [
        {
            "name": block.name,
            "input": block.input,
            "output": block.output,
            "nodes": list(block.nodes),
            "skip": "identity" if block.has_identity else ", ".join(block.skip or ()),
            "macs": sum(macs.get(name, 0) for name in block.nodes),
        }
        for block in regions(graph)
    ]


def _facts(graph: ir.Model, spent: ModelCost) -> dict[str, Any]:
    from edgec.graph.read.metadata import notes_of
    from edgec.graph.views import shape_of

    return {
        "inputs": {v.name: list(shape_of(v)) for v in graph.graph.inputs},
        "outputs": {v.name: list(shape_of(v)) for v in graph.graph.outputs},
        "opset": graph.opset_imports.get(""),
        "notes": list(notes_of(graph)),
        **_totals(spent),
    }


def _totals(spent: ModelCost) -> dict[str, Any]:
    kinds = sorted(((n.kind, n.macs, n.params) for n in spent.nodes), key=lambda item: item[0])
    return {
        "nodes": len(spent.nodes),
        "macs": spent.macs,
        "params": spent.params,
        "weight_bytes": spent.weight_bytes,
        "peak_activation_bytes": spent.peak_activation_bytes,
        "kinds": {
            kind: {
                "nodes": len(members),
                "macs": sum(m[1] for m in members),
                "params": sum(m[2] for m in members),
            }
            for kind, members in ((k, list(g)) for k, g in itertools.groupby(kinds, key=lambda item: item[0]))
        },
    }


def _estimate(
    spent: ModelCost, name: str, runtime: str | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    from edgec.targets import target as find_target
    from edgec.targets.estimator import estimate
    from edgec.targets.jetpack import TIMED_ON_THE_BOARD, measured_by

    described = find_target(name)
    if described.dialect == "tensorrt" and runtime is None:
        return {"text": f"not measured: {TIMED_ON_THE_BOARD}; {measured_by('FILE')}", "per_node_ms": {}}
    try:
        return estimate(spent, described, runtime=runtime, precision=precision).to_dict()
    except UsageError as error:
        # The cost table is what was asked for; an estimate that cannot be had is said, not fatal.
        return {
            "text": ". ".join(f"none: {error.what}, {error.why}. {error.hint}".splitlines()),
            "per_node_ms": {},
        }


def _print_summary(path: str, facts: dict[str, Any]) -> None:
    from edgec.compiler.cli.output import count, size, stdout, table

    for what in ("inputs", "outputs"):
        shapes = ", ".join(
            f"{n} {['N' if d is None else d for d in s]}".replace("'", "") for n, s in facts[what].items()
        )
        echo(f"{what:8} {shapes}")
    echo(
        f"cost     {count(facts['macs'])}MACs, {count(facts['params'])} parameters, {size(facts['weight_bytes'])} of weights"
    )
    echo(f"memory   {size(facts['peak_activation_bytes'])} of activations at the peak")
    form = f"opset {facts['opset']}" if "opset" in facts else f"TFLite, {facts['precision']}"
    echo(f"graph    {facts['nodes']} nodes, {form}")
    if "estimate" in facts:
        echo(f"latency  {facts['estimate']['text']}")
    for note in facts.get("notes", ()):
        echo(f"note     {note}")
    rows = [
        (
            kind,
            str(item["nodes"]),
            count(item["macs"]),
            f"{100 * item['macs'] / max(1, facts['macs']):.1f}%",
            count(item["params"]),
        )
        for kind, item in facts["kinds"].items()
    ]
    console = stdout()
    console.print()
    console.print(table(None, ("kind", "nodes", "MACs", "share", "params"), rows, right=(1, 2, 3, 4)))


def _print_blocks(blocks: list[dict[str, Any]], total: int) -> None:
    from edgec.compiler.cli.output import count, stdout, table

    if not blocks:
        echo()
        echo("blocks   none: no sum joins a branch with a skip around it")
        return
    rows = [
        (
            one["name"],
            one["input"],
            one["output"],
            str(len(one["nodes"])),
            one["skip"],
            count(one["macs"]),
            f"{100 * one['macs'] / max(1, total):.1f}%",
        )
        for one in blocks
    ]
    console = stdout()
    console.print()
    columns = ("block", "input", "output", "nodes", "skip", "MACs", "share")
    console.print(table(None, columns, rows, right=(3, 5, 6)))


def _print_layers(spent: ModelCost, estimate: dict[str, Any] | None) -> None:
    from edgec.compiler.cli.output import count, size, stdout, table

    per_node = (estimate or {}).get("per_node_ms") or {}
    rows = []
    for node in spent.nodes:
        shape = "x".join(str(k) for k in node.kernel) + (
            "/" + str(node.stride[0]) if node.stride and node.stride[0] > 1 else ""
        )
        row = [node.name, node.op, shape, count(node.macs), count(node.params), size(node.activation_bytes)]
        rows.append(
            [*row, f"{per_node[node.name]:.3f}" if node.name in per_node else ""] if per_node else row
        )
    columns = ["layer", "op", "kernel", "MACs", "params", "activations"] + (
        ["ms (estimated)"] if per_node else []
    )
    console = stdout()
    console.print()
    console.print(table(None, columns, rows, right=(3, 4, 5, 6)))
