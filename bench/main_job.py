"""The main job on real input by two installations, interleaved, under each kernel of OpenBLAS; and what reading a file costs.

    python bench/main_job.py OLD/.venv/bin/edgec .venv/bin/edgec [--jobs resnet56] [--kernels Haswell Prescott]
    python bench/main_job.py OLD/.venv/bin/edgec .venv/bin/edgec --inspect 15

OPENBLAS_CORETYPE is set for each run alone (kernels.py says which names run here). Seconds are wall and, in brackets, processor
time with that of children. ``--inspect`` runs `edgec inspect` that many times by each in turn and gives medians, and the median
of the paired differences. Results are kept in ``--folder``; what is there is not run again. Networks and inputs: EDGEC_SHARED
or `../shared`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kernels import NAMES, runnable

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EDGEC_SHARED", ROOT.parent / "shared")) / "data"
CIFAR = "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --samples 500 --budget macs=50%"
JOBS = {
    "mobilenet": [
        *(DATA / "models/mobilenet_v1_0.75_224.onnx", "--data", DATA / "imagenet/calib"),
        *("--eval", DATA / "imagenet/eval", "--eval-labels", DATA / "imagenet/eval_labels.csv"),
        *["--scale", "1/127.5", "--mean", "1", "--crop", "224", "--samples", "128"],
    ],
    "resnet56": [
        *(DATA / "models/resnet56_cifar10.onnx", "--data", DATA / "cifar10/calib.npz"),
        *("--eval", DATA / "cifar10/eval.npz", *CIFAR.split()),
    ],
}
"""Words of `edgec compile` after those that all share."""
READ = ("resnet8_cifar10", "resnet56_cifar10", "mobilenet_v1_0.75_224")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("edgec", nargs=2, type=Path, help="two programs `edgec`, the older first")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=JOBS)
    parser.add_argument("--kernels", nargs="+", default=list(NAMES))
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "main_job")
    parser.add_argument("--inspect", type=int, metavar="TIMES", help="measure reading alone")
    given = parser.parse_args()
    given.edgec = [path.absolute() for path in given.edgec]
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.inspect:
        reading(given.edgec, given.inspect)
    else:
        compiling(given)


def compiling(given: argparse.Namespace) -> None:
    """One line per job and kernel, old and new beside each other."""
    print("| job | kernel | top-1 | bytes | seconds (processor) |\n|---|---|---|---|---|")
    # The kernels of the newer one; the older has the same processor, and OpenBLAS of the same constraints.
    for word, kernel in runnable(given.edgec[1].with_name("python"), given.kernels):
        for job in given.jobs:
            pair = [
                kept(given.folder / f"{job}-{word}-{age}.json", program, job, word)
                for age, program in zip(("old", "new"), given.edgec, strict=True)
            ]
            columns = (" / ".join(cells) for cells in zip(*map(cells_of, pair), strict=True))
            print(f"| {job} | {kernel} | {' | '.join(columns)} |", flush=True)


def cells_of(found: dict[str, Any]) -> tuple[str, str, str]:
    return (
        f"{found['top1']:.2f}",
        f"{found['bytes']}",
        f"{found['seconds']:.0f} ({found['processor']:.0f})",
    )


def kept(path: Path, program: Path, job: str, word: str) -> dict[str, Any]:
    if not path.exists():
        path.write_text(json.dumps(compiled(program, job, word)))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def compiled(program: Path, job: str, word: str) -> dict[str, Any]:
    """Top-1 in percent, bytes of the int8 file, wall and processor seconds of one `edgec compile`."""
    out = Path(tempfile.mkdtemp(prefix="main-job-"))
    try:
        command = [program, "compile", *JOBS[job], "--precision", "int8", "--no-bench", "--force", "-o", out]
        seconds, processor = timed([*command, "--threads", "2"], OPENBLAS_CORETYPE=word)
        report = json.loads((out / "report.json").read_text())
    finally:
        shutil.rmtree(out)
    int8 = next(one for one in report["artifacts"] if one["precision"] == "int8")
    top1 = 100 * int8["quality"]["top1"]
    return {"top1": top1, "bytes": int8["bytes"], "seconds": seconds, "processor": processor}


def reading(programs: list[Path], times: int) -> None:
    """Medians of `edgec inspect`, by turns."""
    print(
        "| network | wall, old / new | more, paired | processor, old / new | more, paired |\n|---|---|---|---|---|"
    )
    for network in READ:
        model = DATA / "models" / f"{network}.onnx"
        runs = [[timed([program, "inspect", model]) for program in programs] for _ in range(times + 1)][1:]
        cells = []
        for clock in (0, 1):
            old, new = ([pair[age][clock] for pair in runs] for age in (0, 1))
            more = statistics.median(b - a for a, b in zip(old, new, strict=True))
            cells.append(f"{statistics.median(old):.2f} / {statistics.median(new):.2f} s | {more:+.2f} s")
        print(f"| {network} | {' | '.join(cells)} |", flush=True)


def timed(command: list[Any], **around: str) -> tuple[float, float]:
    """(wall, processor) seconds of a command and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **around}, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
