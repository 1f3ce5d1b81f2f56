"""Keep to themselves what libraries log and print while they work for us: what goes wrong is said by the error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("onnx_ir", "onnxscript")
"""They log each step of theirs as a warning; none of it concerns the user."""


@contextmanager
def quiet_log(*names: str, least: int = logging.ERROR) -> Iterator[None]:
    """The loggers of these names say nothing below the level ``least``."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(least)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def silent() -> Iterator[None]:
    """Nothing on file descriptors 1 and 2: compiled code prints there, past Python (onnxsim a trace for each op that it cannot
    run, torch a graph that it cannot export). A process without them, as daemons are, keeps none."""
    _flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2) if _open(descriptor)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor, _ in saved:
            os.dup2(nowhere, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # Python has none for a descriptor that was closed when it began
            stream.flush()
