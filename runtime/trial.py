"""The first run of a model file from elsewhere: in a child process with limits, before anything else here runs it.

Measuring has processes of its own, but no limits: a network may well take an hour there. Whether a file can be loaded and run at
all is found out here, and a file that crashes its engine is a ModelError.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.graph.errors import ModelError, UsageError
from edgec.graph.foreign import Child, Loading
from edgec.graph.listener import READING, RUNNING, Listener


def try_file(path: Path, engine: str | None, loading: Loading) -> None:
    """Load ``path`` and run it once on made-up inputs, in a child process; nothing where ``loading`` is not isolated.

    Raises ModelError for a file that cannot be run, that crashes its engine, or that breaks a limit. An engine that is not here
    is not found out about here: the device may have it.
    """
    if not loading.isolated:
        return
    arguments = {"path": str(path), "engine": engine}
    with Child(
        "edgec.runtime.trial:run",
        arguments,
        where=str(path),
        seconds=loading.seconds,
        memory=loading.bytes,
        patient=loading.timeout is None,
    ) as child:
        child.result()


def run(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """The child's part of `try_file`."""
    from edgec.graph.load import check_file
    from edgec.runtime.agent.base import AgentError
    from edgec.runtime.agent.engines import made_up_feeds, open_engine

    path, engine = Path(arguments["path"]), arguments["engine"]
    listener.stage(READING)
    listener.size(check_file(path))
    if path.suffix == ".onnx":
        _check_onnx(path, listener)
    try:
        listener.stage("loading it into its engine")
        opened = open_engine(str(path), engine, 1, {})
        listener.stage(RUNNING)
        opened.feed(made_up_feeds(opened))
        opened.invoke()
    except AgentError as error:
        if error.kind == "model":
            raise ModelError(str(error)) from error
        if error.kind == "usage":
            raise UsageError(str(error)) from error
    except (ValueError, RuntimeError, TypeError) as error:
        why = " ".join(str(error).split())[:300]
        raise ModelError("it cannot be run", where=str(path), why=why) from error
    return b""


def _check_onnx(path: Path, listener: Listener) -> None:
    """The engine opens the data beside the model by itself: where that lies, and the model's form, are checked first."""
    from edgec.graph.boundary import reading
    from edgec.graph.load import read
    from edgec.graph.wellformed import check_form

    model = read(path, listener=listener)
    with reading(model, where=str(path)):
        check_form(model)
