"""Milliseconds for a model on a target: never a bare number, always with its range, its basis and its error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgec.graph.cost import ModelCost, NodeCost
from edgec.graph.errors import UsageError
from edgec.targets.estimator.coefficients import ENGINES, Coefficients, Entry, engine_key, load_coefficients
from edgec.targets.schema import Target

# These expand fp16 constants when they load a model, and compute in fp32.
_EXPAND_HALF = ("ai-edge-litert", "tflite-runtime", "xnnpack", "tflite-ruy")

TYPICAL = {"x86_64": "typical-x86-64", "aarch64": "rpi4"}
"""Coefficients that stand for a kind of processor."""


@dataclass(frozen=True)
class Estimate:
    """Latency of one inference. 80 % of unseen networks were measured between ``low_ms`` and ``high_ms``.

    ``kind`` says how good it is: ``fitted`` and ``measured`` rest on latencies of this very combination, ``scaled`` is
    borrowed from another device, engine or thread count and has a wide range. ``validation_error_pct`` is the mean absolute
    relative error on network families that were left out of the fit; None where that could not be checked.
    """

    ms: float
    low_ms: float
    high_ms: float
    per_node_ms: Mapping[str, float]
    target: str
    runtime: str
    precision: str
    threads: int
    kind: str
    basis: str
    validation_error_pct: float | None
    note: str = ""

    @property
    def text(self) -> str:
        """One line for a person."""
        error = (
            "not validated"
            if self.validation_error_pct is None
            else f"error {self.validation_error_pct:.1f}% on unseen families"
        )
        return (
            f"{_round(self.ms)} ms estimated ({_round(self.low_ms)} to {_round(self.high_ms)}; {error}), "
            f"{self.precision}, {self.runtime}, {self.threads} thread{'s' if self.threads != 1 else ''}; {self.basis}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields and the text, for JSON."""
        return asdict(self) | {"per_node_ms": dict(self.per_node_ms), "text": self.text}


@dataclass(frozen=True)
class Comparison:
    """Whether some nodes in place of others save time, and by how much."""

    whole_ms: float
    pieces_ms: float

    @property
    def pays(self) -> bool:
        """Whether the pieces are faster."""
        return self.pieces_ms < self.whole_ms


@dataclass(frozen=True)
class LatencyTable:
    """An additive cost per node, for searches: changing one node changes the total by the difference of its cost."""

    entry: Entry
    target: str
    factor: float = 1.0

    def node_ms(self, node: NodeCost) -> float:
        """Milliseconds of one node."""
        return self.factor * self.entry.node_ms(node)

    def model_ms(self, cost: ModelCost | Iterable[NodeCost]) -> float:
        """Milliseconds of a model, or of some nodes together."""
        return self.factor * self.entry.model_ms(cost)

    def anchored(self, cost: ModelCost, measured_ms: float) -> LatencyTable:
        """The table scaled so that ``cost`` takes ``measured_ms``: one measurement of the source model corrects all."""
        entry = replace(self.entry, switch=None)  # the measurement says on which side of a step the model is
        return LatencyTable(entry, self.target, measured_ms / entry.model_ms(cost))

    def compare(self, whole: Iterable[NodeCost], pieces: Iterable[NodeCost]) -> Comparison:
        """Does it pay to put ``pieces`` (a decomposition) in the place of ``whole``?"""
        return Comparison(self.model_ms(whole), self.model_ms(pieces))


def estimate(
    cost: ModelCost,
    target: Target,
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    version: str | None = None,
) -> Estimate:
    """Latency of a model that costs ``cost`` (counted on the float graph, batch 1) on ``target``.

    ``runtime`` defaults to the target's engine, ``threads`` to the target's, ``version`` to the newest with data. Raises
    UsageError where there is nothing to go by.
    """
    table = latency_table(target, runtime, precision, threads, version)
    entry = table.entry
    nodes: dict[str, float] = {}
    for node in cost.nodes:
        nodes[node.name] = nodes.get(node.name, 0.0) + table.node_ms(node)
    ms = table.model_ms(cost)
    step = ms / (table.model_ms(cost.nodes) or 1.0)
    note = (
        ""
        if entry.kind != "scaled"
        else "borrowed from another device, engine or thread count: a rough guide only"
    )
    return Estimate(
        ms=ms,
        low_ms=ms * entry.low,
        high_ms=ms * entry.high,
        per_node_ms={name: step * value for name, value in nodes.items()},
        target=target.name,
        runtime=runtime or target.default_engine,
        precision=precision,
        threads=entry.threads,
        kind=entry.kind,
        basis=entry.basis,
        validation_error_pct=None if entry.error is None else 100 * entry.error,
        note=note,
    )


def latency_table(
    target: Target,
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    version: str | None = None,
) -> LatencyTable:
    """The cost per node that :func:`estimate` adds up; same arguments, same errors."""
    runtime = runtime or target.default_engine
    known = _coefficients(target)
    found = _table(known, target.name, runtime, precision, threads or target.threads, version)
    if found is not None:
        return found
    if any(runtime in one.runtimes for one in target.accelerators):
        raise UsageError(
            f"not measured: {target.name} with {runtime}",
            why="no time of it is known, and those of the CPU say nothing of the GPU",
            hint=f"Measure it: edgec bench MODEL --device ssh://user@host --engine {runtime}",
        )
    have = sorted({f"{e.runtime} {e.precision}" for e in known.entries})
    raise UsageError(
        f"no latency estimate for {target.name} with {runtime}, {precision}",
        why=f"there is data for {', '.join(have)} only",
        hint="Measure it: edgec bench MODEL --device ssh://user@host.",
    )


def typical_table(arch: str, runtime: str, precision: str) -> LatencyTable | None:
    """The cost per node on some machine of the kind ``arch``, for one that was never measured; None for a kind without data.

    Good for comparing layers with one another, and for nothing else.
    """
    name = TYPICAL.get(arch)
    known = load_coefficients(name) if name is not None else None
    return None if known is None else _table(known, known.target, runtime, precision, 1, None)


def _table(
    known: Coefficients, name: str, runtime: str, precision: str, threads: int, version: str | None
) -> LatencyTable | None:
    wanted = ENGINES.get(engine_key(runtime), (engine_key(runtime),))
    for key in wanted:
        entries = [e for e in known.entries if e.runtime == key and e.precision == precision]
        if not entries and precision == "fp16" and key in _EXPAND_HALF:
            entries = [e for e in known.entries if e.runtime == key and e.precision == "fp32"]
        if version is not None:
            entries = [e for e in entries if e.version == version] or entries
        if entries:
            return LatencyTable(_at_threads(entries, known, precision, threads), name)
    return None


def has_estimates(target: Target, runtime: str | None = None, precision: str = "fp32") -> bool:
    """Whether :func:`estimate` has something to go by."""
    try:
        latency_table(target, runtime, precision)
    except UsageError:
        return False
    return True


def _coefficients(target: Target) -> Coefficients:
    found = load_coefficients(target.name)
    if found is None and target.estimates_from is not None:
        found = load_coefficients(target.estimates_from)
    if found is not None and found.entries:
        return found
    if target.name == "host":
        raise UsageError(
            "no latency estimate for this machine",
            why="it has not been calibrated",
            hint="Run `edgec targets calibrate` once (a few minutes), or measure: edgec bench MODEL.",
        )
    raise UsageError(
        f"no latency estimate for {target.name}",
        why="no latencies of such a device are known",
        hint="Measure it: edgec bench MODEL --device ssh://user@host.",
    )


def _at_threads(entries: list[Entry], known: Coefficients, precision: str, threads: int) -> Entry:
    exact = [e for e in entries if e.threads == threads]
    if exact:
        return max(exact, key=_rank)
    nearest = max(entries, key=lambda e: (-abs(math.log(e.threads / threads)), _rank(e)))
    table = dict(known.threads.get(precision) or known.threads.get("fp32") or known.threads.get("fp16") or {})
    factor, spread = _thread_factor(table, nearest.threads, threads)
    basis = known.threads_basis or "assumed"
    reason = f"scaled from {nearest.threads} to {threads} thread{'s' if threads != 1 else ''} ({basis})"
    scaled = nearest.scaled(factor, spread, reason)
    return Entry(**(scaled.__dict__ | {"threads": threads}))


def _thread_factor(
    table: Mapping[int, tuple[float, float, float]], have: int, want: int
) -> tuple[float, float]:
    """Time at ``want`` threads over time at ``have``, and the factor by which networks differ in it."""

    def speed(count: int) -> tuple[float, float, float]:
        if count == 1:
            return 1.0, 1.0, 1.0
        if count in table:
            return table[count]
        if table:  # between known counts: a power law through the nearest
            near = min(table, key=lambda n: abs(math.log(n / count)))
            power = math.log(count) / math.log(near)
            median, low, high = (s**power for s in table[near])
            return median, low / 1.2, high * 1.2
        return count**0.6, count**0.3, float(count)

    fast, slow = speed(want), speed(have)
    factor = slow[0] / fast[0]
    spread = max(s[0] / s[1] for s in (fast, slow)) * max(s[2] / s[0] for s in (fast, slow))
    return factor, math.sqrt(spread)


def _rank(entry: Entry) -> tuple[bool, tuple[int, ...], int]:
    """Fitted before scaled, then the newest version, then the most networks."""
    digits = tuple(int(d) for d in entry.version.replace("~", "").split(".") if d.isdigit())
    return entry.kind != "scaled", digits, entry.networks


def _round(ms: float) -> str:
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"
