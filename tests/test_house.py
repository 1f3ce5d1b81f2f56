"""The house rules that a machine can check: no import upward, every floor in the package, nothing of this machine named."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "edgec"
FLOORS = {"graph": 0, "targets": 1, "passes": 2, "runtime": 2, "deploy": 3, "compiler": 3}
FACE = 4
"""The floor of what lies in `edgec/` itself."""


def sources() -> list[tuple[str, Path]]:
    floors = [(floor, path) for floor in FLOORS for path in sorted((PACKAGE / floor).rglob("*.py"))]
    return [*floors, *(("edgec", path) for path in sorted(PACKAGE.glob("*.py")))]


def imported(path: Path) -> set[str]:
    """Floors of edgec that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("edgec.") and name.count(".")}
    return found & set(FLOORS)


@pytest.mark.parametrize(
    ("floor", "path"), sources(), ids=lambda value: str(value) if isinstance(value, str) else value.name
)
def test_imports_go_down(floor: str, path: Path) -> None:
    for other in imported(path) - {floor}:
        assert FLOORS[other] < FLOORS.get(floor, FACE), f"{path} ({floor}) imports {other}"


def test_every_floor_is_in_the_package() -> None:
    """A checkout without links (Windows without symlink support) holds small text files in their place."""
    for floor in FLOORS:
        assert (PACKAGE / floor / "__init__.py").is_file(), f"edgec/{floor} is no link to {floor}/"
