"""Our files beside the official MLPerf Tiny ones for the same networks: bytes, and latency interleaved on one engine.

Each file runs in its own fresh interpreter in this one process, one thread; the two sides alternate, so that whatever
else the machine does hits both.

    python bench/tflite_official.py [--engine litert|tflite-runtime] [--rounds 300]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from tflite_networks import MODELS, NETWORKS, Network, interpreter, quantised, quiet

from edgec.compiler.emit.tflite import emit
from edgec.graph.tflite.read import read


def fill(engine: Any) -> None:
    rng = np.random.default_rng(0)
    for detail in engine.get_input_details():
        shape = tuple(detail["shape"])
        if detail["dtype"] == np.float32:
            engine.set_tensor(detail["index"], rng.random(shape, np.float32))
        else:
            engine.set_tensor(detail["index"], rng.integers(-128, 127, shape).astype(detail["dtype"]))


def interleaved(ours: bytes, theirs: bytes, engine: str, rounds: int) -> tuple[float, float, float]:
    """Median seconds of either side, and the median of the ratios of neighbouring pairs."""
    sides = [interpreter(data, engine) for data in (ours, theirs)]
    for side in sides:
        fill(side)
        for _ in range(20):
            side.invoke()
    start = time.perf_counter()
    sides[0].invoke()
    repeat = max(1, int(0.002 / max(time.perf_counter() - start, 1e-6)))
    times = np.empty((rounds, 2))
    for k in range(rounds):
        for s in (0, 1) if k % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(repeat):
                sides[s].invoke()
            times[k, s] = (time.perf_counter() - start) / repeat
    ratios = times[:, 0] / times[:, 1]
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(ratios))


def with_softmax(network: Network) -> Any:
    """The network, with the Softmax behind it that the official files end in (the ONNX ones stop at the logits)."""
    import onnx_ir as ir

    model = network.load()
    last = read((MODELS / f"{network.official}_float.tflite") if has_float(network) else int8_path(network))
    if last.operators[-1].code != "SOFTMAX" or model.graph.outputs[0].producer().op_type == "Softmax":
        return model
    logits = model.graph.outputs[0]
    node = ir.node("Softmax", inputs=[logits], attributes={"axis": -1}, name="softmax")
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = (
        "probabilities",
        logits.shape,
        logits.type,
    )
    model.graph.append(node)
    model.graph.outputs[:] = [node.outputs[0]]
    return model


def has_float(network: Network) -> bool:
    return (MODELS / f"{network.official}_float.tflite").exists()


def int8_path(network: Network) -> Any:
    return MODELS / f"{network.official}_int8.tflite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="litert")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    quiet()
    print(f"engine: {options.engine}, one thread\n")
    head = [
        "file",
        "ours B",
        "official B",
        "size ratio",
        "ours ms",
        "official ms",
        "latency ratio",
        "operators ours / official",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for network in NETWORKS:
        if network.official is None:
            continue
        model = with_softmax(network)
        pairs = [
            ("int8", emit(quantised(network, model, 32), precision="int8", io_layout="nhwc", io_type="int8"))
        ]
        if has_float(network):
            pairs.insert(0, ("float", emit(model, io_layout="nhwc")))
        for kind, ours in pairs:
            theirs = (MODELS / f"{network.official}_{kind}.tflite").read_bytes()
            a, b, ratio = interleaved(ours, theirs, options.engine, options.rounds)
            counts = f"{len(read(ours).operators)} / {len(read(theirs).operators)}"
            row = [f"{network.official} {kind}", len(ours), len(theirs), f"{len(ours) / len(theirs):.3f}"]
            row += [f"{1e3 * a:.3f}", f"{1e3 * b:.3f}", f"{ratio:.3f}", counts]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
