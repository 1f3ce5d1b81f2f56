"""The one place where what libraries raise over a model becomes an error of ours, with the node where it can be known.

onnx, onnx_ir, onnxscript, onnxsim, onnxruntime, protobuf and numpy raise two dozen classes over a damaged model. Whatever comes
out of a library while a model is read is the model's fault: a ModelError. What comes out of edgec's own code is the model's
fault where onnx says that the model is not valid, else a defect of edgec, which passes through as it is.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import onnx

from edgec.graph.errors import EdgecError, ModelError

_OWN = Path(__file__).resolve().parent.parent
_HINT = "Check it with onnx.checker.check_model; exporting it again may help."


@contextmanager
def reading(model: onnx.ModelProto | None = None, *, where: str | None = None) -> Iterator[None]:
    """Turn what libraries raise inside into ModelError. ``model`` is the source as it was read, to judge our own errors by."""
    try:
        yield
    except EdgecError:
        raise
    except MemoryError as error:
        raise ModelError("the model needs more memory than there is", where=where) from error
    except RecursionError as error:
        raise ModelError("the graph is nested too deeply", where=where) from error
    except UnicodeDecodeError as error:
        raise ModelError("a name in the model is not text", where=where, why="it is not UTF-8") from error
    except Exception as error:  # onnx, onnxsim, onnxscript and onnxruntime share no base class but this
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if _is_own(frames[-1]) and (model is None or _is_valid(model)):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        at = _node_of(frames)
        place = at if where is None else where if at is None else f"{where}: {at}"
        raise ModelError("the model is not sound", where=place, why=why, hint=_HINT) from error


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, at most 300 characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def node_name(node: Any) -> str:
    """``node 'c1' (Conv)`` of a NodeProto or an onnx_ir node; of a nameless one, the name of what it writes."""
    written = node.output if hasattr(node, "output") else node.outputs
    outputs = [getattr(value, "name", value) for value in written]
    return f"node {node.name or next(iter(outputs), '')!r} ({node.op_type})"


def _is_own(frame: FrameType) -> bool:
    """Raised in a line of edgec: not by a library below it. C++ leaves no frame, so calls into it are told by `_is_valid`."""
    file = Path(frame.f_code.co_filename)
    return (
        file.is_absolute()
        and file.is_relative_to(_OWN)
        and "site-packages" not in file.parts[len(_OWN.parts) :]
    )


def _is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception:  # noqa: BLE001  (whatever it is, the model is not what onnx takes)
        return False
    return True


def _node_of(frames: list[FrameType]) -> str | None:
    """The node that the innermost function with a local named ``node`` was at."""
    for frame in reversed(frames):
        node = frame.f_locals.get("node")
        if hasattr(node, "op_type") and hasattr(node, "name"):
            try:
                return node_name(node)
            except Exception:  # noqa: BLE001  (a damaged node; the error that is being told matters more)
                return None
    return None
