"""Running TFLite bytes on the interpreters, and int8 twins of tiny models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.quantize import Quantize

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[..., dict[str, Array]]

ENGINES = ("litert", "litert-builtin", "tflite-runtime")


def interpreter(data: bytes, engine: str = "litert") -> Any:
    """An interpreter that is not allocated yet; skips where the runtime is not installed."""
    name = "ai_edge_litert.interpreter" if engine.startswith("litert") else "tflite_runtime.interpreter"
    module = pytest.importorskip(name)
    kinds = module.OpResolverType
    kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if engine.endswith("builtin") else kinds.AUTO
    return module.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)


def run_tflite(data: bytes, feeds: dict[str, Array], engine: str = "litert") -> dict[str, Array]:
    """Outputs by name; inputs are resized to the feeds' shapes."""
    made = interpreter(data, engine)
    details = {d["name"]: d for d in made.get_input_details()}
    for name, value in feeds.items():
        if tuple(details[name]["shape"]) != value.shape:
            made.resize_tensor_input(details[name]["index"], value.shape)
    made.allocate_tensors()
    for name, value in feeds.items():
        made.set_tensor(details[name]["index"], value)
    made.invoke()
    return {d["name"]: made.get_tensor(d["index"]) for d in made.get_output_details()}


def run_onnx(model: ir.Model, feeds: dict[str, Array], fused: bool = True) -> dict[str, Array]:
    """Outputs by name, from onnxruntime; without ``fused`` a QDQ graph is computed in float as written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Exact on x86 without VNNI too, where 16-bit sums saturate otherwise.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.fixture
def tflite() -> Run:
    """`run_tflite`."""
    return run_tflite


@pytest.fixture
def onnx_run() -> Run:
    """`run_onnx`."""
    return run_onnx


@pytest.fixture
def build(make_model: Callable[..., onnx.ModelProto]) -> Callable[..., ir.Model]:
    """A model from ONNX text with all shapes inferred, without canonicalising it."""

    def make(text: str, seed: int = 0) -> ir.Model:
        proto = onnx.shape_inference.infer_shapes(
            make_model(text, seed=seed), strict_mode=True, data_prop=True
        )
        model = ir.from_proto(proto)
        for k, node in enumerate(model.graph):
            node.name = node.name or f"{node.op_type}_{k}"
        return model

    return make


def samples(model: ir.Model, count: int = 8, seed: int = 1) -> dict[str, Array]:
    """Gaussian inputs for a model."""
    rng = np.random.default_rng(seed)
    return {s.name: rng.standard_normal((count, *s.shape)).astype(np.float32) for s in InputSpec.of(model)}


@pytest.fixture
def feeds() -> Callable[..., dict[str, Array]]:
    """`samples`."""
    return samples


@pytest.fixture
def quantise(tmp_path: Path) -> Callable[..., ir.Model]:
    """The int8 twin of a model by the product's pass, ranges from Gaussian inputs."""

    def make(model: ir.Model, activations: str = "uint8") -> ir.Model:
        arrays = samples(model)
        source = ArraySource(arrays, Preprocess(), InputSpec.of(model))
        data = Dataset("noise", source, tuple(range(8)))
        context = Context(teacher=model, scratch=tmp_path, data=data)
        return Quantize(method="minmax", activations=activations).run(model.clone(), context).model

    return make


def output_scale(model: ir.Model) -> float:
    """The scale of the first output's codes; 1 where it is float."""
    producer = model.graph.outputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return 1.0
    scale = producer.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    return float(scale.const_value.numpy())


@pytest.fixture
def in_codes() -> Callable[[ir.Model], float]:
    """`output_scale`."""
    return output_scale
