"""Which passes a run takes when nobody names them."""

from __future__ import annotations

import dataclasses
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.graph.errors import UsageError
from edgec.graph.plugins import blamed
from edgec.graph.values import TIME, seconds
from edgec.passes.base import NUMBER_FORMATS, Pass
from edgec.passes.budget import Budget, budgets_in, parse_budget
from edgec.passes.learned.extra import has_torch
from edgec.passes.learning import Learning
from edgec.passes.options import AUTO, KEEP
from edgec.passes.order import check_order
from edgec.passes.pipeline_string import make_pass, parse_pipeline

if TYPE_CHECKING:
    from edgec.targets.engines import Precision

PRECISION_PASSES: dict[str, Precision] = {"quantize": "int8", "cast-fp16": "fp16"}
"""Passes after which the graph is no longer plain float32, and what it is then."""

REFINE, REFINE_QUANTIZED = "refine", "refine-quantized"
WORTH_LEARNING = "5%"
"""Of the answers on held-out views: what the closed forms must have changed for ``--learn auto``, and rounding for either. Below
it, learning gained nothing that could be measured (docs/learned.md)."""

BYTES_PER_WEIGHT = {"int8": "1.01", "fp16": "2"}
"""In the file that ships; int8 has int32 biases beside its weights. What is not listed takes 4."""


def choose_passes(
    named: tuple[Pass, ...] | None,
    *,
    budget: str | None = None,
    precision: Precision = "fp32",
    resolution: str = KEEP,
    portfolio: bool = False,
    learn: str = "off",
    time: str | None = None,
    keep_quantized: bool = False,
) -> tuple[Pass, ...]:
    """The ``named`` passes, or the default ones for ``budget``; then what ``precision`` needs, unless it is there already.

    A budget goes to the first named pass that has an option for it and leaves it open. Raises UsageError for passes that lack
    something that only the caller could give.
    """
    wanted = None if budget is None else parse_budget(budget)
    passes = named
    if passes is None:
        passes = () if wanted is None else _compression(wanted, precision)
    elif wanted is not None:
        passes = _with_budget(passes, wanted)
    passes += _quantisation(precision, passes)
    if keep_quantized:
        passes = _keeping_scales(passes)
    passes = with_learning(passes, learn, time)
    passes = with_resolution(passes, resolution)
    if portfolio:
        _check_forms(passes)
    check_order(passes)
    for one in passes:
        with blamed(one.brought):
            one.complete()
    return passes


def _check_forms(passes: tuple[Pass, ...]) -> None:
    from edgec.passes.compress import Compress

    if not any(isinstance(one, Compress) for one in passes):
        why = "it compares forms of compress, and no pass is that"
        raise UsageError(
            "--portfolio has no effect here", why=why, hint="Leave out --passes, or name compress."
        )


def with_resolution(passes: tuple[Pass, ...], resolution: str) -> tuple[Pass, ...]:
    """``passes`` behind `resize-input` where ``resolution`` is a size. Raises UsageError where they name another one."""
    from edgec.passes.resize_input import ResizeInput

    named = next((one for one in passes if isinstance(one, ResizeInput)), None)
    if resolution == KEEP or (named is not None and named.size == resolution):
        return passes
    if named is not None:
        why = f"the passes have {named.name}{{size={named.size}}}"
        raise UsageError(f"resolution {resolution} and the named passes disagree", why=why)
    return passes if resolution == AUTO else (ResizeInput(size=resolution), *passes)


def with_learning(passes: tuple[Pass, ...], learn: str, time: str | None) -> tuple[Pass, ...]:
    """``passes`` with `refine` behind what compresses, in front of what changes the number format, and `refine-quantized` behind
    `quantize`, where the run learns; what the command adds shares ``time``.

    ``auto`` leaves them out where torch is absent (`learning_remarks` say so). Raises UsageError where there is nothing to learn,
    and for a time that nothing takes.
    """
    if learn == "off" and time is not None and not any(isinstance(one, Learning) for one in passes):
        hint = "Add --learn on, or leave it out."
        raise UsageError("--time has no effect here", why="nothing is learned", hint=hint)
    if learn != "off" and not any(one.changes_function for one in passes):
        hint = "Add --budget, --precision int8, or passes that compress."
        raise UsageError(f"--learn {learn} has nothing to make up for", hint=hint)
    learns = learn == "on" or (learn == "auto" and has_torch())
    added = _learners(passes, learn) if learns else {}
    if time is not None:
        passes = tuple(_within(one, time) for one in passes)
        added = {place: _within(one, _shared(time, len(added))) for place, one in added.items()}
    for place in sorted(added, reverse=True):
        passes = (*passes[:place], added[place], *passes[place:])
    return passes


def _learners(passes: tuple[Pass, ...], learn: str) -> dict[int, Pass]:
    """What learns besides ``passes``, by the place in front of which it stands."""
    found: dict[int, Pass] = {}
    names = [one.name for one in passes]
    place = len(in_float(passes))
    if REFINE not in names and any(one.changes_function for one in passes[:place]):
        found[place] = make_pass(REFINE, {"above": WORTH_LEARNING} if learn == "auto" else {})
    if REFINE_QUANTIZED not in names and "quantize" in names:
        found[len(passes)] = make_pass(REFINE_QUANTIZED, {"above": WORTH_LEARNING})
    return found


def in_float(passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Those in front of the first that changes the number format."""
    return tuple(takewhile(lambda one: one.name not in NUMBER_FORMATS, passes))


def _shared(time: str, parts: int) -> str:
    """Each one's part of ``time``."""
    return time if parts < 2 else f"{max(seconds(time, TIME) / parts, 1.0):g}s"


def _within(one: Pass, time: str) -> Pass:
    """``one``, which may take ``time`` where it learns and nobody gave it another one."""
    changes: dict[str, Any] = {"time": time}
    open_ = isinstance(one, Learning) and one.time == Learning.time
    return dataclasses.replace(one, **changes) if open_ else one


def learning_remarks(learn: str, passes: tuple[Pass, ...]) -> tuple[str, ...]:
    """Why ``--learn auto`` does not learn; nothing where it does, or where nobody asked."""
    if learn != "auto" or any(one.name in (REFINE, REFINE_QUANTIZED) for one in passes):
        return ()
    return ("--learn auto: torch is not installed, so nothing is learned (pip install 'edgec[torch]')",)


def with_merged_layers(passes: tuple[Pass, ...], model: ir.Model, *, named: bool) -> tuple[Pass, ...]:
    """``passes`` behind `merge-layers`, where ``model`` has layers that are one layer, and nobody ``named`` the passes."""
    from edgec.passes.merge_layers import MergeLayers, has_layers_to_merge

    if named or not has_layers_to_merge(model):
        return passes
    return (MergeLayers(), *passes)


def precision_of(passes: tuple[Pass, ...], asked: Precision) -> Precision:
    """What the artifact to ship is stored in: ``asked`` where the passes make it or make none, else what they end in."""
    found = [PRECISION_PASSES[one.name] for one in passes if one.name in PRECISION_PASSES]
    return asked if asked in found or not found else found[-1]


def _compression(budget: Budget, precision: str) -> tuple[Pass, ...]:
    options = dict([budget.option])
    if budget.unit == "size" and precision in BYTES_PER_WEIGHT:
        options["bytes_per_weight"] = BYTES_PER_WEIGHT[precision]
    return (make_pass("compress", options), *parse_pipeline("recover-lsq"))


def _with_budget(passes: tuple[Pass, ...], budget: Budget) -> tuple[Pass, ...]:
    name, value = budget.option
    if any(budgets_in(one).get(name) == value for one in passes):
        return passes
    for index, one in enumerate(passes):
        if budgets_in(one).get(name) == "":
            filled = dataclasses.replace(one, **{name: value})
            return (*passes[:index], filled, *passes[index + 1 :])
    why = f"none of the named passes has an open option {name!r}"
    raise UsageError("--budget has no effect here", why=why, hint="Leave out --passes, or name compress.")


def _keeping_scales(passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
    if not any(one.name == "quantize" for one in passes):
        hint = "Add --precision int8, or leave it out."
        raise UsageError("--keep-quantized has no effect here", why="nothing is quantised", hint=hint)
    changes: dict[str, Any] = {"scales": "source"}
    return tuple(dataclasses.replace(one, **changes) if one.name == "quantize" else one for one in passes)


def _quantisation(precision: str, passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
    present = {PRECISION_PASSES[one.name] for one in passes if one.name in PRECISION_PASSES}
    if present and precision not in present and precision != "fp32":
        raise UsageError(
            f"--precision {precision} and the named passes disagree", why=f"they end in {present.pop()}"
        )
    if precision == "int8" and not present:
        return parse_pipeline("quantize")
    if precision == "fp16" and not present:
        return parse_pipeline("cast-fp16")
    return ()
