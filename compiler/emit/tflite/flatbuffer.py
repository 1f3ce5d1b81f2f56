"""Write nested Python dictionaries as a TFLite flatbuffer, following the tables of :mod:`schema`.

Bytes are a function of the content alone: fields are written in slot order, and equal strings, vectors, quantisation
parameters and options are written once and shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from edgec.graph.tflite.schema import FILE_IDENTIFIER, OPTIONS_CODE, TABLES

Array = np.ndarray[Any, np.dtype[Any]]

DATA_ALIGNMENT = 16
"""Constants start on this boundary, so that runtimes can map them and read them with vector loads."""

_SHARED = ("QuantizationParameters", *OPTIONS_CODE)
_SCALARS = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64", "float32")


def write_model(model: Mapping[str, Any], size_hint: int = 1024) -> bytes:
    """The bytes of a Model table given as nested dictionaries; ``size_hint`` saves reallocations."""
    writer = _Writer(size_hint)
    root = writer.table("Model", model)
    writer.builder.Finish(root, file_identifier=FILE_IDENTIFIER)
    return bytes(writer.builder.Output())


class _Writer:
    def __init__(self, size_hint: int) -> None:
        self.builder = flatbuffers.Builder(size_hint)
        self._written: dict[Any, int] = {}

    def table(self, name: str, values: Mapping[str, Any]) -> int:
        """Write children first, then the table itself; return its offset."""
        fields = TABLES[name]
        slots: list[tuple[int, str, Any, Any]] = []
        for field, value in values.items():
            slot, kind, default = fields[field]
            if value is None:
                continue
            if kind in _SCALARS:
                slots.append((slot, kind, value, default))
            elif kind == "options":
                table, content = value
                slots.append((slot, "uint8", OPTIONS_CODE[table], 0))
                slots.append((slot + 1, "offset", self.table(table, content), 0))
            else:
                slots.append((slot, "offset", self._child(kind, value), 0))
        slots.sort(key=lambda item: item[0])
        key = (name, tuple(slots))
        if name in _SHARED and key in self._written:
            return self._written[key]
        offset = self._close_table(fields, slots)
        if name in _SHARED:
            self._written[key] = offset
        return offset

    def _close_table(self, fields: Mapping[str, Any], slots: Sequence[tuple[int, str, Any, Any]]) -> int:
        self.builder.StartObject(1 + max((slot for slot, *_ in slots), default=0))
        # Wide fields first would pack tighter, but slot order keeps the vtables of equal tables equal, hence shared.
        for slot, kind, value, default in slots:
            if kind == "offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                method = getattr(self.builder, f"Prepend{kind.capitalize()}Slot")
                method(slot, value, default)
        return int(self.builder.EndObject())

    def _child(self, kind: str, value: Any) -> int:
        if kind == "string":
            return int(self.builder.CreateSharedString(value))
        if not kind.startswith("["):
            return self.table(kind, value)
        element = kind[1:-1]
        if element in _SCALARS:
            return self._vector(element, value)
        offsets = [self.table(element, item) for item in value]
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _vector(self, element: str, value: Any) -> int:
        """A vector of scalars; uint8 vectors are tensor data and start aligned."""
        array = np.ascontiguousarray(np.asarray(value, dtype=np.dtype(element).newbyteorder("<")))
        raw = array.reshape(-1).view(np.uint8)
        small = raw.nbytes <= 1 << 16
        key = (element, raw.tobytes()) if small else None
        if key is not None and key in self._written:
            return self._written[key]
        alignment = DATA_ALIGNMENT if element == "uint8" else array.itemsize
        self.builder.StartVector(array.itemsize, array.size, alignment)
        end = self.builder.Head()
        self.builder.head = end - raw.nbytes
        self.builder.Bytes[end - raw.nbytes : end] = raw.data
        offset = int(self.builder.EndVector())
        if key is not None:
            self._written[key] = offset
        return offset
