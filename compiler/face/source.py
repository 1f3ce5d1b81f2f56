"""A model of this process as the bytes of an ONNX file, with the name that reports give it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.compiler.face.items import to_numpy
from edgec.compiler.face.kinds import is_array, is_module, named
from edgec.graph.errors import ModelError, UsageError, WrongTypeError
from edgec.graph.foreign.loading import MOST_MODEL

ADMITTED = "admitted are a path, a torch.nn.Module, an onnx.ModelProto, an onnx_ir.Model, or an edgec.Recipe"
NO_EXAMPLE = "Give example_input=, one batch as the module takes it, or input_shape=, of one sample."


def check_model_type(model: Any) -> None:
    """Raise WrongTypeError for what is no model in memory."""
    if not (is_module(model) or isinstance(model, (onnx.ModelProto, ir.Model))):
        raise WrongTypeError(f"model: got {named(model)}", why=ADMITTED)


def origin_of(model: Any) -> str:
    """What it is, for reports: ``SmallNet (torch.nn.Module)``."""
    if isinstance(model, onnx.ModelProto):
        name, kind = model.graph.name, "onnx.ModelProto"
    elif isinstance(model, ir.Model):
        name, kind = model.graph.name or "", "onnx_ir.Model"
    else:
        name, kind = type(model).__name__, "torch.nn.Module"
    return f"{name} ({kind})" if name else kind


def model_bytes(model: Any, example: tuple[Any, ...] | None) -> bytes:
    """``model`` in ONNX; a module is exported with ``example``, one batch of each input.

    Raises ModelError where it cannot be exported or is too large, UsageError for a module without an example.
    """
    proto = _proto(model, example)
    if proto.ByteSize() > MOST_MODEL:
        raise ModelError("models above 2 GB are not supported", where=origin_of(model))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _proto(model: Any, example: tuple[Any, ...] | None) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, ir.Model):
        return ir.to_proto(model)
    import torch

    from edgec.graph.torch_export import export_module

    if example is None:
        raise UsageError(
            "a torch module needs an example of its input", where=origin_of(model), hint=NO_EXAMPLE
        )
    tensors = [
        one if isinstance(one, torch.Tensor) else torch.from_numpy(np.array(to_numpy(one))) for one in example
    ]
    return export_module(model, [_float32(one) for one in tensors], origin_of(model))


def _float32(tensor: Any) -> Any:
    """numpy's float64 is torch's float32 in all networks that edgec knows."""
    return tensor.float() if str(tensor.dtype) == "torch.float64" else tensor


def example_of(given: Any) -> tuple[Any, ...]:
    """``example_input`` as the module's arguments. Raises WrongTypeError."""
    parts = (
        tuple(given)
        if isinstance(given, (tuple, list))
        else tuple(given.values())
        if isinstance(given, dict)
        else (given,)
    )
    if not parts or not all(map(is_array, parts)):
        raise WrongTypeError(
            f"example_input: got {named(given)}", why="admitted are a tensor, an array, or a tuple of them"
        )
    return parts
