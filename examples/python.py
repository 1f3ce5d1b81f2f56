"""A torch module made small from Python, as one would in a notebook (needs torch; the pictures are in this folder)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import edgec

pictures, labels = map(torch.from_numpy, np.load(Path(__file__).parent / "digits" / "eval.npz").values())
train, held_out = TensorDataset(pictures[:300], labels[:300]), TensorDataset(pictures[300:], labels[300:])
torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
)
optimizer = torch.optim.Adam(module.parameters(), 3e-3)
for x, y in (batch for _ in range(20) for batch in DataLoader(train, batch_size=50, shuffle=True)):
    optimizer.zero_grad()
    nn.functional.cross_entropy(module(x), y).backward()
    optimizer.step()


def worst_class(predict, samples):
    """Of the ten digits, the share of right answers for the one that does worst."""
    right = predict(samples.x).argmax(axis=1) == samples.y
    return min(right[samples.y == digit].mean() for digit in range(10))


report = edgec.compile(
    module,
    "out",
    data=DataLoader(train, 50),
    eval=DataLoader(held_out, 50),
    metric=worst_class,
    budget="macs=60%",
    precision="int8",
)
print(report)
print("answers", report.load("int8")(pictures[300:304]).argmax(axis=1), "labels", labels[300:304].numpy())
