"""edgec: compile a trained convolutional network for small machines.

The public face. Everything is imported on first use, so that `import edgec` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgec.graph.version import __version__

if TYPE_CHECKING:
    from edgec.compiler.api import bench, compile  # noqa: A004  (the verb of the product)
    from edgec.compiler.face.report import Report
    from edgec.compiler.read.recipe import Recipe
    from edgec.graph.data import Dataset
    from edgec.graph.errors import (
        DataError,
        DeviceError,
        EdgecError,
        ModelError,
        PassError,
        UnsupportedError,
        UsageError,
        WrongTypeError,
    )
    from edgec.graph.foreign import load
    from edgec.targets import Target

__all__ = [
    "DataError",
    "Dataset",
    "DeviceError",
    "EdgecError",
    "ModelError",
    "PassError",
    "Recipe",
    "Report",
    "Target",
    "UnsupportedError",
    "UsageError",
    "WrongTypeError",
    "__version__",
    "bench",
    "compile",
    "load",
]

_HOME = {
    "bench": "edgec.compiler.api",
    "compile": "edgec.compiler.api",
    "load": "edgec.graph.foreign",
    "Dataset": "edgec.graph.data",
    "Recipe": "edgec.compiler.read.recipe",
    "Report": "edgec.compiler.face.report",
    "Target": "edgec.targets",
    "DataError": "edgec.graph.errors",
    "DeviceError": "edgec.graph.errors",
    "EdgecError": "edgec.graph.errors",
    "ModelError": "edgec.graph.errors",
    "PassError": "edgec.graph.errors",
    "UnsupportedError": "edgec.graph.errors",
    "UsageError": "edgec.graph.errors",
    "WrongTypeError": "edgec.graph.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgec' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
