"""The network that is learned from: its values, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.execute import Executor
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.hardware import placed, tensors
from edgec.passes.learned.views import Feeds


class Teacher:
    """On a CPU onnxruntime runs it, whatever its ops are, and faster (ResNet-20, 64 pictures, one thread: 74 ms, torch 118); on a
    GPU torch does."""

    def __init__(self, model: ir.Model, device: torch.device) -> None:
        self.model, self.device = model, device
        self._module = None if device.type == "cpu" else placed(GraphModule(model), device)
        self._engines: dict[tuple[str, ...], Executor] = {}

    def samples(self, feeds: Feeds, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The values ``wanted``, any names in the graph, for any number of samples."""
        if self._module is not None:
            with torch.no_grad():
                return self._module.samples(tensors(feeds, self.device), wanted)
        return {
            name: torch.from_numpy(array) for name, array in self._engine(tuple(wanted)).run(feeds).items()
        }

    def _engine(self, wanted: tuple[str, ...]) -> Executor:
        if wanted not in self._engines:
            self._engines[wanted] = Executor(self.model, outputs=wanted)
        return self._engines[wanted]
