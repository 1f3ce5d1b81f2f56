"""TensorRT engines of a bundle on its board: built there, measured there, or the reason why there are none."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.graph.errors import EdgecError
from edgec.runtime.bench import Artifact, BenchOptions, bench
from edgec.runtime.devices import Device, run_job
from edgec.runtime.replies import Build, Engine, Failure, not_understood, parse, words

if TYPE_CHECKING:
    from edgec.runtime.measurement import Measurement

TENSORRT = "tensorrt"
BUILD_SECONDS = 4 * 3600.0
"""A Jetson Nano builds for an hour where an Orin takes minutes."""


@dataclass(frozen=True)
class Engines:
    """One row per .onnx file of the bundle; ``why``: there is none at all, since the board has no TensorRT."""

    rows: tuple[Engine, ...] = ()
    why: str | None = None

    @property
    def built(self) -> tuple[str, ...]:
        """Names of the artifacts that have an engine."""
        return tuple(row.artifact for row in self.rows if row.engine is not None)

    def lines(self) -> list[str]:
        """What came of it, for people."""
        if self.why is not None:
            return [f"nothing on the GPU: {self.why}"]
        return [_line(row) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"why": self.why, "rows": [row.model_dump() for row in self.rows]}


def build_engines(
    folder: str, names: Sequence[str], device: Device, notify: Callable[[str], None]
) -> Engines:
    """Build what the bundle in ``folder`` there lacks. Raises DeviceError where the device does not answer."""
    files = " ".join(map(shlex.quote, names))
    command = f"cd {shlex.quote(folder)} && .venv/bin/python edgec-agent.pyz build {files}"
    done = run_job(device, ["sh", "-c", command], timeout=BUILD_SECONDS, notify=notify)
    answer = parse(Build, done.stdout.rstrip().rpartition("\n")[2], device.name)
    if isinstance(answer, Failure):
        return Engines(why=answer.error)
    if {row.artifact for row in answer.engines} != set(names):
        said = ", ".join(row.artifact for row in answer.engines) or "nothing"
        raise not_understood(f"the engines are of {words(said, most=200)}", device.name)
    return Engines(answer.engines)


def measure_engines(
    folder: str,
    paths: Sequence[Path],
    source: Path | None,
    options: BenchOptions,
    device: Device,
    notify: Callable[[str], None],
) -> tuple[tuple[Measurement, ...], Measurement | None]:
    """Times of the engines of ``paths`` that lie in ``folder`` there, and of ``source`` where an engine of it can be had."""
    artifacts = [Artifact(path, TENSORRT, f"{folder}/{path.name}") for path in paths]
    measured = bench(artifacts, options, device, notify)
    if source is None:
        return measured, None
    try:
        (before,) = bench([Artifact(source, TENSORRT)], options, device, notify)
    except EdgecError as error:
        notify(f"the model before has no time on the GPU: {error}")
        return measured, None
    return measured, before


def _line(row: Engine) -> str:
    if row.engine is None:
        return f"no engine of {row.artifact}: {row.why}"
    took = "" if row.seconds is None else f" in {row.seconds:.0f} s"
    how = "was there" if row.kept else f"built{took}"
    return f"engine {row.artifact}: {row.kind}, {how}"
