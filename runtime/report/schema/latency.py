"""How fast a file is, measured or estimated, and how that was found."""

from __future__ import annotations

from edgec.runtime.report.schema.fields import Figure, Options, Part


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
