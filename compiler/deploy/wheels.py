"""Wheels for another machine, so that a device can install without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.graph.errors import EdgecError, UnsupportedError

if TYPE_CHECKING:
    from edgec.targets import System

_OLDEST_GLIBC = 17
_SECONDS = 900


def platform_tags(system: System) -> list[str]:
    """pip's platform tags that ``system`` can load, newest first; pip does not expand them by itself."""
    newest = int((system.glibc or "2.17").split(".")[1])
    tags = [f"manylinux_2_{minor}_{system.arch}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{system.arch}", f"linux_{system.arch}"]


def download(system: System, requirements: Sequence[str], folder: Path) -> list[str]:
    """Download the wheels of ``requirements`` and of what they need for ``system`` into ``folder``; their names.

    Raises UnsupportedError where no engine has wheels for the system, EdgecError when pip fails.
    """
    if system.arch == "armv7l" or not requirements:
        why = (
            "numpy and Pillow have no 32-bit wheels at PyPI" if system.runtimes else "no engine exists for it"
        )
        hint = (
            "Use the 64-bit system image, or leave the wheels out: install.sh then uses apt's python3-numpy."
        )
        raise UnsupportedError(f"no wheels for {system.title}", why=why, hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in folder.iterdir()}
    tags = [part for tag in platform_tags(system) for part in ("--platform", tag)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", system.python, *tags]
    try:
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EdgecError(
            "pip does not come to an end", where=system.name, hint="Is the network up?"
        ) from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1].removeprefix("ERROR: ") if errors else done.stderr.strip()[-200:]
        raise EdgecError("cannot fetch the wheels", where=system.name, why=why, hint="Is the network up?")
    return sorted({path.name for path in folder.iterdir()} | before)
