"""What a signal leaves of a run: the demo's network is compiled, ended at a random moment, looked at, and resumed.

    python bench/kills.py --kills 40

Prints a Markdown table by signal: how many runs were ended, their exit codes, temporary files and processes that were left,
whether the artifacts of the run before were still whole, and whether ``--resume`` made the same bytes as a run that nobody
disturbed. A run takes some ten seconds on a quiet machine, a kill two runs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "EDGEC_KILLS"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)
OLD = ("--passes", "fold")
NEW = ("--passes", "prune-channels{macs=50%} recover-lsq quantize", "--format", "onnx,tflite")


@dataclass
class Row:
    """One signal's counts."""

    ended: int = 0
    finished: int = 0
    codes: set[int] = field(default_factory=set)
    temporary: int = 0
    temporary_after: int = 0
    parts: int = 0
    processes: int = 0
    broken: int = 0
    different: int = 0


def command(out: Path, *more: str) -> list[str]:
    data = ROOT / "examples" / "digits"
    return [
        sys.executable, "-m", "edgec", "compile", str(ROOT / "examples" / "digits.onnx"), "--data", str(data / "calib.npz"),
        "--eval", str(data / "eval.npz"), "--precision", "int8" if NEW[1] in more else "fp32", "--no-bench", "-q", "-o", str(out),
        *more,
    ]  # fmt: skip


def hashes(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("model*"))}


def temporaries(folder: Path) -> list[str]:
    """What lies in the folder of temporary files, but for the lock that stays there."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]


def processes() -> list[int]:
    """Processes of ours that still run: they inherited the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={os.getpid()}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def one(number: signal.Signals, moment: float, folder: Path, wanted: dict[str, str], row: Row) -> None:
    """End one run ``moment`` seconds after its start, and resume it."""
    out, scratch = folder / "out", folder / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), MARK: str(os.getpid())}
    subprocess.run(command(out, *OLD), env=environment, check=True)
    old = hashes(out)
    process = subprocess.Popen(command(out, *NEW), env=environment, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    process.send_signal(number)
    code = process.wait()
    time.sleep(2 if number == signal.SIGKILL else 0)  # orphans see within a second that nobody waits for them
    row.finished += code == 0
    row.ended += code != 0
    row.codes |= {code} if code else set()
    row.temporary += bool(temporaries(scratch))
    row.parts += (out / ".part").exists()
    row.processes += bool(processes())
    row.broken += hashes(out) not in (old, wanted)
    subprocess.run(command(out, *NEW, "--resume"), env=environment, check=True)
    row.temporary_after += bool(temporaries(scratch)) or (out / ".part").exists()
    row.different += hashes(out) != wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, rows = random.Random(options.seed), {number: Row() for number in SIGNALS}
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        subprocess.run(command(Path(name) / "calm", *NEW), check=True)
        took, wanted = time.perf_counter() - start, hashes(Path(name) / "calm")
        for index in range(options.kills):
            folder = Path(name) / str(index)
            folder.mkdir()
            number = SIGNALS[index % len(SIGNALS)]
            one(number, rng.uniform(0.3, took), folder, wanted, rows[number])
            print(f"{index + 1} of {options.kills}", file=sys.stderr, flush=True)
    print(f"A run that nobody disturbs takes {took:.1f} s; ended at a random moment of it.\n")
    print("| signal | ended | finished before | exit codes | temporary files left | `.part` left | processes left "
          "| old artifacts broken | anything left after the next start | resumed bytes differ |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for number, row in rows.items():
        print(
            f"| {number.name} | {row.ended} | {row.finished} | {', '.join(map(str, sorted(row.codes)))} | {row.temporary} "
            f"| {row.parts} | {row.processes} | {row.broken} | {row.temporary_after} | {row.different} |"
        )


if __name__ == "__main__":
    main()
