"""The pass contract (design section 2).

A pass is a frozen dataclass: its fields are its options, its ``name`` is what ``--passes`` takes. It declares what it
needs and whether it changes the function computed; `compiler.pipeline` checks both. The shape of the contract follows
onnx_ir's PassBase (requires, call, ensures) and xDSL's ModulePass (a dataclass that prints back to its own text).
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from edgec.graph.plugins import Plugin
from edgec.passes.options import Switch, option, read_fields
from edgec.passes.solvers.guard import Verdict, held_count

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgec.graph.data import Dataset
    from edgec.targets import Target
    from edgec.targets.estimator import LatencyTable

__all__ = [
    "Context",
    "LatencyModel",
    "LayerReport",
    "Need",
    "Note",
    "Pass",
    "PassResult",
    "Progress",
    "Switch",
    "option",
]

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]

NUMBER_FORMATS = frozenset({"quantize", "quantize-weights", "cast-fp16"})
"""Passes behind which weights are no plain float32 constants any more: what works on those comes before them."""
HELD_OUT = 0.1
"""Share of the samples that judge by default."""


class Need(str, enum.Enum):
    """What a pass cannot run without."""

    DATA = "data"
    LABELS = "labels"
    TORCH = "torch"
    TARGET = "target"


@dataclass(frozen=True)
class Note:
    """One thing that a pass has to say; ``node`` where it speaks of one."""

    text: str
    level: Literal["info", "warning", "reverted"] = "info"
    node: str | None = None


@dataclass(frozen=True)
class Choice:
    """One decision of the guard (`solvers.guard`): ``margin`` is the gain over what was asked of it, above 1 where it was kept.

    ``floor`` is the noise of the arithmetic in the same unit: another machine may decide otherwise only within it of 1.
    """

    what: str
    kept: bool
    margin: float
    floor: float

    @staticmethod
    def of(what: str, verdict: Verdict) -> Choice:
        """For the report, to four digits."""
        margin, floor = (float(f"{value:.4g}") for value in (verdict.margin, verdict.floor))
        return Choice(what, verdict.kept, margin, floor)


@dataclass(frozen=True)
class LayerReport:
    """One fitted layer.

    Errors are relative to the energy of the target, on calibration rows that the fit did not see, ``error_after`` that of the
    weights that stay. ``condition`` is the condition number of the solved system; ``kept`` is False where the guard put the old
    weights back; ``choices`` are its decisions about the layer, in order.
    """

    node: str
    rows: int
    unknowns: int
    condition: float
    error_before: float
    error_after: float
    kept: bool
    note: str = ""
    choices: tuple[Choice, ...] = ()

    @staticmethod
    def read(figures: Mapping[str, Any]) -> LayerReport:
        """The inverse of `dataclasses.asdict`."""
        choices = tuple(Choice(**one) for one in figures.get("choices", ()))
        return LayerReport(**{**figures, "choices": choices})


class Progress:
    """Where long work says how far it is. This base class stays silent."""

    def step(self, label: str, done: int, total: int) -> None:
        """``done`` of ``total`` steps of ``label`` are finished. ``done`` never falls, and ends at ``total``."""

    def say(self, line: str) -> None:
        """One line that the user should see before the work begins."""

    def over(self, label: str, items: Iterable[T], total: int) -> Iterator[T]:
        """``items``, each a step of ``label``, which ends at ``total`` also where the loop is left early."""
        with self.counting(label, total) as count:
            for done, item in enumerate(items):
                count(done, total)
                yield item

    @contextmanager
    def counting(self, label: str, total: int = 1) -> Iterator[Callable[[int, int], None]]:
        """For work that counts by itself, from 0 of ``total``: what is given takes (done, total). At the end all is done."""
        last = total

        def count(done: int, total: int) -> None:
            nonlocal last
            last = total
            self.step(label, min(done, total), total)

        self.step(label, 0, total)
        try:
            yield count
        finally:
            self.step(label, last, last)


class Checkpoint(Protocol):
    """Where long work keeps how far it is, so that ``--resume`` goes on from there."""

    def read(self) -> bytes | None:
        """What the same work left when it was cut off; None where it begins anew."""

    def write(self, data: bytes) -> None:
        """Keep ``data`` in the place of what was kept before."""


@dataclass(frozen=True)
class LatencyModel:
    """What milliseconds are priced by: ``table`` is of the artifact that the run is about (its engine, precision, threads).

    ``source_ms`` is what the source model takes as it came in, in fp32: relative latency budgets are shares of it.
    ``typical``: the target itself was never measured, the table is that of another machine of its kind; it compares layers with
    one another, and is no word about milliseconds.
    """

    table: LatencyTable
    source_ms: float
    typical: bool = False


class Answers(Protocol):
    """How far a network's answers are from the source's in its task's own terms, where those are known (`Context.answers`).

    Its ``repr`` says all that figures depend on.
    """

    def energies(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[Array, Array]:
        """(of what counts in the answers, of what is wrong with them), (samples,) each, from the outputs of both networks."""

    def kept(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[int, int]:
        """(answers of the source that the other gives too, answers of the source)."""

    def at(self, size: tuple[int, int]) -> Answers:
        """The same of a network for pictures of this (height, width)."""


@dataclass(frozen=True)
class Context:
    """All that a pass may look at besides the model.

    ``data`` are the unlabelled calibration inputs; ``teacher`` is the canonical source model, before any pass, and must
    not be changed; ``scratch`` is a folder that the pass may fill and that is removed afterwards.
    """

    teacher: ir.Model
    scratch: Path
    data: Dataset | None = None
    target: Target | None = None
    seed: int = 0
    threads: int = 1
    progress: Progress = field(default_factory=Progress)
    reference: ir.Model | None = None
    """Behind ``quantize``: the float model that it was given (not to be changed). None before it."""
    prices: LatencyModel | None = None
    """None: passes take the target's estimates for its default engine in fp32, where it has any."""
    task: str = ""
    """What the network does (``--task``); empty where nobody knows."""
    checkpoint: Checkpoint | None = None
    """Of the pass that runs."""
    answers: Answers | None = None
    """What decides which quantised network is nearer to the source; None: the errors of the outputs."""
    at_source_size: ir.Model | None = None
    """Where the input has another size than the source's: the teacher as it came in."""
    networks: Mapping[str, ir.Model] = field(default_factory=dict)
    """What lies in the files that options of passes name (`options.path_option`), by the path: canonical, not to be changed."""
    successor: ir.Model | None = None
    """Behind a pass that put another network in the source's place: that network."""

    @property
    def original(self) -> ir.Model:
        """The network whose layers the compressed one has: each is re-fitted to what its own makes there."""
        return self.teacher if self.successor is None else self.successor

    @property
    def source(self) -> ir.Model:
        """The model that relative budgets are shares of."""
        return self.teacher if self.at_source_size is None else self.at_source_size


class Partial(Protocol):
    """What a pass that fits layer after layer can take back: the network as it was after the first of its ``count`` fits."""

    @property
    def count(self) -> int:
        """Fits of the whole pass."""

    def model(self, kept: int) -> ir.Model:
        """The network after ``kept`` fits."""

    def undone(self, kept: int) -> Collection[str]:
        """Nodes that have other weights then than in the end."""


@dataclass(frozen=True)
class PassResult:
    """What a pass did. ``data`` holds further figures for the report, JSON types only.

    ``partial`` lets the guard behind the pass (`passes.whole`) keep a part of it.
    """

    model: ir.Model
    modified: bool
    notes: tuple[Note, ...] = ()
    layers: tuple[LayerReport, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    partial: Partial | None = None


@dataclass(frozen=True)
class Pass(abc.ABC):
    """Base of all passes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line: what the pass does."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    requires_before: ClassVar[frozenset[str]] = frozenset()
    """Passes that must stand somewhere in front of it (see `passes.order`)."""
    never_after: ClassVar[frozenset[str]] = frozenset()
    """Passes that must not stand anywhere in front of it."""
    changes_function: ClassVar[bool] = True
    """False: the pipeline verifies to 1e-5 relative on random input that outputs stay the same."""
    changes_input: ClassVar[bool] = False
    """True: the picture may have another size behind it. Nothing that changes the function may stand in front of it."""
    recovers: ClassVar[bool] = False
    """True: it claims to bring outputs nearer to the teacher's. What makes them worse is taken back (`passes.whole`)."""
    brought: ClassVar[Plugin | None] = None
    """The plug-in that it is from, set where that is loaded (`passes.table`); None: it is edgec's own."""

    def __post_init__(self) -> None:
        """Read every option (see `passes.options`). Raises UsageError for what is not admitted; not to be overridden."""
        for name, value in read_fields(self).items():
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:  # noqa: B027  (most options say all by themselves)
        """Raise UsageError for options that do not go together. Called when the pass is made."""

    def complete(self) -> None:  # noqa: B027  (few passes take a budget)
        """Raise UsageError where an option is still open that ``--budget`` may have filled. Called before a run."""

    @abc.abstractmethod
    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Transform ``model``, which is the pass's own copy; raise PassError where that cannot be done."""

    @property
    def replaces_network(self) -> bool:
        """Whether another network stands behind it, whose layers are none of the source's."""
        return False

    def unseen(self, context: Context) -> Dataset | None:
        """Samples that judge what a pass that `recovers` made of the network; it fitted nothing to them."""
        if context.data is None:
            return None
        held = held_count(len(context.data), HELD_OUT)
        return context.data.split(held / len(context.data), context.seed)[1] if held else context.data

    def requires(self, model: ir.Model) -> None:  # noqa: B027  (most passes can start from any canonical graph)
        """Raise PassError when ``model`` is not something this pass can start from."""

    def ensures(self, before: ir.Model, result: PassResult) -> None:  # noqa: B027  (the pipeline's checks suffice for most)
        """Raise PassError when the result is not what this pass promises."""
