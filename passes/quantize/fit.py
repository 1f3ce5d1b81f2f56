"""Fit the quantised layers to the float network, front to back, in closed form.

For each linear layer, with the inputs that the already fitted quantised network gives it and the targets of
the float network: weights re-fitted to the quantised inputs by ridge regression (design 3.1), scales
searched, weights rounded with error feedback (`solvers.gptq`), and the bias, which stays precise, put to its
optimum. Every candidate is judged on samples that no fit saw; the best one stays, which may be the layer as
it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_bytes, samples_within
from edgec.graph.data import Dataset
from edgec.passes.base import Choice, Context, LayerReport
from edgec.passes.incremental.executor import IncrementalExecutor, visits
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.quantize.layer import QuantisedLayer, layers
from edgec.passes.solvers import gptq as rounding
from edgec.passes.solvers.gram import Gram, targets_at
from edgec.passes.solvers.guard import held_count
from edgec.passes.solvers.parallel import in_order, prefetch
from edgec.passes.solvers.rectified import Tile
from edgec.passes.solvers.ridge import CARRIED, ridge
from edgec.passes.solvers.scores import Scores

Array = np.ndarray[Any, np.dtype[Any]]

HELD_OUT = 0.2
"""Share of the samples that judge instead of fitting."""
HELD_BYTES = 64 << 20
"""Rows that judge stay within this, since every candidate reads them."""
ENOUGH_ROWS = (16384, 32)
"""Rows wanted for one layer: so many, plus so many per unknown."""
ROW_FLOPS = 6e9
"""They are sampled more thinly where their moments would cost more multiplications than this..."""
FEWEST_PER_UNKNOWN = 4
"""...but not below this many rows per unknown."""
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3)
BATCH_BYTES, MOST = 32 << 20, 32
AT_ONCE = 4
"""Batches whose patches are held at the same time, on however many threads."""


@dataclass(frozen=True)
class FitOptions:
    """What is tried besides the bias: ``weights`` rounds them anew, ``gptq`` with error feedback, ``refit`` re-fits them to
    the quantised inputs first, ``scales`` searches their ranges.
    """

    weights: bool = True
    refit: bool = True
    gptq: bool = True
    scales: bool = True
    damping: float = 0.01
    limit: int = 127

    def __str__(self) -> str:
        steps = ["re-fit"] * self.refit + [("gptq" if self.gptq else "nearest")] * self.weights + ["bias"]
        return ", ".join(steps)


@dataclass(frozen=True)
class Candidate:
    """Codes, scales and bias for one layer; ``codes`` None leaves the weight as it is."""

    label: str
    codes: Array | None
    scales: Array | None
    bias: Array
    columns: Array
    """The weight and bias that the candidate stands for, (g, d+1, o)."""
    condition: float = 1.0


Judging = tuple[list[tuple[slice, Array]], Array, Array]
"""What `Held.add` takes."""


@dataclass
class Held:
    """Rows that judge, with the sample that each is of; ``samples`` of them in all."""

    samples: int = 0
    tiles: list[tuple[Tile, Array]] = field(default_factory=list)

    def add(self, tiles: Iterable[tuple[slice, Array]], t: Array, samples: Array) -> None:
        """Tiles of one batch, its targets (group, r, out), and for each row which of the batch's samples it is of."""
        known, images = np.unique(samples, return_inverse=True)
        for part, p in tiles:
            self.tiles.append(((p, t[:, part], None), images[part] + self.samples))
        self.samples += len(known)

    def scores(self, candidates: Sequence[Array], threads: int) -> Scores:
        """Their errors under every one of ``candidates``, (g, d+1, o)."""
        found = Scores(candidates, self.samples, codes=True)
        found.add_all(self.tiles, threads)
        return found


@dataclass(frozen=True)
class Student:
    """A quantised graph, which is fitted in place, and what is tried on its layers.

    ``limits``: of tensors that saturate on purpose. Rows whose target lies outside say nothing of what the codes should be.
    """

    model: ir.Model
    options: FitOptions
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def fit(student: Student, original: ir.Model, data: Dataset, context: Context) -> tuple[LayerReport, ...]:
    """Fit all layers of ``student`` in place; what was done, layer by layer.

    Student and ``original`` are walked through side by side. Activations lie on disk; memory holds one batch.
    """
    found = list(layers(student.model, original))
    batch = _batch(found)
    done: list[LayerReport] = []
    with ExitStack() as stack:
        walk = _Visits(student.model, [one.codes_name for one in found], data, batch, context, stack)
        teacher = _Visits(original, [one.target_name for one in found], data, batch, context, stack)
        for layer in context.progress.over("fit quantised layers", found, len(found)):
            rows = _Rows(layer, walk, teacher, student.limits.get(layer.target_name))
            # No name for the moments: those of one layer are gone before the next are gathered.
            done.append(
                _fit_layer(
                    layer, *rows.moments(context.seed, context.threads), student.options, context.threads
                )
            )
    return tuple(done)


class _Visits:
    """Values of a graph over a data set, to be asked for in the order of ``wanted`` and read to their end."""

    def __init__(
        self,
        model: ir.Model,
        wanted: Sequence[str],
        data: Dataset,
        batch: int,
        context: Context,
        stack: ExitStack,
    ) -> None:
        store = stack.enter_context(ActivationStore(context.scratch, 0))
        self.walk = IncrementalExecutor(model, data.batches(batch), store, context.threads)
        self.sizes = list(self.walk.sizes.values())
        self.plan = iter(list(zip(wanted, visits(model, wanted), strict=True)))

    def next(self) -> Iterator[Array]:
        """The next one, batch by batch."""
        name, live = next(self.plan)
        for found in self.walk.move(live, [name]):
            yield found[name]


class _Drawn(NamedTuple):
    """Of one batch: the layer's inputs (n, channels, *spatial) and targets, and rows of them, in their order, to fit on and to
    judge on (None: none)."""

    x: Array
    y: Array
    pixels: int
    rows: tuple[Array | None, Array | None]


class _Rows:
    """What one layer reads, and what it should make of that: ``limits`` are those between which it can."""

    def __init__(
        self, layer: QuantisedLayer, student: _Visits, teacher: _Visits, limits: tuple[float, float] | None
    ) -> None:
        self.layer, self.student, self.teacher, self.limits = layer, student, teacher, limits

    def moments(self, seed: int, threads: int) -> tuple[Gram, Held]:
        """Statistics of the samples to fit on, and the rows of those to judge on; ``threads`` change neither."""
        (groups, outputs), unknowns = self.layer.outputs, self.layer.patches.unknowns
        seen, held = Gram.zeros(groups, unknowns, outputs), Held()
        gathered = in_order(self._gathered, self._drawn(seed, threads), min(threads, AT_ONCE))
        for fit, judge in gathered:
            if judge is not None:
                held.add(*judge)
            for p, t in fit:
                seen.add(p, t)
        return seen, held

    def _drawn(self, seed: int, threads: int) -> Iterator[_Drawn]:
        """Batch by batch, in order: it is drawn by one generator."""
        layer, patches, sizes = self.layer, self.layer.patches, self.student.sizes
        samples, (groups, outputs), inputs = sum(sizes), layer.outputs, patches.unknowns - 1
        affordable = ROW_FLOPS / (groups * (inputs + 1) ** 2)
        wanted = max(min(ENOUGH_ROWS[0] + ENOUGH_ROWS[1] * inputs, affordable), FEWEST_PER_UNKNOWN * inputs)
        stride = samples // max(held_count(samples, HELD_OUT), 1)
        most = HELD_BYTES / (4 * groups * (inputs + 1 + outputs)) * stride
        rng, first = np.random.default_rng(seed), 0
        both = zip(self.student.next(), self.teacher.next(), sizes, strict=True)
        for codes, targets, size in prefetch(both, threads):
            x, y = layer.inputs(codes), layer.targets(targets)
            lead = len(x) // size  # entries of one sample: 1, or its tokens or windows
            pixels = lead * math.prod(patches.out_shape(x.shape[2:]))
            drawn: tuple[list[Array], list[Array]] = [], []
            for index in range(size):
                judge = samples > 1 and (first + index) % stride == stride - 1
                share = (min(wanted, most) if judge else wanted) / (samples * pixels)
                drawn[judge].append(patches.sample(x[:lead], share, rng) + index * pixels)
            fit, judging = (np.concatenate(rows) if rows else None for rows in drawn)
            yield _Drawn(x, y, pixels, (fit, judging))
            first += size

    def _gathered(self, drawn: _Drawn) -> tuple[list[tuple[Array, Array]], Judging | None]:
        """Patches and targets of the rows to fit on, tile by tile, and what `Held.add` takes."""
        fit, judge = (None if rows is None else self._within(drawn, rows) for rows in drawn.rows)
        tiles = [] if fit is None else [(p, fit[1][:, part]) for part, p in self._tiles(drawn, fit[0])]
        if judge is None:
            return tiles, None
        rows, t = judge
        return tiles, (list(self._tiles(drawn, rows)), t, rows // drawn.pixels)

    def _within(self, drawn: _Drawn, rows: Array) -> tuple[Array, Array]:
        """Rows and their targets; a sample of which all saturates neither teaches nor judges."""
        t = targets_at(drawn.y, rows, self.layer.outputs[0])
        if self.limits is None:
            return rows, t
        within = ((t >= self.limits[0]) & (t <= self.limits[1])).all(axis=(0, 2))
        return rows[within], t[:, within]

    def _tiles(self, drawn: _Drawn, rows: Array) -> Iterator[tuple[slice, Array]]:
        return self.layer.patches.tiles(drawn.x, rows)


def _fit_layer(
    layer: QuantisedLayer, seen: Gram, held: Held, options: FitOptions, threads: int
) -> LayerReport:
    codes, scales, bias = layer.quantised()
    before = _joined(codes * scales[..., None], bias)
    tried = _Tried([], 1.0, ())
    if seen.rows and held.samples:
        tried = _candidates(layer, seen, held, options, threads)
    scores = held.scores([before, *(one.columns for one in tried.candidates)], threads)
    number, verdicts = scores.choose([one.condition for one in tried.candidates])
    best = tried.candidates[number - 1] if number else None
    if best is not None:
        layer.store(best.codes, best.scales, best.bias)
    labels = [one.label for one in tried.candidates]
    return LayerReport(
        node=layer.name,
        rows=int(seen.rows),
        unknowns=layer.patches.unknowns,
        condition=tried.condition,
        error_before=scores.relative(0),
        error_after=scores.relative(number),
        kept=best is not None,
        note="as it was" if best is None else best.label,
        choices=(*tried.choices, *map(Choice.of, labels, verdicts)),
    )


@dataclass(frozen=True)
class _Tried:
    """``condition`` and ``choices`` are those of the re-fit."""

    candidates: list[Candidate]
    condition: float
    choices: tuple[Choice, ...]


def _candidates(layer: QuantisedLayer, seen: Gram, held: Held, options: FitOptions, threads: int) -> _Tried:
    """All that is tried for one layer, the simplest first."""
    codes, scales, _ = layer.quantised()
    covariance, means = _centred(seen)
    found = [_with_bias("bias", layer, None, scales, codes, means)]
    if not options.weights:
        return _Tried(found, 1.0, ())
    wishes = [_Wish("", layer.weight, 1.0)]
    refitted = _refit(layer, seen, held, threads) if options.refit else _Refitted(None, None, 1.0, ())
    if refitted.weight is not None:
        wishes.append(_Wish(f"re-fitted ({refitted.strength:g}), ", refitted.weight, refitted.condition))
    H = rounding.damped(covariance, options.damping)
    feedback = rounding.Feedback.of(covariance, options.damping) if options.gptq else None

    def rounded(wish: _Wish) -> Candidate:
        grid = _scales(layer, H, wish.weight, options)
        if feedback is not None:
            codes = rounding.gptq(feedback, wish.weight, grid, options.limit)
            codes = rounding.descend(H, wish.weight, grid, codes, options.limit)
        else:
            codes = rounding.round_to_nearest(wish.weight, grid, options.limit)
        name = wish.label + ("gptq" if options.gptq else "nearest")
        made = _with_bias(name, layer, codes, grid, codes, means)
        return replace(made, condition=wish.condition)

    found += in_order(rounded, wishes, threads)
    return _Tried(found, refitted.condition, refitted.choices)


class _Wish(NamedTuple):
    """Weights (g, o, d) to be rounded."""

    label: str
    weight: Array
    condition: float


def _centred(seen: Gram) -> tuple[Array, tuple[Array, Array]]:
    """Covariance of the inputs (times rows) with the constant taken out, and the means of inputs and targets."""
    mean = seen.h[:, :-1, -1] / seen.rows
    covariance = seen.h[:, :-1, :-1] - seen.rows * mean[:, :, None] * mean[:, None, :]
    # A constant input has no variance; what subtraction leaves of it is rounding noise.
    constant = np.einsum("gii->gi", covariance) <= 1e-9 * np.einsum("gii->gi", seen.h[:, :-1, :-1])
    covariance[constant] = 0.0
    covariance.transpose(0, 2, 1)[constant] = 0.0
    return covariance, (mean, seen.s[:, -1, :] / seen.rows)


def _scales(layer: QuantisedLayer, H: Array, weight: Array, options: FitOptions) -> Array:
    _, old, _ = layer.quantised()
    if not layer.per_channel:
        return old
    factors = np.linspace(1.0, 0.7, 13) if options.scales else np.ones(1)
    return rounding.search_scales(H, weight, options.limit, factors)


@dataclass(frozen=True)
class _Refitted:
    """The ridge strength that errs least and its weights (g, o, d), None where the old ones do."""

    strength: float | None
    weight: Array | None
    condition: float
    choices: tuple[Choice, ...]


def _refit(layer: QuantisedLayer, seen: Gram, held: Held, threads: int) -> _Refitted:
    """From the strongest pull towards the old weights to the weakest, as long as held-out samples gain."""
    start = _joined(layer.weight, layer.bias)
    solved = list(
        in_order(lambda one: ridge(seen.h, seen.s, start, one, carried=CARRIED), STRENGTHS, threads)
    )
    scores = held.scores([start, *(one.columns for one in solved)], threads)
    number, verdicts = scores.choose([one.condition for one in solved])
    labels = [f"ridge {strength:g}" for strength in STRENGTHS]
    choices = tuple(map(Choice.of, labels, verdicts))
    if not number:
        return _Refitted(None, None, solved[0].condition, choices)
    best = solved[number - 1]
    return _Refitted(STRENGTHS[number - 1], best.columns[:, :-1].transpose(0, 2, 1), best.condition, choices)


def _with_bias(
    label: str,
    layer: QuantisedLayer,
    stored: Array | None,
    scales: Array,
    codes: Array,
    means: tuple[Array, Array],
) -> Candidate:
    """A candidate with the bias that makes the mean output right; without a bias to set, the old one."""
    real = codes * scales[..., None]
    bias = layer.quantised()[2]
    if layer.b is not None:
        bias = means[1] - np.einsum("god,gd->go", real, means[0])
    return Candidate(label, stored, None if stored is None else scales, bias, _joined(real, bias))


def _joined(weight: Array, bias: Array) -> Array:
    """(g, o, d) and (g, o) as the columns (g, d+1, o) of `solvers.gram`."""
    joined: Array = np.concatenate([weight, bias[..., None]], axis=2).transpose(0, 2, 1)
    return joined


def _batch(found: Sequence[QuantisedLayer]) -> int:
    return samples_within(BATCH_BYTES, max((sample_bytes(one.origin.y) for one in found), default=1), MOST)
