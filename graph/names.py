"""Names that nothing has yet."""

from __future__ import annotations


def free_name(stem: str, taken: set[str]) -> str:
    """``stem``, or ``stem_2``, ``stem_3``... where that is in ``taken``, which holds the new name from now on."""
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name
