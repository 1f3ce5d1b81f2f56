"""The pass `refine`: it learns, it is judged, it is the same again, and it goes on where it was cut off."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView, constant
from edgec.passes.base import Progress
from edgec.passes.learned.training import _State
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.refine import Refine
from tests.passes.kept import Kept

NET = (
    "net (float[N,3,8,8] x) => (float[N,6] y) <float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[6,8] g, float[6] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2)  a = Add(u, r)  s = Relu(a)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)
MAPS = "net (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[8,3,3,3] w1, float[2,8,3,3] w2> { t = Conv<pads=[1,1,1,1]>(x, w1)  r = Relu(t)  y = Conv<pads=[1,1,1,1]>(r, w2) }"


@pytest.fixture
def teacher(canonical) -> ir.Model:
    model = canonical(NET)
    last = model.graph.initializers["g"]
    last.const_value = ir.tensor(20 * constant(last), name="g")
    return model


def harmed(model: ir.Model, by: float = 0.3) -> ir.Model:
    """A copy whose convolutions are off."""
    student, rng = model.clone(), np.random.default_rng(1)
    for node in student.graph:
        view = ConvView.of(node)
        if view is not None:
            noise = by * view.weight.std() * rng.standard_normal(view.weight.shape)
            view.set(weight=(view.weight + noise).astype(np.float32))
    return student


def weights(model: ir.Model) -> dict[str, bytes]:
    return {name: value.const_value.numpy().tobytes() for name, value in model.graph.initializers.items()}


def error(student: ir.Model, teacher: ir.Model, x: np.ndarray) -> float:
    a, b = (Executor(one).run({"x": x})["y"] for one in (student, teacher))
    return float(np.square(a - b).mean() / np.square(b - b.mean(0)).mean())


X = np.random.default_rng(9).standard_normal((64, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("text", [NET, MAPS], ids=["classes", "maps"])
def test_it_comes_nearer_to_the_teacher_on_what_it_never_saw(canonical, context, noise, text: str) -> None:
    teacher = canonical(text)
    student = harmed(teacher)
    made = replace(context(teacher, noise(teacher, 96)), task="classification" if text == NET else "")
    result = Refine(steps=40, batch=16).run(student.clone(), made)
    assert result.modified
    assert error(result.model, teacher, X) < 0.5 * error(student, teacher, X)
    assert result.data["after"]["loss"] < result.data["before"]["loss"]
    assert result.data["settled"] == {"steps": 40}


def test_threads_change_no_byte_and_seeds_do(teacher, context, noise) -> None:
    made = replace(context(teacher, noise(teacher, 48)), task="classification")
    one, two, other = (
        weights(
            Refine(steps=6, batch=16).run(harmed(teacher), replace(made, threads=threads, seed=seed)).model
        )
        for threads, seed in ((1, 0), (3, 0), (1, 1))
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize(("rate", "by"), [(0.006, 0.3), (0.5, 0.02)], ids=["forward", "back and forward"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    teacher, context, noise, monkeypatch, rate: float, by: float
) -> None:
    monkeypatch.setattr("edgec.passes.learned.training.SAVED_EVERY", 0.0)
    made = replace(context(teacher, noise(teacher, 48)), task="classification")
    refine = Refine(steps=12, batch=16, views=64, rate=rate)
    whole = refine.run(harmed(teacher, by), made).model
    kept = Kept(cut=8)
    with pytest.raises(KeyboardInterrupt):
        refine.run(harmed(teacher, by), replace(made, checkpoint=kept))
    before = kept.writes
    again = refine.run(harmed(teacher, by), replace(made, checkpoint=kept)).model
    assert weights(again) == weights(whole)
    assert kept.writes - before < 8


def test_a_time_decides_the_steps_once(teacher, context, noise) -> None:
    made = replace(context(teacher, noise(teacher, 48)), task="classification")
    result = Refine(time="1s", batch=8).run(harmed(teacher), made)
    steps = result.data["steps"]
    assert steps >= 10
    again = Refine(steps=steps, batch=8).run(harmed(teacher), made)
    assert weights(again.model) == weights(result.model)


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_the_same_network_is_left_as_it_is(
    teacher, context, noise, arithmetic: Literal["fp32", "bf16"]
) -> None:
    """Whatever steps are computed in: the judge is not to see its rounding."""
    made = replace(context(teacher, noise(teacher, 32)), task="classification")
    result = Refine(steps=5, arithmetic=arithmetic).run(teacher.clone(), made)
    assert not result.modified
    assert "nothing to learn" in result.notes[0].text


def test_above_what_was_lost_it_does_not_run(teacher, context, noise) -> None:
    made = replace(context(teacher, noise(teacher, 32)), task="classification")
    result = Refine(steps=5, above="99%").run(harmed(teacher), made)
    assert not result.modified
    assert "no more than 99%" in result.notes[0].text


def test_what_makes_it_worse_is_taken_back(teacher, context, noise) -> None:
    made = replace(context(teacher, noise(teacher, 32)), task="classification")
    student = harmed(teacher, 0.01)
    result = Refine(steps=4, rate=1.0).run(student.clone(), made)
    assert not result.modified
    assert result.notes[0].level == "reverted"
    assert weights(result.model) == weights(student)


@pytest.mark.parametrize(
    ("off", "told"),
    [("FAR", "back to step 0, rate 0.025"), ("WORSE", "times the loss before; back to step 0, rate 0.025")],
    ids=["seen by the judge", "seen by the losses"],
)
def test_steps_that_are_too_long_become_shorter(
    teacher, context, noise, monkeypatch, off: str, told: str
) -> None:
    """A network next to its teacher, which full steps throw far from it; either way to see that is enough."""
    made = replace(context(teacher, noise(teacher, 96)), task="classification")
    student = harmed(teacher, 0.02)
    refine = Refine(steps=60, batch=16, rate=0.1)
    monkeypatch.setattr(f"edgec.passes.learned.training.{off}", float("inf"))
    heard = Heard()
    found = refine.run(student.clone(), replace(made, progress=heard))
    assert any(told in line for line in heard.lines)
    assert found.modified
    assert error(found.model, teacher, X) < error(student, teacher, X)
    monkeypatch.setattr("edgec.passes.learned.training.FAR", float("inf"))
    monkeypatch.setattr("edgec.passes.learned.training.WORSE", float("inf"))
    assert not refine.run(student.clone(), made).modified


def test_losses_tell_within_steps_what_the_judge_would_see_much_later(teacher, context, noise) -> None:
    made = replace(context(teacher, noise(teacher, 96)), task="classification")
    heard = Heard()
    Refine(steps=200, batch=16, rate=0.5).run(harmed(teacher, 0.02), replace(made, progress=heard))
    first = next(line for line in heard.lines if "back to step 0" in line)
    assert "times the loss before" in first
    assert int(re.search(r"step (\d+):", first)[1]) < 20


def test_a_first_batch_that_was_easy_is_no_reason_to_go_back(teacher, context, noise, monkeypatch) -> None:
    made = replace(context(teacher, noise(teacher, 96)), task="classification")
    refine, heard = Refine(steps=40, batch=16, rate=0.002), Heard()
    usual = refine.run(harmed(teacher), made).model
    monkeypatch.setattr("edgec.passes.learned.training._State", partial(_State, first=1e-9))
    found = refine.run(harmed(teacher), replace(made, progress=heard)).model
    assert not any("back to step" in line for line in heard.lines)
    assert weights(found) == weights(usual)


@dataclass
class Heard(Progress):
    steps: list[tuple[int, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def step(self, label: str, done: int, total: int) -> None:
        self.steps.append((done, total))

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_progress_never_falls_and_ends_at_its_end(teacher, context, noise) -> None:
    heard = Heard()
    made = replace(context(teacher, noise(teacher, 32)), task="classification", progress=heard)
    Refine(steps=10).run(harmed(teacher), made)
    done = [one for one, _ in heard.steps]
    assert done == sorted(done)
    assert heard.steps[-1] == (10, 10)
    assert "step 10: loss" in heard.lines[-1]


def test_one_sample_at_a_time_where_the_batch_is_fixed(canonical, context, noise) -> None:
    """A Reshape that merges the batch with pixels cannot be freed."""
    text = (
        "net (float[1,3,4,4] x) => (float[16,5] y) <float[6,3,3,3] w1, float[6,5] g>"
        "{ t = Conv<pads=[1,1,1,1]>(x, w1)  r = Relu(t)  s = Transpose<perm=[0,2,3,1]>(r)  f = Reshape(s, shape)  y = MatMul(f, g) }"
    ).replace("float[6,5] g>", "float[6,5] g, int64[2] shape = {16, 6}>")
    teacher = canonical(text)
    student = harmed(teacher)
    result = Refine(steps=10, batch=8).run(student.clone(), context(teacher, noise(teacher, 32)))
    assert result.modified
    assert result.data["after"]["loss"] < result.data["before"]["loss"]


def test_a_network_outside_is_refused_by_the_name_of_its_op(canonical) -> None:
    model = canonical("net (float[N,4] x) => (float[N,2] y) <int64[1] k = {2}> { y, i = TopK(x, k) }")
    with pytest.raises(UnsupportedError, match="TopK"):
        Refine().requires(model)


def test_without_torch_one_clear_message(teacher, monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="refine needs torch"):
        Refine().requires(teacher)


def test_options_are_read_where_they_are_made() -> None:
    assert print_pass(parse_pipeline("refine{time=90s above=5%}")[0]) == "refine{time=90s above=5%}"
    for wrong in ("time=soon", "time=0s", "above=120%", "rate=0", "held-out=0", "device=tpu", "steps=-1"):
        with pytest.raises(UsageError):
            parse_pipeline(f"refine{{{wrong}}}")
