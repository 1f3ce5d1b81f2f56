"""What a process and all that it starts do: time, memory, files. Read from /proc, so Linux only."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cell import SECRET, Cell
from warm import SPARE

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Processes whose parent dies become children of this one, so that none is lost from sight."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                text = (task / "children").read_text(encoding="ascii")
                children = [int(word) for word in text.split()]
                found += children
                waiting += children
    return found


def resident(pids: list[int]) -> int:
    """Bytes in memory of these processes together, without spare ones; pages that they share count for each."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            if not is_spare(pid):
                total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    return total


def is_spare(pid: int) -> bool:
    """Whether it only waits to be used: see `warm`."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() == SPARE
    return False


def starved(pids: list[int], known: dict[int, float]) -> float:
    """Seconds that processes, these and earlier ones in ``known``, were ready to run while others had the cores."""
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            known[pid] = int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    return sum(known.values())


def end_all(pids: list[int]) -> None:
    """Kill these processes: they are ours."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def words_of(pid: int) -> str:
    """Its command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:120]
    return "?"


@dataclass(frozen=True)
class Listing:
    """Files below a cell, each with what would change if it were written."""

    files: dict[str, tuple[int, ...]]

    @staticmethod
    def of(cell: Cell) -> Listing:
        """Nothing is opened and no link followed."""
        found: dict[str, tuple[int, ...]] = {}
        waiting = [cell.root]
        while waiting:
            folder = waiting.pop()
            with suppress(OSError):
                for entry in os.scandir(folder):
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        waiting.append(Path(entry.path))
                        found[os.path.relpath(entry.path, cell.root)] = (facts.st_ino,)
                    else:
                        found[os.path.relpath(entry.path, cell.root)] = (
                            facts.st_ino,
                            facts.st_size,
                            facts.st_mtime_ns,
                        )
        return Listing(found)

    def changed(self, later: Listing) -> list[str]:
        """What is new, gone, or different."""
        names = sorted(self.files.keys() | later.files.keys())
        return [name for name in names if self.files.get(name) != later.files.get(name)]


_LASTING = re.compile(rf"tmp/edgec-{os.geteuid()}(/\.lock|/[\w-]+\.lock)?")
"""The user's own folder for temporary ones, which stays, and locks in it."""


def litter(written: list[str]) -> list[str]:
    """What of the written files was left in the temporary folder, each with the topmost folder that should be gone."""
    found: dict[str, None] = {}
    for name in written:
        if name.startswith("tmp/") and not _LASTING.fullmatch(name):
            depth = 3 if _LASTING.match(name) else 2
            found["/".join(name.split("/")[:depth])] = None
    return list(found)


def leaks(cell: Cell, names: list[str]) -> list[str]:
    """Those of the files that hold the secret now."""
    found = []
    for name in names:
        path = cell.root / name
        with suppress(OSError):
            facts = path.lstat()
            if (
                stat.S_ISREG(facts.st_mode)
                and facts.st_size < 50_000_000
                and SECRET[:24] in path.read_bytes()
            ):
                found.append(name)
    return found


def small(folder: Path, most: int = 30_000_000) -> bool:
    """Whether it is worth keeping: apparent sizes count, so that no hole is copied."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total < most


def no_files(folder: str, names: list[str]) -> set[str]:
    """For `copytree`: pipes and sockets, which cannot be copied."""
    found = set()
    for name in names:
        with suppress(OSError):
            mode = (Path(folder) / name).lstat().st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                found.add(name)
    return found
