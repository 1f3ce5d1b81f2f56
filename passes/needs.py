"""What passes and their files need must be given, as far as that is known before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edgec.graph.errors import UsageError
from edgec.passes.base import Need, Pass
from edgec.passes.defaults import PRECISION_PASSES
from edgec.targets.engines import engines_for
from edgec.targets.jetpack import TIMED_ON_THE_BOARD, measured_by

if TYPE_CHECKING:
    from edgec.targets import Target
    from edgec.targets.engines import Precision


def check_given(one: Pass, *, data: bool, labels: bool, target: bool) -> None:
    """Raise UsageError, naming the pass, where something it needs is not there."""
    where = f"pass {one.name}"
    if Need.DATA in one.needs and not data:
        hint = "Add --data FOLDER (unlabelled inputs), or ask for noise with --data random."
        raise UsageError("needs calibration data", where=where, hint=hint)
    if Need.LABELS in one.needs and not labels:
        raise UsageError(
            "needs labelled data", where=where, hint="Give an .npz with x and y, or a labels CSV."
        )
    if Need.TARGET in one.needs and not target:
        raise UsageError("needs a target", where=where, hint="Add --target; see `edgec targets list`.")
    if Need.TORCH in one.needs and find_spec("torch") is None:
        raise UsageError("needs torch", where=where, hint="pip install 'edgec[torch]'")


def check_codes(io_type: str, passes: Sequence[Pass], target: Target) -> None:
    """Raise UsageError where no file of the run can take and give codes."""
    where = f"--io-type {io_type}"
    if not any(PRECISION_PASSES.get(one.name) == "int8" for one in passes):
        hint = "Add --precision int8, or leave it out."
        raise UsageError("it is about int8 files, and the run makes none", where=where, hint=hint)
    if target.dialect == "tensorrt":
        why = "its int8 files are built into engines that take and give real numbers"
        raise UsageError(f"no codes at the ends for {target.title}", where=where, why=why)


def check_latency(target: Target, file_format: str, precision: Precision) -> None:
    """Raise UsageError for a latency budget on a target of which no latencies are known."""
    from edgec.targets.estimator import latency_table

    if target.dialect == "tensorrt":
        why = f"{TIMED_ON_THE_BOARD}: no latency of it is known before"
        hint = f"Take a budget in macs, and measure: {measured_by('RUN')}."
        raise UsageError(f"no latency budget for {target.title}", why=why, hint=hint)
    if target.name != "host":
        latency_table(target, engines_for(file_format)[0].package, precision)
