"""Networks whose answers are boxes, at small width, each head as its paper builds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.zoo_nets.parts import Cba, Concat, Up


class YoloV8(nn.Module):
    """Decoupled heads, boxes as a distribution (DFL), anchors as constants, all joined (Ultralytics' v8 to v11)."""

    def __init__(self, classes: int = 3, bins: int = 8) -> None:
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem, self.deep = (
            nn.Sequential(Cba(3, 16, 3, 2, act=nn.SiLU), Cba(16, 24, 3, 2, act=nn.SiLU)),
            Cba(24, 32, 3, 2, act=nn.SiLU),
        )
        self.boxes = nn.ModuleList(
            [nn.Sequential(Cba(c, 24, act=nn.SiLU), nn.Conv2d(24, 4 * bins, 1)) for c in (24, 32)]
        )
        self.scores = nn.ModuleList(
            [nn.Sequential(Cba(c, 24, act=nn.SiLU), nn.Conv2d(24, classes, 1)) for c in (24, 32)]
        )
        places, strides = [], []
        for size, stride in ((8, 4), (4, 8)):
            y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
            places.append(torch.stack([x.flatten(), y.flatten()]))
            strides.append(torch.full((1, size * size), float(stride)))
        self.register_buffer("places", torch.cat(places, 1)[None])
        self.register_buffer("strides", torch.cat(strides, 1)[None])
        self.register_buffer("steps", torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        maps = [
            torch.cat([box(y), score(y)], 1).flatten(2)
            for y, box, score in zip((a, self.deep(a)), self.boxes, self.scores, strict=True)
        ]
        boxes, scores = torch.cat(maps, 2).split((4 * self.bins, self.classes), 1)
        sides = (boxes.view(-1, 4, self.bins, boxes.shape[-1]).transpose(1, 2).softmax(1) * self.steps).sum(1)
        low, high = self.places - sides[:, :2], self.places + sides[:, 2:]
        return torch.cat([torch.cat([(low + high) / 2, high - low], 1) * self.strides, scores.sigmoid()], 1)


class YoloV5(nn.Module):
    """Anchored heads: (n, anchors * (5 + classes), h, w) to rows (Ultralytics' v5)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.outputs, self.stem, self.head = (
            5 + classes,
            nn.Sequential(Cba(3, 24, 6 - 1, 2, act=nn.SiLU), Cba(24, 32, 3, 2, act=nn.SiLU)),
            nn.Conv2d(32, 3 * (5 + classes), 1),
        )
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], -1).view(1, 1, 8, 8, 2) - 0.5)
        self.register_buffer(
            "anchors", torch.tensor([[4.0, 5.0], [8.0, 10.0], [13.0, 16.0]]).view(1, 3, 1, 1, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.stem(x))
        y = y.view(-1, 3, self.outputs, 8, 8).permute(0, 1, 3, 4, 2).sigmoid()
        place, size, rest = y.split((2, 2, self.outputs - 4), 4)
        found = torch.cat([(place * 2 + self.grid) * 4, (size * 2) ** 2 * self.anchors, rest], 4)
        return found.view(found.shape[0], -1, self.outputs)


class YoloX(nn.Module):
    """Focus by slices, decoupled raw heads joined over the scales (2107.08430)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = Cba(12, 24, act=nn.SiLU), Cba(24, 32, 3, 2, act=nn.SiLU)
        self.pool = Concat(nn.MaxPool2d(5, 1, 2), nn.MaxPool2d(9, 1, 4), keep=True)
        self.join, self.heads = (
            Cba(96, 32, 1, act=nn.SiLU),
            nn.ModuleList([nn.Conv2d(c, n, 1) for c in (24, 32) for n in (4, 1, 3)]),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        a = self.stem(x)
        found = []
        for i, y in enumerate((a, self.join(self.pool(self.deep(a))))):
            box, there, kind = self.heads[3 * i : 3 * i + 3]
            found.append(torch.cat([box(y), there(y).sigmoid(), kind(y).sigmoid()], 1).flatten(2))
        return torch.cat(found, 2).permute(0, 2, 1)


class Ssd(nn.Module):
    """Raw heads permuted to rows, two outputs (1512.02325; ultraface, BlazeFace)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(Cba(3, 16, 3, 2), Cba(16, 24, 3, 2)), Cba(24, 32, 3, 2)
        self.heads = nn.ModuleList([nn.Conv2d(c, n, 3, padding=1) for c in (24, 32) for n in (2 * 2, 2 * 4)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(x)
        maps = (a, self.b(a))
        scores = torch.cat(
            [self.heads[2 * i](y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 2) for i, y in enumerate(maps)],
            1,
        )
        boxes = torch.cat(
            [
                self.heads[2 * i + 1](y).permute(0, 2, 3, 1).reshape(y.shape[0], -1, 4)
                for i, y in enumerate(maps)
            ],
            1,
        )
        return scores.softmax(-1), boxes


class FeaturePyramid(nn.Module):
    """RetinaNet's: lateral 1x1, top down, one head shared by all levels (1612.03144, 1708.02002)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(Cba(3, 16, 3, 2), Cba(16, 24, 3, 2)), Cba(24, 32, 3, 2)
        self.sides = nn.ModuleList([nn.Conv2d(24, 16, 1), nn.Conv2d(32, 16, 1)])
        self.head, self.up = (
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 6, 3, padding=1)),
            Up(2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(x)
        top = self.sides[1](self.b(a))
        return self.head(self.sides[0](a) + self.up(top)), self.head(top)


class CentreNet(nn.Module):
    """Three maps of one trunk (1904.07850)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Cba(3, 16, 3, 2),
            Cba(16, 32, 3, 2),
            nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, n, 1))
                for n in (3, 2, 2)
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        heat, size, offset = (head(y) for head in self.heads)
        return heat.sigmoid(), size, offset
