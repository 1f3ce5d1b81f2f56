"""Learning on one thread, on two, and cut off: the same bytes, and how long each takes (ResNet-20 at 35% of its MACs, CIFAR-10).

    python bench/learned_resumed.py [--steps 200] [--images 500] [--kills 2]

Each row is a process of its own, `edgec compile ... --passes 'prune-channels{macs=35%} recover-lsq refine{steps=...}'`. What is
cut off gets SIGKILL a while after `refine` has begun to count its steps, and is started again with ``--resume``. Closed forms are
no part of the seconds of a resumed run: their results lie in the run's folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from portfolio import NETWORKS, shared

HEADER = "| run | wall s | processor s | loss on held-out views | sha256 |\n" + "|---" * 5 + "|"


def command(out: Path, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Of one run."""
    cifar, prepared = shared() / "cifar10", NETWORKS["resnet20"]
    words = [f"--{key}={','.join(map(str, prepared[key]))}" for key in ("mean", "std")]
    return [
        sys.executable, "-m", "edgec", "compile", str(shared() / "models" / "resnet20_cifar10.onnx"),
        "--data", str(cifar / "calib.npz"), "--samples", str(arguments.images), "--scale", str(prepared["scale"]), *words,
        "--passes", f"prune-channels{{macs=35%}} recover-lsq refine{{steps={arguments.steps}}}",
        "--precision", "fp32", "--format", "onnx", "--no-bench", "-o", str(out), *more,
    ]  # fmt: skip


def row(name: str, out: Path, start: float, used: float) -> None:
    """Of a run that ended well, which began at ``start`` on the clock, after ``used`` processor seconds of those before it."""
    wall, spent = time.perf_counter() - start, processor() - used
    report = json.loads((out / "report.json").read_text())
    (learned,) = (one["data"] for one in report["passes"] if one["name"] == "refine")
    digest = hashlib.sha256((out / "model.onnx").read_bytes()).hexdigest()[:12]
    print(f"| {name} | {wall:.0f} | {spent:.0f} | {learned['after']['loss']:.4f} | {digest} |", flush=True)


def processor() -> float:
    """Seconds of all processes that ended so far."""
    spent = os.times()
    return spent.children_user + spent.children_system


def killed(out: Path, arguments: argparse.Namespace, seconds: float) -> None:
    """A run that is ended so long after its learning began."""
    process = subprocess.Popen(command(out, arguments), stderr=subprocess.PIPE, text=True)
    for line in process.stderr or ():
        if "refine: step" in line:
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit("the run was over before it could be killed: give it more --steps")


def main(arguments: argparse.Namespace) -> None:
    """A row per run."""
    print(HEADER)
    with tempfile.TemporaryDirectory(prefix="learned-") as folder:
        for threads in (1, 2):
            start, used, out = time.perf_counter(), processor(), Path(folder) / str(threads)
            subprocess.run(
                command(out, arguments, "--threads", str(threads)), check=True, capture_output=True
            )
            row(f"{threads} thread{'s' * (threads > 1)}", out, start, used)
        for number in range(arguments.kills):
            out = Path(folder) / f"killed-{number}"
            killed(out, arguments, arguments.after * (number + 1))
            start, used = time.perf_counter(), processor()
            subprocess.run(command(out, arguments, "--resume"), check=True, capture_output=True)
            row(
                f"killed {arguments.after * (number + 1):.0f} s after its first look, resumed",
                out,
                start,
                used,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--after", type=float, default=6.0, help="seconds")
    main(parser.parse_args())
