"""Classifiers at small width, each block as its paper builds it, for pictures of (3, 32, 32); small machines: `mobile`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.zoo_nets.mobile import (
    PReluNet,
    efficientnet,
    efficientnet_lite,
    efficientnet_v2,
    ghostnet,
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    shufflenet_v1,
    shufflenet_v2,
    xception,
)
from bench.zoo_nets.parts import Cba, Concat, Residual, SqueezeExcite, head


def vgg() -> nn.Module:
    return nn.Sequential(
        Cba(3, 16), nn.MaxPool2d(2), Cba(16, 32), Cba(32, 32), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * 64, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), nn.Conv2d(16, 32, 3, 1, 1, groups=2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def nin() -> nn.Module:
    return nn.Sequential(
        Cba(3, 24, 5), Cba(24, 20, 1), Cba(20, 16, 1), nn.MaxPool2d(3, 2, ceil_mode=True), Cba(16, 24, 5), Cba(24, 24, 1),
        nn.AvgPool2d(3, 2, ceil_mode=True), Cba(24, 24), nn.Conv2d(24, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeeze: int, expand: int) -> nn.Module:
        wide = [nn.Sequential(nn.Conv2d(squeeze, expand, k, padding=k // 2), nn.ReLU()) for k in (1, 3)]
        return nn.Sequential(nn.Conv2d(inputs, squeeze, 1), nn.ReLU(), Concat(*wide))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 8, 16), fire(32, 8, 16),
        nn.Conv2d(32, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def googlenet() -> nn.Module:
    def inception(inputs: int) -> nn.Module:
        return Concat(
            Cba(inputs, 8, 1), nn.Sequential(Cba(inputs, 8, 1), Cba(8, 16)), nn.Sequential(Cba(inputs, 4, 1), Cba(4, 8, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), Cba(inputs, 8, 1)),
        )  # fmt: skip

    return nn.Sequential(Cba(3, 16, 3, 2), inception(16), nn.MaxPool2d(2), inception(40), head(40))


def inception_v3() -> nn.Module:
    factored = nn.Sequential(
        nn.Conv2d(24, 16, (1, 7), padding=(0, 3)),
        nn.ReLU(),
        nn.Conv2d(16, 16, (7, 1), padding=(3, 0)),
        nn.ReLU(),
    )
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), Cba(24, 8, 1))
    return nn.Sequential(Cba(3, 24, 3, 2), Concat(factored, pooled, Cba(24, 8, 1)), head(32))


def basic(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    short = None if stride == 1 and inputs == outputs else Cba(inputs, outputs, 1, stride, act=None)
    return Residual(nn.Sequential(Cba(inputs, outputs, 3, stride), Cba(outputs, outputs, act=None)), short)


def bottleneck(
    inputs: int, hidden: int, groups: int = 1, se: bool = False, act: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    extra = [SqueezeExcite(inputs, 8)] if se else []
    branch = nn.Sequential(
        Cba(inputs, hidden, 1, act=act),
        Cba(hidden, hidden, groups=groups, act=act),
        Cba(hidden, inputs, 1, act=None),
        *extra,
    )
    return Residual(branch, act=act)


def resnet() -> nn.Module:
    return nn.Sequential(Cba(3, 16), basic(16, 16), basic(16, 32, 2), basic(32, 32), head(32))


def resnet_d() -> nn.Module:
    """ResNet-D: a deep stem, average pool on the shortcut (1812.01187)."""
    short = nn.Sequential(
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), Cba(16, 32, 1, act=None)
    )
    step = Residual(nn.Sequential(Cba(16, 32, 3, 2), Cba(32, 32, act=None)), short)
    return nn.Sequential(Cba(3, 8, 3, 2), Cba(8, 16), nn.MaxPool2d(3, 2, 1), step, head(32))


def resnet_bottleneck() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2), bottleneck(32, 16), bottleneck(32, 16), head(32))


def resnext() -> nn.Module:
    return nn.Sequential(
        Cba(3, 32, 3, 2), bottleneck(32, 32, groups=8), bottleneck(32, 32, groups=8), head(32)
    )


def se_resnet() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2), bottleneck(32, 16, se=True), bottleneck(32, 16, se=True), head(32))


class PreAct(nn.Module):
    """Batch norm before the activation before the convolution (1603.05027)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norms = [nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) for _ in range(2)]
        convs = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(norms[0], convs[0], norms[1], convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def preact_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1, bias=False), PreAct(24), PreAct(24), nn.BatchNorm2d(24), nn.ReLU(), head(24)
    )


def densenet() -> nn.Module:
    def dense(inputs: int) -> nn.Module:
        inner = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 16, 1, bias=False),
            Cba(16, 16),
            nn.Conv2d(16, 8, 3, padding=1),
        )
        return Concat(inner, keep=True)

    transition = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.AvgPool2d(2))
    return nn.Sequential(
        Cba(3, 16), dense(16), dense(24), transition, dense(16), nn.BatchNorm2d(24), nn.ReLU(), head(24)
    )


class Res2(nn.Module):
    """Res2Net's scales (1904.01169): each split sees the one before."""

    def __init__(self, width: int = 8, scales: int = 4) -> None:
        super().__init__()
        self.width, self.inner = width, nn.ModuleList([Cba(width, width) for _ in range(scales - 1)])
        self.first, self.last = (
            Cba(width * scales, width * scales, 1),
            Cba(width * scales, width * scales, 1, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(torch.split(self.first(x), self.width, 1))
        done = [parts[0]]
        for part, inner in zip(parts[1:], self.inner, strict=True):
            done.append(inner(part if len(done) == 1 else part + done[-1]))
        return torch.relu(x + self.last(torch.cat(done, 1)))


def res2net() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2), Res2(), Res2(), head(32))


class Csp(nn.Module):
    """Cross-stage partial block (1911.11929)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        half = channels // 2
        self.a, self.b = Cba(channels, half, 1, act=nn.SiLU), Cba(channels, half, 1, act=nn.SiLU)
        branch = nn.Sequential(Cba(half, half, 1, act=nn.SiLU), Cba(half, half, act=nn.SiLU))
        self.inner, self.join = Residual(branch, act=None), Cba(channels, channels, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.inner(self.a(x)), self.b(x)], 1))


def cspdarknet() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2, act=nn.SiLU), Csp(), Csp(), head(32))


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


def darknet() -> nn.Module:
    step = Residual(nn.Sequential(Cba(32, 16, 1, act=leaky), Cba(16, 32, act=leaky)), act=None)
    return nn.Sequential(Cba(3, 32, 3, 2, act=leaky), step, Cba(32, 48, 3, 2, act=leaky), head(48))


class Vov(nn.Module):
    """One-shot aggregation (1904.09730) with effective squeeze-excite."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Cba(channels, channels) for _ in range(3)])
        self.join, self.gate = Cba(channels * 4, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        y = self.join(torch.cat(found, 1))
        return x + y * nn.functional.hardsigmoid(self.gate(y.mean((2, 3), keepdim=True)))


def vovnet() -> nn.Module:
    return nn.Sequential(Cba(3, 24, 3, 2), Vov(), head(24))


def regnet() -> nn.Module:
    return nn.Sequential(
        Cba(3, 32, 3, 2),
        bottleneck(32, 32, groups=4, se=True),
        bottleneck(32, 32, groups=4, se=True),
        head(32),
    )


def tresnet() -> nn.Module:
    """Space-to-depth stem (2003.13630)."""
    return nn.Sequential(
        nn.PixelUnshuffle(4), Cba(48, 32, act=leaky), bottleneck(32, 16, act=leaky), head(32)
    )


class Weighted(nn.Conv2d):
    """A convolution with standardised weights (1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (
            w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        return nn.functional.conv2d(x, w, self.bias, self.stride, self.padding)


def group_norm_resnet() -> nn.Module:
    """BiT's layers: weight standardisation and group norm (1912.11370)."""
    branch = nn.Sequential(nn.GroupNorm(4, 32), nn.ReLU(), Weighted(32, 32, 3, padding=1))
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), Residual(branch, act=None), nn.GroupNorm(4, 32), nn.ReLU(), head(32)
    )


class Cbam(nn.Module):
    """Channel and spatial attention (1807.06521)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, channels, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.place(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def cbam_resnet() -> nn.Module:
    return nn.Sequential(
        Cba(3, 32, 3, 2), Residual(nn.Sequential(Cba(32, 32), Cba(32, 32, act=None), Cbam())), head(32)
    )


class Eca(nn.Module):
    """A 1-D convolution over the channels (1910.03151)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3))[:, None])[:, 0]
        return x * torch.sigmoid(y)[:, :, None, None]


def eca_resnet() -> nn.Module:
    return nn.Sequential(
        Cba(3, 32, 3, 2), Residual(nn.Sequential(Cba(32, 32), Cba(32, 32, act=None), Eca())), head(32)
    )


class Selective(nn.Module):
    """Two kernels weighed by a softmax (1903.06586)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.a, self.b = Cba(channels, channels), Cba(channels, channels, dilation=2)
        self.squeeze, self.excite = Cba(channels, 16, 1), nn.Conv2d(16, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], 1)
        z = self.excite(self.squeeze(both.sum(1).mean((2, 3), keepdim=True)))
        weights = torch.softmax(z.view(z.shape[0], 2, -1, 1, 1), 1)
        return (both * weights).sum(1)


def sknet() -> nn.Module:
    return nn.Sequential(Cba(3, 32, 3, 2), Selective(), head(32))


def convmixer() -> nn.Module:
    def act_norm(channels: int) -> nn.Module:
        return nn.Sequential(nn.GELU(), nn.BatchNorm2d(channels))

    mix = Residual(nn.Sequential(nn.Conv2d(32, 32, 5, padding=2, groups=32), act_norm(32)), act=None)
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 4), act_norm(32), mix, nn.Conv2d(32, 32, 1), act_norm(32), head(32)
    )


class Mixer(nn.Module):
    """MLP-Mixer's layer (2105.01601)."""

    def __init__(self, dim: int = 32, tokens: int = 16) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.layers = nn.Conv2d(3, 32, 8, 8), nn.Sequential(Mixer(), Mixer())
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class RepVgg(nn.Module):
    """The training form: three branches that are one convolution (2101.03697)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = Cba(inputs, outputs, 3, stride, act=None), Cba(inputs, outputs, 1, stride, act=None)
        self.c = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + self.b(x)
        return torch.relu(y if self.c is None else y + self.c(x))


def repvgg() -> nn.Module:
    return nn.Sequential(RepVgg(3, 24, 2), RepVgg(24, 24), RepVgg(24, 24), head(24))


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "vgg": vgg, "alexnet": alexnet, "nin": nin, "squeezenet": squeezenet, "googlenet": googlenet, "inception_v3": inception_v3,
    "resnet": resnet, "resnet_d": resnet_d, "resnet_bottleneck": resnet_bottleneck, "resnext": resnext, "se_resnet": se_resnet,
    "preact_resnet": preact_resnet, "densenet": densenet, "res2net": res2net, "cspdarknet": cspdarknet, "darknet": darknet,
    "vovnet": vovnet, "regnet": regnet, "tresnet": tresnet, "group_norm_resnet": group_norm_resnet, "cbam_resnet": cbam_resnet,
    "eca_resnet": eca_resnet, "sknet": sknet, "convmixer": convmixer, "mlp_mixer": MlpMixer, "repvgg": repvgg,
    "mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2, "mobilenet_v3": mobilenet_v3, "mnasnet": mnasnet,
    "efficientnet": efficientnet, "efficientnet_lite": efficientnet_lite, "efficientnet_v2": efficientnet_v2,
    "ghostnet": ghostnet,
    "shufflenet_v1": shufflenet_v1, "shufflenet_v2": shufflenet_v2, "xception": xception, "face_embedding": PReluNet,
}  # fmt: skip
