"""Models that need torch: ``.pt2`` files of ``torch.export``, and factories with their weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
from edgec.graph.user_code import in_words, user_function, without_bytecode

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
    module_name = source.rpartition(":")[0]
    if not module_name.endswith(".py") and not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelError("no such file", where=source)
    torch = _torch(source)
    with without_bytecode():
        factory = user_function(source)
        with in_words("the factory failed", source):
            module = factory()
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
