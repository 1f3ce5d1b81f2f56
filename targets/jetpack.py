"""JetPack releases: which TensorRT a Jetson has, and what that TensorRT reads. It cannot be upgraded alone before JetPack 7.

Sources: NVIDIA's JetPack release notes and TensorRT support matrix; opsets: onnx/onnx-tensorrt ``docs/operators.md``, by branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.graph.errors import UsageError, did_you_mean

NO_DLA = "the DLA takes implicit quantisation (a calibration cache) only, Orin Nano has none, TensorRT lost it after 10.7"
"""Why edgec makes nothing for the deep learning accelerators of Xavier and AGX Orin."""


TIMED_ON_THE_BOARD = "TensorRT chooses its kernels on the board"
"""Why no latency of a file for it can be known before."""


def measured_by(file: str) -> str:
    """The command that builds an engine of ``file`` on the board and times it there."""
    return f"edgec bench {file} --device ssh://USER@BOARD --engine tensorrt"


@dataclass(frozen=True)
class JetPack:
    """One release."""

    name: str
    tensorrt: tuple[int, int]
    """Major and minor version of its TensorRT."""
    opset: int
    """The newest opset that files for it use: 13, 17 or 20, each read by every later TensorRT too."""

    @property
    def strongly_typed(self) -> bool:
        """Types are taken from the file alone: there are no flags for fp16 and int8 any more."""
        return self.tensorrt >= (11, 0)

    @property
    def gates_depthwise(self) -> bool:
        """A depthwise convolution with a SiLU between DQ and Q builds (NVIDIA/TensorRT issues 3385 and 4060)."""
        return self.tensorrt >= (10, 0)

    @property
    def version(self) -> str:
        """``10.3``."""
        return ".".join(map(str, self.tensorrt))

    def __str__(self) -> str:
        return f"JetPack {self.name} (TensorRT {self.version})"


JETPACKS: Mapping[str, JetPack] = {
    one.name: one
    for one in (
        JetPack("4.6", (8, 2), 13),
        JetPack("5.0", (8, 4), 13),
        JetPack("5.1", (8, 5), 17),
        JetPack("6.0", (8, 6), 17),
        JetPack("6.1", (10, 3), 20),
        JetPack("6.2", (10, 3), 20),
        JetPack("7.0", (10, 13), 20),
        JetPack("7.1", (10, 13), 20),
        JetPack("7.2", (11, 4), 20),
    )
}
"""4.6 is 4.6.1 and later (4.6 itself has 8.0); 7.2 is 7.2.2 and later."""


def jetpack(name: str) -> JetPack:
    """The release called ``name``, patch numbers left out or not. Raises UsageError for one that is not known."""
    short = ".".join(name.split(".")[:2])
    if short not in JETPACKS:
        hint = f"{did_you_mean(name, list(JETPACKS))} Known are {', '.join(JETPACKS)}.".strip()
        raise UsageError(f"unknown JetPack {name!r}", where="--jetpack", hint=hint)
    return JETPACKS[short]
