"""Inputs to look at, and what became of each class."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgec.runtime.report.schema.fields import Figure, Options, Part, RunPath


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
    shares: bool = True
    """Whether it is a share of 1, else a number in units of its own."""
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
