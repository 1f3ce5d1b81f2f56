"""Every network in fp32, fp16 and int8 on every engine, against onnxruntime on the same graph.

Differences in fp32 and fp16 are relative: the norm of the difference over the norm of the output, the worst of all
inputs and outputs (in brackets the worst single value, of the output's range). int8 ones are in codes against the int8
ONNX twin as onnxruntime runs it; an output that stays float is measured in 1/255 of its range. Accuracy is on the whole
evaluation data, in LiteRT with XNNPACK.

    python bench/tflite_fidelity.py [NETWORK...] [--inputs 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tflite_networks import (
    ENGINES,
    NETWORKS,
    Network,
    Run,
    by_name,
    onnx_runner,
    quantised,
    quiet,
    tflite_runner,
)

from edgec.compiler.emit.tflite import emit
from edgec.graph.data import Dataset
from edgec.graph.tflite.read import read

Array = np.ndarray[Any, np.dtype[Any]]
SHORT = {
    "litert": "XNNPACK",
    "litert-builtin": "built-in",
    "tflite-runtime": "2.14",
    "tflite-runtime-builtin": "2.14 built-in",
}


def scales(model: ir.Model) -> list[float | None]:
    """The scale of each output's codes; None where it is float."""
    found: list[float | None] = []
    for value in model.graph.outputs:
        node = value.producer()
        coded = node is not None and node.op_type == "DequantizeLinear"
        found.append(float(node.inputs[1].const_value.numpy()) if coded else None)  # type: ignore[union-attr]
    return found


def relative(data: Dataset, want: Run, have: Run) -> str:
    """Worst relative difference of any output by norm, and by single values."""
    norm = single = 0.0
    for feed in data.batches(1):
        for a, b in zip(want(feed), have(feed), strict=True):
            norm = max(norm, float(np.linalg.norm(a - b) / np.linalg.norm(a)))
            single = max(single, float(np.abs(a - b).max() / np.abs(a).max()))
    return f"{norm:.1e} ({single:.1e})"


def in_codes(
    data: Dataset, want: Run, have: Run, steps: Sequence[float | None]
) -> tuple[float, float, float]:
    """(share of equal codes, share within one, worst) over all outputs."""
    found = [
        np.rint(np.abs(a - b) / (step or np.ptp(a) / 255)).reshape(-1)
        for feed in data.batches(1)
        for a, b, step in zip(want(feed), have(feed), steps, strict=True)
    ]
    gaps = np.concatenate(found)
    return float(np.mean(gaps == 0)), float(np.mean(gaps <= 1)), float(gaps.max())


def accuracy(network: Network, data: Dataset, run: Run) -> float:
    """Top-1 in percent."""
    labels = data.labels
    right = 0
    for k, feed in enumerate(data.batches(1)):
        right += int(np.argmax(run(feed)[0].reshape(-1)) - network.class_offset == labels[k])
    return 100.0 * right / len(data)


def timed_emit(model: ir.Model, **options: Any) -> tuple[bytes, float]:
    data = emit(model, **options)
    start = time.perf_counter()
    again = emit(model, **options)
    seconds = time.perf_counter() - start
    if data != again:
        raise SystemExit("emission is not deterministic")
    return data, seconds


def report(network: Network, inputs: int) -> tuple[list[str], list[str]]:
    model = network.load()
    coded = quantised(network, model)
    names = [value.name or "" for value in model.graph.outputs]
    fp32, seconds = timed_emit(model)
    fp16, _ = timed_emit(model, precision="fp16")
    int8, _ = timed_emit(coded, precision="int8")
    nhwc = read(emit(model, io_layout="nhwc"))
    transposes = sum(op.code == "TRANSPOSE" for op in nhwc.operators)
    evaluation = network.evaluation_data(model)
    data = (evaluation or network.calibration_data(model, inputs)).take(inputs)
    reference, twin = onnx_runner(model), onnx_runner(coded)
    cells = [relative(data, reference, tflite_runner(fp32, e, names)) for e in ENGINES]
    half = relative(data, reference, tflite_runner(fp16, "litert", names))
    row = [network.name, *cells, half, str(transposes), str(len(nhwc.operators)), f"{seconds:.2f}"]
    row += [f"{len(b) / 1024:.0f}" for b in (fp32, fp16, int8)]
    steps = scales(coded)
    coded_row = [network.name]
    more = (evaluation or data) if network.name != "yolox_nano" else data
    for engine in ENGINES[:3]:
        sample = more if engine == "litert" else data
        equal, near, worst = in_codes(sample, twin, tflite_runner(int8, engine, names), steps)
        coded_row.append(f"{100 * equal:.1f} / {100 * near:.1f} / {worst:.0f}")
    if evaluation is not None:
        runs = (reference, tflite_runner(fp32, "litert", names), tflite_runner(fp16, "litert", names))
        runs += (twin, tflite_runner(int8, "litert", names))
        coded_row += [f"{accuracy(network, evaluation, run):.1f}" for run in runs]
    else:
        coded_row += ["-"] * 5
    return row, coded_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--inputs", type=int, default=16)
    options = parser.parse_args()
    quiet()
    networks = [by_name(n) for n in options.networks] or NETWORKS
    tables: tuple[list[list[str]], list[list[str]]] = ([], [])
    for network in networks:
        for table, row in zip(tables, report(network, options.inputs), strict=True):
            table.append(row)
    heads = (
        ["network", *(f"fp32 {SHORT[e]}" for e in ENGINES), "fp16",
         "TRANSPOSE", "operators", "emit s", "fp32 KiB", "fp16 KiB", "int8 KiB"],
        ["network", *(f"int8 {SHORT[e]}: equal % / within 1 % / worst" for e in ENGINES[:3]),
         "ONNX fp32", "fp32", "fp16", "ONNX int8", "int8"],
    )  # fmt: skip
    for head, table in zip(heads, tables, strict=True):
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in table:
            print("| " + " | ".join(row) + " |")
        print()


if __name__ == "__main__":
    main()
