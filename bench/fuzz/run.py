"""A fuzzer of everything that edgec reads: models, recipes, target files, data, the words of a board, run folders, caches.

    python bench/fuzz/run.py --cases 10000 --seed 0 --jobs 2      # goes on where it stopped; prints the table at the end
    python bench/fuzz/run.py --kinds onnx,array --cases 500
    python bench/fuzz/run.py --only onnx:1234 -v                  # one case again, with what it said
    python bench/fuzz/run.py --given FOLDER                       # model files that somebody found, by four commands each
    python bench/fuzz/run.py --minimise onnx-1234                 # the smallest input with the same finding
    python bench/fuzz/run.py --table                              # of the journal, without running

A case is a kind and a number: with the same seed it is the same input and the same command. Each runs in a process of its own,
in a folder of its own, with a home of its own; a watcher measures its time and the memory of all its processes, and looks at what
was written where. Exit code 1 when there is a finding. Linux only.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import stock
import table
from cell import Stock
from classify import GOOD, Outcome
from kind_models import GIVEN_TURNS

SHARES = {
    "onnx": 38, "op": 14, "pt2": 4, "tflite": 6, "recipe": 8, "card": 7, "labels": 3, "picture": 6, "array": 6, "reply": 6,
    "run": 6, "cache": 3,
}  # fmt: skip
"""How many of the cases are of each kind, relatively."""
LIMITS = ("--load-timeout", "15", "--load-memory", "1G")
HERE = Path(__file__).resolve().parent


def main() -> int:
    options = _options()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / f"journal-{options.seed}.jsonl")
    if options.table:
        return table.show(journal.outcomes(), findings=not options.brief)
    if options.fresh:
        journal.forget()
    stock.make(Stock(out / "stock"))
    if options.minimise:
        import minimise

        with Process(out, 90, options) as process:
            return minimise.run(out / "findings" / options.minimise, process.ask)
    requests = _requests(options, journal)
    print(f"{len(requests)} cases to run", file=sys.stderr)
    start = time.monotonic()
    _run(requests, out, options, journal)
    if options.only:
        return 0
    minutes = (time.monotonic() - start) / 60
    print(
        f"{len(requests)} cases in {minutes:.1f} minutes, {len(requests) / max(minutes, 1e-9):.0f} a minute",
        file=sys.stderr,
    )
    return table.show(journal.outcomes(), findings=not options.brief)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000, help="over all kinds, by their shares")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(SHARES), help="which kinds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(".build/fuzz"), help="the journal, the findings, the cases' folders"
    )
    parser.add_argument("--only", help="KIND:NUMBER, again")
    parser.add_argument("--given", type=Path, help="a folder of model files")
    parser.add_argument("--minimise", metavar="KIND-NUMBER")
    parser.add_argument("--no-limits", action="store_true", help="without --load-timeout and --load-memory")
    parser.add_argument("--fresh", action="store_true", help="forget the journal first")
    parser.add_argument(
        "--again", action="store_true", help="run the findings of the journal again, and nothing else"
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--brief", action="store_true", help="the table without the findings")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


class Journal:
    """Finished cases as JSON lines: a run that was stopped goes on behind them. A case's later line replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def outcomes(self) -> list[dict[str, Any]]:
        found: dict[tuple[str, int], dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                found[one["kind"], one["number"]] = one
        return list(found.values())

    def add(self, outcome: dict[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(outcome) + "\n")

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def _requests(options: argparse.Namespace, journal: Journal) -> list[dict[str, Any]]:
    if options.only:
        kind, _, number = options.only.partition(":")
        return [{"kind": kind, "number": int(number)}]
    if options.given:
        files = sorted(p for p in options.given.iterdir() if p.suffix in (".onnx", ".pt2"))
        done = {one["number"] for one in journal.outcomes() if one["kind"] == "given"}
        numbers = [i for i in range(len(files) * GIVEN_TURNS) if i not in done]
        return [
            {"kind": "given", "number": i, "given": str(files[i // GIVEN_TURNS].resolve())} for i in numbers
        ]
    if options.again:
        bad = [one for one in journal.outcomes() if one["verdict"] not in GOOD and one["kind"] != "given"]
        return [{"kind": one["kind"], "number": one["number"]} for one in bad]
    kinds = options.kinds.split(",")
    known = Stock(options.out.resolve() / "stock")
    if "pt2" in kinds and not known.program.exists():
        print("torch is not installed: no cases of the kind pt2", file=sys.stderr)
        kinds.remove("pt2")
    done = {(one["kind"], one["number"]) for one in journal.outcomes()}
    return [r for r in _spread(kinds, options.cases) if (r["kind"], r["number"]) not in done]


def _spread(kinds: list[str], cases: int) -> Iterator[dict[str, Any]]:
    """The kinds mixed by their shares, so that a run that is stopped has some of all."""
    total = sum(SHARES[kind] for kind in kinds)
    given = dict.fromkeys(kinds, 0)
    for index in range(1, cases + 1):
        kind = max(kinds, key=lambda one: SHARES[one] * index / total - given[one])
        yield {"kind": kind, "number": given[kind]}
        given[kind] += 1


class Process:
    """A worker, started again when it dies."""

    def __init__(self, out: Path, number: int, options: argparse.Namespace) -> None:
        limits = () if options.no_limits else LIMITS
        self._settings = {"out": str(out), "worker": number, "seed": options.seed, "limits": limits}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        process.wait()
        self._process = None
        died = Outcome(
            request["kind"], request["number"], (), (), "fuzzer", "the worker died", -1, 0.0, 0.0, 0, ""
        )
        return died.to_dict()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(self._settings) + "\n")
            self._process.stdin.flush()
            if not self._process.stdout.readline():
                raise SystemExit("a worker cannot start")
        return self._process

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def _run(requests: list[dict[str, Any]], out: Path, options: argparse.Namespace, journal: Journal) -> None:
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    done = [0]

    def work(number: int) -> None:
        with Process(out, number, options) as process:
            while True:
                try:
                    request = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = process.ask(request)
                journal.add(outcome)
                done[0] += 1
                _tell(outcome, done[0], len(requests), verbose=options.verbose)

    threads = [
        threading.Thread(target=work, args=(number,), daemon=True)
        for number in range(min(options.jobs, len(requests)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _tell(outcome: dict[str, Any], done: int, total: int, *, verbose: bool) -> None:
    name = f"{outcome['kind']}:{outcome['number']}"
    if verbose:
        print(
            f"{name} {outcome['verdict']} {outcome['where']}",
            f"(exit {outcome['code']}, {outcome['seconds']} s, {outcome['rss_mb']} MB)",
        )
        print(f"  edgec {' '.join(outcome['argv'])}\n  {'; '.join(outcome['done'])}\n  {outcome['said']}")
    elif outcome["verdict"] not in GOOD:
        print(f"{name:12} {outcome['verdict']:14} {outcome['where']}", file=sys.stderr)
    if done % 100 == 0:
        print(f"{done} of {total}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
