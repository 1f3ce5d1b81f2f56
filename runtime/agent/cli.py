"""Command line of the agent."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any, Callable, List, Sequence, Tuple

from .base import VERSION, AgentError, Json, say
from .engine import TENSORRT
from .engines import engine_names


def arguments() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--engine", choices=engine_names(), help="default: by the file's type")
    common.add_argument("--threads", type=whole(1, 1024), default=1)
    common.add_argument(
        "--no-pin", dest="pin", action="store_false", help="leave the choice of cores to the system"
    )
    common.add_argument(
        "--inputs", help=".npz with one array per input, samples first (default: seeded noise)"
    )
    common.add_argument("--shape", action="append", default=[], metavar="INPUT=1x3x320x240", type=named_shape)
    common.add_argument("--seconds", type=seconds, default=2.0, help="least seconds of inference (default 2)")
    common.add_argument("--output", help="also write the JSON line to this file, by rename")
    common.add_argument("--root", default="/", help=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(prog="edgec-agent", description="edgec's measuring agent")
    commands = parser.add_subparsers(dest="command", required=True)
    bench = commands.add_parser("bench", parents=[common], help="measure latency")
    bench.add_argument("artifacts", nargs="+", metavar="MODEL[@ENGINE]")
    bench.add_argument("--interleave", action="store_true", help="take turns, and give ratios to the first")
    bench.add_argument(
        "--restarts",
        type=whole(1, 1000),
        default=3,
        help="generations of processes of a comparison (default 3)",
    )
    bench.add_argument(
        "--runs", type=whole(1, 10**7), default=50, help="least number of inferences (default 50)"
    )
    bench.add_argument("--warmup", type=seconds, default=1.0, help="least seconds of warm-up (default 1)")
    bench.add_argument(
        "--warmup-most", type=seconds, default=10.0, help="stop waiting for a stable median after this"
    )
    bench.add_argument(
        "--sustained", type=seconds, default=0.0, metavar="SECONDS", help="run for so long, sampled"
    )
    bench.add_argument("--samples", action="store_true", help="put every single time into the JSON")
    bench.add_argument(
        "--timeout", type=seconds, default=600.0, help="seconds to wait for one answer of the engine"
    )
    bench.add_argument("--text", action="store_true", help="a table for people instead of JSON")
    profile = commands.add_parser("profile", parents=[common], help="time per layer")
    profile.add_argument("artifact", metavar="MODEL[@ENGINE]")
    profile.add_argument(
        "--layers", help="archive of single-op models, one per layer: layers.json, 0.tflite, 1.tflite, ..."
    )
    profile.add_argument("--text", action="store_true", help="a table for people instead of JSON")
    build = commands.add_parser("build", help="TensorRT engines of .onnx files, kept in engines/ beside them")
    build.add_argument("artifacts", nargs="+", metavar="MODEL.onnx")
    build.add_argument("--force", action="store_true", help="build those again that are there")
    build.add_argument(
        "--text", action="store_true", help="nothing on stdout: what is built is said on stderr"
    )
    build.add_argument("--output", help="also write the JSON line to this file, by rename")
    build.add_argument("--root", default="/", help=argparse.SUPPRESS)
    outputs = commands.add_parser("outputs", parents=[common], help="run inputs, save outputs")
    outputs.add_argument("artifact", metavar="MODEL[@ENGINE]")
    outputs.add_argument("--save", required=True, help=".npz to write")
    info = commands.add_parser("info", help="what this machine is, and which engines work")
    info.add_argument("--root", default="/", help=argparse.SUPPRESS)
    info.add_argument("--output", help="also write the JSON line to this file, by rename")
    commands.add_parser("worker")
    check = commands.add_parser("check-engine")
    check.add_argument("engine", choices=[name for name in engine_names() if name != TENSORRT])
    return parser


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``low`` to ``high``."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {low} to {high}, not {text[:40]!r}"
            )
        return int(text)

    return read


def seconds(text: str) -> float:
    """A time from 0 to 30 days."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 30 * 86400:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 to 30 days, not {text[:40]!r}")
    return value


def named_shape(text: str) -> Tuple[str, List[int]]:
    name, sign, value = text.rpartition("=")
    if not sign or not re.fullmatch(r"\d{1,9}(x\d{1,9}){0,15}", value):
        raise argparse.ArgumentTypeError("expected INPUT=1x3x320x240")
    shape = [int(n) for n in value.split("x")]
    elements = 1
    for n in shape:
        elements *= n
    if not 0 < elements <= 2**28:
        raise argparse.ArgumentTypeError(
            f"{value[:60]} has {elements} elements; 1 to {2**28} can be measured"
        )
    return name, shape


def interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def run(args: argparse.Namespace) -> Json:
    if args.command == "bench":
        from .measure import bench

        return bench(args)
    if args.command == "info":
        from .probe import info

        return info(args.root)
    if args.command == "build":
        from .machine import Machine
        from .trt_engines import build_all

        return {"agent": VERSION, "engines": build_all(args.artifacts, Machine(args.root), args.force)}
    from .layers import outputs, profile

    return profile(args) if args.command == "profile" else outputs(args)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    if args.command == "worker":
        from .worker import serve

        return serve()
    if args.command == "check-engine":
        from .probe import check_engine

        return check_engine(args.engine)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, interrupted
        )  # so that workers are ended and temporary files removed on the way out
    try:
        result, code = run(args), 0
    except AgentError as error:
        result = {"agent": VERSION, "error": str(error), "kind": error.kind}
        code = 2 if error.kind == "usage" else 3
        say(f"error: {error}")
    except OSError as error:
        result = {
            "agent": VERSION,
            "error": f"{error.filename or 'the disk'}: {error.strerror}",
            "kind": "worker",
        }
        code = 3
        say(f"error: {result['error']}")
    except KeyboardInterrupt:
        return 130
    if args.output:
        part = Path(args.output + ".part")
        part.write_text(json.dumps(result), encoding="utf-8")
        part.replace(args.output)
    if getattr(args, "text", False) and code == 0:
        from .tables import layer_table, table

        if args.command == "build":
            return 0 if any(row["engine"] for row in result["engines"]) else 3
        print(table(result) if args.command == "bench" else layer_table(result), flush=True)
    else:
        print(json.dumps(result), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
