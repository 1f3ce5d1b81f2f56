"""Find, read, and validate target files: those that ship with edgec, and those that a person adds.

A person's own target files live in ``$XDG_CONFIG_HOME/edgec/targets`` (``~/.config/edgec/targets``); one may
say ``extends: rpi4`` and give only what differs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edgec.graph.disk import disk_errors, write_whole
from edgec.graph.errors import UsageError, did_you_mean
from edgec.targets.probe import host_fields
from edgec.targets.schema import System, Target

_SYSTEMS = "systems"


def target_names() -> list[str]:
    """Names of all targets: those that ship with edgec, then a person's own, each in alphabetical order."""
    shipped = sorted(
        p.name.removesuffix(".yaml")
        for p in resources.files("edgec.targets").iterdir()
        if p.name.endswith(".yaml") and p.name != f"{_SYSTEMS}.yaml"
    )
    folder = user_folder()
    own = sorted(p.stem for p in folder.glob("*.yaml")) if folder.is_dir() else []
    return shipped + [name for name in own if name not in shipped]


def target(name: str) -> Target:
    """The target called ``name``, or the one in the file ``name`` when it is a path ending in ``.yaml``.

    Raises :class:`UsageError` for an unknown name (with the nearest one) and for a file that is not a target.
    """
    if name.endswith((".yaml", ".yml")):
        return load_target_file(name)
    known = target_names()
    if name not in known:
        hint = f"{did_you_mean(name, known)} `edgec targets list` shows all: {', '.join(known)}."
        raise UsageError(f"unknown target {name!r}", hint=hint)
    return _build(_fields(name), where=_where(name))


def targets() -> list[Target]:
    """All targets, in the order of :func:`target_names`."""
    return [target(name) for name in target_names()]


def load_target_file(path: str | Path) -> Target:
    """Read and validate one target file. Raises :class:`UsageError` naming the file and the field."""
    path = Path(path)
    return _build(_resolve(_read(path), path.name, seen=()), where=str(path))


def add_target(path: str | Path) -> Target:
    """Validate a target file and copy it to a person's own targets. One that ships is refused."""
    found = load_target_file(path)
    if (resources.files("edgec.targets") / f"{found.name}.yaml").is_file():
        raise UsageError(
            f"target {found.name!r} ships with edgec", where=str(path), hint="Give yours another name."
        )
    copy = user_folder() / f"{found.name}.yaml"
    with disk_errors(copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_whole(copy, Path(path).read_bytes())
    return found


def user_folder() -> Path:
    """Where a person's own target files are."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "edgec" / "targets"


def systems() -> dict[str, System]:
    """Every known operating system image by name."""
    text = (resources.files("edgec.targets") / f"{_SYSTEMS}.yaml").read_text(encoding="utf-8")
    return {entry["name"]: System.model_validate(entry) for entry in yaml.safe_load(text)}


def _where(name: str) -> str:
    shipped = resources.files("edgec.targets") / f"{name}.yaml"
    return f"targets/{name}.yaml" if shipped.is_file() else str(user_folder() / f"{name}.yaml")


def _fields(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    shipped = resources.files("edgec.targets") / f"{name}.yaml"
    if shipped.is_file():
        fields = _mapping(shipped.read_text(encoding="utf-8"), f"targets/{name}.yaml")
    else:
        fields = _read(user_folder() / f"{name}.yaml")
    return _resolve(fields, name, seen)


def _resolve(fields: dict[str, Any], where: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Fill in what ``extends`` and the host probe give; ``sources`` are merged, other fields replaced."""
    if fields.get("name") == "host":
        fields = _over(host_fields(), fields)
    base = fields.pop("extends", None)
    if base is None:
        return fields
    if base in seen or base not in target_names():
        why = "it extends itself" if base in seen else "there is no such target"
        raise UsageError(
            f"extends {base!r}: {why}", where=where, hint=did_you_mean(str(base), target_names())
        )
    return _over(_fields(base, (*seen, base)), {"estimates_from": base} | fields)


def _over(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    sources = dict(base.get("sources", {})) | dict(fields.get("sources") or {})
    return base | fields | {"sources": sources}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the target file", where=str(path), why=str(error)) from error
    return _mapping(text, str(path))


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError("not a YAML file", where=where, why=" ".join(str(error).split())) from error
    if not isinstance(fields, dict):
        raise UsageError("not a target file", where=where, why="it must be a mapping of field: value")
    return fields


def _build(fields: dict[str, Any], where: str) -> Target:
    known = systems()
    entries = fields.get("systems") or []
    if not isinstance(entries, list):
        raise UsageError("invalid target", where=where, why="systems: must be a list of names")
    resolved: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and entry not in known:
            raise UsageError(
                "invalid target",
                where=where,
                why=f"systems: no system {entry!r}",
                hint=did_you_mean(entry, known),
            )
        resolved.append(known[entry] if isinstance(entry, str) else entry)
    try:
        return Target.model_validate(fields | {"systems": resolved})
    except ValidationError as error:
        raise UsageError("invalid target", where=where, why=_reasons(error.errors(), fields)) from error


def _reasons(errors: Iterable[Any], fields: dict[str, Any]) -> str:
    lines = []
    for error in errors:
        path = ".".join(str(step) for step in error["loc"]) or "target"
        text = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            text = f"unknown field. {did_you_mean(path.rsplit('.', 1)[-1], Target.model_fields)}"
        elif path in fields and error["type"] != "missing":
            text = f"{text} (got {fields[path]!r})"
        lines.append(f"{path}: {text}")
    return "; ".join(lines)
