"""All figures of one run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgec.runtime.report.schema.fields import Figure, Options, Part
from edgec.runtime.report.schema.latency import LatencySection
from edgec.runtime.report.schema.model import Artifact, Compressed, ModelInput, Resolution, SourceModel
from edgec.runtime.report.schema.passes import Layer, PassRun, Portfolio, Tradeoff
from edgec.runtime.report.schema.quality import Metric, Quality
from edgec.runtime.report.schema.samples import Classes, Strip

SCHEMA = 1
Stage = Literal["teacher", "float", "fp16", "int8"]


class Gate(Part):
    """One condition on the run: what was asked (``limit``), what came out (``value``)."""

    name: str
    passed: bool
    value: float | str | None = None
    limit: float | str | None = None
    why: str = ""


class DataInfo(Part):
    """The calibration data (``random``: noise that was asked for), and the evaluation data if any."""

    name: str
    samples: int
    fingerprint: str
    random: bool = False
    eval_name: str | None = None
    eval_samples: int | None = None
    eval_fingerprint: str | None = None


class Report(Part):
    """All figures of one run."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    edgec: str
    """Version of edgec."""
    model: SourceModel
    target: str
    target_title: str = ""
    compressed: Compressed
    quality: dict[Stage, Quality] = {}
    metrics: tuple[Metric, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    headline: str | None = None
    """Path of the artifact that the headline speaks of: the one that a latency budget is for, else the fastest of the smallest
    precision. None where the run has no artifact, and in reports of edgec 0.1: there the page picks the fastest.
    """
    passes: tuple[PassRun, ...] = ()
    gates: tuple[Gate, ...] = ()
    latency: LatencySection | None = None
    layers: tuple[Layer, ...] = ()
    tradeoff: Tradeoff | None = None
    strip: Strip | None = None
    classes: Classes | None = None
    resolution: Resolution | None = None
    """Where the input has another size than the source's, or others were compared."""
    portfolio: Portfolio | None = None
    """Where forms of compression were compared."""
    recipe: Options = {}
    command: str = ""
    """The command that reproduces the run, to be pasted; empty: one is made from ``recipe.yaml``."""
    environment: Options = {}
    data: DataInfo | None = None
    doubts: tuple[str, ...] = ()
    """About the inputs: prepared otherwise than the network expects, alike, of one value."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_rss_mb: Figure = None

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """Of the artifacts."""
        return self.model.inputs if self.resolution is None else self.resolution.inputs

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    def to_json(self) -> str:
        """The text of ``report.json``: every key present, None where the run has no such part."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"
