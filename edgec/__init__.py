"""edgec: compile a trained convolutional network for small machines.

The public face. Everything is imported on first use, so that `import edgec` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgec.graph.version import __version__

if TYPE_CHECKING:
    from edgec.compiler.api import bench, compile  # noqa: A004  (the verb of the product)
    from edgec.compiler.plan.recipe import Recipe
    from edgec.graph.foreign import load
    from edgec.targets import Target

__all__ = ["Recipe", "Target", "__version__", "bench", "compile", "load"]

_HOME = {
    "bench": "edgec.compiler.api",
    "compile": "edgec.compiler.api",
    "load": "edgec.graph.foreign",
    "Recipe": "edgec.compiler.plan.recipe",
    "Target": "edgec.targets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgec' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
