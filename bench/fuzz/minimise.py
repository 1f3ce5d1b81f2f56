"""The smallest input with the same finding: parts of the changed file are taken away as long as the case stays what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

Ask = Callable[[dict[str, Any]], dict[str, Any]]
PATIENCE = 400
"""Trials at most."""


def run(finding: Path, ask: Ask) -> int:
    """Shrink the files of a finding in a copy beside it, and print what is left."""
    outcome = json.loads((finding / "outcome.json").read_text(encoding="utf-8"))
    work = finding.with_name(finding.name + "-small")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(finding, work, symlinks=True)
    trials = [0]

    def same() -> bool:
        trials[0] += 1
        request = {
            "kind": outcome["kind"],
            "number": outcome["number"],
            "replay": str(work),
            "argv": outcome["argv"],
        }
        again = ask({**request, "quiet": True, "inside": True})
        return trials[0] < PATIENCE and (again["verdict"], again["where"]) == (
            outcome["verdict"],
            outcome["where"],
        )

    if not same():
        print("the finding does not come again from its folder")
        return 1
    for path in sorted(p for p in (work / "case").rglob("*") if not p.is_dir() and not p.is_symlink()):
        _shrink(path, same)
    print(f"{work} after {trials[0]} trials: edgec {' '.join(outcome['argv'])}")
    for path in sorted((work / "case").rglob("*")):
        if path.is_file() and not path.is_symlink():
            print(f"  {path.relative_to(work / 'case')}: {path.stat().st_size} bytes")
            if path.suffix == ".onnx":
                _print_model(path)
    return 0


def _print_model(path: Path) -> None:
    try:
        print(onnx.load_model_from_string(path.read_bytes()))
    except DecodeError as error:
        print(f"  no model: {error}")


def _shrink(path: Path, same: Callable[[], bool]) -> None:
    before = path.read_bytes()
    path.unlink()
    if same():
        return
    path.write_bytes(before)
    if path.suffix == ".onnx":
        _shrink_model(path, same)
    elif path.suffix in (".yaml", ".csv", ".json", ""):
        _shrink_bytes(path, same, lines=True)
    _shrink_bytes(path, same, lines=False)


def _shrink_model(path: Path, same: Callable[[], bool]) -> None:
    """Take away entries of repeated fields, then whole fields."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError:
        return  # no model: its bytes are shrunk
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(model):
            path.write_bytes(smaller.SerializeToString())
            if same():
                model, progress = smaller, True
                break
    path.write_bytes(model.SerializeToString())


def _smaller(model: ModelProto) -> Iterator[ModelProto]:
    """Copies with one thing less, the largest things first."""
    for steps in _steps(model, ()):
        copy = ModelProto()
        copy.CopyFrom(model)
        *way, (name, index) = steps
        place: Any = copy
        for field, at in way:
            place = getattr(place, field) if at is None else getattr(place, field)[at]
        if index is None:
            place.ClearField(name)
        else:
            del getattr(place, name)[index]
        yield copy


def _steps(
    message: Any, way: tuple[tuple[str, int | None], ...]
) -> Iterator[tuple[tuple[str, int | None], ...]]:
    inner: list[tuple[Any, tuple[tuple[str, int | None], ...]]] = []
    for field, value in message.ListFields():
        many = isinstance(value, (list, tuple)) or type(value).__name__.startswith("Repeated")
        if many:
            for index in reversed(range(len(value))):
                yield (*way, (field.name, index))
                if hasattr(value[index], "ListFields"):
                    inner.append((value[index], (*way, (field.name, index))))
        else:
            yield (*way, (field.name, None))
            if hasattr(value, "ListFields"):
                inner.append((value, (*way, (field.name, None))))
    for one, deeper in inner:
        yield from _steps(one, deeper)


def _shrink_bytes(path: Path, same: Callable[[], bool], *, lines: bool) -> None:
    """Halves, quarters, eighths away."""
    data = path.read_bytes()
    parts = data.splitlines(keepends=True) if lines else [data[i : i + 1] for i in range(len(data))]
    size = len(parts) // 2
    while size:
        at = 0
        while at < len(parts):
            rest = parts[:at] + parts[at + size :]
            path.write_bytes(b"".join(rest))
            if same():
                parts = rest
            else:
                at += size
        size //= 2
        if not lines and size < 4:
            break
    path.write_bytes(b"".join(parts))
