"""How much memory this process can still get, and what it gives back."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from pathlib import Path

_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of the control group that a container runs in: its folder, its limit and use, and what of the use are copies of files that
nobody needs, as versions 2 and 1 of the interface name them."""
_ENDLESS = 1 << 62
WORTH_GIVING = 64 << 20
"""Freed bytes."""


def free_memory() -> int:
    """Bytes: what the system has free without swapping, or less where a control group says so."""
    return min(_free_of_system(), *(_free_of_group(*files) for files in _GROUPS))


def give_back(freed: float = math.inf) -> None:
    """Hand pages that were freed to the system, where they are many: a few are soon asked for again, and new ones cost more than
    old ones. glibc does so by itself only above the last piece that is in use; other libraries have no such call."""
    if freed >= WORTH_GIVING and sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _free_of_system() -> int:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    if match is not None:
        return int(match[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS does not tell what is free


def _free_of_group(folder: str, limit: str, use: str, unneeded: str) -> int:
    most, used = _text(f"{folder}/{limit}").strip(), _text(f"{folder}/{use}").strip()
    if not most.isdigit() or not used.isdigit():
        return _ENDLESS
    cached = re.search(rf"^{unneeded} (\d+)$", _text(f"{folder}/memory.stat"), re.MULTILINE)
    return max(0, int(most) - int(used) + (int(cached[1]) if cached is not None else 0))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
