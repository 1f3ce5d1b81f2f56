"""What passes leave of a network over several seeds: processor seconds, top-1, same answers, SQNR, and KL to the source.

    python bench/seeds.py [--passes quantize] [--networks resnet20_cifar10 ...] [--images 128] [--seeds 0 1 2] > FILE
    python bench/seeds.py --compare FILE FILE ...      the means of several installations, side by side

A change that makes edgec faster shows here that it costs nothing: run it with the interpreter of each installation. Images that
judge are none of those that were fitted. Networks and inputs: EDGEC_SHARED or `../shared`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from quantisation import NAMES, Array, Case, outputs
from tflite_networks import by_name, onnx_runner

from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.compare import sqnr_db
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.targets import target

FIGURES = {"seconds": ".1f", "top1": ".1f", "same": ".1f", "sqnr": ".1f", "kl": ".4f"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passes", default="quantize")
    parser.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--compare", nargs="+", type=Path)
    given = parser.parse_args()
    if given.compare:
        compare(given.compare)
        return
    for name in given.networks:
        case = Case.of(by_name(name), given.images, 1)
        for seed in given.seeds:
            row = {"network": name, "seed": seed, **figures(case, given.passes, seed)}
            print(json.dumps(row), flush=True)


def figures(case: Case, passes: str, seed: int) -> dict[str, float]:
    """Of one run of the passes."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        context = Context(case.model, Path(folder), case.calibration, target("host"), threads=1, seed=seed)
        made = run_pipeline(parse_pipeline(passes), case.model, context)[-1].model
    seconds = time.process_time() - began
    wanted = case.reference
    found = outputs(onnx_runner(made), case.evaluation)[:, : wanted.shape[1]].reshape(wanted.shape)
    return {
        "seconds": seconds,
        "top1": case.top1(found),
        "same": 100 * float((found.argmax(1) == wanted.argmax(1)).mean()),
        "sqnr": float(sqnr_db(wanted, found)),
        "kl": float(divergence(wanted, found).mean()),
    }


def divergence(wanted: Array, found: Array) -> Array:
    """KL of the class probabilities by image, in nats, of scores (images, classes)."""
    p, q = (one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in (wanted, found))
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def compare(files: list[Path]) -> None:
    """Means over the seeds: one line per network, the files' figures side by side."""
    tables: list[dict[str, list[dict[str, Any]]]] = []
    for file in files:
        found = defaultdict(list)
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found[row["network"]].append(row)
        tables.append(found)
    print(
        "| network | processor s | top-1, % | same answer, % | SQNR, dB | KL, nats |\n|---|---|---|---|---|---|"
    )
    for network in tables[0]:
        if not all(network in table for table in tables):
            print(f"{network} is not in all files", file=sys.stderr)
            continue
        cells = [
            " / ".join(f"{np.mean([row[key] for row in table[network]]):{form}}" for table in tables)
            for key, form in FIGURES.items()
        ]
        print(f"| {network} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
