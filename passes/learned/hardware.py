"""What there is to compute with."""

from __future__ import annotations

from pathlib import Path

import torch

from edgec.graph.errors import UsageError

BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Of x86 processors that multiply bfloat16 faster than float32; without them torch emulates it, slower."""


def device_of(choice: str, what: str) -> torch.device:
    """``auto``: a GPU where torch sees one. Raises UsageError, naming ``what`` asked, for one that is named and is not there."""
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        hint = "Take device=cpu, or install a torch that is built for CUDA."
        raise UsageError(f"{what}: device=cuda, and torch sees no GPU", hint=hint)
    return torch.device("cuda" if there and choice != "cpu" else "cpu")


def gains_by_bf16(device: torch.device) -> bool:
    """On a CPU that has instructions for it."""
    if device.type != "cpu":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in text.split() for flag in BF16_FLAGS)
