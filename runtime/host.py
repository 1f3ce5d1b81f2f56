"""What this host is, for reports."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe_host() -> dict[str, Any]:
    """Processor, cores, memory, and operating system of this machine."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "os": platform.platform(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor()
