"""Puts the stand-ins of one TensorRT version into a folder: programs in ``bin``, Python modules in ``lib``."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERSIONS = ((8, 2, 1), (8, 5, 2), (8, 6, 2), (10, 3, 0), (10, 13, 3), (11, 1, 0))
_PACKAGES = {8: "libnvinfer8", 10: "libnvinfer10", 11: "libnvinfer11"}
IMPLEMENTATION = (
    "Error[10]: [optimizer.cpp::computeCosts::3728] Error Code 10: Internal Error (Could not find any implementation for node "
    "depthwise + PWN(PWN(gate), mul).)",
    "Error[2]: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )",
    "Engine could not be created from network",
    "Building engine failed",
    "Failed to create engine from model or file.",
    "Engine set up failed",
)


@dataclass(frozen=True)
class Jetson:
    """A folder with the stand-ins, and what was asked of them."""

    folder: Path
    version: tuple[int, int, int]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def lib(self) -> Path:
        return self.folder / "lib"

    def behave(self, **how: Any) -> None:
        """How trtexec and the module behave from now on; nothing: as they should."""
        (self.folder / "behaviour.json").write_text(json.dumps(how))

    def calls(self) -> list[list[str]]:
        """The command lines that trtexec got so far."""
        file = self.folder / "calls"
        return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []


def set_up(
    folder: Path, version: tuple[int, int, int], *, there: str | None = None, python: str = sys.executable
) -> Jetson:
    """The stand-ins in ``folder``; ``there``: its path on the board that it is copied to."""
    jetson = Jetson(folder, version)
    runtime = jetson.lib / "cuda"
    for made in (jetson.bin, jetson.lib / "tensorrt", runtime):
        made.mkdir(parents=True, exist_ok=True)
    at = there or str(folder)
    _program(
        jetson.bin / "trtexec", _filled("trtexec.py", version, at).replace("/usr/bin/env python3", python, 1)
    )
    major, name = version[0], ".".join(map(str, version))
    listed = f"{_PACKAGES[major]} {name}-1+cuda12.6\\nlibnvinfer-bin {name}-1+cuda12.6\\n"
    _program(jetson.bin / "dpkg-query", f"#!/bin/sh\nprintf '{listed}'\n")
    (jetson.lib / "tensorrt" / "__init__.py").write_text(_filled("module.py", version, at))
    (runtime / "__init__.py").write_text("")
    (runtime / "cudart.py").write_text((HERE / "cudart.py").read_text())
    return jetson


def _filled(name: str, version: tuple[int, int, int], at: str) -> str:
    text = (HERE / name).read_text()
    text = re.sub(r"^VERSION = .*$", f"VERSION = {version}", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^HERE = .*$", f"HERE = Path({at!r})", text, count=1, flags=re.MULTILINE)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
