"""Train the network of the demo on scikit-learn's digits, and export examples/digits.onnx.

    pip install torch onnxscript scikit-learn
    python examples/train_digits.py          about a minute on one core

A small CNN with all that edgec has to deal with: convolution, BatchNorm, ReLU, residual sums, a depthwise-separable
block with stride, global average pooling, and a classifier. Inputs are (n, 1, 8, 8), float32 from 0 to 1.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from digits_data import load_split
from torch import Tensor, nn
from torch.nn import functional

OUTPUT = Path(__file__).parent / "digits.onnx"
EPOCHS = 40
BATCH = 64


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    layer = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.ReLU())


class Residual(nn.Module):
    """relu(x + two convolutions of x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class DigitsNet(nn.Module):
    """About 116 thousand parameters, 7 million multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 32)
        self.block1 = Residual(32)
        self.widen = conv(32, 64)
        self.block2 = Residual(64)
        self.depthwise = conv(64, 64, stride=2, groups=64)
        self.pointwise = conv(64, 64, kernel=1)
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.block2(self.widen(self.block1(self.stem(image))))
        x = self.pointwise(self.depthwise(x))
        return self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def shifted(x: Tensor) -> Tensor:
    """Each picture moved by up to one pixel."""
    padded = functional.pad(x, (1, 1, 1, 1))
    corners = torch.randint(0, 3, (len(x), 2))
    return torch.stack(
        [p[:, r : r + 8, c : c + 8] for p, (r, c) in zip(padded, corners.tolist(), strict=True)]
    )


def train(net: DigitsNet, x: Tensor, y: Tensor) -> None:
    """AdamW with a cosine schedule."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.cross_entropy(net(shifted(x[rows])), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(x):.3f}")


def accuracy(net: DigitsNet, x: Tensor, y: Tensor) -> float:
    """Top-1 accuracy as a fraction."""
    net.eval()
    with torch.no_grad():
        return (net(x).argmax(1) == y).double().mean().item()


def export(net: DigitsNet, path: Path) -> None:
    """One ONNX file with a dynamic batch, without the exporter's notes about this machine's source files."""
    net.eval()
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: batch}},
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(path)
    for noted in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del noted.metadata_props[:]
        noted.doc_string = ""
    for noted in (*model.graph.initializer, *model.graph.value_info):
        del noted.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    """Train, say how good it is, export."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same result on any machine of one kind
    split = load_split()
    net = DigitsNet()
    train(net, torch.from_numpy(split.train_x), torch.from_numpy(split.train_y))
    held_out = accuracy(net, torch.from_numpy(split.eval_x), torch.from_numpy(split.eval_y))
    export(net, OUTPUT)
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{parameters} parameters, held-out top-1 {held_out:.1%}")
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
