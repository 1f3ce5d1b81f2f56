"""Attention hybrids at small width: each as its paper (and timm) builds it, for pictures of (3, 32, 32)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.zoo_nets.attention_parts import (
    Attention,
    Block,
    ChannelNorm,
    Mlp,
    conv,
    trained_like,
    unwindow,
    windows,
)

CLASSES = 10


class ViT(nn.Module):
    """arXiv 2010.11929; ``extra`` 2 is DeiT's class and distillation tokens (2012.12877)."""

    def __init__(self, dim: int = 32, depth: int = 2, extra: int = 1) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.extra = nn.Parameter(torch.randn(1, extra, dim))
        self.position = nn.Parameter(0.5 * torch.randn(1, 16 + extra, dim))
        self.blocks = nn.Sequential(*[Block(dim, 4) for _ in range(depth)])
        self.norm, self.heads = (
            nn.LayerNorm(dim),
            nn.ModuleList([nn.Linear(dim, CLASSES) for _ in range(extra)]),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = self.norm(self.blocks(x))
        found = [head(x[:, i]) for i, head in enumerate(self.heads)]
        return sum(found[1:], found[0]) / len(found)


class TokensFirst(nn.Module):
    """torch's own encoder layer with its default layout (tokens, batch, channels): the batch moves to axis 1."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, dim, 8, 8), nn.Linear(dim, CLASSES)
        self.attention, self.norm, self.mlp = nn.MultiheadAttention(dim, 4), nn.LayerNorm(dim), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(x)).mean(0))


class SwinBlock(nn.Module):
    """arXiv 2103.14030: attention inside windows, shifted every second time."""

    def __init__(self, dim: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), Mlp(dim)
        self.attention = Attention(dim, 4, window * window)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = unwindow(self.attention(windows(y, self.window)), self.window, self.size, self.size)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two stages with patch merging between."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.one = nn.Sequential(SwinBlock(dim, 8, 4, 0), SwinBlock(dim, 8, 4, 2))
        self.merge = nn.Sequential(nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False))
        self.two = SwinBlock(2 * dim, 4, 4, 0)
        self.norm, self.head = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.head(self.norm(self.two(self.merge(x))).mean((1, 2)))


class MobileViT(nn.Module):
    """arXiv 2110.02178: unfold to patches, attend among pixels of one place, fold back, fuse."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, stride=2), conv(16, 24, stride=2))
        self.local = nn.Sequential(conv(24, 24), nn.Conv2d(24, dim, 1, bias=False))
        self.block, self.norm = Block(dim, 4), nn.LayerNorm(dim)
        self.back, self.fuse = conv(dim, 24, 1), conv(48, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.local(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w // 4, 4)
        y = y.transpose(1, 3).reshape(n * 4, h * w // 4, c)
        y = self.norm(self.block(y))
        y = y.view(n, 4, h * w // 4, c).transpose(1, 3).reshape(n * c * h // 2, w // 2, 2, 2)
        y = self.back(y.transpose(1, 2).reshape(n, c, h, w))
        return self.head(self.fuse(torch.cat([x, y], 1)).mean((2, 3)))


class EdgeNeXt(nn.Module):
    """arXiv 2206.10589: split depthwise convolutions, attention over channels (cross-covariance)."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, dim, 4, 4), ChannelNorm(dim))
        self.first, self.second = (
            nn.Conv2d(dim // 2, dim // 2, 3, padding=1, groups=dim // 2) for _ in range(2)
        )
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), Mlp(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.temperature = nn.Parameter(torch.ones(4, 1, 1))
        self.norm, self.head = ChannelNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = x.chunk(2, 1)
        a = self.first(a)
        y = torch.cat([a, self.second(b + a)], 1)
        n, c, h, w = y.shape
        t = y.reshape(n, c, h * w).permute(0, 2, 1)
        q, k, v = self.qkv(self.norm1(t)).reshape(n, h * w, 3, 4, c // 4).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        t = t + self.proj((weights @ v).permute(0, 3, 1, 2).reshape(n, h * w, c))
        t = (t + self.mlp(self.norm2(t))).permute(0, 2, 1).reshape(n, c, h, w)
        return self.head(self.norm(x + t).mean((2, 3)))


class PoolMixer(nn.Module):
    """arXiv 2111.11418: an average pool instead of attention; layer scales, GroupNorm of one group."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1))
        self.scale1, self.scale2 = (nn.Parameter(torch.rand(dim, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * (self.pool(y) - y)
        return x + self.scale2 * self.mlp(self.norm2(x))


class PoolFormer(nn.Module):
    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, dim, 7, 4, 2), PoolMixer(dim), nn.Conv2d(dim, 2 * dim, 3, 2, 1), PoolMixer(2 * dim)
        )
        self.norm, self.head = nn.GroupNorm(1, 2 * dim), nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x)).mean((2, 3)))


class EfficientFormer(nn.Module):
    """arXiv 2206.01191: pool mixers with batch norm in 4-D, then transformer blocks with attention biases in 3-D."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, dim // 2, stride=2), conv(dim // 2, dim, stride=2))
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(conv(dim, 2 * dim, 1), conv(2 * dim, dim, 1, act=False))
        self.down, self.block = conv(dim, 2 * dim, stride=2, act=False), Block(2 * dim, 4, 16)
        self.norm, self.head = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.pool(x) - x
        x = self.down(x + self.mlp(x)).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.block(x)).mean(1))


class LinearNorm(nn.Module):
    """LeViT's Linear with a BatchNorm1d over tokens that are merged with the batch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


class LeViT(nn.Module):
    """arXiv 2104.01136: keys narrower than values, attention biases, hard-swish before the projection."""

    def __init__(self, dim: int = 32, heads: int = 4, key: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 16, stride=2), conv(16, dim, stride=2), conv(dim, dim, stride=2, act=False)
        )
        self.heads, self.key = heads, key
        self.qkv, self.proj = (
            LinearNorm(dim, heads * 4 * key),
            nn.Sequential(nn.Hardswish(), LinearNorm(heads * 2 * key, dim)),
        )
        self.bias = nn.Parameter(0.2 * torch.randn(heads, 16, 16))
        self.mlp = nn.Sequential(LinearNorm(dim, 2 * dim), nn.Hardswish(), LinearNorm(2 * dim, dim))
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(n, tokens, self.heads, -1).split([self.key, self.key, 2 * self.key], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        weights = (q @ k * self.key**-0.5 + self.bias).softmax(dim=-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, -1))
        return self.head((x + self.mlp(x)).mean(1))


class MaxViT(nn.Module):
    """arXiv 2204.01697: a mobile block, attention in windows, then over a dilated grid."""

    def __init__(self, dim: int = 32, size: int = 8, window: int = 4) -> None:
        super().__init__()
        self.size, self.window = size, window
        self.stem = nn.Sequential(conv(3, 16, stride=2), conv(16, dim, stride=2))
        self.wide = nn.Sequential(conv(dim, 2 * dim, 1), conv(2 * dim, 2 * dim, groups=2 * dim))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(2 * dim, 8, 1),
            nn.SiLU(),
            nn.Conv2d(8, 2 * dim, 1),
            nn.Sigmoid(),
        )
        self.narrow = nn.Conv2d(2 * dim, dim, 1)
        self.block, self.grid = Block(dim, 4, window * window), Block(dim, 4, window * window)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.wide(x)
        x = (x + self.narrow(y * self.gate(y))).permute(0, 2, 3, 1)
        x = unwindow(self.block(windows(x, self.window)), self.window, self.size, self.size)
        n, h, w, c = x.shape
        s = self.window
        x = x.view(n, s, h // s, s, w // s, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, s * s, c)
        x = self.grid(x).view(n, h // s, w // s, s, s, c).permute(0, 3, 1, 4, 2, 5).reshape(n, h, w, c)
        return self.head(x.mean((1, 2)))


class ConvNeXtBlock(nn.Module):
    """arXiv 2201.03545; ``grn`` is version 2's global response normalisation (2301.00808)."""

    def __init__(self, dim: int, grn: bool) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim)
        self.up, self.act, self.down = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        self.scale = None if grn else nn.Parameter(torch.rand(dim))
        self.gamma, self.beta = (nn.Parameter(0.3 * torch.randn(4 * dim)) if grn else None for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.up(self.norm(self.dw(x).permute(0, 2, 3, 1))))
        if self.gamma is not None and self.beta is not None:
            size = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
            y = y + self.gamma * (y * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta
        y = self.down(y)
        return x + (y if self.scale is None else self.scale * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, dim: int = 24, grn: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, dim, 4, 4), ChannelNorm(dim), ConvNeXtBlock(dim, grn),
            ChannelNorm(dim), nn.Conv2d(dim, 2 * dim, 2, 2), ConvNeXtBlock(2 * dim, grn),
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x).mean((2, 3))))


class FastViT(nn.Module):
    """arXiv 2303.14189: depthwise token mixing with layer scale, a conv feed-forward, attention at the end."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, dim, stride=2), conv(dim, dim, stride=2, groups=dim), conv(dim, dim, 1)
        )
        self.mixer, self.scale = conv(dim, dim, groups=dim, act=False), nn.Parameter(torch.rand(dim, 1, 1))
        self.ffn = nn.Sequential(
            conv(dim, dim, 7, groups=dim, act=False),
            nn.Conv2d(dim, 2 * dim, 1),
            nn.GELU(),
            nn.Conv2d(2 * dim, dim, 1),
        )
        self.down, self.norm = conv(dim, 2 * dim, stride=2), nn.BatchNorm2d(2 * dim)
        self.attention, self.head = Attention(2 * dim, 4), nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.scale * (self.mixer(x) - x)
        x = self.down(x + self.ffn(x))
        n, c, h, w = x.shape
        y = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return self.head((x + y.transpose(1, 2).reshape(n, c, h, w)).mean((2, 3)))


ATTENTION: dict[str, Callable[[], nn.Module]] = {
    "vit": ViT,
    "deit": lambda: ViT(extra=2),
    "tokens_first": TokensFirst,
    "swin": Swin,
    "mobilevit": MobileViT,
    "edgenext": EdgeNeXt,
    "efficientformer": EfficientFormer,
    "levit": LeViT,
    "maxvit": MaxViT,
    "convnext": ConvNeXt,
    "convnext_v2": lambda: ConvNeXt(grn=True),
    "poolformer": PoolFormer,
    "fastvit": FastViT,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """One network, in inference mode, its batch norms calibrated on noise."""
    torch.manual_seed(seed)
    module = trained_like(ATTENTION[name](), seed)
    with torch.no_grad():
        for _ in range(20):
            module.train()(torch.randn(16, 3, 32, 32))
    return module.eval()
