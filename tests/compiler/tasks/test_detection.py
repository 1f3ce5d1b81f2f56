"""Detection in its own terms: heads are decoded as their exporters do, and a lost box is counted as one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.evaluate.quality import Judge, Tally
from edgec.compiler.tasks.boxes import Boxes, matched, overlaps, suppressed
from edgec.compiler.tasks.detection import Detection, DetectionTally
from edgec.compiler.tasks.heads import Head, find_head
from edgec.graph.parts import parts_of

ROWS = 8 * 8 + 4 * 4 + 2 * 2
"""Cells of a picture of 64 by 64 on strides 8, 16, 32."""


def head_of(outputs: str, body: str, inner: str = "") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N,3,64,64] x) => ({outputs}) <float[1] two = {{2}}{", " * bool(inner)}{inner}> {{ {body} }}"""
    model = ir.from_onnx_text(text)
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


V8 = head_of(f"float[N,7,{ROWS}] y", "y = Identity (x)")
V5 = head_of(f"float[N,{3 * ROWS},8] y", "y = Sigmoid (x)")
YOLOX = head_of(
    f"float[N,{ROWS},8] y",
    "c = Conv (x, w) b = Transpose <perm=[0,2,1]> (c) s = Sigmoid (b) y = Concat <axis=2> (b, s)",
    f"float[4,3,3] w = {{{','.join(['1'] * 36)}}}, float[N,4,{ROWS}] c, float[N,{ROWS},4] b, float[N,{ROWS},4] s",
)
DECODED = head_of(f"float[N,{ROWS},8] y", "y = Mul (x, two)")
SSD = head_of(
    "float[N,100,2] scores, float[N,100,4] boxes", "scores = Softmax <axis=-1> (x) boxes = Add (x, two)"
)
RAW = head_of("float[N,100,2] scores, float[N,100,4] boxes", "scores = Softmax (x) boxes = Identity (x)")


@pytest.mark.parametrize(
    ("model", "kind"),
    [(V8, "yolov8"), (V5, "yolov5"), (YOLOX, "yolox"), (DECODED, "yolov5"), (SSD, "ssd")],
    ids=["yolov8", "yolov5", "yolox raw", "yolox decoded", "ssd"],
)
def test_the_head_is_found_from_shapes(model: ir.Model, kind: str) -> None:
    head = find_head(model)
    assert head is not None
    assert head.kind == kind


@pytest.mark.parametrize(
    "model",
    [
        head_of("float[N,1000] y", "y = Identity (x)"),
        head_of("float[N,21,64,64] y", "y = Identity (x)"),
        head_of("float[N,197,768] y", "y = Identity (x)"),
        RAW,
    ],
    ids=["classes", "masks", "tokens", "rows without priors"],
)
def test_other_networks_are_no_detectors(model: ir.Model) -> None:
    assert find_head(model) is None


def test_the_background_is_no_class() -> None:
    head = find_head(SSD)
    assert head is not None
    assert head.background
    (found,) = head.decode([np.array([[[0.9, 0.1], [0.2, 0.8]]]), np.array([[[0, 0, 1, 1], [2, 2, 4, 4]]])])
    best = found.take(np.flatnonzero(found.scores > 0.5))
    assert best.corners.tolist() == [[2, 2, 4, 4]]
    assert best.classes.tolist() == [0]


def test_one_object_is_the_same_box_in_every_form() -> None:
    """Row 8 + 1 of the first level: cell (1, 1) of stride 8; a box of 16 by 32 around (12, 20)."""
    corners, row = [4.0, 4.0, 20.0, 36.0], 9
    v8 = np.zeros((1, 7, ROWS), np.float32)
    v8[0, :, row] = [12, 20, 16, 32, 0, 0.6, 0]
    v5 = np.zeros((1, 3 * ROWS, 8), np.float32)
    v5[0, row] = [12, 20, 16, 32, 0.75, 0, 0.8, 0]
    x = np.zeros((1, ROWS, 8), np.float32)
    x[0, row] = [12 / 8 - 1, 20 / 8 - 1, np.log(16 / 8), np.log(32 / 8), 0.75, 0, 0.8, 0]
    for model, output in ((V8, v8), (V5, v5), (YOLOX, x)):
        head = find_head(model)
        assert head is not None
        (found,) = head.decode([output])
        assert len(found) == 1
        assert np.allclose(found.corners[0], corners, atol=1e-4)
        assert found.scores[0] == pytest.approx(0.6, abs=1e-6)
        assert found.classes[0] == 1


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_overlap_is_intersection_over_union() -> None:
    a, b = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    assert overlaps(a, b)[0] == pytest.approx([1 / 7, 1, 0, 0])


def test_suppression_keeps_the_best_of_each_class() -> None:
    found = suppressed(
        boxes((0, 0, 10, 10, 0.5, 0), (1, 0, 11, 10, 0.9, 0), (0, 0, 10, 10, 0.4, 1), (30, 0, 40, 9, 0.3, 0)),
        0.45,
    )
    assert found.scores.tolist() == [0.9, 0.4, 0.3]


def test_each_box_is_matched_once() -> None:
    """Two of the source on one of the other: one is lost."""
    source, other = boxes((0, 0, 10, 10, 0.9, 0), (0, 1, 10, 11, 0.8, 0)), boxes((0, 0, 10, 10, 0.7, 0))
    assert matched(source, other, 0.5) == [(0, 0)]
    assert matched(source, boxes((0, 0, 10, 10, 0.7, 1)), 0.5) == []
    assert matched(source, boxes(), 0.5) == []


def test_lost_and_new_boxes_are_counted() -> None:
    tally = DetectionTally(Head("yolov8", (64, 64)))
    source, other = np.zeros((1, 5, 9), np.float32), np.zeros((1, 5, 9), np.float32)
    source[0, :, 0], source[0, :, 1] = [10, 10, 8, 8, 0.9], [40, 40, 8, 8, 0.3]
    other[0, :, 0], other[0, :, 1], other[0, :, 2] = (
        [10, 10, 8, 8, 0.7],
        [40, 40, 8, 8, 0.2],
        [25, 9, 6, 6, 0.8],
    )
    tally.add([source], [other])
    figures = tally.figures()["detection"]
    assert (figures["boxes"], figures["lost"], figures["new"]) == (2, 1, 1)
    assert figures["score_shift"] == pytest.approx(0.2)


def test_ruined_scores_are_the_headline_though_the_sum_is_fine() -> None:
    """Coordinates up to 640 hide scores from the sum: 40 dB together, the scores alone worse than nothing."""
    model = head_of(
        "float[N,7,10] y", "a = Relu (x) b = Sigmoid (x) y = Concat <axis=1> (a, b)",
        "float[N,4,10] a, float[N,3,10] b",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    source = np.concatenate([rng.uniform(0, 640, (2, 4, 10)), rng.uniform(0, 1, (2, 3, 10))], 1)
    ruined = source.copy()
    ruined[:, 4:] = 0
    tally = Tally(Judge(parts_of(model)))
    tally.add(2, {"y": source}, {"y": ruined}, None)
    figures = tally.figures()
    assert figures["sqnr_db"] == pytest.approx(0.0, abs=1e-9)
    assert list(figures["outputs"]) == ["y[:, 4:7]", "y[:, 0:4]"]
    together = 10 * np.log10((source**2).sum() / ((source - ruined) ** 2).sum())
    assert together > 40


FACES = {
    # (picture, rows): what MediaPipe's own graphs have
    "faces at short range": ((128, 128), 896, 16), "faces of the back camera": ((256, 256), 896, 16),
    "faces at full range": ((192, 192), 2304, 16), "palms": ((192, 192), 2016, 18), "bodies": ((224, 224), 2254, 12),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["boxes first", "scores first"])
@pytest.mark.parametrize("kind", FACES)
def test_heads_of_mediapipe_are_found_in_pictures_channels_last(kind: str, turned: bool) -> None:
    size, rows, columns = FACES[kind]
    boxes, scores = f"float[N,{rows},{columns}] boxes", f"float[N,{rows},1] scores"
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N,{size[0]},{size[1]},3] x) => ({", ".join([scores, boxes] if turned else [boxes, scores])}) {{
      t = Transpose <perm=[0,3,1,2]> (x)  boxes = Identity (t)  scores = Identity (t) }}""")
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    head = find_head(model)
    assert head is not None
    assert (head.kind, head.size, head.threshold) == ("mediapipe", size, 0.5)
    assert head.outputs == ((1, 0) if turned else (0, 1))


def test_outputs_for_each_level_are_the_same_boxes_as_joined_ones() -> None:
    parts = "float[N,512,1] s8, float[N,384,1] s16, float[N,512,16] b8, float[N,384,16] b16"
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N,128,128,3] x) => ({parts}) {{
      t = Transpose <perm=[0,3,1,2]> (x)
      s8 = Identity (t)  s16 = Identity (t)  b8 = Identity (t)  b16 = Identity (t) }}""")
    head = find_head(model)
    assert head is not None
    assert (head.kind, head.outputs, head.further, set(head.read)) == (
        "mediapipe", (2, 0), ((3, 1),), {0, 1, 2, 3},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    boxes, logits = rng.normal(0, 9, (2, 896, 16)), rng.normal(0, 3, (2, 896, 1))
    split = [logits[:, :512], logits[:, 512:], boxes[:, :512], boxes[:, 512:]]
    joined = Head("mediapipe", (128, 128), outputs=(0, 1), classes=1).decode([boxes, logits])
    for one, other in zip(head.decode(split), joined, strict=True):
        assert np.array_equal(one.corners, other.corners)
        assert np.array_equal(one.scores, other.scores)


def test_a_face_is_where_its_cell_and_its_offsets_say() -> None:
    """Row 2 * 17 + 1 is the second anchor of cell (1, 1) on stride 8, with its middle at 12; row 512 the first on stride 16."""
    boxes, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -3e4, np.float32)
    boxes[0, 35, :4], logits[0, 35] = [2, -4, 20, 10], 0.0
    boxes[0, 512, :4], logits[0, 512] = [0, 0, 16, 16], 200.0
    (found,) = Head("mediapipe", (128, 128), outputs=(0, 1), classes=1).decode([boxes, logits], 0.25)
    assert found.corners.tolist() == [[4, 3, 24, 13], [0, 0, 16, 16]]
    assert found.scores.tolist() == pytest.approx([0.5, 1.0])


def test_energies_weigh_what_an_answer_is_made_of() -> None:
    task = Detection(Head("mediapipe", (128, 128), outputs=(0, 1), classes=1))
    boxes, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -300.0, np.float32)
    boxes[0, 40, 2:4], logits[0, 40] = 10, 3.0
    source, score = [boxes, logits], 1 / (1 + np.exp(-3.0))
    counts, wrong = task.energies(source, source)
    assert (counts[0], wrong[0]) == (pytest.approx(0.25 + score**2), pytest.approx(0, abs=1e-12))
    assert task.energies(source, [boxes, np.maximum(logits, -20)])[1][0] < 1e-12
    lost = np.where(logits > 0, -300, logits)
    assert task.energies(source, [boxes, lost])[1][0] == pytest.approx(score**2)
    moved = boxes + np.float32(5) * (np.arange(16) == 0)
    assert task.energies(source, [moved, logits])[1][0] == pytest.approx((score * (1 - 1 / 3)) ** 2)
    assert task.kept(source, source) == (1, 1)
    assert task.kept(source, [boxes, lost]) == (0, 1)
    assert task.at((256, 256)).head.size == (256, 256)
