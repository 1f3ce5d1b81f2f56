"""The measuring protocol: warm up, measure alone, sustained, or in turns."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import List, Sequence, Tuple

from .base import VERSION, AgentError, Json, say
from .engine import TENSORRT
from .engines import engine_names
from .figures import STABLE, kept_samples, observed, percentile
from .machine import Machine
from .watch import Watch
from .worker import Worker

WINDOW = 0.2  # seconds per warm-up window
BURST = 0.25  # seconds per measuring burst: short, so that the machine is watched and an orphan ends soon
TURN = 0.1  # seconds per turn of an interleaved comparison


def ratio_figures(ratios: Sequence[float]) -> Json:
    """Median ratio of the rounds of a comparison, with its spread."""
    ordered = sorted(ratios)
    quantiles = {"ratio": 0.5, "p10": 0.1, "p90": 0.9}
    return {
        **{name: round(percentile(ordered, q), 5) for name, q in quantiles.items()},
        "rounds": len(ordered),
    }


def warm_up(worker: Worker, least: float, most: float) -> Json:
    """Infer until three windows' medians agree to 2%: ``least`` seconds at least, about ``most`` at most."""
    medians: List[float] = []
    runs, start = 0, time.monotonic()
    while True:
        times = worker.burst(1, WINDOW)
        runs += len(times)
        medians.append(statistics.median(times))
        spent, last = time.monotonic() - start, medians[-3:]
        settled = len(last) == 3 and max(last) - min(last) <= STABLE * min(last)
        if (settled and spent >= least) or spent >= most:
            return {"warmup_runs": runs, "warmup_seconds": round(spent, 2), "settled": settled}


def measure_alone(worker: Worker, watch: Watch, runs: int, seconds: float) -> List[float]:
    """Times in ms of at least ``runs`` inferences that took ``seconds`` seconds together."""
    times: List[float] = []
    while len(times) < runs or sum(times) < seconds * 1e3:
        times += worker.burst(1, min(BURST, seconds))
        watch.sample()
    return times


def sustain(worker: Worker, watch: Watch, seconds: float) -> Tuple[List[float], List[Json]]:
    """Infer back to back for ``seconds``: times in ms, and per window the speed and the machine's state."""
    times: List[float] = []
    samples: List[Json] = []
    start, window = time.monotonic(), max(0.5, min(5.0, seconds / 240))
    while time.monotonic() - start < seconds:
        part = worker.burst(1, window)
        state = watch.read()
        times += part
        samples.append(
            {
                "t": round(time.monotonic() - start, 2),
                "median_ms": round(statistics.median(part), 5),
                "p90_ms": round(percentile(sorted(part), 0.9), 5),
                "runs": len(part),
                **{key: state[key] for key in ("clock_mhz", "temperature_c", "throttled", "power_w")},
            }
        )
    return times, samples


def take_turns(
    workers: Sequence[Worker], watch: Watch, runs: int, seconds: float
) -> Tuple[List[List[float]], List[List[float]]]:
    """Short bursts in the order A B, B A, A B ...: times per side, and per side its ratio to A in each round.

    Both sides of a round meet the same clock and the same noise. The first inference of every turn is not
    counted: the caches still hold the other side's weights.
    """
    times: List[List[float]] = [[] for _ in workers]
    ratios: List[List[float]] = [[] for _ in workers]
    order = list(range(len(workers)))
    while any(len(part) < runs or sum(part) < seconds * 1e3 for part in times):
        medians = [0.0] * len(workers)
        for i in order:
            part = workers[i].burst(1, TURN, discard=1)
            medians[i] = statistics.median(part)
            times[i] += part
        for i, median in enumerate(medians):
            ratios[i].append(median / medians[0])
        order.reverse()
        watch.sample()
    return times, ratios


def bench(args: argparse.Namespace) -> Json:
    """Measure the artifacts one after the other, or in turns."""
    cores = Machine(args.root).choose_cores(args.threads) if args.pin else []
    if cores:
        others = os.sched_getaffinity(0) - set(cores)
        if others:
            os.sched_setaffinity(
                0, others
            )  # this process keeps off the measured cores; workers pin themselves
    if args.interleave:
        if any((split_artifact(artifact)[1] or args.engine) == TENSORRT for artifact in args.artifacts):
            raise AgentError(
                "usage", "trtexec measures one engine by itself: --interleave has no turns for tensorrt"
            )
        records, ratios = _compare(args, cores)
    else:
        records, ratios = [_measure(artifact, args, cores) for artifact in args.artifacts], []
    return {"agent": VERSION, "artifacts": records, "ratios": ratios}


def _measure(artifact: str, args: argparse.Namespace, cores: Sequence[int]) -> Json:
    path, engine = split_artifact(artifact)
    if (engine or args.engine) == TENSORRT:
        from .trt_bench import measure

        return measure(path, args)
    name = Path(path).name
    say(f"{name}: loading")
    worker = Worker(_config(artifact, args, cores), args.timeout)
    try:
        say(f"{name}: warming up")
        warm = warm_up(worker, args.warmup, args.warmup_most)
        say(f"{name}: measuring")
        watch, used = Watch(Machine(args.root), cores), worker.cpu
        samples = None
        if args.sustained:
            times, samples = sustain(worker, watch, args.sustained)
        else:
            times = measure_alone(worker, watch, args.runs, args.seconds)
        watch.read()
        record = _record(worker, watch, watch.noise(worker.cpu - used), warm, times)
    finally:
        worker.close()
    return {**record, "sustained": samples, "samples_ms": kept_samples(times, args)}


def _compare(args: argparse.Namespace, cores: Sequence[int]) -> Tuple[List[Json], List[Json]]:
    """Turns, in several generations of fresh processes.

    Where a process happens to be laid out in memory is worth a per cent or two of a small model's time, for
    its whole life; the median over generations is free of most of that.
    """
    sides: List[List[float]] = [[] for _ in args.artifacts]
    rounds: List[List[float]] = [[] for _ in args.artifacts]
    watch, used = Watch(Machine(args.root), cores), 0.0
    workers: List[Worker] = []
    warm: List[Json] = []
    for generation in range(args.restarts):
        say(f"comparing: generation {generation + 1} of {args.restarts}")
        workers = []
        try:
            for artifact in args.artifacts:
                workers.append(Worker(_config(artifact, args, cores), args.timeout))
            least = args.warmup if generation == 0 else min(args.warmup, 3 * WINDOW)
            warm = [warm_up(worker, least, args.warmup_most) for worker in workers]
            runs, seconds = -(-args.runs // args.restarts), args.seconds / args.restarts
            times, ratios = take_turns(workers, watch, runs, seconds)
        finally:
            for worker in workers:
                worker.close()
        used += sum(worker.cpu for worker in workers)
        for i in range(len(workers)):
            sides[i] += times[i]
            rounds[i] += ratios[i]
    watch.read()
    noise = watch.noise(used)
    records = [
        {
            **_record(worker, watch, noise, first, times),
            "sustained": None,
            "samples_ms": kept_samples(times, args),
        }
        for worker, first, times in zip(workers, warm, sides)
    ]
    return records, [ratio_figures(part) for part in rounds[1:]]


def _record(worker: Worker, watch: Watch, noise: Json, warm: Json, times: Sequence[float]) -> Json:
    """Everything known about one artifact's run."""
    config = worker.config
    record = observed(Path(config["path"]), watch, noise, times)
    if worker.swap_mb > 0:
        record["invalid"].append(f"{worker.swap_mb:.1f} MB of the process were swapped out")
        record["valid"] = False
    facts = dict(worker.facts)
    record["notices"][:0] = facts.pop("notices")
    if not warm["settled"]:
        record["notices"].append(f"latency had not settled after {warm['warmup_seconds']:.0f} s of warm-up")
    return {
        **record,
        "threads": config["threads"],
        "cores": config["cores"],
        **facts,
        **warm,
        "peak_rss_mb": worker.peak_rss_mb,
        "hard_faults": worker.faults,
    }


def _config(artifact: str, args: argparse.Namespace, cores: Sequence[int]) -> Json:
    """What a worker needs to know."""
    path, engine = split_artifact(artifact)
    if not Path(path).is_file():
        raise AgentError("model", f"no such file: {path}")
    return {
        "path": path,
        "engine": engine or args.engine,
        "threads": args.threads,
        "cores": list(cores),
        "inputs": args.inputs,
        "shapes": dict(args.shape),
    }


def split_artifact(text: str) -> Tuple[str, str | None]:
    """'model.tflite@tflite-runtime' is a file and the engine to run it with."""
    path, at, engine = text.rpartition("@")
    return (path, engine) if at and engine in engine_names() else (text, None)
