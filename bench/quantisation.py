"""int8 accuracy beside its peers: the tables of docs/quantise.md. Labels are used for scoring only.

Everybody gets the same float graph (edgec's canonical one, BatchNorm folded) and the same calibration images. The peers are
onnxruntime's `quantize_static` with its defaults and with its better settings, and the published int8 TFLite file of the same
network where there is one. Each network is a run of its own.

usage: python bench/quantisation.py [hard | speed | NETWORK...] [--images 128] [--threads 1] [--passes quantize]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx_ir as ir
from tflite_networks import DATA, MODELS, Network, by_name, interpreter, onnx_runner

from edgec.compiler.emit import tflite
from edgec.compiler.emit.onnx import emit
from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.compare import sqnr_db
from edgec.graph.data import Dataset, open_data
from edgec.graph.views import ConvView
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.runtime.bench import BenchOptions, compare
from edgec.runtime.devices import open_device
from edgec.targets import target

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[dict[str, Array]], list[Array]]

NAMES = (
    "mobilenet_v1_0.75_224",
    "resnet56_cifar10",
    "resnet20_cifar10",
    "nin_cifar10",
    "resnet8_cifar10",
    "kws_dscnn",
    "vww_mobilenet_v1_0.25_96",
)
PEERS: dict[str, dict[str, Any]] = {
    "onnxruntime, defaults": {},
    "onnxruntime, per channel, min/max": {"per_channel": True},
    "onnxruntime, per channel, percentile": {"per_channel": True, "method": "Percentile"},
    "onnxruntime, per channel, entropy": {"per_channel": True, "method": "Entropy"},
}


@dataclass(frozen=True)
class Case:
    """A float network, its calibration and evaluation data, and its outputs there."""

    network: Network
    model: ir.Model
    calibration: Dataset
    evaluation: Dataset
    reference: Array
    threads: int

    @staticmethod
    def of(
        network: Network,
        images: int,
        threads: int,
        passes: str = "",
        change: Callable[[ir.Model], ir.Model] = ir.Model.clone,
    ) -> Case:
        model = change(network.load())
        calibration = network.calibration_data(model, images)
        if passes:
            model = pipeline(passes, model, calibration, threads)
        folder = DATA / str(network.evaluation)
        labels = folder.parent / "eval_labels.csv" if folder.is_dir() else None
        evaluation = open_data(folder, model, network.preprocess, labels=labels)
        return Case(network, model, calibration, evaluation, outputs(onnx_runner(model), evaluation), threads)

    def row(self, label: str, run: Run, seconds: float, *, scores: bool = True) -> None:
        """One line of the table. ``scores``: the outputs are what the float network's are, not probabilities."""
        mine = outputs(run, self.evaluation)[:, : self.reference.shape[1]]
        mine = mine.reshape(self.reference.shape)
        top1 = self.top1(mine)
        agree = 100 * float((mine.argmax(1) == self.reference.argmax(1)).mean())
        sqnr = f"{sqnr_db(self.reference, mine):.1f}" if scores else "-"
        taken = f"{seconds:.0f}" if seconds else "-"
        drop = self.top1(self.reference) - top1
        print(f"| {label} | {top1:.1f} | {drop:.1f} | {agree:.1f} | {sqnr} | {taken} |", flush=True)

    def top1(self, scores: Array) -> float:
        labels = np.asarray(self.evaluation.labels)
        return 100 * float((scores.argmax(1) == labels).mean())


def pipeline(text: str, model: ir.Model, data: Dataset, threads: int) -> ir.Model:
    """The model behind the passes of ``text``."""
    with tempfile.TemporaryDirectory() as folder:
        # Codes for this processor: without VNNI, products of full-range weights saturate.
        context = Context(model, Path(folder), data, target("host"), threads=threads)
        return run_pipeline(parse_pipeline(text), model, context)[-1].model


def outputs(run: Run, data: Dataset) -> Array:
    """The first output for all samples, in batches of one: some published files take no other."""
    return np.concatenate([run(feeds)[0].reshape(1, -1) for feeds in data.batches(1)])


def onnxruntime_int8(case: Case, settings: dict[str, Any]) -> Run:
    """``quantize_static`` of onnxruntime on the same graph and data."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[dict[str, Array]] = case.calibration.batches(1)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    method = getattr(CalibrationMethod, settings.get("method", "MinMax"))
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(emit(case.model))
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                source,
                made,
                Reader(),
                calibrate_method=method,
                per_channel=settings.get("per_channel", False),
                weight_type=QuantType.QInt8,
                extra_options={"CalibMaxIntermediateOutputs": 16}
                if method != CalibrationMethod.MinMax
                else {},
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = case.threads, 3
        session = onnxruntime.InferenceSession(made.read_bytes(), options)
    return lambda feeds: list(session.run(None, feeds))


def published(network: Network) -> Run:
    """The vendor's int8 TFLite file, on LiteRT."""
    made = interpreter((MODELS / f"{network.official}_int8.tflite").read_bytes(), "litert")
    (source,), (result,) = made.get_input_details(), made.get_output_details()

    def run(feeds: dict[str, Array]) -> list[Array]:
        (x,) = feeds.values()
        x = np.moveaxis(x, 1, -1).reshape(source["shape"])
        made.set_tensor(source["index"], codes(x, source))
        made.invoke()
        scale, zero = result["quantization"]
        return [scale * (made.get_tensor(result["index"]).astype(np.float32) - zero)]

    return run


def codes(x: Array, detail: dict[str, Any]) -> Array:
    """``x`` as an interpreter's input takes it."""
    scale, zero = detail["quantization"]
    info = np.iinfo(detail["dtype"])
    return np.clip(np.round(x / scale) + zero, info.min, info.max).astype(detail["dtype"])


def table(case: Case, passes: str) -> None:
    """edgec, then everybody else."""
    print("| | top-1 | drop | agreement | SQNR, dB | seconds |\n|---|---|---|---|---|---|")
    print(f"| float | {case.top1(case.reference):.1f} | | | | |", flush=True)
    start = time.perf_counter()
    model = pipeline(passes, case.model, case.calibration, case.threads)
    seconds = time.perf_counter() - start
    case.row(f"edgec, `{passes}`", onnx_runner(model), seconds)
    for label, settings in PEERS.items():
        start = time.perf_counter()
        run = onnxruntime_int8(case, settings)
        case.row(label, run, time.perf_counter() - start)
    if case.network.official is not None:
        case.row("published int8 TFLite", published(case.network), 0.0, scores=False)


def rescaled(model: ir.Model, decades: float, seed: int = 0) -> ir.Model:
    """The same function with channels of very unequal range: each times 10^u, u within +-``decades``, and back behind the Relu.

    ReLU6 becomes Relu first, which is what makes that possible.
    """
    changed = model.clone()
    rng = np.random.default_rng(seed)
    for node in list(changed.graph):
        if node.op_type == "Clip":
            relu = ir.node("Relu", [node.inputs[0]], name=node.name)
            ir.convenience.replace_nodes_and_values(
                changed.graph, node, [node], [relu], node.outputs, relu.outputs
            )
            relu.outputs[0].shape, relu.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    for node in changed.graph:
        maker = ConvView.of(node.inputs[0].producer()) if node.op_type == "Relu" else None
        readers = [use.node for use in node.outputs[0].uses()]
        reader = ConvView.of(readers[0]) if len(readers) == 1 else None
        if maker is None or reader is None or len(maker.y.uses()) > 1 or maker.bias is None:
            continue
        factors = (10 ** rng.uniform(-decades, decades, maker.out_channels)).astype(np.float32)
        maker.set(weight=maker.weight * factors[:, None, None, None], bias=maker.bias * factors)
        shape = (-1, 1, 1, 1) if reader.is_depthwise else (1, -1, 1, 1)
        reader.set(weight=reader.weight / factors.reshape(shape))
    return changed


def with_heads(model: ir.Model) -> ir.Model:
    """Class scores as probabilities: Softmax behind the last layer."""
    changed = model.clone()
    scores = changed.graph.outputs[0]
    made = ir.node("Softmax", [scores], {"axis": 1}, name="head")
    made.outputs[0].shape, made.outputs[0].type, made.outputs[0].name = scores.shape, scores.type, "classes"
    changed.graph.append(made)
    changed.graph.outputs[0] = made.outputs[0]
    return changed


def hard(images: int, threads: int) -> None:
    """Networks that break a naive quantiser."""
    for name, label, change in (
        ("mobilenet_v1_0.75_224", "ReLU, channels rescaled by 10^-1 to 10^1", lambda m: rescaled(m, 1.0)),
        ("resnet20_cifar10", "channels rescaled by 10^-1.5 to 10^1.5", lambda m: rescaled(m, 1.5)),
        ("resnet20_cifar10", "Softmax head", with_heads),
    ):
        network = by_name(name)
        print(f"\n## {name}: {label}, {images} images\n")
        table(Case.of(network, images, threads, change=change), "quantize")
    detector(threads)


def detector(threads: int) -> None:
    """yolox_nano: SQNR of its outputs, alone and with the layers that it takes left in float."""
    network = by_name("yolox_nano")
    model = network.load()
    calibration, held = network.calibration_data(model, 100).split(0.25, 0)
    reference = outputs(onnx_runner(model), held)
    print(
        "\n## yolox_nano, 75 images, judged on 25 others\n\n| passes | SQNR, dB | layers in float |\n|---|---|---|"
    )
    for text in ("quantize", "quantize{min_sqnr=20}"):
        with tempfile.TemporaryDirectory() as folder:
            context = Context(model, Path(folder), calibration, threads=threads)
            step = run_pipeline(parse_pipeline(text), model, context)[-1]
        sqnr = sqnr_db(reference, outputs(onnx_runner(step.model), held))
        print(f"| `{text}` | {sqnr:.1f} | {len(step.data['float_nodes'])} |", flush=True)


def speed(images: int, threads: int) -> None:
    """int8 beside float: the two files in turns, batch 1, one thread."""
    print("| network | engine | float, ms | int8, ms | times as fast |\n|---|---|---|---|---|")
    for name in NAMES:
        network = by_name(name)
        model = network.load()
        int8 = pipeline("quantize", model, network.calibration_data(model, images), threads)
        for engine, suffix, write in (("onnxruntime", "onnx", emit), ("LiteRT", "tflite", _tflite)):
            with tempfile.TemporaryDirectory() as folder, open_device("local") as device:
                paths = [Path(folder) / f"{kind}.{suffix}" for kind in ("float", "int8")]
                for path, side in zip(paths, (model, int8), strict=True):
                    path.write_bytes(write(side))
                found = compare(paths, BenchOptions(seconds=3.0, restarts=3), device)
            float_, quantised = found.measurements
            ratio = 1 / found.ratios[0].ratio
            print(
                f"| {name} | {engine} | {float_.median_ms:.3f} | {quantised.median_ms:.3f} | {ratio:.2f} |",
                flush=True,
            )


def _tflite(model: ir.Model) -> bytes:
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph)
    return tflite.emit(model, precision="int8" if quantised else "fp32", batch=1)


def main() -> None:
    """Print a table per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=", ".join(NAMES))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", default="quantize", help="what makes edgec's int8 model")
    parser.add_argument("--first", default="", help="passes that make the float network, for narrowed ones")
    given = parser.parse_args()
    logging.getLogger().setLevel(
        logging.ERROR
    )  # onnxruntime asks for its own preprocessing, which this graph has had
    if given.networks == ["hard"]:
        hard(given.images, given.threads)
        return
    if given.networks == ["speed"]:
        speed(given.images, given.threads)
        return
    for name in given.networks or NAMES:
        network = by_name(name)
        print(f"\n## {name}{' behind ' + given.first if given.first else ''}, {given.images} images\n")
        table(Case.of(network, given.images, given.threads, given.first), given.passes)


if __name__ == "__main__":
    main()
