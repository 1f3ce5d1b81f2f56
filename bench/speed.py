"""What a compile costs by two installations, interleaved: processor seconds, peak memory, forward passes, sessions, and accuracy.

    python bench/speed.py BASE/.venv/bin/python .venv/bin/python [--jobs mobilenet-80 resnet56-50] [--images 128] [--repeats 1]
    python bench/speed.py BASE/.venv/bin/python .venv/bin/python --kernels

The first interpreter has the base commit, the second what is compared with it. Seconds are user and system time of the process
and of those it starts, on one thread, so that other work on the machine moves them little; runs of the two alternate, and of
several repeats the median counts. A forward pass is one image through the whole network: images times the share of the source's
convolutions and products that a session holds. ``--kernels`` times the products of the joint fit on one layer each.
Networks and inputs: EDGEC_SHARED or `../shared`; ../shared/data/README.md says what they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EDGEC_SHARED", ROOT.parent / "shared")) / "data"
IMAGENET = [
    *("--data", DATA / "imagenet/calib", "--eval", DATA / "imagenet/eval"),
    *(
        "--eval-labels",
        DATA / "imagenet/eval_labels.csv",
        "--scale",
        "1/127.5",
        "--mean",
        "1",
        "--crop",
        "224",
    ),
]
CIFAR = [
    *("--data", DATA / "cifar10/calib.npz", "--eval", DATA / "cifar10/eval.npz", "--scale", "1/255"),
    *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
]
FLOAT, INT8 = ["--precision", "fp32"], ["--precision", "int8"]
JOBS: dict[str, list[Any]] = {
    "mobilenet-80": ["mobilenet_v1_0.75_224", *IMAGENET, *FLOAT, "--budget", "macs=80%"],
    "mobilenet-int8": ["mobilenet_v1_0.75_224", *IMAGENET, *INT8],
    "resnet56-50": ["resnet56_cifar10", *CIFAR, *INT8, "--budget", "macs=50%"],
    "resnet20-50": ["resnet20_cifar10", *CIFAR, *INT8, "--budget", "macs=50%"],
    "nin-80": ["nin_cifar10", *CIFAR, *INT8, "--budget", "macs=80%"],
}
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
SHAPES = ((8, 112, 24, 48), (16, 56, 96, 96), (32, 14, 384, 384), (32, 7, 768, 768))
"""Images, pixels a side, channels in, channels out."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", nargs="*", type=Path, help="two interpreters, the base's first")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        counted(Path(given.child[0]), given.child[1:])
    elif given.kernels and not given.python:
        print(json.dumps(kernel_times()))
    elif len(given.python) != 2:
        parser.error("two interpreters are compared")
    elif given.kernels:
        kernels([path.absolute() for path in given.python])
    else:
        compiles([path.absolute() for path in given.python], given)


def compiles(pythons: list[Path], given: argparse.Namespace) -> None:
    """A line per job: base / now."""
    print(
        "| job | processor s | of base | peak GB | forward passes | sessions | top-1, % |\n|---|---|---|---|---|---|---|"
    )
    for job in given.jobs:
        rounds = [
            [compiled(python, JOBS[job], given.images) for python in pythons] for _ in range(given.repeats)
        ]
        base, now = (
            {key: statistics.median(one[i][key] for one in rounds) for key in rounds[0][i]} for i in (0, 1)
        )
        pairs = [f"{base[key]:{form}} / {now[key]:{form}}" for key, form in FORMS.items()]
        pairs.insert(1, f"{now['seconds'] / base['seconds']:.2f}")
        print(f"| {job}, {given.images} images | {' | '.join(pairs)} |", flush=True)


FORMS = {"seconds": ".0f", "peak": ".2f", "passes": ".0f", "sessions": ".0f", "top1": ".2f"}


def compiled(python: Path, job: list[Any], images: int) -> dict[str, float]:
    """One `edgec compile` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        out, counts = Path(folder) / "run", Path(folder) / "counts.json"
        model, *rest = job
        words = [DATA / "models" / f"{model}.onnx", *rest, "--samples", images, "-o", out]
        command = [python, __file__, "--child", counts, "compile", *words, "--no-bench", "--threads", 1]
        usage = waited([str(word) for word in command], Path(folder))
        found: dict[str, float] = json.loads(counts.read_text())
        report = json.loads((out / "report.json").read_text())
        precision = rest[rest.index("--precision") + 1]
        made = next(one for one in report["artifacts"] if one["precision"] == precision)
        return {**found, **usage, "top1": 100 * made["quality"]["top1"]}


def waited(command: list[str], folder: Path) -> dict[str, float]:
    """Processor seconds and gigabytes of a process and of those that it waited for. Ends this program where it fails."""
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            command, env={**os.environ, **ONE_THREAD}, stdout=said, stderr=said, cwd=folder
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)}\n{said.read()}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1e6}


def counted(counts: Path, words: list[str]) -> None:
    """Run ``edgec WORDS`` here; what its sessions did goes to ``counts``."""
    import onnx
    import onnxruntime

    plain = onnxruntime.InferenceSession
    source = onnx.load(words[1], load_external_data=False)
    whole = sum(node.op_type in LAYERS for node in source.graph.node)
    found = {"sessions": 0, "passes": 0.0}

    class Counting(plain):  # type: ignore[misc, valid-type]  # onnxruntime has no types
        """A session that says how much of the network it ran on how many images. It is called as the plain one is: a library
        that folds constants by it takes any error for a network that cannot be folded."""

        def __init__(self, path_or_bytes: Any, *args: Any, **more: Any) -> None:
            super().__init__(path_or_bytes, *args, **more)
            found["sessions"] += 1
            read = onnx.load_from_string if isinstance(path_or_bytes, bytes) else onnx.load
            proto = read(path_or_bytes)
            self.share = sum(node.op_type in LAYERS for node in proto.graph.node) / whole
            # Weights may come with a run too: only what has an open first axis counts images.
            self.open = {
                one.name for one in self.get_inputs() if one.shape and not isinstance(one.shape[0], int)
            }

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            images = (one.shape[0] for name, one in input_feed.items() if name in self.open)
            found["passes"] += self.share * max(images, default=1)
            return super().run(output_names, input_feed, run_options)

    onnxruntime.InferenceSession = Counting
    from edgec.compiler.cli import main as edgec

    sys.argv = ["edgec", *words]
    try:
        edgec()
    finally:
        counts.write_text(json.dumps(found))


def kernels(pythons: list[Path]) -> None:
    """A line per layer and product: base / now."""
    least: list[dict[str, tuple[float, float]]] = [{}, {}]
    for _ in range(3):
        for found, python in zip(least, pythons, strict=True):
            words = [str(python), __file__, "--kernels"]
            done = subprocess.run(
                words, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=True
            )
            for name, (took, work) in json.loads(done.stdout).items():
                found[name] = min(found.get(name, (took, work)), (took, work))
    print("| layer and product | processor ms | faster | GFLOP/s |\n|---|---|---|---|")
    for name, (base, work) in least[0].items():
        now = least[1][name][0]
        rates = f"{work / base / 1e9:.1f} / {work / now / 1e9:.1f}"
        print(f"| {name} | {1e3 * base:.1f} / {1e3 * now:.1f} | {base / now:.1f} | {rates} |")


def kernel_times() -> dict[str, tuple[float, float]]:
    """Least processor seconds of three calls each, and the multiplications and additions; symmetric halves count once."""
    import numpy as np

    from edgec.passes.solvers.gram import Patches

    found = {}
    for images, pixels, inputs, outputs in SHAPES:
        x = np.random.default_rng(0).standard_normal((images, pixels, pixels, inputs)).astype(np.float32)
        size = f"{images} x {pixels} px x {inputs}"
        pointwise = Patches(inputs, (1, 1), (1, 1), (0,) * 4, (1, 1))
        depthwise = Patches(inputs, (3, 3), (1, 1), (1,) * 4, (1, 1), inputs)
        for name, patches, each in (("pointwise", pointwise, outputs), ("depthwise", depthwise, 1)):
            taken = products(patches, each, x)
            found.update(
                {f"{name} {size} -> {each * patches.group}, {key}": one for key, one in taken.items()}
            )
    return found


def products(patches: Any, each: int, x: Any) -> dict[str, tuple[float, float]]:
    """Of one layer with ``each`` outputs per group."""
    import numpy as np

    from edgec.passes.solvers import maps

    columns = np.random.default_rng(1).standard_normal((patches.group, patches.unknowns, each))
    y, work = maps.apply(patches, columns, x), 2.0 * x.size * len(patches.taps) * each
    calls = {
        "apply": (lambda: maps.apply(patches, columns, x), work),
        "pull_back": (lambda: maps.pull_back(patches, columns, y, x.shape[1:-1]), work),
        "project": (lambda: maps.project(patches, x, y), work),
        "normal": (lambda: maps.normal(patches, x), x.size * len(patches.taps) * patches.unknowns),
    }
    return {name: (min(seconds(call) for _ in range(3)), flops) for name, (call, flops) in calls.items()}


def seconds(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
