"""Are the inputs prepared as the network expects? Asked before any work, of the network itself, without labels.

A network that is fed as it was trained is sure of its answers and gives different answers to different inputs. The measure is
the information that an answer holds about its input, ``H(mean p) - mean H(p)`` over the samples' class probabilities (or over
each score between 0 and 1 of a detector), where p is averaged over small changes of the picture that should not matter
(mirrored, moved, blurred): a network fed 255 times too much is sure as well, but not twice of the same.

The data as given is compared with the usual preparations (pixels as they are, 0 to 1, -1 to 1, ImageNet's mean and deviation;
RGB and BGR). Each sample contributes ``KL(p || mean p)``, so the difference of two preparations has a paired standard error; only
a difference that is large and far above it is said. How that does on networks of which the right preparation is known:
`bench/plausibility.py`. With two classes an answer holds too little to say anything; a detector's scores add up, and a wrong
preparation can make more of them, so there the gain must be `TIMES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import by_sample, probabilities
from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec
from edgec.graph.sources import ArraySource, NpyFolderSource, PictureSource
from edgec.passes.incremental.executor import batch_size

if TYPE_CHECKING:
    from edgec.compiler.plan.plan import Plan

Array = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[Array], Array]

FIRST, SECOND = 24, 96
"""Samples for a first look at every preparation, and for a second at those that seem better."""
WORK, MORE = 6e10, 3e11
"""MACs that the first look may take, and the second, for which there must be a reason."""
HOPEFUL = 3
"""So many preparations are looked at a second time."""
FEWEST = 8
BATCH = 8
"""Samples that run together, where their maps are small enough."""
PROMISING, CLEAR = 0.5, 3.5
"""Standard errors above the data as given: to be looked at again; to be said."""
LEAST_NATS = 0.08
"""Of a classifier's answer. A detector's scores add up to many nats: there it must be `TIMES` as much."""
TIMES = 1.5
MOST_SCORES = 50_000
LABELLED = 200
"""Labelled samples that the source model's own answers are compared with."""
UNLIKE, MORE_ALIKE = 0.6, 0.25
"""Correlation of the colours of one place: below the first no photograph, by the second clearly better in the other layout."""
COMPARED = 2000
"""Samples of the calibration and of the evaluation data that are compared with each other."""
MANY = 0.1
"""Share of the samples that are flat, or copies of others, from which the data is in doubt."""
ONE_ANSWER = 0.95
"""Share of the samples that get the same class, from which agreement says little."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Doubt:
    """What is doubtful about the inputs, in one sentence, and the options that mend it (empty: nothing of the kind)."""

    text: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.text}. Try {self.options}" if self.options else self.text


@dataclass(frozen=True)
class _Way:
    """A preparation: pixels between 0 and 1, RGB, channels first, to the input; ``options`` of the command line for it."""

    name: str
    options: str
    prepare: Change


def doubts_of(plan: Plan) -> tuple[Doubt, ...]:
    """Doubts about the calibration data of a run, or else about what it is judged on, and about labels where there are some."""
    threads = plan.recipe.threads
    found = doubts_about(plan.model, plan.data if plan.data is not None else plan.evaluation, threads)
    labels = doubts_about_labels(plan.model, plan.evaluation, plan.label_offset, threads)
    return (*found, *about_split(plan.data, plan.evaluation), *labels)


def about_split(data: Dataset | None, evaluation: Dataset | None) -> Iterator[Doubt]:
    """Evaluation data that the passes are fitted to: what it says of other inputs is little."""
    if data is None or evaluation is None or data.is_random or evaluation.is_random:
        return
    known = {_identity(data, index) for index in data.indices[:COMPARED]}
    looked = evaluation.indices[:COMPARED]
    shared = sum(_identity(evaluation, index) in known for index in looked)
    if shared > MANY * len(looked):
        what = f"{shared} of {len(looked)} evaluation inputs looked at are among those that the passes are fitted to"
        yield Doubt(f"{what}: the figures say little of unseen ones")


def _identity(data: Dataset, index: int) -> bytes:
    digest = hashlib.sha256()
    data.source.update_hash(digest, [index])
    return digest.digest()


def doubts_about(model: ir.Model, data: Dataset | None, threads: int) -> tuple[Doubt, ...]:
    """What is doubtful about ``data`` as inputs of ``model``; nothing for noise, or where the outputs are no answers."""
    if data is None or data.is_random or len(data) < 1:
        return ()
    return (*_about_content(data), *about_layout(model, data), *_about_preparation(model, data, threads))


def about_layout(model: ir.Model, data: Dataset) -> Iterator[Doubt]:
    """Numbers channels last under a shape that says channels first.

    Colours of one place are alike, and so is what lies one above the other. Where neither holds, and both do once the numbers are
    read in the other layout, they were given in it. (The other mistake cannot be seen so: neighbours in a row are alike too.)
    """
    spec = InputSpec.of(model)[0]
    if len(spec.shape) != 3 or spec.channels_last or spec.channels != 3 or len(model.graph.inputs) != 1:
        return
    height, width, _ = spec.picture
    x = _read(data.take(SECOND))[spec.name].astype(np.float64)
    given, other = np.moveaxis(x, 1, -1), x.reshape(-1, height, width, 3)
    alike, reread = _alike(given), _alike(other)
    if alike < UNLIKE and reread > alike + MORE_ALIKE and _upright(other) > _upright(given) + MORE_ALIKE:
        what = "the numbers seem to lie channels last under a shape that says channels first"
        yield Doubt(
            f"{what}: the colours of one place correlate by {alike:.2f}, and by {reread:.2f} read the other way"
        )


def _alike(pictures: Array) -> float:
    """Mean correlation of neighbouring colours over places, of pictures (samples, height, width, 3)."""
    flat = pictures.reshape(len(pictures), -1, 3)
    flat = flat - flat.mean(axis=1, keepdims=True)
    size = np.sqrt((flat**2).sum(axis=1))
    product = (flat[:, :, :2] * flat[:, :, 1:]).sum(axis=1)
    return float((product / np.maximum(size[:, :2] * size[:, 1:], 1e-12)).mean())


def _upright(pictures: Array) -> float:
    """Mean correlation of each place with the one below it, of pictures (samples, height, width, 3)."""
    above, below = pictures[:, :-1].reshape(len(pictures), -1), pictures[:, 1:].reshape(len(pictures), -1)
    above, below = above - above.mean(axis=1, keepdims=True), below - below.mean(axis=1, keepdims=True)
    size = np.sqrt((above**2).sum(axis=1) * (below**2).sum(axis=1))
    return float(((above * below).sum(axis=1) / np.maximum(size, 1e-12)).mean())


def _about_content(data: Dataset) -> Iterator[Doubt]:
    """A few copies or dark pictures are in every collection; a tenth of them is not what the network will see."""
    seen: set[bytes] = set()
    flat = total = 0
    for feeds in data.take(SECOND).batches(1):
        arrays = [np.ascontiguousarray(array) for array in feeds.values()]
        total += 1
        flat += all(array.size > 1 and array.min() == array.max() for array in arrays)
        seen.add(b"".join(array.tobytes() for array in arrays))
    if flat > MANY * total:
        yield Doubt(f"{flat} of {total} inputs looked at are of one value everywhere")
    if total - len(seen) > MANY * total:
        yield Doubt(f"{total - len(seen)} of {total} inputs looked at are copies of others")


def _about_preparation(model: ir.Model, data: Dataset, threads: int) -> Iterator[Doubt]:
    spec = InputSpec.of(model)[0]
    macs = max(cost(model).macs, 1)
    count = int(np.clip(WORK / (9 * macs), FEWEST, FIRST))
    if len(data) < FEWEST:
        return
    judge = _Judge(model, spec, threads)
    first = data.take(count)
    feeds = _read(first)
    given = judge.information(feeds, ())
    if given is None:
        return
    yield from _about_answers(given)
    pixels = _pixels(first, spec)
    if pixels is None or len(model.graph.inputs) != 1:
        return
    same = _first(feeds[spec.name], spec)
    ways = [way for way in _ways(spec) if not np.allclose(way.prepare(pixels), same, atol=0.02)]
    looks = [(way, judge.information(_last(way.prepare(pixels), spec), ())) for way in ways]
    better = [(way, one) for way, one in looks if one is not None and _is_hopeful(one, given)]
    chosen = {way.options for way, _ in sorted(better, key=lambda pair: -pair[1].mean)[:HOPEFUL]}
    hopeful = [way for way in ways if way.options in chosen]
    if not hopeful:
        return
    changes = _changes(given.dense, spec)
    runs = (len(hopeful) + 1) * (len(changes) + 1)
    most = FIRST + FEWEST if given.dense else SECOND
    second = data.take(min(len(data), int(np.clip(MORE / (runs * macs), FIRST, most))))
    # Changed inputs tell most preparations apart on the few samples of the first look: only what is ahead there is worth more.
    as_given, found = _changed(judge, first, spec, hopeful, changes)
    ahead = [way for way, one in found if as_given is not None and one.ahead_of(as_given) > 0]
    if not ahead:
        return
    as_given, found = _changed(judge, second, spec, ahead, changes)
    best = _simplest(found)
    if as_given is None:
        return
    if best is not None and _is_clear(best[1], as_given):
        nats = f"{best[1].mean:.2g} nats of information about the input in an answer, as given {as_given.mean:.2g}"
        what = "the inputs seem to be prepared otherwise than the network expects"
        why = f"with {best[0].name} it is surer and its answers differ more ({nats}, over {len(as_given.each)} inputs)"
        yield Doubt(f"{what}: {why}", best[0].options)


def _changed(
    judge: _Judge, data: Dataset, spec: InputSpec, ways: Sequence[_Way], changes: tuple[Change, ...]
) -> tuple[_Information | None, list[tuple[_Way, _Information]]]:
    """What answers to ``data`` and to ``changes`` of it hold, as it is given and by each of ``ways``."""
    pixels = _pixels(data, spec)
    if pixels is None:
        return None, []
    looks = [(way, judge.information(_last(way.prepare(pixels), spec), changes)) for way in ways]
    return judge.information(_read(data), changes), [(way, one) for way, one in looks if one is not None]


def doubts_about_labels(model: ir.Model, data: Dataset | None, offset: int, threads: int) -> Iterator[Doubt]:
    """Labels that fit the network's answers only when they are counted from another class, or not at all."""
    if data is None or data.labels is None or len(data) < FEWEST:
        return
    some = data.take(int(np.clip(WORK / max(cost(model).macs, 1), FEWEST, LABELLED)))
    spec = InputSpec.of(model)[0]
    answers = _Judge(model, spec, threads).information(_read(some), ())
    if answers is None or answers.classes is None or some.labels is None:
        return
    labels = some.labels.astype(np.int64)
    right = {
        shift: int((answers.classes == labels + shift).sum()) for shift in (offset, offset - 1, offset + 1)
    }
    best = max(right, key=lambda shift: right[shift])
    told = f"{right[offset]} of {len(labels)}"
    if right[best] > 2 * right[offset] + 3:
        what = f"the source model's answers fit {told} labels, and {right[best]} with {best:+d} added to each"
        yield Doubt(what, f"--label-offset {best}")
    elif right[offset] < 2 * len(labels) / answers.kinds and len(labels) >= 5 * answers.kinds:
        yield Doubt(f"the source model's answers fit {told} labels, hardly more than by chance")


def _simplest(found: Sequence[tuple[_Way, _Information]]) -> tuple[_Way, _Information] | None:
    """The first of ``found`` that the best of them is not ahead of: where two do as well, the plainer one is meant."""
    best = max(found, key=lambda pair: pair[1].mean, default=None)
    return next((pair for pair in found if best is not None and best[1].ahead_of(pair[1]) < 1), best)


def _is_hopeful(better: _Information, given: _Information) -> bool:
    enough = not given.dense or better.mean > TIMES * given.mean
    return enough and better.ahead_of(given) > PROMISING


def _is_clear(better: _Information, given: _Information) -> bool:
    enough = better.mean > TIMES * given.mean if given.dense else better.mean - given.mean > LEAST_NATS
    return enough and better.ahead_of(given) > CLEAR


def _about_answers(given: _Information) -> Iterator[Doubt]:
    if given.classes is None or len(given.classes) < FEWEST or given.kinds < 3:
        return
    values, counts = np.unique(given.classes, return_counts=True)
    most = int(np.max(counts))
    if most >= ONE_ANSWER * len(given.classes):
        share = f"{most} of {len(given.classes)} inputs looked at"
        yield Doubt(
            f"the network answers class {values[int(np.argmax(counts))]} to {share}: agreement with it says little"
        )


@dataclass(frozen=True)
class _Information:
    """Nats that each sample's answer holds about it; ``classes`` are the answers of a classifier of ``kinds`` classes."""

    each: Array
    dense: bool
    classes: Array | None = None
    kinds: int = 0

    @property
    def mean(self) -> float:
        return float(self.each.mean())

    def ahead_of(self, other: _Information) -> float:
        difference = self.each - other.each
        error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        return float(difference.mean() / max(error, 1e-6))


class _Judge:
    """Runs the network and reads its answers."""

    def __init__(self, model: ir.Model, spec: InputSpec, threads: int) -> None:
        self.spec, self.executor = spec, Executor(model, threads=threads)
        self.size: int = batch_size(model.graph, most=BATCH)
        self.rest: dict[str, Array] = {}

    def information(self, x: Array | Mapping[str, Array], changes: tuple[Change, ...]) -> _Information | None:
        """Of the answers to ``x`` (also changed by each of ``changes``); None where the outputs are no answers."""
        feeds = dict(x) if isinstance(x, Mapping) else {self.spec.name: x}
        name = self.spec.name
        versions = [feeds, *({**feeds, name: change(feeds[name])} for change in changes)]
        runs = [self._run({**one, name: self._held(one[name])}) for one in versions]
        classes = next((name for name, array in runs[0].items() if _is_classes(array)), None)
        if classes is not None:
            p = np.mean([probabilities(run[classes]) for run in runs], axis=0)
            each = (p * (np.log(p + 1e-12) - np.log(p.mean(axis=0) + 1e-12))).sum(axis=1)
            return _Information(each, False, p.argmax(axis=1), p.shape[1])
        p = np.mean(
            [np.concatenate([by_sample(array) for array in run.values()], axis=1) for run in runs], axis=0
        )
        scores = np.flatnonzero(((p >= 0) & (p <= 1)).all(axis=0) & (p.std(axis=0) > 0))
        if p.shape[1] < 2 or len(scores) < 0.01 * p.shape[1]:
            return None
        return _Information(_bits(p[:, scores[:: max(1, len(scores) // MOST_SCORES)]]), True)

    def _held(self, x: Array) -> Array:
        """Changed inputs in the input's own type: the nearest numbers that it has."""
        if self.spec.dtype.kind != "f":
            limits = np.iinfo(self.spec.dtype) if self.spec.dtype.kind in "iu" else np.iinfo(np.uint8)
            x = np.clip(np.rint(x), limits.min, limits.max)
        return np.ascontiguousarray(x, self.spec.dtype)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        starts = range(0, len(next(iter(feeds.values()))), self.size)
        parts = [
            self.executor.run({name: array[i : i + self.size] for name, array in feeds.items()})
            for i in starts
        ]
        return {name: np.concatenate([part[name].astype(np.float64) for part in parts]) for name in parts[0]}


def _bits(p: Array) -> Array:
    """Information of scores that each are a yes or a no, summed."""
    mean, tiny = p.mean(axis=0), 1e-9
    yes = p * (np.log(p + tiny) - np.log(mean + tiny))
    no = (1 - p) * (np.log(1 - p + tiny) - np.log(1 - mean + tiny))
    return np.asarray((yes + no).sum(axis=1))


def _is_classes(array: Array) -> bool:
    return array.ndim >= 2 and array.shape[1] >= 3 and array[0].size == array.shape[1]


def _changes(dense: bool, spec: InputSpec) -> tuple[Change, ...]:
    """Small changes that should not matter. A detector's scores have places: there nothing moves."""
    high, wide = (-3, -2) if spec.channels_last else (-2, -1)
    if dense:
        return (lambda x: (x + sum(np.roll(x, s, a) for a in (high, wide) for s in (1, -1))) / np.float32(5),)
    step = max(1, spec.picture[1] // 16)
    return (lambda x: np.flip(x, wide), lambda x: np.roll(x, step, wide), lambda x: np.roll(x, step, high))


def _ways(spec: InputSpec) -> Iterator[_Way]:
    mean, std = (np.array(one, np.float32)[:, None, None] for one in (_MEAN, _STD))
    coloured = spec.picture[2] == 3
    plain: list[tuple[str, str, Change]] = [
        ("pixels from 0 to 255", "--scale 1", lambda u: u * np.float32(255)),
        ("pixels from 0 to 1", "--scale 1/255", lambda u: u),
        ("pixels from -1 to 1", "--scale 1/127.5 --mean 1", lambda u: u * np.float32(2) - np.float32(1)),
    ]
    if coloured:
        numbers = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --scale 1/255"
        plain.append(("ImageNet's mean and deviation", numbers, lambda u: (u - mean) / std))
    for name, options, prepare in plain:
        yield _Way(name, options, prepare)
        if coloured:
            yield _Way(f"{name} and blue first", f"{options} --channels bgr", _reversed(prepare))


def _reversed(prepare: Change) -> Change:
    return lambda u: prepare(np.ascontiguousarray(u[:, ::-1]))


def _pixels(data: Dataset, spec: InputSpec) -> Array | None:
    """The pictures as RGB between 0 and 1, channels first; None where that cannot be known."""
    if len(spec.shape) != 3 or spec.picture[2] not in (1, 3) or spec.dtype.kind != "f":
        return None
    source = data.source
    if not isinstance(source, ArraySource | PictureSource | NpyFolderSource):
        return None
    given = source.preprocess
    neutral = replace(
        given, mean=(0.0,), std=(1.0,), scale=1.0, channels="gray" if given.channels == "gray" else "rgb"
    )
    raw = _first(_read(replace(data, source=replace(source, preprocess=neutral)))[spec.name], spec)
    low, high = float(raw.min()), float(raw.max())
    if low >= 0 and 16 < high <= 255:
        return raw / np.float32(255)
    if low >= 0 and high <= 1:
        return raw
    if -1 <= low < -0.5 and high <= 1:
        return (raw + np.float32(1)) / np.float32(2)
    if -3 < low < -1 and high < 3 and spec.picture[2] == 3:
        mean, std = (np.array(one, np.float32)[:, None, None] for one in (_MEAN, _STD))
        return np.asarray(np.clip(raw * std + mean, 0, 1))
    return None


def _read(data: Dataset) -> dict[str, Array]:
    parts = list(data.batches(8))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _first(x: Array, spec: InputSpec) -> Array:
    """Channels first."""
    return np.moveaxis(x, -1, 1) if spec.channels_last else x


def _last(x: Array, spec: InputSpec) -> Array:
    """As the input has them."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1) if spec.channels_last else x)
