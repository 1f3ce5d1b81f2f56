"""torch is an extra: who needs it asks here, and hears how to get it."""

from __future__ import annotations

from importlib.util import find_spec

from edgec.graph.errors import UsageError


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    return find_spec("torch") is not None


def require_torch(what: str) -> None:
    """Raise UsageError, naming ``what`` needs it, where torch is absent."""
    if not has_torch():
        raise UsageError(f"{what} needs torch", hint="pip install 'edgec[torch]'")
