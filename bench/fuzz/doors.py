"""Two ways in that no command has: data opened with a model at hand, and a board that answers what it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.compiler.cli.options import data_options, preprocessing
from edgec.runtime.devices.local import LocalDevice

NAME = "fuzz-data"


@click.command(NAME)
@click.argument("path")
@click.argument("model")
@click.option("--labels")
@data_options
def command(path: str, model: str, labels: str | None, **values: Any) -> None:
    """Open PATH as data for a canonical MODEL and read all of it, as compile does; the model's own loading is left out."""
    import onnx_ir as ir

    from edgec.graph.data import open_data
    from edgec.graph.preprocess import Preprocess

    preprocess = Preprocess(**preprocessing(values))
    options = {"samples": values["samples"], "skip_bad": values["skip_bad"], "labels": labels}
    data = open_data(path, ir.load(model), preprocess, seed=0, **options)
    print(len(data), data.fingerprint, data.skipped)
    for batch in data.batches(4):
        print({name: array.shape for name, array in batch.items()})


_ANSWER = """
[ -e endless ] && exec yes '{"artifacts": []}'
cat noise >&2
if [ "$1" = bench ]; then cat reply.bench; else cat reply; fi
exit "$(cat code)"
"""


class Liar(LocalDevice):
    """A board whose agent says what lies in the current folder, over a real pipe."""

    name = "ssh://pi@board"

    def agent_command(self) -> tuple[str, ...]:
        return ("/bin/sh", "-c", _ANSWER, "agent")


def open_liar(address: str) -> Liar:
    """In place of `edgec.runtime.devices.open_device`."""
    assert Path("reply").exists(), address
    return Liar()
