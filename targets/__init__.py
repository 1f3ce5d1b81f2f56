"""Device classes as data files, and the latency estimator.

    >>> from edgec.targets import target
    >>> target("rpi4").cores
    4

Everything is imported on first use: the schema needs pydantic, which `edgec --help` must not load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.targets.registry import (
        add_target,
        load_target_file,
        target,
        target_names,
        targets,
        usable_targets,
    )
    from edgec.targets.schema import System, Target

__all__ = [
    "System",
    "Target",
    "add_target",
    "load_target_file",
    "target",
    "target_names",
    "targets",
    "usable_targets",
]

_HOME = {
    "System": "edgec.targets.schema",
    "Target": "edgec.targets.schema",
    "add_target": "edgec.targets.registry",
    "load_target_file": "edgec.targets.registry",
    "target": "edgec.targets.registry",
    "target_names": "edgec.targets.registry",
    "targets": "edgec.targets.registry",
    "usable_targets": "edgec.targets.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgec.targets' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
