"""How much memory this process can still get."""

from __future__ import annotations

import os
import re
from pathlib import Path

_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Limit and use of the control group that a container runs in, as versions 2 and 1 of the interface name them."""
_ENDLESS = 1 << 62


def free_memory() -> int:
    """Bytes: what the system has free without swapping, or less where a control group says so."""
    return min(_free_of_system(), *(_free_of_group(*files) for files in _GROUPS))


def _free_of_system() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    if match is not None:
        return int(match[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS does not tell what is free


def _free_of_group(limit: str, use: str) -> int:
    most, used = _text(limit).strip(), _text(use).strip()
    return max(0, int(most) - int(used)) if most.isdigit() and used.isdigit() else _ENDLESS


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
