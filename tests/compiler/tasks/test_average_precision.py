"""Mean average precision is the named evaluator's own on the same boxes; lost and won objects are counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.compiler.tasks.boxes import Boxes
from edgec.compiler.tasks.detection import DetectionTally
from edgec.compiler.tasks.heads import Head
from edgec.graph.annotations.boxes import TrueBoxes
from edgec.graph.placement import Placement

pytest.importorskip("faster_coco_eval", reason="the evaluator is an extra")

HALF = Placement((0.5, 0.5), (0.0, 4.0), (128, 100))


def true_boxes(rng, count=6):
    corners = rng.uniform(0, 60, (count, 4))
    corners[:, 2:] = corners[:, :2] + rng.uniform(8, 30, (count, 2))
    classes = rng.integers(0, 3, count)
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return TrueBoxes(corners, classes, np.arange(count) == 5, areas, HALF)


def output(true, rng, noise, lost=0.0):
    """A head's rows that find the objects, with errors, and some that are none."""
    rows = []
    for corners, label in zip(HALF.into(true.corners), true.classes, strict=True):
        if rng.random() < lost:
            continue
        moved = corners + rng.normal(size=4) * noise
        scores = np.zeros(3)
        scores[label] = rng.uniform(0.1, 0.9)
        rows.append([*(moved[:2] + moved[2:]) / 2, *(moved[2:] - moved[:2]), *scores])
    rows += [[*rng.uniform(0, 60, 2), 9, 9, *rng.uniform(0, 0.3, 3)] for _ in range(3)]
    table = np.zeros((7, 20), np.float32)
    table[:, : len(rows)] = np.array(rows).T
    return table


def by_hand(truth, found):
    """COCO's own words to its own evaluator, with other ids than edgec gives."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": 7 * number + 3} for number in range(len(truth))]
    annotations, results = [], []
    for image, true, boxes in zip(images, truth, found, strict=True):
        for corners, label, crowd, area in zip(
            true.corners, true.classes, true.crowd, true.areas, strict=True
        ):
            x1, y1, x2, y2 = corners.tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(label) + 10, "iscrowd": int(crowd),
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(area)}
            )  # fmt: skip
        for corners, score, label in zip(boxes.corners, boxes.scores, boxes.classes, strict=True):
            x1, y1, x2, y2 = corners.tolist()
            results.append(
                {"image_id": image["id"], "category_id": int(label) + 10, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
            )  # fmt: skip
    categories = [{"id": one + 10, "name": f"c{one}"} for one in range(3)]
    coco = COCO({"images": images, "annotations": annotations, "categories": categories})
    run = COCOeval_faster(coco, coco.loadRes(results), iouType="bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats[:2]


def test_it_is_the_evaluators_own() -> None:
    rng = np.random.default_rng(0)
    truth = [true_boxes(rng) for _ in range(12)]
    source = np.stack([output(one, rng, 0.5) for one in truth])
    ours = np.stack([output(one, rng, 2.0, lost=0.3) for one in truth])
    tally = DetectionTally(Head("yolov8", (64, 64), classes=3))
    tally.add([source[:5]], [ours[:5]], truth[:5])
    tally.add([source[5:]], [ours[5:]], truth[5:])
    strict, loose, kept = tally.figures()["measures"]
    wanted = by_hand(truth, tally.scored.boxes)
    assert 0.02 < wanted[0] < wanted[1] < 0.95
    assert (strict.value, loose.value) == pytest.approx(tuple(wanted), abs=1e-9)
    before = by_hand(truth, tally.source_scored.boxes)
    assert strict.change == pytest.approx(wanted[0] - before[0], abs=1e-9)
    assert strict.evaluator.startswith("faster-coco-eval 1.")
    assert (strict.count, strict.of) == (12 * 5, "objects")
    hits, earlier = np.concatenate(tally.scored.found), np.concatenate(tally.source_scored.found)
    assert strict.lost - strict.won == earlier.sum() - hits.sum() > 0
    assert kept.name == "Boxes of the original still found"


def test_it_is_pycocotools_too() -> None:
    """The reference of the field; faster-coco-eval says that it is the same."""
    coco = pytest.importorskip("pycocotools.coco", reason="the reference evaluator")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(3)
    truth = [true_boxes(rng) for _ in range(8)]
    ours = np.stack([output(one, rng, 1.5) for one in truth])
    tally = DetectionTally(Head("yolov8", (64, 64), classes=3))
    tally.add([ours], [ours], truth)
    reference = coco.COCO()
    reference.dataset = {
        "images": [{"id": number} for number in range(1, 9)],
        "categories": [{"id": one} for one in range(3)],
        "annotations": [
            {"id": 100 * image + row, "image_id": image, "category_id": int(true.classes[row]), "iscrowd": int(true.crowd[row]),
             "bbox": [*true.corners[row, :2], *(true.corners[row, 2:] - true.corners[row, :2])], "area": float(true.areas[row])}
            for image, true in enumerate(truth, 1) for row in range(len(true))
        ],
    }  # fmt: skip
    reference.createIndex()
    results = np.array(
        [
            [
                image,
                *boxes.corners[row, :2],
                *(boxes.corners[row, 2:] - boxes.corners[row, :2]),
                boxes.scores[row],
                boxes.classes[row],
            ]
            for image, boxes in enumerate(tally.scored.boxes, 1)
            for row in range(len(boxes))
        ]
    )
    run = COCOeval(reference, reference.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert tally.figures()["measures"][0].value == pytest.approx(run.stats[0], abs=1e-6)


def test_without_an_object_or_a_box_it_is_nothing() -> None:
    empty = TrueBoxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool), np.zeros(0), HALF)
    tally = DetectionTally(Head("yolov8", (64, 64), classes=3))
    tally.add([np.zeros((1, 7, 5))], [np.zeros((1, 7, 5))], [empty])
    first = tally.figures()["measures"][0]
    assert (first.value, first.count, first.lost) == (0.0, 0, 0)


def test_boxes_in_shares_of_the_picture_become_pixels() -> None:
    head = Head("ssd", (240, 320), outputs=(0, 1), background=True)
    scores = np.array([[[0.1, 0.9], [0.2, 0.8]]])
    (shares,) = head.decode([np.array([[[0.1, 0.2, 0.5, 0.6], [0.9, 0.9, 1.1, 1.0]]]), scores])
    assert shares.corners[0].tolist() == pytest.approx([32, 48, 160, 144])
    (pixels,) = head.decode([np.array([[[32, 48, 160, 144.0], [1, 2, 3, 4]]]), scores])
    assert pixels.corners[0].tolist() == [32, 48, 160, 144]
    assert isinstance(pixels, Boxes)
