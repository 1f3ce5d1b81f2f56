"""Hostile model files, each made by a few lines: what the fuzzer and 6,000 inputs before it found, by kind."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import parse

Case = tuple[Callable[[Path], list[str]], int, str]
"""(write the input into a folder and give the arguments, exit code, what the message says)."""

CONV = "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w> {{ y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]{}>(x, w) }}"
INSPECT = ["inspect", "net.onnx"]
COMPILE = [
    "compile",
    "net.onnx",
    "--data",
    "random",
    "--samples",
    "4",
    "--precision",
    "int8",
    "--no-bench",
    "-o",
    "out",
]


def saved(model: onnx.ModelProto, *argv: str) -> Callable[[Path], list[str]]:
    """Inspect ``model``, or do with it what ``argv`` says."""

    def write(folder: Path) -> list[str]:
        (folder / "net.onnx").write_bytes(model.SerializeToString())
        return list(argv) or INSPECT

    return write


def text(source: str, *argv: str) -> Callable[[Path], list[str]]:
    return saved(parse(source), *argv)


def spoilt(change: Callable[[onnx.ModelProto], object], *argv: str) -> Callable[[Path], list[str]]:
    """A sound Conv with one change."""
    model = parse(CONV.format(""))
    change(model)
    return saved(model, *argv)


def external(location: str, **more: str) -> Callable[[Path], list[str]]:
    """The Conv whose weight lies elsewhere; ``w.bin`` holds it."""

    def write(folder: Path) -> list[str]:
        model = parse(CONV.format(""))
        weight = model.graph.initializer[0]
        (folder / "w.bin").write_bytes(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            weight.external_data.add(key=key, value=value)
        return saved(model)(folder)

    return write


def place_of_data(place: str) -> onnx.ModelProto:
    """A model with data outside that onnx's own loader does not look at: in a subgraph, or in a Constant."""
    tensor = numpy_helper.from_array(np.ones(8, np.float32), "c")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    x, y = (helper.make_tensor_value_info(name, 1, [1, 8]) for name in "xy")
    if place == "constant":
        nodes = [constant, helper.make_node("Add", ["x", "c"], ["y"])]
    else:
        body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, [8])])
        flag = helper.make_node("Constant", [], ["f"], value=numpy_helper.from_array(np.array(True)))
        branch = helper.make_node("If", ["f"], ["t"], then_branch=body, else_branch=body)
        nodes = [flag, branch, helper.make_node("Add", ["x", "t"], ["y"])]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )


def ifs(model: onnx.ModelProto) -> None:
    """An If without a branch in front of the Conv."""
    model.graph.node.add().CopyFrom(helper.make_node("If", ["x"], ["q"]))


class Payload:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, ("executed", "w")


def zip_map(folder: Path) -> list[str]:
    """Class scores by name, as a classifier of scikit-learn ends."""
    y = helper.make_value_info(
        "y",
        helper.make_sequence_type_proto(helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, []))),
    )
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, [1, 2])], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return saved(helper.make_model(graph, opset_imports=opsets))(folder)


def device(folder: Path) -> list[str]:
    (folder / "net.onnx").symlink_to("/dev/zero")
    return INSPECT


def archive(**files: bytes) -> Callable[[Path], list[str]]:
    """A .pt2 with these files."""

    def write(folder: Path) -> list[str]:
        with zipfile.ZipFile(folder / "net.pt2", "w") as out:
            for name, content in {
                "archive_format": b"pt2",
                "archive_version": b"0",
                "byteorder": b"little",
            }.items():
                out.writestr(f"net/{name}", content)
            for name, content in files.items():
                out.writestr(f"net/{name.replace('__', '/')}", content)
        return ["inspect", "net.pt2"]

    return write


def not_text(model: onnx.ModelProto, old: bytes, new: bytes) -> Callable[[Path], list[str]]:
    """Bytes in place of a name, of the same length."""

    def write(folder: Path) -> list[str]:
        (folder / "net.onnx").write_bytes(model.SerializeToString().replace(old, new))
        return INSPECT

    return write


EMPTY = (
    "net (float[N,3,8,8] x) => (float[{}] y) <float[4,3,3,3] w> {{ r = Conv<kernel_shape=[3,3]>(x, w) {} }}"
)
BOXES = (
    "g (float[1,6,4] boxes, float[1,1,6] scores) => (int64[K,3] y) { m = Constant<value_ints=[3]>() "
    "t = Constant<value_floats=[0.5]>() y = NonMaxSuppression(boxes, scores, m, t, t) }"
)
ROWS = (
    "net (float[1,3,8,8] x) => (float[K,4] y) <float[4,3,3,3] w> { r = Conv<kernel_shape=[3,3]>(x, w) "
    "k = Constant<value_float=1000.0>() m = Greater(r, k) i = NonZero(m) j = Transpose(i) y = Cast<to=1>(j) }"
)
NONE = "s = Constant<value_ints=[0]>() a = Constant<value_ints=[1]>() y = Slice(r, s, s, a)"

# (b) attributes that crash an engine, (c) what grows, (d) data outside and (e) errors of libraries: all kinds are in
# tests/graph/test_hostile.py; here the commonest of each go through the command line.
MODELS: dict[str, Case] = {
    "a: pickle as sample inputs": (
        archive(data__sample_inputs__model__pt=pickle.dumps(Payload()), models__model__json=b"{}"), 3, "net.pt2: ",
    ),
    "a: no program inside": (archive(), 3, "net.pt2: "),
    "a: program of another type": (archive(models__model__json=json.dumps([1]).encode()), 3, "net.pt2: "),
    "b: stride of 0": (text(CONV.format(", strides=[0,0]")), 3, r"node 'y' \(Conv\): strides = 0"),
    "b: batch_dims of INT64_MIN": (
        text("net (float[1,8] x, int64[1,1] i) => (float[1,1] y) { y = GatherND<batch_dims=-9223372036854775808>(x, i) }"),
        3, r"\(GatherND\): batch_dims",
    ),
    "b: If without a branch": (spoilt(ifs), 3, r"\(If\): it lacks"),
    "c: Range of 1e10": (
        text(
            "net (float[1,8] x) => (float[1,8] y) { a = Constant<value_float=0.0>() b = Constant<value_float=10000000000.0>() "
            "c = Constant<value_float=1.0>() r = Range(a, b, c) s = ReduceSum<keepdims=0>(r) y = Add(x, s) }"
        ),
        3, "Range",
    ),
    "c: device as a model": (device, 3, "net.onnx: "),
    "d: offset no number": (external("w.bin", offset="1e3"), 3, "offset"),
    "d: length of 20 digits": (external("./w.bin", length="9" * 20), 3, "length"),
    "d: kernel's memory": (external("/proc/self/mem", length="16"), 3, "outside"),
    "d: name without an end": (external("x" * 4000), 3, "cannot be read|outside|missing"),
    "d: in a Constant": (saved(place_of_data("constant")), 3, "outside"),
    "d: in a subgraph": (saved(place_of_data("subgraph")), 3, "outside"),
    "e: name is no text": (not_text(parse(CONV.format("")), b"Conv", b"C\xff\xfev"), 3, "is not text"),
    "e: output gone": (spoilt(lambda m: m.graph.node[0].ClearField("output")), 3, r"\(Conv\)|writes"),
    "e: type of a weight": (spoilt(lambda m: setattr(m.graph.initializer[0], "data_type", 7)), 3, "'w'"),
    "e: op of another world": (
        spoilt(lambda m: setattr(m.graph.node[0], "domain", "nobody.knows")), 3, "nobody.knows",
    ),
    "e: sequence at the output": (
        text("net (float[1,8] x) => (float[1,8] y) { s = SequenceConstruct(x) i = Constant<value_int=0>() y = SequenceAt(s, i) }",
             *COMPILE),
        0, "",
    ),
    "fuzz: sequence as an output": (
        text("net (float[1,8] x) => (seq(float[1,8]) y) { y = SequenceConstruct(x) }"), 3, "output 'y': only tensors",
    ),
    "fuzz: optional as an output": (
        text("net (float[1,8] x) => (optional(float[1,8]) y) { y = Optional(x) }"), 0, "",
    ),
    "fuzz: map as an output": (
        zip_map, 3, "",
    ),
    "fuzz: empty output": (text(EMPTY.format("N,0,6,6", NONE), *COMPILE), 3, "every sample needs its values"),
    "fuzz: empty output, pruned": (
        text(EMPTY.format("N,0,6,6", NONE), *COMPILE[:6], "--budget", "macs=50%", *COMPILE[-3:]), 3, "every sample needs",
    ),
    "fuzz: no rows for any sample": (text(ROWS, *COMPILE), 0, ""),
    "fuzz: rows by the data": (text(BOXES, *COMPILE), 3, "depends on the data|every sample needs its values"),
    "fuzz: columns by the data": (text(ROWS.replace("K,4", "4,K").replace("j = Transpose(i)", "j = Identity(i)")), 0, ""),
    "fuzz: scalar of every sample": (
        text("net (float[1,3,8,8] x) => (float y) <float[4,3,3,3] w> { r = Conv<kernel_shape=[3,3]>(x, w) "
             "y = ReduceSum<keepdims=0>(r) }", *COMPILE),
        0, "",
    ),
}  # fmt: skip
