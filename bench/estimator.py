"""How far latency estimates can be trusted: fits on published latencies, each network family judged unseen.

    python bench/estimator.py              the tables
    python bench/estimator.py --write      the tables, and targets/coefficients/*.json

Needs the shared data (``EDGEC_SHARED``, or ``../shared`` beside the repository).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import latency_models
import numpy as np
from latency_entries import all_coefficients
from latency_sets import Key, Published, held_out, published
from scipy.optimize import nnls

from edgec.targets.estimator.coefficients import write

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = (
    ("Raspberry Pi 4B", ("tflite-ruy", "armnn", "ncnn")),
    ("Firefly-RK3588", ("tflite-ruy", "armnn")),
    ("Jetson AGX Xavier (CPU)", ("tflite-ruy", "armnn")),
)


def baseline(data: Published, columns: str) -> dict[Key, float]:
    """Mean error with whole-model features, non-negative least squares on relative errors, families left out.

    ``macs``: multiplications alone. ``five``: pointwise and dense MACs, depthwise MACs, activations, weights, a constant.
    """
    errors: dict[Key, float] = {}
    for key in data.fitted_keys():
        models = list(data.ms[key])
        x = np.array([_whole(data, m, columns) for m in models])
        ms = np.array([data.ms[key][m] for m in models])
        x = x / x.max(0)
        families = np.array([latency_models.family(m) for m in models])
        found = []
        for family in sorted(set(families)):
            seen = families != family
            if seen.sum() >= 2:
                weights, _ = nnls(x[seen] / ms[seen, None], np.ones(seen.sum()))
                found += list(np.abs(x[~seen] @ weights / ms[~seen] - 1))
        errors[key] = float(np.mean(found))
    return errors


def _whole(data: Published, model: str, columns: str) -> list[float]:
    nodes = data.costs[model].nodes
    if columns == "macs":
        return [float(data.costs[model].macs)]
    depthwise = sum(n.macs for n in nodes if n.kind == "depthwise")
    return [
        float(data.costs[model].macs - depthwise),
        float(depthwise),
        float(sum(n.out_elements for n in nodes if n.macs)),
        float(data.costs[model].params),
        1.0,
    ]


def table(data: Published, ratios: dict[Key, dict[str, float]], keys: list[Key]) -> None:
    """One row per set: baselines, edgec, and the error per family."""
    macs, five = baseline(data, "macs"), baseline(data, "five")
    print(
        "| device | engine | precision | threads | networks | MACs alone | five features | edgec | per family |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for key in keys:
        errors: dict[str, list[float]] = defaultdict(list)
        for model, ratio in ratios[key].items():
            errors[latency_models.family(model)].append(abs(ratio - 1))
        families = ", ".join(f"{f} {100 * np.mean(e):.0f}" for f, e in sorted(errors.items()))
        mean = np.mean([e for values in errors.values() for e in values])
        threads = key.threads.replace(" (unstated)", "")
        print(
            f"| {key.device} | {key.engine} {key.version} | {key.precision} | {threads} | {len(ratios[key])} | "
            f"{100 * macs[key]:.0f} % | {100 * five[key]:.1f} % | **{100 * mean:.1f} %** | {families} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write targets/coefficients/*.json")
    parser.add_argument("--all", action="store_true", help="all sets, not only those that are required")
    options = parser.parse_args()
    data = published()
    ratios = held_out(data)
    keys = [
        key
        for key in data.fitted_keys()
        if key in ratios and (options.all or any(key.device == d and key.engine in e for d, e in REQUIRED))
    ]
    print(
        "Mean absolute relative error, each family estimated by fits that saw nothing of it on any device:\n"
    )
    table(data, ratios, keys)
    if options.write:
        folder = ROOT / "targets" / "coefficients"
        for name, coefficients in all_coefficients(data, ratios).items():
            (folder / f"{name}.json").write_text(write(coefficients), encoding="utf-8")
            print(f"\nwrote targets/coefficients/{name}.json: {len(coefficients.entries)} combinations")


if __name__ == "__main__":
    main()
