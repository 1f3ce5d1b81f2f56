"""How fast the run's artifacts are: measured where the target is this host, estimated elsewhere, never a bare number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.emit.artifacts import Emission, Emitted
from edgec.compiler.latency.prices import source_file
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.names import NAMES, RUNTIMES
from edgec.compiler.plan.plan import Plan
from edgec.graph.cost import cost
from edgec.graph.errors import EdgecError
from edgec.graph.inputs import InputSpec
from edgec.graph.read.metadata import open_sides
from edgec.targets.engines import Precision, engines_for
from edgec.targets.jetpack import TIMED_ON_THE_BOARD, measured_by

if TYPE_CHECKING:
    from edgec.runtime.measurement import Comparison, Measurement

SOURCE = "source"
_FUSED = re.compile(r"(_token_\d+|_nchwc|_nhwc|_quant)+$")
"""What onnxruntime appends to the name of a node that it fused or moved to another layout."""


@dataclass(frozen=True)
class Timings:
    """Latency objects of report.json, by artifact; ``source`` is the model that came in."""

    source: Mapping[str, Any] | None = None
    artifacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    section: Mapping[str, Any] | None = None
    per_node_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    headline: str | None = None
    """Name of the artifact that a latency budget is for."""

    @property
    def source_ms(self) -> float | None:
        """Median latency of the source model."""
        return None if self.source is None else float(self.source["median_ms"])

    @property
    def measured(self) -> bool:
        """Whether the figures were measured, not estimated."""
        return bool(self.section and self.section["measured"])

    @property
    def headline_ms(self) -> float | None:
        """Median latency of the artifact that a latency budget is for: of the first format, in the asked precision."""
        found = self.artifacts.get(self.headline or "")
        return None if found is None else float(found["median_ms"])


def measure(plan: Plan, emission: Emission, space: Workspace) -> Timings:
    """Measure on this host, or estimate for another target. A failure to do so is a warning, not the end of the run.

    Unmeasured (``--no-bench``), this host is estimated for too where there is a latency budget.
    """
    asked = plan.recipe.formats[0], plan.recipe.precision
    headline = next(one.name for one in emission.files if (one.format, one.precision) == asked)
    if plan.target.dialect == "tensorrt":
        note = not_measured(plan.recipe.precision)
        return Timings(section={"measured": False, "note": note}, warnings=(note,), headline=headline)
    if plan.target.name == "host":
        if space.settings.measure:
            return _measured(plan, emission.files, headline, space)
        if not plan.has_latency_budget:
            return Timings(section={"measured": False, "note": "not measured: --no-bench"}, headline=headline)
    return _estimated(plan, emission, headline)


def not_measured(precision: Precision) -> str:
    """What is said of an engine that TensorRT has yet to build: what it fuses is decided on the board, by timing."""
    how = measured_by(NAMES["onnx", precision])
    return f"not measured: {TIMED_ON_THE_BOARD}; `{how}` builds and times it there"


def _measured(plan: Plan, emitted: Sequence[Emitted], headline: str, space: Workspace) -> Timings:
    from edgec.runtime.bench import BenchOptions, compare
    from edgec.runtime.devices import open_device

    paths = [source_file(plan, space.scratch)]
    paths += [one.path for one in emitted if one.path.suffix == ".onnx" or _has_litert()]
    warnings = [] if len(paths) == len(emitted) + 1 else _unmeasured(paths, emitted)
    if len(paths) < 2:
        paths = paths * 2
    shapes = _shapes(plan.model)
    try:
        with space.settings.progress.counting("measuring"), open_device("local") as device:
            found = compare(paths, BenchOptions(seconds=1.0, restarts=2, shapes=shapes), device)
            layers = _profile(plan, emitted, shapes, device)
    except EdgecError as error:
        return Timings(
            section={"measured": False, "note": f"not measured: {error}"},
            warnings=(*warnings, f"latency was not measured: {error}"),
            headline=headline,
        )
    records = {Path(m.artifact).name: measured_record(m) for m in found.measurements}
    names = {one.name for one in emitted}
    first = found.measurements[0]
    return Timings(
        source=measured_record(first),
        artifacts={name: record for name, record in records.items() if name in names},
        section={"measured": True, "comparison": _comparison(found)},
        per_node_ms=layers,
        warnings=tuple(warnings),
        headline=headline,
    )


def _unmeasured(paths: Sequence[Path], emitted: Sequence[Emitted]) -> list[str]:
    if all(one.path in paths for one in emitted):
        return []
    return ["TFLite files were not measured: no TFLite runtime is installed (pip install 'edgec[tflite]')"]


def _has_litert() -> bool:
    return any(one.installed for one in engines_for("tflite"))


def _shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """What is measured of a network whose picture has no size of its own, by input; else what the files say."""
    return {one.name: (1, *one.shape) for one in InputSpec.of(model)} if open_sides(model) else {}


def _profile(
    plan: Plan, emitted: Sequence[Emitted], shapes: Mapping[str, Sequence[int]], device: Any
) -> dict[str, float]:
    """Milliseconds per node of the headline's ONNX twin; nodes that the runtime fused into others are absent."""
    from edgec.runtime.bench import BenchOptions, profile

    precision = plan.recipe.precision
    twin = next((one for one in emitted if one.format == "onnx" and one.precision == precision), None)
    if twin is None:
        return {}
    rows = profile(twin.path, BenchOptions(seconds=0.5, shapes=shapes), device)
    return {_FUSED.sub("", row.name): row.us / 1000 for row in rows}


def measured_record(measurement: Measurement) -> dict[str, Any]:
    """A measurement as the report's `Latency` has it."""
    keys = (
        "median_ms", "p10_ms", "p90_ms", "p99_ms", "runs", "load_ms", "first_ms", "peak_rss_mb", "valid", "threads",
        "emulated",
    )  # fmt: skip
    values = measurement.to_dict()
    return {
        "measured": True,
        "device": "host" if measurement.device == "local" else measurement.device,
        "runtime": measurement.runtime,
        "invalid": list(measurement.invalid),
        "notices": list(measurement.notices),
        "machine": {
            "before": dict(measurement.before),
            "after": dict(measurement.after),
            **({"power_w": dict(measurement.power_w)} if measurement.power_w else {}),
        },
        **{key: values[key] for key in keys},
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    first = found.measurements[0]
    return {
        "baseline": SOURCE,
        "ratios": [
            {"path": Path(r.artifact).name, "ratio": r.ratio, "p10": r.p10, "p90": r.p90, "rounds": r.rounds}
            for r in found.ratios
        ],
        "runtime": first.runtime,
        "device": "host",
        "threads": first.threads,
    }


def _estimated(plan: Plan, emission: Emission, headline: str) -> Timings:
    from edgec.targets.estimator import estimate

    found: dict[str, Mapping[str, Any]] = {}
    per_node: Mapping[str, float] = {}
    warnings: list[str] = []
    source: Mapping[str, Any] | None = None
    try:
        default = RUNTIMES[emission.files[0].format] if emission.files else "onnxruntime"
        source = _estimate_record(estimate(cost(plan.model), plan.target, runtime=default, precision="fp32"))
        for one in emission.files:
            # Costs are counted on the float graph: QDQ pairs are number formats, not work.
            guess = estimate(
                cost(emission.models["fp32"]),
                plan.target,
                runtime=RUNTIMES[one.format],
                precision=one.precision,
            )
            found[one.name] = _estimate_record(guess)
            if one.name == headline:
                per_node = guess.per_node_ms
    except EdgecError as error:
        warnings.append(f"no latency estimate: {error}")
    section = {"measured": False, "note": "estimated" if found else "no estimate"}
    if any("tensorrt" in one.runtimes for one in plan.target.accelerators):
        section["accelerator"] = "tensorrt"
    return Timings(source, found, section, per_node, tuple(warnings), headline)


def _estimate_record(guess: Any) -> dict[str, Any]:
    return {
        "measured": False,
        "median_ms": guess.ms,
        "device": guess.target,
        "runtime": guess.runtime,
        "threads": guess.threads,
        "low_ms": guess.low_ms,
        "high_ms": guess.high_ms,
        "error_pct": guess.validation_error_pct,
        "basis": guess.basis,
    }
