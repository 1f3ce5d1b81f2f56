"""From whatever a person brings to the canonical graph.

Sources: an ONNX file; a ``.pt2`` file of ``torch.export``; ``package.module:factory`` or ``file.py:factory`` for a torch
module, with ``weights`` holding its ``state_dict``. torch is needed for the last two only.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch


def load(
    source: str | Path, *, weights: str | Path | None = None, input_shape: Sequence[int] | None = None
) -> ir.Model:
    """Read ``source`` and return its canonical graph (design section 2).

    ``input_shape`` (without the batch axis) fixes dimensions that an ONNX file leaves open, and is the example input of a
    torch factory. Raises ModelError or UnsupportedError for a model that cannot be taken, UsageError for a wrong call.
    """
    return canonicalise(read(source, weights=weights, input_shape=input_shape), input_shape=input_shape)


def read(
    source: str | Path, *, weights: str | Path | None = None, input_shape: Sequence[int] | None = None
) -> onnx.ModelProto:
    """Read ``source`` as it is, without canonicalising: the model that users brought, in ONNX."""
    text = os.fspath(source)
    path = Path(text)
    if ":" in text and not path.exists():
        return _from_factory(text, weights, input_shape)
    if weights is not None:
        raise UsageError(
            "--weights goes with a factory only", where=text, hint="Write file.py:factory as MODEL."
        )
    if not path.exists():
        raise ModelError("no such file", where=text)
    if path.is_dir():
        raise ModelError("this is a folder, not a model file", where=text)
    if path.suffix == ".pt2":
        return _from_pt2(path)
    return _from_onnx(path)


def _from_onnx(path: Path) -> onnx.ModelProto:
    if path.suffix in (".pt", ".pth", ".ckpt"):
        raise ModelError(
            "weights without a network cannot be compiled",
            where=str(path),
            hint=f"Name the function that builds the module: file.py:factory --weights {path.name}",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError("cannot be read", where=str(path), why=str(error.strerror)) from error
    if not data:
        raise ModelError("the file is empty", where=str(path))
    if data[4:8] == b"TFL3":
        raise ModelError(
            "this is a TFLite file",
            where=str(path),
            hint="compile takes ONNX; inspect, bench and verify read TFLite.",
        )
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        why = "it does not parse; it may be truncated or of another format"
        raise ModelError("not an ONNX file", where=str(path), why=why) from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError("not an ONNX file", where=str(path), why="it holds no graph")
    _load_external_data(model, path)
    return model


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read weights kept beside the model; a location outside its folder is refused."""
    from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

    folder = path.parent.resolve()
    for tensor in model.graph.initializer:
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        target = (folder / info.location).resolve()
        where = f"{path}: tensor {tensor.name!r}"
        if Path(info.location).is_absolute() or not target.is_relative_to(folder):
            why = f"{info.location!r} points outside the model's folder"
            raise ModelError("external data refused", where=where, why=why)
        if not target.is_file():
            raise ModelError("external data is missing", where=where, why=f"{info.location!r} is not there")
        if target.stat().st_size < (info.offset or 0) + (info.length or 0):
            raise ModelError("external data is truncated", where=where, why=f"{info.location!r} is too short")
    load_external_data_for_model(model, str(folder))


def _torch(source: str) -> Any:
    try:
        import torch
    except ImportError as error:
        hint = "pip install 'edgec[torch]', or export the network to ONNX."
        raise UsageError("reading a torch model needs torch", where=source, hint=hint) from error
    return torch


def _from_pt2(path: Path) -> onnx.ModelProto:
    torch = _torch(str(path))
    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, OSError, AssertionError) as error:
        raise ModelError("not a torch.export file", where=str(path), why=_first_line(error)) from error
    return _export(program, (), None, str(path))


def _from_factory(
    source: str, weights: str | Path | None, input_shape: Sequence[int] | None
) -> onnx.ModelProto:
    module_name, _, function = source.rpartition(":")
    if not module_name.endswith(".py") and not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelError("no such file", where=source)
    torch = _torch(source)
    factory = getattr(_import(module_name, source), function, None)
    if not callable(factory):
        raise UsageError(f"no function {function!r} in {module_name}", where=source)
    try:
        module = factory()
    except Exception as error:  # the factory is the user's code: whatever it raises is theirs to read
        raise UsageError("the factory failed", where=source, why=_first_line(error)) from error
    if not isinstance(module, torch.nn.Module):
        why = f"the factory returned {type(module).__name__}"
        raise UsageError("a factory must return a torch.nn.Module", where=source, why=why)
    if weights is not None:
        _load_weights(module, Path(weights))
    if input_shape is None:
        raise UsageError(
            "a torch factory needs the shape of one input", where=source, hint="Add --input-shape 3,224,224."
        )
    module.eval()
    example = torch.zeros((2, *input_shape))
    return _export(module, (example,), {0: torch.export.Dim("batch")}, source)


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
        raise UsageError("cannot be imported", where=source, why=_first_line(error)) from error
    return module


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    import torch

    if not path.is_file():
        raise ModelError("no such file", where=str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError("not a state_dict", where=str(path), why=_first_line(error)) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for anything but plain tensors
        raise ModelError("not a plain state_dict", where=str(path), why=_first_line(error)) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300]
        raise ModelError("the weights do not fit the network", where=str(path), why=why) from error


def _export(program: Any, args: tuple[Any, ...], dynamic: Any, source: str) -> onnx.ModelProto:
    import contextlib
    import io
    import logging
    import warnings

    import torch

    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            shapes = None if dynamic is None else (dynamic,)
            exported = torch.onnx.export(program, args, dynamo=True, dynamic_shapes=shapes, verbose=False)
    except Exception as error:  # the exporter raises its own tree of errors and those of user code
        why = _first_line(error)
        raise ModelError("torch cannot export this module", where=source, why=why) from error
    finally:
        quiet.setLevel(level)
    if exported is None:
        raise ModelError("torch cannot export this module", where=source)
    model: onnx.ModelProto = exported.model_proto
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
