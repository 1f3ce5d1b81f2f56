"""Run a network front to back over a data set, stopping between nodes.

At every stop the walk holds, for all samples, the values that are live there: made before, read later. The next stop is reached
by running only the nodes in between, so a whole walk executes every node once, however many stops it makes: time grows linearly
with depth. Weights behind the stop may change between two steps; that is how a student is corrected layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.execute import Executor
from edgec.graph.views import is_constant
from edgec.passes.refit.store import ActivationStore

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]


class IncrementalExecutor:
    """A position in ``model`` and the live values there of every batch. ``batches`` are the inputs, which are read once."""

    def __init__(
        self,
        model: ir.Model,
        batches: Iterator[Feeds] | Sequence[Feeds],
        store: ActivationStore,
        threads: int,
    ) -> None:
        self.model, self.store, self.threads = model, store, threads
        self.position = 0
        self.live = tuple(value.name or "" for value in model.graph.inputs)
        self.sizes: list[int] = []
        for number, feeds in enumerate(batches):
            self.sizes.append(len(next(iter(feeds.values()))))
            for name in self.live:
                store.put(name, number, feeds[name])

    def feeds(self, batch: int) -> Feeds:
        """Live values of one batch."""
        return {name: self.store.get(name, batch) for name in self.live}

    def values(self, names: Sequence[str]) -> Iterator[Feeds]:
        """Values of ``names`` behind or at the stop, batch by batch; the walk stays where it is."""
        executor = self.executor(names)
        for batch in range(len(self.sizes)):
            yield executor.run(self.feeds(batch))

    def executor(self, names: Sequence[str]) -> Executor:
        """From the live values to ``names``, with the weights of this moment."""
        return Executor(self.model, inputs=self.live, outputs=list(names), threads=self.threads)

    def advance(self, position: int, also: Sequence[str] = (), hold: Sequence[str] = ()) -> Iterator[Feeds]:
        """Go to the stop before node number ``position``, giving values of ``also`` on the way, batch by batch.

        Values of ``hold`` are kept although nothing behind the stop reads them. The walk is there when the iterator is
        exhausted.
        """
        live = tuple(dict.fromkeys([*live_values(self.model.graph, position), *hold]))
        executor = self.executor([*also, *live])
        for batch in range(len(self.sizes)):
            found = executor.run(self.feeds(batch))
            for name in live:
                if name not in self.live:
                    self.store.put(name, batch, found[name])
            for name in self.live:
                if name not in live:
                    self.store.drop_one(name, batch)
            yield {name: found[name] for name in also}
        self.live, self.position = live, position

    def go(self, position: int, hold: Sequence[str] = ()) -> None:
        """`advance` without looking."""
        if position != self.position or not set(hold) <= set(self.live):
            for _ in self.advance(position, hold=hold):
                pass

    def forget(self, name: str) -> None:
        """Drop a live value because weights before the stop changed: it is computed again from others that are held."""
        self.live = tuple(other for other in self.live if other != name)
        for batch in range(len(self.sizes)):
            self.store.drop_one(name, batch)


def live_values(graph: ir.Graph, position: int) -> tuple[str, ...]:
    """Names of the values made before node number ``position`` and read at it or later, or by the caller."""
    nodes = list(graph)
    made = [*graph.inputs, *(value for node in nodes[:position] for value in node.outputs)]
    read = {value for node in nodes[position:] for value in node.inputs} | set(graph.outputs)
    return tuple(value.name or "" for value in made if value in read and not is_constant(value))


def batch_size(graph: ir.Graph, *, megabytes: float = 48, most: int = 100) -> int:
    """Samples per batch such that the largest activation stays within ``megabytes``."""
    largest = 1
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and not is_constant(value):
                largest = max(largest, int(np.prod([d for d in value.shape if isinstance(d, int)] or [1])))
    return int(np.clip(megabytes * 1e6 / (4 * largest), 1, most))
