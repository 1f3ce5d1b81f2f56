"""Networks whose answers are maps or sequences, at small width; the table of them, and of those that answer with boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.zoo_nets.detectors import CentreNet, FeaturePyramid, Ssd, YoloV5, YoloV8, YoloX
from bench.zoo_nets.parts import Cba, Concat, Residual, SqueezeExcite, Up, inverted


class UNet(nn.Module):
    """1505.04597; ``deconv`` says how maps grow."""

    def __init__(self, deconv: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList([Cba(3, 16), Cba(16, 24), Cba(24, 32)])
        grow = [
            nn.ConvTranspose2d(a, b, 2, 2) if deconv else nn.Sequential(Up(2, "bilinear"), Cba(a, b, 1))
            for a, b in ((32, 24), (24, 16))
        ]
        self.grow, self.join = nn.ModuleList(grow), nn.ModuleList([Cba(48, 24), Cba(32, 16)])
        self.last, self.pool = nn.Conv2d(16, 4, 1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](self.pool(a))
        y = self.down[2](self.pool(b))
        y = self.join[0](torch.cat([self.grow[0](y), b], 1))
        return self.last(self.join[1](torch.cat([self.grow[1](y), a], 1)))


class Fcn(nn.Module):
    """Scores of two depths summed, then a bilinear stride-4 ConvTranspose per channel (1411.4038)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Cba(3, 16, 3, 2), Cba(16, 32, 3, 2)
        self.scores = nn.ModuleList([nn.Conv2d(16, 4, 1), nn.Conv2d(32, 4, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4, bias=False) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.up[1](self.scores[0](a) + self.up[0](self.scores[1](self.b(a))))


class Pyramid(nn.Module):
    """DeepLab's head: dilated branches and an image-wide one that is stretched back (1706.05587)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Cba(3, 16, 3, 2), Cba(16, 24, 3, 2))
        self.branches = nn.ModuleList([Cba(24, 16, 1), Cba(24, 16, dilation=2), Cba(24, 16, dilation=4)])
        self.wide = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 16, 1), nn.ReLU())
        self.join, self.up = nn.Sequential(Cba(64, 24, 1), nn.Conv2d(24, 4, 1)), Up(4, "bilinear")

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        found = [branch(y) for branch in self.branches]
        found.append(
            nn.functional.interpolate(self.wide(y), size=y.shape[-2:], mode="bilinear", align_corners=False)
        )
        return nn.functional.interpolate(
            self.join(torch.cat(found, 1)), size=x.shape[-2:], mode="bilinear", align_corners=False
        )


class Lraspp(nn.Module):
    """MobileNetV3's segmentation head (1905.02244)."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = (
            Cba(3, 16, 3, 2, act=nn.Hardswish),
            inverted(16, 24, 2, 3, nn.Hardswish, 5, SqueezeExcite(48, 12, gate=nn.Hardsigmoid)),
        )
        self.main, self.gate = (
            Cba(24, 24, 1),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 24, 1, bias=False), nn.Sigmoid()),
        )
        self.a, self.b, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(24, 4, 1), Up(2, "bilinear")

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        y = self.high(low)
        y = self.up(self.main(y) * self.gate(y), low)
        return self.up(self.a(low) + self.b(y), x)


class Enet(nn.Module):
    """Asymmetric and dilated convolutions, a pooled skip beside a strided one (1606.02147)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Concat(nn.Conv2d(3, 13, 3, 2, 1), nn.MaxPool2d(2))
        branch = nn.Sequential(
            Cba(16, 8, 1, act=lambda: nn.PReLU(8)), nn.Conv2d(8, 8, (5, 1), padding=(2, 0)),
            nn.Conv2d(8, 8, (1, 5), padding=(0, 2)),
            nn.BatchNorm2d(8), nn.PReLU(8), Cba(8, 16, 1, act=None),
        )  # fmt: skip
        self.body = Residual(branch, act=lambda: nn.PReLU(16))
        self.last = nn.ConvTranspose2d(16, 4, 3, 2, 1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


class HighResolution(nn.Module):
    """Two resolutions that exchange what they have (HRNet, 1908.07919); heat maps of key points."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.a, self.b = Cba(3, 16, 3, 2), Cba(16, 24, 3, 2), Cba(16, 16), Cba(24, 24)
        self.lift, self.sink, self.up, self.last = (
            Cba(24, 16, 1, act=None),
            Cba(16, 24, 3, 2, act=None),
            Up(2),
            nn.Conv2d(16, 5, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        a, b = self.a(a), self.b(self.down(a))
        a, b = torch.relu(a + self.up(self.lift(b))), torch.relu(b + self.sink(a))
        return self.last(a + self.up(self.lift(b)))


class Hourglass(nn.Module):
    """1603.06937."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.skip, self.low, self.up = (
            Cba(3, 24, 3, 2),
            Cba(24, 24),
            nn.Sequential(nn.MaxPool2d(2), Cba(24, 24)),
            Up(2),
        )
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.skip(x) + self.up(self.low(x)))


class SimplePose(nn.Module):
    """A ladder of ConvTranspose with batch norm and ReLU (1804.06208)."""

    def __init__(self) -> None:
        super().__init__()
        grow = [
            nn.Sequential(nn.ConvTranspose2d(32, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
            for _ in range(2)
        ]
        self.body = nn.Sequential(
            Cba(3, 24, 3, 2), Cba(24, 32, 3, 2), Cba(32, 32, 3, 2), *grow, nn.Conv2d(32, 5, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class SoftArgmax(nn.Module):
    """Key points as the mean place of a softmax over the map (1711.08229)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Cba(3, 16, 3, 2), Cba(16, 24), nn.Conv2d(24, 4, 1))
        self.register_buffer("place", torch.linspace(0, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        p = self.body(x).flatten(2).softmax(-1).view(-1, 4, 16, 16)
        return torch.cat([(p.sum(2) * self.place).sum(-1), (p.sum(3) * self.place).sum(-1)], 1)


def text_detector() -> nn.Module:
    """DBNet's head: two ConvTranspose to a probability map (1911.08947)."""
    return nn.Sequential(
        Cba(3, 16, 3, 2, act=nn.Hardswish), inverted(16, 24, 2, 3, nn.Hardswish), Cba(24, 16), nn.ConvTranspose2d(16, 16, 2, 2),
        nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, 2), nn.Sigmoid(),
    )  # fmt: skip


class TextReader(nn.Module):
    """A column of features per step, then scores per step (CRNN without the recurrence, as SVTR's small form)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Cba(3, 24, 3, 2), nn.MaxPool2d((2, 1)), Cba(24, 32, 3, (2, 1)))
        self.last = nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).mean(2).transpose(1, 2)).softmax(-1)


def espcn() -> nn.Module:
    """Depth to space at the end (1609.05158)."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 1, 2),
        nn.Tanh(),
        nn.Conv2d(24, 16, 3, 1, 1),
        nn.Tanh(),
        nn.Conv2d(16, 12, 3, 1, 1),
        nn.PixelShuffle(2),
    )


def fsrcnn() -> nn.Module:
    """A large ConvTranspose at the end (1608.00367)."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 1, 2), nn.PReLU(24), nn.Conv2d(24, 8, 1), nn.PReLU(8), nn.Conv2d(8, 24, 1), nn.PReLU(24),
        nn.ConvTranspose2d(24, 3, 9, 2, 4, output_padding=1),
    )  # fmt: skip


class ResidualDense(nn.Module):
    """ESRGAN's block: dense joins, LeakyReLU, residual scaling (1809.00219)."""

    def __init__(self, channels: int = 16, growth: int = 8) -> None:
        super().__init__()
        widths = (channels, channels + growth, channels + 2 * growth)
        self.layers = nn.ModuleList([nn.Conv2d(w, growth, 3, padding=1) for w in widths[:2]])
        self.last = nn.Conv2d(widths[2], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(nn.functional.leaky_relu(layer(torch.cat(found, 1)), 0.2))
        return x + 0.2 * self.last(torch.cat(found, 1))


def esrgan() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), ResidualDense(), ResidualDense(), Up(2), nn.Conv2d(16, 3, 3, 1, 1)
    )


def style() -> nn.Module:
    """Instance norm, reflection pads, nearest growth (1603.08155)."""
    block = Residual(
        nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.ReLU()
        ),
        act=None,
    )
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 16, 3, 2),
        nn.InstanceNorm2d(16, affine=True),
        nn.ReLU(),
        block,
        Up(2),
        nn.Conv2d(16, 3, 3, 1, 1),
        nn.Tanh(),
    )


def autoencoder() -> nn.Module:
    return nn.Sequential(
        Cba(3, 16, 3, 2), Cba(16, 8, 3, 2), nn.ConvTranspose2d(8, 16, 3, 2, 1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1), nn.Sigmoid(),
    )  # fmt: skip


class Matting(nn.Module):
    """Line and matting networks: the picture's own pixels joined late, several sizes (as MLSD, MODNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            Cba(3, 16, 3, 2, act=nn.ReLU6),
            inverted(16, 24, 2, 2),
            inverted(24, 24, 1, 2),
        )
        self.up, self.last = Up(2, "bilinear"), nn.Sequential(Cba(43, 16), nn.Conv2d(16, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        y = self.up(self.c(self.b(a)))
        return self.last(torch.cat([x, self.up(torch.cat([y, a], 1))], 1))


def audio_1d() -> nn.Module:
    """M5: raw sound through 1-D convolutions (1610.00087)."""

    def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Sequence[nn.Module]:
        return nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)

    return nn.Sequential(
        *layer(1, 16, 40, 4), *layer(16, 24, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 10)
    )


class Tcn(nn.Module):
    """Dilated causal 1-D convolutions, residual (1803.01271)."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.layers = (
            nn.Conv1d(8, channels, 1),
            nn.ModuleList([nn.Conv1d(channels, channels, 3, dilation=d) for d in (1, 2, 4)]),
        )
        self.last = nn.Linear(channels, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer, d in zip(self.layers, (1, 2, 4), strict=True):
            x = x + torch.relu(layer(nn.functional.pad(x, (2 * d, 0))))
        return self.last(x[..., -1])


def keyword() -> nn.Module:
    """DS-CNN on (1, 49, 10) coefficients (1711.07128)."""

    def separable(channels: int) -> nn.Module:
        return nn.Sequential(Cba(channels, channels, 3, 1, channels), Cba(channels, channels, 1))

    first = nn.Sequential(nn.Conv2d(1, 24, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(24), nn.ReLU())
    return nn.Sequential(
        first,
        separable(24),
        separable(24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 12),
        nn.Softmax(-1),
    )


def video_3d() -> nn.Module:
    """C3D (1412.0767)."""
    return nn.Sequential(
        nn.Conv3d(3, 12, 3, 1, 1), nn.BatchNorm3d(12), nn.ReLU(), nn.MaxPool3d((1, 2, 2)), nn.Conv3d(12, 16, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


PICTURE = (3, 32, 32)
MAPS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet_deconv": (lambda: UNet(True), PICTURE), "unet_bilinear": (lambda: UNet(False), PICTURE), "fcn": (Fcn, PICTURE),
    "deeplab": (Pyramid, PICTURE), "lraspp": (Lraspp, PICTURE), "enet": (Enet, PICTURE), "hrnet": (HighResolution, PICTURE),
    "hourglass": (Hourglass, PICTURE), "simple_pose": (SimplePose, PICTURE), "soft_argmax": (SoftArgmax, PICTURE),
    "yolov8": (YoloV8, PICTURE), "yolov5": (YoloV5, PICTURE), "yolox": (YoloX, PICTURE), "ssd": (Ssd, PICTURE),
    "retinanet": (FeaturePyramid, PICTURE), "centernet": (CentreNet, PICTURE), "dbnet": (text_detector, PICTURE),
    "text_reader": (TextReader, (3, 32, 64)), "espcn": (espcn, PICTURE), "fsrcnn": (fsrcnn, PICTURE), "esrgan": (esrgan, PICTURE),
    "style": (style, PICTURE), "autoencoder": (autoencoder, PICTURE), "matting": (Matting, PICTURE),
    "audio_1d": (audio_1d, (1, 1024)),
    "tcn": (Tcn, (8, 64)), "keyword": (keyword, (1, 49, 10)), "video_3d": (video_3d, (3, 4, 16, 16)),
}  # fmt: skip
