"""The agent as one file that any Python 3.8 runs: a zip archive of :mod:`edgec.runtime.agent`."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path

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
    """Write the archive as ``folder/edgec-agent.pyz`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / AGENT_NAME
    part = path.with_name(f"{AGENT_NAME}.{os.getpid()}.part")
    part.write_bytes(agent_bytes())
    part.replace(path)
    return path


def cached_agent() -> Path:
    """Path of the archive in a per-user folder, named after its content, written on first use."""
    digest = hashlib.sha256(agent_bytes()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "edgec" / f"agent-{digest}"
    try:
        return folder / AGENT_NAME if (folder / AGENT_NAME).is_file() else write_agent(folder)
    except OSError:  # a home that cannot be written to: a temporary folder does as well
        return write_agent(Path(tempfile.gettempdir()) / f"edgec-agent-{os.getuid()}-{digest}")
