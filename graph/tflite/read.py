"""Read any TFLite file back: operators, tensors, quantisation, metadata, and what it costs.

The tables of :mod:`schema` drive reading as they drive writing. Options of operators that edgec does not emit stay
unread; their names, tensors and costs are known all the same.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgec.graph.errors import ModelError
from edgec.graph.files import open_regular
from edgec.graph.tflite.schema import (
    BUILTIN_OPERATORS,
    FILE_IDENTIFIER,
    TABLES,
    UNIONS,
    Field,
    TensorType,
)
from edgec.graph.tflite.tensors import NUMPY_TYPE, Quantization

Array = np.ndarray[Any, np.dtype[Any]]

_FORMAT = {
    "bool": "<?", "int8": "<b", "uint8": "<B", "int32": "<i", "uint32": "<I", "int64": "<q", "uint64": "<Q",
    "uint16": "<H",     "float32": "<f",
}  # fmt: skip
_MAX_DEPTH = 16
_MAX_AXES = 32
_MAX_BYTES = (1 << 31) - 1
"""Of a file: flatbuffer offsets reach no further."""
_REUSE = 16
_REUSE_BYTES = 4 << 20
"""Tables and vectors may be shared, and a small file can share one a million times: this often its own size may be read."""
_TABLE_BYTES = 64
DAMAGE = (struct.error, IndexError, KeyError, ValueError, OverflowError, TypeError, AttributeError)
"""What reading offsets that lead nowhere ends in."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. ``shape`` has 1 where ``signature`` has -1, an open axis; ``data`` are the bytes of a constant.

    ``sparsity``: how the bytes of a sparse constant lie (the fields of SparsityParameters).
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    quantization: Quantization | None
    data: Array | None
    sparsity: Mapping[str, Any] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of one copy in memory."""
        return self.elements * np.dtype(NUMPY_TYPE.get(self.type, "float32")).itemsize

    def array(self) -> Array:
        """A constant as an array. Raises ModelError for an activation, or a type that numpy lacks."""
        if self.data is None or self.type not in NUMPY_TYPE:
            raise ModelError(f"tensor {self.name!r} holds no readable constant")
        return self.data.view(NUMPY_TYPE[self.type]).reshape(self.shape)


@dataclass(frozen=True)
class OperatorInfo:
    """One operator; tensors by index, -1 for an operand left out. ``options`` has the fields that edgec knows, ``custom`` what a
    custom operator's own code would read."""

    code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    custom: bytes = b""


@dataclass(frozen=True)
class TfliteFile:
    """The main subgraph of a TFLite file."""

    size: int
    description: str
    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes]
    signature: Mapping[int, str]
    """The names that the first signature gives to inputs and outputs, by tensor."""

    @cached_property
    def edgec_metadata(self) -> dict[str, Any]:
        """What edgec wrote about the file (precision, layout of inputs and outputs); empty for foreign files."""
        try:
            content = json.loads(self.metadata.get("edgec", b"{}"))
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def precision(self) -> str:
        """``int8`` when a layer computes on codes, ``fp16`` when constants are stored so, else ``fp32``."""
        types = {self.tensors[i].type for op in self.operators for i in (*op.inputs, *op.outputs) if i >= 0}
        coded = any(
            t.type in (TensorType.INT8, TensorType.UINT8, TensorType.INT16)
            and t.data is None
            and t.quantization
            for t in self.tensors
        )
        if coded:
            return "int8"
        return "fp16" if TensorType.FLOAT16 in types else "fp32"

    def operands(self, op: OperatorInfo) -> tuple[TensorInfo | None, ...]:
        """The input tensors of an operator."""
        return tuple(self.tensors[i] if i >= 0 else None for i in op.inputs)


def read(source: str | Path | bytes, *, where: str = "TFLite bytes") -> TfliteFile:
    """Open a TFLite file, or its bytes, which messages call ``where``. Raises ModelError for anything else."""
    where = where if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else _content(Path(source))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ModelError("cannot be read", where=where, why=why) from error
    if len(data) < 8 or data[4:8] != FILE_IDENTIFIER:
        raise ModelError("not a TFLite file", where=where, why="it lacks the mark TFL3")
    try:
        model = _Reader(data).table(TABLES["Model"], struct.unpack_from("<I", data)[0])
        return _assemble(model, len(data))
    except DAMAGE as error:
        raise ModelError("the TFLite file is damaged", where=where, why=str(error) or None) from error


def read_table(data: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The root table of another flatbuffer. Raises one of `DAMAGE`."""
    return _Reader(data).table(fields, struct.unpack_from("<I", data)[0])


def _content(path: Path) -> bytes:
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > _MAX_BYTES:
            raise ValueError("TFLite files end at 2 GB")
        return stream.read(_MAX_BYTES)


class _Reader:
    """Tables and vectors of a flatbuffer, by the schema."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.raw = np.frombuffer(data, np.uint8)
        self._left = _REUSE * len(data) + _REUSE_BYTES

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("its tables share more than any real file does")

    def _unpack(self, layout: str, at: int) -> Any:
        if at < 0:
            raise IndexError("an offset points before the file")
        return struct.unpack_from(layout, self.data, at)[0]

    def _offset(self, at: int) -> int:
        return at + int(self._unpack("<I", at))

    def table(self, fields: Mapping[str, Field], at: int, depth: int = 0) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise ValueError("tables are nested too deep")
        self._spend(_TABLE_BYTES)
        vtable = at - int(self._unpack("<i", at))
        slots = (int(self._unpack("<H", vtable)) - 4) // 2
        values: dict[str, Any] = {}
        for field, (slot, kind, default) in fields.items():
            place = self._field(at, vtable, slot, slots)
            if kind in UNIONS:
                values[field] = self._union(UNIONS[kind], at, vtable, slot, slots, depth)
            elif place is None:
                values[field] = default
            else:
                values[field] = self._value(kind, place, depth)
        return values

    def _field(self, at: int, vtable: int, slot: int, slots: int) -> int | None:
        if slot >= slots:
            return None
        offset = int(self._unpack("<H", vtable + 4 + 2 * slot))
        return at + offset if offset else None

    def _union(
        self, names: Mapping[int, str], at: int, vtable: int, slot: int, slots: int, depth: int
    ) -> dict[str, Any]:
        kind, place = self._field(at, vtable, slot, slots), self._field(at, vtable, slot + 1, slots)
        if kind is None or place is None:
            return {}
        name = names.get(int(self._unpack("<B", kind)))
        return {} if name is None else self.table(TABLES[name], self._offset(place), depth + 1)

    def _value(self, kind: str, place: int, depth: int) -> Any:
        if kind in _FORMAT:
            return self._unpack(_FORMAT[kind], place)
        start = self._offset(place)
        if kind == "string":
            return self._bytes(start).decode("utf-8", errors="replace")
        if not kind.startswith("["):
            return self.table(TABLES[kind], start, depth + 1)
        element = kind[1:-1]
        count = int(self._unpack("<I", start))
        if element in _FORMAT:
            return self._vector(start + 4, count, element)
        if count > len(self.data):
            raise IndexError("a vector is longer than the file")
        return [self.table(TABLES[element], self._offset(start + 4 + 4 * i), depth + 1) for i in range(count)]

    def _bytes(self, start: int) -> bytes:
        length = int(self._unpack("<I", start))
        self._spend(length)
        return self._slice(start + 4, length).tobytes()

    def _vector(self, start: int, count: int, element: str) -> Array:
        length = count * np.dtype(element).itemsize
        if element != "uint8":  # bytes of constants are looked at in place, numbers are taken one by one
            self._spend(length)
        return self._slice(start, length).view(element)

    def _slice(self, start: int, length: int) -> Array:
        if start < 0 or start + length > len(self.raw):
            raise IndexError("a vector ends behind the file")
        return self.raw[start : start + length]


def _assemble(model: dict[str, Any], size: int) -> TfliteFile:
    graph = model["subgraphs"][0]
    buffers = [b["data"] for b in model["buffers"]]
    tensors = tuple(_tensor(t, buffers) for t in graph["tensors"] or ())
    codes = [(_operator_name(c), int(c["version"])) for c in model["operator_codes"] or ()]
    operators = tuple(_operator(o, codes, len(tensors)) for o in graph["operators"] or ())
    metadata = {
        str(m["name"]): b"" if buffers[m["buffer"]] is None else buffers[m["buffer"]].tobytes()
        for m in model["metadata"] or ()
    }
    inputs, outputs = (_indices(graph[key], len(tensors)) for key in ("inputs", "outputs"))
    return TfliteFile(
        size, model["description"] or "", tensors, operators, inputs, outputs, metadata, _signature(model)
    )


def _signature(model: dict[str, Any]) -> dict[int, str]:
    first = next((s for s in model["signature_defs"] or () if s["subgraph_index"] == 0), None)
    entries = [] if first is None else [*(first["inputs"] or ()), *(first["outputs"] or ())]
    return {int(entry["tensor_index"]): str(entry["name"]) for entry in entries if entry["name"]}


def _indices(values: Array | None, count: int) -> tuple[int, ...]:
    found = () if values is None else tuple(int(i) for i in values)
    if any(i >= count or i < -1 for i in found):
        raise IndexError("an operator names a tensor that is not there")
    return found


def _operator_name(code: dict[str, Any]) -> str:
    number = max(int(code["builtin_code"]), int(code["deprecated_builtin_code"]))
    if code["custom_code"]:
        return f"CUSTOM:{code['custom_code']}"
    return BUILTIN_OPERATORS[number] if number < len(BUILTIN_OPERATORS) else f"BUILTIN_{number}"


def _operator(op: dict[str, Any], codes: list[tuple[str, int]], count: int) -> OperatorInfo:
    name, version = codes[int(op["opcode_index"])]
    inputs, outputs = _indices(op["inputs"], count), _indices(op["outputs"], count)
    custom = b"" if op["custom_options"] is None else op["custom_options"].tobytes()
    return OperatorInfo(name, version, inputs, outputs, op["builtin_options"], custom)


def _tensor(table: dict[str, Any], buffers: list[Array | None]) -> TensorInfo:
    shape = () if table["shape"] is None else tuple(int(d) for d in table["shape"])
    signature = shape if table["shape_signature"] is None else tuple(int(d) for d in table["shape_signature"])
    if len(shape) > _MAX_AXES or any(d < 0 for d in shape) or math.prod(shape) > 1 << 62:
        raise ValueError(f"the shape {list(shape)[:9]} of tensor {table['name']!r} is impossible")
    data = buffers[int(table["buffer"])]
    try:
        kind = TensorType(int(table["type"]))
    except ValueError:
        kind = TensorType.VARIANT
    if data is not None and not data.size:
        data = None
    codes = _quantization(table["quantization"])
    return TensorInfo(table["name"] or "", kind, shape, signature, codes, data, table["sparsity"])


def _quantization(table: dict[str, Any] | None) -> Quantization | None:
    if table is None or table["scale"] is None or not len(table["scale"]):
        return None
    scale = tuple(float(s) for s in table["scale"])
    zeros = table["zero_point"]
    zero = (0,) * len(scale) if zeros is None else tuple(int(z) for z in zeros)
    return Quantization(scale, zero, int(table["quantized_dimension"]))
