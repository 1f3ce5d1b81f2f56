"""The networks and data that the TFLite benchmarks share, and the engines that run the files."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset, open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess

SHARED = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
DATA = SHARED / "data"
MODELS = DATA / "models"

_CIFAR = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
_MOBILENET = Preprocess(mean=(1.0,), scale=1 / 127.5, crop=(224, 224))


@dataclass(frozen=True)
class Network:
    """A network, its preprocessing, where its data lies, and the official TFLite twin."""

    name: str
    preprocess: Preprocess
    calibration: str
    evaluation: str | None = None
    official: str | None = None
    class_offset: int = 0

    def load(self) -> ir.Model:
        return load(MODELS / f"{self.name}.onnx")

    def calibration_data(self, model: ir.Model, samples: int) -> Dataset:
        return open_data(DATA / self.calibration, model, self.preprocess, samples=samples)

    def evaluation_data(self, model: ir.Model, samples: int | None = None) -> Dataset | None:
        if self.evaluation is None:
            return None
        return open_data(DATA / self.evaluation, model, self.preprocess, samples=samples)


NETWORKS = (
    Network("resnet8_cifar10", Preprocess(), "cifar10/calib.npz", "cifar10/eval.npz", "resnet8_cifar10"),
    Network("resnet20_cifar10", _CIFAR, "cifar10/calib.npz", "cifar10/eval.npz"),
    Network("resnet56_cifar10", _CIFAR, "cifar10/calib.npz", "cifar10/eval.npz"),
    Network("nin_cifar10", _CIFAR, "cifar10/calib.npz", "cifar10/eval.npz"),
    Network("kws_dscnn", Preprocess(layout="nhwc"), "kws/calib.npz", "kws/eval.npz", "kws_dscnn"),
    Network(
        "vww_mobilenet_v1_0.25_96",
        Preprocess(scale=1 / 255),
        "vww/calib.npz",
        "vww/eval.npz",
        "vww_mobilenet_v1_0.25_96",
    ),
    Network("mobilenet_v1_0.75_224", _MOBILENET, "imagenet/calib", "imagenet/eval"),
    Network(
        "mobilenet_v2_1.0_224_dequantised",
        _MOBILENET,
        "imagenet/calib",
        "imagenet/eval",
        "mobilenet_v2_1.0_224",
        class_offset=1,
    ),
    Network(
        "ultraface_rfb320",
        Preprocess(mean=(127 / 128,), scale=1 / 128, resize=(240, 320)),
        "detect/coco_val100",
    ),
    Network("yolox_nano", Preprocess(channels="bgr", resize=(416, 416), letterbox=114), "detect/coco_val100"),
)


def by_name(name: str) -> Network:
    return next(n for n in NETWORKS if n.name == name)


def quantised(
    network: Network, model: ir.Model, samples: int = 64, activations: str = "uint8", method: str = "mse"
) -> ir.Model:
    """The int8 twin by the product's own pass."""
    from edgec.passes.base import Context
    from edgec.passes.quantize import Quantize

    data = network.calibration_data(model, samples)
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(teacher=model, scratch=Path(scratch), data=data)
        return Quantize(method=method, activations=activations).run(model.clone(), context).model


Feed = dict[str, np.ndarray]  # type: ignore[type-arg]
Run = Callable[[Feed], list[np.ndarray]]  # type: ignore[type-arg]


def onnx_runner(model: ir.Model, *, fused: bool = True) -> Run:
    """onnxruntime on the model, one thread; without ``fused`` a QDQ graph runs as it is written, in float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return lambda feed: session.run(None, feed)


ENGINES = ("litert", "litert-builtin", "tflite-runtime", "tflite-runtime-builtin")


def interpreter(data: bytes, engine: str, batch: int = 1):  # type: ignore[no-untyped-def]
    """An allocated interpreter; ``-builtin`` leaves XNNPACK out."""
    if engine.startswith("litert"):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    else:
        from tflite_runtime.interpreter import Interpreter, OpResolverType
    kind = (
        OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if engine.endswith("builtin")
        else OpResolverType.AUTO
    )
    made = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    if batch != 1:
        for detail in made.get_input_details():
            made.resize_tensor_input(detail["index"], (batch, *detail["shape"][1:]))
    made.allocate_tensors()
    return made


def tflite_runner(data: bytes, engine: str, names: list[str]) -> Run:
    """A function of the same shape as `onnx_runner`'s; outputs in the order of ``names``."""
    made = interpreter(data, engine)
    inputs = {d["name"]: d["index"] for d in made.get_input_details()}
    outputs = {d["name"]: d["index"] for d in made.get_output_details()}

    def run(feed: Feed) -> list[np.ndarray]:  # type: ignore[type-arg]
        for name, value in feed.items():
            made.set_tensor(inputs[name], value)
        made.invoke()
        return [made.get_tensor(outputs[name]) for name in names]

    return run


def quiet() -> None:
    """Send the runtimes' chatter on the error stream away; exceptions go to standard output instead."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, trace, file=sys.stdout)
