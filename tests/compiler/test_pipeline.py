"""The pipeline: the contract of passes is enforced, finished passes are remembered by content."""

from __future__ import annotations

import os
import stat
import tracemalloc
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from threadpoolctl import threadpool_info

from edgec.compiler.pipeline import cache as caching
from edgec.compiler.pipeline.cache import KeyMaker, PassCache
from edgec.compiler.pipeline.checks import _check_same_function
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.pipeline.sealed import SealedFolder, user_key
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.heads import Head
from edgec.graph.errors import EdgecError, PassError, UsageError
from edgec.graph.views import ConvView
from edgec.passes.base import LatencyModel, Need, Note, Pass, PassResult, Progress, option
from edgec.passes.equalize import Equalize
from edgec.passes.fold import Fold
from edgec.passes.quantize import Quantize
from edgec.targets import target
from edgec.targets.estimator import latency_table


def kept(folder: Path) -> PassCache:
    return PassCache(SealedFolder(folder / "cache", user_key()))


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


def test_a_promise_is_held_to_no_more_than_the_model_is_sure_of(canonical, monkeypatch) -> None:
    """Answers around 1e-5 to noise: the last digits of the inputs decide a thousandth of their range."""
    before, same, other = (
        canonical(
            "g (float[N,3,96,96] x) => (float[N,4,96,96] y) <float[4,3,1,1] w, float m = {MIDDLE}, float t = {0.3}> "
            "{ BODY  y = Sigmoid(e) }".replace("BODY", body).replace("MIDDLE", middle)
        )
        for body, middle in (
            ("c = Conv(x, w)  r = Relu(c)  d = Div(r, t)  e = Sub(d, m)", "21.0"),
            (
                "c = Conv(x, w)  r = Relu(c)  s = Sub(r, m)  q = Add(s, m)  d = Div(q, t)  e = Sub(d, m)",
                "21.0",
            ),
            ("c = Conv(x, w)  r = Relu(c)  d = Div(r, t)  e = Sub(d, m)", "21.2"),
        )
    )
    _check_same_function("pass fold", before, same)
    with monkeypatch.context() as strict:
        strict.setattr("edgec.compiler.pipeline.checks.noise_from", lambda apart: 0.0)
        with pytest.raises(PassError, match="1e-05 is allowed"):
            _check_same_function("pass fold", before, same)
    with pytest.raises(PassError, match="promised to keep the function"):
        _check_same_function("pass fold", before, other)


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
    cache = kept(tmp_path)
    monkeypatch.setattr("edgec.compiler.pipeline.cache.print_pass", lambda one: f"{one.name}{one}")
    first = run_pipeline([Scale(), Fold()], model, context(model), cache=cache)
    again = run_pipeline([Scale(), Fold(), Scale(by=3)], model, context(model), cache=cache, resume=True)
    assert [step.cached for step in again] == [True, True, False]
    assert again[0].notes == first[0].notes
    other = run_pipeline([Scale(by=4), Fold()], model, context(model), cache=cache, resume=True)
    assert [step.cached for step in other] == [False, False]


def test_the_key_knows_everything_that_matters(canonical, context, noise, monkeypatch) -> None:
    model, other = canonical(NET), canonical(NET, 1)
    host, rpi = target("host"), target("rpi4")
    base = replace(context(model, noise(model)), target=rpi, seed=1)
    table = latency_table(rpi)
    contexts = {
        "teacher": replace(base, teacher=other),
        "data": replace(base, data=noise(model, seed=1)),
        "data's order": replace(base, data=replace(base.data, indices=base.data.indices[::-1])),
        "no data": replace(base, data=None),
        "target": replace(base, target=host),
        "a field of the target": replace(base, target=rpi.model_copy(update={"channel_multiple": 3})),
        "seed": replace(base, seed=2),
        "reference": replace(base, reference=other),
        "the source at its own size": replace(base, at_source_size=other),
        "a network in the source's place": replace(base, successor=other),
        "task": replace(base, task="detection"),
        "answers": replace(base, answers=Detection(Head("yolov8", (8, 8)))),
        "another head": replace(base, answers=Detection(Head("yolox", (8, 8)))),
        "prices": replace(base, prices=LatencyModel(table, 2.0)),
        "the source's time": replace(base, prices=LatencyModel(table, 3.0)),
        "typical prices": replace(base, prices=LatencyModel(table, 2.0, typical=True)),
        "scaled prices": replace(base, prices=LatencyModel(replace(table, factor=2.0), 2.0)),
        "an entry of the prices": replace(
            base, prices=LatencyModel(replace(table, entry=table.entry.scaled(2.0, 1.1, "test")), 2.0)
        ),
    }
    keys = {name: KeyMaker.of(one).key(model, Fold()) for name, one in contexts.items()}
    keys["base"] = KeyMaker.of(base).key(model, Fold())
    keys["model"] = KeyMaker.of(base).key(other, Fold())
    keys["pass"] = KeyMaker.of(base).key(model, Equalize())
    keys["option"] = KeyMaker.of(base).key(model, Equalize(strength=0.7))
    assert len(set(keys.values())) == len(keys), keys
    same = replace(base, threads=2, scratch=base.scratch / "elsewhere", progress=Progress())
    assert KeyMaker.of(same).key(model.clone(), Fold()) == keys["base"]
    # What a context holds is either in the key or one of those four: a new field has to be decided on here.
    # `networks` are those that passes name: tests/passes/test_distil.py changes one.
    keyed = {
        "networks",
        "successor",
        "answers",
        "task",
        "teacher",
        "data",
        "target",
        "seed",
        "reference",
        "prices",
        "at_source_size",
    }
    assert {field.name for field in fields(base)} == keyed | {"threads", "scratch", "progress", "checkpoint"}
    assert {field.name for field in fields(LatencyModel)} == {"table", "source_ms", "typical"}
    assert {field.name for field in fields(table)} == {"entry", "target", "factor"}


@pytest.mark.parametrize(
    "package", ["numpy", "scipy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "Pillow"]
)
def test_another_version_of_what_computes_is_another_key(
    package, canonical, context, monkeypatch, tmp_path
) -> None:
    model = canonical(NET)
    cache = kept(tmp_path)
    run_pipeline([Fold()], model, context(model), cache=cache)
    real = caching.version
    monkeypatch.setattr(caching, "version", lambda name: "99.9" if name == package else real(name))
    (step,) = run_pipeline([Fold()], model, context(model), cache=cache, resume=True)
    assert not step.cached
    monkeypatch.undo()
    (step,) = run_pipeline([Fold()], model, context(model), cache=cache, resume=True)
    assert step.cached


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("sys.version_info", (3, 99, 0)),
        ("platform.machine", lambda: "riscv64"),
        ("threadpool_info", list),
        ("_estimates", lambda context: {"measured": "anew"}),
        ("code_version", lambda: "edited"),
    ],
)
def test_another_machine_or_code_is_another_key(what, value, canonical, context, monkeypatch) -> None:
    model = canonical(NET)
    before = KeyMaker.of(context(model)).common
    assert KeyMaker.of(context(model)).common == before
    monkeypatch.setattr(f"edgec.compiler.pipeline.cache.{what}", value)
    assert KeyMaker.of(context(model)).common != before


def test_the_code_version_is_that_of_the_files_and_of_edgec(monkeypatch, tmp_path) -> None:
    (tmp_path / "one.py").write_text("a = 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "two.py").write_text("b = 1\n")
    monkeypatch.setattr(
        caching, "import_module", lambda name: SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    )
    version_of = caching.code_version.__wrapped__
    seen = [version_of(), version_of()]
    assert seen[0] == seen[1]
    (tmp_path / "sub" / "two.py").write_text("b = 2\n")
    seen.append(version_of())
    (tmp_path / "sub" / "two.py").rename(tmp_path / "sub" / "three.py")
    seen.append(version_of())
    monkeypatch.setattr(caching, "__version__", "99")
    seen.append(version_of())
    assert len(set(seen)) == 4


def test_passes_behind_quantize_are_keyed_by_the_float_model(canonical, context, tmp_path) -> None:
    class Quantize(Scale):
        name: ClassVar[str] = "quantize"

        def run(self, model, context):
            return PassResult(canonical(NET), True)  # the same output, whatever came in

    model, cache = canonical(NET), kept(tmp_path)
    run_pipeline([Scale(), Quantize(), Fold()], model, context(model), cache=cache)
    again = run_pipeline([Scale(by=3), Quantize(), Fold()], model, context(model), cache=cache, resume=True)
    assert not any(step.cached for step in again)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replant(path: Path) -> None:
    """What an attacker can do who knows everything but the user's key."""
    SealedFolder(path.parent, b"x" * 32).write(path.name, path.read_bytes()[32:])


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unreadable_length(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:32] + b"\xff" * 8 + path.read_bytes()[40:])


@pytest.mark.parametrize("harm", [damage, cut, empty, replant, link, pipe, huge, folder, unreadable_length])
def test_an_entry_that_is_not_as_we_wrote_it_is_no_entry(harm, canonical, context, tmp_path) -> None:
    model = canonical(NET)
    cache = kept(tmp_path)
    run_pipeline([Fold()], model, context(model), cache=cache)
    (entry,) = (tmp_path / "cache").iterdir()
    harm(entry)
    (step,) = run_pipeline([Fold()], model, context(model), cache=(again := kept(tmp_path)), resume=True)
    assert not step.cached
    assert again.store.refused == [entry.name]


def test_an_entry_under_another_name_is_no_entry(canonical, context, tmp_path) -> None:
    cache = kept(tmp_path)
    cache.write("a", canonical(NET), {})
    (tmp_path / "cache" / "a").rename(tmp_path / "cache" / "b")
    assert cache.read("b") is None
    assert cache.store.refused == ["b"]


def test_another_users_entries_are_not_read(canonical, context, tmp_path, monkeypatch) -> None:
    """Two users, or two machines: the same folder with the same files, another key."""
    model = canonical(NET)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    run_pipeline([Fold()], model, context(model), cache=kept(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    (step,) = run_pipeline([Fold()], model, context(model), cache=kept(tmp_path), resume=True)
    assert not step.cached


def test_a_linked_cache_folder_is_refused(canonical, context, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    model = canonical(NET)
    for resume in (True, False):
        with pytest.raises(EdgecError, match="folder refused: it is a symbolic link"):
            run_pipeline([Fold()], model, context(model), cache=kept(tmp_path), resume=resume)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_the_key_is_kept_and_only_the_users(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    key = user_key()
    assert len(key) == 32
    assert user_key() == key
    path = tmp_path / "edgec" / "seal.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)  # others may have read it
    assert (other := user_key()) != key
    assert user_key() == other
    path.write_bytes(b"short")
    assert len(user_key()) == 32


def test_without_a_place_for_the_key_a_run_still_has_one(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert len(user_key()) == 32
    assert user_key() != user_key()


def test_a_key_file_of_any_length_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = user_key()
    with (tmp_path / "edgec" / "seal.key").open("r+b") as stream:
        stream.truncate(1 << 30)
    tracemalloc.start()
    second = user_key()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert second != first
    assert user_key() == second


def test_values_too_large_to_square_end_in_a_sentence(canonical, noise, context) -> None:
    model = canonical(
        "net (float[N,2,4,4] x) => (float[N,2,4,4] y) "
        "<float[2,2,1,1] w = {1.0, 0.5, 0.25, 1.0}, float big = {1e37}, float small = {1e-37}> "
        "{ h = Mul(x, big)  p = Relu(h)  c = Conv(p, w)  y = Mul(c, small) }"
    )
    with pytest.raises(PassError, match="squares overflow"):
        run_pipeline((Quantize(),), model, context(model, noise(model, 40)))
