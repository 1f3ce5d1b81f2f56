"""Changes to stored tensors, and to where they are stored."""

from __future__ import annotations

import random

import onnx.helper as oh
from onnx import ModelProto, TensorProto
from walk import tensors
from wild import FLOATS, INT_MAX, INT_MIN, INTS, integer, text


def spoil_tensor(rng: random.Random, one: TensorProto) -> str:
    """Dims, type, bytes or location of a stored tensor."""
    how = rng.choice(
        (
            "dims",
            "dims",
            "type",
            "short",
            "long",
            "no data",
            "values",
            "values",
            "field",
            "name",
            "segment",
            "huge",
        )
    )
    if how == "dims":
        dims = list(one.dims) or [1]
        dims[rng.randrange(len(dims))] = integer(rng)
        del one.dims[:]
        one.dims.extend(dims)
        return f"dims {dims}"
    if how == "type":
        one.data_type = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 22, 23, 24, 99, -1))
    elif how == "short":
        one.raw_data = one.raw_data[: len(one.raw_data) // 2]
    elif how == "long":
        one.raw_data = one.raw_data + b"\0" * rng.choice((1, 4, 4096))
    elif how == "no data":
        one.ClearField("raw_data")
    elif how == "values":
        return _spoil_values(rng, one)
    elif how == "field":
        one.float_data.extend([1.0, float("nan")])
        one.int64_data.extend([INT_MAX, INT_MIN])
    elif how == "name":
        one.name = text(rng)
    elif how == "segment":
        one.segment.begin, one.segment.end = 0, INT_MAX
    else:
        del one.dims[:]
        one.dims.extend(
            rng.choice(([2**31, 2**31], [2**62], [10**10], [0, 2**40], [-1], [1] * 70, [65536, 65536, 65536]))
        )
        if rng.random() < 0.5:
            one.ClearField("raw_data")
    return how


def _spoil_values(rng: random.Random, one: TensorProto) -> str:
    import struct

    if one.data_type == TensorProto.FLOAT and one.raw_data:
        wild = rng.choice(FLOATS)
        one.raw_data = (
            (struct.pack("<f", wild) * (len(one.raw_data) // 4))
            if rng.random() < 0.5
            else struct.pack("<f", wild) + one.raw_data[4:]
        )
        return f"values {wild}"
    if one.data_type == TensorProto.INT64:
        wild = rng.choice(INTS)
        if one.int64_data:
            one.int64_data[rng.randrange(len(one.int64_data))] = wild
        elif one.raw_data:
            at = 8 * rng.randrange(max(1, len(one.raw_data) // 8))
            one.raw_data = one.raw_data[:at] + struct.pack("<q", wild) + one.raw_data[at + 8 :]
        return f"values {wild}"
    one.raw_data = rng.randbytes(len(one.raw_data))
    return "values random"


def tensor(rng: random.Random, model: ModelProto) -> str | None:
    found = tensors(model)
    if not found:
        return None
    one = rng.choice(found)
    return f"tensor {one.name[:20]!r}: {spoil_tensor(rng, one)}"


def tensor_list(rng: random.Random, model: ModelProto) -> str | None:
    graph = model.graph
    if not graph.initializer:
        return None
    index = rng.randrange(len(graph.initializer))
    one = graph.initializer[index]
    how = rng.choice(
        ("delete", "duplicate", "named as input", "named as output", "sparse", "annotation", "also input")
    )
    if how == "delete":
        del graph.initializer[index]
    elif how == "duplicate":
        graph.initializer.add().CopyFrom(one)
        graph.initializer[-1].dims.append(1)
    elif how in ("named as input", "named as output"):
        found = graph.input if how.endswith("input") else graph.output
        one.name = found[0].name if found else "x"
    elif how == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(one)
        graph.sparse_initializer[-1].dims.extend(rng.choice(([3, 3], [INT_MAX], [], [-1, 2])))
        del graph.initializer[index]
    elif how == "annotation":
        found_note = graph.quantization_annotation.add()
        found_note.tensor_name = one.name
        found_note.quant_parameter_tensor_names.add().key = "SCALE_TENSOR"
    else:
        graph.input.append(oh.make_tensor_value_info(one.name, integer(rng) % 30, [integer(rng) % 9]))
    return f"initialiser {how}"


LOCATIONS = (
    "w.bin", "w.bin", "w.bin", "../outside/secret.bin", "link.bin", "folder/../../outside/secret.bin", "OUTSIDE/secret.bin", "",
    ".", "folder", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/hostname", "pipe", "zero.bin", "nobody.bin", "w.bin\x00x",
    "x" * 5000, "linked/secret.bin", "C:\\w.bin", "file:///etc/hostname", "./w.bin", "w.bin/", "*MEMORY*", "net.onnx",
)  # fmt: skip


NUMBERS = (
    "0",
    "16",
    "-1",
    "-9223372036854775808",
    "99999999999999999999",
    "1e3",
    "x",
    "",
    "0x10",
    "1.5",
    "4096",
    "²",
    "١",
    "10000000000",
)


def external(rng: random.Random, model: ModelProto) -> str | None:
    """A tensor that lies in another file: the file, offset and length as an attacker would write them."""
    found = tensors(model)
    if not found:
        return None
    one = rng.choice(found)
    size = len(one.raw_data) or 16
    for field in ("raw_data", "float_data", "int64_data", "int32_data"):
        one.ClearField(field)
    one.data_location = TensorProto.EXTERNAL
    location = rng.choice(LOCATIONS)
    entries = {"location": location, "offset": "0", "length": str(size)}
    for key in ("offset", "length"):
        if rng.random() < 0.3:
            entries[key] = rng.choice(NUMBERS)
    if rng.random() < 0.2:
        del entries[rng.choice(list(entries))]
    if rng.random() < 0.1:
        entries[rng.choice(("checksum", "nobody", ""))] = "0"
    del one.external_data[:]
    for key, word in entries.items():
        one.external_data.add(key=key, value=word)
    if rng.random() < 0.1:
        one.external_data.add(key="location", value="w.bin")
    if rng.random() < 0.1:
        one.data_location = rng.choice((0, 1))
        one.raw_data = b"\0" * size
    return f"external {one.name[:20]!r}: " + ", ".join(f"{k}={v[:40]!r}" for k, v in entries.items())
