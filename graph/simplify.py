"""onnxsim on a whole model: constants and shape arithmetic folded."""

from __future__ import annotations

import sys
from typing import Any

import onnx

from edgec.graph.errors import ModelError
from edgec.graph.opsets import refuse_unknown
from edgec.graph.quiet import silent


def _onnxsim() -> Any:
    """onnxsim, without the torch that its import pulls in (two seconds) and that nothing here uses."""
    if "torch" in sys.modules:
        import onnxsim

        return onnxsim
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` fail while onnxsim is read
    try:
        import onnxsim
    finally:
        del sys.modules["torch"]
    return onnxsim


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` folded; as it is where onnxsim cannot take it or changes its ends. Raises ModelError for no valid ONNX."""
    library = _onnxsim()
    try:
        with silent():
            simple, _ = library.simplify(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        # onnxsim validates first: what it refuses is a broken model or an op that it cannot infer.
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as invalid:
            refuse_unknown(model)
            why = str(invalid).strip().splitlines()[0]
            raise ModelError("the model is not valid ONNX", why=why) from error
        return model
    return (
        simple if isinstance(simple, onnx.ModelProto) and _interface(simple) == _interface(model) else model
    )


def _interface(model: onnx.ModelProto) -> list[list[str]]:
    """Names at both ends: where an output becomes an input itself, onnxsim gives the input the output's name."""
    return [[value.name for value in side] for side in (model.graph.input, model.graph.output)]
