"""Walk a graph front to back over a data set, one tensor after another, without recomputing what lies before.

A correction changes one layer at a time and needs that layer's inputs as the corrected layers in front of it
produce them. Running the graph from its start for every layer would be quadratic. A `Replay` computes each
wanted tensor from wanted tensors before it, which it keeps in files until no later one needs them; memory
holds one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.graph.execute import Executor
from edgec.passes.spill import Spill

if TYPE_CHECKING:
    from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]


class Replay:
    """Tensors of ``model`` over ``data``, to be asked for in the order of ``targets`` and read to their end.

    ``model`` may be changed between calls, behind the tensors that were asked for already. Files go to
    ``folder``.
    """

    def __init__(
        self,
        model: ir.Model,
        data: Dataset,
        targets: Sequence[str],
        folder: Path,
        *,
        batch: int,
        threads: int = 1,
    ) -> None:
        self.model = model
        self.label = f"replay-{id(self)}"
        self.data = data
        self.batch = batch
        self.threads = threads
        self.folder = folder
        self.targets = list(dict.fromkeys(targets))
        self.inputs = tuple(value.name or "" for value in model.graph.inputs)
        self.needs = _needs(model, self.targets)
        self.last_use = {name: i for i, target in enumerate(self.targets) for name in self.needs[target]}
        again = [name for name, count in Counter(targets).items() if count > 1]
        self.last_use.update(
            dict.fromkeys(again, len(self.targets))
        )  # what several layers read stays to the end
        self.stored: dict[str, Spill] = {}

    def tensors(self, target: str) -> Iterator[Array]:
        """``target`` over the data set, batch by batch."""
        if target in self.stored:
            stored = self.stored[target]
            for index in range(len(stored)):
                yield stored.read(index)
            return
        position = self.targets.index(target)
        keep = self.last_use.get(target, -1) > position
        sources = self.needs[target]
        executor = Executor(self.model, inputs=sources, outputs=[target], threads=self.threads)
        stored = Spill(self.folder / f"{self.label}-{position}.bin")
        self._forget(position)
        feeds = self._feeds(sources)
        if keep:
            self.stored[target] = stored
        for batch in feeds:
            array = executor.run(batch)[target]
            if keep:
                stored.append(array)
            yield array

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the files that are left."""
        for name in list(self.stored):
            self.stored.pop(name).remove()

    def _feeds(self, sources: Sequence[str]) -> Iterator[dict[str, Array]]:
        for name in sources:
            if name in self.inputs and name not in self.stored:
                self._store_inputs()
                break
        count = len(self.stored[sources[0]]) if sources else 0
        for index in range(count):
            yield {name: self.stored[name].read(index) for name in sources}

    def _store_inputs(self) -> None:
        files = {name: Spill(self.folder / f"{self.label}-in{i}.bin") for i, name in enumerate(self.inputs)}
        for feeds in self.data.batches(self.batch):
            for name in self.inputs:
                files[name].append(feeds[name])
        self.stored.update(files)

    def _forget(self, position: int) -> None:
        for name in list(self.stored):
            if self.last_use.get(name, -1) < position:
                self.stored.pop(name).remove()


def _needs(model: ir.Model, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each target the nearest earlier targets, or graph inputs, from which it can be computed."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    order = {name: index for index, name in enumerate(targets)}
    inputs = {value.name for value in model.graph.inputs}
    needs: dict[str, tuple[str, ...]] = {}
    for target in targets:
        found: dict[str, None] = {}
        seen: set[str] = set()
        pending = [target]
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in inputs or (name != target and order.get(name, len(order)) < order[target]):
                found[name] = None
                continue
            producer = values[name].producer() if name in values else None
            if producer is not None:
                pending.extend(value.name or "" for value in producer.inputs if value is not None)
        needs[target] = tuple(found)
    return needs
