"""Are the inputs prepared as the network expects? Asked before any work, of the network itself, without labels.

A network that is fed as it was trained is sure of its answers and gives different answers to different inputs. The measure is
the information that an answer holds about its input, ``H(mean p) - mean H(p)`` over the samples' class probabilities (or over
each score of a map), where p is averaged over small changes of the picture that should not matter
(mirrored, moved, blurred): a network fed 255 times too much is sure as well, but not twice of the same.

A detector is asked otherwise: whether it finds the same objects in the mirrored picture (`Judge`). What its scores add up to says
nothing: fed 255 times too much, it sees a hundred things that are not there, and others in every picture. Maps are compared with
those of the mirrored pictures for the same reason. A reader of text is asked for the same characters in a picture that is moved
by a few pixels.

The data as given is compared with the usual preparations (pixels as they are, 0 to 1, -1 to 1, ImageNet's mean and deviation;
RGB and BGR). Each sample contributes ``KL(p || mean p)``, so the difference of two preparations has a paired standard error; only
a difference that is large and far above it is said. How that does on networks of which the right preparation is known:
`bench/plausibility.py`. With two classes an answer holds too little to say anything; the scores of a map add up, and a wrong
preparation can make more of them, so there the gain must be `TIMES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.information import Information, Judge
from edgec.compiler.evaluate.preparations import (
    Change,
    Way,
    as_declared,
    channels_first,
    pixels_of,
    preparations,
    read_all,
    small_changes,
)
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.task import Task
from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.inputs import InputSpec

if TYPE_CHECKING:
    from edgec.compiler.plan.plan import Plan

Array = np.ndarray[Any, np.dtype[Any]]

FIRST, SECOND = 24, 96
"""Samples for a first look at every preparation, and for a second at those that seem better."""
WORK, MORE = 6e10, 3e11
"""MACs that the first look may take, and the second, for which there must be a reason."""
HOPEFUL = 3
"""So many preparations are looked at a second time."""
FEWEST = 8
PROMISING, CLEAR = 0.5, 3.5
"""Standard errors above the data as given: to be looked at again; to be said."""
LEAST_NATS = 0.08
"""Of a classifier's answer. A map's scores add up to many nats: there it must be `TIMES` as much."""
TIMES = 1.5
LESS_ALIKE = 0.03
"""By so much less of what a map holds, or of a detector's objects, may be in the mirrored picture too: a network that is fed too
much sees everything, and where the right preparation shows it little, that little stands."""
MORE_OBJECTS = 0.2
"""Of a detector: by so much the share of a picture's objects that stand must be higher, on average; of a reader of text, that of
its characters."""
LABELLED = 200
"""Labelled samples that the source model's own answers are compared with."""
UNLIKE, MORE_ALIKE = 0.6, 0.25
"""Correlation of the colours of one place: below the first no photograph, by the second clearly better in the other layout."""
COMPARED = 2000
"""Samples of the calibration and of the evaluation data that are compared with each other."""
MANY = 0.1
"""Share of the samples that are flat, or copies of others, from which the data is in doubt."""
ONE_ANSWER = 0.95
"""Share of the samples that get one class, from which agreement says little; of two classes all of `FIRST`: one may be rare."""


@dataclass(frozen=True)
class Doubt:
    """What is doubtful about the inputs, in one sentence, and the options that mend it (empty: nothing of the kind)."""

    text: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.text}. Try {self.options}" if self.options else self.text


def doubts_of(plan: Plan) -> tuple[Doubt, ...]:
    """Doubts about the calibration data of a run, or else about what it is judged on, and about labels where there are some."""
    threads = plan.recipe.threads
    looked_at = plan.data if plan.data is not None else plan.evaluation
    found = doubts_about(plan.model, looked_at, threads, plan.task)
    labels = doubts_about_labels(plan.model, plan.evaluation, plan.label_offset, threads, plan.task)
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


def doubts_about(
    model: ir.Model, data: Dataset | None, threads: int, task: Task | None = None
) -> tuple[Doubt, ...]:
    """What is doubtful about ``data`` as inputs of ``model``; nothing for noise, or where the outputs are no answers.

    ``task``: what the outputs mean; None: what they say themselves.
    """
    if data is None or data.is_random or len(data) < 1:
        return ()
    content = (*_about_content(data), *about_layout(model, data))
    return (*content, *_about_preparation(model, data, threads, task or find_task(model)))


def about_layout(model: ir.Model, data: Dataset) -> Iterator[Doubt]:
    """Numbers channels last under a shape that says channels first.

    Colours of one place are alike, and so is what lies one above the other. Where neither holds, and both do once the numbers are
    read in the other layout, they were given in it. (The other mistake cannot be seen so: neighbours in a row are alike too.)
    """
    spec = InputSpec.of(model)[0]
    if len(spec.shape) != 3 or spec.channels_last or spec.channels != 3 or len(model.graph.inputs) != 1:
        return
    height, width, _ = spec.picture
    x = read_all(data.take(SECOND))[spec.name].astype(np.float64)
    given, other = np.moveaxis(x, 1, -1), x.reshape(-1, height, width, 3)
    alike, reread = _alike(given), _alike(other)
    if alike < UNLIKE and reread > alike + MORE_ALIKE and _upright(other) > _upright(given) + MORE_ALIKE:
        what = "the numbers seem to lie channels last under a shape that says channels first"
        yield Doubt(
            f"{what}: the colours of one place correlate by {alike:.2f}, and by {reread:.2f} read the other way"
        )


def _alike(pictures: Array) -> float:
    """Mean correlation of neighbouring colours over places, of pictures (samples, height, width, 3)."""
    flat = np.array(np.moveaxis(pictures.reshape(len(pictures), -1, 3), 2, 1), order="C")
    flat -= flat.mean(axis=2, keepdims=True)
    size = np.sqrt(np.einsum("ncp,ncp->nc", flat, flat))
    product = np.einsum("ncp,ncp->nc", flat[:, :2], flat[:, 1:])
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


def _about_preparation(model: ir.Model, data: Dataset, threads: int, task: Task | None) -> Iterator[Doubt]:
    spec = InputSpec.of(model)[0]
    if len(data) < FEWEST:
        return
    judge = Judge(model, spec, threads, task)
    macs = max(cost(model).macs, 1) * judge.runs
    count = FIRST if judge.has_two_classes else int(np.clip(WORK / (9 * macs), FEWEST, FIRST))
    first = data.take(count)
    feeds = read_all(first)
    given = judge.information(feeds, ())
    if given is None:
        return
    yield from _about_answers(given, judge.may_be_numbers)
    pixels = pixels_of(first, spec)
    if pixels is None or len(model.graph.inputs) != 1 or given.kinds == 2:
        return
    same = channels_first(feeds[spec.name], spec)
    ways = [way for way in preparations(spec) if not np.allclose(way.prepare(pixels), same, atol=0.02)]
    looks = [(way, judge.information(as_declared(way.prepare(pixels), spec), ())) for way in ways]
    better = [(way, one) for way, one in looks if one is not None and _is_hopeful(one, given)]
    chosen = {way.options for way, _ in sorted(better, key=lambda pair: -pair[1].mean)[:HOPEFUL]}
    hopeful = [way for way in ways if way.options in chosen]
    if not hopeful:
        return
    changes = small_changes(given.kind, spec)
    runs = (len(hopeful) + 1) * (len(changes) + 1)
    most = FIRST + FEWEST if given.kind == "scores" else SECOND
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
        what = "the inputs seem to be prepared otherwise than the network expects"
        yield Doubt(f"{what}: with {best[0].name} {_better(best[1], as_given)}", best[0].options)


def _better(best: Information, given: Information) -> str:
    if given.kind == "objects":
        shares = f"{best.mean:.0%} of its objects, as given {given.mean:.0%}"
        return f"it finds more of the same objects in a mirrored picture ({shares}, over {len(given.each)} inputs)"
    if given.kind == "characters":
        shares = f"{best.mean:.0%} of them, as given {given.mean:.0%}"
        return f"it reads more of the same characters in a picture moved a little ({shares}, over {len(given.each)} inputs)"
    nats = f"{best.mean:.2g} nats of information about the input in an answer, as given {given.mean:.2g}"
    return f"it is surer and its answers differ more ({nats}, over {len(given.each)} inputs)"


def _changed(
    judge: Judge, data: Dataset, spec: InputSpec, ways: Sequence[Way], changes: tuple[Change, ...]
) -> tuple[Information | None, list[tuple[Way, Information]]]:
    """What answers to ``data`` and to ``changes`` of it hold, as it is given and by each of ``ways``."""
    pixels = pixels_of(data, spec)
    if pixels is None:
        return None, []
    looks = [(way, judge.information(as_declared(way.prepare(pixels), spec), changes)) for way in ways]
    return judge.information(read_all(data), changes), [(way, one) for way, one in looks if one is not None]


def doubts_about_labels(
    model: ir.Model, data: Dataset | None, offset: int, threads: int, task: Task | None = None
) -> Iterator[Doubt]:
    """Labels that fit the network's answers only when they are counted from another class, or not at all."""
    if data is None or data.labels is None or len(data) < FEWEST:
        return
    most = int(np.clip(WORK / max(cost(model).macs, 1), FEWEST, LABELLED))
    judge = Judge(model, InputSpec.of(model)[0], threads, task or find_task(model))
    for count in dict.fromkeys(min(count, len(data)) for count in (min(FIRST, most), most)):
        some = data.take(count)
        answers = judge.information(read_all(some), ())
        if answers is None or answers.classes is None or answers.kinds < 3 or some.labels is None:
            return
        labels, kinds = some.labels.astype(np.int64), answers.kinds
        shifts = (offset, offset - 1, offset + 1)
        right = {shift: int((answers.classes == labels + shift).sum()) for shift in shifts}
        if 3 * right[offset] > len(labels):
            return  # no other count can fit twice as many: most networks are fed their own labels
    best = max(right, key=lambda shift: right[shift])
    told = f"{right[offset]} of {len(labels)}"
    if right[best] > 2 * right[offset] + 3:
        what = f"the source model's answers fit {told} labels, and {right[best]} with {best:+d} added to each"
        yield Doubt(what, f"--label-offset {best}")
    elif right[offset] < 2 * len(labels) / kinds and len(labels) >= 5 * kinds:
        yield Doubt(f"the source model's answers fit {told} labels, hardly more than by chance")


def _simplest(found: Sequence[tuple[Way, Information]]) -> tuple[Way, Information] | None:
    """The first of ``found`` that the best of them is not ahead of: where two do as well, the plainer one is meant."""
    best = max(found, key=lambda pair: pair[1].mean, default=None)
    return next((pair for pair in found if best is not None and best[1].ahead_of(pair[1]) < 1), best)


def _is_hopeful(better: Information, given: Information) -> bool:
    enough = given.kind != "scores" or better.mean > TIMES * given.mean
    return enough and better.ahead_of(given) > PROMISING


def _is_clear(better: Information, given: Information) -> bool:
    more = better.mean - given.mean
    stands = better.stands > given.stands - LESS_ALIKE
    enough = {
        "classes": more > LEAST_NATS, "scores": stands and better.mean > TIMES * given.mean,
        "objects": stands and more > MORE_OBJECTS, "characters": stands and more > MORE_OBJECTS,
    }  # fmt: skip
    return enough[given.kind] and better.ahead_of(given) > CLEAR


def _about_answers(given: Information, may_be_numbers: bool) -> Iterator[Doubt]:
    few, share = (FIRST, 1.0) if given.kinds == 2 else (FEWEST, ONE_ANSWER)
    if given.classes is None or len(given.classes) < few:
        return
    values, counts = np.unique(given.classes, return_counts=True)
    most = int(np.max(counts))
    if most >= share * len(given.classes):
        what = f"class {values[int(np.argmax(counts))]} to {most} of {len(given.classes)} inputs looked at"
        other = " (if they are numbers and no classes: --task regression)" if may_be_numbers else ""
        yield Doubt(f"the network answers {what}: agreement with it says little{other}")
