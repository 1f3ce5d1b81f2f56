"""Channel pruning with label-free recovery: the tables of docs/pruning.md.

Labels are used for scoring only. The networks and inputs are those of EDGEC_SHARED, or `../shared` beside the repository.

usage: python bench/pruning.py [resnet56] [fskd] [nin] [small] [yolox] [peer] [speed] [linear] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.onnx import emit
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.verify.layers import compare_layers
from edgec.graph.compare import kl_divergence
from edgec.graph.cost import cost
from edgec.graph.data import ArraySource, Dataset, InputSpec, open_data
from edgec.graph.execute import Executor, session
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.fit import FitOptions

Array = np.ndarray[Any, np.dtype[Any]]

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
RAW = Preprocess()
MOBILENET = Preprocess(mean=(1.0,), scale=1 / 127.5, crop=(224, 224))
YOLOX = Preprocess(channels="bgr", resize=(416, 416), letterbox=114)
DEFAULT = "prune-channels{{macs={0}}} recover-lsq"
BOTH = ("compress{{macs={0}}} recover-lsq", DEFAULT)


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


@dataclass(frozen=True)
class Case:
    """A teacher with its calibration inputs, evaluation inputs, and its own logits there."""

    teacher: ir.Model
    calibration: Dataset
    evaluation: Dataset
    logits: Array
    threads: int

    @staticmethod
    def of(network: str, data: str, preprocess: Preprocess, images: int, threads: int) -> Case:
        teacher = load(shared() / "models" / f"{network}.onnx")
        calibration = open_data(shared() / data / "calib.npz", teacher, preprocess, samples=images)
        evaluation = open_data(shared() / data / "eval.npz", teacher, preprocess)
        return Case(teacher, calibration, evaluation, logits(teacher, evaluation, threads), threads)

    def top1(self, scores: Array) -> float:
        return 100 * float((scores.argmax(1) == np.asarray(self.evaluation.labels)).mean())

    def run(self, text: str) -> tuple[ir.Model, float]:
        """The pipeline's result, and its seconds."""
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            context = Context(self.teacher, Path(folder), self.calibration, threads=self.threads)
            model = run_pipeline(parse_pipeline(text), self.teacher, context)[-1].model
        return model, time.perf_counter() - start

    def row(self, label: str, text: str) -> ir.Model:
        """Run and print one line of the table."""
        before = time.process_time()
        model, seconds = self.run(text)
        busy = time.process_time() - before
        mine = logits(model, self.evaluation, self.threads)
        top1, drop = self.top1(mine), self.top1(self.logits) - self.top1(mine)
        agree = 100 * float((mine.argmax(1) == self.logits.argmax(1)).mean())
        kl = float(np.mean(kl_divergence(self.logits, mine)))
        share = cost(model).macs / cost(self.teacher).macs
        print(
            f"| {label} | {share:.1%} | {top1:.1f} | {drop:.1f} | {agree:.1f} | {kl:.3f} | {seconds:.0f} | {busy:.0f} |",
            flush=True,
        )
        return model


HEAD = "| | MACs | top-1 | drop | agreement | KL | seconds | CPU seconds |\n|---|---|---|---|---|---|---|---|"


def logits(model: ir.Model, data: Dataset, threads: int) -> Array:
    """The first output for all samples."""
    executor = Executor(model, threads=threads)
    return np.concatenate([executor.run(feeds)[executor.outputs[0]] for feeds in data.batches(50)])


def resnet56(threads: int) -> None:
    """Point 1: ResNet-56/CIFAR-10."""
    print(HEAD)
    for images, shares in ((500, ("70%", "50%", "35%")), (100, ("70%", "50%"))):
        case = Case.of("resnet56_cifar10", "cifar10", IMAGENET, images, threads)
        for share in shares:
            for text in BOTH:
                case.row(f"{images} images, `{text.format(share)}`", text.format(share))


def fskd(threads: int) -> None:
    """Point 2: the seed method, its fold, and the steps from it to the full re-fit."""
    case = Case.of("resnet56_cifar10", "cifar10", IMAGENET, 500, threads)
    prune = "prune-channels{{macs=50% scope=inner criterion={} allocation={}}}"
    l1 = prune.format("l1", "uniform")
    print(HEAD)
    pruned = case.row("L1, uniform, no recovery", l1)
    case.row("L1, means corrected", f"{l1} recover-bias")
    unfolded = case.row("L1, FSKD, not folded", f"{l1} recover-fskd")
    folded = case.row("L1, FSKD", f"{l1} recover-fskd fold-pointwise")
    case.row("L1, FSKD, two sweeps", f"{l1} recover-fskd{{sweeps=2}} fold-pointwise")
    case.row("L1, full re-fit, layer by layer", f"{l1} recover-lsq{{joint=0}}")
    case.row(
        "OBS, full re-fit, layer by layer, uniform",
        f"{prune.format('obs', 'uniform')} recover-lsq{{joint=0}}",
    )
    case.row(
        "OBS, full re-fit, layer by layer, global", f"{prune.format('obs', 'global')} recover-lsq{{joint=0}}"
    )
    case.row("the default", DEFAULT.format("50%"))
    a, b = (logits(model, case.evaluation, threads) for model in (unfolded, folded))
    # Recovery may put a skip's nodes before its branch: the same nodes in another valid order.
    names = [sorted((node.name or "", node.op_type) for node in model.graph) for model in (folded, pruned)]
    same = names[0] == names[1]
    print(
        f"\nfolded against unfolded: {np.abs(a - b).max() / np.abs(a).max():.1e} of the largest logit; ",
        end="",
    )
    print(f"nodes {'are' if same else 'ARE NOT'} those of the pruned network, ", end="")
    print(f"MACs {cost(folded).macs} and {cost(pruned).macs}")


def nin(threads: int) -> None:
    """Point 3: Network in Network."""
    case = Case.of("nin_cifar10", "cifar10", IMAGENET, 500, threads)
    print(HEAD)
    for share in ("70%", "50%", "25%"):
        for text in BOTH:
            case.row(f"NIN, `{text.format(share)}`", text.format(share))


def small(threads: int) -> None:
    """Point 5: the MLPerf Tiny networks."""
    print(HEAD)
    for network, data, preprocess in (
        ("resnet8_cifar10", "cifar10", RAW),
        ("kws_dscnn", "kws", RAW),
        ("vww_mobilenet_v1_0.25_96", "vww", Preprocess(scale=1 / 255)),
    ):
        case = Case.of(network, data, preprocess, 500, threads)
        for text in BOTH:
            case.row(f"{network}, {len(case.calibration)} images, `{text.format('70%')}`", text.format("70%"))


def yolox(threads: int) -> None:
    """Point 5: a detector."""
    teacher = load(shared() / "models" / "yolox_nano.onnx")
    data = open_data(shared() / "detect" / "coco_val100", teacher, YOLOX)
    calibration, held = data.split(0.25, 0)
    case = Case(teacher, calibration, held, np.empty(0), threads)
    print("| passes | output | SQNR, dB | cosine | MACs | seconds |\n|---|---|---|---|---|---|")
    for text in BOTH:
        model, seconds = case.run(text.format("70%"))
        share = cost(model).macs / cost(teacher).macs
        for found in compare_layers(teacher, model, held, threads=threads):
            if found.output:
                total = found.total
                cells = f"{total.sqnr_db:.1f} | {total.cosine:.4f} | {share:.1%} | {seconds:.0f}"
                print(f"| `{text.format('70%')}` | {found.name} | {cells} |", flush=True)


def peer(threads: int) -> None:
    """Point 6: Torch-Pruning with BatchNorm re-estimation on the same images."""
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        print("Torch-Pruning is not installed (pip install torch-pruning==1.6.1): skipped")
        return
    from peer_torch_pruning import drops

    print("| MACs | top-1 | drop |\n|---|---|---|")
    for share, top1, drop in drops(shared(), 500, threads):
        print(f"| {share:.1%} | {top1:.1f} | {drop:.1f} |", flush=True)


def speed(threads: int) -> None:
    """Point 7: MACs saved and time saved, teacher and results interleaved in one session."""
    print("| network | passes | MACs | time | teacher, ms | ms |\n|---|---|---|---|---|---|")
    cases = [(Case.of("resnet56_cifar10", "cifar10", IMAGENET, 500, threads), "ResNet-56", "50%")]
    teacher = load(shared() / "models" / "mobilenet_v1_0.75_224.onnx")
    data = open_data(shared() / "imagenet" / "calib", teacher, MOBILENET, samples=128)
    cases.append((Case(teacher, data, data, np.empty(0), threads), "MobileNetV1-0.75", "70%"))
    for case, name, share in cases:
        texts = [
            f"{one}{{macs={share} multiple={m}}}" for one in ("compress", "prune-channels") for m in (1, 8)
        ]
        models = [case.run(text)[0] for text in texts]
        sides = [session(emit(one)) for one in (case.teacher, *models)]
        feeds = {key: array[:1] for key, array in next(iter(case.calibration.batches(1))).items()}
        times: list[list[float]] = [[] for _ in sides]
        for _ in range(300):
            for side, found in zip(sides, times, strict=True):
                start = time.perf_counter()
                side.run(None, feeds)
                found.append(1e3 * (time.perf_counter() - start))
        old, *new = (float(np.median(found[50:])) for found in times)
        for text, model, taken in zip(texts, models, new, strict=True):
            ratio = cost(model).macs / cost(case.teacher).macs
            print(
                f"| {name} | `{text}` | {ratio:.1%} | {taken / old:.1%} | {old:.2f} | {taken:.2f} |",
                flush=True,
            )


def linear(threads: int) -> None:
    """Point 8: time and memory of the statistics against images, every run in a process of its own."""
    print("| images | seconds, statistics | peak MB |\n|---|---|---|")
    points = []
    for images in (64, 128, 256, 512, 1024, 2048):
        command = [sys.executable, __file__, "--statistics", str(images), "--threads", str(threads)]
        seconds, peak = (float(part) for part in subprocess.check_output(command, text=True).split())
        points.append((images, seconds, peak))
        print(f"| {images} | {seconds:.1f} | {peak:.0f} |", flush=True)
    plot(points)


def statistics(images: int, threads: int) -> None:
    """Prints seconds and peak MB of collecting ResNet-20's statistics, all rows, on ``images`` samples."""
    from edgec.graph.channels import groups
    from edgec.passes.channel_pruning.statistics import consumers_of, gather

    teacher = load(shared() / "models" / "resnet20_cifar10.onnx")
    pictures = np.load(shared() / "cifar10" / "calib.npz")["x"]
    pictures = np.concatenate([pictures, pictures[:, ::-1], pictures[:, :, ::-1]])[:images]
    source = ArraySource({"input": pictures}, IMAGENET, InputSpec.of(teacher))
    data = Dataset("calibration", source, tuple(range(images)))
    with tempfile.TemporaryDirectory() as folder:
        context = Context(teacher, Path(folder), data, threads=threads)
        batches = Batches(data, data.take(0), 32, memory=32e6)
        layers, _ = consumers_of(teacher, [group for group in groups(teacher) if group.prunable])
        start = time.process_time()
        gather(teacher, layers, batches, FitOptions(rows_per_unknown=1e9), context, "statistics")
        seconds = time.process_time() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def plot(points: Sequence[tuple[int, float, float]]) -> None:
    """Time and memory over images, as docs/pruning-cost.svg."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    images, seconds, peaks = (np.array(column) for column in zip(*points, strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, values, label in ((axes[0], seconds, "CPU seconds"), (axes[1], peaks, "peak MB")):
        axis.plot(images, values, "o-")
        axis.set_xlabel("images")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "pruning-cost.svg")


PARTS: dict[str, Callable[[int], None]] = {
    "resnet56": resnet56,
    "fskd": fskd,
    "nin": nin,
    "small": small,
    "yolox": yolox,
    "peer": peer,
    "speed": speed,
    "linear": linear,
}


def main() -> None:
    """Print the parts that are asked for, else all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--statistics", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.statistics:
        statistics(given.statistics, given.threads)
        return
    for name in given.parts or PARTS:
        print(f"\n## {name}: {(PARTS[name].__doc__ or '').splitlines()[0]}\n", flush=True)
        PARTS[name](given.threads)


if __name__ == "__main__":
    main()
