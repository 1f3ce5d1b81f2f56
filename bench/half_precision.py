"""How far fp16 moves a network's answers: what a bundle's self-test allows a GPU is set by it (docs/jetson.md).

python bench/half_precision.py [NETWORK:SAMPLES ...]      a table; needs ../shared/data

Every float that a node makes is rounded to fp16 and back, in onnxruntime with its optimisations off: in the float file, and in
the int8 file of the tensorrt dialect. Answers are compared as `deploy/bundle/selftest.py` does it, over groups of four
calibration samples; beside it stands the least distance to the answers of the next sample, which is what a wrong answer is.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
from tensorrt import quantised
from tflite_networks import by_name

from edgec.compiler.emit.onnx import emit
from edgec.graph.execute import session
from edgec.targets.jetpack import jetpack

Array = np.ndarray[Any, np.dtype[Any]]
DEFAULT = ("resnet20_cifar10:100", "vww_mobilenet_v1_0.25_96:100", "mobilenet_v1_0.75_224:24")
GROUP, CALIBRATION, RELEASE = 4, 128, "6.2"


def in_halves(made: bytes) -> onnx.ModelProto:
    """The file with every float tensor that a node makes rounded to fp16."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(made))
    typed = [*model.graph.value_info, *model.graph.output]
    floats = {one.name for one in typed if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    nodes = []
    for node in model.graph.node:
        changed = [name for name in node.output if name in floats]
        whole = {name: f"{name}/whole" for name in changed}
        node.output[:] = [whole.get(name, name) for name in node.output]
        nodes.append(node)
        for name in changed:
            half = f"{name}/half"
            nodes.append(onnx.helper.make_node("Cast", [whole[name]], [half], to=onnx.TensorProto.FLOAT16))
            nodes.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return model


def answers(model: onnx.ModelProto | bytes, rows: list[dict[str, Array]]) -> list[Array]:
    """(samples, ...) of each output."""
    running = session(model, fused=False)
    return [np.concatenate(parts) for parts in zip(*(running.run(None, row) for row in rows), strict=True)]


def distances(have: list[Array], want: list[Array]) -> list[float]:
    """By group: the root mean square of the differences over that of the outputs, of the worst output."""
    found = []
    for start in range(0, len(want[0]) - GROUP + 1, GROUP):
        part = slice(start, start + GROUP)
        pairs = [(a[part].astype(float), b[part].astype(float)) for a, b in zip(have, want, strict=True)]
        found.append(max(float(np.sqrt(((a - b) ** 2).sum() / ((b**2).sum() or 1.0))) for a, b in pairs))
    return found


def main() -> None:
    """Print the table."""
    print("| network | file | samples | median | largest | another sample's |\n|---|---|---:|---:|---:|---:|")
    for asked in sys.argv[1:] or DEFAULT:
        name, _, count = asked.partition(":")
        network = by_name(name)
        model = network.load()
        data = network.calibration_data(model, CALIBRATION)
        rows = list(islice(data.batches(1), int(count or GROUP)))
        files = {
            "float": emit(model, batch=1),
            "int8": emit(
                quantised(model, data, "jetson-orin-nano", RELEASE), opset=jetpack(RELEASE).opset, batch=1
            ),
        }
        for kind, made in files.items():
            want = answers(made, rows)
            found = distances(answers(in_halves(made), rows), want)
            wrong = min(distances([np.roll(one, 1, axis=0) for one in want], want))
            cells = f"{np.median(found):.2%} | {max(found):.2%} | {wrong:.0%}"
            print(f"| {name} | {kind} | {len(rows)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
