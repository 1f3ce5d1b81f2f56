"""`edgec compile --dry-run`: what a run would do, and everything that can be known to be wrong with it, before a pass runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgec.compiler.emit import tflite
from edgec.compiler.evaluate.plausibility import doubts_of
from edgec.compiler.face.metric import Metric
from edgec.compiler.plan.disk import check_space, space_for
from edgec.compiler.plan.names import NAMES
from edgec.compiler.plan.plan import Plan, make_plan
from edgec.compiler.read.brought import Brought
from edgec.compiler.read.recipe import Recipe
from edgec.compiler.read.source import read
from edgec.graph.cost import cost
from edgec.graph.errors import UnsupportedError
from edgec.graph.foreign import Loading, Pending
from edgec.passes.budget import parse_budget
from edgec.passes.options import AUTO
from edgec.passes.pipeline_string import print_pass


def dry_run(
    recipe: Recipe, loading: Loading, begun: Pending | None = None, *, out: Path | None = None
) -> dict[str, Any]:
    """What a run into ``out`` would do: the resolved recipe, the source model's cost, the space on the disk. Writes nothing.

    Raises EdgecError for everything that can be known to be wrong before a pass runs.
    """
    Metric.named(recipe.metric)  # as the run does first: a function that is not there ends both
    plan = make_plan(read(Brought(recipe, begun), loading), loading)
    spent = cost(plan.model)
    _check_tflite(plan)
    if plan.passes:
        plan.passes[0].requires(plan.model)
    spaces = space_for(plan, out)
    check_space(spaces)
    return {
        "model": {
            "path": recipe.model.path,
            "macs": spent.macs,
            "params": spent.params,
            "sha256": plan.sha256,
        },
        "target": plan.target.name,
        "data": None if plan.data is None else {"name": plan.data.name, "samples": len(plan.data)},
        "passes": [print_pass(one) for one in plan.passes],
        "remarks": _remarks(plan),
        "disk": [one.to_dict() for one in spaces],
        "artifacts": _planned(plan.recipe),
        "recipe": json.loads(plan.recipe.model_dump_json(exclude_none=True)),
    }


def _planned(recipe: Recipe) -> list[str]:
    precisions = ["fp32"] + ([recipe.precision] if recipe.precision != "fp32" else [])
    return [NAMES[file_format, precision] for file_format in recipe.formats for precision in precisions]


def _remarks(plan: Plan) -> list[str]:
    """What is no error and yet may not be what was meant."""
    found = list(plan.remarks)
    if plan.recipe.budget is not None:
        budget, spent = parse_budget(plan.recipe.budget), cost(plan.model)
        source = {"macs": spent.macs, "params": spent.params, "size": spent.weight_bytes}.get(budget.unit)
        if source is not None and budget.limit(source) >= source and plan.recipe.precision == "fp32":
            found.append(f"the model meets {budget.text} as it is")
    if plan.recipe.resolution == AUTO:
        found.append("the input's size is chosen when the run begins: sizes are compared under the budget")
    if plan.data is not None and plan.data.is_random:
        found.append("calibrated on random noise")
    found += [str(one) for one in doubts_of(plan)]
    skipped = () if plan.data is None else plan.data.skipped
    found += [f"skipped {one}" for one in skipped]
    return found


def _check_tflite(plan: Plan) -> None:
    """Raise UnsupportedError for a node that TFLite cannot take, as emitting would behind all passes."""
    if "tflite" not in plan.recipe.formats or plan.recipe.split_unsupported:
        return
    refused = tflite.unsupported(plan.model)
    if refused:
        first = refused[0]
        raise UnsupportedError(
            f"TFLite cannot take {first.op}", where=first.place, why=first.why, hint=first.hint
        )
