"""The inference engines that artifacts are for, and the precisions: one table of their names.

``package`` is the name on PyPI and in target files, ``agent`` what the program on the device calls it (it has its own list of
kernels and delegates, and imports nothing of edgec), ``module`` what Python imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
"""What an artifact's weights are stored in."""


@dataclass(frozen=True)
class EngineName:
    """One engine under its three names, and the format that it runs."""

    package: str
    agent: str
    module: str
    format: str

    @property
    def installed(self) -> bool:
        """Whether this Python can import it."""
        return find_spec(self.module) is not None


ENGINES = (
    EngineName("onnxruntime", "onnxruntime", "onnxruntime", "onnx"),
    EngineName("ai-edge-litert", "litert", "ai_edge_litert", "tflite"),
    EngineName("tflite-runtime", "tflite-runtime", "tflite_runtime", "tflite"),
)
"""Of each format the preferred one first."""


def engines_for(file_format: str) -> tuple[EngineName, ...]:
    """The engines that run ``onnx`` or ``tflite`` files, the preferred one first."""
    return tuple(one for one in ENGINES if one.format == file_format)


def agent_name(package: str) -> str | None:
    """What the agent calls the engine of that package; None where it has none."""
    return next((one.agent for one in ENGINES if one.package == package), None)
