#!/usr/bin/env python3
"""Compare this device's outputs with those recorded on the host: int8 bit for bit, float to 1e-5 of the largest value, and int8
with real numbers between its codes to 5%: what is added in another order may fall to the next code.

Exit code 0: all artifacts that can run here agree; 1: one does not. An int8 TFLite file is compared bit for bit where the
engine uses XNNPACK, as the host did; other kernels round differently, so there only the distance is bounded and said.

A GPU adds in another order and keeps what is not int8 in fp16, so that a code may fall to the next one. What that is worth was
measured on the host by rounding every tensor to fp16 (ResNet-20, MobileNetV1-0.75 and -0.25, four samples together): 0.05 to
0.4% of the outputs' root mean square for float files, 2.3 to 11.7% for int8 files; another sample's outputs are 57% away or more.
Allowed are 2% and 15%: above all that was seen, and a quarter of what a wrong answer is.
"""

from __future__ import annotations

import json
import math
import sys
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from contents import TENSORRT, AgentError, intact, on_gpu, open_engine, read_bundle, visible  # noqa: E402
from prepare import Preparation, typed  # noqa: E402

PICTURE = "selftest.png"

FLOAT_TOLERANCE = 1e-5
OTHER_KERNELS = 0.05  # of the largest value: built-in TFLite kernels against XNNPACK
SELECTED = 0.25  # of the rows of an output whose number the data decides: scores near a threshold
GPU_FLOAT, GPU_INT8 = 0.02, 0.15  # of the root mean square of all samples' outputs: see above


def compare(entry: Dict[str, Any], recorded: Any, threads: int, accelerated: bool) -> Dict[str, Any]:
    """Run the recorded inputs of one artifact, on the CPU or the GPU: {"artifact", "passed", "result", ...}."""
    name = entry["file"]
    line: Dict[str, Any] = {"artifact": name, "precision": entry["precision"], "accelerated": accelerated}
    try:
        engine = open_engine(intact(entry), TENSORRT if accelerated else None, threads, {})
    except AgentError as error:
        skipped = error.kind in ("engine", "accelerator")
        return {**line, "passed": skipped, "skipped": skipped, "result": str(error)}
    line.update(engine=f"{engine.name} {engine.version}", delegate=engine.delegate)
    try:
        equal, worst, rms, count = differences(engine, name, recorded)
    except KeyError as error:
        raise AgentError(
            "data", f"selftest.npz is damaged, copy the bundle again: it lacks {error}"
        ) from error
    except Exception as error:  # noqa: BLE001  (engines raise what they like)
        return {
            **line,
            "passed": False,
            "skipped": False,
            "result": f"does not run: {visible(str(error), 300)}",
        }
    found = {
        "skipped": False,
        "bit_equal": equal,
        "worst": finite(worst),
        "rms": finite(rms),
        "samples": count,
    }
    if accelerated:
        limit = GPU_INT8 if entry["precision"] in ("int8", "mixed") else GPU_FLOAT
        result = f"differs by {rms:.2g} of the root mean square (allowed {limit:g} on the GPU)"
        return {**line, **found, "passed": rms <= limit, "result": result}
    same_kernels = engine.delegate == entry["delegate"]
    codes = entry["precision"] in ("int8", "mixed")
    limit = entry["allowed"] if same_kernels or not codes else OTHER_KERNELS
    passed = equal if limit == 0.0 else worst <= limit
    result = "bit-equal" if equal else f"differs by {worst:.2g} of the largest value (allowed {limit:g})"
    if not equal and not same_kernels:
        result += f"; recorded with {entry['delegate']}, here {engine.delegate}"
    return {**line, **found, "passed": passed, "result": result}


def differences(engine: Any, name: str, recorded: Any) -> Tuple[bool, float, float, int]:
    """Whether all bits agree, the largest difference over the largest value, the root mean square of the differences over that of
    the outputs (of the worst output, all samples together), and over how many samples."""
    equal, worst, count = True, 0.0, len(recorded[f"{name}/in/{engine.inputs[0][0]}"])
    errors: Dict[str, List[float]] = {}
    if count == 0:
        raise KeyError("samples")
    for i in range(count):
        engine.feed(
            {
                n: np.ascontiguousarray(recorded[f"{name}/in/{n}"][i]).reshape(shape)
                for n, shape, _ in engine.inputs
            }
        )
        engine.invoke()
        for output, array in engine.outputs().items():
            rows, counts = recorded[f"{name}/out/{output}"], recorded.get(f"{name}/rows/{output}")
            # as the agent put them together
            if counts is not None:
                want = rows[int(counts[:i].sum()) : int(counts[: i + 1].sum())]
                array = in_order_of(array, want)
            else:
                want = rows[i : i + 1] if array.shape[:1] == (1,) else rows[i]
            same = (
                array.dtype == want.dtype and array.shape == want.shape and array.tobytes() == want.tobytes()
            )
            equal = equal and same
            worst = max(worst, 0.0 if same else distance(array, want))
            pair = errors.setdefault(output, [0.0, 0.0])
            if array.shape == want.shape:
                wide = want.astype(np.float64)
                pair[0] += float(((array.astype(np.float64) - wide) ** 2).sum())
                pair[1] += float((wide**2).sum())
            else:
                pair[0] = math.inf
    ratios = [math.sqrt(error / (size or 1.0)) for error, size in errors.values()]
    return equal, worst, max(ratio if math.isfinite(ratio) else math.inf for ratio in ratios), count


def in_order_of(array: Any, want: Any) -> Any:
    """Rows that the data selects, each where its partner was recorded; as they are where more than `SELECTED` of them have none.

    A row's partner is near it by `OTHER_KERNELS` of the largest value. Rows without one are taken as recorded.
    """
    if array.dtype != want.dtype or array.shape[1:] != want.shape[1:] or array.tobytes() == want.tobytes():
        return array
    if not len(array) or not len(want):
        return array
    ours, theirs = (part.reshape(len(part), -1).astype(np.float64) for part in (array, want))
    gaps = np.abs(ours[:, None] - theirs[None]).max(axis=2) / (float(np.abs(theirs).max()) or 1.0)
    paired = gaps.min(axis=0) <= OTHER_KERNELS
    alone = max(float(np.mean(~paired)), float(np.mean(gaps.min(axis=1) > OTHER_KERNELS)))
    if alone > SELECTED:
        return array
    found = want.copy()
    found[paired] = array[gaps.argmin(axis=0)[paired]]
    return found


def finite(value: float) -> Optional[float]:
    """The value as JSON can hold it."""
    return value if math.isfinite(value) else None


def distance(array: Any, want: Any) -> float:
    """The largest difference over the largest value; infinite for another shape, and for what is not a number."""
    if array.shape != want.shape:
        return math.inf
    wide = want.astype(np.float64)
    gap = float(np.abs(array.astype(np.float64) - wide).max()) / (float(np.abs(wide).max()) or 1.0)
    return gap if math.isfinite(gap) else math.inf


def read_recorded() -> Dict[str, Any]:
    """The recorded inputs and outputs by name. Raises AgentError where the file is damaged."""
    try:
        archive = np.load(HERE / "selftest.npz", allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise TypeError("it is a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        why = visible(str(error), 200)
        raise AgentError("data", f"selftest.npz is damaged, copy the bundle again: {why}") from error


def prepared(bundle: Dict[str, Any], recorded: Any) -> Optional[Dict[str, Any]]:
    """Whether a PNG becomes the same input here as at compile time: {"passed", "skipped", "result"}; None without one.

    That input is among the recorded samples of every artifact, whose outputs are compared above: then the answer is the same too.
    """
    names = [name for name in recorded if name.startswith(PICTURE + "/")]
    if not names:
        return None
    if find_spec("PIL") is None:
        return {"passed": True, "skipped": True, "result": "Pillow is not installed here"}
    want, spec = recorded[names[0]], bundle["inputs"][0]
    try:
        steps = Preparation(bundle["preprocess"])
        made = typed(spec["name"], steps.placed(steps.file(HERE / PICTURE), spec), np.dtype(spec["dtype"]))
    except (OSError, AgentError) as error:
        return {"passed": False, "skipped": False, "result": visible(str(error), 300)}
    gap = distance(made, want)
    result = (
        "gives the same input as at compile time"
        if gap == 0
        else f"its input differs by {gap:.2g} of the largest value"
    )
    return {"passed": gap <= FLOAT_TOLERANCE, "skipped": False, "result": result}


def main() -> int:
    bundle, recorded = read_bundle(), read_recorded()
    threads = bundle["threads"]
    lines: List[Dict[str, Any]] = [compare(entry, recorded, threads, False) for entry in bundle["artifacts"]]
    lines += [compare(entry, recorded, threads, True) for entry in on_gpu(bundle)]
    passed = all(line["passed"] for line in lines) and not all(line["skipped"] for line in lines)
    picture = prepared(bundle, recorded)
    passed = passed and (picture is None or picture["passed"])
    if "--json" in sys.argv[1:]:
        print(json.dumps({"passed": passed, "artifacts": lines, "picture": picture}))
    else:
        for line in lines:
            verdict = "skipped" if line["skipped"] else ("ok" if line["passed"] else "FAILED")
            print(f"{verdict:8} {line['artifact']}: {line['result']}  [{line.get('engine', '')}]")
        if picture is not None:
            verdict = "skipped" if picture["skipped"] else ("ok" if picture["passed"] else "FAILED")
            print(f"{verdict:8} {PICTURE}: {picture['result']}")
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(3)
