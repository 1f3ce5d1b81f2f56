"""Networks of the field at small width through every stage, from both exporters of torch, judged in the engines themselves.

    python bench/zoo.py                       all of them, resumable (.build/zoo/journal.jsonl), then the table
    python bench/zoo.py --only unet_deconv vit --exporters dynamo
    python bench/zoo.py --table               the table of the journal

Each network runs in a process of its own: export, inspect, fp32, default int8, ``macs=70%``, each to ONNX and TFLite. The
artifacts are run by onnxruntime and LiteRT on inputs that no stage saw, and compared with the exported file in onnxruntime;
beside them stands what onnxruntime's own quantiser (per channel, min/max, QDQ) makes of the same file and the same inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
JOURNAL = Path(".build/zoo/journal.jsonl")
EXPORTERS = ("torchscript", "dynamo")
CALIBRATION, UNSEEN, LIMIT = 96, 48, 900.0
STAGES: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8"},
    "macs=70%": {"precision": "fp32", "budget": "macs=70%"},
}


def networks() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """Name -> (maker of the module, shape of a sample)."""
    from bench.zoo_nets.classifiers import CLASSIFIERS
    from bench.zoo_nets.maps import MAPS
    from bench.zoo_nets.nets_attention import ATTENTION

    pictures = {**CLASSIFIERS, **ATTENTION}
    return {**{name: (make, (3, 32, 32)) for name, make in pictures.items()}, **MAPS}


def samples(count: int, shape: tuple[int, ...], seed: int) -> Array:
    """Smooth noise, as pictures are: neighbours are alike, and samples differ in level and contrast."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape)).astype(np.float32)
    for axis in range(2, x.ndim):
        for _ in range(2):
            x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / np.sqrt(3)
    wide = (count, *[1] * len(shape))
    return (x * rng.uniform(0.6, 1.4, wide) + rng.normal(0, 0.4, wide)).astype(np.float32)


def export(name: str, exporter: str, path: Path) -> tuple[int, ...]:
    """Write the network to ``path``: weights like trained ones, batch norms that fit the inputs. Returns a sample's shape."""
    import torch

    from bench.zoo_nets.nets_attention import trained_like

    make, shape = networks()[name]
    torch.manual_seed(0)
    module = trained_like(make(), 0)
    with torch.no_grad():
        for seed in range(8):
            module.train()(torch.from_numpy(samples(32, shape, 100 + seed)))
    module.eval()
    example = torch.from_numpy(samples(1, shape, 7))
    if exporter == "dynamo":
        torch.onnx.export(module, (example,), str(path), dynamo=True, external_data=False, verbose=False)
    else:
        torch.onnx.export(module, (example,), str(path), dynamo=False, opset_version=17, input_names=["x"])
    return shape


def by_onnxruntime(path: Path, x: Array) -> dict[str, Array]:
    """Outputs by name, sample by sample, joined."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: one[None]}) for one in x]
    names = [value.name for value in session.get_outputs()]
    return {name: np.stack([np.asarray(row[i])[0] for row in rows]) for i, name in enumerate(names)}


def by_litert(path: Path, x: Array, wanted: Mapping[str, Array]) -> tuple[dict[str, Array], Counter[str]]:
    """Outputs in the source's layout, and how often each operator stands in the file."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(str(path), num_threads=1)
    engine.allocate_tensors()
    runner = engine.get_signature_runner("serving_default")
    ((key, entry),) = runner.get_input_details().items()
    given = x if tuple(entry["shape"][1:]) == x.shape[1:] else np.moveaxis(x, 1, -1)
    rows: list[dict[str, Array]] = []
    for one in given:
        made = runner(**{key: _coded(one[None], entry)})
        details = runner.get_output_details()
        rows.append({k: _decoded(made[k], details[k])[0] for k in made})
    keys = dict(zip(wanted, wanted if set(wanted) <= set(rows[0]) else rows[0], strict=True))
    kinds = Counter(op["op_name"] for op in engine._get_ops_details())
    return {
        name: _like(np.stack([row[keys[name]] for row in rows]), target) for name, target in wanted.items()
    }, kinds


def _coded(x: Array, entry: Mapping[str, Any]) -> Array:
    scale, zero = entry["quantization"]
    if entry["dtype"] != np.int8:
        return x
    return np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def _decoded(y: Array, entry: Mapping[str, Any]) -> Array:
    scale, zero = entry["quantization"]
    return (y.astype(np.float32) - zero) * np.float32(scale) if entry["dtype"] == np.int8 else y


def _like(found: Array, wanted: Array) -> Array:
    last_first = np.moveaxis(found, -1, 1)
    return found if found.shape == wanted.shape or last_first.shape != wanted.shape else last_first


def quality(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """Signal to error of the worst output, in dB."""
    worst = np.inf
    for a, b in zip(found.values(), wanted.values(), strict=True):
        if a.shape != b.shape:
            raise ValueError(f"shape {a.shape} for {b.shape}")
        error, signal = np.square(a.astype(np.float64) - b).sum(), np.square(b.astype(np.float64)).sum()
        worst = min(worst, 10 * np.log10(max(signal, 1e-30) / max(error, 1e-30)))
    return float(min(worst, 200.0))


def peer(source: Path, folder: Path, x: Array) -> Path:
    """What onnxruntime's quantiser makes: per channel, min/max, QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.rows = iter([{name: one[None]} for one in x])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    import onnx

    name = onnx.load(str(source)).graph.input[0].name
    quant_pre_process(str(source), str(folder / "pre.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "pre.onnx"), str(folder / "peer.onnx"), Reader(name), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QInt8,
    )  # fmt: skip
    return folder / "peer.onnx"


def run_one(name: str, exporter: str) -> dict[str, Any]:
    """All stages of one network; a stage that fails says how and leaves the others."""
    import edgec

    entry: dict[str, Any] = {"network": name, "exporter": exporter}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "source.onnx"
        try:
            shape = export(name, exporter, source)
        except Exception as error:  # what torch cannot export is no case of ours
            return {**entry, "export": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        fit, unseen = samples(CALIBRATION, shape, 1), samples(UNSEEN, shape, 2)
        wanted = by_onnxruntime(source, unseen)
        for stage, options in STAGES.items():
            out = folder / stage.replace("%", "")
            began = time.perf_counter()
            found: dict[str, Any] = {}
            try:
                edgec.compile(
                    str(source),
                    str(out),
                    data=fit,
                    formats=("onnx", "tflite"),
                    measure=False,
                    threads=1,
                    quiet=True,
                    **options,
                )
                found["seconds"] = round(time.perf_counter() - began, 1)
                wanted_name = "model.int8" if stage == "int8" else "model"
                found["onnx_db"] = round(
                    quality(by_onnxruntime(out / f"{wanted_name}.onnx", unseen), wanted), 1
                )
                found["onnx_bytes"] = (out / f"{wanted_name}.onnx").stat().st_size
                made, kinds = by_litert(out / f"{wanted_name}.tflite", unseen, wanted)
                found["tflite_db"], found["ops"] = round(quality(made, wanted), 1), dict(kinds)
                found |= facts(json.loads((out / "report.json").read_text(encoding="utf-8")))
            except Exception as error:  # each failure is a row of the table, whatever its class
                found["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            entry[stage] = found
        try:
            made = peer(source, folder, fit)
            entry["peer"] = {
                "db": round(quality(by_onnxruntime(made, unseen), wanted), 1),
                "bytes": made.stat().st_size,
            }
        except Exception as error:  # of the peer: said in its column
            entry["peer"] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    return entry


def facts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Share of the MACs that is left, and the nodes that stayed float, with why."""
    before, after = tree["model"]["macs"], tree["compressed"]["macs"]
    floats: dict[str, str] = {}
    for step in tree["passes"]:
        floats |= step.get("data", {}).get("float_nodes", {})
    return {"macs": round(after / before, 3) if before else 1.0, "floats": dict(Counter(floats.values()))}


def table(entries: list[dict[str, Any]]) -> None:
    """A row per network and exporter."""
    heads = (
        "network",
        "exporter",
        "fp32 ONNX, TFLite dB",
        "int8 ONNX, TFLite dB",
        "onnxruntime's int8",
        "bytes to it",
    )
    print("| " + " | ".join((*heads, "macs=70% dB", "float ops", "TRANSPOSE", "s")) + " |")
    print("|---|---|---|---|---:|---:|---|---|---:|---:|")
    for one in entries:
        if "export" in one:
            print(
                f"| {one['network']} | {one['exporter']} | not exported: {one['export'][:80]} | | | | | | | |"
            )
            continue
        int8, other = one["int8"], one["peer"]
        ratio = (
            f"{int8['onnx_bytes'] / other['bytes']:.2f}" if "onnx_bytes" in int8 and "bytes" in other else ""
        )
        ops = int8.get("ops", {})
        seconds = sum(one[stage].get("seconds", 0) for stage in STAGES)
        floats = "; ".join(f"{n}: {why}" for why, n in int8.get("floats", {}).items())
        cells = (
            one["network"],
            one["exporter"],
            _pair(one["fp32"]),
            _pair(int8),
            other.get("db", "fails"),
            ratio,
        )
        more = (_pair(one["macs=70%"]), floats, ops.get("TRANSPOSE", 0), f"{seconds:.0f}")
        print("| " + " | ".join(map(str, (*cells, *more))) + " |")


def _pair(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return found["error"][:90].replace("|", "/").replace("\n", " ")
    return f"{found.get('onnx_db', '-')}, {found.get('tflite_db', '-')}"


def read() -> list[dict[str, Any]]:
    """The journal, the last word on each network."""
    if not JOURNAL.exists():
        return []
    lines = [json.loads(line) for line in JOURNAL.read_text(encoding="utf-8").splitlines() if line]
    last = {(one["network"], one["exporter"]): one for one in lines}
    return [last[key] for key in sorted(last)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--exporters", nargs="*", default=list(EXPORTERS), choices=EXPORTERS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--again", action="store_true", help="run those that failed once more")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        warnings.simplefilter("ignore")
        print("\n@" + json.dumps(run_one(*given.child)))
        return
    if not given.table:
        JOURNAL.parent.mkdir(parents=True, exist_ok=True)
        done = {(one["network"], one["exporter"]) for one in read() if not (given.again and failed(one))}
        names = given.only if given.only is not None else sorted(networks())
        for name in names:
            for exporter in given.exporters:
                if given.only is None and (name, exporter) in done:
                    continue
                entry = in_child(name, exporter)
                with JOURNAL.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry) + "\n")
                told = {s: entry.get(s, {}).get("error") or _pair(entry.get(s, {})) for s in STAGES}
                print(
                    f"{name:20} {exporter:12} {entry.get('export', told)} peer {entry.get('peer')}",
                    flush=True,
                )
    table(read())


def failed(entry: Mapping[str, Any]) -> bool:
    return "export" not in entry and any("error" in entry.get(stage, {"error": ""}) for stage in STAGES)


def in_child(name: str, exporter: str) -> dict[str, Any]:
    """`run_one` in a process of its own: a crash or a hang is a row too."""
    command = [sys.executable, __file__, "--child", name, exporter]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        why = f"over {LIMIT:.0f} s"
    else:
        lines = [line for line in done.stdout.splitlines() if line.startswith("@")]
        if lines:
            return dict(json.loads(lines[-1][1:]))
        why = f"exit {done.returncode}: {done.stderr[-200:]}"
    return {
        "network": name,
        "exporter": exporter,
        **{stage: {"error": why} for stage in STAGES},
        "peer": {"error": why},
    }


if __name__ == "__main__":
    main()
