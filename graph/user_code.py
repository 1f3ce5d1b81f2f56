"""Functions that a user names as text: ``file.py:function``, or ``module:function``. Naming one runs its file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgec.graph.boundary import first_line
from edgec.graph.errors import EdgecError, UsageError, did_you_mean


def user_function(text: str) -> Callable[..., Any]:
    """The function that ``text`` names. Raises UsageError where there is no such file or function, or the file cannot be run."""
    name, _, function = text.rpartition(":")
    with without_bytecode():
        module = _imported(name, text)
    found = getattr(module, function, None)
    if callable(found):
        result: Callable[..., Any] = found
        return result
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    hint = did_you_mean(function, known) if known else None
    raise UsageError(f"no function {function!r} in {name}", where=text, hint=hint)


@contextmanager
def without_bytecode() -> Iterator[None]:
    """Python writes no ``__pycache__`` beside the user's files meanwhile."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def in_words(what: str, source: str) -> Iterator[None]:
    """Whatever the user's code raises inside, as one UsageError that names its line. Raises UsageError."""
    try:
        yield
    except EdgecError:
        raise
    except (Exception, SystemExit) as error:  # it is the user's code: whatever it raises is theirs to read
        path = source.rpartition(":")[0]
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.endswith(path)]
        where = f"{path}:{frames[-1].lineno}" if frames else source
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(what, where=where, why=why) from error


def _imported(name: str, source: str) -> Any:
    path = Path(name)
    is_file = name.endswith(".py")
    if is_file and not path.is_file():
        raise UsageError("no such file", where=name)
    beside = str(path.resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, beside)  # its own imports from the same folder
    try:
        with in_words("cannot be imported", source):
            if not is_file:
                return importlib.import_module(name)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise UsageError("not a Python file", where=name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    finally:
        with suppress(ValueError):
            sys.path.remove(beside)
