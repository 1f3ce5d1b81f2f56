"""The schema tables against the ones that ai-edge-litert ships: every enum, slot and default in use."""

from __future__ import annotations

from typing import Any

import pytest

from edgec.graph.tflite import schema

shipped = pytest.importorskip("ai_edge_litert.schema_py_generated")

_PREPEND = {
    "bool": "Bool", "int8": "Int8", "uint8": "Uint8", "int32": "Int32", "uint32": "Uint32", "int64": "Int64",
    "uint64": "Uint64", "float32": "Float32",
}  # fmt: skip


class Recorder:
    """Stands in for flatbuffers' builder and notes which slot is written how."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, args[0], args[-1]))


def camel(field: str) -> str:
    return "".join(part.capitalize() for part in field.split("_"))


@pytest.mark.parametrize("table", sorted(schema.TABLES))
def test_slots_and_defaults(table: str) -> None:
    for field, (slot, kind, default) in schema.TABLES[table].items():
        name = {"TensorMap": {}, "SignatureDef": {}}.get(table, {}).get(field, camel(field))
        if kind in schema.UNIONS:
            record = Recorder()
            getattr(shipped, f"{table}Add{name}Type")(record, 1)
            assert record.calls == [("PrependUint8Slot", slot, 0)]
            slot += 1
        record = Recorder()
        getattr(shipped, f"{table}Add{name}")(record, 1)
        ((method, written_slot, written_default),) = record.calls
        assert written_slot == slot, (table, field)
        if kind in _PREPEND:
            assert method == f"Prepend{_PREPEND[kind]}Slot", (table, field)
            assert written_default == default, (table, field)
        else:
            assert method == "PrependUOffsetTRelativeSlot", (table, field)


@pytest.mark.parametrize(
    "enum", [schema.TensorType, schema.Padding, schema.ActivationFunctionType, schema.MirrorPadMode]
)
def test_enums(enum: Any) -> None:
    for member in enum:
        assert getattr(getattr(shipped, enum.__name__), member.name) == member.value


def test_operator_codes() -> None:
    for name, code in schema.BUILTIN_CODE.items():
        assert getattr(shipped.BuiltinOperator, name) == code
    assert shipped.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES == schema.PLACEHOLDER_CODE


def test_options_union() -> None:
    for name, code in schema.OPTIONS_CODE.items():
        assert getattr(shipped.BuiltinOptions, name) == code
    assert set(schema.OPERATOR_OPTIONS.values()) <= set(schema.OPTIONS_CODE) | {"ReshapeOptions"}
    assert set(schema.OPERATOR_OPTIONS) <= set(schema.BUILTIN_CODE)
    assert set(schema.OPTIONS_CODE) <= set(schema.TABLES)


def test_every_operator_without_options_has_none_to_write() -> None:
    """An operator that edgec gives no options table must have no fields in the shipped schema either."""
    options = {
        "EQUAL": "EqualOptions", "EXP": "ExpOptions", "NEG": "NegOptions", "PAD": "PadOptions", "PADV2": "PadV2Options",
        "POW": "PowOptions", "SLICE": "SliceOptions", "TILE": "TileOptions", "TRANSPOSE": "TransposeOptions",
        "TOPK_V2": "TopKV2Options", "QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions",
        "MAXIMUM": "MaximumMinimumOptions", "ABS": "AbsOptions", "SQUARE": "SquareOptions",
        "BROADCAST_TO": "BroadcastToOptions", "SELECT_V2": "SelectV2Options", "LOG_SOFTMAX": "LogSoftmaxOptions",
        "HARD_SWISH": "HardSwishOptions", "LOGICAL_AND": "LogicalAndOptions", "FLOOR_MOD": "FloorModOptions",
    }  # fmt: skip
    for operator, table in options.items():
        assert operator not in schema.OPERATOR_OPTIONS
        assert not [name for name in dir(shipped) if name.startswith(f"{table}Add")]
