"""What a latency budget is priced by: estimates for the artifact that will be shipped, anchored on this machine.

On ``host`` the source model is measured first, as it came in and in the precision and engine asked for. The first time is what
relative budgets are shares of; the second scales the estimates, so that only what narrowing changes is left to them. A machine
that was never calibrated is calibrated for that engine and precision on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgec.compiler.pipeline.steps import narrow
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.names import RUNTIMES
from edgec.compiler.plan.plan import Plan
from edgec.compiler.read.recipe import Recipe, Timing
from edgec.graph.batch import is_free
from edgec.graph.cost import cost
from edgec.graph.scratch import write_scratch
from edgec.graph.sizes import has_open_size
from edgec.passes.base import LatencyModel, Progress

if TYPE_CHECKING:
    from edgec.compiler.latency.calibrate import Precision
    from edgec.targets.estimator import LatencyTable

_ROUNDS = 5
RESERVE = 0.03
"""Measured budgets are planned this much lower: what one measurement may differ from the next."""


@dataclass(frozen=True)
class Priced:
    """The prices, and what was measured for them (None: nothing was)."""

    prices: LatencyModel | None = None
    timing: Timing | None = None


def settle(plan: Plan, priced: Priced, space: Workspace) -> tuple[Plan, LatencyModel | None]:
    """Prices corrected by what they lead to, and the plan whose recipe holds what was measured for them."""
    priced = _settled(plan, priced, space)
    recipe = plan.recipe.model_copy(update={"timing": priced.timing})
    return replace(plan, recipe=recipe), priced.prices


def first_prices(plan: Plan, space: Workspace) -> Priced:
    """Prices for the plan's passes before anything was narrowed by them.

    Without a latency budget, a host that was never calibrated gets the prices of another machine of its kind, and another target
    without estimates none. Raises UsageError where a latency budget has nothing to go by.
    """
    from edgec.targets.estimator import estimate, has_estimates, latency_table

    recipe, target = plan.recipe, plan.target
    runtime, budgeted = RUNTIMES[recipe.formats[0]], plan.has_latency_budget
    anchored = budgeted and target.name == "host" and space.settings.measure
    known = has_estimates(target, runtime, recipe.precision)
    if not known and not budgeted:
        return _typical(plan, runtime)
    if not known and anchored:
        _calibrate(runtime, recipe, space.settings.progress)
    table = latency_table(target, runtime, recipe.precision)
    if anchored:
        timing = _known(recipe, space) or _measure(plan, runtime, space)
        return _anchored(plan, table, timing, space)
    if has_estimates(target, runtime, "fp32"):
        return Priced(LatencyModel(table, estimate(cost(plan.model), target, runtime=runtime).ms))
    return Priced(LatencyModel(table, table.model_ms(cost(plan.model))))


def _typical(plan: Plan, runtime: str) -> Priced:
    """Prices that compare layers, where this machine was never calibrated; none for other targets."""
    from edgec.targets.estimator import typical_table

    target, precision = plan.target, plan.recipe.precision
    table = typical_table(target.arch, runtime, precision) if target.name == "host" else None
    if table is None:
        return Priced()
    return Priced(LatencyModel(table, table.model_ms(cost(plan.model)), typical=True))


def _settled(plan: Plan, priced: Priced, space: Workspace) -> Priced:
    """Prices corrected, once, by what the widths that they lead to really take.

    An estimate scaled by the whole network can be wrong about what narrowing saves. Near the budget the corrected one is not.
    """
    from edgec.targets.estimator import latency_table

    prices, timing = priced.prices, priced.timing
    if prices is None or timing is None or timing.settled:
        return priced
    runtime = RUNTIMES[plan.recipe.formats[0]]
    narrowed = narrow(plan, prices, space)
    planned = prices.table.model_ms(cost(narrowed)) / (1 + RESERVE)
    found = _processor_ms([_plain(plan.recipe, narrowed, runtime, space.scratch)], Progress())[0] / planned
    factor = found if abs(found - 1) > RESERVE else 1.0
    settled = timing.model_copy(
        update={"artifact_ms": round(factor * timing.artifact_ms, 5), "settled": True}
    )
    table = latency_table(plan.target, runtime, plan.recipe.precision)
    return _anchored(plan, table, settled, space)


def _anchored(plan: Plan, table: LatencyTable, timing: Timing, space: Workspace) -> Priced:
    space.kept.write(_entry(plan.recipe), timing.model_dump_json().encode())
    scaled = table.anchored(cost(plan.model), (1 + RESERVE) * timing.artifact_ms)
    return Priced(LatencyModel(scaled, timing.source_ms), timing)


def _calibrate(runtime: str, recipe: Recipe, progress: Progress) -> None:
    from edgec.compiler.latency.calibrate import calibrate

    # fp16 is storage on the engines that have estimates for it: they compute in fp32.
    precision: Precision = "int8" if recipe.precision == "int8" else "fp32"
    calibrate(engines=(runtime,), precisions=(precision,), progress=progress)


def _known(recipe: Recipe, space: Workspace) -> Timing | None:
    """What an earlier run on this machine measured: the recipe's own word, else what the interrupted run left."""
    found = [recipe.timing] if recipe.timing is not None else []
    left = space.kept.read(_entry(recipe)) if space.settings.resume else None
    if left is not None:
        found.append(Timing.model_validate_json(left))
    return next((one for one in found if one.of == _identity(recipe)), None)


def _entry(recipe: Recipe) -> str:
    """Name of what is kept: measured anew where the machine, an engine or edgec is another one."""
    from edgec.compiler.pipeline.cache import code_version, computing

    known = json.dumps([_identity(recipe), code_version(), computing()])
    return f"timing-{hashlib.sha256(known.encode()).hexdigest()[:32]}"


def _identity(recipe: Recipe) -> str:
    from edgec.targets.estimator.coefficients import this_machine

    return f"{recipe.model.sha256} {RUNTIMES[recipe.formats[0]]} {recipe.precision} {this_machine()}"


def _measure(plan: Plan, runtime: str, space: Workspace) -> Timing:
    """Time the source model as it came in, and in the artifact's engine and precision.

    In processor time of one thread, as the calibration: a busy machine stretches wall-clock time, and widths chosen by
    stretched times would be far too narrow.
    """
    paths = [source_file(plan, space.scratch), _plain(plan.recipe, plan.model, runtime, space.scratch)]
    source, artifact = _processor_ms(paths, space.settings.progress)
    return Timing(of=_identity(plan.recipe), source_ms=round(source, 5), artifact_ms=round(artifact, 5))


def _processor_ms(paths: Sequence[Path], progress: Progress) -> list[float]:
    from edgec.compiler.latency.calibrate import measure

    rounds = progress.over("measuring the source model", range(_ROUNDS), _ROUNDS)
    found = [tuple(measure(paths)) for _ in rounds]
    return [median(times) for times in zip(*found, strict=True)]


def source_file(plan: Plan, folder: Path) -> Path:
    """The source model as a file that onnxruntime runs: itself, or its canonical graph (from torch, or with free axes)."""
    path = Path(plan.recipe.model.path)
    if path.suffix == ".onnx" and path.is_file() and not has_open_size(path):
        return path
    from edgec.compiler.emit.onnx import emit

    made = folder / "source.onnx"
    write_scratch(made, emit(plan.whole(plan.model)))
    return made


def _plain(recipe: Recipe, model: ir.Model, runtime: str, folder: Path) -> Path:
    """A float model in the run's engine and precision, with plain ranges: only its speed matters."""
    from edgec.compiler.latency.calibrate import artifacts

    precision: Precision = "int8" if recipe.precision == "int8" else "fp32"
    return artifacts("plain", _batch_one(model), (runtime,), folder)[runtime, precision]


def _batch_one(model: ir.Model) -> ir.Model:
    copy = model.clone()
    if is_free(copy):
        for value in copy.graph.inputs:
            assert value.shape is not None  # canonical graphs have shapes
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    return copy
