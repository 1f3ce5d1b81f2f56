"""`distil`: a smaller network in the place of the one that comes in, taught by the source, without labels.

``student=FILE`` takes the user's own network: anything that takes and gives what the source does, at the source's preprocessing.
Where layers of both have the same form they start from the source's weights, and these and the last ones are fitted to what the
source makes there (`distillation.start`), where that comes nearer to the source than the file's own weights. ``narrow=0.5``
narrows the network that comes in: every group of channels to that share, those that go chosen as `prune-channels` chooses, then
re-fitted as by `recover-lsq`. ``template=depthwise`` and ``template=bottleneck`` put its k x k convolutions in the form that
small networks are built of (`distillation.template`), solved for in closed form and re-fitted too.

Then it learns as in `refine`, on the same views, judged by the same guard. Inner maps of other channels and sizes are matched
through 1x1 adapters (FitNets, arXiv 1412.6550), which are no part of the network. A student that learning makes no better is
given back as it came. What prunes, cuts into pieces and quantises may stand behind it in any order (SlimNets, arXiv 1808.00496).

A program before and after::

    a = Relu(Conv(x, w[64,3,3,3]))   ->   a = Relu(Conv(x, v[32,3,3,3]))
    y = Gemm(Pool(a), g[10,64])           y = Gemm(Pool(a), h[10,32])
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from edgec.graph.errors import PassError, UsageError
from edgec.graph.values import NotAdmitted, Range
from edgec.passes.base import NUMBER_FORMATS, Context, LayerReport, Note, PassResult, option
from edgec.passes.distillation.adopt import adopted
from edgec.passes.distillation.narrow import fixed, narrow
from edgec.passes.distillation.start import closed_form
from edgec.passes.distillation.template import TEMPLATES, Name, shape_by
from edgec.passes.learning import EQUAL, Learning, how_often, score_figures
from edgec.passes.options import path_option
from edgec.passes.quantize.quantiser import refuse_quantised
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit.batches import Batches, wants_flips

if TYPE_CHECKING:
    from edgec.passes.learned.judge import Score
    from edgec.passes.learned.training import Training


def _sha256(text: str) -> str:
    """A hash, or nothing. Raises NotAdmitted."""
    if text and not re.fullmatch(r"[0-9a-f]{64}", text):
        raise NotAdmitted(text, "a sha256, 64 hexadecimal digits")
    return text


@dataclass(frozen=True)
class _Begun:
    """A student before it learns: as it is ``given``, and by the ``closed`` form (None: that is how it is given)."""

    given: ir.Model
    closed: ir.Model | None
    layers: tuple[LayerReport, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Distil(Learning):
    """Another network, or a narrower one, taught by the source."""

    name: ClassVar[str] = "distil"
    summary: ClassVar[str] = (
        "put a smaller network in the place of this one, taught by the source (needs torch)"
    )
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    student: str = path_option(
        "file of the network that learns; what it takes and gives must be the source's"
    )
    narrow: float = option(
        0.0,
        "share of every group's channels that stays; the rest goes before it learns",
        Range(0, 1, below=True),
    )
    template: Name = option("none", "form that every k x k convolution takes before it learns")
    sha256: str = option("", "of the student's file: another one is refused", reads=_sha256)

    def check(self) -> None:
        """Raise UsageError for no student, or two."""
        super().check()
        given = sum((bool(self.student), bool(self.narrow), self.template != "none"))
        if given != 1:
            why = f"{given} of them are given" if given else "none is given"
            raise UsageError(
                "distil needs student=, narrow= or template=", why=why, hint="Write distil{narrow=0.5}."
            )
        if self.sha256 and not self.student:
            raise UsageError("distil: sha256= is of the student's file, and there is none")

    @property
    def replaces_network(self) -> bool:
        return bool(self.student)

    def requires(self, model: ir.Model) -> None:
        """Raise PassError for a quantised model, UsageError without torch, UnsupportedError for an op that torch does not
        compute here."""
        from edgec.passes.learned.extra import require_torch

        refuse_quantised(model, self.name)
        require_torch(self.name)
        from edgec.passes.learned.executor import GraphModule

        GraphModule(model)

    def adopt(self, network: ir.Model, model: ir.Model) -> ir.Model:
        """``network``, the student's file, in the place of ``model``.

        Raises ModelError for one that takes or gives something else, UnsupportedError for an op that torch does not compute.
        """
        from edgec.passes.learned.executor import GraphModule

        made = adopted(network, model, self.student)
        GraphModule(made)
        return made

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises ModelError and UnsupportedError as `adopt` does, DataError without data."""
        from edgec.passes.learned.executor import write_back
        from edgec.passes.learned.training import described, one_thread

        with one_thread():
            self.parted(context)  # too few samples are refused before any work
            begun = self._begun(model, context)
            training, given, start = self._training(begun, context)
            notes = [*begun.notes]
            told = f"as given {described(given)}"
            chosen = begun.given
            if start is not given:
                chosen = begun.closed or begun.given
                told += f", by the closed form {described(start)}"
            layers = begun.layers if start is not given or begun.closed is None else ()
            if start.loss <= EQUAL:
                note = Note("it answers as the source does already: nothing to learn")
                return PassResult(chosen, True, (note, *notes), layers, {"before": score_figures(given)})
            learned = training.run(start, context.checkpoint, context.progress)
            verdict = learned.best.against(given)
            figures = self.figures(learned, training, verdict) | {"before": score_figures(given)}
            on = f"on {training.judge.count} held-out samples"
            if verdict.kept and learned.at:
                training.student.load_state_dict(dict(learned.state))
                write_back(training.student, chosen)
                notes = [
                    Note(f"{told}, taught {described(learned.best)}, {on}"),
                    Note(how_often(learned)),
                    *notes,
                ]
            else:
                stays = (
                    "what the closed form made of it stays"
                    if start is not given
                    else "it is given back as it came"
                )
                text = (
                    f"learning did not bring it nearer to the source ({told}, {on}){verdict.doubt}: {stays}"
                )
                notes = [Note(text, "reverted"), *notes]
        return PassResult(chosen, True, tuple(notes), layers, figures)

    def _begun(self, model: ir.Model, context: Context) -> _Begun:
        if self.student:
            return self._from_file(model, context)
        return self._narrowed(model, context) if self.narrow else self._shaped(model, context)

    def _from_file(self, model: ir.Model, context: Context) -> _Begun:
        network = context.networks.get(self.student)
        if network is None:
            raise PassError(f"the student {self.student} was not read", hint="Give it in Context.networks.")
        given = self.adopt(network, model)
        hflip = wants_flips(self.hflip, given)
        batches = Batches.of(context, given.graph, held_out=self.held_out, hflip=hflip, mixup=True)
        closed, layers = closed_form(given, context, batches, self.name)
        return _Begun(given, closed if layers else None, layers, ())

    def _narrowed(self, model: ir.Model, context: Context) -> _Begun:
        notes = [Note(f"keeps its channels: {group.reason}", node=group.name) for group in fixed(model)]
        widths = narrow(model, self.narrow, context, self.hflip, self.name)
        if not widths:
            why = "; ".join(dict.fromkeys(group.reason for group in fixed(model))) or "it has no layers"
            raise PassError(
                "no channel can be removed", why=why, hint="Bring a smaller network: student=FILE."
            )
        result = RecoverLsq(hflip=self.hflip, held_out=self.held_out).run(model, context)
        before, after = (sum(pair[place] for pair in widths.values()) for place in (0, 1))
        head = Note(f"{len(widths)} groups of channels narrowed, from {before} to {after} channels in all")
        return _Begun(result.model, None, result.layers, (head, *notes))

    def _shaped(self, model: ir.Model, context: Context) -> _Begun:
        reports, notes = shape_by(TEMPLATES[self.template], model, context, self.hflip, self.name)
        if not reports:
            why = "; ".join(dict.fromkeys(note.text for note in notes)) or "it has no layers"
            raise PassError(
                f"no layer takes the form {self.template!r}", why=why, hint="Narrow it: narrow=0.5."
            )
        result = RecoverLsq(hflip=self.hflip, held_out=self.held_out).run(model, context)
        head = Note(f"{len(reports)} layers in the form {self.template!r}")
        return _Begun(result.model, None, (*reports, *result.layers), (head, *notes))

    def _training(self, begun: _Begun, context: Context) -> tuple[Training, Score, Score]:
        """The loop, the score of the student as given, and that of the one that the loop begins with: the same one, or what the
        closed form made of it where that is better beyond doubt."""
        from edgec.passes.learned.executor import GraphModule
        from edgec.passes.learned.goals import Goals, goals_of, output_goals
        from edgec.passes.learned.hardware import placed
        from edgec.passes.learned.matched import AdaptedStudent, PooledTeacher, matches
        from edgec.passes.learned.teacher import Teacher

        device, teacher = self.on_device(), context.teacher
        if not self.student:
            goals = goals_of(begun.given, teacher, context.task, maps=self.maps, weight=self.weight)
            student = placed(GraphModule(begun.given), device)
            training = self.training(context, student, Teacher(teacher, device), goals, begun.given)
            score = training.score(student)
            return training, score, score
        matched = matches(begun.given, teacher, self.maps if self.weight else 0)
        pooled = PooledTeacher(teacher, device, matched)
        goals = Goals(
            tuple(output_goals(teacher, context.task)), tuple(one.goal for one in matched), self.weight
        )
        first = placed(AdaptedStudent(begun.given, matched), device)
        training = self.training(context, first, pooled, goals, begun.given)
        given = start = training.score(first)
        chosen = first
        if begun.closed is not None:
            second = placed(AdaptedStudent(begun.closed, matched), device)
            score = training.score(second)
            if score.against(given).kept:
                chosen, start = second, score
        chosen.fit(pooled, training.views, device)
        return training.of(chosen), given, start
