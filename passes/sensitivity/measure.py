"""What an error inside the network does to its output: measured, label-free, for one change at a time.

The curve of a group, or of a layer's ranks, counts errors where they arise. How much of that reaches the output differs between
layers by an order of magnitude, so each curve is scaled by (change of the output) / (modelled error), measured at a few points on
a few samples, with the layers re-fitted and everything else as it is. Between the measured points the output's change is
interpolated over the error, both as logarithms; beyond them it is in proportion to the error: it never extrapolates a trend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import difference_of
from edgec.graph.cost import cost
from edgec.graph.execute import Executor
from edgec.graph.parts import Part, parts_of
from edgec.graph.picks import judged
from edgec.graph.sharing import SharedWeights
from edgec.passes.base import Context
from edgec.passes.incremental.executor import IncrementalExecutor, batch_size
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.refit.batches import MEMORY
from edgec.passes.solvers.parallel import in_order

Array = np.ndarray[Any, np.dtype[Any]]

WORK = 4e11
"""MACs that all measurements together may take."""
MOST_SAMPLES, LEAST_SAMPLES = 96, 8


@dataclass(frozen=True)
class Sensitivity:
    """Measured once: the modelled ``error`` and the relative squared change of the ``output``, of the part that changed most."""

    error: float
    output: float


@dataclass(frozen=True)
class Trial:
    """A change of some layers' weights, and the error that is modelled for it."""

    error: float
    apply: Callable[[], None]


@dataclass(frozen=True)
class Subject:
    """What is tried on: ``node`` is the first that changes, ``undo`` makes all as it was."""

    name: str
    node: str
    trials: tuple[Trial, ...]
    undo: Callable[[], None]


def measure(
    model: ir.Model, subjects: Sequence[Subject], context: Context, label: str
) -> dict[str, tuple[Sensitivity, ...]]:
    """Damage of every trial, by subject. ``model`` is changed on the way and left as it was."""
    if context.data is None or not subjects:
        return {}
    work = max(cost(model).macs, 1) * 0.55 * sum(len(subject.trials) for subject in subjects)
    data = context.data.take(int(np.clip(WORK / max(work, 1), LEAST_SAMPLES, MOST_SAMPLES)), context.seed)
    position = {node.name or "": number for number, node in enumerate(model.graph)}
    ends = judged(model)
    names, parts = output_names(ends.graph), parts_of(ends)
    shared = SharedWeights.of(model.graph)
    store = ActivationStore(context.scratch, int(MEMORY))
    found: dict[str, tuple[Sensitivity, ...]] = {}
    try:
        walk = IncrementalExecutor(model, data.batches(batch_size(model.graph)), store, context.threads)
        answered = zip(walk.values(names), walk.sizes.values(), strict=True)
        reference = [centred(*one, names, parts) for one in answered]
        sessions = _Sessions(walk, names)
        ordered = sorted(subjects, key=lambda one: position[one.node])
        for subject in context.progress.over(f"{label}: sensitivity", ordered, len(subjects)):
            walk.go(position[subject.node])
            found[subject.name] = _tried(walk, subject, reference, sessions, parts)
            shared.restore(model.graph)
            if shared.layers:
                sessions.forget()  # weights that a layer had to itself for a while were given back, and their names with them
    finally:
        store.clear()
    return found


class _Sessions:
    """From where the walk stands to the outputs ``names``: one session for the trials there that change the same weights, which
    come with each run. Only the last is held: each has memory for the maps of a batch."""

    def __init__(self, walk: IncrementalExecutor, names: Sequence[str]) -> None:
        self.walk, self.names = walk, names
        self.last: tuple[int, tuple[str, ...], Executor] | None = None

    def forget(self) -> None:
        """Make the next one anew: other values have the names now."""
        self.last = None

    def of(self, weights: tuple[str, ...]) -> Executor:
        """The session to which ``weights`` are given."""
        position = self.walk.position
        if self.last is None or self.last[:2] != (position, weights):
            self.last = None
            self.last = position, weights, self.walk.executor(self.names, weights=weights)
        return self.last[2]


def _tried(
    walk: IncrementalExecutor,
    subject: Subject,
    reference: Sequence[Sequence[Array]],
    sessions: _Sessions,
    parts: Sequence[Part],
) -> tuple[Sensitivity, ...]:
    before, graph = constants(walk.model.graph), walk.model.graph

    def prepared() -> Iterator[tuple[Trial, Executor, dict[str, Array]]]:
        for trial in subject.trials:
            trial.apply()
            changed = {name: held for name, held in constants(graph).items() if before.get(name) is not held}
            yield trial, sessions.of(tuple(changed)), {name: held.numpy() for name, held in changed.items()}

    def scored(one: tuple[Trial, Executor, dict[str, Array]]) -> Sensitivity:
        trial, executor, weights = one
        error, energy = [0.0] * len(parts), [0.0] * len(parts)
        for batch, wanted in enumerate(reference):
            made = centred(walk.run(executor, batch, weights), walk.sizes[batch], sessions.names, parts)
            for index, part in enumerate(parts):
                error[index] += float(np.square(difference_of(made[index], wanted[index], part.name)).sum())
                energy[index] += float(np.square(wanted[index]).sum())
        shares = [left / all_ if all_ else 0.0 for left, all_ in zip(error, energy, strict=True)]
        return Sensitivity(trial.error, max(shares))

    points = tuple(in_order(scored, prepared(), walk.threads))
    subject.undo()
    return points


def constants(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """What the graph's initializers hold at this moment, by name."""
    return {
        name: value.const_value for name, value in graph.initializers.items() if value.const_value is not None
    }


def scaled_errors(errors: Array, damage: Sequence[Sensitivity]) -> Array:
    """Modelled ``errors``, in ascending order, in units of output change."""
    known = sorted({d.error: d.output for d in damage if d.error > 0 and np.isfinite(d.output)}.items())
    if not known:
        return errors
    logs, outputs = (np.log([max(pair[i], 1e-30) for pair in known]) for i in (0, 1))
    with np.errstate(divide="ignore"):
        wanted = np.log(errors)
    # Between the points log-log, beyond them in proportion to the error.
    scaled = np.exp(np.interp(wanted, logs, outputs) + wanted - np.clip(wanted, logs[0], logs[-1]))
    return np.asarray(np.maximum.accumulate(np.where(errors > 0, scaled, 0.0)))


def output_names(graph: ir.Graph) -> tuple[str, ...]:
    """The outputs, or what goes into a Softmax or Sigmoid that makes one: probabilities saturate and hide differences."""
    names = []
    for value in graph.outputs:
        producer = value.producer()
        if producer is not None and producer.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
            value = producer.inputs[0] or value
        names.append(value.name or "")
    return tuple(names)


def centred(
    outputs: Mapping[str, Array], samples: int, names: Sequence[str], parts: Sequence[Part]
) -> list[Array]:
    """The parts of a batch's outputs, (samples, values) each; class scores less their mean, which softmax ignores."""
    arrays = [outputs[name] for name in names]
    found = []
    for part in parts:
        flat = part.of(arrays, samples).astype(np.float64)
        scores = arrays[part.output].ndim == 2
        found.append(flat - flat.mean(axis=1, keepdims=True) if scores else flat)
    return found
