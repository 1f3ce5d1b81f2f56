"""How far estimates for this machine can be trusted: calibrate it, then estimate real networks that it never saw.

    python bench/estimator_host.py                 calibrate (a few minutes), then judge
    python bench/estimator_host.py --no-calibrate  judge what is in the cache

Needs the shared networks (``EDGEC_SHARED``, or ``../shared`` beside the repository). Measured is processor time of one
thread, as in the calibration.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx_ir as ir

from edgec.compiler.latency.calibrate import ENGINES, PROBES, artifacts, calibrate, measure
from edgec.graph.cost import cost
from edgec.graph.load import load
from edgec.passes.base import Progress
from edgec.targets import target
from edgec.targets.estimator import estimate

SHARED = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-calibrate", action="store_true")
    parser.add_argument("--probes", type=int, default=PROBES)
    options = parser.parse_args()
    if not options.no_calibrate:
        calibrate(options.probes, progress=Show())
    host = target("host")
    sums: dict[tuple[str, str], list[float]] = {}
    print("| network | engine | precision | measured ms | estimated ms | range | error |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        costs, files = {}, {}
        for path in sorted((SHARED / "data/models").glob("*.onnx")):
            model = load(path)
            for value in model.graph.inputs:
                assert value.shape is not None
                value.shape = ir.Shape([1, *(int(d) for d in list(value.shape)[1:])])
            costs[path.stem] = cost(model)
            for (engine, precision), file in artifacts(path.stem, model, ENGINES, Path(folder)).items():
                files[path.stem, engine, precision] = file
        # Rounds over all of them, minutes apart: a slow spell of the machine hits each network once at most.
        rounds = [{key: next(measure([file])) for key, file in files.items()} for _ in range(ROUNDS)]
    for (name, engine, precision), times in ((key, [one[key] for one in rounds]) for key in files):
        measured = float(np.median(times))
        found = estimate(costs[name], host, runtime=engine, precision=precision, threads=1)
        error = found.ms / measured - 1
        sums.setdefault((engine, precision), []).append(abs(error))
        print(
            f"| {name} | {engine} | {precision} | {measured:.3f} | {found.ms:.3f} | "
            f"{found.low_ms:.3f} to {found.high_ms:.3f} | {100 * error:+.0f} % |"
        )
    print("\n| engine | precision | unseen probes (8-fold) | real networks: mean | median | worst |")
    print("|---|---|---|---|---|---|")
    for (engine, precision), errors in sorted(sums.items()):
        found = estimate(next(iter(costs.values())), host, runtime=engine, precision=precision, threads=1)
        print(
            f"| {engine} | {precision} | {found.validation_error_pct:.1f} % | {100 * np.mean(errors):.1f} % | "
            f"{100 * np.median(errors):.1f} % | {100 * max(errors):.0f} % |"
        )


class Show(Progress):
    def step(self, label: str, done: int, total: int) -> None:
        if done % 20 == 0:
            print(f"{label}: {done}/{total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
