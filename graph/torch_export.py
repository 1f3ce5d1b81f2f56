"""From a torch module to ONNX, by the exporter that can take it."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from edgec.graph.boundary import first_line
from edgec.graph.errors import ModelError
from edgec.graph.quiet import quiet_log, silent

if TYPE_CHECKING:
    import torch

_LEAST_BATCH = 2
"""torch.export takes an axis of size 1 for one that is always 1."""
_OPSET = 18
"""Of the TorchScript exporter: the newest that all of its releases write. The other one has an opset of its own."""


def export_program(program: Any, source: str) -> onnx.ModelProto:
    """A program of torch.export in ONNX. Raises ModelError with the exporter's reason."""
    import torch

    def run() -> onnx.ModelProto:
        return _proto(torch.onnx.export(program, (), dynamo=True, verbose=False))

    model, reason = _tried(run)
    if model is None:
        raise ModelError("torch cannot export this module", where=source, why=reason)
    return model


def export_module(module: torch.nn.Module, example: Sequence[torch.Tensor], source: str) -> onnx.ModelProto:
    """``module`` as it infers, in ONNX, its inputs named as ``forward`` names them and their first axes the batch.

    ``example`` is one batch of each input. The exporter of torch.export is tried first, then that of TorchScript; ModelError
    gives the reasons of both. The module's mode is put back, its weights stay where they are.
    """
    inputs = tuple(_prepared(one, module) for one in example)
    names = _names(module, len(inputs))
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        reasons = []
        for name, run in _exporters(module, inputs, names):
            model, reason = _tried(run)
            if model is not None:
                return model
            reasons.append(f"{name}: {reason}")
    finally:
        for part, mode in modes:
            part.training = mode
    raise ModelError("torch cannot export this module", where=source, why="; ".join(reasons))


def _exporters(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], names: list[str]
) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    import torch

    def dynamo() -> onnx.ModelProto:
        batch = {0: torch.export.Dim("batch")}
        apart = len(_positional(module))
        open_axes: tuple[Any, ...] = (batch,) * len(inputs)
        if apart < len(inputs):  # the rest comes as one tuple, *inputs
            open_axes = (*open_axes[:apart], open_axes[apart:])
        return _proto(
            torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                dynamic_shapes=open_axes,
                input_names=names,
                output_names=_given_names(module, "output_names"),
                verbose=False,
            )
        )

    def script() -> onnx.ModelProto:
        written: Any = io.BytesIO()  # all releases take a stream; the hints of some do not say so
        torch.onnx.export(
            module,
            inputs,
            written,
            dynamo=False,
            input_names=names,
            output_names=_given_names(module, "output_names"),
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=_OPSET,
        )
        return onnx.load_model_from_string(written.getvalue())

    yield "torch.export", dynamo
    yield "TorchScript", script


def _tried(run: Callable[[], onnx.ModelProto]) -> tuple[onnx.ModelProto | None, str]:
    """What ``run`` exports, or why it could not; quiet, whatever torch has to say."""
    try:
        with warnings.catch_warnings(), quiet_log("torch", least=logging.CRITICAL), _silence():
            warnings.simplefilter("ignore")
            return run(), ""
    except Exception as error:  # noqa: BLE001  (the exporters raise trees of their own, and what the module's code raises)
        return None, _reason(error)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stdout and stderr: where an exporter fails, it prints the graph before it raises.

    The one of TorchScript does so from C++, past Python's stdout. It turns that on by itself whatever ``verbose`` says and
    leaves it on (torch 2.13): after any such export by the module's owner it is on before ours begins.
    """
    with (
        _torchscript_log(),
        silent(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


@contextlib.contextmanager
def _torchscript_log() -> Iterator[None]:
    """TorchScript's log is afterwards as it was before."""
    import torch

    inner = torch._C
    if not hasattr(inner, "_jit_is_onnx_log_enabled"):  # releases to come may do without it
        yield
        return
    before = inner._jit_is_onnx_log_enabled()
    try:
        yield
    finally:
        inner._jit_set_onnx_log_enabled(before)


def _reason(error: BaseException) -> str:
    """What began it: the exporter wraps the error of the module's code in headings of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def _proto(exported: Any) -> onnx.ModelProto:
    if exported is None:
        raise ModelError("the exporter gave nothing")
    model: onnx.ModelProto = exported.model_proto
    return model


def _prepared(example: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    """At least two samples, where the module is and in its type."""
    import torch

    weight = next((one for one in module.parameters() if one.is_floating_point()), None)
    if example.ndim and example.shape[0] < _LEAST_BATCH:
        example = torch.cat([example] * _LEAST_BATCH)
    if weight is None:
        return example
    return example.to(weight.device, weight.dtype if example.is_floating_point() else example.dtype)


def _names(module: torch.nn.Module, count: int) -> list[str]:
    """What the module calls its inputs (``input_names``), else the first ``count`` arguments of ``forward``; numbered where it
    does not name them."""
    given = _given_names(module, "input_names")
    if given is not None and len(given) == count:
        return given
    named = _positional(module)
    return named[:count] if len(named) >= count else [f"input{index}" for index in range(count)]


def _positional(module: torch.nn.Module) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in inspect.signature(module.forward).parameters.items() if one.kind in kinds]


def _given_names(module: torch.nn.Module, attribute: str) -> list[str] | None:
    """Of a module that came out of edgec (`passes.learned.executor`): it keeps the names of the graph's ends."""
    given = getattr(module, attribute, None)
    if isinstance(given, (tuple, list)) and given and all(isinstance(one, str) for one in given):
        return list(given)
    return None
