"""The body of the child: take a request, do the task, write frames. Started by `process.Child`, never by hand."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from edgec.graph.errors import EdgecError, ModelError
from edgec.graph.foreign import wire
from edgec.graph.listener import IMPORTING, Listener

Task = Callable[[Mapping[str, Any], Listener], bytes]
_PR_SET_PDEATHSIG = 1


class Teller(Listener):
    """Tells the parent each stage before it begins."""

    def __init__(self, out: BinaryIO, allowed: SimpleQueue[None]) -> None:
        self._out, self._allowed = out, allowed

    def stage(self, text: str) -> None:
        wire.send(self._out, wire.STAGE, text.encode("utf-8", "replace"))

    def size(self, count: int) -> None:
        """Tell it and wait for the parent's word: nothing of a model that does not fit is read."""
        wire.send(self._out, wire.SIZE, str(count).encode())
        self._allowed.get()


def main() -> None:
    """One task, then the end of the process."""
    request = json.loads(sys.stdin.buffer.readline())
    allowed: SimpleQueue[None] = SimpleQueue()
    _die_with(int(request["parent"]), allowed)
    _be_modest()
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # libraries print; the parent reads frames only
        os.dup2(nowhere, descriptor)
    _work(request, Teller(out, allowed), out)
    out.flush()
    os._exit(0)  # no teardown: a library that crashes while it is unloaded has done its work


def _work(request: Mapping[str, Any], teller: Teller, out: BinaryIO) -> None:
    module, _, name = request["task"].partition(":")
    try:
        teller.stage(IMPORTING)
        task: Task = getattr(import_module(module), name)
        wire.send(out, wire.RESULT, task(request["arguments"], teller))
    except EdgecError as error:
        wire.send(out, wire.ERROR, wire.encode_error(error))
    except MemoryError:
        full = ModelError("the model needs more memory than there is")
        wire.send(out, wire.ERROR, wire.encode_error(full))
    except Exception as error:  # noqa: BLE001  (the last door of this process: the parent raises it again as a defect)
        wire.send(out, wire.DEFECT, wire.encode_defect(error, traceback.format_exc()))


def _die_with(parent: int, allowed: SimpleQueue[None]) -> None:
    """End when the parent ends, however it ends: by the kernel on Linux, elsewhere when the pipe from it closes.

    Each byte that comes through the pipe allows the size told last.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def wait() -> None:
        while sys.stdin.buffer.read(1):
            allowed.put(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _be_modest() -> None:
    """No core file in the user's folder, and the first to go where the system runs out of memory."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
