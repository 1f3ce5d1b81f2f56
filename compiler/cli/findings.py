"""What a target's runtime would say to a file, for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.compiler.cli.echo import echo
from edgec.graph.errors import UsageError

if TYPE_CHECKING:
    from edgec.compiler.check.finding import Finding


def findings_of(model: str, target: str | None, jetpack: str | None) -> tuple[Finding, ...] | None:
    """None where no target was named, or where the model is no file of a runtime. Raises UsageError, ModelError."""
    if target is None:
        if jetpack is not None:
            raise UsageError(
                "--jetpack without --target", hint="Add --target jetson-orin-nano, or another Jetson."
            )
        return None
    from edgec.compiler.check.check import check_file
    from edgec.targets import target as find_target

    described = find_target(target).on(jetpack)
    path = Path(model)
    if path.suffix not in (".onnx", ".tflite") or not path.is_file():
        return None
    return check_file(path, described)


def is_refused(found: Sequence[Finding] | None) -> bool:
    """Whether the runtime would refuse the file."""
    return any(one.level == "error" for one in found or ())


def as_json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [vars(one) for one in found]


def print_findings(found: Sequence[Finding] | None, target: str) -> None:
    """One line each, and how many of each level there are."""
    if found is None:
        return
    from edgec.compiler.check.finding import LEVELS

    counts = {level: sum(one.level == level for one in found) for level in LEVELS}
    told = ", ".join(f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count)
    echo(f"rules    {target}: {told or 'nothing found'}")
    for one in found:
        echo(f"         {one}")
