"""What this host is, for reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgec.runtime.agent.machine import Machine
from edgec.runtime.agent.probe import board, clusters, features

_PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "ai-edge-litert",
    "tflite-runtime",
    "torch",
    "scipy",
)


def describe_host() -> dict[str, Any]:
    """Processor, instruction sets that pick kernels, cores, memory, system, and versions that shape numbers."""
    machine = Machine()
    cpuinfo = machine.read("/proc/cpuinfo")
    kinds = clusters(machine, cpuinfo)
    isa = features(cpuinfo)
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": " + ".join(kind["core"] for kind in kinds) or platform.processor(),
        "cores": os.cpu_count(),
        "isa": isa,
        "board": board(machine),
        "memory_mb": _memory_mb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    if platform.machine() in ("x86_64", "AMD64"):
        facts["vnni"] = any("vnni" in flag for flag in isa)
    return {key: value for key, value in facts.items() if value is not None}


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
