"""What this bundle holds, read with care: a copy can be cut short, and a card can lose bits.

.venv/bin/python contents.py          the artifacts that an installed engine can run, one per line
.venv/bin/python contents.py --onnx    the .onnx artifacts alone, for ./build.sh
.venv/bin/python contents.py --bench   what ./bench.sh measures: files, and file@tensorrt for the GPU's engines that are built
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "edgec-agent.pyz"))
try:
    from edgec_agent.base import AgentError, visible
    from edgec_agent.engine import TENSORRT
    from edgec_agent.engines import open_engine
    from edgec_agent.trt_engines import kept
except Exception as damage:  # noqa: BLE001  (a damaged archive is a dozen kinds of error)
    print(f"error: edgec-agent.pyz is damaged or missing, copy the bundle again: {damage}", file=sys.stderr)
    raise SystemExit(3) from None

__all__ = [
    "TENSORRT",
    "AgentError",
    "intact",
    "open_engine",
    "open_preferred",
    "read_bundle",
    "runnable",
    "visible",
]
Json = Dict[str, Any]
_MOST = 2**20  # bytes of bundle.json


def read_bundle() -> Json:
    """``bundle.json``, checked. Raises AgentError that says what is wrong with it."""
    try:
        with (HERE / "bundle.json").open("rb") as file:
            bundle = json.loads(file.read(_MOST).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged("bundle.json", str(error)) from error
    _check("bundle.json", bundle, _BUNDLE)
    for entry in bundle["artifacts"]:
        _check("bundle.json: an artifact", entry, _ARTIFACT)
    for entry in bundle["inputs"]:
        _check("bundle.json: an input", entry, _INPUT)
    _check("bundle.json: preprocess", {"letterbox_at": "corner", **bundle["preprocess"]}, _PREPROCESS)
    return dict(bundle)


def intact(entry: Json) -> str:
    """Path of an artifact that is as it was made. Raises AgentError for any other."""
    digest = hashlib.sha256()
    try:
        with (HERE / entry["file"]).open("rb") as file:
            for piece in iter(lambda: file.read(2**20), b""):
                digest.update(piece)
    except OSError as error:
        raise _damaged(entry["file"], error.strerror or str(error)) from error
    if digest.hexdigest() != entry["sha256"]:
        raise _damaged(entry["file"], "its content is not what was made")
    return str(HERE / entry["file"])


def runnable(bundle: Json) -> Iterator[str]:
    """Files of the artifacts whose engine is installed here, in order of preference."""
    have = {
        "onnx": find_spec("onnxruntime"),
        "tflite": find_spec("ai_edge_litert") or find_spec("tflite_runtime"),
    }
    return (entry["file"] for entry in bundle["artifacts"] if have[entry["format"]])


def on_gpu(bundle: Json) -> List[Json]:
    """Artifacts that the board's GPU can run, in order of preference; none where the target has no TensorRT."""
    return [
        entry
        for entry in bundle["artifacts"]
        if bundle["accelerator"] == TENSORRT and entry["format"] == "onnx"
    ]


def open_preferred(bundle: Json, name: str, engine: str, threads: int) -> Tuple[Json, Any]:
    """The artifact and the engine that were asked for; else the GPU's, and where that cannot be, said on stderr, the CPU's."""
    by_name = {entry["file"]: entry for entry in bundle["artifacts"]}
    if name and name not in by_name:
        raise AgentError("usage", f"no artifact {name!r} in this bundle; it has {', '.join(by_name)}")
    failures = []
    for entry in on_gpu(bundle) if engine in ("", TENSORRT) else []:
        if name in ("", entry["file"]):
            try:
                return entry, open_engine(intact(entry), TENSORRT, threads, {})
            except AgentError as error:
                if error.kind != "accelerator":
                    raise
                failures.append(error)
    if failures and engine:
        raise failures[0]
    if failures:
        print(
            f"note: not on the GPU: {visible(str(failures[0]), 400)}; the CPU is used",
            file=sys.stderr,
            flush=True,
        )
    entry = by_name[name or next(runnable(bundle), next(iter(by_name)))]
    return entry, open_engine(intact(entry), engine or None, threads, {})


def _measured(bundle: Json) -> Iterator[str]:
    """GPU engines that are built, and the files for the CPU."""
    yield from (
        f"{entry['file']}@{TENSORRT}" for entry in on_gpu(bundle) if kept(HERE / entry["file"]) is not None
    )
    yield from runnable(bundle)


def _damaged(name: str, why: str) -> AgentError:
    return AgentError("data", f"{name} is damaged, copy the bundle again: {visible(why, 200)}")


def _check(what: str, value: Any, kinds: Dict[str, Callable[[Any], bool]]) -> None:
    if not isinstance(value, dict):
        raise _damaged(what, "not an object")
    for key, fits in kinds.items():
        if key not in value:
            raise _damaged(what, f"{key} is missing")
        if not fits(value[key]):
            raise _damaged(what, f"{key} is {value[key]!r}")


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 65536


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _numbers(value: Any) -> bool:
    return _list(value) and all(map(_number, value))


def _sizes(value: Any) -> bool:
    return value is None or (_list(value) and len(value) <= 2 and all(map(_count, value)))


def _codes(value: Any) -> bool:
    return isinstance(value, dict) and all(_numbers(pair) and len(pair) == 2 for pair in value.values())


def _count_of_any(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _order(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(type(axis) is int for axis in value)
        and sorted(value) == list(range(len(value)))
    )


def _file(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_][\w.+-]*\.(onnx|tflite)", value))


_BUNDLE: Dict[str, Callable[[Any], bool]] = {
    "threads": _count,
    "artifacts": _list,
    "inputs": _list,
    "preprocess": _object,
    "accelerator": lambda value: value in (None, "tensorrt"),
}
_ARTIFACT: Dict[str, Callable[[Any], bool]] = {
    "file": _file,
    "format": lambda value: value in ("onnx", "tflite"),
    "precision": lambda value: value in ("fp32", "fp16", "int8", "mixed"),
    "sha256": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)),
    "delegate": lambda value: isinstance(value, str),
    "allowed": lambda value: _number(value) and 0 <= value < 1,
    "quantised": _codes,
    "axes": lambda value: isinstance(value, dict) and all(map(_order, value.values())),
}
_INPUT: Dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "shape": lambda value: isinstance(value, list) and all(map(_count_of_any, value)),
    "dtype": lambda value: isinstance(value, str) and bool(re.fullmatch("[a-z]+[0-9]*", value)),
    "channels_last": lambda value: isinstance(value, bool),
}
_PREPROCESS: Dict[str, Callable[[Any], bool]] = {
    "mean": _numbers,
    "std": lambda value: _numbers(value) and all(value),
    "scale": _number,
    "channels": lambda value: value in ("rgb", "bgr", "gray", "rgba"),
    "resize": _sizes,
    "crop": lambda value: _sizes(value) and (value is None or len(value) == 2),
    "letterbox": lambda value: value is None or (type(value) is int and 0 <= value <= 255),
    "letterbox_at": lambda value: value in ("corner", "centre"),
    "layout": lambda value: value in ("auto", "nchw", "nhwc"),
}


if __name__ == "__main__":
    try:
        contents, asked = read_bundle(), sys.argv[1:]
        files = [entry["file"] for entry in on_gpu(contents)] if asked == ["--onnx"] else runnable(contents)
        print("\n".join(_measured(contents) if asked == ["--bench"] else files))
    except AgentError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(3)
