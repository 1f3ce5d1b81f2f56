"""Whether two states of edgec write the same artifacts, byte for byte: four runs, and the hash of every file they emit.

    python bench/same_bytes.py --save before.json         # in the one state
    python bench/same_bytes.py --against before.json      # in the other: a table; exit 1 where a byte differs

The runs are `make demo` and three networks of ``../shared/data`` (skipped, and said so, where that folder is absent): pruned,
recovered and quantised on real inputs, for ONNX and TFLite. Nothing is measured, so that nothing depends on the machine's load.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import edgec

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
CIFAR = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}
BOTH = ("onnx", "tflite")
RUNS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": ROOT / "examples" / "digits.onnx",
        "data": ROOT / "examples" / "digits" / "calib.npz",
        "budget": "macs=50%",
    },
    "kws_dscnn": {
        "model": SHARED / "models" / "kws_dscnn.onnx",
        "data": SHARED / "kws" / "calib.npz",
        "samples": 64,
        "budget": "macs=70%",
    },
    "resnet20": {
        "model": SHARED / "models" / "resnet20_cifar10.onnx",
        "data": SHARED / "cifar10" / "calib.npz",
        "samples": 128,
        "budget": "macs=60%",
        "preprocess": CIFAR,
    },
    "vww_mobilenet": {
        "model": SHARED / "models" / "vww_mobilenet_v1_0.25_96.onnx",
        "data": SHARED / "vww" / "calib.npz",
        "samples": 64,
        "budget": "params=80%",
    },
}


def artifacts(options: dict[str, Any]) -> dict[str, str]:
    """sha256 by file name of what one run emits, its resolved passes beside them."""
    with tempfile.TemporaryDirectory() as folder:
        model, data = options["model"], options["data"]
        rest = {key: value for key, value in options.items() if key not in ("model", "data")}
        report = edgec.compile(
            model,
            Path(folder) / "run",
            data=data,
            precision="int8",
            formats=BOTH,
            measure=False,
            threads=1,
            **rest,
        )
        return {Path(one.path).name: one.sha256 for one in report.artifacts}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="write the hashes here")
    parser.add_argument("--against", type=Path, help="compare with hashes of an earlier call")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    before = json.loads(args.against.read_text()) if args.against else {}
    found: dict[str, dict[str, str]] = {}
    differs = False
    print(f"{'run':16}{'artifact':20}{'sha256':18}{'same' if before else ''}")
    for name in args.runs:
        if not RUNS[name]["model"].exists():
            print(f"{name:16}skipped: {RUNS[name]['model']} is absent")
            continue
        found[name] = artifacts(RUNS[name])
        for file, digest in found[name].items():
            same = before.get(name, {}).get(file) == digest
            differs |= bool(before) and not same
            verdict = ("yes" if same else "NO") if before else ""
            print(f"{name:16}{file:20}{digest[:16]:18}{verdict}", flush=True)
    if args.save:
        args.save.write_text(json.dumps(found, indent=1))
    everything = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    print(f"all together: {everything[:16]}")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
