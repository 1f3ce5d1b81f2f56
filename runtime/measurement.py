"""What a measurement is: frozen records with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from edgec.runtime.agent.watch import HOST_BUSY

if TYPE_CHECKING:
    from edgec.runtime.replies import Record


@dataclass(frozen=True)
class Measurement:
    """Latency of one artifact on one device, by the protocol in docs/measuring.md; ms and MB."""

    artifact: str
    device: str
    bytes: int
    sha256: str
    engine: str
    engine_version: str
    delegate: str
    """What ran the model inside the engine: CPU, CUDA, XNNPACK, 'none (built-in kernels)', or 'GPU, int8 + fp16'."""
    threads: int
    cores: tuple[int, ...]
    """Cores that the process was pinned to; empty where it was not."""
    runs: int
    seconds: float
    min_ms: float
    p10_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    import_ms: float | None
    load_ms: float | None
    first_ms: float | None
    """None where the engine does not tell: trtexec counts nothing of the warm-up."""
    warmup_runs: int | None
    warmup_seconds: float
    settled: bool
    engine_rss_mb: float | None
    """Resident memory once the engine was imported, before the model was loaded."""
    peak_rss_mb: float
    hard_faults: int
    valid: bool
    invalid: tuple[str, ...]
    """Why the numbers must not be used (throttled, swapped); empty when they may."""
    notices: tuple[str, ...]
    emulated: bool
    noise: Mapping[str, float | None]
    """Work of others meanwhile, in cores: other_cores, measured_cores, steal."""
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    """Clock, governor, temperature, throttle bits, swap, load, power before and after the run."""
    inputs: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    power_w: Mapping[str, float] | None = None
    """Mean watts per rail during the run, where the board has sensors."""
    sustained: tuple[Mapping[str, Any], ...] = ()
    """Of a sustained run, per window: t (s), median_ms, p90_ms, runs, clock_mhz, temperature_c, ..."""
    samples_ms: tuple[float, ...] = ()

    @classmethod
    def of(cls, record: Record, *, artifact: str, device: str) -> Measurement:
        """From the agent's record of one artifact."""
        found = record.model_dump()
        values = {f.name: found[f.name] for f in fields(cls) if f.name in found}
        for name in ("sustained", "samples_ms"):
            values[name] = values[name] or ()
        return cls(**values, artifact=artifact, device=device)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @property
    def host_busy(self) -> bool:
        """Whether other programs took so much of the machine meanwhile that it is among the notices."""
        return any(notice.startswith(HOST_BUSY) for notice in self.notices)

    @property
    def runtime(self) -> str:
        """Engine, version, and delegate for people: 'litert 2.3.0 (XNNPACK)'."""
        extra = "" if self.delegate == "CPU" else f" ({self.delegate})"
        return f"{self.engine} {self.engine_version}{extra}"


@dataclass(frozen=True)
class Ratio:
    """Time of ``artifact`` over that of ``baseline``: median, 10th, and 90th percentile of the rounds."""

    artifact: str
    baseline: str
    ratio: float
    p10: float
    p90: float
    rounds: int


@dataclass(frozen=True)
class Comparison:
    """An interleaved session: the sides, and the ratios of all but the first to the first."""

    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class LayerTime:
    """Microseconds of one layer, and its share of the sum over all layers.

    ``nodes``: those of the model that the engine says it made the layer of; empty where it says nothing.
    """

    name: str
    op: str
    us: float
    share: float
    nodes: tuple[str, ...] = ()
