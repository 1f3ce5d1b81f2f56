"""The house rules that a machine can check: no import upward, every floor in the package, nothing of this machine named."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "edgec"
FLOORS = {"graph": 0, "targets": 1, "passes": 2, "runtime": 2, "deploy": 3, "compiler": 3}
FACE = 4
"""The floor of what lies in `edgec/` itself."""


def sources() -> list[tuple[str, Path]]:
    floors = [(floor, path) for floor in FLOORS for path in sorted((PACKAGE / floor).rglob("*.py"))]
    return [*floors, *(("edgec", path) for path in sorted(PACKAGE.glob("*.py")))]


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(path: Path) -> set[str]:
    """Floors of edgec that a file imports, wherever in it."""
    found = set()
    for node in nodes_of(path):
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


def module_of(path: Path) -> str:
    if not path.is_relative_to(PACKAGE):
        return path.stem
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for _, path in sources()}


def imports_of(path: Path) -> set[str]:
    """Modules of edgec that a file imports, wherever in it, for types too."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            above = module_of(path).split(".")
            above = above if path.name == "__init__.py" else above[:-1]
            base = above[: len(above) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            inside = {f"{whole}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES.keys()) or {whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {module_of(path)}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


def test_no_file_leads_back_to_itself() -> None:
    assert circles({name: imports_of(path) for name, path in MODULES.items()}) == []


def test_the_search_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


COMPILER_ROOMS = [
    "tasks",
    "read",
    "plan",
    "pipeline",
    "emit",
    "check",
    "latency",
    "face",
    "evaluate",
    "search",
]
"""The street of `compile_recipe`: a room imports only from rooms before it."""


@pytest.mark.parametrize("room", COMPILER_ROOMS)
def test_the_street_runs_one_way(room: str) -> None:
    later = {f"edgec.compiler.{one}." for one in COMPILER_ROOMS[COMPILER_ROOMS.index(room) + 1 :]}
    for path in sorted((PACKAGE / "compiler" / room).rglob("*.py")):
        for other in imports_of(path):
            assert not any(f"{other}.".startswith(one) for one in later), f"{path} imports {other}"


ROOMS = sorted({path.parent for path in MODULES.values()})


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE.parent)))
def test_each_room_says_what_it_is_for(room: Path) -> None:
    if room.parts[-2:] == ("deploy", "bundle"):
        return  # files of the bundle: they are copied to a device, not imported
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert len(said or "") >= 30, f"{room}/__init__.py does not say what the room is for"


def test_no_file_is_imported_by_nothing() -> None:
    """Imported, or named whole in a string (tables of lazily imported modules); what only a bench uses lies in `bench/`."""
    roots = {name for name, path in MODULES.items() if path.name in ("__init__.py", "__main__.py")}
    used = set(roots)
    for path in (*MODULES.values(), *(PACKAGE.parent / "bench").glob("*.py")):
        used |= imports_of(path)
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "edgec." in node.value:
                used |= MODULES.keys() & set(re.split(r"[\s:;]+", node.value))
    bundled = {name for name in MODULES if name.startswith("edgec.deploy.bundle.")}
    assert sorted(MODULES.keys() - used - bundled) == []


LONGEST = 400
"""Lines of a file: beyond them it does more than one thing."""


def test_no_file_is_too_long() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}
