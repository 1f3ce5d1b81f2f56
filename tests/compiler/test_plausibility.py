"""Doubts about inputs: a classifier that tells colours and places apart when, and only when, it is fed as it expects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgec
from edgec.compiler.emit.onnx import emit
from edgec.compiler.evaluate.information import Judge
from edgec.compiler.evaluate.plausibility import about_layout, about_split, doubts_about, doubts_about_labels
from edgec.compiler.evaluate.preparations import read_all
from edgec.compiler.tasks.find import find_task
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec
from edgec.graph.intervals import wilson
from edgec.graph.preprocess import Preprocess
from edgec.runtime.report import facts
from tests.conftest import parse

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIGHT = {
    "raw": (Preprocess(), 1.0, 127.5),
    "unit": (Preprocess(scale=1 / 255), 1 / 255, 0.5),
    "symmetric": (Preprocess(scale=1 / 127.5, mean=(1.0,)), 1 / 127.5, 0.0),
}
"""Preparation, how large a grey level is then, and where middle grey lies."""


def network(spread: float, middle: float) -> ir.Model:
    """Seven classes: which colour is strongest in which half; and none of it, where values are larger than it knows."""
    text = (
        "net (float[N,3,16,16] x) => (float[N,7] y) <float[1] middle = {MIDDLE}, float[1] gain = {GAIN}, int64[2] flat = {0, -1}, "
        "int64[3] all = {1, 2, 3}, float[1] steep = {27.0}, float[1] less = {15.3}, float[1] nine = {9.0}> "
        "{ c = Sub(x, middle)  s = Mul(c, gain)  p = AveragePool<kernel_shape=[8,16], strides=[8,16]>(s)  f = Reshape(p, flat) "
        "a = Mul(f, nine)  l = Abs(s)  g = ReduceMean<keepdims=0>(l, all)  r = Reshape(g, flat)  t = Mul(r, steep)  u = Sub(t, less) "
        "y = Concat<axis=1>(a, u) }"
    )
    return canonicalise(parse(text.replace("MIDDLE", str(middle)).replace("GAIN", repr(1 / (40 * spread)))))


def pictures(folder: Path, count: int = 96) -> Path:
    """Grey noise with one strong patch of a colour in one half."""
    rng = np.random.default_rng(0)
    x = rng.normal(100, 12, (count, 16, 16, 3))
    for i in range(count):
        half, colour = rng.integers(2), rng.integers(3)
        x[i, 8 * half : 8 * half + 8, :, colour] += rng.normal(60, 8)
    np.savez(folder / "x.npz", x=np.clip(x, 0, 255).astype(np.uint8))
    return folder / "x.npz"


def data(model: ir.Model, how: Preprocess, folder: Path) -> Dataset:
    return open_data(pictures(folder), model, how)


@pytest.mark.parametrize("expected", RIGHT)
@pytest.mark.parametrize("given", RIGHT)
def test_the_wrong_scale_is_said_and_the_right_one_is_not(expected: str, given: str, tmp_path: Path) -> None:
    _, spread, middle = RIGHT[expected]
    model = network(spread, middle)
    found = doubts_about(model, data(model, RIGHT[given][0], tmp_path), 1)
    told = " ".join(map(str, found))
    if given == expected:
        assert not found
    else:
        assert "prepared otherwise" in told
        ways = {"raw": "Try --scale 1", "unit": "Try --scale 1/255", "symmetric": "Try --"}
        assert ways[expected] in told
        assert "bgr" not in told


def detector() -> ir.Model:
    """MediaPipe's rows for a picture of 128: a box at each cell that is red. It was trained on 0 to 1.

    What differs between the halves of a cell counts too, as nothing in a network is quite even: little there, all at 0 to 255.
    """
    red, uneven = np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 3, 8, 8), np.float32)
    red[:, 0], uneven[:, :, :, :4], uneven[:, :, :, 4:] = 1 / 64, -20 / 96, 20 / 96
    made = {
        "red": red, "uneven": uneven, "none": np.zeros((6, 3, 16, 16), np.float32), "low": np.full(6, -50, np.float32),
        "flat8": np.zeros((32, 3, 8, 8), np.float32), "flat16": np.zeros((96, 3, 16, 16), np.float32),
        "box8": np.tile(np.float32([0, 0, 8, 8, *[0] * 12]), 2), "box16": np.tile(np.float32([0, 0, 8, 8, *[0] * 12]), 6),
        "most": np.float32(0.95), "zero": np.float32(0), "gain": np.float32(40), "middle": np.float32(0.6),
        **{name: np.array([0, -1, columns]) for name, columns in (("rows", 1), ("boxed", 16))},
    }  # fmt: skip
    model = parse(
        "net (float[N,3,128,128] x) => (float[N,896,16] boxes, float[N,896,1] scores) { "
        "p = Conv<strides=[8,8]>(x, red)  c = Clip(p, zero, most)  d = Sub(c, middle)  m = Mul(d, gain) "
        "u = Conv<strides=[8,8]>(x, uneven)  l = Add(m, u)  k = Conv<strides=[16,16]>(x, none, low) "
        "b = Conv<strides=[8,8]>(x, flat8, box8)  f = Conv<strides=[16,16]>(x, flat16, box16) "
        "lt = Transpose<perm=[0,2,3,1]>(l)  lr = Reshape(lt, rows)  kt = Transpose<perm=[0,2,3,1]>(k)  kr = Reshape(kt, rows) "
        "bt = Transpose<perm=[0,2,3,1]>(b)  br = Reshape(bt, boxed)  ft = Transpose<perm=[0,2,3,1]>(f)  fr = Reshape(ft, boxed) "
        "scores = Concat<axis=1>(lr, kr)  boxes = Concat<axis=1>(br, fr) }"
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in made.items())
    return canonicalise(model)


@pytest.mark.parametrize("given", ["unit", "raw"])
def test_a_detector_is_asked_for_the_same_objects_in_a_mirrored_picture(given: str, tmp_path: Path) -> None:
    """At 0 to 255 it sees many more things in every picture, and others than in the mirrored one."""
    rng = np.random.default_rng(0)
    x = rng.normal(40, 12, (24, 128, 128, 3))
    for one in x:
        for top, left in 8 * rng.integers(0, 16, (2, 2)):
            one[top : top + 8, left : left + 8, 0] += 180
    np.savez(tmp_path / "x.npz", x=np.clip(x, 0, 255).astype(np.uint8))
    model = detector()
    told = " ".join(map(str, doubts_about(model, open_data(tmp_path / "x.npz", model, RIGHT[given][0]), 1)))
    if given == "unit":
        assert not told
    else:
        assert "objects in a mirrored picture" in told
        assert told.endswith("Try --scale 1/255")


def test_where_few_pictures_hold_an_object_others_see_no_better(tmp_path: Path) -> None:
    """Two of 24 hold one, which stands. At 0 to 255 things are seen in all of them, of which half stand."""
    x = np.random.default_rng(0).normal(40, 12, (24, 128, 128, 3))
    for one in x[:2]:
        one[8:16, 40:48, 0] += 180
    np.savez(tmp_path / "x.npz", x=np.clip(x, 0, 255).astype(np.uint8))
    model = detector()
    given = open_data(tmp_path / "x.npz", model, RIGHT["unit"][0])
    judge = Judge(model, InputSpec.of(model)[0], 1, find_task(model))
    right, wrong = (judge.information(by * read_all(given)["x"], ()) for by in (1, 255))
    assert right is not None
    assert wrong is not None
    assert wrong.mean > right.mean + 0.2
    assert wrong.stands < right.stands - 0.2
    assert not doubts_about(model, given, 1)


@pytest.mark.parametrize(("expected", "given"), [("unit", "unit"), ("raw", "unit")])
def test_a_map_that_sees_more_must_see_it_in_the_mirrored_picture_too(
    expected: str, given: str, tmp_path: Path
) -> None:
    """Fed 255 times too much this one is sure everywhere, of what its uneven kernel makes; fed too little it sees nothing."""
    scale = 1.0 if expected == "unit" else 1 / 255
    model = parse(
        "net (float[N,3,16,16] x) => (float[N,1,16,16] y) { s = Mul(x, scale)  r = Conv(s, red)  c = Clip(r, zero, most) "
        "m = Mul(c, gain)  u = Conv<pads=[1,1,1,1]>(s, uneven)  a = Add(m, u)  b = Sub(a, middle)  y = Sigmoid(b) }"
    )
    red, uneven = np.zeros((1, 3, 1, 1)), np.zeros((1, 3, 3, 3))
    red[:, 0], uneven[:, 1, 1] = 1, (-3, 0, 3)
    values = {
        "red": red,
        "uneven": uneven,
        "scale": np.array(scale),
        "zero": np.array(0.0),
        "most": np.array(1.0),
    }
    values |= {"gain": np.array(20.0), "middle": np.array(10.0)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in values.items()
    )
    network = canonicalise(model)
    told = " ".join(map(str, doubts_about(network, data(network, RIGHT[given][0], tmp_path), 1)))
    assert told.endswith("Try --scale 1") if expected == "raw" else not told


def test_two_classes_are_asked_for_one_answer_to_everything_alone(tmp_path: Path) -> None:
    text = (
        "net (float[N,3,16,16] x) => (float[N,2] y) <float[2,3,1,1] w = {9, 0, 0, -9, 0, 0}, float[2] b = {B, 0}> "
        "{ c = Conv(x, w, b)  m = GlobalAveragePool(c)  f = Flatten(m)  y = Softmax(f) }"
    )
    for bias, said in (("-8.0", False), ("90.0", True)):
        model = canonicalise(parse(text.replace("B,", f"{bias},")))
        found = [str(one) for one in doubts_about(model, data(model, RIGHT["unit"][0], tmp_path), 1)]
        assert found == (
            ["the network answers class 0 to 24 of 24 inputs looked at: agreement with it says little"]
            if said
            else []
        )


def test_float_arrays_are_looked_at_too(tmp_path: Path) -> None:
    _, spread, middle = RIGHT["raw"]
    model = network(spread, middle)
    x = np.load(pictures(tmp_path))["x"].transpose(0, 3, 1, 2)
    np.savez(tmp_path / "f.npz", x=(x / 255).astype(np.float32))
    (doubt,) = [one for one in doubts_about(model, open_data(tmp_path / "f.npz", model), 1) if one.options]
    assert doubt.options == "--scale 1"


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "double", "uint8", "int8", "int32", "bool"])
def test_inputs_of_any_type_are_looked_at(dtype: str, dense: bool, tmp_path: Path) -> None:
    """What is tried on them is given in the type that the network takes."""
    last = (
        "m = MaxPool<kernel_shape=[8,8], strides=[8,8]>(c)  y = Sigmoid(m)"
        if dense
        else "m = GlobalAveragePool(c)  y = Flatten(m)"
    )
    text = "(W[N,3,16,16] x) => (float[N,Y] y) <float[7,3,1,1] w> { f = Cast<to=1>(x)  c = Conv(f, w)  Z }"
    model = canonicalise(
        parse(
            f"net {text}".replace("W", dtype, 1)
            .replace("Z", last)
            .replace("N,Y", "N,7,2,2" if dense else "N,7")
        )
    )
    x = np.load(pictures(tmp_path))["x"].transpose(0, 3, 1, 2)
    kind = InputSpec.of(model)[0].dtype
    np.savez(tmp_path / "typed.npz", x=(x // 2).astype(kind) if kind != np.bool_ else x > 100)
    doubts_about(model, open_data(tmp_path / "typed.npz", model), 1)


def test_one_answer_to_everything_copies_and_flat_pictures_are_said(tmp_path: Path) -> None:
    _, spread, middle = RIGHT["raw"]
    model = network(spread, middle)
    x = np.load(pictures(tmp_path))["x"]
    for name, made, said in (
        ("copies", np.repeat(x[:4], 10, axis=0), "copies of others"),
        ("black", np.zeros_like(x), "one value everywhere"),
        (
            "same",
            x + np.uint8(0)
            if False
            else np.concatenate([x[:1]] * 40) + np.arange(40, dtype=np.uint8)[:, None, None, None],
            "answers class",
        ),
    ):
        np.savez(tmp_path / f"{name}.npz", x=made)
        told = " ".join(map(str, doubts_about(model, open_data(tmp_path / f"{name}.npz", model), 1)))
        assert said in told, name


def test_a_few_copies_and_dark_pictures_are_no_doubt(tmp_path: Path) -> None:
    _, spread, middle = RIGHT["raw"]
    model = network(spread, middle)
    x = np.load(pictures(tmp_path))["x"]
    x[1], x[2], x[3] = x[0], 0, 7
    np.savez(tmp_path / "few.npz", x=x)
    assert not doubts_about(model, open_data(tmp_path / "few.npz", model), 1)


def test_noise_and_too_few_are_not_judged(tmp_path: Path) -> None:
    _, spread, middle = RIGHT["raw"]
    model = network(spread, middle)
    wrong = data(model, RIGHT["unit"][0], tmp_path)
    assert not doubts_about(model, replace(wrong, is_random=True), 1)
    assert not doubts_about(model, wrong.take(4), 1)
    assert not doubts_about(model, None, 1)


@pytest.mark.parametrize(("shift", "said"), [(0, ""), (-1, "--label-offset 1"), (1, "--label-offset -1")])
def test_labels_counted_from_another_class_are_said(shift: int, said: str, tmp_path: Path) -> None:
    _, spread, middle = RIGHT["raw"]
    model = network(spread, middle)
    x = np.load(pictures(tmp_path))["x"]
    y = Executor(model).run({"x": x.transpose(0, 3, 1, 2).astype(np.float32)})["y"].argmax(axis=1)
    np.savez(tmp_path / "eval.npz", x=x, y=np.clip(y + shift, 0, 6))
    told = " ".join(map(str, doubts_about_labels(model, open_data(tmp_path / "eval.npz", model), 0, 1)))
    assert said in told
    assert bool(told) == bool(said)


def test_a_doubtful_run_has_no_good_headline(tmp_path: Path) -> None:
    _, spread, middle = RIGHT["unit"]
    path = tmp_path / "net.onnx"
    path.write_bytes(emit(network(spread, middle)))
    report = edgec.compile(
        path, tmp_path / "run", data=pictures(tmp_path), measure=False, threads=1, quiet=True
    )
    assert report.doubts
    assert "in doubt" in facts.sentence(report)
    assert "same answer" not in facts.sentence(report)
    assert not any(
        change.good for change in facts.changes(report) if change.label == "Same answer as the original"
    )
    right = edgec.compile(
        path,
        tmp_path / "right",
        data=pictures(tmp_path),
        preprocess={"scale": 1 / 255},
        measure=False,
        threads=1,
        quiet=True,
    )
    assert not right.doubts
    assert "too few inputs to judge" in facts.sentence(right)  # a fifth of 96 are kept apart


@pytest.mark.parametrize(("rate", "images"), [(1.0, 30), (0.9, 500), (0.5, 60), (0.02, 1000)])
def test_the_interval_holds_the_true_rate_in_about_19_of_20_draws(rate: float, images: int) -> None:
    rng = np.random.default_rng(0)
    hits = rng.binomial(images, rate, 2000) / images
    held = np.mean([low <= rate <= high for low, high in (wilson(hit, images) for hit in hits)])
    assert 0.93 <= held <= 1.0 if rate == 1.0 else 0.93 <= held <= 0.97


@pytest.mark.parametrize(("shared", "said"), [(0, False), (2, False), (20, True)])
def test_evaluation_data_that_the_run_is_fitted_to_is_said(shared: int, said: bool, tmp_path) -> None:
    rng = np.random.default_rng(0)
    specs = (InputSpec("x", (3, 8, 8)),)
    fitted, other = rng.integers(0, 255, (2, 40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=fitted)
    np.savez(tmp_path / "e.npz", x=np.concatenate([other[: 40 - shared], fitted[:shared]]))
    data, evaluation = (open_data(tmp_path / name, specs) for name in ("d.npz", "e.npz"))
    found = [str(one) for one in about_split(data, evaluation)]
    assert bool(found) == said
    assert not said or found[0].startswith("20 of 40 evaluation inputs looked at are among those")


def test_numbers_channels_last_under_a_shape_that_says_first_are_said(tmp_path) -> None:
    """Smooth pictures whose colours differ a little, as photographs' do."""
    rng = np.random.default_rng(0)
    light = rng.normal(size=(20, 4, 4, 1)).repeat(4, 1).repeat(4, 2)
    pictures = (light + 0.2 * rng.normal(size=(20, 16, 16, 3))).astype(np.float32)
    model = ir.from_proto(parse("g (float[N,3,16,16] x) => (float[N,3,16,16] y) { y = Relu(x) }"))
    for name, array, said in (
        ("right", pictures.transpose(0, 3, 1, 2), False),
        ("wrong", pictures.reshape(20, 3, 16, 16), True),
        ("noise", rng.normal(size=(20, 3, 16, 16)).astype(np.float32), False),
    ):
        np.savez(tmp_path / f"{name}.npz", x=array)
        found = [str(one) for one in about_layout(model, open_data(tmp_path / f"{name}.npz", model))]
        assert bool(found) == said, (name, found)


def reader() -> ir.Model:
    """Reads a line of coloured bars, a character for each colour, step by step. It knows 0 to 1; of more it makes anything."""
    return canonicalise(
        parse(
            "net (float[N,3,16,80] x) => (float[N,20,4] y) "
            "<float[3,4] w = {0,6,-3,-3, 0,-3,6,-3, 0,-3,-3,6}, float[4] b = {2.2,0,0,0}, int64[1] row = {2}> "
            "{ s = Sin(x)  p = AveragePool<kernel_shape=[16,4], strides=[16,4]>(s)  q = Squeeze(p, row) "
            "t = Transpose<perm=[0,2,1]>(q)  m = MatMul(t, w)  a = Add(m, b)  y = Softmax<axis=2>(a) }"
        )
    )


def bars(folder: Path, count: int = 64) -> Path:
    """Two to four bars of a colour each on grey noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(40, 8, (count, 16, 80, 3))
    for line in x:
        for place in range(rng.integers(2, 5)):
            line[:, 16 * place + 2 : 16 * place + 14, rng.integers(3)] += 180
    np.savez(folder / "bars.npz", x=np.clip(x, 0, 255).astype(np.uint8))
    return folder / "bars.npz"


@pytest.mark.parametrize("given", RIGHT)
def test_a_reader_of_text_is_asked_for_the_same_characters_in_a_moved_picture(
    given: str, tmp_path: Path
) -> None:
    """Its scores alone said that PP-OCR's recogniser, which was rightly fed, should get pixels from 0 to 255."""
    model = reader()
    found = doubts_about(
        model, open_data(bars(tmp_path), model, RIGHT[given][0]), 1, find_task(model, "recognise")
    )
    told = " ".join(map(str, found))
    if given == "unit":
        assert not found
    else:
        assert "reads more of the same characters" in told
        assert told.endswith("Try --scale 1/255")


def test_pictures_in_which_nothing_is_read_raise_no_doubt(tmp_path: Path) -> None:
    model = reader()
    np.savez(
        tmp_path / "grey.npz", x=np.random.default_rng(0).integers(30, 50, (64, 16, 80, 3)).astype(np.uint8)
    )
    grey = open_data(tmp_path / "grey.npz", model, RIGHT["unit"][0])
    assert not doubts_about(model, grey, 1, find_task(model, "recognise"))


def test_inspect_prepares_pictures_as_the_model_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgec.compiler.cli import cli

    model = reader()
    emitted = ir.to_proto(model)
    onnx.helper.set_model_props(emitted, {"character": "r\ng\nb"})
    onnx.save(emitted, tmp_path / "reader.onnx")

    def said(*options: str) -> str:
        asked = ["inspect", str(tmp_path / "reader.onnx"), "--data", str(bars(tmp_path)), *options]
        assert not cli.main(asked, standalone_mode=False)
        return capsys.readouterr().out

    own = said("--scale", "1/255", "--mean", "0", "--std", "1", "--channels", "rgb")
    assert "nothing doubtful" in own
    assert "your own settings stand: channels, mean, scale, std" in own
    assert (
        "reads more of the same characters" in said()
    )  # what PP-OCR's networks expect is not what this one was made for
