#!/usr/bin/env python3
"""A stand-in for NVIDIA's trtexec: it checks its options as the named version does, and writes what that version writes.

Formats and options: samples/common/sampleOptions.cpp and sampleReporting.cpp of the releases. ``VERSION`` and ``HERE`` are put in by
the test; ``HERE/behaviour.json`` makes it fail on demand, ``HERE/calls`` keeps what it was asked.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

VERSION = (8, 5, 2)
HERE = Path()
NEVER = (99,)
# option: the first version that knows it, and the first that does not any more
OPTIONS = {
    "--onnx": ((8,), NEVER),
    "--saveEngine": ((8,), NEVER),
    "--loadEngine": ((8,), NEVER),
    "--timingCacheFile": ((8,), NEVER),
    "--shapes": ((8,), NEVER),
    "--workspace": ((8,), (10,)),
    "--memPoolSize": ((8, 4), NEVER),
    "--buildOnly": ((8,), (10,)),
    "--skipInference": ((8, 6), NEVER),
    "--nvtxMode": ((8,), (10,)),
    "--profilingVerbosity": ((8, 4), NEVER),
    "--int8": ((8,), (11,)),
    "--fp16": ((8,), (11,)),
    "--best": ((8,), (11,)),
    "--warmUp": ((8,), NEVER),
    "--duration": ((8,), NEVER),
    "--iterations": ((8,), NEVER),
    "--noDataTransfers": ((8,), NEVER),
    "--useCudaGraph": ((8,), NEVER),
    "--useSpinWait": ((8,), NEVER),
    "--exportTimes": ((8,), NEVER),
    "--exportProfile": ((8,), NEVER),
    "--exportLayerInfo": ((8, 2), NEVER),
}
NUMBER = "v{0}{1}{2:02}" if VERSION < (10,) else "v{0}{1:02}{2:02}"
BANNER = f"TensorRT.trtexec [TensorRT {NUMBER.format(*VERSION)}]"
LAYERS = (
    ("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", 0.004),
    ("conv1 + relu1", 0.031),
    ("PWN(PWN(gate_sigmoid), gate_mul)", 0.012),
    ("{ForeignNode[flatten...fc]}", 0.021),
)


def out(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say(text: str, kind: str = "I") -> None:
    out(f"[11/27/2026-10:00:00] [{kind}] {text}")


def fail(*errors: str) -> None:
    for error in errors:
        say(error, "E")
    out(f"&&&& FAILED {BANNER} # trtexec")
    sys.exit(1)


def given() -> dict:
    found = {}
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        since, until = OPTIONS.get(name, (NEVER, NEVER))
        if not since <= VERSION < until:
            fail(f"Unknown option: {name} {value}".strip())
        found[name] = value
    if "--onnx" not in found and "--loadEngine" not in found:
        fail("Model missing or format not recognized")
    return found


def build(options: dict, behaviour: dict) -> None:
    onnx = Path(options["--onnx"]).read_bytes()
    say(f"Input filename:   {options['--onnx']}")
    for name in behaviour.get("unsupported", []):
        if name in Path(options["--onnx"]).name:
            fail(*behaviour["errors"])
    time.sleep(behaviour.get("seconds", 0))
    if behaviour.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    cache = Path(options["--timingCacheFile"])
    cache.write_bytes((cache.read_bytes() if cache.is_file() else b"") + b"timed\n")
    try:
        Path(options["--saveEngine"]).write_bytes(f"standin {VERSION}\n".encode() + onnx)
    except OSError as error:
        fail(f"Saving engine to file failed: {error.strerror}")
    say("Engine built in 12.3 sec.")


def infer(options: dict, behaviour: dict) -> None:
    engine = Path(options["--loadEngine"]).read_bytes()
    if not engine.startswith(f"standin {VERSION}\n".encode()):
        fail(
            "Error[1]: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Serialization assertion "
            "stdVersionRead == serializationVersion failed. Version tag does not match. Note: Current Version: 0)",
            "Error[4]: [runtime.cpp::deserializeCudaEngine::65] Error Code 4: Internal Error (Engine deserialization failed.)",
            "Engine deserialization failed",
        )
    say("Engine deserialized in 0.0123 sec." if VERSION >= (8, 4) else "Engine loaded in 0.0123 sec.")
    if behaviour.get("broken"):
        fail("Cuda failure: out of memory")
    warmup, count = float(options.get("--warmUp", 200)), int(options.get("--iterations", 10))
    rng, spread, at, rows = random.Random(0), behaviour.get("spread", 0.2) / 100, 0.0, []
    while len(rows) < count or at < warmup + 400:  # 0.4 s in all, whatever is asked for: a test does not wait
        compute = 2.5 * (1 + rng.gauss(0, spread))
        late = VERSION >= (8, 4) and at < warmup  # later versions leave the warm-up out themselves
        rows += [] if late else [(at, compute)]
        at += compute + 0.05
    if "--exportTimes" in options:
        Path(options["--exportTimes"]).write_text(times(rows))
    if "--exportProfile" in options:
        Path(options["--exportProfile"]).write_text(profile(behaviour.get("layers", LAYERS)))
    if "--exportLayerInfo" in options:
        Path(options["--exportLayerInfo"]).write_text(json.dumps({"Layers": behaviour.get("info", [])}))
    say(f"Warmup completed {int(warmup / 2.55)} queries over {warmup:.0f} ms")
    values = [compute for begun, compute in rows if begun >= warmup]
    summary(values)


def times(rows: list) -> str:
    lines = []
    for begun, compute in rows:
        pairs = {
            "startEnqMs": begun - 0.1,
            "endEnqMs": begun,
            "startH2dMs": begun,
            "endH2dMs": begun,
            "startComputeMs": begun,
            "endComputeMs": begun + compute,
            "startD2hMs": begun + compute,
            "endD2hMs": begun + compute,
            "h2dMs": 0,
            "computeMs": compute,
            "d2hMs": 0,
            "latencyMs": compute,
        }
        if VERSION < (8, 4):
            pairs["endToEndMs"] = compute
        lines.append("{ " + ", ".join(f'"{key}" : {value:g}' for key, value in pairs.items()) + " }")
    return "[\n  " + "\n, ".join(lines) + "\n]\n"


def profile(layers: list) -> str:
    total = sum(ms for _, ms in layers)
    lines = ['  { "count" : 100 }']
    for name, ms in layers:
        median = f', "medianMs" : {ms:g}' if VERSION >= (8, 5) else ""
        lines.append(
            f', {{ "name" : "{name}", "timeMs" : {100 * ms:g}, "averageMs" : {ms:g}{median}, "percentage" : {100 * ms / total:g} }}'
        )
    return "[\n" + "\n".join(lines) + "\n]\n"


def summary(values: list) -> None:
    ordered, mean = sorted(values), sum(values) / len(values)
    percents = (90, 95, 99) if VERSION >= (8, 4) else (99,)
    parts = [f"min = {ordered[0]:g} ms", f"max = {ordered[-1]:g} ms", f"mean = {mean:g} ms"]
    parts += [f"median = {ordered[len(ordered) // 2]:g} ms"]
    parts += [
        f"percentile({p}%) = {ordered[min(len(ordered) - 1, len(ordered) * p // 100)]:g} ms" for p in percents
    ]
    say("")
    say("=== Performance summary ===")
    say(f"Throughput: {1000 / mean:g} qps")
    for name in ("Latency", "Enqueue Time", "GPU Compute Time"):
        say(f"{name}: {', '.join(parts)}")
    variance = 100 * (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5 / mean
    if variance > 1 and VERSION >= (8, 4):
        say(f"* GPU compute time is unstable, with coefficient of variance = {variance:g}%.", "W")
        say(
            "  If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability.",
            "W",
        )


def main() -> None:
    out(f"&&&& RUNNING {BANNER} # trtexec {' '.join(sys.argv[1:])}")
    if sys.argv[1:] == ["--help"]:
        out(f"&&&& PASSED {BANNER} # trtexec --help")
        return
    with (HERE / "calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    file = HERE / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.is_file() else {}
    options = given()
    infer(options, behaviour) if "--loadEngine" in options else build(options, behaviour)
    out(f"&&&& PASSED {BANNER} # trtexec")


if __name__ == "__main__":
    main()
