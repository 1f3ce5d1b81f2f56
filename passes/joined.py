"""Names in sets: what is joined lies in one, and so does what its members are joined with."""

from __future__ import annotations

from collections.abc import Iterable


class Joined:
    """Disjoint sets of names (union-find), all in the order in which they were added."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._above: dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """A set of one; nothing where it is known."""
        self._above.setdefault(name, name)

    def root(self, name: str) -> str:
        """The member that stands for the set of ``name``."""
        while self._above[name] != name:
            self._above[name] = self._above[self._above[name]]
            name = self._above[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Make the sets of both one; the root of the first stands for it."""
        self._above[self.root(second)] = self.root(first)

    def sets(self) -> dict[str, list[str]]:
        """Root -> members."""
        found: dict[str, list[str]] = {}
        for name in self._above:
            found.setdefault(self.root(name), []).append(name)
        return found
