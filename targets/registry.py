"""Find, read, and validate target files: those that ship with edgec, those of plug-ins, and those that a person adds.

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

from edgec.graph import plugins
from edgec.graph.disk import disk_errors, write_whole
from edgec.graph.errors import UsageError, did_you_mean
from edgec.graph.files import read_text, reason
from edgec.graph.text import shortened
from edgec.graph.yaml_file import MOST_BYTES, parse_yaml
from edgec.targets.jetpack import NO_DLA
from edgec.targets.probe import host_fields
from edgec.targets.schema import System, Target

_SYSTEMS = "systems"
_OLD_DIALECTS = {"uint8": "ort-x86", "int8": "ort-arm"}
_LONGEST_CHAIN = 20
"""Of targets that extend one another."""


def target_names() -> list[str]:
    """Names of all targets: those that ship with edgec, of plug-ins, then a person's own, each in alphabetical order.

    A person's own are the names of files; whether they can be read is said where one is asked for. Raises UsageError where the
    folder cannot be listed.
    """
    brought = [one.name for one in plugins.plugins(plugins.TARGETS)]
    own = sorted(name.removesuffix(".yaml") for name in _own_files())
    return list(dict.fromkeys([*shipped_names(), *brought, *own]))


def shipped_names() -> list[str]:
    """Names of the targets that come with edgec, in alphabetical order."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in resources.files("edgec.targets").iterdir()
        if p.name.endswith(".yaml") and p.name != f"{_SYSTEMS}.yaml"
    )


def _own_files() -> list[str]:
    folder = user_folder()
    try:
        return [name for name in os.listdir(folder) if name.endswith(".yaml") and not name.startswith(".")]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError("your own targets cannot be listed", where=str(folder), why=reason(error)) from error


def target(name: str) -> Target:
    """The target called ``name``, or the one in the file ``name`` when it is a path ending in ``.yaml``.

    Raises :class:`UsageError` for an unknown name (with the nearest one) and for a file that is not a target.
    """
    if name.endswith((".yaml", ".yml")):
        return load_target_file(name)
    known = target_names()
    if name.endswith("-dla") and name not in known:
        hint = f"Take its GPU: {name.removesuffix('-dla')}."
        raise UsageError(f"edgec makes nothing for a DLA ({name})", why=NO_DLA, hint=hint)
    if name not in known:
        hint = f"{did_you_mean(name, known)} `edgec targets list` shows all: {', '.join(known)}."
        raise UsageError(f"unknown target {name!r}", hint=hint)
    return _build(_fields(name), where=_where(name))


def targets() -> list[Target]:
    """All targets, in the order of :func:`target_names`. Raises UsageError for the first that cannot be used."""
    return [target(name) for name in target_names()]


def usable_targets() -> tuple[list[Target], list[UsageError]]:
    """All targets that can be used, and for each other one what is wrong with its file, which the error names."""
    found: list[Target] = []
    refused: list[UsageError] = []
    for name in target_names():
        try:
            found.append(target(name))
        except UsageError as error:
            refused.append(error)
    return found, refused


def load_target_file(path: str | Path) -> Target:
    """Read and validate one target file. Raises :class:`UsageError` naming the file and the field."""
    return _from_text(_read(path), path)


def add_target(path: str | Path) -> Target:
    """Validate a target file and copy it to a person's own targets. One that ships is refused."""
    text = _read(path)
    found = _from_text(text, path)
    if (resources.files("edgec.targets") / f"{found.name}.yaml").is_file():
        raise UsageError(
            f"target {found.name!r} ships with edgec", where=str(path), hint="Give yours another name."
        )
    if (brought := plugins.plugin(plugins.TARGETS, found.name)) is not None:
        why = f"{brought} brings it"
        raise UsageError(
            f"there is a target {found.name!r} already",
            where=str(path),
            why=why,
            hint="Give yours another name.",
        )
    copy = user_folder() / f"{found.name}.yaml"
    with disk_errors(copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_whole(copy, text.encode())
    return found


def _from_text(text: str, path: str | Path) -> Target:
    return _build(_resolve(_mapping(text, str(path)), Path(path).name, seen=()), where=str(path))


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
    if shipped.is_file():
        return f"targets/{name}.yaml"
    brought = plugins.plugin(plugins.TARGETS, name)
    return str(user_folder() / f"{name}.yaml") if brought is None else f"{brought}: target {name!r}"


def _fields(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    shipped = resources.files("edgec.targets") / f"{name}.yaml"
    if not shipped.is_file():
        brought = plugins.plugin(plugins.TARGETS, name)
        fields = _own_fields(name) if brought is None else plugin_fields(brought)
        return _resolve(fields, name, seen)
    return _resolve(_mapping(shipped.read_text(encoding="utf-8"), f"targets/{name}.yaml"), name, seen)


def plugin_fields(brought: plugins.Plugin) -> dict[str, Any]:
    """What the target file of a plug-in says. Raises UsageError that names the plug-in."""
    path = brought.load(_fault)
    if (user_folder() / f"{brought.name}.yaml").is_file():
        hint = "Rename your own."
        raise UsageError(
            f"the target {brought.name!r} is brought by {brought}, and one of your own has its name",
            hint=hint,
        )
    try:
        fields = _mapping(_read(path), str(path))
    except UsageError as error:
        raise brought.unusable(str(error)) from error
    if fields.get("name") != brought.name:
        raise brought.unusable(
            f"its entry point is called {brought.name!r}, the target {str(fields.get('name'))[:80]!r}"
        )
    return fields


def _fault(brought: plugins.Plugin, path: Any) -> str | None:
    return None if isinstance(path, Path) else f"{brought.entry.value} is not the Path of a target file"


def _own_fields(name: str) -> dict[str, Any]:
    path = user_folder() / f"{name}.yaml"
    fields = _mapping(_read(path), str(path))
    if fields.get("name") != name:
        why = f"its name is {shortened(repr(fields.get('name')), 80)}, and it is called {path.name}"
        raise UsageError("invalid target", where=str(path), why=why, hint="Let both be the same.")
    return fields


def _resolve(fields: dict[str, Any], where: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Fill in what ``extends`` and the host probe give; ``sources`` are merged, other fields replaced."""
    fields = _with_dialect(fields)
    if fields.get("name") == "host":
        fields = _over(host_fields(), fields)
    base = fields.pop("extends", None)
    if base is None:
        return fields
    if (why := _unusable(base, seen)) is not None:
        what = f"extends {shortened(repr(base), 80)}: {why}"
        raise UsageError(what, where=where, hint=did_you_mean(str(base), target_names()))
    return _over(_fields(base, (*seen, base)), {"estimates_from": base} | fields)


def _with_dialect(fields: dict[str, Any]) -> dict[str, Any]:
    """Cards of edgec 0.1 say ``activation_dtype``; what they mean is a dialect."""
    old = fields.get("activation_dtype")
    if "dialect" in fields or not isinstance(old, str) or old not in _OLD_DIALECTS:
        return fields  # an unknown value is for the schema to refuse
    new = {key: value for key, value in fields.items() if key != "activation_dtype"}
    new["dialect"] = _OLD_DIALECTS[old]
    sources = fields.get("sources")
    if isinstance(sources, dict):
        new["sources"] = {"dialect" if k == "activation_dtype" else k: v for k, v in sources.items()}
    return new


def _unusable(base: Any, seen: tuple[str, ...]) -> str | None:
    """Why ``base`` cannot be extended by what already stands on ``seen``."""
    if base not in target_names():
        return "there is no such target"
    if base in seen:
        return "it extends itself"
    return "the chain of targets is too long" if len(seen) > _LONGEST_CHAIN else None


def _over(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    new = fields.get("sources") or {}
    if not isinstance(new, dict):
        return base | fields  # which the schema then refuses
    return base | fields | {"sources": dict(base.get("sources", {})) | new}


def _read(path: str | Path) -> str:
    return read_text(path, MOST_BYTES, "a target file", UsageError)


def _mapping(text: str, where: str) -> dict[str, Any]:
    return parse_yaml(text, where, "a target file")[0]


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
            text = f"{text} (got {shortened(repr(fields[path]), 80)})"
        lines.append(f"{path}: {text}")
    return "; ".join(lines)
