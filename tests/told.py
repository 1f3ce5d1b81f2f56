"""Progress that remembers what it was told."""

from __future__ import annotations

from edgec.passes.base import Progress


class Told(Progress):
    """Every step, in order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def step(self, label: str, done: int, total: int) -> None:
        self.steps.append((label, done, total))

    def totals(self) -> dict[str, set[int]]:
        """The totals of each label, in the order of their first steps."""
        found: dict[str, set[int]] = {}
        for label, _, total in self.steps:
            found.setdefault(label, set()).add(total)
        return found

    def check(self) -> None:
        """Every label begins at 0, never falls before it is at its total, and ends there; then it may begin again."""
        now: dict[str, tuple[int, int]] = {}
        for label, done, total in self.steps:
            assert 0 <= done <= total, (label, done, total)
            before = now.get(label, (0, 0))
            if before[0] == before[1]:
                before = (0, total)
                assert done == 0 or done == total, (label, done, total)
            assert done >= before[0], (label, before, done)
            now[label] = done, total
        assert now, "nothing was told"
        assert {label: one for label, one in now.items() if one[0] != one[1]} == {}
