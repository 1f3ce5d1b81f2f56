"""Models that need torch: ``.pt2`` files of ``torch.export``, and factories with their weights."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edgec.graph.boundary import first_line
from edgec.graph.checkpoint import load_weights
from edgec.graph.errors import EdgecError, ModelError, UsageError
from edgec.graph.listener import Listener
from edgec.graph.quiet import quiet_log
from edgec.graph.sizes import InputShape
from edgec.graph.torch_export import export_module, export_program
from edgec.graph.torch_guard import load_guarded

if TYPE_CHECKING:
    pass


def _torch(source: str) -> Any:
    try:
        import torch
    except ImportError as error:
        hint = "pip install 'edgec[torch]', or export the network to ONNX."
        raise UsageError("reading a torch model needs torch", where=source, hint=hint) from error
    return torch


def from_pt2(path: Path, *, trust: bool, listener: Listener) -> onnx.ModelProto:
    """The program of a ``.pt2`` in ONNX.

    Without ``trust`` nothing in the file runs (`graph.torch_guard`). Raises ModelError for a file that is none, or that needs
    trust; UsageError without torch.
    """
    torch = _torch(str(path))
    try:
        with quiet_log("torch.export", least=logging.CRITICAL):
            program = torch.export.load(path) if trust else load_guarded(path, listener)
    except EdgecError:
        raise
    except Exception as error:  # torch raises its own tree of errors, json's, zipfile's and pickle's
        raise ModelError("not a torch.export file", where=str(path), why=first_line(error)) from error
    return export_program(program, str(path))


def from_factory(
    source: str, weights: str | Path | None, input_shape: InputShape | None, *, trust: bool = False
) -> onnx.ModelProto:
    """The module that a function makes, with ``weights`` in it, in ONNX. The function is the user's own code and is run.

    ``trust``: unpickle whatever ``weights`` holds.
    """
    module_name, _, function = source.rpartition(":")
    if not module_name.endswith(".py") and not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelError("no such file", where=source)
    torch = _torch(source)
    with _without_bytecode():
        factory = getattr(_import(module_name, source), function, None)
        if not callable(factory):
            raise UsageError(f"no function {function!r} in {module_name}", where=source)
        try:
            module = factory()
        except Exception as error:  # the factory is the user's code: whatever it raises is theirs to read
            raise UsageError("the factory failed", where=source, why=first_line(error)) from error
    if not isinstance(module, torch.nn.Module):
        why = f"the factory returned {type(module).__name__}"
        raise UsageError("a factory must return a torch.nn.Module", where=source, why=why)
    if weights is not None:
        load_weights(module, Path(weights), trust)
    if input_shape is None:
        raise UsageError(
            "a torch factory needs the shape of one input", where=source, hint="Add --input-shape 3,224,224."
        )
    shapes = (
        [sizes[1:] for sizes in input_shape.values()] if isinstance(input_shape, Mapping) else [input_shape]
    )
    return export_module(module, tuple(torch.zeros((2, *sizes)) for sizes in shapes), source)


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Python writes no ``__pycache__`` beside the user's files meanwhile."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _import(name: str, source: str) -> Any:
    try:
        if not name.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            try:
                return importlib.import_module(name)
            finally:
                sys.path.pop(0)
        path = Path(name)
        if not path.is_file():
            raise UsageError("no such file", where=name)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise UsageError("not a Python file", where=name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise UsageError("cannot be imported", where=source, why=first_line(error)) from error
    return module
