"""Tensors kept beside the model: found wherever a tensor can stand, read from the model's folder and nowhere else."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import onnx

from edgec.graph.errors import ModelError
from edgec.graph.files import open_regular
from edgec.graph.listener import Listener

MOST_BYTES = (1 << 31) - 1
"""Of a model with its data: what one protobuf message can hold."""


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor of the model with the place it stands: initialisers, sparse ones, attributes, subgraphs, functions."""
    yield from _of_graph(model.graph)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)
    for function in model.functions:
        yield from _of_nodes(function.node)
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute, f"function {function.name!r}")


def _of_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield f"tensor {tensor.name!r}", tensor
    for sparse in graph.sparse_initializer:
        yield from _of_sparse(sparse)
    yield from _of_nodes(graph.node)


def _of_sparse(sparse: onnx.SparseTensorProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield f"sparse tensor {sparse.values.name!r}", sparse.values
    yield f"indices of the sparse tensor {sparse.values.name!r}", sparse.indices


def _of_nodes(nodes: object) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:  # type: ignore[attr-defined]  # a repeated field of the untyped protobuf
        place = f"node {node.name or next(iter(node.output), '')!r} ({node.op_type})"
        for attribute in node.attribute:
            yield from _of_attribute(attribute, place)


def _of_attribute(attribute: onnx.AttributeProto, place: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    if attribute.HasField("t"):
        yield place, attribute.t
    for tensor in attribute.tensors:
        yield place, tensor
    if attribute.HasField("sparse_tensor"):
        yield from _of_sparse(attribute.sparse_tensor)
    for sparse in attribute.sparse_tensors:
        yield from _of_sparse(sparse)
    if attribute.HasField("g"):
        yield from _of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _of_graph(graph)


def load_external(model: onnx.ModelProto, path: Path, listener: Listener) -> None:
    """Read the data beside the model at ``path`` into its tensors; in place.

    Raises ModelError, naming the tensor, for a location outside the model's folder or that is no plain file, for a range that
    is no range of it or does not fit the tensor, and for more than 2 GB in all.
    """
    folder = path.parent.resolve()
    found = [
        _Range.of(place, tensor, path, folder)
        for place, tensor in tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    total = path.stat().st_size + sum(one.length for one in found)
    if total > MOST_BYTES:
        raise ModelError("models above 2 GB are not supported", where=str(path), why=f"{total} bytes")
    listener.size(total)
    for one in found:
        one.read_into()
    for _, tensor in tensors(model):
        del tensor.external_data[:]  # of no meaning where the data is inside, but libraries look


class _Range:
    """A checked range of a file beside the model, and the tensor that it fills."""

    def __init__(self, where: str, tensor: onnx.TensorProto, file: Path, offset: int, length: int) -> None:
        self.where, self.tensor, self.file = where, tensor, file
        self.offset, self.length = offset, length

    @staticmethod
    def of(place: str, tensor: onnx.TensorProto, path: Path, folder: Path) -> _Range:
        where = f"{path}: {place}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = _inside(folder, location, where)
        if file == path.resolve():
            why = f"{location!r} is the model file itself"
            raise ModelError("external data refused", where=where, why=why)
        offset = _number(entries, "offset", where) or 0
        try:
            with open_regular(file) as stream:
                size = os.fstat(stream.fileno()).st_size
        except FileNotFoundError:
            why = f"{location!r} is not there"
            raise ModelError("external data is missing", where=where, why=why) from None
        except OSError as error:
            why = f"{location!r}: {error.strerror or error}"
            raise ModelError("external data cannot be read", where=where, why=why) from error
        given = _number(entries, "length", where)
        length = max(0, size - offset) if given is None else given
        if offset + length > size or offset > size:
            why = f"{location!r} is too short"
            raise ModelError("external data is truncated", where=where, why=why)
        expected = byte_size(tensor, where)
        if length != expected:
            why = f"{length} bytes of {location!r} for a tensor of {expected}"
            raise ModelError("external data does not fit its tensor", where=where, why=why)
        return _Range(where, tensor, file, offset, length)

    def read_into(self) -> None:
        with open_regular(self.file) as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
        if len(data) != self.length:
            raise ModelError("external data is truncated", where=self.where, why="the file changed")
        self.tensor.raw_data = data
        self.tensor.data_location = onnx.TensorProto.DEFAULT


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file that ``location`` names, which must lie in ``folder`` once every link on the way is followed."""
    plain = location.replace("\\", "/")
    if not plain or "\0" in plain:
        raise ModelError("external data refused", where=where, why="it names no file")
    target = folder
    with suppress(OSError, RuntimeError):  # names too long, links in a circle
        target = (folder / plain).resolve()
        drive = re.match(r"[A-Za-z]:", plain) is not None
        if not plain.startswith("/") and not drive and target != folder and target.is_relative_to(folder):
            return target
    why = f"{location[:200]!r} points outside the model's folder"
    hint = "Copy the model and its data into one folder, as plain files."
    raise ModelError("external data refused", where=where, why=why, hint=hint)


def _number(entries: dict[str, str], key: str, where: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ModelError(f"the {key} of its external data is no number", where=where, why=repr(text[:40]))
    return int(text)


def byte_size(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes of the tensor's raw form, by its type and dimensions. Raises ModelError where it has none."""
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        kinds = onnx.TensorProto.DataType
        name = kinds.Name(tensor.data_type) if tensor.data_type in kinds.values() else str(tensor.data_type)
        raise ModelError("its element type has no raw form", where=where, why=name)
    return (element_count(tensor, where) * bits + 7) // 8


def element_count(tensor: onnx.TensorProto, where: str) -> int:
    """The product of the dimensions. Raises ModelError where one is negative or the whole is above 2 GB."""
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > MOST_AXES:
        why = f"dimensions {list(tensor.dims)[:9]}"
        raise ModelError("its dimensions are impossible", where=where, why=why)
    count = math.prod(int(size) for size in tensor.dims)
    if count > MOST_BYTES:
        raise ModelError("a tensor above 2 GB is not supported", where=where, why=f"{count} elements")
    return count


MOST_AXES = 64
_T = onnx.TensorProto
_WIDTHS = {
    2: ("UINT2", "INT2"),
    4: ("UINT4", "INT4", "FLOAT4E2M1"),
    8: (
        "UINT8", "INT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0",
    ),
    16: ("UINT16", "INT16", "FLOAT16", "BFLOAT16"),
    32: ("FLOAT", "INT32", "UINT32"),
    64: ("DOUBLE", "INT64", "UINT64", "COMPLEX64"),
    128: ("COMPLEX128",),
}  # fmt: skip
_BITS: dict[int, int] = {  # older releases of onnx lack the newest types
    getattr(_T, name): bits for bits, names in _WIDTHS.items() for name in names if hasattr(_T, name)
}
