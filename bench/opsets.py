"""fp32 files in the opsets that Jetsons read (13, 17, 20) against the source model, both in onnxruntime as they are written.

    python bench/opsets.py [NAME ...] [--zoo]

Networks: those of EDGEC_SHARED (or `../shared`), and with ``--zoo`` those of `zoo_nets` by both of torch's exporters. The figure
is the largest difference over the largest magnitude of an output, on noise of unit variance; 1e-5 is the limit. A network that an
opset cannot hold says at which node.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import zoo
from tflite_networks import MODELS

from edgec.compiler.emit.onnx import emit
from edgec.graph.equivalence import random_inputs, worst_difference
from edgec.graph.errors import EdgecError
from edgec.graph.execute import session
from edgec.graph.load import load

OPSETS = (13, 17, 20)
LIMIT = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--zoo", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| network | " + " | ".join(f"opset {one}" for one in OPSETS) + " |\n|---|---:|---:|---:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files(Path(folder), given.zoo, given.names):
            cells = [cell(file, opset) for opset in OPSETS]
            worst = max([worst, *(float(one) for one in cells if one[0].isdigit())])
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    sys.exit(worst > LIMIT)


def files(folder: Path, with_zoo: bool, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The networks' files, by name: those of ``names``, or all."""
    for file in sorted(MODELS.glob("*.onnx")):
        if not names or file.stem in names:
            yield file.stem, file
    for name in zoo.networks() if with_zoo else ():
        for exporter in zoo.EXPORTERS:
            file = folder / "net.onnx"
            if names and name not in names:
                continue
            try:
                zoo.export(name, exporter, file)
            except Exception as error:  # what an exporter cannot write is no case of ours
                print(f"{name}, {exporter}: not exported: {error!r:.100}", file=sys.stderr)
                continue
            yield f"{name}, {exporter}", file


def cell(file: Path, opset: int) -> str:
    """The largest difference, or why there is no such file."""
    source = onnx.load(file)
    try:
        made = emit(load(file), opset=opset, batch=1)
    except EdgecError as error:
        return " ".join(str(error).split("\n")[0].split())
    feeds = random_inputs([one for one in source.graph.input if one.name not in weights(source)], 0)
    wanted = session(source, fused=False).run(None, feeds)
    target = session(made, fused=False)
    given = {one.name: value for one, value in zip(target.get_inputs(), feeds.values(), strict=True)}
    found = target.run(None, given)
    return f"{max(worst_difference(np.asarray(a), np.asarray(b)) for a, b in zip(wanted, found, strict=True)):.1e}"


def weights(model: onnx.ModelProto) -> set[str]:
    """Files of old exporters list their weights as inputs too."""
    return {one.name for one in model.graph.initializer}


if __name__ == "__main__":
    main()
