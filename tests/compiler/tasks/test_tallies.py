"""Two networks' answers compared in each task's own terms, against figures computed another way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from sklearn import metrics

from edgec.compiler.evaluate.quality import Judge, Tally
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.embedding import Embedding
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.keypoints import Keypoints
from edgec.compiler.tasks.multi_label import MultiLabel
from edgec.compiler.tasks.regression import Regression
from edgec.compiler.tasks.restoration import Restoration
from edgec.compiler.tasks.segmentation import Segmentation, nearest, runs_of
from edgec.compiler.tasks.text_recognition import TextRecognition
from tests.conftest import parse

N = 40


def compared(task, source, ours, truth=None):
    """Measures by name, fed in two batches."""
    tally = task.tally()
    for part in (slice(0, 15), slice(15, None)):
        tally.add([source[part]], [ours[part]], None if truth is None else truth[part])
    figures = tally.figures()
    assert len(tally.errors) == len(tally.changed) == len(source)
    return {one.name: one for one in figures["measures"]}, figures, tally


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_classification(rng) -> None:
    source = rng.normal(size=(N, 12))
    ours = source + rng.normal(size=(N, 12)) * 0.4
    truth = np.where(rng.random(N) < 0.8, source.argmax(1), 0)
    found, figures, tally = compared(Classification(classes=12), source, ours, truth)
    right, before = ours.argmax(1) == truth, source.argmax(1) == truth
    top1 = found["Top-1 accuracy"]
    assert next(iter(found)) == "Top-1 accuracy"
    assert top1.value == figures["top1"] == pytest.approx(right.mean())
    assert (top1.lost, top1.won) == ((before & ~right).sum(), (right & ~before).sum())
    assert top1.change == pytest.approx(right.mean() - before.mean())
    assert top1.change_low <= top1.change <= top1.change_high
    assert found["Top-5 accuracy"].value == metrics.top_k_accuracy_score(truth, ours, k=5, labels=range(12))
    assert figures["agreement"] == found["Same answer as the original"].value == 1 - np.mean(tally.changed)
    assert found["Same answer as the original"].lost == sum(tally.changed)


@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_yes_and_no(kind, rng) -> None:
    logits = rng.normal(size=(N, 1)) * 3
    values = 1 / (1 + np.exp(-logits)) if kind == "probability" else logits
    flipped = -logits
    other = 1 / (1 + np.exp(-flipped)) if kind == "probability" else flipped
    truth = (logits[:, 0] > 0).astype(int)
    found, figures, _ = compared(Classification(binary=kind), values, values, truth)
    assert figures["top1"] == 1.0
    assert figures["kl"] == pytest.approx(0, abs=1e-9)
    found, figures, _ = compared(Classification(binary=kind), values, other, truth)
    assert figures["top1"] == figures["agreement"] == 0.0
    assert found["Top-1 accuracy"].lost == N


def test_multi_label(rng) -> None:
    source = rng.random((N, 6)) * [1, 1, 1, 1, 0.4, 0.6]
    ours = np.clip(source + rng.normal(size=(N, 6)) * 0.1, 0, 1)
    truth = rng.random((N, 6)) < 0.3
    found, _, tally = compared(MultiLabel(classes=6), source, ours, truth)
    a, b = source >= 0.5, ours >= 0.5
    assert found["Same labels as the original (F1)"].value == pytest.approx(
        metrics.f1_score(a, b, average="micro")
    )
    assert found["Labels right (F1)"].value == pytest.approx(metrics.f1_score(truth, b, average="micro"))
    assert found["Same yes or no, over all labels"].value == pytest.approx((a == b).mean())
    worst = (a == b).mean(axis=0).argmin()
    assert found[f"Same yes or no, label {worst}, the worst"].value == pytest.approx(
        (a == b).mean(axis=0).min()
    )
    assert tally.changed == (a != b).any(axis=1).tolist()


def test_no_label_is_no_disagreement() -> None:
    nothing = np.zeros((N, 6))
    found, _, _ = compared(MultiLabel(classes=6), nothing, nothing)
    one = found["Same labels as the original (F1)"]
    assert (one.value, one.interval) == (1.0, "wilson")
    assert one.low == pytest.approx(0.912, abs=1e-3)


@pytest.mark.parametrize("form", ["scores", "channels last", "ids", "one score"])
def test_segmentation(form, rng) -> None:
    classes = 2 if form == "one score" else 4
    a, b = rng.integers(0, classes, (2, N, 8, 6))
    truth = rng.integers(0, classes, (N, 8, 6)).astype(np.uint8)
    truth[:, 0] = 255
    task = {
        "scores": Segmentation(classes=4),
        "channels last": Segmentation(classes=4, axis=3),
        "ids": Segmentation(classes=4, axis=None),
        "one score": Segmentation(classes=2, threshold=0.5),
    }[form]
    eye = np.eye(4)
    arrays = {
        "scores": lambda ids: eye[ids].transpose(0, 3, 1, 2),
        "channels last": lambda ids: eye[ids],
        "ids": lambda ids: ids,
        "one score": lambda ids: ids[:, None] * 0.9,
    }[form]
    found, _, _ = compared(task, arrays(a), arrays(b), truth)
    mean = metrics.jaccard_score(a.ravel(), b.ravel(), average="macro")
    assert found["Mean IoU with the original's masks"].value == pytest.approx(mean)
    known = truth != 255
    right = metrics.jaccard_score(truth[known], b[known], average="macro")
    assert found["Mean IoU with the labels"].value == pytest.approx(right)
    before = metrics.jaccard_score(truth[known], a[known], average="macro")
    assert found["Mean IoU with the labels"].change == pytest.approx(right - before)
    assert found["Pixels of the same class"].value == pytest.approx((a == b).mean())


MASKS: dict[str, tuple[Segmentation, Callable[[np.ndarray], np.ndarray]]] = {
    "logits": (Segmentation(classes=3), lambda p: np.log(p) + 5),
    "probabilities": (Segmentation(classes=3), lambda p: p),
    "channels last": (Segmentation(classes=3, axis=3), lambda p: np.log(p).transpose(0, 2, 3, 1)),
    "a chance": (Segmentation(threshold=0.5), lambda p: p[:, 1:2]),
    "a logit": (Segmentation(threshold=0.0), lambda p: np.log(p[:, 1:2] / p[:, :1])),
}


@pytest.mark.parametrize("form", MASKS)
def test_a_class_weighs_the_same_whatever_it_covers(form, rng) -> None:
    """Wrong pixels of a class that covers a corner are worth as much as so many more of one that covers the rest."""
    task, written = MASKS[form]
    count = 2 if task.threshold is not None else 3
    ids = np.zeros((2, 20, 20), int)
    ids[0, :4, :4] = ids[1, :10, :] = 1
    sure = (np.eye(count)[ids] * 0.9 + 0.1 / count).transpose(0, 3, 1, 2)
    moved = sure.copy()
    moved[:, :2, :2, :2] = moved[:, 1::-1, :2, :2]  # four pixels of class 1 become class 0
    counts, wrong = task.energies([written(sure)], [written(moved)])
    smallest = 1e-3 * 400
    for index, pixels in enumerate(([400 - 16, 16], [200, 200])):
        weights = 1 / np.maximum([*pixels, 0][:count], max(smallest, 1))
        right = (np.square(sure[index]).sum(axis=(1, 2)) * weights).sum()
        left = (np.square(sure[index] - moved[index]).sum(axis=(1, 2)) * weights).sum()
        assert counts[index] == pytest.approx(right, rel=1e-4)
        assert wrong[index] == pytest.approx(left, rel=1e-4)
    assert wrong[0] > 3 * wrong[1]
    assert task.kept([written(sure)], [written(moved)]) == (800 - 8, 800)


@pytest.mark.parametrize("axis", [1, 3])
def test_codes_of_an_int8_softmax_are_no_logits(axis: int, rng) -> None:
    """Twenty classes whose codes sum to anything from 0.96 to 1.04, as 256 steps leave them."""
    chances = rng.dirichlet(np.full(20, 1.0), (2, 16, 16)).transpose(0, 3, 1, 2).astype(np.float32)
    codes = np.round(chances * 256) / 256
    assert np.abs(codes.sum(axis=1) - 1).max() > 0.01
    task = Segmentation(classes=20, axis=axis)
    counts, wrong = task.energies(*([np.moveaxis(one, 1, axis)] for one in (chances, codes)))
    assert (wrong < counts / 100).all()


def test_class_ids_that_differ_are_wrong(rng) -> None:
    task = Segmentation(classes=3, axis=None)
    ids = np.zeros((1, 10, 10), np.int64)
    ids[0, :5] = 1
    other = ids.copy()
    other[0, 0, :4] = 2
    counts, wrong = task.energies([ids], [other])
    assert counts[0] == pytest.approx(2.0)
    assert wrong[0] == pytest.approx(4 / 50 + 4 / 1)


def test_a_class_that_nobody_has_is_no_class(rng) -> None:
    masks = rng.integers(0, 2, (N, 5, 5))
    found, _, _ = compared(Segmentation(classes=9, axis=None), masks, masks)
    assert found["Mean IoU with the original's masks"].value == 1.0


def test_masks_of_another_size_and_as_runs() -> None:
    mask = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
    assert nearest(mask, (4, 8)).tolist() == mask.repeat(2, 0).repeat(2, 1).tolist()
    assert nearest(nearest(mask, (4, 8)), (2, 4)).tolist() == mask.tolist()
    runs = runs_of(mask)
    assert runs == {"size": [2, 4], "runs": [[0, 2], [1, 2], [2, 2], [3, 2]]}
    assert np.prod(runs_of(np.zeros((1000, 500), int))["size"]) <= 128 * 64


def test_keypoints(rng) -> None:
    """One of two keypoints moves by one cell of 4 px in every third sample: within 5% of 128 px; one jumps away once."""
    maps = np.zeros((N, 2, 32, 16))
    maps[:, 0, 10, 5] = maps[:, 1, 20, 9] = 1.0
    ours = maps.copy()
    ours[::3, 0, 10, 5], ours[::3, 0, 10, 6] = 0.1, 1.0
    ours[7, 1] = 0
    ours[7, 1, 0, 0] = 1.0
    found, _, tally = compared(Keypoints((128, 64)), maps, ours)
    near = found["Keypoints within 6.4 px of the original's"]
    assert (near.count, near.lost, near.value) == (2 * N, 1, 1 - 1 / (2 * N))
    jump = np.hypot(9 * 4, 20 * 4)
    assert found["Mean distance"].value == pytest.approx((14 * 4 + jump) / (2 * N))
    assert np.flatnonzero(tally.changed).tolist() == [7]
    assert Keypoints((128, 64)).points([maps])[0, 0].tolist() == [5.5 * 4, 10.5 * 4, 1.0]
    last, _, _ = compared(
        Keypoints((128, 64), channels_last=True), np.moveaxis(maps, 1, -1), np.moveaxis(ours, 1, -1)
    )
    assert last["Mean distance"].value == found["Mean distance"].value


def test_keypoints_with_labels() -> None:
    maps = np.zeros((N, 2, 32, 16))
    maps[:, 0, 10, 5] = maps[:, 1, 20, 9] = 1.0
    truth = np.tile([[22.0, 42.0, 2.0], [0.0, 0.0, 0.0]], (N, 1, 1))  # the second is not in the picture
    found, _, _ = compared(Keypoints((128, 64)), maps, maps, truth)
    near = found["Keypoints within 6.4 px of the labels"]
    assert (near.value, near.count, near.change) == (1.0, N, 0.0)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 20, 20)])
def test_regression(shape, rng) -> None:
    source = rng.normal(5, 2, (N, *shape)) * np.arange(1, shape[-1] + 1)
    ours = source + rng.normal(size=source.shape) * 0.3
    truth = source + rng.normal(size=source.shape)
    found, _, _ = compared(Regression(), source, ours, truth)
    columns = (N, -1) if len(shape) == 1 else (-1, 1)
    for name, wanted in (("the original's numbers", source), ("the labels", truth)):
        a, b = wanted.reshape(columns), ours.reshape(columns)
        assert found[f"R² with {name}"].value == pytest.approx(metrics.r2_score(a, b))
        rms = metrics.mean_squared_error(a, b) ** 0.5
        assert found[f"Error against {name} (RMS)"].value == pytest.approx(rms)
    before = metrics.r2_score(truth.reshape(columns), source.reshape(columns))
    after = found["R² with the labels"]
    assert after.change == pytest.approx(after.value - before)


def test_a_constant_is_itself_and_nothing_else() -> None:
    same, _, _ = compared(Regression(), np.ones((N, 1)), np.ones((N, 1)))
    other, _, _ = compared(Regression(), np.ones((N, 1)), np.full((N, 1), 1.5))
    assert same["R² with the original's numbers"].value == 1.0
    assert other["R² with the original's numbers"].value == 0.0


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_pictures(peak, rng) -> None:
    source = rng.random((N, 3, 8, 8)) * peak
    ours = source + rng.normal(size=source.shape) * 0.02 * peak
    found, _, _ = compared(Restoration(), source, ours, list(source + 0.1 * peak))
    each = [10 * np.log10(peak**2 / np.mean((a - b) ** 2)) for a, b in zip(source, ours, strict=True)]
    one = found["PSNR with the original's pictures"]
    assert one.value == pytest.approx(np.mean(each))
    assert (one.unit, one.best) == ("dB", None)
    assert found["PSNR with the labels"].value == pytest.approx(20, abs=0.5)


def test_embeddings(rng) -> None:
    source = rng.normal(size=(N, 16))
    ours = source * 3 + rng.normal(size=source.shape) * 0.1
    ours[4] = source[9]
    found, _, tally = compared(Embedding(), source, ours)
    assert np.flatnonzero(tally.changed).tolist() == [4]
    assert found["Nearest of the original's vectors is its own (recall@1)"].value == 1 - 1 / N
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(source, ours, strict=True)]
    assert found["Cosine with the original's vectors"].value == pytest.approx(np.mean(cosines))


def test_embeddings_with_labels() -> None:
    angles = np.repeat([0.0, 1.5, 3.0], [10, 10, 20]) + np.linspace(0, 0.1, N)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    truth = np.repeat([0, 1, 2], [10, 10, 20])
    truth[3] = 77  # nobody else has it: it cannot be found
    found, _, _ = compared(Embedding(), vectors, vectors, truth)
    one = found["Nearest has the same label (recall@1)"]
    assert one.samples == N - 1
    assert one.value == pytest.approx(37 / 39, abs=0.03)  # its neighbours may have it as their nearest
    assert (one.lost, one.won, one.change) == (0, 0, 0.0)


@pytest.mark.parametrize(
    "task",
    [
        Classification(classes=4),
        MultiLabel(classes=4),
        Regression(),
        Embedding(),
        Segmentation(classes=4),
        Keypoints((8, 8)),
        Restoration(),
        TextRecognition(),
    ],
    ids=lambda task: task.name,
)
def test_answers_are_json(task, rng) -> None:
    import json

    shapes = {
        **dict.fromkeys(("segmentation", "keypoints", "super-resolution"), (2, 4, 8, 8)),
        "text-recognition": (2, 6, 4),
    }
    outputs = [rng.random(shapes.get(task.name, (2, 4))).astype(np.float32)]
    answers = task.answers(outputs)
    assert len(answers) == 2
    assert json.loads(json.dumps(answers)) == answers


@pytest.mark.parametrize("ruined", [0, 1, 2])
def test_an_answer_is_the_same_where_every_output_of_classes_says_so(ruined: int, rng) -> None:
    model = ir.from_proto(
        parse("g (float[N,8] x) => (float[N,8] a, float[N,8] b, float[N,8] c, float[N,5] other) <float[8,5] w>"
              "{ a = Identity(x)  b = Neg(x)  c = Mul(x, x)  other = MatMul(x, w) }")
    )  # fmt: skip
    task = find_task(model, given="classification")
    assert task == Classification(0, 8, twins=(1, 2, 3))
    source = [rng.normal(size=(N, 8)) for _ in range(3)] + [rng.normal(size=(N, 5))]
    ours = [*source]
    ours[ruined] = np.roll(source[ruined], 1, axis=1)
    tally = task.tally()
    tally.add(source, ours, None)
    assert tally.figures()["agreement"] == 0.0
    assert min(tally.errors) > 0


HEADS = {
    # (the outputs, their body): the positions of those whose answers count
    "logits of another count": ("float[N,8] a, float[N,5] b", "a = Identity(x)  b = MatMul(x, w)", (0, 1)),
    "distributions": ("float[N,8] a, float[N,5] b", "a = Softmax(x)  t = MatMul(x, w)  b = Softmax(t)", (0, 1)),
    "a box beside a distribution": ("float[N,8] a, float[N,5] b", "a = Softmax(x)  b = MatMul(x, w)", (0,)),
    "what the classifier reads": ("float[N,5] a, float[N,8] b", "b = Relu(x)  a = MatMul(b, w)", (0,)),
    "a long vector": ("float[N,8] a, float[N,64] b", "a = Identity(x)  b = MatMul(x, long)", (0,)),
    "a vector of length 1": ("float[N,8] a, float[N,5] b", "a = Identity(x)  t = MatMul(x, w)  b = LpNormalization(t)", (0,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_which_vectors_beside_a_classifier_are_answers_too(kind: str) -> None:
    outputs, body, counted = HEADS[kind]
    model = ir.from_proto(
        parse(f"g (float[N,8] x) => ({outputs}) <float[8,5] w, float[8,64] long> {{ {body} }}")
    )
    task = find_task(model, given="classification")
    assert isinstance(task, Classification)
    assert (task.output, *task.twins) == counted


@pytest.mark.parametrize("counts", [True, False], ids=["an answer", "no answer"])
def test_a_ruined_output_beside_a_classifier_is_never_silent(counts: bool, rng) -> None:
    """Where its answers count, others are; where it has none, it is named with its decibels."""
    body = HEADS["logits of another count" if counts else "a box beside a distribution"][1]
    model = ir.from_proto(
        parse(f"g (float[N,8] x) => (float[N,8] a, float[N,5] b) <float[8,5] w> {{ {body} }}")
    )
    task = find_task(model, given="classification")
    tally = Tally(Judge.of(model, model, task))
    source = {"a": rng.random((40, 8)), "b": rng.normal(size=(40, 5))}
    tally.add(40, source, {"a": source["a"], "b": np.roll(source["b"], 1, axis=1)}, None)
    figures = tally.figures()
    if counts:
        assert figures["agreement"] < 0.6
        assert "beside" not in figures
    else:
        assert figures["agreement"] == 1.0
        assert figures["beside"] == "b"
        assert figures["outputs"]["b"] < 10
