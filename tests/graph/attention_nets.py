"""Small attention networks in the forms that people write: timm's, torch's own, LeViT, Swin, MobileViT, 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Fused(nn.Module):
    """timm: one Linear for queries, keys and values, taken apart by ``select``."""

    def __init__(self, select: str, dim: int = 24, heads: int = 3, *, sdpa: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.heads, self.select, self.sdpa = heads, select, sdpa

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.select == "unbind":
            q, k, v = qkv.unbind(0)
        elif self.select == "index":
            q, k, v = qkv[0], qkv[1], qkv[2]
        else:
            q, k, v = (part.squeeze(0) for part in qkv.chunk(3, 0))
        if self.sdpa:
            o = functional.scaled_dot_product_attention(q, k, v)
        else:
            o = ((q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(o.transpose(1, 2).reshape(b, n, c))


class Apart(nn.Module):
    """Three Linears, or one cut by ``chunk``; by scaled_dot_product_attention or einsum."""

    def __init__(self, dim: int = 24, heads: int = 3, *, chunk: bool = False, einsum: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(dim, 3 * dim)] if chunk else [nn.Linear(dim, dim) for _ in range(3)]
        )
        self.proj, self.heads, self.einsum = nn.Linear(dim, dim), heads, einsum

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        made = [layer(x) for layer in self.layers]
        parts = made if len(made) == 3 else made[0].chunk(3, -1)
        q, k, v = (t.view(b, n, self.heads, c // self.heads).transpose(1, 2) for t in parts)
        if self.einsum:
            o = (torch.einsum("bhid,bhjd->bhij", q, k) * (c // self.heads) ** -0.5).softmax(-1) @ v
        else:
            o = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(o.transpose(1, 2).reshape(b, n, c))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class LeViT(nn.Module):
    """Values twice as wide as keys, a bias per head, an activation in front of the projection."""

    def __init__(self, dim: int = 24, heads: int = 3, keys: int = 8, values: int = 16) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, heads * (2 * keys + values)), nn.Linear(heads * values, dim)
        self.heads, self.keys, self.values = heads, keys, values
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.heads, -1).split([self.keys, self.keys, self.values], 3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        a = (q @ k * self.keys**-0.5 + self.bias).softmax(-1)
        return self.proj(functional.hardswish((a @ v).transpose(1, 2).reshape(b, n, -1)))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, dim: int = 24, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.n1, self.attention, self.n2 = nn.LayerNorm(dim), attention, nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 48), act(), nn.Linear(48, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.n1(x))
        return x + self.mlp(self.n2(x))


class ViT(nn.Module):
    def __init__(
        self, attention: nn.Module, *, token: bool = True, act: type[nn.Module] = nn.GELU, dim: int = 24
    ) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(3, dim, 4, 4), Block(attention, dim, act)
        self.norm, self.head, self.has_token = nn.LayerNorm(dim), nn.Linear(dim, 10), token
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.places = nn.Parameter(torch.randn(1, 16 + token, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.has_token:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.block(x + self.places))
        return self.head(x[:, 0] if self.has_token else x.mean(1))


def windows(x: Tensor, size: int) -> Tensor:
    b, h, w, c = x.shape
    return (
        x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)
    )


def whole(x: Tensor, size: int, h: int, w: int) -> Tensor:
    b = x.shape[0] // (h * w // size // size)
    return x.view(b, h // size, w // size, size, size, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)


class Swin(nn.Module):
    """Shifted windows, channels last."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, dim, 4, 4), nn.Linear(dim, 10)
        self.block = Block(Fused("unbind", dim), dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        _, h, w, _ = x.shape
        y = torch.roll(self.block.n1(x), (-1, -1), (1, 2))
        y = torch.roll(whole(self.block.attention(windows(y, 2)), 2, h, w), (1, 1), (1, 2))
        x = x + y
        x = x + self.block.mlp(self.block.n2(x))
        return self.head(x.mean((1, 2)))


class Convolved(nn.Module):
    """Queries, keys and values by a 1x1 convolution, in planes: EfficientFormer's and MobileNetV4's way."""

    def __init__(self, *, five: bool, dim: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, dim, 4, 4), nn.Linear(dim, 10)
        self.qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)
        self.heads, self.five = heads, five

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        b, c, h, w = x.shape
        if self.five:
            q, k, v = self.qkv(x).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        else:
            q, k, v = self.qkv(x).reshape(b, self.heads, 3 * c // self.heads, h * w).chunk(3, 2)
        a = (q.transpose(-2, -1) @ k * 0.3).softmax(-1)
        x = x + self.proj((v @ a.transpose(-2, -1)).reshape(b, c, h, w))
        return self.head(x.mean((2, 3)))


class MobileViT(nn.Module):
    """Pixels of one place in every patch attend to each other; batch and places lie on one axis inside."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, dim, 1, bias=False)
        self.block, self.norm = Block(Fused("unbind", dim), dim, nn.SiLU), nn.LayerNorm(dim)
        self.down, self.join, self.head = (
            nn.Conv2d(dim, 16, 1),
            nn.Conv2d(32, 20, 3, padding=1),
            nn.Linear(20, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = functional.silu(self.stem(x))
        x = self.up(first)
        b, c, h, w = x.shape
        rows, columns = h // 2, w // 2
        x = x.reshape(b * c * rows, 2, columns, 2).transpose(1, 2).reshape(b, c, rows * columns, 4)
        x = self.norm(self.block(x.transpose(1, 3).reshape(b * 4, rows * columns, c)))
        x = x.contiguous().view(b, 4, rows * columns, c).transpose(1, 3)
        x = x.reshape(b * c * rows, columns, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        x = functional.silu(self.join(torch.cat([first, functional.silu(self.down(x))], 1)))
        return self.head(x.mean((2, 3)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], set[int]]] = {
    # name: network, sizes of the prunable groups. 8 dims of queries and keys, 8 or 16 of values, 48 hidden units
    "unbind": (lambda: ViT(Fused("unbind")), {8, 48}),
    "index": (lambda: ViT(Fused("index")), {8, 48}),
    "chunk": (lambda: ViT(Fused("chunk"), token=False, act=nn.SiLU), {8, 48}),
    "sdpa": (lambda: ViT(Fused("unbind", sdpa=True), act=nn.ReLU), {8, 48}),
    "three linears": (lambda: ViT(Apart()), {8, 48}),
    "chunk of one linear": (lambda: ViT(Apart(chunk=True)), {8, 48}),
    "einsum": (lambda: ViT(Apart(einsum=True)), {8, 48}),
    "torch's own": (lambda: ViT(Own()), {8, 48}),
    "levit": (lambda: ViT(LeViT(), token=False, act=nn.Hardswish), {8, 16, 48}),
    "swin": (Swin, {8, 48}),
    "1x1 conv, five axes": (lambda: Convolved(five=True), {8, 24}),
    "1x1 conv, chunk": (lambda: Convolved(five=False), {8, 24}),
    "mobilevit": (MobileViT, {8, 16, 20, 48}),
}
