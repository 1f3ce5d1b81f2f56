"""What a report says of the GPU of its board, whose times nothing but a measurement can give."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Latency, Report


def unmeasured(report: Report) -> list[str]:
    """That the target's GPU was not measured, with the command that does it; nothing where it was, or where there is none."""
    if report.latency is None or not report.latency.accelerator:
        return []
    timed = [one for a in report.artifacts for one in (a.latency, *a.others) if one is not None]
    if any(one.runtime.startswith(report.latency.accelerator) and not one.emulated for one in timed):
        return []
    name = {"tensorrt": "TensorRT"}.get(report.latency.accelerator, report.latency.accelerator)
    command = "edgec deploy RUN -o bundle --device ssh://user@host"
    return [
        f"On the GPU ({name}): not measured, and there is nothing to estimate it by; `{command}` measures it there."
    ]


def kind_of_time(latency: Latency) -> tuple[bool, bool]:
    """Whether it was measured, and whether on the GPU: only times of one kind make a ratio."""
    return latency.measured, latency.runtime.startswith("tensorrt")
