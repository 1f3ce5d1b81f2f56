"""Model files that were made to break their reader: each ends in one ModelError that says what and where.

The kinds come from fuzzing; each case is the smallest of its kind. Most of them never reach a library, so they run in this
process; what a library must see first runs in the child.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.graph import boundary
from edgec.graph.boundary import reading
from edgec.graph.cost import cost
from edgec.graph.errors import EdgecError, ModelError, UnsupportedError
from edgec.graph.foreign import load as load_foreign
from edgec.graph.load import load, read

HUGE = 2**63 - 1
Node = helper.make_node


def model(
    *nodes: onnx.NodeProto,
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    x: tuple[int, list[Any]] = (1, [1, 3, 8, 8]),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    """A model from x to y with its nodes and constants."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info("y", 1, [None] * 4)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def one(
    op: str, *inputs: str, constants: Mapping[str, Any] | None = None, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node 'n' that writes y."""
    return model(Node(op, inputs or ["x"], ["y"], "n", **attributes), constants=constants)


W = np.ones((4, 3, 3, 3), np.float32)


def conv(**attributes: Any) -> onnx.ModelProto:
    return one("Conv", "x", "w", constants={"w": W}, **attributes)


def changed(made: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    change(made)
    return made


def function(name: str, *calls: str, domain: str = "my") -> onnx.FunctionProto:
    values = ["a", *(f"v{i}" for i in range(len(calls) - 1)), "o"]
    nodes = [
        Node(call, [values[i]], [values[i + 1]], domain="" if call == "Relu" else "my")
        for i, call in enumerate(calls)
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function(domain, name, ["a"], ["o"], nodes, imports)


def subgraph(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), name, [], [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)]
    )


def nested(depth: int) -> onnx.GraphProto:
    body = subgraph("leaf", Node("Relu", ["x"], ["r0"]))
    for level in range(1, depth):
        other = subgraph(f"o{level}", Node("Neg", ["x"], [f"n{level}"]))
        body = subgraph(f"s{level}", Node("If", ["k"], [f"r{level}"], then_branch=body, else_branch=other))
    return body


def with_tensor(**fields: Any) -> onnx.ModelProto:
    """A Conv whose weight is a TensorProto with these fields."""
    made = conv()
    tensor = made.graph.initializer[0]
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return made


def without(attribute: str, made: onnx.ModelProto) -> onnx.ModelProto:
    node = next(node for node in made.graph.node if node.name == "n")
    kept = [one for one in node.attribute if one.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
    return made


def branching() -> onnx.ModelProto:
    sides = {
        f"{name}_branch": subgraph(name, Node(op, ["x"], [name]))
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    return model(Node("If", ["k"], ["y"], "n", **sides), constants={"k": np.array(True)})


def bad_name() -> bytes:
    content = conv().SerializeToString()
    return content.replace(b"\x01y", b"\x01\xb0")


def deep_protobuf() -> bytes:
    def field(number: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    inner = b""
    for _ in range(1000):
        inner = field(1, field(5, field(6, inner)))
    return field(7, inner) + field(8, b"\x10\x11")


def double(made: onnx.ModelProto, field: str) -> onnx.ModelProto:
    values = getattr(made.graph, field)
    values.add().CopyFrom(values[0])
    return made


NODE = r"node 'n' \("
CASES: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    # windows and numbers that libraries divide by, or index with
    "conv stride 0": (lambda: conv(strides=[0, 0]), NODE + r"Conv\): strides = 0"),
    "conv dilation 0": (lambda: conv(dilations=[0, 1]), NODE + r"Conv\): dilations = 0"),
    "conv group 0": (lambda: conv(group=0), NODE + r"Conv\): group = 0"),
    "conv negative kernel": (lambda: conv(kernel_shape=[-3, 3]), NODE + r"Conv\): kernel_shape = -3"),
    "conv huge stride": (lambda: conv(strides=[HUGE, 1]), NODE + r"Conv\): strides"),
    "conv huge pads": (lambda: conv(pads=[HUGE] * 4), NODE + r"Conv\): pads"),
    "conv large pads": (lambda: conv(pads=[20000] * 4), NODE + r"Conv\): it writes \d+ elements"),
    "conv million pads": (lambda: conv(pads=[1] * 100_000), NODE + r"Conv\): its window"),
    "conv three strides": (lambda: conv(strides=[1, 1, 1], kernel_shape=[3, 3]), NODE + r"Conv\): its window"),
    "average pool stride 0": (
        lambda: one("AveragePool", kernel_shape=[2, 2], strides=[0, 0]),
        NODE + r"AveragePool\): strides = 0",
    ),
    "max pool dilation": (lambda: one("MaxPool", kernel_shape=[2, 2], dilations=[0, 0]), NODE + "MaxPool"),
    "depth to space 0": (lambda: one("DepthToSpace", blocksize=0), NODE + r"DepthToSpace\): blocksize = 0"),
    "gather nd batch": (
        lambda: one("GatherND", "x", "i", constants={"i": [[0]]}, batch_dims=-(2**63)),
        NODE + r"GatherND\): batch_dims",
    ),
    "arg max axis": (lambda: one("ArgMax", axis=9), "axis"),
    "arg max far axis": (lambda: one("ArgMax", axis=HUGE), NODE + r"ArgMax\): axis"),
    "concat axis": (lambda: one("Concat", "x", "x", axis=-(2**63)), NODE + r"Concat\): axis"),
    # attributes, operands
    "if without a branch": (lambda: without("then_branch", branching()), NODE + r"If\): it lacks .*then_branch"),
    "if without branches": (lambda: without("else_branch", branching()), NODE + r"If\): it lacks .*else_branch"),
    "constant without a value": (
        lambda: model(Node("Constant", [], ["k"], "n"), Node("Add", ["x", "k"], ["y"])),
        NODE + r"Constant\): a constant has one value",
    ),
    "attribute of another type": (lambda: one("Concat", "x", "x", axis=1.5), NODE + r"Concat\): its attribute 'axis'"),
    "attribute twice": (
        lambda: changed(conv(group=1), lambda m: m.graph.node[0].attribute.add().CopyFrom(m.graph.node[0].attribute[0])),
        NODE + r"Conv\): its attribute 'group' stands twice",
    ),
    "too few inputs": (lambda: one("Conv", "x"), NODE + r"Conv\): wrong number of inputs"),
    "input left out": (lambda: one("Conv", "", "x"), NODE + r"Conv\): its input 0 is missing"),
    "too many outputs": (
        lambda: changed(conv(), lambda m: m.graph.node[0].output.append("z")),
        NODE + r"Conv\): too many outputs",
    ),
    "no op type": (lambda: changed(conv(), lambda m: m.graph.node[0].ClearField("op_type")), "no op type"),
    "writes nothing": (
        lambda: changed(conv(), lambda m: m.graph.node[0].ClearField("output")),
        r"node 'n' \(Conv\): it writes nothing",
    ),
    # names
    "cycle": (
        lambda: model(Node("Add", ["x", "b"], ["a"]), Node("Relu", ["a"], ["b"]), Node("Relu", ["b"], ["y"])),
        "topologically sorted",
    ),
    "missing input": (lambda: one("Add", "x", "nobody"), NODE + r"Add\): nothing writes its input 'nobody'"),
    "missing output": (lambda: changed(conv(), lambda m: setattr(m.graph.output[0], "name", "q")), "output 'q'"),
    "value twice": (lambda: model(Node("Relu", ["x"], ["y"], "a"), Node("Neg", ["x"], ["y"], "n")), NODE + "Neg"),
    "writes an input": (lambda: model(Node("Relu", ["x"], ["x"], "n"), Node("Neg", ["x"], ["y"])), NODE + "Relu"),
    "writes a constant": (lambda: changed(conv(), lambda m: m.graph.node.add().CopyFrom(Node("Neg", ["x"], ["w"], "k"))), "'k'"),
    "initialiser twice": (lambda: double(conv(), "initializer"), "two initialisers share a name: 'w'|'w': two init"),
    "input twice": (lambda: double(conv(), "input"), "two inputs"),
    "output twice": (lambda: double(conv(), "output"), "two outputs"),
    "output is an input": (lambda: changed(conv(), lambda m: setattr(m.graph.output[0], "name", "x")), "output 'x'"),
    "name is no text": (bad_name, "not text"),
    # tensors
    "negative dims": (lambda: with_tensor(dims=[4, -3, 3, 3]), "tensor 'w': its dimensions are impossible"),
    "overflowing dims": (lambda: with_tensor(dims=[2**31, 2**31, 4]), "tensor 'w': a tensor above 2 GB"),
    "dims above data": (lambda: with_tensor(dims=[4, 3, 300, 3]), "tensor 'w': its data does not fit"),
    "dims below data": (lambda: with_tensor(dims=[4, 2, 3, 3]), "tensor 'w': its data does not fit"),
    "hundred axes": (lambda: with_tensor(dims=[1] * 100 + [108]), "tensor 'w': its dimensions are impossible"),
    "unknown type": (lambda: with_tensor(data_type=99), "tensor 'w': its element type"),
    "undefined type": (lambda: with_tensor(data_type=0), "tensor 'w': its element type"),
    "text as weights": (lambda: with_tensor(data_type=TensorProto.STRING), "tensor 'w': its element type"),
    "constant's dims": (
        lambda: changed(
            model(
                Node("Constant", [], ["k"], "n", value=numpy_helper.from_array(W)), Node("Conv", ["x", "k"], ["y"])
            ),
            lambda m: m.graph.node[0].attribute[0].t.dims.append(2),
        ),
        NODE + r"Constant\): its data does not fit",
    ),
    "sparse indices outside": (
        lambda: changed(
            conv(),
            lambda m: m.graph.sparse_initializer.append(
                helper.make_sparse_tensor(
                    helper.make_tensor("sp", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [10**9]), [4]
                )
            ),
        ),
        "sparse tensor",
    ),
    # sizes
    "range": (
        lambda: model(
            Node("Range", ["a", "b", "c"], ["r"], "n"), Node("Cast", ["r"], ["y"], to=1),
            constants={"a": 0, "b": 10**10, "c": 1},
        ),
        NODE + r"Range\): it writes 10000000000 elements",
    ),
    "constant of shape": (
        lambda: one("ConstantOfShape", "s", constants={"s": [10**5, 10**5]}),
        NODE + r"ConstantOfShape\): it writes 10000000000 elements",
    ),
    "expand": (lambda: one("Expand", "x", "s", constants={"s": [10**5, 3, 8000, 8]}), "x|Expand"),
    "tile": (lambda: one("Tile", "x", "s", constants={"s": [10**4, 100, 100, 1]}), NODE + r"Tile\): it writes"),
    "resize": (
        lambda: one("Resize", "x", "", "", "s", constants={"s": [1, 3, 80000, 80000]}),
        NODE + r"Resize\): it writes",
    ),
    "pad": (lambda: one("Pad", "x", "s", constants={"s": [0, 0, 10**5, 10**5] * 2}), NODE + r"Pad\): it writes"),
    "input of 10 GB": (lambda: model(Node("Relu", ["x"], ["y"]), x=(1, [1, 3, 30000, 30000])), "input 'x': it is above"),
    "input of size 0": (lambda: model(Node("Relu", ["x"], ["y"]), x=(1, [1, 0, 8, 8])), "input 'x': axis 1"),
    "input of no type": (lambda: model(Node("Relu", ["x"], ["y"]), x=(99, [1, 3])), "input 'x': its element type 99"),
    "output of another type": (lambda: one("ArgMax", axis=1), NODE + r"ArgMax\): it writes INT64 where .* FLOAT"),
    "text input": (lambda: model(Node("Identity", ["x"], ["y"]), x=(8, [1, 3, 8, 8])), ""),
    # structure
    "opset 0": (lambda: model(Node("Relu", ["x"], ["y"]), opset=0), "opset 0"),
    "opset -1": (lambda: model(Node("Relu", ["x"], ["y"]), opset=-1), "opset -1"),
    "opset of the future": (lambda: model(Node("Relu", ["x"], ["y"]), opset=999_999), "opset 999999 is not known"),
    "ir version 999": (lambda: changed(conv(), lambda m: setattr(m, "ir_version", 999)), "ir_version"),
    "function calls itself": (
        lambda: model(Node("F", ["x"], ["y"], domain="my"), functions=(function("F", "F"),)),
        "function 'F': a function calls itself",
    ),
    "functions call each other": (
        lambda: model(
            Node("F", ["x"], ["y"], domain="my"), functions=(function("F", "Relu", "G"), function("G", "F"))
        ),
        "a function calls itself",
    ),
    "function twice": (
        lambda: model(Node("F", ["x"], ["y"], domain="my"), functions=(function("F", "Relu"),) * 2),
        "two functions",
    ),
    "loop without an end": (
        lambda: model(
            Node(
                "Loop", ["", "k", "v"], ["y"], "n",
                body=helper.make_graph(
                    [Node("Identity", ["c"], ["d"]), Node("Identity", ["s"], ["t"])],
                    "body",
                    [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9), ("s", 1))],
                    [helper.make_tensor_value_info(n, t, []) for n, t in (("d", 9), ("t", 1))],
                ),
            ),
            constants={"k": np.array(True), "v": np.float32(1)},
        ),
        NODE + "Loop",
    ),
    "deep ifs": (
        lambda: model(
            Node("If", ["k"], ["y"], "n", then_branch=nested(26), else_branch=nested(2)),
            constants={"k": np.array(True)},
        ),
        "nested too deeply|not an ONNX file",
    ),
    "deep protobuf": (deep_protobuf, "not an ONNX file"),
    "no graph": (lambda: onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]), "no graph"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "why"), CASES.values(), ids=CASES.keys())
def test_hostile_models_end_in_one_error(
    make: Callable[[], onnx.ModelProto | bytes], why: str, tmp_path: Path
) -> None:
    made = make()
    (tmp_path / "m.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    with pytest.raises(EdgecError) as caught:
        load(tmp_path / "m.onnx")
    assert caught.value.exit_code == 3
    assert re.search(why, str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < 1500


def test_sound_models_with_unusual_forms_load(tmp_path: Path) -> None:
    """What the checks must let through: subgraphs, functions, sparse constants, negative sizes for 'open', windows of defaults."""
    sound = {
        "if": branching(),
        "function": model(Node("F", ["x"], ["y"], domain="my"), functions=(function("F", "Relu"),)),
        "open": model(Node("Relu", ["x"], ["y"]), x=(1, [-1, 3, 8, 8])),
        "pool": one("MaxPool", kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
    }
    for name, made in sound.items():
        (tmp_path / f"{name}.onnx").write_bytes(made.SerializeToString())
        assert load(tmp_path / f"{name}.onnx").graph.num_nodes() == 1


@pytest.mark.foreign
def test_a_fold_that_never_ends_is_stopped(tmp_path: Path) -> None:
    """The end of the range is computed, so that no look at the file tells its size."""
    made = model(
        Node("Mul", ["b", "b"], ["e"]), Node("Range", ["a", "e", "c"], ["r"]),
        Node("ReduceSum", ["r"], ["s"], keepdims=0), Node("Cast", ["s"], ["t"], to=1), Node("Add", ["x", "t"], ["y"]),
        constants={"a": 0, "b": 10**6, "c": 1},
    )  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=r"more (memory )?than|crashed") as caught:
        load_foreign(tmp_path / "m.onnx", load_timeout=60, load_memory=1 << 30)
    assert str(tmp_path / "m.onnx") in str(caught.value.where)


def external(folder: Path, data: bytes | None = W.tobytes(), **entries: str) -> Path:
    """A model whose weight lies in w.bin, with these entries."""
    made = conv()
    _externalise(made.graph.initializer[0], entries)
    return _written(made, folder, data)


def _externalise(tensor: onnx.TensorProto, entries: Mapping[str, str]) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _written(made: onnx.ModelProto, folder: Path, data: bytes | None = W.tobytes()) -> Path:
    folder.mkdir(exist_ok=True)
    if data is not None:
        (folder / "w.bin").write_bytes(data)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    return folder / "m.onnx"


EXTERNAL = {
    "no location": ({}, "names no file"),
    "empty location": ({"location": ""}, "names no file"),
    "null byte": ({"location": "w.bin\0"}, "names no file"),
    "the folder": ({"location": "."}, "outside"),
    "parent": ({"location": "../w.bin"}, "outside"),
    "parent inside": ({"location": "sub/../../w.bin"}, "outside"),
    "absolute": ({"location": "/etc/passwd"}, "outside"),
    "device": ({"location": "/dev/zero"}, "outside"),
    "windows drive": ({"location": "C:\\w.bin"}, "outside"),
    "windows parent": ({"location": "..\\w.bin"}, "outside"),
    "windows share": ({"location": "\\\\host\\w.bin"}, "outside"),
    "missing": ({"location": "v.bin"}, "is missing"),
    "long": ({"location": "a" * 5000}, "cannot be read|outside"),
    "itself": ({"location": "m.onnx"}, "the model file itself"),
    "offset text": ({"location": "w.bin", "offset": "1e3"}, "offset .* no number"),
    "offset negative": ({"location": "w.bin", "offset": "-4"}, "offset .* no number"),
    "offset with blanks": ({"location": "w.bin", "offset": " 4"}, "offset .* no number"),
    "offset huge": ({"location": "w.bin", "offset": "9" * 18}, "truncated"),
    "offset above all": ({"location": "w.bin", "offset": "9" * 40}, "offset .* no number"),
    "length text": ({"location": "w.bin", "length": "all"}, "length .* no number"),
    "length negative": ({"location": "w.bin", "length": "-1"}, "length .* no number"),
    "length 0": ({"location": "w.bin", "length": "0"}, "does not fit"),
    "length above": ({"location": "w.bin", "length": "433"}, "truncated"),
    "length below": ({"location": "w.bin", "length": "428"}, "does not fit"),
    "rest below": ({"location": "w.bin", "offset": "4"}, "does not fit"),
}


@pytest.mark.parametrize(("entries", "why"), EXTERNAL.values(), ids=EXTERNAL.keys())
def test_external_data_that_is_refused(entries: dict[str, str], why: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())  # what a way out would find
    with pytest.raises(ModelError, match=why) as caught:
        load(external(tmp_path / "inside", **entries))
    assert "tensor 'w'" in str(caught.value.where)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "w.bin"},
        {"location": "./w.bin", "offset": "0", "length": "432"},
        {"location": ".\\w.bin"},
    ],
)
def test_external_data_that_is_read(entries: dict[str, str], tmp_path: Path) -> None:
    assert cost(load(external(tmp_path, **entries))).params == 108


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_out(path: Path) -> None:
    (path.parent.parent / "w.bin").write_bytes(W.tobytes())
    path.symlink_to("../w.bin")


def _link_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_fifo, "no plain file but a FIFO"),
        (Path.mkdir, "it is a folder"),
        (_link_out, "outside"),
        (lambda path: path.symlink_to("/dev/zero"), "outside"),
        (_link_loop, "outside|cannot be read"),
    ],
)
def test_external_data_that_is_no_plain_file(
    make: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    make(folder / "w.bin")
    with pytest.raises(ModelError, match=why):
        load(external(folder, None, location="w.bin"))


def places() -> Iterator[tuple[str, onnx.ModelProto, onnx.TensorProto]]:
    """Every place where a tensor can stand."""
    made = conv()
    yield "initialiser", made, made.graph.initializer[0]
    made = model(
        Node("Constant", [], ["k"], "n", value=numpy_helper.from_array(W)), Node("Conv", ["x", "k"], ["y"])
    )
    yield "constant", made, made.graph.node[0].attribute[0].t
    made = branching()
    made.graph.node[0].attribute[0].g.initializer.append(numpy_helper.from_array(W, "u"))
    yield "subgraph", made, made.graph.node[0].attribute[0].g.initializer[0]
    body = function("F", "Relu")
    body.node.insert(0, Node("Constant", [], ["k"], value=numpy_helper.from_array(W)))
    made = model(Node("F", ["x"], ["y"], domain="my"), functions=(body,))
    yield "function", made, made.functions[0].node[0].attribute[0].t
    made = conv()
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sp", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [4]
    )
    made.graph.sparse_initializer.append(sparse)
    yield "sparse", made, made.graph.sparse_initializer[0].values
    made = conv()
    made.graph.node[0].attribute.append(helper.make_attribute("extra", [numpy_helper.from_array(W)]))
    yield "list", made, made.graph.node[0].attribute[-1].tensors[0]


@pytest.mark.parametrize(("made", "tensor"), [p[1:] for p in places()], ids=[p[0] for p in places()])
def test_external_data_is_found_wherever_a_tensor_stands(
    made: onnx.ModelProto, tensor: onnx.TensorProto, tmp_path: Path
) -> None:
    data = tensor.raw_data or W.tobytes()
    _externalise(tensor, {"location": "../w.bin"})
    with pytest.raises(ModelError, match="outside"):
        read(_written(made, tmp_path, data))
    tensor.external_data[0].value = "w.bin"
    found = read(_written(made, tmp_path, data[:4] if tensor.name == "sp" else data))
    assert b"w.bin" not in found.SerializeToString()


def test_data_above_2_gb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    made = model(Node("Add", ["x", "a"], ["t"]), Node("Add", ["t", "b"], ["y"]))
    for name in ("a", "b"):
        tensor = made.graph.initializer.add(name=name, data_type=1, dims=[400_000_000])
        _externalise(tensor, {"location": "w.bin"})
    file = _written(made, tmp_path, None)
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(1_600_000_000)
    with pytest.raises(ModelError, match="above 2 GB"):
        load(file)


def _sparse_file(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(10 << 30)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".tflite"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_fifo, "plain file"),
        (Path.mkdir, "folder|plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "plain file"),
        (_sparse_file, "2 GB"),
        (lambda path: path.symlink_to("nowhere"), "(?i)no such file"),
    ],
)
def test_what_is_no_plain_file_is_no_model(
    make: Callable[[Path], object], why: str, suffix: str, tmp_path: Path
) -> None:
    from edgec.graph.tflite.read import read as read_tflite

    path = tmp_path / f"m{suffix}"
    make(path)
    with pytest.raises(ModelError, match=why):
        read_tflite(path) if suffix == ".tflite" else load(path)


def test_what_a_library_raises_is_the_model_s_fault_and_names_the_node() -> None:
    node = Node("Relu", ["x"], ["y"], "r")
    with pytest.raises(ModelError) as caught, reading(conv(), where="m.onnx"):
        _library_call(node)
    assert caught.value.where == "m.onnx: node 'r' (Relu)"
    assert "AttributeError" in str(caught.value)


def _library_call(node: onnx.NodeProto) -> None:
    assert node.name
    numpy_helper.to_array("not a model")  # type: ignore[arg-type]  # fails inside onnx


def test_what_our_own_code_raises_is_our_fault_where_the_model_is_valid() -> None:
    ours = compile("raise KeyError('ours')", str(Path(boundary.__file__).resolve()), "exec")
    with pytest.raises(KeyError), reading(conv()):
        exec(ours)
    with pytest.raises(ModelError), reading(one("Conv", "x")):
        exec(ours)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "more memory"),
        (RecursionError(), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xb0", 0, 1, "x"), "not text"),
    ],
)
def test_errors_that_mean_the_file_whoever_raises_them(error: Exception, why: str) -> None:
    with pytest.raises(ModelError, match=why), reading(conv()):
        raise error


def test_an_unsupported_model_stays_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="no"), reading(conv()):
        raise UnsupportedError("no")


def test_a_name_that_is_no_text_is_shortened(tmp_path: Path) -> None:
    long = changed(conv(), lambda m: setattr(m.graph.node[0], "name", "n" * 60_000)).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(long.replace(b"nnnn", b"nn\xb0n", 1))
    with pytest.raises(ModelError, match="not text") as caught:
        load(tmp_path / "net.onnx")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("inputs", ["", "float[1] c"], ids=["none", "initialisers only"])
def test_a_model_without_inputs_is_refused(inputs: str, tmp_path: Path) -> None:
    """Files of old opsets list their initialisers among the inputs."""
    text = f"net ({inputs}) => (float[1] y) <float[1] c = {{1}}> {{ y = Neg(c) }}"
    onnx.save(
        onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}'), tmp_path / "net.onnx"
    )
    with pytest.raises(ModelError, match="the model takes no input"):
        load(tmp_path / "net.onnx")
