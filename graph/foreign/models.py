"""Load a model in a child process; the canonical graph comes back as ONNX bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgec.graph import values
from edgec.graph.errors import ModelError, UsageError
from edgec.graph.files import is_factory
from edgec.graph.foreign.loading import MOST_MODEL, Loading
from edgec.graph.foreign.process import Child, CrashError
from edgec.graph.listener import GRAPH_STAGES
from edgec.graph.sizes import InputShape
from edgec.graph.values import NotAdmitted

if TYPE_CHECKING:
    import onnx_ir as ir

_LOAD = "edgec.graph.foreign.tasks:load"
_PROBE = "edgec.graph.foreign.probe:probe"
_PROBE_SECONDS = 10.0


class Pending:
    """A model that is being loaded. Close it, or use it as a context, so that no child is left behind."""

    def __init__(self, arguments: Mapping[str, Any], loading: Loading) -> None:
        self._arguments, self._loading = arguments, loading
        self._child = _child(_LOAD, arguments, loading) if loading.isolated else None
        self._model: ir.Model | None = None

    def model(self) -> ir.Model:
        """Wait for the canonical graph, the same one each time.

        Raises EdgecError as `graph.load.load` does; ModelError where the child crashed.
        """
        if self._model is None:
            self._model = self._wait()
        return self._model

    def _wait(self) -> ir.Model:
        if self._child is None:
            from edgec.graph.load import load as load_here

            given = self._arguments
            return load_here(
                given["source"],
                weights=given["weights"],
                input_shape=given["input_shape"],
                codes=given["codes"],
                trust=self._loading.trust,
            )
        try:
            return _to_model(self._child.result(), self._arguments["source"])
        except CrashError as crash:
            seconds = min(_PROBE_SECONDS, self._child.seconds_left)
            raise _explained(crash, self._arguments, self._loading, seconds) from None

    def close(self) -> None:
        """End the child if it still runs."""
        if self._child is not None:
            self._child.close()

    def __enter__(self) -> Pending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def begin(
    source: str | Path,
    loading: Loading,
    *,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    codes: bool = False,
) -> Pending:
    """Start to load ``source`` (a file, or a torch factory); the work goes on while the caller does something else. ``codes``: a
    quantised network stays quantised."""
    arguments = {
        "source": os.fspath(source),
        "weights": None if weights is None else os.fspath(weights),
        "input_shape": None if input_shape is None else _shape(input_shape),
        "codes": codes,
        "trust": loading.trust,
    }
    return Pending(arguments, loading)


def load(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    trust: bool = False,
    load_timeout: float | None = None,
    load_memory: int | None = None,
    isolated: bool = True,
) -> ir.Model:
    """Read ``source`` and return its canonical graph: an ONNX file, a ``.pt2``, or a torch factory with its ``weights``.

    ``input_shape`` (without the batch axis; or whole shapes by input name) fixes what a file leaves open, and is the input of a
    torch factory. The file is read in a child process that may take ``load_timeout`` seconds and ``load_memory`` bytes (None: by
    the file's size and the free memory); ``isolated=False`` reads it in this process, which a hostile file can end.
    ``trust``: run the pickles and the code that a ``.pt2`` holds.

    Raises ModelError or UnsupportedError for a model that cannot be taken, or whose reading crashed or broke a limit;
    UsageError for a wrong call.
    """
    loading = Loading(load_timeout, load_memory, trust, isolated)
    with begin(source, loading, weights=weights, input_shape=input_shape) as pending:
        return pending.model()


def _child(task: str, arguments: Mapping[str, Any], loading: Loading, seconds: float | None = None) -> Child:
    source = str(arguments["source"])
    torch = source.endswith(".pt2") or arguments["weights"] is not None or is_factory(source)
    return Child(
        task,
        arguments,
        where=source,
        seconds=lambda size: seconds or loading.seconds(size, torch=torch),
        memory=lambda size: loading.bytes(size, torch=torch),
        litters=torch,  # its inductor leaves a folder behind as soon as it is imported
        patient=seconds is None and loading.timeout is None,
    )


def _explained(
    crash: CrashError, arguments: Mapping[str, Any], loading: Loading, seconds: float
) -> ModelError:
    """The crash with the node that did it, found within what is left of the time by another child that goes node by node."""
    if crash.stage not in GRAPH_STAGES or seconds < 1 or is_factory(str(arguments["source"])):
        return crash
    with _child(_PROBE, arguments, loading, seconds) as child:
        try:
            child.result()
        except CrashError as again:
            if again.stage.startswith("node ") and not again.timed_out:
                where = f"{crash.where}: {again.stage}"
                return ModelError(crash.what, where=where, why=again.why or crash.why, hint=crash.hint)
        except Exception:  # noqa: BLE001  (the probe only adds a name; what is told is the crash)
            pass
    return crash


def _to_model(content: bytes, source: str) -> ir.Model:
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    if len(content) > MOST_MODEL:
        raise ModelError("models above 2 GB are not supported", where=source)
    try:
        return ir.from_proto(onnx.load_model_from_string(content))
    except (DecodeError, ValueError, TypeError, AttributeError) as error:
        raise ModelError("the model cannot be read", where=source, why="its reader sent no model") from error


def _shape(raw: InputShape) -> list[int] | dict[str, list[int]]:
    try:
        found = values.input_shape(raw)
        return (
            {name: list(sizes) for name, sizes in found.items()} if isinstance(found, dict) else list(found)
        )
    except NotAdmitted as error:
        raise UsageError(f"input shape: {error}") from None
