"""The pass `distil`: another network, or a narrower one, is taught by the source and stands in its place."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

import edgec
from edgec.compiler.read.recipe import read_recipe
from edgec.graph.cost import cost
from edgec.graph.errors import ModelError, PassError, UnsupportedError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView, constant
from edgec.passes.base import Context
from edgec.passes.distil import Distil
from edgec.passes.distillation.adopt import adopted
from edgec.passes.order import check_order
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from tests.conftest import parse
from tests.passes.kept import Kept

SOURCE = (
    "net (float[N,3,8,8] x) => (float[N,6] y) <float[12,3,3,3] w1, float[12] b1, float[16,12,3,3] w2, float[6,16] g, float[6] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2)  s = Relu(u)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)
STUDENT = (  # other channels, another size of the inner maps, other names at both ends
    "small (float[N,3,8,8] picture) => (float[N,6] scores) <float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[6,8] g, float[6] c>"
    "{ t = Conv<pads=[1,1,1,1], strides=[2,2]>(picture, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2)  s = Relu(u)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  scores = Gemm<transB=1>(f, g, c) }"
)
FILE = "student.onnx"


@pytest.fixture
def source(canonical) -> ir.Model:
    model = canonical(SOURCE)
    last = model.graph.initializers["g"]
    last.const_value = ir.tensor(20 * constant(last), name="g")
    return model


@pytest.fixture
def made(source, canonical, context, noise):
    """The context of a run with ``student`` in its file."""

    def build(student: str | ir.Model = STUDENT, **changes: object) -> Context:
        network = canonical(student, seed=3) if isinstance(student, str) else student
        known = {"task": "classification", "networks": {FILE: network}, **changes}
        return replace(context(source, noise(source, 96)), **known)

    return build


def weights(model: ir.Model) -> dict[str, bytes]:
    return {name: value.const_value.numpy().tobytes() for name, value in model.graph.initializers.items()}


def widths(model: ir.Model) -> list[int]:
    return [view.out_channels for node in model.graph if (view := ConvView.of(node)) is not None]


def error(student: ir.Model, teacher: ir.Model) -> float:
    x = np.random.default_rng(9).standard_normal((64, 3, 8, 8)).astype(np.float32)
    a, b = (Executor(one).run({"x": x})["y"] for one in (student, teacher))
    return float(np.square(a - b).mean() / np.square(b - b.mean(0)).mean())


def test_another_network_takes_the_sources_place_and_is_taught(source, made) -> None:
    begun = made()
    result = Distil(student=FILE, steps=40, batch=16).run(source.clone(), begun)
    assert result.modified
    assert widths(result.model) == [8, 8]
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert [value.name for value in result.model.graph.outputs] == ["y"]
    given = adopted(begun.networks[FILE], source, FILE)
    assert error(result.model, source) < 0.5 * error(given, source)
    assert cost(result.model).params == cost(given).params  # adapters are gone
    assert not {node.name for node in result.model.graph} & {node.name for node in source.graph}


def test_layers_of_the_same_form_start_from_the_source(source, canonical, made) -> None:
    """A student that is the source with other weights becomes the source in closed form."""
    result = Distil(student=FILE, steps=10, batch=16).run(source.clone(), made(SOURCE))
    assert error(result.model, source) < 1e-3
    assert len(result.layers) == 3


@pytest.mark.parametrize(
    "options",
    [{"student": FILE}, {"narrow": 0.5}, {"template": "depthwise"}],
    ids=["file", "narrow", "template"],
)
def test_threads_change_no_byte_and_seeds_do(source, made, options) -> None:
    one, two, other = (
        weights(
            Distil(steps=6, batch=16, **options).run(source.clone(), made(threads=threads, seed=seed)).model
        )
        for threads, seed in ((1, 0), (3, 0), (1, 1))
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize(
    "options",
    [{"student": FILE}, {"narrow": 0.5}, {"template": "depthwise"}],
    ids=["file", "narrow", "template"],
)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(source, made, options, monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.training.SAVED_EVERY", 0.0)
    one = Distil(steps=12, batch=16, **options)
    whole = one.run(source.clone(), made()).model
    kept = Kept(cut=8)
    with pytest.raises(KeyboardInterrupt):
        one.run(source.clone(), made(checkpoint=kept))
    before = kept.writes
    again = one.run(source.clone(), made(checkpoint=kept)).model
    assert weights(again) == weights(whole)
    assert kept.writes - before < 8


@pytest.mark.parametrize(("share", "wanted"), [(0.5, [6, 8]), (0.25, [3, 4])])
def test_narrow_leaves_that_share_of_every_group(source, made, share: float, wanted: list[int]) -> None:
    result = Distil(narrow=share, steps=4, batch=16).run(source.clone(), made())
    assert widths(result.model) == wanted
    assert result.model.graph.initializers["w1"].shape[0] == wanted[0]


WIDE = (  # a stem, a layer with a stride, one in groups, a 1x1
    "net (float[N,3,8,8] x) => (float[N,6] y) <float[16,3,3,3] w1, float[16] b1, float[24,16,3,3] w2, float[24,12,3,3] w3,"
    " float[24] b3, float[16,24,1,1] w4, float[6,16] g, float[6] c>"
    "{ n = Mul(x, two)  t = Conv<pads=[1,1,1,1]>(n, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2)  s = Relu(u)"
    "  v = Conv<pads=[1,1,1,1], group=2>(s, w3, b3)  q = Relu(v)  z = Conv(q, w4)"
    "  p = GlobalAveragePool(z)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
).replace("float[6] c>", "float[6] c, float[1] two = {2}>")


@pytest.mark.parametrize(
    ("template", "pieces"),
    [
        ("depthwise", [(16, [16, 1, 3, 3], [2, 2]), (1, [24, 16, 1, 1], [1, 1])]),
        ("bottleneck", [(1, [4, 16, 1, 1], [1, 1]), (1, [6, 4, 3, 3], [2, 2]), (1, [24, 6, 1, 1], [1, 1])]),
    ],
)
def test_a_template_gives_its_form_to_the_layers_that_have_it(
    canonical, context, noise, template: str, pieces: list[tuple[int, list[int], list[int]]]
) -> None:
    """The stem, the layer in groups and the 1x1 stay as they are; what is cut is near what it was."""
    source = canonical(WIDE)
    begun = replace(context(source, noise(source, 96)), task="classification")
    result = Distil(template=template, steps=10, batch=16).run(source.clone(), begun)
    convs = [view for node in result.model.graph if (view := ConvView.of(node)) is not None]
    found = [(view.group, list(view.weight.shape), list(view.strides)) for view in convs]
    whole = [(v.group, list(v.weight.shape), list(v.strides)) for n in source.graph if (v := ConvView.of(n))]
    assert found == [whole[0], *pieces, *whole[2:]]
    assert cost(result.model).macs < cost(source).macs
    stays = {note.node: note.text for note in result.notes if note.node and note.text.startswith("stays")}
    assert len(stays) == 4
    assert any("reads the network's input" in text for text in stays.values())
    x = np.random.default_rng(9).standard_normal((64, 3, 8, 8)).astype(np.float32)
    a, b = (Executor(one).run({"x": x})["y"] for one in (result.model, source))
    random = canonical(WIDE, seed=5)
    far = Executor(random).run({"x": x})["y"]
    assert np.square(a - b).mean() < 0.2 * np.square(far - b).mean()


def test_a_network_without_the_form_is_refused(canonical, context, noise) -> None:
    lone = canonical(
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }"
    )
    with pytest.raises(PassError, match=r"'depthwise'.*reads the network's input"):
        Distil(template="depthwise", steps=2).run(lone.clone(), context(lone, noise(lone, 32)))


def test_what_learning_makes_worse_is_given_back_as_it_came(source, made, monkeypatch) -> None:
    monkeypatch.setattr(
        "edgec.passes.learned.training.WORSE", float("inf")
    )  # else it goes back, and is better in the end
    result = Distil(narrow=0.5, steps=4, batch=16, rate=1.0).run(source.clone(), made())
    assert result.notes[0].level == "reverted"
    assert result.data["state_after"] == 0
    fair = Distil(narrow=0.5, steps=30, batch=16).run(source.clone(), made())
    assert fair.notes[0].level == "info"
    assert fair.data["after"]["loss"] < fair.data["before"]["loss"] == result.data["after"]["loss"]


def test_a_network_without_channels_to_remove_is_refused(canonical, context, noise) -> None:
    lone = canonical(
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }"
    )
    with pytest.raises(PassError, match="no channel can be removed"):
        Distil(narrow=0.5, steps=2).run(lone.clone(), context(lone, noise(lone, 32)))


SHAPE = STUDENT.replace("float[N,3,8,8]", "float[N,3,16,16]")
OUTPUTS = STUDENT.replace("float[N,6] scores", "float[N,7] scores").replace(
    "float[6,8] g, float[6] c", "float[7,8] g, float[7] c"
)
SOFTMAX = STUDENT.replace(
    "scores = Gemm<transB=1>(f, g, c)", "z = Gemm<transB=1>(f, g, c)  scores = Softmax(z)"
)
TWO = STUDENT.replace("=> (float[N,6] scores)", "=> (float[N,6] scores, float[N,8] f)")
INTEGERS = STUDENT.replace("float[N,3,8,8] picture", "uint8[N,3,8,8] raw").replace(
    "{ t", "{ picture = Cast<to=1>(raw) t"
)


@pytest.mark.parametrize(
    ("student", "told"),
    [
        (SHAPE, r"'x' is float\[batch, 3, 8, 8\], the student's 'picture' is float\[batch, 3, 16, 16\]"),
        (OUTPUTS, r"'y' is float\[batch, 6\], the student's 'scores' is float\[batch, 7\]"),
        (SOFTMAX, "ends in no Softmax or Sigmoid, the student's ends in Softmax along axis 1"),
        (TWO, "the source has 1 .*, the student 2"),
        (INTEGERS, r"the student's 'raw' is uint8"),
    ],
    ids=["input", "output", "meaning", "number", "type"],
)
def test_another_signature_is_refused_with_both(source, canonical, student: str, told: str) -> None:
    with pytest.raises(ModelError) as raised:
        Distil(student=FILE).adopt(canonical(student), source)
    assert re.search(told, str(raised.value))
    assert FILE in str(raised.value)


def test_probabilities_are_compared_in_front_of_their_softmax(canonical, context, noise) -> None:
    """Names behind the prefix differ inside; the logits of both are found all the same, by passes behind it too."""
    ends = "z = Gemm<transB=1>(f, g, c)  {0} = Softmax(z)"
    source = canonical(SOURCE.replace("y = Gemm<transB=1>(f, g, c)", ends.replace("{0}", "y")))
    student = canonical(SOFTMAX, seed=3)
    begun = replace(context(source, noise(source, 48)), networks={FILE: student})
    result = Distil(student=FILE, steps=4, batch=16).run(source.clone(), begun)
    (refine,) = parse_pipeline("refine{steps=4 batch=16}")
    assert refine.run(result.model, begun).data["steps"] == 4


def test_a_network_outside_is_refused_by_the_name_of_its_op(source, canonical) -> None:
    odd = STUDENT.replace(
        "scores = Gemm<transB=1>(f, g, c)", "z = Gemm<transB=1>(f, g, c)  scores, i = TopK(z, k)"
    )
    odd = odd.replace("float[6] c>", "float[6] c, int64[1] k = {6}>")
    with pytest.raises(UnsupportedError, match="TopK"):
        Distil(student=FILE).adopt(canonical(odd), source)


def test_without_torch_one_clear_message(source, monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="distil needs torch"):
        Distil(narrow=0.5).requires(source)


def test_options_are_read_where_they_are_made() -> None:
    assert print_pass(parse_pipeline("distil{narrow=0.5 time=90s}")[0]) == "distil{time=90s narrow=0.5}"
    for wrong in ("", "student=a.onnx narrow=0.5", "narrow=1", "narrow=-1", "narrow=half", "sha256=abc student=a.onnx",
                  f"narrow=0.5 sha256={64 * 'a'}", "narrow=0.5 time=soon", "narrow=0.5 held-out=0", "template=wide",
                  "narrow=0.5 template=depthwise", "student=a.onnx template=bottleneck"):  # fmt: skip
        with pytest.raises(UsageError, match="distil"):
            parse_pipeline(f"distil{{{wrong}}}")


def test_what_comes_before_another_network_would_be_lost() -> None:
    with pytest.raises(UsageError, match="compress"):
        check_order(parse_pipeline("compress{macs=50%} distil{student=a.onnx}"))
    check_order(parse_pipeline("compress{macs=50%} distil{narrow=0.5} quantize"))
    with pytest.raises(UsageError, match="quantize"):
        check_order(parse_pipeline("quantize distil{narrow=0.5}"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the source, a student and inputs."""
    source = parse(SOURCE)
    for tensor in source.graph.initializer:
        if tensor.name == "g":
            tensor.CopyFrom(onnx.numpy_helper.from_array(20 * onnx.numpy_helper.to_array(tensor), "g"))
    onnx.save(source, tmp_path / "source.onnx")
    onnx.save(parse(STUDENT, seed=3), tmp_path / FILE)
    x = np.random.default_rng(0).standard_normal((80, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    return tmp_path


def run(files: Path, passes: str, **options: object) -> edgec.Report:
    return edgec.compile(
        files / "source.onnx",
        files / "out",
        data=files / "x.npz",
        passes=passes,
        quiet=True,
        measure=False,
        **options,
    )


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param("", marks=pytest.mark.slow),
        "compress{macs=6%} recover-lsq ",
        pytest.param("decompose-svd{macs=8%} prune-channels{macs=6%} ", marks=pytest.mark.slow),
    ],
)
def test_what_compresses_and_quantises_stands_behind_it_for_both_emitters(files: Path, behind: str) -> None:
    passes = f"distil{{student={files / FILE} steps=10 batch=16}} {behind}quantize"
    report = run(files, passes, formats=("onnx", "tflite"))
    assert {"model.onnx", "model.int8.onnx", "model.int8.tflite"} <= {one.path for one in report.artifacts}, (
        report.artifacts
    )
    log = [json.loads(line) for line in (files / "out" / "log.jsonl").read_text().splitlines()]
    for step in log:
        if step["name"] == "recover-lsq":  # to what the student made: the source has no such layers
            assert step["layers"]
    y = report.load("int8")(np.load(files / "x.npz")["x"][:4])
    assert np.isfinite(np.asarray(next(iter(y.values())) if isinstance(y, dict) else y)).all()


def test_a_changed_student_is_not_answered_from_the_cache(files: Path) -> None:
    passes = f"distil{{student={files / FILE} steps=4 batch=16}}"

    def cached(**options: object) -> bool:
        run(files, passes, **options)
        return bool(json.loads((files / "out" / "log.jsonl").read_text().splitlines()[-1])["cached"])

    assert not cached()
    assert cached(resume=True, force=True)
    onnx.save(parse(STUDENT, seed=4), files / FILE)
    assert not cached(resume=True, force=True)


def test_its_recipe_names_the_file_from_where_it_lies_and_refuses_another_one(files: Path) -> None:
    run(files, f"distil{{student={files / FILE} steps=4 batch=16}}")
    again = read_recipe(files / "out" / "recipe.yaml")
    assert edgec.compile(again, files / "again", quiet=True, measure=False)
    shutil.copytree(files, moved := files.parent / "moved")
    recipe = read_recipe(moved / "out" / "recipe.yaml")
    (one,) = recipe.build_passes() or ()
    assert isinstance(one, Distil)
    assert Path(one.student).resolve() == (moved / FILE).resolve()
    onnx.save(parse(STUDENT, seed=4), moved / FILE)
    with pytest.raises(ModelError, match="not the recipe's student"):
        edgec.compile(recipe, moved / "again", quiet=True, measure=False)


def test_a_student_that_nobody_read_or_that_is_no_file(source, context, noise, files: Path) -> None:
    with pytest.raises(PassError, match="was not read"):
        Distil(student="a.onnx").run(source, context(source, noise(source, 32)))
    with pytest.raises(ModelError, match="no such file"):
        run(files, "distil{student=absent.onnx}")
    (files / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="not an ONNX file"):
        run(files, f"distil{{student={files / 'broken.onnx'}}}")
    with pytest.raises(UsageError, match="from a file"):
        run(files, "distil{student=net.py:make}")


def test_time_is_for_it_too(files: Path) -> None:
    """--time without --learn has no effect where nothing learns; here something does."""
    report = run(files, "distil{narrow=0.5 batch=16}", time="1s")
    assert "steps:" in (files / "out" / "recipe.yaml").read_text()
    assert report is not None
