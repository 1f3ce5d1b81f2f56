"""The peer of bench/pruning.py: Torch-Pruning, global L1 on the inner channels of ResNet-56, BatchNorm re-estimated."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Block(nn.Module):
    """A basic residual block with a parameter-free shortcut (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(y + x)


class ResNet(nn.Module):
    """ResNet for CIFAR, depth 6 n + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = []
            for number in range((depth - 2) // 6):
                blocks.append(Block(inputs, width, 2 if stage > 1 and number == 0 else 1))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def pictures(file: Path) -> tuple[torch.Tensor, Any]:
    """Normalised pictures, and the file."""
    found = np.load(file)
    x = ((found["x"] / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x)), found


def re_estimate(model: nn.Module, x: torch.Tensor) -> None:
    """Running means and variances of all BatchNorms from ``x`` alone."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # type: ignore[assignment]
    model.train()
    for batch in x.split(100):
        model(batch)
    model.eval()


def top1(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Percent."""
    found = torch.cat([model(batch) for batch in x.split(100)]).argmax(1)
    return 100 * float((found == y).float().mean())


def cut(teacher: nn.Module, ratio: float) -> nn.Module:
    """A copy without that share of its channels, those of a ResNet's stream and the classes left as they are."""
    model = copy.deepcopy(teacher)
    if isinstance(model, ResNet):
        kept = [model.conv1, model.linear, *(m.conv2 for m in model.modules() if isinstance(m, Block))]
    else:
        kept = [one for one in model.modules() if isinstance(one, nn.Conv2d)][-1:]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 3, 32, 32),
        torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=kept,
    )
    pruner.step()
    return model


def drops(data: Path, images: int, threads: int) -> Iterator[tuple[float, float, float]]:
    """(MACs, top-1, drop of top-1 in points) at several pruning ratios."""
    torch.set_num_threads(threads)
    state = torch.load(data / "models" / "resnet56_cifar10_state_dict.pt", weights_only=True)
    teacher = ResNet(56).eval()
    teacher.load_state_dict(state)
    calibration = pictures(data / "cifar10" / "calib.npz")[0][:images]
    x, found = pictures(data / "cifar10" / "eval.npz")
    y = torch.from_numpy(found["y"].astype(np.int64))
    example = torch.zeros(1, 3, 32, 32)
    full = torch_pruning.utils.count_ops_and_params(teacher, example)[0]
    with torch.no_grad():
        reference = top1(teacher, x, y)
    for ratio in (0.2, 0.3, 0.4, 0.5):
        model = cut(teacher, ratio)
        with torch.no_grad():
            re_estimate(model, calibration)
            share = torch_pruning.utils.count_ops_and_params(model, example)[0] / full
            score = top1(model, x, y)
        yield share, score, reference - score
