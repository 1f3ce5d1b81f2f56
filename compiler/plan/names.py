"""What artifacts are called, and the engine that each format is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.targets.engines import engines_for

if TYPE_CHECKING:
    from edgec.targets import Target

NAMES = {
    ("onnx", "fp32"): "model.onnx",
    ("onnx", "fp16"): "model.fp16.onnx",
    ("onnx", "int8"): "model.int8.onnx",
    ("tflite", "fp32"): "model.tflite",
    ("tflite", "fp16"): "model.fp16.tflite",
    ("tflite", "int8"): "model.int8.tflite",
}
"""File name by format and precision."""
RUNTIMES = {form: engines_for(form)[0].package for form in ("onnx", "tflite")}
"""The engine that an artifact's latency is estimated for."""


def own_format(target: Target) -> str:
    """Format of the artifact that the target's own engine runs."""
    return "onnx" if target.default_engine == "onnxruntime" else "tflite"
