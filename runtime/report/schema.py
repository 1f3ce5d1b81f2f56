"""The object in ``report.json``: every figure of one run (design section 6).

Units: bytes, milliseconds for latencies, seconds for passes and runs, MiB for memory, decibels for SQNR.
``top1``, ``agreement``, shares, and predicted errors are fractions (0.786, not 78.6). Paths are relative to
the run folder. Parts that a run does not have are None or empty, and the page leaves them out.

Figures may come as numpy scalars. A figure that is not finite becomes None, except an SQNR: identical
outputs have an infinite one, which is stored as `IDENTICAL_DB` because JSON has no infinity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from edgec.graph.provenance import Origin

SCHEMA = 1
IDENTICAL_DB = 200.0
"""What an SQNR of this height or more is stored as: the outputs are the same to the last float32 bit."""


def plain(value: Any) -> Any:
    """``value`` in JSON types: numpy, tuples, and paths are converted; what is not finite becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, str):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def _decibels(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else min(value, IDENTICAL_DB) if value > 0 else plain(value)
    return value


def _relative(path: Any) -> Any:
    if not isinstance(path, str):
        return path  # refused by its type
    if (
        not path
        or PurePosixPath(path).is_absolute()
        or PureWindowsPath(path).drive
        or ".." in PurePosixPath(path).parts
    ):
        raise ValueError(f"{path!r} is not a path inside the run folder")
    return path


Figure = Annotated[float | None, BeforeValidator(plain)]
Decibels = Annotated[float | None, BeforeValidator(_decibels)]
Options = Annotated[dict[str, JsonValue], BeforeValidator(plain)]
RunPath = Annotated[str, BeforeValidator(_relative)]
Stage = Literal["teacher", "float", "fp16", "int8"]


class Part(BaseModel):
    """Base of all parts: immutable, and strict about unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=()
    )


class Detection(Part):
    """Boxes of the source model from score ``threshold`` on, after suppression, and what became of them."""

    threshold: float
    boxes: int
    """Of the source, on all images."""
    lost: int
    """Boxes of the source without one of the same class, above the same score, that overlaps them by half."""
    new: int
    """Boxes that the source does not have."""
    score_shift: Figure = None
    """Mean absolute difference of the scores of boxes that both have."""


class Measure(Part):
    """One figure of the task's own over ``samples`` samples, with its 95% interval, against the source's answers or labels.

    ``unit``: ``%`` for shares of 1 (0.981, not 98.1). ``lost`` and ``won`` of ``count`` ``of`` (inputs, boxes, ...): where two
    networks see the same samples. ``change``: the difference to the source's own figure, paired by sample.
    """

    name: str
    value: Figure
    samples: int
    against: Literal["source", "labels"] = "source"
    unit: str = "%"
    low: Figure = None
    high: Figure = None
    interval: Literal["", "wilson", "bootstrap"] = ""
    lower_is_better: bool = False
    best: Figure = 1.0
    """The value where everything is as it should be; None where there is none, such as for decibels."""
    of: str = "inputs"
    count: int | None = None
    lost: int | None = None
    won: int | None = None
    change: Figure = None
    change_low: Figure = None
    change_high: Figure = None
    evaluator: str = ""
    """The library that computed it, and its version; empty for edgec."""


class Quality(Part):
    """How well outputs match over ``images`` inputs: ``top1`` with labels, the others with the teacher."""

    images: int
    top1: Figure = None
    agreement: Figure = None
    """Share of inputs with the same top-1 answer as the teacher."""
    sqnr_db: Decibels = None
    """Of the worst part (before 0.2: of all outputs together)."""
    kl: Figure = None
    """Mean Kullback-Leibler divergence from the teacher's softmax, in nats."""
    cosine: Figure = None
    detection: Detection | None = None
    """Of detectors whose head is known."""
    measures: tuple[Measure, ...] = ()
    """In the task's own terms, the one that says most first. Empty in reports of edgec 0.1."""
    outputs: dict[str, Decibels] = {}
    """SQNR of each output by name, and of each part of one that joins several (``output[:, 0:4]``), where there are several."""

    @property
    def boxes_kept(self) -> float | None:
        """Share of the source's boxes that are still found; None where nothing was to be found."""
        found = self.detection
        return 1.0 - found.lost / found.boxes if found is not None and found.boxes else None


class LatencySample(Part):
    """One window of a sustained run, ``t`` seconds after its start."""

    t: float
    median_ms: float
    p90_ms: Figure = None
    temperature_c: Figure = None
    clock_mhz: Figure = None


class Latency(Part):
    """Latency of one artifact, measured or estimated.

    An estimate carries its validation error (``error_pct``), its ``basis``, and where known a range
    (``low_ms``, ``high_ms``). A measurement that is not ``valid`` says why in ``invalid``.
    """

    measured: bool
    median_ms: float
    device: str = "host"
    runtime: str = ""
    """Engine and version, such as 'onnxruntime 1.31.1'."""
    threads: int = 1
    p10_ms: Figure = None
    p90_ms: Figure = None
    p99_ms: Figure = None
    runs: int | None = None
    load_ms: Figure = None
    first_ms: Figure = None
    peak_rss_mb: Figure = None
    valid: bool = True
    invalid: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    emulated: bool = False
    """On an emulated board: the time is no latency, whatever it says."""
    error_pct: Figure = None
    basis: str = ""
    low_ms: Figure = None
    high_ms: Figure = None
    samples: tuple[LatencySample, ...] = ()
    machine: Options = {}
    """Clock, governor, temperature, and throttling, before and after."""


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


class Size(Part):
    """What a network costs at one point of the pipeline."""

    macs: int
    params: int
    nodes: int | None = None


class PassNote(Part):
    """One thing that a pass said; ``reverted`` notes say what was put back and why."""

    text: str
    level: Literal["info", "warning", "reverted"] = "info"
    node: str | None = None


class FitChoice(Part):
    """A decision about a layer: ``margin`` is the gain over what was asked (above 1: kept), ``floor`` the noise in its unit."""

    what: str
    kept: bool = True
    margin: Figure = None
    floor: Figure = None


class FittedLayer(Part):
    """One fitted layer: errors relative to the energy of the fit's target, on held-out rows."""

    node: str
    rows: int
    unknowns: int
    condition: Figure = None
    error_before: Figure = None
    error_after: Figure = None
    kept: bool = True
    note: str = ""
    choices: tuple[FitChoice, ...] = ()


class Answered(Part):
    """One input, and what both networks answer: JSON objects as the task writes them, which `report.drawings` draws.

    ``error``: how far the answers are apart, in the task's own terms. ``picture``: a JPEG of what the network sees, in base64.
    """

    name: str
    why: Literal["typical", "changed", "largest"]
    error: Figure = None
    changed: bool = False
    right: str = ""
    """The label, where there is one."""
    picture: str = Field(default="", max_length=200_000, pattern=r"^[A-Za-z0-9+/=]*$")
    before: Options = {}
    after: Options = {}


class Strip(Part):
    """Inputs to look at, chosen from all ``samples`` that judged ``artifact``, of which ``changed`` have another answer."""

    artifact: RunPath
    samples: int
    changed: int
    error: str
    """What ``Answered.error`` is."""
    inputs: tuple[Answered, ...] = Field(default=(), max_length=64)


class ClassRow(Part):
    """One class among the labelled inputs: how many there are, and how many both networks name right."""

    label: int
    name: str = ""
    count: int
    before: int
    after: int


class Confused(Part):
    """``count`` labelled inputs of class ``label`` that the artifact calls ``answer``; ``before``: the source does so too."""

    label: int
    answer: int
    count: int
    before: int = 0


class Classes(Part):
    """What became of each class, on ``samples`` labelled inputs; ``confused``: the pairs that are mistaken most."""

    artifact: RunPath
    samples: int
    rows: tuple[ClassRow, ...]
    confused: tuple[Confused, ...] = ()


class PassRun(Part):
    """One pass of the pipeline, in order."""

    name: str
    options: Options = {}
    seconds: float = 0.0
    peak_rss_mb: Figure = None
    notes: tuple[PassNote, ...] = ()
    layers: tuple[FittedLayer, ...] = ()
    data: Options = {}
    reverted: bool = False
    cached: bool = False
    before: Size | None = None
    after: Size | None = None
    quality: Quality | None = None
    """Of the network as this pass left it, measured; None where it was not."""


class Gate(Part):
    """One condition on the run: what was asked (``limit``), what came out (``value``)."""

    name: str
    passed: bool
    value: float | str | None = None
    limit: float | str | None = None
    why: str = ""


class Ratio(Part):
    """Time of ``path`` over the time of the baseline: median and spread over interleaved rounds."""

    path: str
    ratio: float
    p10: Figure = None
    p90: Figure = None
    rounds: int | None = None


class Comparison(Part):
    """An interleaved session. ``baseline`` is an artifact's path, or 'source': the model that came in."""

    baseline: str
    ratios: tuple[Ratio, ...]
    runtime: str = ""
    device: str = "host"
    threads: int = 1


class LatencySection(Part):
    """How latencies of this run were found."""

    measured: bool
    comparison: Comparison | None = None
    note: str = ""
    accelerator: str = ""
    """'tensorrt' where the target's GPU can run the artifacts, too."""


class Layer(Part):
    """One node, before and after; a node that is gone has zeros after, a new one zeros before.

    ``latency_share`` is the share of the artifact's latency; ``sqnr_db`` the
    signal-to-quantisation-noise ratio of the node's output in the int8 artifact; ``error`` the relative
    squared error of the float network there. ``made_by`` is the pass that made the node ('source': it stands in the source model,
    'reading': it came from bringing that to its canonical form), ``source`` the node of the source model that it stands for.
    """

    name: str
    op: str
    macs_before: int = 0
    macs_after: int = 0
    params_before: int = 0
    params_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    latency_ms: Figure = None
    latency_share: Figure = None
    sqnr_db: Decibels = None
    error: Figure = None
    made_by: str = ""
    source: str = ""

    @property
    def origin(self) -> str:
        """Where it comes from, in words; empty for a node that stands in the source model as it is."""
        return Origin(self.made_by, self.source).words(self.name) if self.made_by else ""


class TradeoffPoint(Part):
    """A network that the search could have made."""

    macs: int
    predicted_error: float
    latency_ms: Figure = None


class Tradeoff(Part):
    """Predicted error against MACs, and where this run sits on the curve."""

    points: tuple[TradeoffPoint, ...]
    this: TradeoffPoint | None = None
    budget: str = ""


class Metric(Part):
    """A metric that the caller asked for, on ``samples`` samples: of the source model, and of each artifact by path.

    ``errors``: standard error of the difference to the source model, paired by sample, where the metric gave values per sample.
    """

    name: str
    samples: int
    teacher: Figure = None
    values: dict[str, Figure] = {}
    errors: dict[str, Figure] = {}
    lower_is_better: bool = False


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
