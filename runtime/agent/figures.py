"""From times to figures: what every record holds, whatever engine it is of."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import List, Sequence

from .base import Json
from .watch import Watch

STABLE = 0.02  # warm-up ends when the medians of three windows agree to this


def percentile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics, q in 0..1."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def figures(times: Sequence[float]) -> Json:
    """Latency figures of times in ms."""
    ordered = sorted(times)
    quantiles = {"p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99}
    result: Json = {f"{name}_ms": round(percentile(ordered, q), 5) for name, q in quantiles.items()}
    result["min_ms"] = round(ordered[0], 5)
    result["mean_ms"] = round(sum(ordered) / len(ordered), 5)
    return {**result, "runs": len(times), "seconds": round(sum(times) / 1e3, 3)}


def kept_samples(times: Sequence[float], args: argparse.Namespace) -> List[float] | None:
    """Every single time, where that is asked for."""
    return [round(t, 5) for t in times] if args.samples else None


def observed(path: Path, watch: Watch, noise: Json, times: Sequence[float]) -> Json:
    """What is known of a run whatever engine it was of: the file, the figures, what the machine did meanwhile."""
    content = path.read_bytes()
    invalid, notices = watch.invalid(), watch.notices(noise)
    emulated = watch.machine.emulated()
    if emulated:
        notices.append("emulated: not a latency")
    return {
        "name": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **figures(times),
        "valid": not invalid,
        "invalid": invalid,
        "notices": notices,
        "noise": noise,
        "emulated": emulated,
        "before": watch.before,
        "after": watch.after,
        "power_w": watch.power_w(),
    }
