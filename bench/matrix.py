"""Does the suite pass wherever edgec may be installed: every Python, oldest and newest dependencies, every BLAS kernel?

``make matrix``, or ``python bench/matrix.py``. Prints a Markdown table. Each Python of `PYTHONS` (``python3.10`` and so on must
be on the PATH; ``--python`` names others) gets two environments of its own under ``.build/matrix``: the oldest and the newest
of what `pyproject.toml` admits and has wheels for that Python, found by uv. ``tests/passes`` runs once more in a newest one
under every kernel of OpenBLAS that this processor can run, at one and at two threads, since sums differ in their last bits
between them (kernels.py). torch is installed in one environment only: it is large.

What has passed is not run again while neither the code nor the packages change: an interrupted matrix goes on where it stopped.
pytest's own words on every run lie in ``.build/matrix/logs``. ``--without`` leaves tests out (the emulated boards, where somebody
else drives one), and the table says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from kernels import runnable

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".build" / "matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
TORCH = ("3.11", "newest")
"""The environment that has torch."""


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    name: str
    packages: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """An environment and what is installed in it (``requirements``: pinned, one to a line)."""

    name: str
    python: Path
    requirements: str


def main() -> None:
    options = _options()
    uv = _uv()
    cells = []
    for version in options.pythons:
        for end in options.ends:
            environment = _environment(uv, version, end, options.python.get(version, f"python{version}"))
            left_out = [f"--deselect={test}" for test in options.without]
            name = ", ".join([f"Python {version}", end, *(f"without {test}" for test in options.without)])
            cells.append(_suite(environment, name, ["-n", "2", *left_out], {}, options.again))
            print(_row(cells[-1]), file=sys.stderr, flush=True)
    if options.kernels:
        cells += _kernels(
            _environment(uv, *TORCH, options.python.get(TORCH[0], f"python{TORCH[0]}")), options.again
        )
    print(_table(cells))
    sys.exit(any(cell.failed for cell in cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="*", default=PYTHONS, choices=PYTHONS, metavar="VERSION")
    parser.add_argument("--ends", nargs="*", default=list(ENDS), choices=ENDS)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="VERSION=PATH",
        help="an interpreter that is not on the PATH",
    )
    parser.add_argument(
        "--no-kernels", dest="kernels", action="store_false", help="leave the kernels of OpenBLAS out"
    )
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="TEST", help="tests that the suites leave out"
    )
    parser.add_argument("--again", action="store_true", help="run what has passed as well")
    options = parser.parse_args()
    options.python = dict(item.split("=", 1) for item in options.python)
    return options


def _run(*command: str | Path, **around: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **around},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _uv() -> Path:
    """uv in an environment of its own: it finds oldest versions, which pip does not."""
    folder = HOME / "uv"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "uv")
    return uv


def _environment(uv: Path, version: str, end: str, interpreter: str) -> Environment:
    name = f"{version}-{end}"
    folder = HOME / name
    # tflite-runtime wants numpy 1; without it the newest numpy comes in.
    extras = ["tflite", "report", "metrics", "dev", *(["tflite-runtime"] if end == "oldest" else [])]
    found = _run(
        uv, "pip", "compile", "pyproject.toml", "--quiet", "--no-annotate", "--no-header", "--only-binary", ":all:",
        "--resolution", ENDS[end], "--python", interpreter, *(word for extra in extras for word in ("--extra", extra)),
    )  # fmt: skip
    environment = Environment(name, folder / "bin" / "python", found)
    listed = folder / "requirements.txt"
    if not listed.exists() or listed.read_text() != found:
        print(f"== installing {name}", file=sys.stderr, flush=True)
        _run(interpreter, "-m", "venv", "--clear", folder)
        wanted = HOME / f"{name}.txt"
        wanted.write_text(found)
        _run(
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            environment.python,
            "-r",
            wanted,
            "pip",
            "setuptools>=69",
        )
        if (version, end) == TORCH:
            # pip, so that whatever chooses the CPU's build of torch on this machine is heard.
            _run(
                environment.python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--constraint",
                "constraints.txt",
                "torch",
            )
        _run(
            environment.python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            ".",
        )
        listed.write_text(found)
    return environment


def _kernels(environment: Environment, again: bool) -> list[Cell]:
    cells = []
    for word, kernel in runnable(environment.python):
        around = {"OPENBLAS_CORETYPE": word}
        for threads in ("1", "2"):
            limit = {**around, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
            words = ["-n", "2" if threads == "1" else "0", "tests/passes"]
            cells.append(
                _suite(
                    environment,
                    f"tests/passes, {kernel}, {threads} thread{'s'[: int(threads) - 1]}",
                    words,
                    limit,
                    again,
                )
            )
            print(_row(cells[-1]), file=sys.stderr, flush=True)
    return cells


def _suite(
    environment: Environment, name: str, words: list[str], around: dict[str, str], again: bool
) -> Cell:
    """Run pytest, or take the result of the same code with the same packages."""
    key = hashlib.sha256(json.dumps([_code(), environment.requirements, name, words]).encode()).hexdigest()[
        :16
    ]
    kept = HOME / "results" / f"{key}.json"
    if kept.exists() and not again:
        return Cell(**json.loads(kept.read_text()))
    report = HOME / f"{key}.xml"
    log = HOME / "logs" / f"{name.replace('/', '.')}.txt"
    log.parent.mkdir(exist_ok=True)
    start = time.perf_counter()
    with log.open("w") as said:
        subprocess.run(
            [environment.python, "-m", "pytest", *words, f"--junitxml={report}", "-p", "no:cacheprovider"],
            cwd=ROOT, env={**os.environ, **around}, stdout=said, check=False,
        )  # fmt: skip
    cell = _read(report, name, environment, time.perf_counter() - start)
    report.unlink()
    if not cell.failed:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(asdict(cell)))
    return cell


def _read(report: Path, name: str, environment: Environment, seconds: float) -> Cell:
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if {"failure", "error"} & {child.tag for child in case}
    ]
    skipped = sum(any(child.tag == "skipped" for child in case) for case in cases)
    versions = dict(
        line.split(" ")[0].split("==") for line in environment.requirements.splitlines() if "==" in line
    )
    said = ", ".join(
        f"{package} {versions[package]}" for package in ("numpy", "onnx", "onnxruntime", "onnxsim")
    )
    return Cell(name, said, len(cases) - len(bad) - skipped, len(bad), skipped, round(seconds, 1), tuple(bad))


def _code() -> str:
    """A hash of every tracked file as it is on disk, documentation aside."""
    digest = hashlib.sha256()
    for name in sorted(_run("git", "ls-files").splitlines()):
        path = ROOT / name
        if path.is_file() and path.suffix != ".md":
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def _row(cell: Cell) -> str:
    return f"| {cell.name} | {cell.packages} | {cell.passed} | {cell.failed} | {cell.skipped} | {cell.seconds:.0f} |"


def _table(cells: list[Cell]) -> str:
    lines = ["| run | packages | passed | failed | skipped | seconds |", "|---|---|---|---|---|---|"]
    lines += [_row(cell) for cell in cells]
    lines += [f"\n{cell.name}: {', '.join(cell.failures)}" for cell in cells if cell.failures]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
