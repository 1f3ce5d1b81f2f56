"""Run a network front to back over a data set, stopping between nodes.

At every stop the walk holds some values of all samples, and a stop further on is reached from them by running only the nodes in
between: a whole walk executes every node once, however many stops it makes, and its time grows linearly with depth. Weights
behind the stop may change between two steps; that is how a student is corrected layer by layer. Samples that are not needed near
the input, where maps are large, may `join` later.

What is held is either all that is live between two nodes (`go`, `advance`), or what a list of values to be visited needs
(`visits`): the second cuts the graph only at values that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_bytes, samples_within
from edgec.graph.execute import Executor
from edgec.graph.views import is_constant
from edgec.passes.incremental.store import ActivationStore

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]


class IncrementalExecutor:
    """A place in ``model`` and the values held there, of every batch. ``batches`` are the inputs, which are read once."""

    def __init__(
        self,
        model: ir.Model,
        batches: Iterable[Feeds],
        store: ActivationStore,
        threads: int,
    ) -> None:
        self.model, self.store, self.threads = model, store, threads
        self.position = 0
        self.live = tuple(value.name or "" for value in model.graph.inputs)
        self.sizes: dict[int, int] = {}
        """Samples by the number of their batch, in the order of numbers."""
        self.join(enumerate(batches))

    def join(self, batches: Iterable[tuple[int, Feeds]]) -> None:
        """Take in further batches, by their numbers: run from the inputs to the stop, by the weights of this moment."""
        executor: Executor | None = None
        for number, feeds in batches:
            executor = executor or Executor(self.model, outputs=self.live, threads=self.threads)
            self.sizes[number] = len(next(iter(feeds.values())))
            for name, array in executor.run(feeds).items():
                self.store.put(name, number, array)
        self.sizes = dict(sorted(self.sizes.items()))

    def executor(
        self, names: Sequence[str], model: ir.Model | None = None, weights: Sequence[str] = ()
    ) -> Executor:
        """From the held values to ``names``, with the weights of this moment, or those of another ``model`` that has the same
        values up to the stop. ``weights``: constants that come with every run."""
        given = model or self.model
        return Executor(given, inputs=self.live, outputs=list(names), weights=weights, threads=self.threads)

    def run(self, executor: Executor, batch: int, weights: Mapping[str, Array] | None = None) -> Feeds:
        """What an executor that was made here makes of one batch, and of the ``weights`` that it was made for."""
        return executor.run(
            {**{name: self.store.get(name, batch) for name in executor.reads}, **(weights or {})}
        )

    def values(self, names: Sequence[str]) -> Iterator[Feeds]:
        """Values of ``names`` behind or at the stop, batch by batch; the walk stays where it is."""
        executor = self.executor(names)
        for batch in self.sizes:
            yield self.run(executor, batch)

    def move(self, live: Sequence[str], also: Sequence[str] = ()) -> Iterator[Feeds]:
        """Hold ``live`` and nothing else from now on, giving values of ``also`` on the way, batch by batch.

        The walk is there when the iterator is exhausted.
        """
        new = [name for name in live if name not in self.live]
        old = [name for name in self.live if name not in live]
        executor = self.executor([*also, *new])
        for batch in self.sizes:
            found = self.run(executor, batch)
            for name in new:
                self.store.put(name, batch, found[name])
            for name in old:
                self.store.drop_one(name, batch)
            yield {name: found[name] for name in also}
        self.live = tuple(dict.fromkeys(live))

    def advance(self, position: int, also: Sequence[str] = (), hold: Sequence[str] = ()) -> Iterator[Feeds]:
        """`move` to all that is live before node number ``position``, and to ``hold``, although nothing behind may read it."""
        yield from self.move([*live_values(self.model.graph, position), *hold], also)
        self.position = position

    def go(self, position: int, hold: Sequence[str] = ()) -> None:
        """`advance` without looking."""
        if position != self.position or not set(hold) <= set(self.live):
            for _ in self.advance(position, hold=hold):
                pass

    def forget(self, name: str) -> None:
        """Drop a held value because weights before the stop changed: it is computed again from others that are held."""
        self.live = tuple(other for other in self.live if other != name)
        for batch in self.sizes:
            self.store.drop_one(name, batch)


def live_values(graph: ir.Graph, position: int) -> tuple[str, ...]:
    """Names of the values made before node number ``position`` and read at it or later, or by the caller."""
    nodes = list(graph)
    made = [*graph.inputs, *(value for node in nodes[:position] for value in node.outputs)]
    read = {value for node in nodes[position:] for value in node.inputs} | set(graph.outputs)
    return tuple(value.name or "" for value in made if value in read and not is_constant(value))


def visits(model: ir.Model, wanted: Sequence[str]) -> list[tuple[str, ...]]:
    """For each value of ``wanted``, which will be asked for in this order: what to hold when it has been, for those to come.

    A value is computed from the nearest ones that were asked for before it, so the graph is cut nowhere else: an int8 kernel
    between two of them stays whole.
    """
    asked: set[str] = {value.name or "" for value in model.graph.inputs}
    makers = {value.name or "": node for node in model.graph for value in node.outputs}
    needs = []
    for name in wanted:
        needs.append(_nearest(name, makers, asked))
        asked.add(name)
    held: list[tuple[str, ...]] = []
    later: dict[str, None] = {}
    for place in reversed(range(len(wanted))):
        known = {value.name for value in model.graph.inputs} | set(wanted[: place + 1])
        held.append(tuple(name for name in later if name in known))
        later.update(dict.fromkeys(needs[place]))
    return held[::-1]


def _nearest(name: str, makers: dict[str, ir.Node], asked: set[str]) -> tuple[str, ...]:
    """Those of ``asked`` from which ``name`` is computed; itself where it is one of them."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    pending = [name]
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in asked:
            found[one] = None
        elif one in makers:
            pending.extend(value.name or "" for value in makers[one].inputs if value is not None)
    return tuple(found)


def batch_size(graph: ir.Graph, *, megabytes: float = 24, most: int = 100) -> int:
    """Samples per batch such that the largest activation stays within ``megabytes``."""
    made = (value for node in graph for value in node.outputs if not is_constant(value))
    return samples_within(int(megabytes * 1e6), max(map(sample_bytes, made), default=1), most)
