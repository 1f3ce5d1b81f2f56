"""How often the stated 95% intervals hold the value that they are about: real networks, real inputs.

python bench/intervals.py [--resamples 2000] [--draws 1000]      a table; needs ../shared/data

Each network is compared with itself in weights of 5 bits (a stand-in for what a compiler does), and the results of every image
are kept. The whole set is then the truth: as many images as it has are drawn from it, with replacement, 2,000 times, and each
time the interval is computed from what was drawn. It should hold the whole set's value in 93 to 97 of 100.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx_ir as ir

from edgec.compiler.tasks.detection import DetectionTally
from edgec.compiler.tasks.heads import find_head
from edgec.compiler.tasks.measure import ratio, share
from edgec.compiler.tasks.regression import Regression, r_squared, rms
from edgec.compiler.tasks.segmentation import Segmentation, mean_iou
from edgec.graph import intervals
from edgec.graph.data import open_data
from edgec.graph.execute import Executor
from edgec.graph.intervals import bootstrap, paired, wilson
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]
DATA = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
BITS = 5
Case = tuple[str, str, Array, Callable[[Array], float], Callable[[Array], tuple[float, float] | None]]


def rounded(model: ir.Model) -> ir.Model:
    """A copy whose weights have `BITS` bits per tensor."""
    made = model.clone()
    for value in made.graph.initializers.values():
        weight = None if value.const_value is None else value.const_value.numpy()
        if weight is None or weight.ndim < 2 or weight.dtype != np.float32:
            continue
        step = np.abs(weight).max() / (2 ** (BITS - 1) - 1)
        value.const_value = ir.tensor(np.asarray(np.round(weight / step) * step, np.float32), name=value.name)
    return made


def outputs(network: str, data: str, how: Preprocess) -> Iterator[tuple[list[Array], list[Array], Any]]:
    model = load(DATA / "models" / f"{network}.onnx")
    found = open_data(DATA / data, model, how)
    source, ours = Executor(model), Executor(rounded(model))
    done = 0
    for feeds in found.batches(10):
        a, b = list(source.run(feeds).values()), list(ours.run(feeds).values())
        yield a, b, None if found.labels is None else found.labels[done : done + len(a[0])]
        done += len(a[0])


def figure(statistic: Callable[[Array], Array]) -> Callable[[Array], float]:
    return lambda rows: float(statistic(rows.mean(axis=0)[None])[0])


def classifier() -> Iterator[Case]:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    batches = list(outputs("resnet20_cifar10", "cifar10/eval.npz", Preprocess(mean, std, 1 / 255)))
    a, b = (np.concatenate([one[i][0] for one in batches]) for i in (0, 1))
    labels = np.concatenate([one[2] for one in batches])
    right, before = b.argmax(1) == labels, a.argmax(1) == labels
    same = (a.argmax(1) == b.argmax(1))[:, None].astype(float)

    def of_rate(rows: Array) -> tuple[float, float]:
        return wilson(float(rows.mean()), len(rows))

    yield "top-1", "Wilson", right[:, None].astype(float), figure(share), of_rate
    yield "same answer", "Wilson", same, figure(share), of_rate
    both = np.stack([right, before], 1).astype(float)
    yield (
        "top-1, difference",
        "Newcombe, paired",
        both,
        lambda rows: float((rows[:, 0] - rows[:, 1]).mean()),
        lambda rows: paired(rows[:, 0] > 0, rows[:, 1] > 0),
    )
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    yield "cosine of logits", "bootstrap", cosines[:, None], figure(share), lambda r: bootstrap(r, share)
    tally = Regression().tally()
    tally.add([a[:, :1]], [b[:, :1]], None)
    rows = np.array(tally.rows)
    yield "R² of a logit", "bootstrap", rows, figure(r_squared), lambda r: bootstrap(r, r_squared)
    yield "RMS error of a logit", "bootstrap", rows, figure(rms), lambda r: bootstrap(r, rms)


def detectors() -> Iterator[Case]:
    how = Preprocess(mean=(127,), std=(128,), resize=(240, 320))
    head = find_head(load(DATA / "models" / "ultraface_rfb320.onnx"))
    assert head is not None
    boxes = DetectionTally(head)
    for a, b, _ in outputs("ultraface_rfb320", "detect/coco_val100", how):
        boxes.add(a, b)
    kept = np.array(boxes.rows, float)[:, :2]
    yield "faces kept", "bootstrap", kept, figure(ratio), lambda r: bootstrap(r, ratio)
    task = Segmentation(classes=5, axis=None)
    masks = task.tally()
    for a, b, _ in outputs(
        "yolox_nano", "detect/coco_val100", Preprocess(channels="bgr", resize=(416, 416), letterbox=114)
    ):
        maps = [np.minimum(one[0][:, :, 5:].argmax(2), 4).reshape(len(one[0]), -1, 1) for one in (a, b)]
        masks.add([maps[0].reshape(len(maps[0]), 13, -1)], [maps[1].reshape(len(maps[1]), 13, -1)], None)
    rows = np.array(masks.rows)
    yield "mean IoU of class maps", "bootstrap", rows, figure(mean_iou), lambda r: bootstrap(r, mean_iou)
    yield (
        "pixels of the same class",
        "bootstrap",
        np.array(masks.pixels)[:, None],
        figure(share),
        lambda r: bootstrap(r, share),
    )


def row(case: Case, resamples: int) -> str:
    name, how, table, value, interval = case
    rng, truth, begun = np.random.default_rng(0), value(table), time.perf_counter()
    held = said = 0
    widths = []
    for _ in range(resamples):
        found = interval(table[rng.integers(0, len(table), len(table))])
        if found is not None:
            said += 1
            held += found[0] <= truth <= found[1]
            widths.append(found[1] - found[0])
    seconds = time.perf_counter() - begun
    return f"| {name} | {len(table)} | {how} | {truth:.4f} | {np.mean(widths):.4f} | {held / said:.1%} | {seconds:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=intervals.DRAWS)
    given = parser.parse_args()
    intervals.DRAWS = given.draws
    print(
        "| figure | images | interval | of the whole set | mean width | holds it | s |\n|---|---:|---|---:|---:|---:|---:|"
    )
    for cases in (classifier, detectors):
        for case in cases():
            print(row(case, given.resamples), flush=True)


if __name__ == "__main__":
    main()
