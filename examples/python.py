"""A torch module made small from Python, as one would in a notebook (needs torch; the pictures are in this folder)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import edgec

x, y = map(torch.from_numpy, np.load(Path(__file__).parent / "digits" / "eval.npz").values())
train, held_out = TensorDataset(x[:300], y[:300]), TensorDataset(x[300:], y[300:])
torch.manual_seed(0)
body = nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
module = nn.Sequential(*body, nn.Flatten(), nn.Linear(512, 10))
optimizer = torch.optim.Adam(module.parameters(), 3e-3)
for pictures, labels in DataLoader(train, 50, sampler=list(range(300)) * 20):
    optimizer.zero_grad()
    nn.functional.cross_entropy(module(pictures), labels).backward()
    optimizer.step()


def worst_class(predict, samples):  # a metric of one's own
    right = predict(samples.x).argmax(axis=1) == samples.y
    return min(right[samples.y == digit].mean() for digit in range(10))


data = {"data": DataLoader(train, 50), "eval": DataLoader(held_out, 50), "metric": worst_class}
report = edgec.compile(module, "out", **data, budget="macs=60%", precision="int8")
print(report)
print("answers", report.load("int8")(x[300:304]).argmax(axis=1), "labels", y[300:304].numpy())
