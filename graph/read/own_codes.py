"""The scales that a network came quantised with: they go with its float form, so that the quantiser can take them again.

Kept in the model's own properties, which no artifact carries. 8-bit codes with one scale per activation, and weights with zero
point 0, one scale in all or one per output channel: everything else has to find scales of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.read.codes import Array, Params, spread

_KEY = "edgec.source_codes"
_SHIFT = {np.dtype(np.uint8): -128, np.dtype(np.int8): 0}
"""From stored codes to signed ones."""


@dataclass(frozen=True)
class SourceCodes:
    """``activations``: (scale, zero point of signed codes) by value; ``weights``: scales by initialiser."""

    activations: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def range_of(self, name: str) -> tuple[float, float] | None:
        """The real numbers that an activation's codes end at; None where it had none."""
        if name not in self.activations:
            return None
        scale, zero = self.activations[name]
        return (-128 - zero) * scale, (127 - zero) * scale

    def scales_of(self, name: str, weight: Array, axis: int | None, limit: int) -> Array | None:
        """The scales of a weight that still lies on the grid of its codes; None for any other."""
        found = np.asarray(self.weights.get(name, ()), np.float32)
        channels = 1 if axis is None else weight.shape[axis]
        if found.size not in (1, channels) or (axis is None and found.size != 1):
            return None
        scales = found.reshape(()) if axis is None else np.broadcast_to(found, (channels,)).copy()
        codes = weight.astype(np.float64) / spread(scales, axis, weight.ndim).astype(np.float64)
        whole = np.abs(codes - np.rint(codes)).max(initial=0.0) < 1e-3
        return scales if whole and np.abs(codes).max(initial=0.0) < limit + 0.5 else None


def activation_codes(params: Params) -> tuple[float, int] | None:
    """Of 8-bit codes that share a scale; None for others."""
    shift = _SHIFT.get(params.zero.dtype)
    if shift is None or params.scale.size != 1 or params.zero.size != 1:
        return None
    return float(params.scale.reshape(())), int(params.zero.reshape(())) + shift


def weight_scales(params: Params) -> tuple[float, ...] | None:
    """Of signed codes around zero, a scale in all or one per entry of one axis; None for others."""
    signed = params.zero.dtype == np.int8 and not params.zero.any()
    return tuple(map(float, params.scale.reshape(-1))) if signed and not params.block else None


def keep_codes(model: ir.Model, codes: SourceCodes) -> None:
    """Write ``codes`` into the model's properties; whatever a file from elsewhere says under that key goes."""
    model.metadata_props.pop(_KEY, None)
    if not codes.activations:
        return
    tree = {"activations": dict(codes.activations), "weights": dict(codes.weights)}
    model.metadata_props[_KEY] = json.dumps(tree)


def source_codes(model: ir.Model) -> SourceCodes | None:
    """What `keep_codes` wrote; None for a network that came in real numbers."""
    if _KEY not in model.metadata_props:
        return None
    tree = json.loads(model.metadata_props[_KEY])
    activations = {name: (float(scale), int(zero)) for name, (scale, zero) in tree["activations"].items()}
    return SourceCodes(activations, {name: tuple(scales) for name, scales in tree["weights"].items()})
