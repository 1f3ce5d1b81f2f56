"""What an engine is to the rest of the agent."""

from __future__ import annotations

import abc
import json
import math
from typing import Any, Dict, Sequence, Tuple

from .base import AgentError, Json

CODES_KEY = "edgec.codes"
"""Of an ONNX file's properties: [scale, zero point] of each input and output that is integer codes, as JSON by name."""
TENSORRT = "tensorrt"
"""NVIDIA's own: engines that are built on the board (`trt_engines`), measured by trtexec (`trt_bench`)."""


def codes_said(text: str) -> Dict[str, Tuple[float, int]]:
    """What `CODES_KEY` says; a file from elsewhere may say anything there: what is no such word counts as nothing."""
    try:
        found = {name: (float(scale), int(zero)) for name, (scale, zero) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}
    return {name: pair for name, pair in found.items() if 0 < pair[0] < math.inf}


class Engine(abc.ABC):
    """One model in one engine. ``inputs`` holds (name, shape, numpy dtype) of each input; batch is 1.

    ``quantised`` has (scale, zero point) of those inputs and outputs that are integer codes.
    """

    name = ""
    version = ""
    delegate = ""
    notices: list[str]
    inputs: list[tuple[str, tuple[int, ...], Any]]
    quantised: dict[str, tuple[float, int]]

    @abc.abstractmethod
    def feed(self, feeds: Json) -> None:
        """Set the inputs, arrays of exactly the declared shapes and types."""

    @abc.abstractmethod
    def invoke(self) -> None:
        """One inference: what is timed."""

    @abc.abstractmethod
    def outputs(self) -> Json:
        """Arrays of the last inference by output name."""


def concrete_shape(name: str, declared: Sequence[Any], shapes: Json) -> tuple[int, ...]:
    """A declared shape, batch 1; other free axes must be given (``--shape name=1x3x320x240``)."""
    if name in shapes:
        return tuple(shapes[name])
    shape = [1 if axis == 0 and not isinstance(n, int) else n for axis, n in enumerate(declared)]
    if any(not isinstance(n, int) for n in shape):
        raise AgentError("usage", f"input {name!r} has free axes {list(declared)}: give --shape {name}=...")
    return tuple(shape)
