"""Run passes in order: check, run, verify, measure, remember."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx_ir as ir
from threadpoolctl import threadpool_limits

from edgec.compiler.pipeline.cache import KeyMaker, PassCache
from edgec.compiler.pipeline.checks import check_needs, check_result
from edgec.compiler.pipeline.resources import measured
from edgec.graph.cost import cost
from edgec.graph.errors import EdgecError, PassError
from edgec.graph.memory import give_back
from edgec.graph.plugins import blamed
from edgec.graph.provenance import mark
from edgec.graph.resolution.resize import resized, size_of
from edgec.passes.base import Context, LayerReport, Note, Pass, PassResult
from edgec.passes.order import check_order
from edgec.passes.pipeline_string import options_of
from edgec.passes.solvers.ridge import TooLargeError
from edgec.passes.whole import guarded


@dataclass(frozen=True)
class Step:
    """One finished pass: the model it left, what it said, and what it cost."""

    one: Pass
    model: ir.Model
    modified: bool
    notes: tuple[Note, ...]
    layers: tuple[LayerReport, ...]
    data: dict[str, Any]
    seconds: float
    peak_rss_mb: float
    macs: tuple[int, int]
    params: tuple[int, int]
    cached: bool = False

    @property
    def reverted(self) -> bool:
        """The pass undid itself because it did not help."""
        return not self.modified and any(note.level == "reverted" for note in self.notes)

    def figures(self) -> dict[str, Any]:
        """JSON-able figures, for the cache, the log, and the report."""
        return {
            "name": self.one.name,
            "options": options_of(self.one),
            "modified": self.modified,
            "notes": [asdict(note) for note in self.notes],
            "layers": [asdict(layer) for layer in self.layers],
            "data": self.data,
            "seconds": self.seconds,
            "peak_rss_mb": self.peak_rss_mb,
            "macs": list(self.macs),
            "params": list(self.params),
        }


def run_pipeline(
    passes: Sequence[Pass],
    model: ir.Model,
    context: Context,
    *,
    cache: PassCache | None = None,
    resume: bool = False,
    after: Callable[[Step], None] | None = None,
) -> tuple[Step, ...]:
    """Run ``passes`` on ``model``, which stays as it is; every pass gets a copy of its own.

    With ``cache``, finished passes are stored; with ``resume``, stored ones are taken instead of run. ``after`` is called
    with each step. Raises UsageError, before any work, for an order that cannot be, what a pass raises (its name
    added), and PassError where a pass breaks its contract.
    """
    check_order(passes)
    for one in passes:
        check_needs(one, context)
    keys = KeyMaker.of(context) if cache is not None else None
    steps: list[Step] = []
    for one in context.progress.over("passes", passes, len(passes)):
        if one.name == "quantize":
            context = replace(context, reference=model)
            keys = keys.behind(model) if keys is not None else None
        key = keys.key(model, one) if keys is not None else ""
        step = _from_cache(one, cache.read(key)) if cache is not None and resume else None
        if step is None:
            unfinished = None if cache is None else cache.unfinished(key, resume=resume)
            step = _run_one(one, model, replace(context, checkpoint=unfinished))
            if cache is not None and unfinished is not None:
                cache.write(key, step.model, step.figures())
                unfinished.forget()
        steps.append(step)
        model = step.model
        if one.replaces_network and step.modified:
            context = replace(context, successor=model)
            keys = keys.after(model) if keys is not None else None
        if one.changes_input and step.modified:
            context = _at_size_of(model, context)
            keys = KeyMaker.of(context) if cache is not None else None
        if after is not None:
            after(step)
    return tuple(steps)


def _at_size_of(model: ir.Model, context: Context) -> Context:
    """What passes see behind one that changed the picture's size: data and teacher at that size."""
    size = size_of(model)
    data = None if context.data is None else context.data.at(model)
    answers = None if context.answers is None else context.answers.at(size)
    return replace(
        context,
        teacher=resized(context.teacher, size),
        data=data,
        answers=answers,
        at_source_size=context.source,
    )


def _run_one(one: Pass, model: ir.Model, context: Context) -> Step:
    before = cost(model)
    # Passes share their work out themselves (`solvers.parallel`); BLAS would take every core, whatever --threads says.
    with measured() as spent, threadpool_limits(1, user_api="blas"), blamed(one.brought):
        try:
            one.requires(model)
            result = one.run(model.clone(), context)
        except EdgecError as error:
            if error.where is None:
                error.where = f"pass {one.name}"
            raise
        except TooLargeError as error:
            raise PassError(
                "values inside the network are so large that their squares overflow",
                where=f"pass {one.name}",
                why="no layer can be fitted to them",
                hint="Check the preprocessing and the weights.",
            ) from error
        if not isinstance(result, PassResult):
            raise PassError("it returned no PassResult", where=f"pass {one.name}")
        result = guarded(one, model, result, context)
        mark(model, result.model, one.name)
        check_result(one, model, result)
    give_back()  # what this pass took from the heap: the next one asks for other sizes
    now = cost(result.model)
    return Step(
        one=one,
        model=result.model,
        modified=result.modified,
        notes=tuple(result.notes),
        layers=tuple(result.layers),
        data=dict(result.data),
        seconds=spent.seconds,
        peak_rss_mb=spent.peak_rss_mb,
        macs=(before.macs, now.macs),
        params=(before.params, now.params),
    )


def _from_cache(one: Pass, entry: tuple[ir.Model, dict[str, Any]] | None) -> Step | None:
    if entry is None:
        return None
    model, figures = entry
    return Step(
        one=one,
        model=model,
        modified=figures["modified"],
        notes=tuple(Note(**note) for note in figures["notes"]),
        layers=tuple(LayerReport.read(layer) for layer in figures["layers"]),
        data=figures["data"],
        seconds=figures["seconds"],
        peak_rss_mb=figures["peak_rss_mb"],
        macs=(figures["macs"][0], figures["macs"][1]),
        params=(figures["params"][0], figures["params"][1]),
        cached=True,
    )
