"""The agent as one file that any Python 3.8 runs: a zip archive of :mod:`edgec.runtime.agent`."""

from __future__ import annotations

import io
import os
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path

from edgec.graph.disk import disk_errors

AGENT_NAME = "edgec-agent.pyz"
_START = "import sys\n\nfrom edgec_agent.cli import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # no dates in the archive: the same sources give the same bytes


@cache
def agent_bytes() -> bytes:
    """The archive: deterministic for one version of the sources."""
    package = resources.files("edgec.runtime.agent")
    sources = {"__main__.py": _START}
    for entry in sorted(package.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".py") and entry.name != "__main__.py":
            sources[f"edgec_agent/{entry.name}"] = entry.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in sources.items():
            entry_info = zipfile.ZipInfo(name, _EPOCH)
            entry_info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry_info, text)
    return b"#!/usr/bin/env python3\n" + buffer.getvalue()


def write_agent(folder: Path) -> Path:
    """Write the archive as ``folder/edgec-agent.pyz`` and return its path.

    Raises EdgecError where something of that name is there, or the disk refuses. What runs is what was
    written only where nobody else can write: the caller's own new folder.
    """
    path = folder / AGENT_NAME
    with disk_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "wb") as file:
            file.write(agent_bytes())
    return path
