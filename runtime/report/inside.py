"""Files of a run folder that may come from anybody: none is read from outside of it, and none without end."""

from __future__ import annotations

import stat
from pathlib import Path

from edgec.graph.errors import DataError


def file_inside(folder: Path, name: str, most: int) -> Path:
    """Path of the regular file ``name`` (relative, POSIX) of ``folder``, of at most ``most`` bytes.

    A link is followed only to where it stays in the folder. Raises DataError otherwise; FileNotFoundError where there is none.
    """
    path = folder / name
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
        found = real.stat()
    except FileNotFoundError:
        raise
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise DataError("cannot be read", where=str(path), why=str(error)) from error
    if not real.is_relative_to(home):
        raise DataError("a link that leaves the run folder", where=str(path), why=f"it leads to {real}")
    if not stat.S_ISREG(found.st_mode):
        raise DataError("not a regular file", where=str(path))
    if found.st_size > most:
        why = f"{found.st_size / 1e6:.0f} MB, where at most {most / 1e6:.0f} MB are read"
        raise DataError("too large", where=str(path), why=why)
    return real
