"""How far two arrays are apart, and which values of two graphs can be held against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import ModelError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Difference:
    """Running sums over batches of a reference and a value; the figures are properties. Memory is constant."""

    name: str
    node: str = ""
    op: str = ""
    largest: float = 0.0
    _reference_energy: float = 0.0
    _value_energy: float = 0.0
    _error_energy: float = 0.0
    _product: float = 0.0
    _peak: float = 0.0
    _finite: bool = field(default=True)

    def add(self, reference: Array, value: Array) -> None:
        """Account for one batch. Raises ModelError where the shapes differ."""
        error = difference_of(value, reference, self.name).ravel()
        a, b = reference.astype(np.float64).ravel(), value.astype(np.float64).ravel()
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            self._finite = False
        if not error.size:
            return
        self.largest = max(self.largest, float(np.abs(error).max()))
        self._peak = max(self._peak, float(np.abs(a).max()))
        self._reference_energy += float(a @ a)
        self._value_energy += float(b @ b)
        self._error_energy += float(error @ error)
        self._product += float(a @ b)

    @property
    def relative(self) -> float:
        """The largest difference over the reference's largest magnitude."""
        if not self._finite:
            return float("inf")
        return self.largest / self._peak if self._peak else self.largest

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation-noise ratio in dB: 10 log10(|reference|^2 / |reference - value|^2)."""
        if not self._finite:
            return float("-inf")
        if not self._error_energy:
            return float("inf")
        if not self._reference_energy:
            return float("-inf")
        return 10 * float(np.log10(self._reference_energy / self._error_energy))

    @property
    def cosine(self) -> float:
        """Cosine between all values of both."""
        scale = (self._reference_energy * self._value_energy) ** 0.5
        return self._product / scale if scale else float(self._reference_energy == self._value_energy)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able figures; infinities become None."""
        figures = {
            "max": self.largest,
            "relative": self.relative,
            "sqnr_db": self.sqnr_db,
            "cosine": self.cosine,
        }
        clean = {key: value if np.isfinite(value) else None for key, value in figures.items()}
        return {
            "value": self.name,
            "node": self.node,
            "op": self.op,
            **clean,
            "equal": self._error_energy == 0,
        }


def by_sample(array: Array, samples: int | None = None) -> Array:
    """(samples, values of each): a lone scalar is one sample's, and any axis may have size 0.

    ``samples`` where inner values may hold several entries per sample (`batch.SampleBySample`).
    """
    rows = np.atleast_1d(array)
    count = len(rows) if samples is None else samples
    return rows.reshape(count, rows.size // count if count else math.prod(rows.shape[1:]))


def difference_of(value: Array, reference: Array, name: str) -> Array:
    """``value`` - ``reference`` in float64. Raises ModelError where the shapes differ."""
    same_shape(value, reference, name)
    return value.astype(np.float64) - reference


def same_shape(value: Array, reference: Array, name: str) -> None:
    """Raise ModelError where the shapes differ."""
    if reference.shape != value.shape:
        why = f"{reference.shape} against {value.shape}"
        raise ModelError("the shapes differ", where=f"value {name!r}", why=why)


def sqnr_db(reference: Array, value: Array) -> float:
    """Signal to noise of ``value`` in dB."""
    difference = Difference("")
    difference.add(np.asarray(reference), np.asarray(value))
    return difference.sqnr_db


def cosine(reference: Array, value: Array) -> float:
    """Cosine between two arrays taken as vectors."""
    difference = Difference("")
    difference.add(np.asarray(reference), np.asarray(value))
    return difference.cosine


def relative_error(reference: Array, value: Array) -> float:
    """|reference - value|^2 / |reference|^2."""
    a, b = np.asarray(reference, np.float64), np.asarray(value, np.float64)
    energy = float((a * a).sum())
    error = float(((a - b) ** 2).sum())
    return error / energy if energy else float(error > 0)


def kl_divergence(reference: Array, value: Array) -> float:
    """Mean KL(softmax(reference) || softmax(value)) over samples, in nats; arrays are (n > 0, classes) logits or probabilities.

    Rows that already are probabilities (non-negative, summing to 1) are taken as they are: what ``reference`` is, both are.
    """
    p, q = paired_probabilities(np.asarray(reference, np.float64), np.asarray(value, np.float64))
    tiny = 1e-12
    return float(np.mean(np.sum(p * (np.log(p + tiny) - np.log(q + tiny)), axis=-1)))


def probabilities(logits: Array) -> Array:
    """(n, classes) of logits; rows that already are probabilities as they are."""
    flat = by_sample(logits)
    if are_distributions(flat):
        return flat
    return softmax(flat)


def paired_probabilities(reference: Array, value: Array) -> tuple[Array, Array]:
    """Both as probabilities, read as ``reference`` is: the codes of an int8 Softmax sum to 0.99, and are no logits for that."""
    rows = by_sample(value)
    if are_distributions(by_sample(reference)):
        positive = np.maximum(rows, 0)
        total = positive.sum(axis=1, keepdims=True)
        return probabilities(reference), np.where(
            total > 0, positive / np.maximum(total, 1e-12), 1 / rows.shape[1]
        )
    return probabilities(reference), softmax(rows)


def are_distributions(rows: Array) -> bool:
    """Whether rows (n, classes) are probabilities already, not logits."""
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def softmax(rows: Array) -> Array:
    """Of each row (n, classes)."""
    shifted = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def common_values(a: ir.Model, b: ir.Model) -> list[tuple[str, str, str]]:
    """(value, node, op) of the float values that both graphs compute under one name, in the order of ``a``."""
    theirs = {v.name: v for node in b.graph for v in node.outputs}
    pairs = []
    for node in a.graph:
        for value in node.outputs:
            other = theirs.get(value.name)
            both_float = (
                value.dtype == ir.DataType.FLOAT and other is not None and other.dtype == ir.DataType.FLOAT
            )
            same_shape = other is not None and _fit(value, other)
            if both_float and same_shape:
                pairs.append((value.name or "", node.name or "", node.op_type))
    return pairs


def _fit(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values have one shape as far as it is known. An open leading axis is the batch; a fixed one may be channels."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return one.shape is None and other.shape is None
    leads = {shape[0] for shape in (one.shape, other.shape) if len(shape)}
    tails = [
        [size for size in list(shape)[1:] if isinstance(size, int)] for shape in (one.shape, other.shape)
    ]
    return tails[0] == tails[1] and (len(leads) < 2 or not all(isinstance(size, int) for size in leads))
