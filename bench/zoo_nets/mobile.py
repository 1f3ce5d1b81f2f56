"""Classifiers that were designed for small machines, at small width, for pictures of (3, 32, 32)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.zoo_nets.parts import Cba, Residual, Shuffle, SqueezeExcite, head, inverted


def mobilenet_v1() -> nn.Module:
    def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(Cba(inputs, inputs, 3, stride, inputs), Cba(inputs, outputs, 1))

    return nn.Sequential(
        Cba(3, 16, 3, 2), separable(16, 24), separable(24, 32, 2), separable(32, 32), head(32)
    )


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        Cba(3, 16, 3, 2, act=nn.ReLU6),
        inverted(16, 24, 2, 4),
        inverted(24, 24, 1, 4),
        Cba(24, 64, 1, act=nn.ReLU6),
        head(64),
    )


def mobilenet_v3() -> nn.Module:
    def se(channels: int) -> nn.Module:
        return SqueezeExcite(channels, 16, gate=nn.Hardsigmoid)

    return nn.Sequential(
        Cba(3, 16, 3, 2, act=nn.Hardswish), inverted(16, 16, 1, 3, nn.ReLU, se=se(48)),
        inverted(16, 24, 2, 4, nn.Hardswish, 5, se(64)), inverted(24, 24, 1, 4, nn.Hardswish, 5, se(96)),
        Cba(24, 64, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 48), nn.Hardswish(), nn.Linear(48, 10),
    )  # fmt: skip


def mnasnet() -> nn.Module:
    return nn.Sequential(
        Cba(3, 16, 3, 2), inverted(16, 24, 2, 3, nn.ReLU, 5), inverted(24, 24, 1, 3, nn.ReLU, 5), head(24)
    )


def efficientnet() -> nn.Module:
    def se(channels: int) -> nn.Module:
        return SqueezeExcite(channels, 8, nn.SiLU)

    return nn.Sequential(
        Cba(3, 16, 3, 2, act=nn.SiLU),
        inverted(16, 24, 2, 4, nn.SiLU, 3, se(64)),
        inverted(24, 24, 1, 4, nn.SiLU, 5, se(96)),
        head(24),
    )


def efficientnet_lite() -> nn.Module:
    return nn.Sequential(
        Cba(3, 16, 3, 2, act=nn.ReLU6), inverted(16, 24, 2, 4), inverted(24, 24, 1, 4, kernel=5), head(24)
    )


def efficientnet_v2() -> nn.Module:
    """Fused blocks: one 3x3 in the place of 1x1 and depthwise (2104.00298)."""
    fused = Residual(nn.Sequential(Cba(24, 64, act=nn.SiLU), Cba(64, 24, 1, act=None)), act=None)
    return nn.Sequential(
        Cba(3, 24, 3, 2, act=nn.SiLU),
        fused,
        inverted(24, 32, 2, 4, nn.SiLU, 3, SqueezeExcite(96, 8, nn.SiLU)),
        head(32),
    )


class Ghost(nn.Module):
    """Half of the maps by cheap operations on the other half (1911.11907)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.primary, self.cheap = Cba(inputs, half, 1), Cba(half, half, 3, 1, half)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


def ghostnet() -> nn.Module:
    step = Residual(
        nn.Sequential(Ghost(24, 48), SqueezeExcite(48, 12, gate=nn.Hardsigmoid), Ghost(48, 24)), act=None
    )
    return nn.Sequential(Cba(3, 24, 3, 2), step, Ghost(24, 32), head(32))


def shufflenet_v1() -> nn.Module:
    branch = nn.Sequential(
        Cba(24, 24, 1, groups=3),
        Shuffle(3),
        Cba(24, 24, 3, 1, 24, act=None),
        Cba(24, 24, 1, groups=3, act=None),
    )
    return nn.Sequential(Cba(3, 24, 3, 2), Residual(branch), Residual(branch), head(24))


class ShuffleV2(nn.Module):
    """Half of the channels pass, the other half is worked on, then both are shuffled (1807.11164)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            Cba(half, half, 1), Cba(half, half, 3, 1, half, act=None), Cba(half, half, 1)
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return self.shuffle(torch.cat([a, self.branch(b)], 1))


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2), ShuffleV2(), ShuffleV2(), head(32))


def xception() -> nn.Module:
    def separable(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False),
            Cba(inputs, outputs, 1, act=None),
        )

    branch = nn.Sequential(separable(16, 32), separable(32, 32), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(
        Cba(3, 16, 3, 2), Residual(branch, Cba(16, 32, 1, 2, act=None), None), nn.ReLU(), head(32)
    )


class PReluNet(nn.Module):
    """A face embedding: PReLU, a BatchNorm behind a flattened Linear, unit length (MobileFaceNet, 1804.07573)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Cba(3, 24, 3, 2, act=lambda: nn.PReLU(24)),
            Cba(24, 24, 3, 1, 24, act=lambda: nn.PReLU(24)),
            Cba(24, 32, 3, 2, act=None),
        )
        self.tail = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, 32, bias=False), nn.BatchNorm1d(32))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.tail(self.body(x)))
