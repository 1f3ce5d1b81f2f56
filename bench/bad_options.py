"""Wrong options over all commands and entry points: what each is answered, and with which exit code.

    python bench/bad_options.py            the table of docs/options.md; each row is a process of its own
    python bench/bad_options.py --check    exit code 1 where an answer is not as it should be

An answer is right where the exit code is 2 (3 where the fault is the data's or the model's), where at most two lines name what
was given and what is admitted, and where nothing was written. `tests/compiler/test_bad_options.py` holds the same list to that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

RUN = ("compile", "net.onnx", "--data", "calib.npz", "-o", "out")


@dataclass(frozen=True)
class Case:
    """One wrong option: where it is given, how, and which words the answer must hold."""

    entry: str
    given: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 2

    @property
    def shown(self) -> str:
        """What a reader of the table sees."""
        given = self.given[len(RUN) :] if self.given[: len(RUN)] == RUN else self.given
        if self.entry in ("recipe", "Python"):
            return "; ".join(part.strip() for part in given)
        return " ".join(part if " " not in part else f"'{part}'" for part in given)

    def arguments(self, folder: Path) -> list[str]:
        """The program's arguments; recipes are written into ``folder``, Python is handed to the interpreter."""
        if self.entry == "Python":
            return ["-c", _PYTHON.format(call=self.given[0])]
        if self.entry == "recipe":
            (folder / "recipe.yaml").write_text("\n".join(["model: {path: net.onnx}", *self.given]) + "\n")
            return ["-m", "edgec", "compile", "--recipe", "recipe.yaml", "-o", "out"]
        if self.entry == "pipeline":
            return ["-m", "edgec", *RUN, "--passes", self.given[0]]
        return ["-m", "edgec", *self.given]


_PYTHON = """
import sys, edgec
from edgec.graph.errors import EdgecError
try:
    {call}
except EdgecError as error:
    print(f"error: {{error}}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def _compile(*more: str) -> tuple[str, ...]:
    return (*RUN, *more)


def _of(entry: str, rows: dict[tuple[str, ...], tuple[str, ...]]) -> Iterator[Case]:
    for given, words in rows.items():
        yield Case(entry, given, words)


def cases() -> tuple[Case, ...]:
    """The list."""
    return (*_compile_cases(), *_other_commands(), *_recipes(), *_pipelines(), *_python())


def _compile_cases() -> Iterator[Case]:
    rows = {
        ("--budget", "macs=50"): ("macs=50", "did you mean 50%"),
        ("--budget", "macs=0.5"): ("macs=0.5", "did you mean 50%"),
        ("--budget", "macs=150%"): ("macs=150%", "between 0% and 100%"),
        ("--budget", "macs=-10%"): ("macs=-10%", "between 0% and 100%"),
        ("--budget", "latency=25"): ("latency=25", "did you mean 25ms"),
        ("--budget", "size=4mb"): ("'mb'", "did you mean 4MB"),
        ("--budget", "params="): ("params=", "no amount"),
        ("--budget", "flops=50%"): ("flops", "macs"),
        ("--budget", "macs=50%,params=40%"): ("several budgets",),
        ("--budget", "size=1B"): ("size=1B", "% of the model's"),
        ("--precision", "int4"): ("int4", "fp32, fp16, int8"),
        ("--format", "onnx,tfilte"): ("tfilte", "onnx, tflite", "Did you mean 'tflite'"),
        ("--format", "onnx", "--format", "tflite"): ("--format", "2 times", "commas"),
        ("--precision", "fp32", "--precision", "int8"): ("--precision", "2 times"),
        ("--target", "rpi44"): ("rpi44", "Did you mean 'rpi4'"),
        ("--seed", "-1"): ("'-1'", "from 0 to"),
        ("--threads", "100000"): ("100000", "from 1 to 1024"),
        ("--threads", "two"): ("'two'", "from 1 to 1024"),
        ("--samples", "0"): ("'0'", "from 1 to"),
        ("--max-drop", "5"): ("'5'", "Did you mean 5%"),
        ("--batch", "4"): ("batch", "TFLite"),
        ("--io-layout", "nhwc"): ("--io-layout", "TFLite"),
        ("--io-type", "int8"): ("--io-type", "int8 files"),
        ("--io-type", "int4"): ("--io-type", "uint8"),
        ("--split-unsupported",): ("split_unsupported", "tflite"),
        ("--label-offset", "1"): ("--label-offset", "--eval"),
        ("--eval-labels", "labels.csv"): ("--eval-labels", "--eval"),
        ("--eval", "plain.npz", "--label-offset", "1"): ("--label-offset", "without labels"),
        ("--letterbox", "300"): ("'300'", "from 0 to 255"),
        ("--letterbox", "114"): ("--letterbox", "--resize"),
        ("--std", "0"): ("'0'", "--std"),
        ("--mean", "a,b,c"): ("'a'", "a number"),
        ("--mean", "1,2,3,4,5"): ("5 entries", "3 channels"),
        ("--scale", "1/0"): ("'1/0'", "a number"),
        ("--resize", "224x224x3"): ("224x224x3", "one or two sizes"),
        ("--resize", "8", "--crop", "16"): ("16x16", "larger"),
        ("--input-shape", "3,0,16"): ("3,0,16", "from 1 to"),
        ("--print-after", "quantize"): ("quantize", "no such pass in this run"),
        ("--layout", "chwn"): ("chwn", "auto, nchw, nhwc"),
        ("--treads", "2"): ("--treads", "--threads"),
        ("--precision", "fp16", "--passes", "quantize"): ("fp16", "int8"),
        ("--budget", "macs=50%", "--passes", "fold"): ("--budget", "no effect"),
    }
    for given, words in rows.items():
        yield Case("compile", _compile(*given), words)
    yield Case("compile", ("compile", "net.onnx", "--samples", "5", "-o", "out"), ("--samples", "--data"))
    yield Case(
        "compile", ("compile", "net.onnx", "--max-drop", "1%", "-o", "out"), ("max_drop", "nothing to judge")
    )
    yield Case(
        "compile",
        ("compile", "net.onnx", "--precision", "int8", "-o", "out"),
        ("quantize", "needs calibration data"),
    )
    yield Case("compile", ("compile", "net.onnx", "--data", "calib.npz"), ("no output folder", "-o"))
    yield Case("compile", ("compile", "net.onnx", "-o", "net.onnx/out"), ("net.onnx", "not a folder"))
    yield Case("compile", _compile("--eval", "range.npz"), ("labels run from", "classes"), code=3)
    yield Case(
        "compile",
        ("compile", "net.onnx", "--data", "nothing", "-o", "out"),
        ("nothing", "no such file"),
        code=3,
    )


def _other_commands() -> Iterator[Case]:
    rows = {
        ("bench", "net.onnx", "--sustained", "500ms"): ("500ms", "from 1 to"),
        ("bench", "net.onnx", "--sustained", "5 minutes"): ("5 minutes", "30m"),
        ("bench", "net.onnx", "--runs", "0"): ("'0'", "from 1 to"),
        ("bench", "net.onnx", "--seconds", "-1"): ("'-1'", "from 0 to"),
        ("bench", "net.onnx", "--threads", "0"): ("'0'", "from 1 to 1024"),
        ("bench", "net.onnx", "--device", "pi@board"): ("pi@board", "ssh://pi@board"),
        ("bench", "net.onnx", "--device", "ssh://pi@board:99999"): ("99999", "from 1 to 65535"),
        ("bench", "net.onnx", "--engine", "onnxrt"): ("onnxrt", "Did you mean 'onnxruntime'"),
        ("bench", "net.onnx", "--engine", "litert"): ("litert", ".onnx"),
        ("bench", "net.onnx", "--target", "rpi4"): ("rpi4", "--estimate"),
        ("bench", "net.onnx", "--compare"): ("--compare", "two artifacts"),
        ("bench", "net.onnx", "--target", "rpi4", "--estimate", "--runs", "9"): ("--runs", "--estimate"),
        ("inspect", "net.onnx", "--target", "jetson"): ("jetson", "jetson-"),
        ("inspect", "net.tflite", "--groups"): ("--groups", "ONNX"),
        ("verify", "net.onnx", "net.onnx", "--min-sqnr", "nan"): ("nan", "finite"),
        ("verify", "net.onnx", "net.onnx", "--skip-bad"): ("--skip-bad", "--data"),
        ("verify", "net.onnx", "net.onnx", "--seed", "1.5"): ("1.5", "whole number"),
        ("verify", "net.onnx", "net.tflite", "--bisect"): ("--bisect", "two ONNX models"),
        ("deploy", "run", "-o", "bundle", "--threads", "0"): ("'0'", "from 1 to 1024"),
        ("deploy", "run", "-o", "bundle", "--device", "ssh://"): ("ssh://", "ssh://user@host"),
        ("deploy", "run", "-o", "bundle", "--wheels", "raspbian"): ("raspbian", "one of"),
        ("deploy", "run", "-o", "bundle", "--labels", "nothing.txt"): ("nothing.txt", "--labels"),
        ("deploy", "run"): ("-o", "missing"),
        ("report", "run", "--md", "--csv"): ("--md and --csv",),
        ("report", "run", "-o", "nowhere/report.html"): ("nowhere",),
        ("inspect", "net.onnx", "--load-timeout", "0"): ("'0'", "--load-timeout"),
        ("inspect", "net.onnx", "--load-memory", "2X"): ("2X", "512M or 2G"),
        ("verify", "net.onnx", "net.onnx", "--data", "calib.npz", "--resize", "8", "--crop", "9"): (
            "9x9",
            "larger",
        ),
        ("passes", "show", "prune-chanels"): ("prune-chanels", "Did you mean 'prune-channels'"),
        ("passes", "lst"): ("lst", "list"),
        ("plugins", "--jsn"): ("--jsn", "Did you mean '--json'"),
        ("targets", "show", "rpi"): ("rpi", "Did you mean"),
        ("targets", "calibrate", "--probes", "5"): ("'5'", "from 40 to"),
        ("targets", "check", "rpi4", "--device", "usb0"): ("usb0", "ssh://user@host"),
        ("complie", "net.onnx"): ("complie", "Did you mean 'compile'"),
    }
    for given, words in rows.items():
        yield Case(given[0] if given[0] != "complie" else "edgec", given, words)


def _recipes() -> Iterator[Case]:
    yield from _of(
        "recipe",
        {
            ("seed: -1",): (":2", "seed", "-1", "from 0 to"),
            ("threads: 100000",): (":2", "100000", "from 1 to 1024"),
            ("precison: int8",): (":2", "precison", "Did you mean 'precision'"),
            ("data: {path: calib.npz, sampels: 3}",): (":2", "data.sampels", "Did you mean 'samples'"),
            ("preprocess:", "  std: [0.2, -0.2, 0.2]"): (":3", "-0.2", "a number from"),
            ("preprocess: {letterbox: 999999, resize: [8, 8]}",): (":2", "999999", "from 0 to 255"),
            ("preprocess: {scale: .inf}",): (":2", "inf", "finite"),
            ("batch: yes",): (":2", "True", "whole number"),
            ("budget: macs=50",): (":2", "macs=50", "did you mean 50%"),
            ("gates: {max_drop: 5}",): (":2", "5", "Did you mean 5%"),
            ("passes: [fold, {name: quantize, options: {percentile: 20}}]",): (
                ":2",
                "percentile=20",
                "above 50",
            ),
            ("io_layout: nchw",): ("io_layout", "TFLite"),
        },
    )


def _pipelines() -> Iterator[Case]:
    yield from _of(
        "pipeline",
        {
            ("prune-channels{macs=50}",): ("macs=50", "did you mean 50%"),
            ("prune-channels{macs=50% params=40%}",): ("macs, params", "one budget"),
            ("prune-channels",): ("prune-channels", "no budget"),
            ("recover-lsq{ridge=-3}",): ("ridge=-3", "from 0 to"),
            ("recover-lsq{hflip=maybe}",): ("hflip=maybe", "auto, yes, no"),
            ("recover-lsq{held-out=1}",): ("held-out=1", "below 1"),
            ("quantize{method=mmse}",): ("method=mmse", "minmax, percentile, mse, entropy"),
            ("quantize{fit-samples=0.5}",): ("fit-samples=0.5", "whole number"),
            ("compress{macs=50% pieces=svd+spacial}",): ("spacial", "Did you mean 'spatial'"),
            ("equalize{strength=nan}",): ("strength=nan", "finite"),
            ("round-weights{damping=0}",): ("damping=0", "above 0"),
            ("remove-blocks{blocks=-1}",): ("blocks=-1", "from 0 to"),
        },
    )


def _python() -> Iterator[Case]:
    yield from _of(
        "Python",
        {
            ('edgec.compile("net.onnx", "out", seed=-1)',): ("seed", "-1", "from 0 to"),
            ('edgec.compile("net.onnx", "out", precision="int9")',): ("precision", "int9", "int8"),
            ('edgec.compile("net.onnx", "out", data=["a.jpg"])',): ("data", "a list of str", "a path"),
            ('edgec.compile(7, "out")',): ("model", "an int", "torch.nn.Module"),
            ('edgec.compile("net.onnx", "out", metric="topp1")',): ("topp1", "Did you mean 'top1'"),
            ('edgec.compile("net.onnx", "out", samples=5)',): ("samples", "without data"),
            ('edgec.compile("net.onnx", "out", budget="macs=50")',): ("macs=50", "did you mean 50%"),
            ('edgec.compile("net.onnx", "out", load_timeout="soon")',): ("'soon'", "500ms, 90s"),
            ('edgec.load("net.onnx", input_shape=(3, 0, 16))',): ("(3, 0, 16)", "from 1 to"),
            ('edgec.compile("net.onnx", None)',): ("out", "a NoneType", "a path"),
            ('edgec.bench(["net.onnx"], threads=0)',): ("threads", "0", "from 1 to 1024"),
            ('edgec.bench(["net.onnx"], device="pi@board")',): ("pi@board", "ssh://pi@board"),
            ("from edgec.passes.prune_channels import PruneChannels as P; P(macs='50%', ridge=-3)",): (
                "ridge=-3",
                "from 0 to",
            ),
            ("from edgec.graph.preprocess import Preprocess as P; P(std=(0, 1, 1))",): ("std", "0 is not"),
        },
    )


def make_files(folder: Path) -> None:
    """A small network, its data, and a few damaged things, in ``folder``."""
    rng = np.random.default_rng(0)
    tensor, info, kind = (
        onnx.numpy_helper.from_array,
        onnx.helper.make_tensor_value_info,
        onnx.TensorProto.FLOAT,
    )
    weights = [
        tensor(rng.standard_normal((8, 3, 3, 3)).astype(np.float32), "w"),
        tensor(rng.standard_normal((10, 8)).astype(np.float32), "g"),
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["c"], ["r"]),
        onnx.helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    ends = [info("x", kind, ["N", 3, 16, 16])], [info("y", kind, ["N", 10])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "net", *ends, initializer=weights),
        opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    onnx.save(model, folder / "net.onnx")
    (folder / "net.tflite").write_bytes(b"\x18\0\0\0TFL3")
    x = rng.standard_normal((8, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "calib.npz", x=x)
    np.savez(folder / "plain.npz", x=x)
    np.savez(folder / "range.npz", x=x, y=np.arange(8) + 7)
    (folder / "run").mkdir()


def faults(case: Case, code: int, err: str) -> list[str]:
    """What is wrong with an answer; empty where it is right."""
    found = []
    if code != case.code:
        found.append(f"exit code {code} instead of {case.code}")
    if "Traceback" in err:
        found.append("a traceback")
    if len(err.strip().splitlines()) > 2:
        found.append("more than two lines")
    return found + [f"does not say {word!r}" for word in case.words if word not in err]


def row(case: Case, code: int, err: str) -> str:
    """The case as a line of the table in docs/options.md."""
    answer = "<br>".join(err.removeprefix("error: ").strip().splitlines()).replace("|", "\\|")
    return f"| {case.entry} | `{case.shown}` | {code} | {answer} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Wrong options, and what edgec answers.")
    parser.add_argument(
        "--check", action="store_true", help="exit code 1 where an answer is not as it should be"
    )
    check = parser.parse_args().check
    wrong = 0
    print("| where | given | exit | answer |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        for case in cases():
            arguments = [sys.executable, *case.arguments(folder)]
            done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
            print(row(case, done.returncode, done.stderr), flush=True)
            for fault in faults(case, done.returncode, done.stderr):
                wrong += 1
                print(f"  {case.shown}: {fault}", file=sys.stderr)
            if (folder / "out").exists() or (folder / "bundle").exists():
                wrong += 1
                print(f"  {case.shown}: it wrote something", file=sys.stderr)
    print(f"{len(cases())} wrong options, {wrong} wrong answers", file=sys.stderr)
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
