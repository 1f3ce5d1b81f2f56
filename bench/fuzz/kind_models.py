"""Cases of hostile ONNX files: changed networks, and every op with broken attributes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import mutate_onnx
import numpy as np
import onnx
import onnx.defs
import onnx.helper as oh
import onnx.numpy_helper as onh
import seeds
import walk
from cell import Cell, Plan, Stock
from wild import integer, scramble, special, splice

BAD_NAMES = (
    "-x.onnx",
    "a b.onnx",
    "[red]x.onnx",
    "[bold]x[.onnx",
    "\x1b[31mx.onnx",
    "a\nb.onnx",
    "é.onnx",
    "x.ONNX",
    ".onnx",
    "a:b.onnx",
    "x.tflite",
    "con.onnx",
    "%s.onnx",
    "$(id).onnx",
)

OPTIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (22, ("inspect", "{}")),
    (14, ("inspect", "{}", "--layers", "--groups", "--blocks")),
    (6, ("inspect", "{}", "--json", "--layers", "--groups", "--target", "rpi4")),
    (22, ("compile", "{}", "--data", "random", "--samples", "4", "--precision", "int8", "--no-bench", "-o", "out")),
    (10, ("compile", "{}", "--data", "random", "--samples", "8", "--budget", "macs=60%", "--no-bench", "-o", "out")),
    (8, ("compile", "{}", "--format", "onnx,tflite", "--no-bench", "-o", "out")),
    (4, ("compile", "{}", "--dry-run")),
    (9, ("verify", "{}", "{}", "--samples", "2")),
    (5, ("bench", "{}", "--runs", "1", "--seconds", "0")),
)  # fmt: skip


def command(rng: random.Random, name: str) -> tuple[str, ...]:
    """A command on the file ``name``."""
    weights, commands = zip(*OPTIONS, strict=True)
    (chosen,) = rng.choices(commands, weights)
    return tuple(name if word == "{}" else word for word in chosen)


def surroundings(cell: Cell) -> None:
    """What external data may point to: a file of weights, links, a pipe."""
    (cell.case / "w.bin").write_bytes(
        np.random.default_rng(0).standard_normal(4096).astype(np.float32).tobytes()
    )
    (cell.case / "folder").mkdir()
    (cell.case / "link.bin").symlink_to("../outside/secret.bin")
    (cell.case / "linked").symlink_to("../outside")
    (cell.case / "zero.bin").symlink_to("/dev/zero")
    os.mkfifo(cell.case / "pipe")


def changed(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A seed with one to four changes; some files are damaged as bytes after that, and some are no files at all."""
    surroundings(cell)
    name = rng.choice(seeds.NAMES)
    model = seeds.seed(name)
    done = [name, *mutate_onnx.mutate(rng, model, rng.choice((1, 1, 1, 1, 2, 2, 3)))]
    for tensor in walk.tensors(model):
        for entry in tensor.external_data:
            entry.value = entry.value.replace("OUTSIDE", str(cell.outside))
    data = model.SerializeToString()
    chance = rng.random()
    if chance < 0.08:
        data, how = scramble(rng, data)
        done.append(f"bytes: {how}")
    elif chance < 0.10:
        data = splice(rng, data, seeds.seed(rng.choice(seeds.NAMES)).SerializeToString())
        done.append("spliced")
    elif chance < 0.13:
        data, how = _invalid_text(rng, model)
        done.append(how)
    file = cell.case / (rng.choice(BAD_NAMES) if rng.random() < 0.04 else "net.onnx")
    file.write_bytes(data)
    if rng.random() < 0.015:
        done = [f"in place of the file: {special(rng, file, cell.outside)}"]
    return Plan(command(rng, file.name), tuple(done))


def _invalid_text(rng: random.Random, model: onnx.ModelProto) -> tuple[bytes, str]:
    """A name that is no UTF-8: protobuf will not write it, so it is put in afterwards."""
    names = sorted({name for one in walk.nodes(model) for name in (*one.output, one.op_type) if name})
    name = rng.choice(names or ["x"])
    bad = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x80"))
    data = model.SerializeToString()
    return data.replace(name.encode(), (bad * len(name))[: len(name.encode())]), f"{name!r} is no text"


def _plausible(
    rng: random.Random, formal: onnx.defs.OpSchema.FormalParameter, schema: onnx.defs.OpSchema
) -> tuple[str, bool]:
    """(type, is optional) for a formal parameter: float where it may be."""
    words = {formal.type_str} if formal.type_str.startswith(("tensor", "seq", "optional")) else set()
    for constraint in schema.type_constraints:
        if constraint.type_param_str == formal.type_str:
            words |= set(constraint.allowed_type_strs)
    for wanted in (
        "tensor(float)",
        "tensor(int64)",
        "tensor(bool)",
        "tensor(uint8)",
        "tensor(int32)",
        "tensor(string)",
    ):
        if wanted in words and rng.random() < 0.95:
            return wanted, formal.option == onnx.defs.OpSchema.FormalParameterOption.Optional
    return rng.choice(
        sorted(words) or ["tensor(float)"]
    ), formal.option == onnx.defs.OpSchema.FormalParameterOption.Optional


ELEMENTS = {
    "tensor(float)": 1,
    "tensor(uint8)": 2,
    "tensor(int8)": 3,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(string)": 8,
    "tensor(bool)": 9,
    "tensor(float16)": 10,
    "tensor(double)": 11,
}

SHAPES = ([1, 3, 8, 8], [1, 4, 4], [2, 4], [4], [], [1, 3, 8, 8], [0, 3], [1, 1, 1, 1], [4, 4, 3, 3])


def _input(rng: random.Random, kind: str, index: int, graph: onnx.GraphProto) -> str:
    """A graph input or an initialiser of that type; whole numbers are mostly initialisers, for they are shapes and axes."""
    name = f"i{index}"
    element, shape = (
        ELEMENTS.get(kind, 1),
        list(rng.choice(SHAPES) if index else SHAPES[0] if rng.random() < 0.6 else rng.choice(SHAPES)),
    )
    if element in (6, 7, 9) and rng.random() < 0.8:
        size = rng.choice((0, 1, 1, 2, 4))
        numbers = [integer(rng) if rng.random() < 0.4 else rng.choice((0, 1, 2)) for _ in range(size)]
        clipped = [
            max(-(2**31), min(2**31 - 1, v)) if element == 6 else bool(v) if element == 9 else v
            for v in numbers
        ]
        graph.initializer.append(
            oh.make_tensor(name, element, [size] if rng.random() < 0.8 or size != 1 else [], clipped)
        )
    elif index and element == 1 and rng.random() < 0.6:
        graph.initializer.append(onh.from_array(np.ones(shape, np.float32), name))
    else:
        graph.input.append(oh.make_tensor_value_info(name, element, shape))
    return name


def _attribute(
    rng: random.Random, name: str, one: onnx.defs.OpSchema.Attribute
) -> onnx.AttributeProto | None:
    kind = one.type.name
    sane: dict[str, object] = {
        "INT": 1,
        "FLOAT": 1.0,
        "STRING": "none",
        "INTS": [1, 1],
        "FLOATS": [1.0, 1.0],
        "STRINGS": ["a"],
    }
    if kind == "GRAPH":
        inner = oh.make_graph(
            [oh.make_node("Identity", ["i0"], ["inner"])],
            "b",
            [],
            [oh.make_tensor_value_info("inner", 1, None)],
        )
        return oh.make_attribute(name, inner)
    if kind == "TENSOR":
        return oh.make_attribute(name, onh.from_array(np.ones(1, np.float32), "t"))
    value = mutate_onnx.ATTRIBUTES.get(name, sane.get(kind))
    if value is None:
        return None
    try:
        return oh.make_attribute(name, value)
    except (ValueError, TypeError):
        return None


def op_model(rng: random.Random, schema: onnx.defs.OpSchema) -> tuple[onnx.ModelProto, list[str]]:
    """One node of ``schema`` between plausible inputs; its attributes plausible or broken."""
    graph = onnx.GraphProto(name="g")
    names: list[str] = []
    for index, formal in enumerate(schema.inputs):
        kind, optional = _plausible(rng, formal, schema)
        names.append("" if optional and rng.random() < 0.5 else _input(rng, kind, index, graph))
    node = graph.node.add(op_type=schema.name, domain=schema.domain, input=names)
    node.output.extend(f"o{index}" for index in range(max(1, schema.min_output)))
    for name, one in schema.attributes.items():
        made = _attribute(rng, name, one) if one.required or rng.random() < 0.4 else None
        if made is not None:
            node.attribute.append(made)
    graph.output.extend(oh.make_empty_tensor_value_info(name) for name in node.output)
    imports = [oh.make_opsetid("", 18 if rng.random() < 0.5 else 21)]
    imports += [oh.make_opsetid(schema.domain, schema.since_version)] if schema.domain else []
    model = seeds.typed(oh.make_model(graph, opset_imports=imports, ir_version=9))
    done = [schema.name]
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        chosen = rng.choice(
            (mutate_onnx.attribute_value, mutate_onnx.attribute_shape, mutate_onnx.tensor, mutate_onnx.value)
        )
        said = chosen(rng, model)
        done += [said] if said else []
    return model, done


def sweep(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """Every op that ONNX has, in turn."""
    schemas = sorted(onnx.defs.get_all_schemas(), key=lambda one: (one.domain, one.name))
    model, done = op_model(rng, rng.choice(schemas))
    (cell.case / "net.onnx").write_bytes(model.SerializeToString())
    return Plan(command(rng, "net.onnx"), tuple(done))


def given(path: Path, turn: int) -> Plan:
    """A command for a file that somebody found: everything that reads it, one after the other."""
    commands = (
        ("inspect", path.name, "--layers", "--groups", "--blocks"),
        (
            "compile",
            path.name,
            "--data",
            "random",
            "--samples",
            "2",
            "--precision",
            "int8",
            "--no-bench",
            "-o",
            "out",
        ),
        (
            "compile",
            path.name,
            "--data",
            "random",
            "--samples",
            "2",
            "--budget",
            "macs=50%",
            "--no-bench",
            "-o",
            "out",
        ),
        ("verify", path.name, path.name, "--samples", "2"),
    )
    return Plan(commands[turn], (path.name,))


GIVEN_TURNS = 4
