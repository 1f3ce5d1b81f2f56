"""The peer of bench/learned.py: Torch-Pruning's structure under the same budget, and the same number of distillation steps.

Global magnitude pruning of whole groups (`torch_pruning`, L1), as deep as the budget asks, then the usual loop of its users: Adam
along a cosine, flips and shifts, batches of 64, the divergence from the source's logits on the images that `refine` has too. No
labels but for scoring. ResNet-56 keeps its stream (its shortcuts fill up with zeros, which the pruner cannot follow); its
BatchNorms learn along.

    pip install torch-pruning
    python bench/peer_structure.py [resnet56:macs=50] [nin:params=20] [--steps 150] [--seeds 0]
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
import torch_pruning
from peer_torch_pruning import ResNet, cut, pictures, re_estimate, top1
from portfolio import shared
from torch import nn
from torch.nn import functional

BATCH = 64
SHIFT = 2
"""Pixels."""
RATES = {"resnet56": 1e-3, "nin": 5e-4}


def nin() -> nn.Sequential:
    """Network in network; the modules' numbers are those of its state_dict."""
    widths = [(3, 192, 5), (192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1)]
    widths += [(192, 192, 3), (192, 192, 1), (192, 10, 1)]
    layers: list[nn.Module] = []
    for number, (inputs, outputs, size) in enumerate(widths):
        layers += [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()]
        if number == 2:
            layers += [nn.MaxPool2d(3, 2, 1), nn.Identity()]
        if number == 5:
            layers += [nn.AvgPool2d(3, 2, 1), nn.Identity()]
    return nn.Sequential(*layers, nn.AvgPool2d(8, 1), nn.Flatten())


def teacher_of(name: str) -> nn.Module:
    """The trained network."""
    model = nin() if name == "nin" else ResNet(56)
    file = shared() / "models" / f"{name}_cifar10_state_dict.pt"
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def costs(model: nn.Module) -> tuple[float, float]:
    """Multiply-adds and parameters."""
    macs, params = torch_pruning.utils.count_ops_and_params(model, torch.zeros(1, 3, 32, 32))
    return macs, params


def pruned(teacher: nn.Module, place: int, share: float) -> nn.Module:
    """The least pruned network that costs no more than ``share`` of the teacher, by bisection of the pruning ratio; ``place``: of
    its `costs`."""
    low, high, best = 0.0, 0.98, None
    for _ in range(9):
        ratio = (low + high) / 2
        model = cut(teacher, ratio)
        if costs(model)[place] <= share * costs(teacher)[place]:
            best, high = model, ratio
        else:
            low = ratio
    if best is None:
        raise SystemExit("no pruning ratio reaches the budget")
    return best


def distilled(
    model: nn.Module, teacher: nn.Module, x: torch.Tensor, steps: int, rate: float, seed: int
) -> None:
    """Learn the teacher's probabilities, in place."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.train()
    for _ in range(steps):
        batch = x[rng.integers(0, len(x), BATCH)]
        flips = torch.from_numpy(rng.random(BATCH) < 0.5)
        batch = torch.where(flips[:, None, None, None], batch.flip(3), batch)
        batch = torch.roll(batch, tuple(rng.integers(-SHIFT, SHIFT + 1, 2)), (2, 3))
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(batch), 1)
        loss = functional.kl_div(
            functional.log_softmax(model(batch), 1), wanted, reduction="batchmean", log_target=True
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def main(arguments: argparse.Namespace) -> None:
    """Two rows per case."""
    torch.set_num_threads(1)
    folder = shared() / "cifar10"
    calibration = pictures(folder / "calib.npz")[0]
    x = torch.cat([pictures(folder / name)[0] for name in ("calib.npz", "unlabelled_extra.npz")])
    judged, found = pictures(folder / "eval.npz")
    y = torch.from_numpy(found["y"].astype(np.int64))
    print("| network | MACs, parameters | seed | steps | CPU s | top-1 |\n" + "|---" * 6 + "|")
    for case in arguments.cases:
        name, budget = case.split(":")
        kind, percent = budget.split("=")
        teacher = teacher_of(name)
        place = ("macs", "params").index(kind)
        start = time.process_time()
        narrow = pruned(teacher, place, float(percent) / 100)
        pruning = time.process_time() - start
        share = ", ".join(
            f"{mine / full:.1%}" for mine, full in zip(costs(narrow), costs(teacher), strict=True)
        )
        for seed in arguments.seeds:
            start, model = time.process_time() - pruning, copy.deepcopy(narrow)
            with torch.no_grad():
                drawn = np.random.default_rng(seed).permutation(len(calibration))[:500]
                re_estimate(model, calibration[drawn])
            for steps in (0, arguments.steps):
                if steps:
                    distilled(model, teacher, x, steps, RATES[name], seed)
                with torch.no_grad():
                    score = top1(model, judged, y)
                print(
                    f"| {name} | {share} | {seed} | {steps} | {time.process_time() - start:.0f} | {score:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", default=["resnet56:macs=50", "nin:macs=50"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    main(parser.parse_args())
