"""How much a run will write, and whether it fits.

An estimate from above: artifacts and kept passes go into the run's folder, activations that memory does not hold into the folder
for temporary files. What is certain is the size of the weights; what a pass spills depends on the network's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.graph.cost import ModelCost, cost
from edgec.graph.disk import free_bytes
from edgec.graph.errors import EdgecError
from edgec.graph.scratch import temporary_folder
from edgec.graph.text import size
from edgec.passes.base import Need, Pass
from edgec.passes.refit.batches import MEMORY

if TYPE_CHECKING:
    from edgec.compiler.plan.plan import Plan

FRAME = 1 << 20
"""Of the report, the recipe, the log, and the graph around the weights in each file."""
NETWORKS = 2
"""Teacher and student, of which a pass keeps the living activations at the same time."""

CORRECTED = 1.5
"""The teacher's activations, and the student's as codes of at most half their size, while quantisation is corrected."""

CHECKPOINT = 9
"""Networks in what a pass that learns keeps on the way: weights, best weights, two moments of each, beside the one before while
it is written; and the network that it leaves."""


@dataclass(frozen=True)
class Space:
    """What a run needs at most in one folder's file system, and what is free there; bytes."""

    folder: Path
    needed: int
    free: int | None
    """None where the system does not say."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"folder": str(self.folder), "needed": self.needed, "free": self.free}


def space_for(plan: Plan, out: Path | None) -> tuple[Space, ...]:
    """For the run's folder (the current one where there is none yet), and for temporary files."""
    folder = _existing(out if out is not None else Path.cwd())
    temporary = temporary_folder()
    spent = cost(plan.model)
    written, spilled = run_bytes(plan, spent), spilled_bytes(plan, spent)
    if folder.stat().st_dev == temporary.stat().st_dev:
        return (_space(folder, written + spilled),)
    return _space(folder, written), _space(temporary, spilled)


def check_space(spaces: Sequence[Space]) -> None:
    """Raise EdgecError where a run does not fit."""
    for one in spaces:
        if one.free is not None and one.needed > one.free:
            why = f"the run may need {size(one.needed)}, {size(one.free)} are free"
            hint = "Free some space, use fewer --samples, or set TMPDIR to a folder on another disk."
            raise EdgecError("not enough space on the disk", where=str(one.folder), why=why, hint=hint)


def run_bytes(plan: Plan, spent: ModelCost) -> int:
    """Artifacts in every format and precision, and the model behind every pass for ``--resume``."""
    files = len(plan.recipe.formats) * (2 if plan.recipe.precision != "fp32" else 1)
    kept = sum(CHECKPOINT if Need.TORCH in one.needs else 1 for one in plan.passes)
    return (files + kept) * (spent.weight_bytes + FRAME)


def spilled_bytes(plan: Plan, spent: ModelCost) -> int:
    """The most that one pass puts aside: living activations of every sample."""
    samples = 0 if plan.data is None else len(plan.data)
    return max((_spills(one, samples, spent.peak_activation_bytes) for one in plan.passes), default=0)


def _spills(one: Pass, samples: int, peak: int) -> int:
    if Need.DATA not in one.needs or Need.TORCH in one.needs:
        return 0  # what learns takes batch after batch
    most = getattr(one, "fit_samples", 0) or getattr(one, "samples", 0)
    if most:  # corrections keep everything in files
        return int(CORRECTED * min(samples, most) * peak)
    shown = samples * (2 if getattr(one, "hflip", "no") != "no" else 1)
    return max(0, NETWORKS * shown * peak - int(MEMORY / 2))


def _space(folder: Path, needed: int) -> Space:
    return Space(folder, needed, free_bytes(folder))


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
