"""`refine-quantized`: learn what rounding lost, with the rounding in the loop (quantisation-aware, label-free).

The int8 network runs in torch as it is: weights and activations are rounded at the scales and zero points that `quantize` chose,
by whatever dialect, and gradients go straight through the rounding (Jacob et al., arXiv 1712.05877; Bengio et al., arXiv
1308.3432). What moves are real numbers behind the codes of weights and biases, towards what the source says, on the views and
along the schedule of `refine`. The best state is rounded into codes again: the same graph, the same scales, other codes.

It is judged twice on samples that it did not learn from: in torch on the way, and in the end as the engine runs it. What is no
better there beyond doubt is taken back.

A program before and after::

    h = Conv(xq, DequantizeLinear(codes, s), bq)   ->   h = Conv(xq, DequantizeLinear(codes', s), bq')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir as ir

from edgec.graph.errors import PassError
from edgec.graph.execute import Executor
from edgec.graph.values import Range
from edgec.passes.base import Context, Note, PassResult, option
from edgec.passes.learning import (
    ABOVE,
    Learning,
    how_often,
    not_nearer,
    nothing_to_learn,
    part,
    score_figures,
)
from edgec.passes.quantize.pairs import pair_weights, unpair_weights
from edgec.passes.sensitivity.measure import output_names

if TYPE_CHECKING:
    from edgec.passes.learned.goals import Goals
    from edgec.passes.learned.judge import Network


@dataclass(frozen=True)
class RefineQuantized(Learning):
    """Distil the quantised network from the teacher, with the rounding in the loop."""

    name: ClassVar[str] = "refine-quantized"
    summary: ClassVar[str] = "learn what rounding lost, rounding on the way (needs torch)"
    requires_before: ClassVar[frozenset[str]] = frozenset({"quantize"})

    rate: float = option(
        0.001,
        "largest step of a weight in codes, as a share of their root mean square",
        Range(0, 1, above=True),
    )

    above: str = option("0%", ABOVE, reads=part)

    def requires(self, model: ir.Model) -> None:
        """Raise UsageError without torch. A model that is not quantised yet is one that `quantize` still works on."""
        from edgec.passes.learned.extra import require_torch

        require_torch(self.name)
        from edgec.passes.learned.executor import GraphModule

        GraphModule(model)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UnsupportedError, with the node's name, for an op that the executor has not; DataError without data."""
        from edgec.passes.learned.executor import GraphModule
        from edgec.passes.learned.hardware import placed
        from edgec.passes.learned.latent import latent_form, write_codes
        from edgec.passes.learned.teacher import Teacher
        from edgec.passes.learned.training import described, one_thread

        given, model = model, model.clone()
        paired = unpair_weights(model)
        latent, latents = latent_form(model)
        if not latents:
            raise PassError("no quantised layer to learn", hint="Run it after quantize.")
        with one_thread():
            device = self.on_device()
            goals = _goals(model, context, maps=self.maps, weight=self.weight)
            student = placed(GraphModule(latent), device)
            sizes = {student.homes[one.name]: one.size for one in latents}
            training = self.training(context, student, Teacher(context.teacher, device), goals, model, sizes)
            wanted = [goal.value for goal in goals.outputs]
            before = training.judge.score(_engine(model, wanted, context.threads))
            if (nothing := nothing_to_learn(given, before, self.above)) is not None:
                return nothing
            start = training.judge.score(training.network)
            learned = training.run(start, context.checkpoint, context.progress)
            student.load_state_dict(dict(learned.state))
            made = model.clone()
            changed = write_codes(student, latents, made)
            after = training.judge.score(_engine(made, wanted, context.threads))
        verdict = after.against(before)
        told = f"{described(before)} -> {described(after)}, on {training.judge.count} held-out samples as the engine runs it"
        figures = self.figures(learned, training, verdict)
        figures |= {
            "engine": {"before": score_figures(before), "after": score_figures(after)},
            "codes": changed,
        }
        if not changed or not verdict.kept:
            note = Note(not_nearer(learned, told, verdict.doubt), "reverted")
            return PassResult(given, False, (note,), data=figures)
        if paired:
            pair_weights(made)
        head = Note(f"{told}; {changed} codes changed")
        return PassResult(made, True, (head, Note(how_often(learned))), data=figures)


def _goals(model: ir.Model, context: Context, *, maps: int, weight: float) -> Goals:
    """The outputs of the source in front of a Softmax, where the quantised graph has those too, and maps that both have."""
    from edgec.passes.learned.goals import Goal, Goals, output_goals, shared_maps

    there = {value.name for node in model.graph for value in node.outputs}
    if there.issuperset(output_names(context.teacher.graph)):
        outputs = output_goals(context.teacher, context.task)
    else:
        outputs = [Goal(value.name or "", value.name or "") for value in model.graph.outputs]
    inner = shared_maps(model, context.teacher)[-maps:] if maps and weight else []
    return Goals(tuple(outputs), tuple(inner), weight)


def _engine(model: ir.Model, wanted: Sequence[str], threads: int) -> Network:
    """``model`` as onnxruntime runs it, in integers where it can."""
    import torch

    executor = Executor(model, outputs=list(dict.fromkeys(wanted)), threads=threads)

    def run(feeds: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in executor.run(feeds).items()}

    return run
