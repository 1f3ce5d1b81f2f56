"""What other distributions bring: passes, targets, channel rules and metrics, found by their entry points (docs/plugins.md).

A plug-in is imported when its name is used, and not before: what is broken in one ends in one message that names its
distribution, and commands that do not use it never notice. Edgec's own names always mean edgec's own; two distributions
that bring the same name must not both be installed where that name is used.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgec.graph.errors import EdgecError, PassError, UsageError

PASSES, TARGETS = "edgec.passes", "edgec.targets"
CHANNEL_RULES, METRICS = "edgec.channel_rules", "edgec.metrics"
KINDS = {PASSES: "pass", TARGETS: "target", CHANNEL_RULES: "channel rule", METRICS: "metric"}
"""Every group of entry points, and what it holds in words."""

_COMPILED = (".pyc", ".pyo")


@dataclass(frozen=True)
class Plugin:
    """One entry point: ``name`` of ``group``, brought by ``distribution``."""

    group: str
    name: str
    distribution: str
    version: str
    entry: metadata.EntryPoint

    def __str__(self) -> str:
        return f"plug-in {self.distribution} {self.version}"

    def load(self, fault: Callable[[Plugin, Any], str | None]) -> Any:
        """Import it; ``fault`` says why what was found cannot be taken, None where it can.

        Raises UsageError, naming the distribution, whatever its code does.
        """
        try:
            found = self.entry.load()
        except (Exception, SystemExit) as error:
            raise self.unusable(f"{self.entry.value}: {type(error).__name__}: {error}") from error
        why = fault(self, found)
        if why is not None:
            raise self.unusable(why)
        return found

    def unusable(self, why: str) -> UsageError:
        """The error that says why this plug-in cannot be taken."""
        hint = f"Mend {self.distribution}, or remove it: pip uninstall {self.distribution}"
        return UsageError(
            f"its {KINDS[self.group]} {self.name!r} cannot be used", where=str(self), why=why, hint=hint
        )

    def failed(self, error: BaseException) -> PassError:
        """The error for what its code raised while it worked."""
        return PassError(
            f"its {KINDS[self.group]} {self.name!r} failed",
            where=str(self),
            why=f"{type(error).__name__}: {error}",
            hint=f"This is a defect of {self.distribution}.",
        )


@contextmanager
def blamed(
    brought: Plugin | None, let: tuple[type[Exception], ...] = (OSError, MemoryError)
) -> Iterator[None]:
    """Around code that ``brought`` may have brought: what it raises names the plug-in; edgec's errors and ``let`` go through.

    What edgec's own code (None) raises goes on as it is.
    """
    try:
        yield
    except Exception as error:  # a plug-in's code raises what it likes
        if brought is None or isinstance(error, (EdgecError, *let)):
            raise
        raise brought.failed(error) from error


def plugins(group: str) -> tuple[Plugin, ...]:
    """Every entry point of ``group``, sorted by name; nothing is imported."""
    return _plugins(group, tuple(sys.path))


def plugin(group: str, name: str) -> Plugin | None:
    """The one that brings ``name``, or None. Raises UsageError where several distributions do."""
    found = [one for one in plugins(group) if one.name == name]
    if len(found) > 1:
        both = " and ".join(f"{one.distribution} {one.version}" for one in found)
        raise UsageError(
            f"the {KINDS[group]} {name!r} is brought by two plug-ins",
            why=both,
            hint=f"Remove one of them: pip uninstall {found[-1].distribution}",
        )
    return found[0] if found else None


@lru_cache(maxsize=16)
def _plugins(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    found = [
        Plugin(group, entry.name, _name(entry.dist), _version(entry.dist), entry)
        for entry in metadata.entry_points(group=group)
    ]
    return tuple(sorted(found, key=lambda one: (one.name, one.distribution)))


def _name(distribution: metadata.Distribution | None) -> str:
    return "unknown" if distribution is None else str(distribution.metadata["Name"])


def _version(distribution: metadata.Distribution | None) -> str:
    return "" if distribution is None else str(distribution.version)


def fingerprint(one: Plugin) -> str:
    """sha256 over the distribution's version and files; of an editable install also the source that it points to."""
    digest = hashlib.sha256(f"{one.distribution} {one.version} {one.entry.value}".encode())
    for path in sorted(set(_files(one))):
        digest.update(str(path).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(one: Plugin) -> Iterator[Path]:
    distribution = one.entry.dist
    modules = {one.entry.module.partition(".")[0]}
    if distribution is not None:
        modules |= set((distribution.read_text("top_level.txt") or "").split())
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if path.suffix not in _COMPILED and path.name != "RECORD" and path.is_file():
                yield path.resolve()
    for module in modules:
        yield from _sources(module)


def _sources(module: str) -> Iterator[Path]:
    """Source files of a top-level module or package, found without importing it."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        yield from (path.resolve() for path in Path(folder).rglob("*.py"))
    if spec.origin is not None and Path(spec.origin).is_file():
        yield Path(spec.origin).resolve()
