"""Tasks for the child process that do what a hostile file makes a library do."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.graph.errors import DataError
from edgec.graph.listener import FOLDING, Listener


def crash(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    listener.stage(arguments.get("stage", FOLDING))
    os.kill(os.getpid(), int(arguments.get("signal", signal.SIGSEGV)))
    return b""


def leave(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    os._exit(9)


def hang(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    listener.stage(FOLDING)
    time.sleep(60)
    return b""


def litter(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """Leave a folder where temporary ones go, and say where; or die with it."""
    made = tempfile.mkdtemp()
    if arguments["end"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments["end"] == "hang":
        time.sleep(60)
    return made.encode()


def eat(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    listener.stage(FOLDING)
    held = []
    while True:
        held.append(b"\1" * (16 << 20))


def reserve(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """Address space that is never touched is no memory."""
    import mmap

    held = mmap.mmap(-1, 8 << 30)
    time.sleep(0.2)
    held.close()
    return b"done"


def say_size(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    listener.size(int(arguments["size"]))
    if "read" in arguments:
        Path(arguments["read"]).touch()
    time.sleep(0.2)
    return b"done"


def complain(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    raise DataError("what", where="w" * 5000, why="\udce4", hint="hint")


def stumble(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    raise KeyError("a fault of ours")


def chatter(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    sys.stdout.write("noise on stdout " * 1000)
    os.write(1, b"more of it")
    sys.stderr.write("and on stderr " * 100_000)
    return b"answer"


def where(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    return "\n".join(sys.path).encode()


def echo(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    return bytes([7]) * int(arguments["count"])


def lie(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """Write what no child of ours would."""
    listener._out.write(bytes.fromhex(arguments["frame"]))  # type: ignore[attr-defined]
    listener._out.flush()  # type: ignore[attr-defined]
    time.sleep(60)
    return b""


def pid_to(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    with open(arguments["file"], "w", encoding="ascii") as stream:  # noqa: PTH123
        stream.write(str(os.getpid()))
    time.sleep(60)
    return b""
