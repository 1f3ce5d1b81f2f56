"""How well a network does: in the task's own terms, in errors of its outputs, and by the caller's own metric."""

from __future__ import annotations

from typing import Literal

from edgec.runtime.report.schema.fields import Decibels, Figure, Part


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

    beside: str = ""
    """Of ``outputs``, the worst that no answer is read from, where ``measures`` do not speak of all."""

    @property
    def boxes_kept(self) -> float | None:
        """Share of the source's boxes that are still found; None where nothing was to be found."""
        found = self.detection
        return 1.0 - found.lost / found.boxes if found is not None and found.boxes else None


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
