"""Where the constants of a graph live in a torch module: `layer1.0.conv1.weight` is that parameter of nested modules.

Initialisers keep the names that exporters gave them, so a state dict reads like that of the module they came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

RESERVED = frozenset(dir(torch.nn.Module()))


def homes(names: Iterable[str]) -> dict[str, str]:
    """A dotted path for every name, each its own; none is a folder of another, none hides what a module has itself."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    folders: set[str] = set()
    for name in names:
        path = ".".join(_word(part) for part in name.split("."))
        if _above(path) & taken or path in folders:
            path = path.replace(".", "_")
        while path in taken or path in folders:
            path += "_"
        taken.add(path)
        folders |= _above(path)
        found[name] = path
    return found


def _word(part: str) -> str:
    word = re.sub(r"\W", "_", part, flags=re.ASCII) or "_"
    return f"{word}_" if word in RESERVED else word


def _above(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def place(root: torch.nn.Module, path: str, tensor: torch.Tensor, *, learned: bool) -> None:
    """Put ``tensor`` there, as a parameter where it is learned, else as a buffer."""
    *folders, last = path.split(".")
    for part in folders:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = root.get_submodule(part)
    if learned:
        root.register_parameter(last, torch.nn.Parameter(tensor))
    else:
        root.register_buffer(last, tensor)
