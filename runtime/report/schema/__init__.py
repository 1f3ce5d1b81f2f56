"""The object in ``report.json``: every figure of one run (design section 6).

Units: bytes, milliseconds for latencies, seconds for passes and runs, MiB for memory, decibels for SQNR.
``top1``, ``agreement``, shares, and predicted errors are fractions (0.786, not 78.6). Paths are relative to
the run folder. Parts that a run does not have are None or empty, and the page leaves them out.

Figures may come as numpy scalars. A figure that is not finite becomes None, except an SQNR: identical
outputs have an infinite one, which is stored as `IDENTICAL_DB` because JSON has no infinity.
"""

from __future__ import annotations

from edgec.runtime.report.schema.fields import IDENTICAL_DB
from edgec.runtime.report.schema.latency import Comparison, Latency, LatencySample, LatencySection, Ratio
from edgec.runtime.report.schema.model import (
    Artifact,
    Compressed,
    ModelInput,
    Resolution,
    SizePoint,
    SourceModel,
)
from edgec.runtime.report.schema.passes import (
    FitChoice,
    FittedLayer,
    FormPoint,
    Layer,
    PassNote,
    PassRun,
    Portfolio,
    Size,
    Tradeoff,
    TradeoffPoint,
)
from edgec.runtime.report.schema.quality import Detection, Measure, Metric, Quality
from edgec.runtime.report.schema.report import SCHEMA, DataInfo, Gate, Report
from edgec.runtime.report.schema.samples import Answered, Classes, ClassRow, Confused, Strip

__all__ = [
    "IDENTICAL_DB",
    "SCHEMA",
    "Answered",
    "Artifact",
    "ClassRow",
    "Classes",
    "Comparison",
    "Compressed",
    "Confused",
    "DataInfo",
    "Detection",
    "FitChoice",
    "FittedLayer",
    "FormPoint",
    "Gate",
    "Latency",
    "LatencySample",
    "LatencySection",
    "Layer",
    "Measure",
    "Metric",
    "ModelInput",
    "PassNote",
    "PassRun",
    "Portfolio",
    "Quality",
    "Ratio",
    "Report",
    "Resolution",
    "Size",
    "SizePoint",
    "SourceModel",
    "Strip",
    "Tradeoff",
    "TradeoffPoint",
]
