"""Whether `edgec bench` can be trusted (issue 7, point 5): repeats agree, A against A reads 1, a busy machine is said.

    python bench/measuring.py            on a quiet machine; about two minutes
    python bench/measuring.py --artifact my.onnx --repeats 8

Repeats are separate sessions in fresh processes; their spread is (max - min) / median of their medians. The busy run is measured
beside two processes of this script that do nothing but compute. Needs the shared networks (``EDGEC_SHARED``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgec.runtime.bench import BenchOptions, bench, compare
from edgec.runtime.devices import open_device
from edgec.runtime.devices.base import Device
from edgec.runtime.measurement import Measurement

MODELS = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data/models"
NETWORKS = ("resnet8_cifar10.onnx", "resnet8_cifar10_int8.tflite", "mobilenet_v1_0.75_224.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, action="append", default=None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="local")
    options = parser.parse_args()
    artifacts = options.artifact or [MODELS / name for name in NETWORKS]
    with open_device(options.device) as device:
        print("| artifact | medians of separate sessions, ms | spread | notices |\n|---|---|---|---|")
        for artifact in artifacts:
            repeats(artifact, options.repeats, device)
        print("\n| A against A, interleaved | ratio | p10 to p90 | rounds |\n|---|---|---|---|")
        for artifact in artifacts:
            against_itself(artifact, device)
        print("\n| load | artifact | median ms | what the measurement says |\n|---|---|---|---|")
        busy(artifacts[0], device)


def repeats(artifact: Path, count: int, device: Device) -> None:
    found = [bench([artifact], BenchOptions(), device)[0] for _ in range(count)]
    medians = [one.median_ms for one in found]
    spread = (max(medians) - min(medians)) / statistics.median(medians)
    texts = ", ".join(f"{ms:.3f}" for ms in medians)
    print(f"| {artifact.name} | {texts} | {spread:.1%} | {said(found)} |", flush=True)


def against_itself(artifact: Path, device: Device) -> None:
    found = compare([artifact, artifact], BenchOptions(), device)
    (ratio,) = found.ratios
    span = f"{ratio.p10:.3f} to {ratio.p90:.3f}"
    print(f"| {artifact.name} | {ratio.ratio:.3f} | {span} | {ratio.rounds} |", flush=True)


def busy(artifact: Path, device: Device) -> None:
    (quiet,) = bench([artifact], BenchOptions(), device)
    with load(2):
        (loaded,) = bench([artifact], BenchOptions(), device)
    for label, one in (("as it was", quiet), ("two busy processes", loaded)):
        print(f"| {label} | {artifact.name} | {one.median_ms:.3f} | {said([one])} |", flush=True)


def said(found: list[Measurement]) -> str:
    """What the measurements noticed, the first of each kind."""
    texts = {text.partition(":")[0]: text for one in reversed(found) for text in (*one.invalid, *one.notices)}
    return "; ".join(texts.values()) or "-"


@contextmanager
def load(count: int) -> Iterator[None]:
    """``count`` processes that compute until the block ends."""
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def spin() -> None:
    value = 0
    while True:
        value += 1


if __name__ == "__main__":
    main()
