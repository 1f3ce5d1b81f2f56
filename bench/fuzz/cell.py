"""Where a case lives: a folder of its own, with a home, a temporary folder, and things outside that it must not touch."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECRET = b"CANARY-4f1d2c9a-these-bytes-are-not-the-models-"
"""What the file outside holds, over and over: it must not come to stand in anything that edgec writes."""
PAYLOAD = "EDGEC_FUZZ_EXECUTED"
"""The environment variable with the path that a pickle's payload creates: code of a file ran."""


@dataclass(frozen=True)
class Cell:
    """The folders of one case. ``case`` is the current folder of the command; ``outside`` is anybody's."""

    root: Path

    @property
    def case(self) -> Path:
        return self.root / "case"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def targets(self) -> Path:
        """The user's own target files."""
        return self.home / ".config" / "edgec" / "targets"

    def make(self, home: Path) -> None:
        """A fresh cell; its home is a copy of ``home``: that of the person whose runs the stock holds."""
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in (self.case, self.outside, self.tmp):
            folder.mkdir(parents=True)
        shutil.copytree(home, self.home)
        (self.outside / "secret.bin").write_bytes(SECRET * 400)
        (self.outside / "secret.npy").write_bytes(SECRET * 4)
        (self.outside / "notes.txt").write_text("somebody's notes\n", encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """The command's environment: nothing of the person who runs the fuzzer is in reach."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {
            **kept,
            **threads,
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_STATE_HOME": str(self.home / ".local" / "state"),
            "ORT_DISABLE_TELEMETRY": "1",
            "COLUMNS": "160",
            PAYLOAD: str(self.outside / "executed"),
        }


@dataclass(frozen=True)
class Plan:
    """What a case runs, and in words what was done to its input."""

    argv: tuple[str, ...]
    done: tuple[str, ...]


@dataclass(frozen=True)
class Stock:
    """Sound inputs, made once per run of the fuzzer, that cases start from. See `stock`."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "net.onnx"

    @property
    def canonical(self) -> Path:
        return self.root / "canonical.onnx"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def home(self) -> Path:
        """The home in which the run was made."""
        return self.root / "home"

    @property
    def replies(self) -> Path:
        return self.root / "replies"

    @property
    def program(self) -> Path:
        """A torch.export file; absent without torch."""
        return self.root / "net.pt2"


Maker = Callable[[random.Random, Cell, Stock], Plan]
"""Writes the input of a case into the cell and says what to run on it. The same random numbers make the same case."""
