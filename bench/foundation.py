"""Loading: every float network of the shared data, its canonical graph, and how exactly the emitted file repeats it.

Each network is loaded, emitted as ONNX and run in onnxruntime on real inputs, one at a time and (where the batch axis could be
freed) five at once; the figure is the largest difference to the original file over the largest magnitude of that output.

usage: python bench/foundation.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgec.compiler.emit.onnx import emit
from edgec.graph.data import open_data
from edgec.graph.equivalence import worst_difference
from edgec.graph.execute import session
from edgec.graph.load import load
from tests.graph.test_load import REAL

LIMIT = 1e-4


def shared_folder() -> Path:
    """The shared data: EDGEC_SHARED, or `../shared` beside the repository."""
    import os

    return Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


def main() -> int:
    models = shared_folder() / "data" / "models"
    print(
        "| network | nodes in the file | canonical | batch | seconds to load | batch 1 | batch 5 |\n|---|---|---|---|---|---|---|"
    )
    load(models / "kws_dscnn.onnx")  # imports, so that the times below are those of loading
    failed = 0
    for name, (where, preprocess) in REAL.items():
        file = models / f"{name}.onnx"
        start = time.perf_counter()
        model = load(file)
        seconds = time.perf_counter() - start
        samples = next(open_data(shared_folder() / "data" / where, model, preprocess, samples=5).batches(5))
        original, emitted = session(onnx.load(file)), session(emit(model))
        (x,) = samples.values()
        rows = [original.run(None, {original.get_inputs()[0].name: x[i : i + 1]}) for i in range(5)]
        feed = emitted.get_inputs()[0].name
        ones = [emitted.run(None, {feed: x[i : i + 1]}) for i in range(5)]
        one = max(
            worst_difference(a, b)
            for row, got in zip(rows, ones, strict=True)
            for a, b in zip(row, got, strict=True)
        )
        free = model.graph.inputs[0].shape[0] != 1
        stacked = [np.concatenate(column) for column in zip(*rows, strict=True)]
        five = max(map(worst_difference, stacked, emitted.run(None, {feed: x}))) if free else float("nan")
        failed += one > LIMIT or five > LIMIT
        nodes = len(onnx.load(file).graph.node)
        batch = "free" if free else "1"
        print(
            f"| {name} | {nodes} | {model.graph.num_nodes()} | {batch} | {seconds:.2f} | {one:.1e} | {five:.1e} |",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
