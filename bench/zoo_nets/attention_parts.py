"""What attention hybrids are made of: tokens, windows, layer norms over channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention on (n, tokens, channels), with an optional learned bias per head and pair of tokens."""

    def __init__(self, dim: int, heads: int, tokens: int = 0) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(0.2 * torch.randn(heads, tokens, tokens)) if tokens else None

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = (
            self.qkv(x).reshape(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        weights = q @ k.transpose(-2, -1) * self.scale
        if self.bias is not None:
            weights = weights + self.bias
        return self.proj((weights.softmax(dim=-1) @ v).transpose(1, 2).reshape(n, tokens, dim))


class Mlp(nn.Sequential):
    def __init__(self, dim: int, ratio: int = 2) -> None:
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class Block(nn.Module):
    """Pre-norm transformer block on (n, tokens, channels)."""

    def __init__(self, dim: int, heads: int, tokens: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = Attention(dim, heads, tokens), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (n, c, h, w), the way that timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        ).permute(0, 3, 1, 2)


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


def windows(x: Tensor, size: int) -> Tensor:
    """(n, h, w, c) -> (n * windows, size * size, c)."""
    n, h, w, c = x.shape
    return (
        x.view(n, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)
    )


def unwindow(x: Tensor, size: int, h: int, w: int) -> Tensor:
    """The inverse of `windows`."""
    c = x.shape[-1]
    return x.view(-1, h // size, w // size, size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)


def trained_like(module: nn.Module, seed: int) -> nn.Module:
    """Random weights with the statistics of trained ones, and batch norms that fit what passes through them."""
    torch.manual_seed(seed)
    for one in module.modules():
        if isinstance(one, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(
                one.weight, nonlinearity="relu" if isinstance(one, nn.Conv2d) else "linear"
            )
            with torch.no_grad():
                one.weight.mul_(
                    torch.exp(0.3 * torch.randn(len(one.weight))).view(-1, *[1] * (one.weight.ndim - 1))
                )
            if one.bias is not None:
                nn.init.normal_(one.bias, std=0.1)
        elif isinstance(one, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(one.weight, 0.6, 1.4)
            nn.init.normal_(one.bias, std=0.2)
    return module
