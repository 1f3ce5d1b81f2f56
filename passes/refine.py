"""`refine`: learn what the closed form lost, from the teacher, on all unlabelled samples.

Label-free distillation (Hinton et al., arXiv 1503.02531): the student sees views of the samples (turned, shifted, brighter,
mixed; mirrored where the data say so) and moves by gradients towards what the teacher says to the same views: classes by the
divergence of their probabilities, everything else by squares, part by part, and the last maps of its blocks by squares too.
Adam, with a rate that is a share of each weight's own size, along a cosine. Every weight may move; no structure changes.

It is judged on samples that it did not learn from, in views that no network was trained on, at the temperature that suits each
network best (`learned.judge`): the best state of the run is kept only where it is nearer to the teacher beyond doubt, and
taken back else. With ``above`` it runs only where enough was lost. With ``only`` the layers that one pass made learn inside a
network that stays as it is: blocks grafted into the teacher (NetGraft, arXiv 2012.04915).

``time`` bounds the work: the number of steps is decided once, from how long the first ones take, and reported; ``steps`` names
it, and then the same seed gives the same network on the same kind of machine, whatever the number of threads. A run that
was cut off goes on with --resume to the same end.

A program before and after::

    y = Conv(a, w, b)   ->   y = Conv(a, w', b')   # of all layers, moved together
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from edgec.graph.errors import PassError
from edgec.graph.provenance import FILE, READING, origins
from edgec.graph.values import NotAdmitted
from edgec.passes.base import NUMBER_FORMATS, Context, Note, PassResult, option
from edgec.passes.learning import ABOVE, Learning, how_often, not_nearer, nothing_to_learn, part
from edgec.passes.quantize.quantiser import refuse_quantised

if TYPE_CHECKING:
    from edgec.passes.learned.training import Training


def _pass_name(text: str) -> str:
    """A pass's name, or nothing. Raises NotAdmitted."""
    if text and not re.fullmatch(r"[a-z][a-z0-9-]*", text):
        raise NotAdmitted(text, "a pass's name")
    return text


@dataclass(frozen=True)
class Refine(Learning):
    """Distil the compressed network from the teacher, without labels."""

    name: ClassVar[str] = "refine"
    summary: ClassVar[str] = "learn what compression lost from the teacher, on unlabelled data (needs torch)"
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    only: str = option(
        "", "learn only in layers that this pass made, such as distill-convex", reads=_pass_name
    )
    above: str = option("0%", ABOVE, reads=part)

    def requires(self, model: ir.Model) -> None:
        """Raise PassError for a quantised model (weights are learned in float), UsageError without torch, UnsupportedError for an
        op that torch does not compute here."""
        from edgec.passes.learned.extra import require_torch

        refuse_quantised(model, self.name)
        require_torch(self.name)
        from edgec.passes.learned.executor import GraphModule

        GraphModule(model)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UnsupportedError, with the node's name, for an op that the executor has not; DataError without data;
        PassError where nothing of ``only`` is there."""
        return self.learn(model, context, made_by(model, self.only) if self.only else None)

    def learn(self, model: ir.Model, context: Context, nodes: frozenset[str] | None) -> PassResult:
        """`run` in which only the layers ``nodes`` learn (None: all)."""
        from edgec.passes.learned.executor import write_back
        from edgec.passes.learned.training import described, one_thread

        with one_thread():
            training = self._training(model, context, nodes)
            start = training.judge.score(training.network)
            if (nothing := nothing_to_learn(model, start, self.above)) is not None:
                return nothing
            learned = training.run(start, context.checkpoint, context.progress)
            verdict = learned.best.against(learned.start)
            told = f"{described(learned.start)} -> {described(learned.best)}, on {training.judge.count} held-out samples"
            figures = self.figures(learned, training, verdict)
            if not verdict.kept:
                note = Note(not_nearer(learned, told, verdict.doubt), "reverted")
                return PassResult(model, False, (note,), data=figures)
            training.student.load_state_dict(dict(learned.state))
            write_back(training.student, model)
        return PassResult(model, True, (Note(told), Note(how_often(learned))), data=figures)

    def _training(self, model: ir.Model, context: Context, nodes: frozenset[str] | None) -> Training:
        from edgec.passes.learned.executor import GraphModule
        from edgec.passes.learned.goals import goals_of
        from edgec.passes.learned.hardware import placed
        from edgec.passes.learned.teacher import Teacher

        device = self.on_device()
        student = placed(GraphModule(model), device)
        if nodes is not None:
            student.learns_only(nodes)
        goals = goals_of(model, context.teacher, context.task, maps=self.maps, weight=self.weight)
        return self.training(context, student, Teacher(context.teacher, device), goals, model)


def made_by(model: ir.Model, name: str) -> frozenset[str]:
    """The nodes that a pass made. Raises PassError where there are none, with those of which there are."""
    found: dict[str, set[str]] = {}
    for node, one in origins(model).items():
        found.setdefault(one.made_by, set()).add(node)
    if name not in found:
        others = sorted(set(found) - {FILE, READING})
        why = f"those that made some: {', '.join(others)}" if others else "no pass made any"
        raise PassError(f"only={name}: no layer is of that pass's making", why=why)
    return frozenset(found[name])
