"""What a pass needs must be given, as far as that is known before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from edgec.graph.errors import UsageError
from edgec.passes.base import Need, Pass


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
