"""What a sequential recovery did, fit by fit, so that its end can be taken back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.passes.refit.layer_fits import LayerFit
from edgec.passes.refit.layers import Layer, layers_of

Array = np.ndarray[Any, np.dtype[Any]]
Weights = tuple[Array, "Array | None"]


@dataclass
class Steps:
    """The weights of the layers of ``student`` before, and what every fit made of them. Arrays are shared with the model."""

    student: ir.Model
    log: list[dict[str, Weights]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before: dict[str, Weights] = _weights(layers_of(self.student).values())

    @property
    def count(self) -> int:
        return len(self.log)

    def done(self, site: LayerFit) -> None:
        """The layer of ``site``, and those in front that it was fitted together with, are as they are now."""
        self.log.append(_weights([site.layer, *(inner.layer for inner in site.chain)]))

    def model(self, kept: int) -> ir.Model:
        """The network after ``kept`` fits."""
        found = self.student.clone()
        layers = layers_of(found)
        for name, (weight, bias) in self._at(kept).items():
            layers[name].view.set(weight=weight, bias=bias)
        return found

    def undone(self, kept: int) -> set[str]:
        """Layers that a later fit touched."""
        return {name for step in self.log[kept:] for name in step}

    def _at(self, kept: int) -> dict[str, Weights]:
        now: dict[str, Weights] = {}
        for step in self.log[:kept]:
            now.update(step)
        touched = {name for step in self.log for name in step}
        return {name: now.get(name, self.before[name]) for name in touched}


def _weights(layers: Iterable[Layer]) -> dict[str, Weights]:
    """Weights and biases; zeros for a bias that a fit may add."""
    found: dict[str, Weights] = {}
    for layer in layers:
        bias = layer.view.bias
        if bias is None and layer.patches.bias:
            bias = np.zeros(layer.view.out_channels, np.float32)
        found[layer.name] = layer.view.weight, bias
    return found
