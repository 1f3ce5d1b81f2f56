"""The pipeline: the contract of passes is enforced, finished passes are remembered by content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from threadpoolctl import threadpool_info

from edgec.compiler.cache import PassCache, pass_key
from edgec.compiler.pipeline import run_pipeline
from edgec.graph.errors import EdgecError, PassError, UsageError
from edgec.graph.views import ConvView
from edgec.passes.base import Need, Note, Pass, PassResult, option
from edgec.passes.fold import Fold

NET = "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }"


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the first convolution's weights."""

    name: ClassVar[str] = "scale"
    summary: ClassVar[str] = "for tests"
    by: float = option(2.0, "factor")

    def run(self, model, context):
        view = ConvView.of(next(iter(model.graph)))
        view.set(weight=view.weight * self.by)
        return PassResult(model, True, (Note(f"by {self.by}"),))


@dataclass(frozen=True)
class Liar(Scale):
    """Promises to keep the function, and does not."""

    name: ClassVar[str] = "liar"
    changes_function: ClassVar[bool] = False


@dataclass(frozen=True)
class Breaker(Pass):
    """Leaves a graph that is not canonical."""

    name: ClassVar[str] = "breaker"
    summary: ClassVar[str] = "for tests"

    def run(self, model, context):
        next(iter(model.graph)).name = None
        return PassResult(model, True)


@dataclass(frozen=True)
class Renamer(Breaker):
    """Changes the interface."""

    name: ClassVar[str] = "renamer"

    def run(self, model, context):
        model.graph.outputs[0].name = "z"
        return PassResult(model, True)


@dataclass(frozen=True)
class Hungry(Scale):
    """Needs data."""

    name: ClassVar[str] = "hungry"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})


@dataclass(frozen=True)
class Counter(Scale):
    """Says how many threads BLAS has."""

    name: ClassVar[str] = "counter"

    def run(self, model, context):
        pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return PassResult(model, False, data={"threads": pools})


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_in_a_pass(canonical, context, threads) -> None:
    model = canonical(NET)
    (step,) = run_pipeline([Counter()], model, replace(context(model), threads=threads))
    assert step.data["threads"]
    assert set(step.data["threads"]) == {1}


def test_steps_keep_the_source_and_count_costs(canonical, context) -> None:
    model = canonical(NET)
    weight = ConvView(next(iter(model.graph))).weight.copy()
    steps = run_pipeline([Scale(), Scale(by=0.5)], model, context(model))
    assert (ConvView(next(iter(model.graph))).weight == weight).all()
    assert (ConvView(next(iter(steps[-1].model.graph))).weight == weight).all()
    assert [step.macs for step in steps] == [(64 * 4 * 27,) * 2] * 2


@pytest.mark.parametrize(
    ("one", "why"),
    [(Liar(), "promised to keep the function"), (Breaker(), "no name"), (Renamer(), "inputs or outputs")],
)
def test_broken_promises_are_caught(one: Pass, why: str, canonical, context) -> None:
    model = canonical(NET)
    with pytest.raises(EdgecError, match=why):
        run_pipeline([one], model, context(model))


def test_a_pass_without_its_data_is_refused_before_anything_runs(canonical, context) -> None:
    model = canonical(NET)
    ran = []
    with pytest.raises(UsageError, match="hungry: needs calibration data"):
        run_pipeline([Scale(), Hungry()], model, context(model), after=ran.append)
    assert not ran


def test_an_error_names_the_pass(canonical, context) -> None:
    class Failing(Scale):
        def run(self, model, context):
            raise PassError("no way")

    model = canonical(NET)
    with pytest.raises(PassError, match="pass scale: no way"):
        run_pipeline([Failing()], model, context(model))


def test_resume_takes_what_is_there_and_only_that(canonical, context, tmp_path, monkeypatch) -> None:
    model = canonical(NET)
    cache = PassCache(tmp_path / "cache")
    monkeypatch.setattr("edgec.compiler.cache.print_pass", lambda one: f"{one.name}{one}")
    first = run_pipeline([Scale(), Fold()], model, context(model), cache=cache)
    again = run_pipeline([Scale(), Fold(), Scale(by=3)], model, context(model), cache=cache, resume=True)
    assert [step.cached for step in again] == [True, True, False]
    assert again[0].notes == first[0].notes
    other = run_pipeline([Scale(by=4), Fold()], model, context(model), cache=cache, resume=True)
    assert [step.cached for step in other] == [False, False]


def test_the_key_knows_everything_that_matters(canonical, context, noise) -> None:
    model, other = canonical(NET), canonical(NET, 1)
    base = context(model)
    keys = {
        pass_key(model, Fold(), base, "t"),
        pass_key(other, Fold(), base, "t"),
        pass_key(model, Fold(), base, "another teacher"),
        pass_key(model, Fold(), context(model, noise(model)), "t"),
        pass_key(model, Fold(), context(model, noise(model, seed=1)), "t"),
    }
    assert len(keys) == 5
    assert pass_key(model.clone(), Fold(), base, "t") in keys


def test_a_damaged_entry_is_no_entry(canonical, context, tmp_path) -> None:
    model = canonical(NET)
    cache = PassCache(tmp_path / "cache")
    run_pipeline([Fold()], model, context(model), cache=cache)
    (entry,) = (tmp_path / "cache").iterdir()
    data = bytearray((entry / "model.onnx").read_bytes())
    data[-1] ^= 1
    (entry / "model.onnx").write_bytes(data)
    assert cache.read(entry.name) is None
