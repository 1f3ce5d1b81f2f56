"""What a network takes: the shape, layout and type of each input, and noise for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_shape
from edgec.graph.errors import DataError
from edgec.graph.views import attribute, is_constant

Array = np.ndarray[Any, np.dtype[Any]]

_FLOAT32 = np.dtype(np.float32)
_WHOLE = (
    "Give them as the network takes them; --mean, --std and --scale are for networks that take real numbers."
)


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name, the shape of one sample, and the type of its numbers.

    ``channels_last``: a picture of shape (height, width, channels), as Keras declares it; else (channels, height, width).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] = _FLOAT32
    channels_last: bool = False

    @staticmethod
    def of(model: ir.Model) -> tuple[InputSpec, ...]:
        """The inputs of a canonical graph."""
        return tuple(
            InputSpec(
                v.name or "",
                sample_shape(v),
                _FLOAT32 if v.dtype is None else np.dtype(v.dtype.numpy()),
                is_channels_last(v),
            )
            for v in model.graph.inputs
        )

    @property
    def channels(self) -> int:
        """Of a picture; else the size of the last axis."""
        if len(self.shape) == 3 and not self.channels_last:
            return self.shape[0]
        return self.shape[-1] if self.shape else 1

    @property
    def picture(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        first, second, third = self.shape
        return (first, second, third) if self.channels_last else (second, third, first)

    def placed(self, pixels: Array) -> Array:
        """Pictures (..., height, width, channels) as the input has them."""
        return pixels if self.channels_last else np.moveaxis(pixels, -1, -3)

    def unplaced(self, values: Array) -> Array:
        """The inverse of `placed`."""
        return values if self.channels_last else np.moveaxis(values, -3, -1)

    def typed(self, values: Array) -> Array:
        """``values`` in the input's type. Raises DataError for what it cannot hold: fractions and numbers outside its range."""
        if values.dtype == self.dtype:
            return np.ascontiguousarray(values)
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):  # beyond the type's range is infinity, which is refused by name
                return np.ascontiguousarray(values, self.dtype)
        with np.errstate(invalid="ignore"):  # what does not come back as it was is refused
            held = values.astype(self.dtype)
        if not np.array_equal(held.astype(np.float64), values.astype(np.float64)):
            why = f"the input {self.name!r} takes {self.dtype}, and the samples hold other numbers"
            raise DataError("the data's numbers do not fit the model", why=why, hint=_WHOLE)
        return np.ascontiguousarray(held)


def picture_size(model: ir.Model) -> tuple[int, ...]:
    """Height and width of the one picture that ``model`` takes; empty where it takes none, or several."""
    pictures = [spec for spec in InputSpec.of(model) if len(spec.shape) == 3]
    return pictures[0].picture[:2] if len(pictures) == 1 else ()


def is_channels_last(value: ir.Value) -> bool:
    """True for an input that the network itself declares channels last: it is transposed first, perhaps prepared before that."""
    uses = tuple(value.uses())
    return bool(uses) and all(_turns(use.node, value) for use in uses)


_PREPARING = (
    "Add", "Cast", "Clip", "DequantizeLinear", "Div", "Gather", "Max", "Min", "Mul", "Pad", "QuantizeLinear", "Slice", "Sub",
)  # fmt: skip
"""What Keras does to pictures inside the network: levels, means, blue first, margins."""


def _turns(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type == "Transpose":
        return bool(attribute(node, "perm", ()) == (0, 3, 1, 2))
    others = [one for one in node.inputs if one is not None and one is not value]
    made = node.outputs[0]
    same_rank = len(made.shape or ()) == len(value.shape or ())
    return node.op_type in _PREPARING and same_rank and all(map(_is_fixed, others)) and is_channels_last(made)


def _is_fixed(value: ir.Value) -> bool:
    """A constant, or the codes of one: an int8 network prepares its pictures as the network did that it was made of."""
    maker = value.producer()
    if maker is None or maker.op_type != "DequantizeLinear":
        return is_constant(value)
    return all(map(is_constant, filter(None, maker.inputs)))


def noise(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Normally distributed numbers; bytes of any value for 8 bits; 0 and 1 for other whole numbers, which may be indices."""
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return np.asarray(rng.integers(limits.min, limits.max + 1, shape)).astype(dtype)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
