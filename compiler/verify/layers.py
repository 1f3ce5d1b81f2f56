"""Two graphs layer by layer: how far each value is apart, and how much of that its own layer did.

A value is compared as ``a`` holds it: factors that equalisation left are taken out (`verify.factors`), and axes that stand in
another order are turned back. Its *own* error is what its layer of ``b`` makes of ``a``'s values: all that both compute under one
name is fed into ``b`` from ``a``, so that an error shows where it arises and nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.verify.factors import Rescaled, rescaled
from edgec.graph.batch import as_inside
from edgec.graph.compare import Difference
from edgec.graph.data import Dataset
from edgec.graph.errors import ModelError
from edgec.graph.execute import Executor
from edgec.graph.parts import Part, parts_of

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Compared:
    """One value: ``total`` is its difference as both networks run, ``own`` the part that its layer adds.

    ``rescaled``: the least and the largest factor that were taken out; None where there are none. ``output``: it is one of the
    network's outputs, or a part of one.
    """

    total: Difference
    own: Difference
    rescaled: tuple[float, float] | None = None
    output: bool = False

    @property
    def name(self) -> str:
        """Of the value, in ``a``."""
        return self.total.name

    def words(self) -> str:
        """The value and what makes it."""
        return f"{self.name} ({self.total.op})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able figures; infinities become None."""
        own = self.own.to_dict()
        return {
            **self.total.to_dict(),
            "own_sqnr_db": own["sqnr_db"],
            "own_equal": own["equal"],
            "rescaled": None if self.rescaled is None else list(self.rescaled),
            "output": self.output,
        }


@dataclass(frozen=True)
class Verdict:
    """``wrong``: the worst output, where one is below the limit. ``first``: the first layer whose own error is below it.

    ``largest``: the layer with the largest error of its own, of those that both networks have.
    """

    limit: float
    wrong: Compared | None
    first: Compared | None
    largest: Compared | None

    @staticmethod
    def of(found: Sequence[Compared], limit: float) -> Verdict:
        """What is wrong, from all values in order."""
        ends = sorted((one for one in found if one.output), key=lambda one: one.total.sqnr_db)
        wrong = ends[0] if ends and ends[0].total.sqnr_db < limit else None
        first = next((one for one in found if one.own.sqnr_db < limit), None)
        inner = [one for one in found if not one.output]
        largest = min(inner, key=lambda one: one.own.sqnr_db, default=None)
        return Verdict(limit, wrong, first if wrong is not None else None, largest)

    def words(self) -> str:
        """The verdict in one sentence."""
        largest = "" if self.largest is None else f"{self.largest.words()}, {_db(self.largest.own)}"
        if self.wrong is None:
            rest = f"; the largest error of a layer's own: {largest}" if largest else ""
            return f"no output is below {self.limit:g} dB{rest}"
        end = f"{self.wrong.name} is at {_db(self.wrong.total)}"
        if self.first is None:
            return f"{end}, below {self.limit:g} dB, and no layer alone is: errors add up, the largest is {largest}"
        if not largest:
            return f"{end}, below {self.limit:g} dB; the models have no inner value in common, so no layer can be named"
        if self.first.output:
            return f"{end}: the error arises behind all inner values that both have, at the output {self.first.name}"
        said = f"first layer that goes wrong: {self.first.words()}, {_db(self.first.own)} on inputs that are right; {end}"
        return (
            said if self.first is self.largest else f"{said}; the largest error of a layer's own: {largest}"
        )


def _db(difference: Difference) -> str:
    return "exact" if difference.sqnr_db == np.inf else f"{difference.sqnr_db:.1f} dB"


def compare_layers(a: ir.Model, b: ir.Model, data: Dataset, *, threads: int = 1) -> tuple[Compared, ...]:
    """Every value that both compute under one name, in the order of ``a``, and then the outputs by position and part.

    Every inner value of both is held at once, for one sample at a time. Raises ModelError where the models do not have the same
    inputs or outputs.
    """
    return _Comparison(a, b, threads).over(data)


class _Comparison:
    """Both networks, ready to run, and the running sums."""

    def __init__(self, a: ir.Model, b: ir.Model, threads: int) -> None:
        check_ends(a, b)
        self.factors = rescaled(a, b)
        self.ends = [
            (x.name or "", y.name or "") for x, y in zip(a.graph.outputs, b.graph.outputs, strict=True)
        ]
        mine = {v.name or "": v for node in a.graph for v in node.outputs}
        theirs = {v.name or "": v for node in b.graph for v in node.outputs}
        outside = {name for pair in self.ends for name in pair}
        self.turns: dict[str, tuple[int, ...]] = {}
        self.inner: list[str] = []
        for name, value in mine.items():
            turn = None if name in outside or name not in theirs else turn_between(value, theirs[name])
            if turn is not None:
                self.inner.append(name)
                self.turns[name] = turn
        self.ranks = {name: len(mine[name].shape or ()) for name in self.inner}
        self.inputs = list(zip(a.graph.inputs, b.graph.inputs, strict=True))
        self.left = Executor(a, outputs=[*self.inner, *(x for x, _ in self.ends)], threads=threads)
        wanted = [*self.inner, *(y for _, y in self.ends)]
        self.right = Executor(b, outputs=wanted, threads=threads)
        fed, self.fed_names = _cut_open(b, self.inner)
        names = [*(v.name or "" for v in b.graph.inputs), *self.fed_names.values()]
        self.alone = Executor(fed, inputs=names, outputs=wanted, threads=threads)
        self.parts = parts_of(a)
        makers = {v.name or "": node for node in a.graph for v in node.outputs}
        self.totals, self.owns = ({name: _difference(name, makers) for name in self.inner} for _ in range(2))
        self.at_ends = [
            (part, _difference(part.name, makers, self.ends[part.output][0]), _difference(part.name, makers))
            for part in self.parts
        ]

    def over(self, data: Dataset) -> tuple[Compared, ...]:
        for feeds in data.batches(1):
            reference = self.left.run(feeds)
            given = {y.name or "": _placed(feeds[x.name or ""], y) for x, y in self.inputs}
            inside = {name: as_inside(reference[name], self.ranks[name]) for name in self.inner}
            own = {self.fed_names[name]: self._as_theirs(name, inside[name]) for name in self.inner}
            self._add(reference, inside, self.right.run(given), self.totals, 1)
            self._add(reference, inside, self.alone.run({**given, **own}), self.owns, 2)
        found = [Compared(self.totals[n], self.owns[n], _range(self.factors.get(n))) for n in self.inner]
        return (*found, *(Compared(total, own, output=True) for _, total, own in self.at_ends))

    def _add(
        self,
        reference: Mapping[str, Array],
        inside: Mapping[str, Array],
        made: Mapping[str, Array],
        sums: Mapping[str, Difference],
        place: int,
    ) -> None:
        for name in self.inner:
            value = as_inside(made[name], self.ranks[name]).transpose(np.argsort(self.turns[name]))
            factors = self.factors.get(name)
            sums[name].add(inside[name], value if factors is None else factors.back(value))
        wanted = [reference[x] for x, _ in self.ends]
        values = [_like(made[y], array, x) for (x, y), array in zip(self.ends, wanted, strict=True)]
        for one in self.at_ends:
            part: Part = one[0]
            one[place].add(part.of(wanted, 1), part.of(values, 1))  # type: ignore[union-attr]

    def _as_theirs(self, name: str, value: Array) -> Array:
        factors = self.factors.get(name)
        scaled = value if factors is None else factors.of(value)
        return np.ascontiguousarray(scaled.transpose(self.turns[name]))


def check_ends(a: ir.Model, b: ir.Model) -> None:
    """Raise ModelError where the models differ in the number of inputs or outputs, or in what a sample of an input is."""
    for what, mine, theirs in (
        ("inputs", a.graph.inputs, b.graph.inputs),
        ("outputs", a.graph.outputs, b.graph.outputs),
    ):
        if len(mine) != len(theirs):
            why = f"{len(mine)} against {len(theirs)}"
            raise ModelError(f"the models have different numbers of {what}", why=why)
    for one, other in zip(a.graph.inputs, b.graph.inputs, strict=True):
        if not _same_sample(one, other):
            why = f"{one.name!r} takes {_sample(one)}, {other.name!r} takes {_sample(other)}"
            raise ModelError("the models take different inputs", why=why)
        if one.dtype is not None and other.dtype is not None and not _holds(one.dtype, other.dtype):
            why = f"{one.name!r} takes {one.dtype.name.lower()}, {other.name!r} takes {other.dtype.name.lower()}"
            hint = "Compare them the other way round: what B takes, A then takes too."
            raise ModelError("the models take different inputs", why=why, hint=hint)


def _holds(one: ir.DataType, other: ir.DataType) -> bool:
    """Whether numbers of the first type are some of the second: real ones may be rounded, but to no whole ones."""
    return bool(np.can_cast(one.numpy(), other.numpy(), "same_kind"))


def _sample(value: ir.Value) -> str:
    return "x".join(str(size) for size in list(value.shape or ())[1:]) or "a number"


def _same_sample(one: ir.Value, other: ir.Value) -> bool:
    """Whether what one takes can be given to the other, its layout turned; what is open, fits."""
    if one.shape is None or other.shape is None:
        return True
    mine, theirs = (
        [size if isinstance(size, int) else -1 for size in shape][1:] for shape in (one.shape, other.shape)
    )
    if -1 in (*mine, *theirs) and len(mine) == len(theirs):
        return True
    return mine == theirs or (len(mine) == len(theirs) and turned(mine, theirs) is not None)


def turn_between(mine: ir.Value, theirs: ir.Value) -> tuple[int, ...] | None:
    """The axes of ``mine`` in the order of ``theirs``; None where the two cannot be compared."""
    if mine.dtype != ir.DataType.FLOAT or theirs.dtype != ir.DataType.FLOAT:
        return None
    one, other = mine.shape, theirs.shape
    if one is None or other is None or len(one) != len(other):
        return None
    sizes = [[size if isinstance(size, int) else -1 for size in shape] for shape in (one, other)]
    if -1 in (*sizes[0][1:], *sizes[1][1:]):
        return None
    straight = tuple(range(len(one)))
    return straight if sizes[0][1:] == sizes[1][1:] else turned(sizes[0][1:], sizes[1][1:])


def turned(mine: Sequence[int], theirs: Sequence[int]) -> tuple[int, ...] | None:
    """Channels first to channels last or back, behind the first axis, where that makes one of the other; else None."""
    rank = len(mine) + 1
    for order in ((0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))):
        if rank > 2 and [mine[axis - 1] for axis in order[1:]] == list(theirs):
            return order
    return None


def _cut_open(model: ir.Model, names: Sequence[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy whose ``names`` are read from new inputs, and the names of these; the old values are still computed."""
    copy = model.clone()
    values = {value.name or "": value for node in copy.graph for value in node.outputs}
    fresh: dict[str, str] = {}
    for name in names:
        old = values[name]
        label = next(
            f"{name}/fed{n or ''}" for n in itertools.count() if f"{name}/fed{n or ''}" not in values
        )
        new = ir.Value(name=label, type=old.type, shape=old.shape)
        old.replace_all_uses_with(new)
        copy.graph.inputs.append(new)
        fresh[name] = label
    return copy, fresh


def _difference(name: str, makers: Mapping[str, ir.Node], value: str | None = None) -> Difference:
    node = makers.get(name if value is None else value)
    return Difference(
        name, (node.name or "") if node is not None else "", node.op_type if node is not None else "output"
    )


def _range(factors: Rescaled | None) -> tuple[float, float] | None:
    return None if factors is None else (float(factors.factors.min()), float(factors.factors.max()))


def _placed(array: Array, value: ir.Value) -> Array:
    """A batch of an input as the other model takes it: as numbers of its type, with channels last where it has them there."""
    if value.dtype is not None:
        array = array.astype(value.dtype.numpy(), copy=False)
    sizes = [size if isinstance(size, int) else -1 for size in value.shape or ()]
    if array.ndim != len(sizes) or list(array.shape[1:]) == sizes[1:]:
        return array
    turn = turned(array.shape[1:], sizes[1:])
    return array if turn is None else np.ascontiguousarray(array.transpose(turn))


def _like(value: Array, reference: Array, name: str) -> Array:
    """An output as the first model holds it."""
    if value.shape == reference.shape:
        return value
    if value.ndim == reference.ndim and len(value) == len(reference):
        turn = turned(value.shape[1:], reference.shape[1:])
        if turn is not None:
            return value.transpose(turn)
    why = f"{reference.shape} against {value.shape}"
    raise ModelError("the shapes differ", where=f"output {name!r}", why=why)
