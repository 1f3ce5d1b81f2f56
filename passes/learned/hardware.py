"""What there is to compute with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from edgec.graph.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]
Module = TypeVar("Module", bound=torch.nn.Module)


def device_of(choice: str, what: str) -> torch.device:
    """``auto``: a GPU where torch sees one. Raises UsageError, naming ``what`` asked, for one that is named and is not there."""
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        hint = "Take device=cpu, or install a torch that is built for CUDA."
        raise UsageError(f"{what}: device=cuda, and torch sees no GPU", hint=hint)
    return torch.device("cuda" if there and choice != "cpu" else "cpu")


def placed(module: Module, device: torch.device) -> Module:
    """``module`` on ``device``, in place; its filters lie as its inputs do (`tensors`)."""
    module.to(device)
    for one in (*module.parameters(), *module.buffers()):
        one.data = _pixel_by_pixel(one.data)
    return module


def tensors(feeds: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """``feeds`` on ``device``."""
    return {name: _pixel_by_pixel(torch.from_numpy(array).to(device)) for name, array in feeds.items()}


def _pixel_by_pixel(tensor: Tensor) -> Tensor:
    """With the channels of a pixel side by side in memory, where there are pixels.

    Convolutions with odd numbers of channels, and their gradients above all, took 0.6 to 0.7 of the time so on a CPU.
    """
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
