"""What the networks of the zoo are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Act = Callable[[], nn.Module]


class Cba(nn.Sequential):
    """Convolution, batch norm, activation (None: linear)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: Act | None = nn.ReLU,
        dilation: int = 1,
    ) -> None:
        pad = dilation * (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False),
            nn.BatchNorm2d(outputs),
            *([act()] if act else []),
        )


class Residual(nn.Module):
    """``act(branch(x) + short(x))``."""

    def __init__(self, branch: nn.Module, short: nn.Module | None = None, act: Act | None = nn.ReLU) -> None:
        super().__init__()
        self.branch, self.short = branch, short or nn.Identity()
        self.act = act() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.short(x))


class Concat(nn.Module):
    """Branches side by side along the channels; ``keep`` puts the input in front."""

    def __init__(self, *branches: nn.Module, keep: bool = False) -> None:
        super().__init__()
        self.branches, self.keep = nn.ModuleList(branches), keep

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*([x] if self.keep else []), *[one(x) for one in self.branches]], 1)


class SqueezeExcite(nn.Module):
    """arXiv 1709.01507; ``gate`` is the sigmoid or what stands for it."""

    def __init__(self, channels: int, hidden: int, act: Act = nn.ReLU, gate: Act = nn.Sigmoid) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            act(),
            nn.Conv2d(hidden, channels, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Shuffle(nn.Module):
    """Channel shuffle of ``groups`` groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Up(nn.Module):
    """Interpolation by a factor, or to the size of another map."""

    def __init__(self, factor: int = 2, mode: str = "nearest") -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        corners = None if self.mode == "nearest" else False
        if like is not None:
            return nn.functional.interpolate(x, size=like.shape[-2:], mode=self.mode, align_corners=corners)
        return nn.functional.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=corners)


def head(channels: int, classes: int = 10) -> nn.Sequential:
    """Global average pool and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def inverted(
    inputs: int,
    outputs: int,
    stride: int,
    expand: int,
    act: Act = nn.ReLU6,
    kernel: int = 3,
    se: nn.Module | None = None,
) -> nn.Module:
    """MobileNetV2's block (1801.04381), with a squeeze-excite in the middle where one is given."""
    hidden = inputs * expand
    branch = nn.Sequential(
        Cba(inputs, hidden, 1, act=act),
        Cba(hidden, hidden, kernel, stride, hidden, act=act),
        *([se] if se is not None else []),
        Cba(hidden, outputs, 1, act=None),
    )
    return Residual(branch, act=None) if stride == 1 and inputs == outputs else branch
