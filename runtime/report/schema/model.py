"""The model that came in, the files that went out, and the size of their pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgec.runtime.report.schema.fields import Figure, Part, RunPath
from edgec.runtime.report.schema.latency import Latency
from edgec.runtime.report.schema.quality import Quality


class ModelInput(Part):
    """One input of the model: the shape of one sample, the type of its numbers, and how pictures lie in it."""

    name: str
    shape: tuple[Annotated[int, Field(ge=0, lt=1 << 31)], ...]
    dtype: Literal[
        "float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64",
    ]  # fmt: skip
    channels_last: bool = False


class SourceModel(Part):
    """The model that came in."""

    name: str
    sha256: str
    macs: int
    params: int
    bytes: int
    latency: Latency | None = None
    inputs: tuple[ModelInput, ...] = ()
    """Empty in reports of edgec 0.1."""
    task: str = ""
    labels: tuple[str, ...] = ()
    """Names of classes, where the model or a file beside it has them."""


class Compressed(Part):
    """The float network after all passes, before quantisation changes its number format."""

    macs: int
    params: int


class Artifact(Part):
    """One file of the run. ``latency`` is on the run's target, ``others`` on further devices or runtimes."""

    path: RunPath
    format: str
    precision: Literal["fp32", "fp16", "int8", "mixed"]
    bytes: int
    sha256: str
    quality: Quality | None = None
    latency: Latency | None = None
    others: tuple[Latency, ...] = ()


class SizePoint(Part):
    """One input size that was compared: the loss on calibration samples that no pass saw, and what it costs.

    ``alone``: of the network at that size with its weights as they are; ``loss``: of it under the budget, None where that was
    not tried. Losses are in the unit that `Resolution.measure` names.
    """

    size: tuple[int, int]
    share: float
    """Of the source's cost in the budget's unit, without the budget's passes."""
    alone: Figure = None
    expected: Figure = None
    """The loss under the budget that ``alone`` and the source's own curve let one expect; what is tried is chosen by it."""
    loss: Figure = None
    error: Figure = None
    """Standard error of the difference to keeping the size, paired by sample."""
    why: str = ""
    """The size cannot be: the node that forbids it, and why."""


class Resolution(Part):
    """The input's height and width, of the source and of the artifacts."""

    source: tuple[int, int]
    size: tuple[int, int]
    inputs: tuple[ModelInput, ...] = ()
    """Of the artifacts."""
    measure: str = ""
    points: tuple[SizePoint, ...] = ()
    """What ``--resolution auto`` compared."""

    @property
    def sizes(self) -> dict[str, list[int]]:
        """For a bundle: boxes in pixels are pixels of ``size``, and were pixels of ``source``."""
        return {"source": list(self.source), "size": list(self.size)}
