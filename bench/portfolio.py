"""What `--portfolio` is worth: the usual form beside the one that it takes (docs/budget.md).

    python bench/portfolio.py resnet20 macs=35%
    python bench/portfolio.py resnet8 macs=80% macs=70% --precision int8 --each     every form by itself, beside its loss

Points of top-1 lost on 500 labelled pictures; kept: of 5,220 unlabelled ones, those with the source's answer. CIFAR-10
networks, 500 calibration pictures; no run saw the others.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgec
from edgec.graph.data import open_data
from edgec.graph.execute import Executor
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet8": {"scale": 1.0},
    "resnet20": IMAGENET,
    "resnet56": IMAGENET,
    "nin": IMAGENET,
}
HEAD = "| network, budget | form | MACs | parameters | KL | drop | kept | CPU s |\n" + "|---" * 8 + "|"


@dataclass(frozen=True)
class Case:
    """One network under one budget."""

    network: str
    budget: str
    precision: str
    seed: int

    @property
    def model(self) -> Path:
        return shared() / "models" / f"{self.network}_cifar10.onnx"

    def compiled(self, out: Path, **options: Any) -> tuple[edgec.Report, float]:
        """The report, and seconds of processor time."""
        cifar, start = shared() / "cifar10", time.process_time()
        report = edgec.compile(
            self.model, out, data=cifar / "calib.npz", eval=cifar / "eval.npz", samples=500, preprocess=NETWORKS[self.network],
            precision=self.precision, seed=self.seed, threads=1, measure=False, quiet=True, **options,
        )  # fmt: skip
        return report, time.process_time() - start


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


def run(case: Case, *, each: bool) -> None:
    """Print a row for the usual form, one for the portfolio's, and with ``each`` one for every form."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usual, seconds = case.compiled(folder / "usual", budget=case.budget)
        row(case, "usual", usual, seconds, None)
        found, seconds = case.compiled(folder / "found", budget=case.budget, portfolio=True)
        assert found.portfolio is not None
        row(case, f"taken: {found.portfolio.chosen}", found, seconds, None)
        for index, point in enumerate(found.portfolio.points):
            if point.loss is None or not each:
                print(f"... {point.title}: {point.why or f'{point.loss:.3f} ±{point.error or 0:.3f}'}")
                continue
            passes = f"{point.passes} recover-lsq"
            made, seconds = case.compiled(folder / str(index), passes=passes)
            row(case, point.title, made, seconds, point.loss)


def row(case: Case, title: str, report: edgec.Report, seconds: float, loss: float | None) -> None:
    """One line of the table."""
    artifact = report.artifacts[-1]
    judged, teacher = artifact.quality or report.quality["float"], report.quality["teacher"]
    assert judged.top1 is not None
    assert teacher.top1 is not None
    drop = f"{100 * (teacher.top1 - judged.top1):+.1f}"
    cells = [
        f"{case.network} {case.budget} {case.precision}", title, f"{report.compressed.macs / report.model.macs:.1%}",
        f"{report.compressed.params / 1e3:.1f}k",
        "" if loss is None else f"{loss:.3f}", drop, f"{100 * kept(case, report):.1f}%", f"{seconds:.0f}",
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def kept(case: Case, report: edgec.Report) -> float:
    """Share of the unlabelled pictures with the source's answer, by the artifact to ship."""
    source = load(case.model)
    data = open_data(
        shared() / "cifar10" / "unlabelled_extra.npz", source, Preprocess(**NETWORKS[case.network])
    )
    artifact, reference, same = report.load(report.artifacts[-1].precision), Executor(source, threads=1), 0
    for feeds in data.batches(60):
        wanted, made = next(iter(reference.run(feeds).values())), next(iter(artifact.run(feeds).values()))
        same += int((wanted.argmax(axis=-1) == np.asarray(made).argmax(axis=-1)).sum())
    return same / len(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("budget", nargs="+")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true")
    chosen = parser.parse_args()
    print(HEAD)
    for budget in chosen.budget:
        run(Case(chosen.network, budget, chosen.precision, chosen.seed), each=chosen.each)
