"""A detector that suppresses its own boxes: the network in front is compiled, the boxes are compared, what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.selected import suppressed_task
from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import session
from edgec.graph.selection import parted
from tests.conftest import parse


def detector(attributes: str = "", least: float = 0.4, producer: str = "") -> onnx.ModelProto:
    model = parse(f"""
      net (float[1,3,16,16] x) => (float[n,4] found, int64[n] kinds)
      <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] wb, float[3,8,1,1] wc, int64[3] to_boxes = {{0, 4, 64}},
       int64[3] to_scores = {{0, 3, 64}}, int64[1] most = {{10}}, float[1] limit = {{0.5}}, float[1] least = {{{least}}},
       int64 one = {{1}}, int64 two = {{2}}, int64[1] axis0 = {{0}}>
      {{ c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)  r = Relu(c)
        bm = Conv(r, wb)  bf = Reshape(bm, to_boxes)  sm = Conv(r, wc)  sf = Reshape(sm, to_scores)
        boxes = Transpose<perm=[0,2,1]>(bf)  scores = Sigmoid(sf)
        sel = NonMaxSuppression{attributes}(boxes, scores, most, limit, least)  at = Gather<axis=1>(sel, two)
        kinds = Gather<axis=1>(sel, one)  alone = Squeeze(boxes, axis0)  found = Gather(alone, at) }}""")
    model.producer_name = producer
    return model


def opened(path: Path) -> ort.InferenceSession:
    return session(path.read_bytes())


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    onnx.save(detector(), tmp_path / "net.onnx")
    x = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    place = [tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "-o", tmp_path / "out", "--no-bench"]
    return ["compile", *place]


def test_int8_is_made_of_what_stands_in_front_and_judged_by_boxes(edgec, given, tmp_path: Path) -> None:
    code, out, err = edgec(*given, "--precision", "int8")
    assert code == 0, err
    assert "up to boxes, scores: NonMaxSuppression" in out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    quality = report["quality"]["int8"]
    assert quality["detection"]["boxes"] > 20
    assert quality["detection"]["lost"] <= 0.2 * quality["detection"]["boxes"]
    assert {*quality["outputs"]} == {"boxes", "scores"}
    x = np.load(tmp_path / "data.npz")["x"]
    source, made = opened(tmp_path / "net.onnx"), opened(tmp_path / "out" / "model.int8.onnx")
    counts = [[len(one.run(None, {"x": sample[None]})[1]) for one in (source, made)] for sample in x]
    assert sum(abs(a - b) for a, b in counts) <= 0.1 * sum(a for a, _ in counts)
    ops = {node.op_type for node in onnx.load(tmp_path / "out" / "model.int8.onnx").graph.node}
    assert "NonMaxSuppression" in ops


def test_channels_are_pruned_and_the_tflite_file_ends_in_front(edgec, given, tmp_path: Path) -> None:
    code, out, err = edgec(*given, "--budget", "macs=70%", "--format", "onnx,tflite", "--split-unsupported")
    assert code == 0, err
    assert "the TFLite files end at boxes, scores" in out
    weights = onnx.load(tmp_path / "out" / "model.onnx").graph.initializer
    assert sum(np.prod(one.dims) for one in weights) < sum(
        np.prod(one.dims) for one in detector().graph.initializer
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["quality"]["images"] for one in report["artifacts"]] == [
        8,
        8,
    ]  # TFLite too, by running the file


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--format", "tflite"), 3, "--split-unsupported makes a TFLite file that ends at boxes, scores"),
        (("--resolution", "8"), 2, "no other size of this network's input"),
    ],
    ids=["whole to TFLite", "another size"],
)
def test_what_cannot_be_is_said_before_any_work(edgec, given, tmp_path: Path, more, code, words) -> None:
    found, _, err = edgec(*given, *more)
    assert (found, words in " ".join(err.split())) == (code, True), err
    assert not (tmp_path / "out").exists()


def test_the_users_own_metric_sees_what_comes_out_at_the_end(edgec, given, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(
        "def boxes(predict, samples):\n    return sum(len(predict(x)['found']) for x, _ in samples.batches(1))\n"
    )
    code, _, err = edgec(*given, "--metric", f"{tmp_path / 'count.py'}:boxes")
    assert code == 0, err
    judged = json.loads((tmp_path / "out" / "report.json").read_text())["metrics"][0]
    x = np.load(tmp_path / "data.npz")["x"]
    source = opened(tmp_path / "net.onnx")
    assert judged["teacher"] in range(1, sum(len(source.run(None, {"x": one[None]})[1]) for one in x) + 1)


def test_files_that_select_are_verified_in_front_of_it(edgec, given, tmp_path: Path) -> None:
    edgec(*given, "--budget", "macs=70%")
    code, out, err = edgec(
        "verify", tmp_path / "net.onnx", tmp_path / "out" / "model.onnx", "--data", tmp_path / "data.npz"
    )
    assert code == 0, err
    assert "boxes" in out
    assert "scores" in out


@pytest.mark.parametrize(
    ("attributes", "producer", "box"),
    [
        ("", "", (2, 1, 6, 5)),
        ("", "pytorch", (1, 2, 5, 6)),
        ("<center_point_box=1>", "", (-1.5, -1, 3.5, 5)),
    ],
    ids=["y first, as the op says", "x first, as torch writes it", "centre and size"],
)
def test_corners_are_read_as_their_exporter_writes_them(attributes: str, producer: str, box) -> None:
    network, selection = parted(canonicalise(detector(attributes, 0.5, producer))) or pytest.fail(
        "not parted"
    )
    task = suppressed_task(network, selection)
    assert isinstance(task, Detection)
    assert task.head.threshold == 0.5
    assert task.head.classes == 3
    boxes = np.zeros((1, 64, 4), np.float32)
    boxes[0, 7] = (1, 2, 5, 6)
    scores = np.zeros((1, 3, 64), np.float32)
    scores[0, 1, 7] = 0.9
    outputs = {"boxes": boxes, "scores": scores}
    found = task.answers([outputs[value.name or ""] for value in network.graph.outputs])[0]
    assert (found["boxes"], found["classes"]) == ([list(box)], [1])
