"""Latency budgets (issue 7, point 2): where they land when measured, and how the choice differs from a MACs budget's.

    python bench/latency_budget.py host      budgets for this machine, measured by `edgec bench` and in processor time
    python bench/latency_budget.py rpi4      as many MACs by latency and by MACs: estimates, and who lost channels

``--passes`` alone narrow, on a board `prune-channels`: recovery changes weights, not time. The host calibrates itself on the
first run (`edgec targets calibrate`) if it never was. On a busy machine believe the processor time.
Needs the shared networks (``EDGEC_SHARED``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.api import compile as compile_model
from edgec.compiler.latency.calibrate import artifacts, measure
from edgec.compiler.plan.names import RUNTIMES
from edgec.graph.cost import cost
from edgec.graph.load import load
from edgec.runtime.report.schema import Report
from edgec.targets import target
from edgec.targets.estimator import latency_table

DATA = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}


@dataclass(frozen=True)
class Case:
    network: str
    data: str
    samples: int
    preprocess: dict[str, Any]

    def compile(self, out: Path, **more: Any) -> Report:
        return compile_model(
            DATA / "models" / f"{self.network}.onnx",
            out,
            data=DATA / self.data,
            samples=self.samples,
            preprocess=self.preprocess,
            threads=os.cpu_count() or 1,
            resume=True,
            **more,
        )


CASES = (
    Case("resnet56_cifar10", "cifar10/calib.npz", 128, IMAGENET),
    Case(
        "mobilenet_v1_0.75_224",
        "imagenet/calib",
        32,
        {"mean": (1.0,), "scale": 1 / 127.5, "crop": (224, 224)},
    ),
)


def host(folder: Path, cases: tuple[Case, ...], shares: list[float], kinds: list[str], passes: str) -> None:
    print(
        "| network | artifact | whole ms | budget ms | bench ms | bench / budget | CPU ms | CPU / budget | MACs kept |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in cases:
        for kind in kinds:
            form, precision = kind.split("-")
            model = load(DATA / "models" / f"{case.network}.onnx", input_shape=None)
            for value in model.graph.inputs:
                value.shape = ir.Shape([1, *list(value.shape or [])[1:]])
            made = artifacts(case.network, model, (RUNTIMES[form],), folder)
            whole = cpu_ms(made[RUNTIMES[form], "int8" if precision == "int8" else "fp32"])
            for share in shares:
                limit = share * whole
                asked = {"formats": (form,), "precision": precision, "passes": passes}
                out = folder / f"{case.network}.{kind}.{share}"
                report = case.compile(out, budget=f"latency={limit:.4g}ms", **asked)
                (name,) = (a.path for a in report.artifacts if a.precision == precision)
                wall, cpu = ms_of(report), cpu_ms(out / name)
                met = "" if report.passes[0].data["budget"]["met"] else " (out of reach)"
                print(
                    f"| {case.network} | {form} {precision} | {whole:.3f} | {limit:.3f}{met} | {wall:.3f} | "
                    f"{wall / limit:.3f} | {cpu:.3f} | {cpu / limit:.3f} | "
                    f"{report.compressed.macs / report.model.macs:.0%} |",
                    flush=True,
                )


def cpu_ms(file: Path) -> float:
    """Processor time of one inference: what a quiet machine's clock would show."""
    return float(np.median([next(measure([file])) for _ in range(5)]))


def ms_of(report: Report) -> float:
    """Latency of the artifact in the precision asked for."""
    (one,) = (a for a in report.artifacts if a.precision == report.recipe["precision"])
    if one.latency is None:
        raise SystemExit(f"no latency: {report.latency.note if report.latency else ''}")
    return one.latency.median_ms


def board(folder: Path, cases: tuple[Case, ...], name: str, share: float, kind: str) -> None:
    form, precision = kind.split("-")
    table = latency_table(target(name), RUNTIMES[form], precision)
    for case in cases:
        whole = table.model_ms(cost(load(DATA / "models" / f"{case.network}.onnx")))
        budget = f"latency={share * whole:.4g}ms"
        asked: dict[str, Any] = {"formats": (form,), "precision": precision, "target": name}
        asked["passes"] = "prune-channels"
        timed = case.compile(folder / f"{case.network}.latency", budget=budget, **asked)
        kept = timed.compressed.macs / timed.model.macs
        counted = case.compile(folder / f"{case.network}.macs", budget=f"macs={100 * kept:.2f}%", **asked)
        print(f"\n{case.network}, {name}, {RUNTIMES[form]} {precision}\n")
        print("| budget | MACs kept | estimated ms | of the whole network's | predicted error |")
        print("|---|---|---|---|---|")
        for label, report in ((budget, timed), (f"macs={kept:.1%}", counted)):
            data = next(one.data for one in report.passes if one.name == "prune-channels")
            print(
                f"| {label} | {report.compressed.macs / report.model.macs:.1%} | {ms_of(report):.2f} | "
                f"{ms_of(report) / whole:.1%} | {data['predicted_error']:.3g} |"
            )
        differences(case, timed, counted, table)


def differences(case: Case, timed: Report, counted: Report, table: Any) -> None:
    """The groups that the two budgets treat most differently, with the price of a multiplication in the layer that makes them."""
    price = {
        n.name: (table.node_ms(n), n.macs) for n in cost(load(DATA / "models" / f"{case.network}.onnx")).nodes
    }
    ours, theirs = (
        next(one.data for one in r.passes if one.name == "prune-channels")["widths"] for r in (timed, counted)
    )
    order = sorted(ours, key=lambda g: -abs(ours[g][1] - theirs[g][1]) / ours[g][0])
    print("\n| group | channels | by latency | by MACs | its own layer: ns per 1000 MACs |")
    print("|---|---|---|---|---|")
    for group in order[:8]:
        ms, macs = price.get(group, (float("nan"), 0))
        rate = f"{1e6 * ms / macs * 1e3:.0f}" if macs else "-"
        print(f"| {group} | {ours[group][0]} | {ours[group][1]} | {theirs[group][1]} | {rate} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["host", "rpi4"])
    parser.add_argument("--network", default="", help="only networks whose name has this in it")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.8, 0.6])
    parser.add_argument("--kinds", nargs="*", default=["onnx-fp32", "onnx-int8", "tflite-int8"])
    parser.add_argument("--passes", default="compress", help="what meets the budget")
    parser.add_argument("--keep", type=Path, default=None, help="keep the runs here, and go on from them")
    options = parser.parse_args()
    cases = tuple(case for case in CASES if options.network in case.network)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "host":
            host(folder, cases, options.shares, options.kinds, options.passes)
        else:
            for kind in options.kinds[-1:]:
                board(folder, cases, options.what, options.shares[0], kind)


if __name__ == "__main__":
    sys.exit(main())
