"""One quantiser on one float network, as a process of its own: called by bench/int8_peers.py and bench/tensorrt.py.

usage: PYTHON int8_peer.py WHO FLOAT DATA.npz MADE [OPTION]

WHO's packages are imported here and nowhere else; of edgec's, only where WHO is edgec. FLOAT is ONNX, for ai-edge-quantizer
TFLite; DATA has the prepared samples by input. OPTION: edgec's passes, ModelOpt's way of calibrating (max, entropy).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def edgec(source: str, data: str, made: str, passes: str = "quantize{reduce-range=no}") -> None:
    """The pass, on codes for this machine, and both formats; no figure, no report."""
    import tempfile

    from edgec.compiler.emit import tflite
    from edgec.compiler.emit.onnx import emit
    from edgec.compiler.pipeline.run import run_pipeline
    from edgec.graph.data import open_data
    from edgec.graph.load import load
    from edgec.passes.base import Context
    from edgec.passes.pipeline_string import parse_pipeline
    from edgec.targets import target

    model = load(source)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(model, Path(folder), open_data(data, model), target("host"))
        found = run_pipeline(parse_pipeline(passes), model, context)[-1].model
    Path(made).write_bytes(emit(found))
    lite = tflite.emit(found, precision="int8", batch=1, io_layout="nhwc", io_type="int8")
    Path(made).with_suffix(".tflite").write_bytes(lite)


def onnxruntime(source: str, data: str, made: str) -> None:
    """Weights per channel, ranges of all values."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[dict[str, Any]] = iter(_rows(data))

        def get_next(self) -> dict[str, Any] | None:
            return next(self.rows, None)

    quantize_static(source, made, Reader(), per_channel=True, weight_type=QuantType.QInt8)


def nncf(source: str, data: str, made: str, **options: Any) -> None:
    """Its own defaults, or more."""
    import nncf
    import onnx

    rows = _rows(data)
    model = onnx.shape_inference.infer_shapes(onnx.load(source))  # it needs the shapes of all values
    onnx.save(nncf.quantize(model, nncf.Dataset(rows), subset_size=len(rows), **options), made)


def nncf_accurate(source: str, data: str, made: str) -> None:
    """The preset and the correction that its documentation calls the more accurate ones."""
    import nncf as package

    nncf(source, data, made, preset=package.QuantizationPreset.MIXED, fast_bias_correction=False)


def modelopt(source: str, data: str, made: str, method: str = "entropy") -> None:
    """Its defaults, but for the type of what is not int8: float32, so that quantisation alone is compared."""
    from modelopt.onnx.quantization import quantize

    quantize(
        source, quantize_mode="int8", calibration_data=dict(np.load(data)), calibration_method=method,
        calibration_eps=["cpu"], output_path=made, high_precision_dtype="fp32", log_level="ERROR",
    )  # fmt: skip


def ai_edge(source: str, data: str, made: str) -> None:
    """Its recipe of static int8."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    key = next(iter(Interpreter(source).get_signature_list()), "serving_default")
    one = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    one.quantize(one.calibrate({key: _rows(data)})).export_model(made, overwrite=True)


def _rows(data: str) -> Rows:
    arrays = dict(np.load(data))
    count = len(next(iter(arrays.values())))
    return [{name: array[index : index + 1] for name, array in arrays.items()} for index in range(count)]


WHO: dict[str, Callable[..., None]] = {
    one.__name__: one for one in (edgec, onnxruntime, nncf, nncf_accurate, modelopt, ai_edge)
}

if __name__ == "__main__":
    who, *files = sys.argv[1:]
    WHO[who](*files)
