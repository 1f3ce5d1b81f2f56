"""Versions of what can change an artifact's bytes."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Versions of what can change an artifact's bytes."""
    found = {"python": platform.python_version()}
    for package in (
        "numpy",
        "scipy",
        "onnx",
        "onnx-ir",
        "onnxscript",
        "onnxruntime",
        "onnxsim",
        "flatbuffers",
        "torch",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
