"""The house rules that a machine can check: no import upward, no circle, every package listed, nothing of this machine named."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"graph": 0, "targets": 1, "passes": 2, "runtime": 2, "deploy": 3, "compiler": 3, "edgec": 4}


def sources() -> list[tuple[str, Path]]:
    return [(floor, path) for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


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
        assert FLOORS[other] < FLOORS[floor], f"{path.relative_to(ROOT)} ({floor}) imports {other}"


def test_every_package_is_listed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = set()
    for floor in FLOORS:
        for init in (ROOT / floor).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "edgec" else ("edgec", *parts)))
    data_only = {
        name for name in listed - found if not (ROOT / Path(*name.split(".")[1:]) / "__init__.py").exists()
    }
    assert found | data_only == listed
