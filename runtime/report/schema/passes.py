"""What the passes did: pass by pass, layer by layer, and what the search could have made."""

from __future__ import annotations

from typing import Literal

from edgec.graph.provenance import Origin
from edgec.runtime.report.schema.fields import Decibels, Figure, Options, Part
from edgec.runtime.report.schema.quality import Quality


class Size(Part):
    """What a network costs at one point of the pipeline."""

    macs: int
    params: int
    nodes: int | None = None


class PassNote(Part):
    """One thing that a pass said; ``reverted`` notes say what was undone and why."""

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


class FormPoint(Part):
    """One form of compression that was compared under the budget, on calibration samples that it was not made from.

    ``passes``: what stood in the place of the run's `compress`. ``latency_ms``: by the target's estimates. ``loss``: in the unit
    that `Portfolio.measure` names; None where the form could not be made (``why``).
    """

    title: str
    passes: str
    macs: int | None = None
    params: int | None = None
    latency_ms: Figure = None
    loss: Figure = None
    error: Figure = None
    """Standard error of the difference to the usual form, paired by sample."""
    met: bool = True
    """Whether the budget was met."""
    why: str = ""


class Portfolio(Part):
    """What ``--portfolio`` compared; ``chosen`` is a title of ``points``, whose first is the usual form."""

    chosen: str
    measure: str = ""
    points: tuple[FormPoint, ...] = ()
