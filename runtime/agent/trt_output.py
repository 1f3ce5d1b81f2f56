"""What trtexec writes, read with care: times, the profile, the layers, the text. Formats of 8.2 to 11.1.

Sources: samples/common/sampleReporting.cpp of the releases (NVIDIA/TensorRT). Names in its JSON are not escaped, so a name with a
quotation mark or a backslash breaks the file: then it is read line by line, which its writer keeps to.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Dict, List, Sequence

from .base import AgentError, Json, visible

UNSTABLE = 1.0
"""Per cent of spread above which trtexec calls the GPU's time unstable (kUNSTABLE_PERF_REPORTING_THRESHOLD)."""
_MOST = 2**28  # bytes of a file
_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_PROFILED = re.compile(
    r'^\s*,?\s*\{\s*"name"\s*:\s*"(?P<name>.*)"\s*,\s*"timeMs"\s*:\s*(?P<timeMs>NUMBER)\s*,\s*"averageMs"\s*:\s*'
    r'(?P<averageMs>NUMBER)\s*,(?:\s*"medianMs"\s*:\s*(?P<medianMs>NUMBER)\s*,)?\s*"percentage"'.replace(
        "NUMBER", _NUMBER
    ),
    re.MULTILINE,
)


class Times:
    """Milliseconds of each inference on the GPU, and when it began after the first, in seconds."""

    def __init__(self, milliseconds: List[float], begun: List[float]) -> None:
        self.milliseconds, self.begun = milliseconds, begun

    @property
    def spread(self) -> float:
        """Standard deviation over mean, in per cent, as trtexec counts it."""
        mean = sum(self.milliseconds) / len(self.milliseconds)
        squares = sum((value - mean) ** 2 for value in self.milliseconds) / len(self.milliseconds)
        return 100 * math.sqrt(squares) / mean if mean else 0.0


def times(path: Path, warmup_ms: float) -> Times:
    """``--exportTimes``: the compute time of each inference.

    Newer versions leave the warm-up out by themselves; older ones do not, and are cut here by the same rule.
    """
    rows = _parsed(path)
    if not isinstance(rows, list):
        raise _unreadable(path, "not a list")
    kept = []
    for row in rows:
        compute, begun = (_amount(row, key) for key in ("computeMs", "startComputeMs"))
        if compute is None or begun is None:
            raise _unreadable(path, "a row without computeMs and startComputeMs")
        if begun >= warmup_ms:
            kept.append((compute, begun / 1e3))
    if not kept:
        raise _unreadable(path, "no inference in it")
    first = kept[0][1]
    return Times([compute for compute, _ in kept], [start - first for _, start in kept])


def profile(path: Path) -> List[Json]:
    """``--exportProfile``: name and microseconds per layer, in order; the median where it is there (8.5), else the mean."""
    try:
        rows = _parsed(path)
    except AgentError:
        rows = [_by_line(match) for match in _PROFILED.finditer(_text(path))]
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and "name" in row:
            times_of = [_amount(row, key) for key in ("medianMs", "averageMs")]
            value = next((one for one in times_of if one is not None), None)
            if value is None:
                raise _unreadable(path, f"layer {visible(str(row['name']), 80)} has no time")
            found.append({"name": str(row["name"]), "us": round(1e3 * value, 3)})
    if not found:
        raise _unreadable(path, "no layer in it")
    return found


def layers(path: Path) -> Dict[str, List[str]]:
    """``--exportLayerInfo``: nodes of the ONNX file per layer, where the engine says so (``Metadata``, 8.6 on); else nothing."""
    try:
        content = _parsed(path)
    except AgentError:
        return {}  # its names may break it; the layers' own names are what is left
    rows = content.get("Layers") if isinstance(content, dict) else None
    found: Dict[str, List[str]] = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("Metadata"), str):
            nodes = re.findall(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\[]|$)", row["Metadata"])
            if nodes:
                found[str(row.get("Name"))] = list(dict.fromkeys(nodes))
    return found


def unstable(text: str) -> float | None:
    """The spread in per cent of which trtexec warns; None where it does not."""
    match = re.search(rf"GPU compute time is unstable, with coefficient of variance = ({_NUMBER})%", text)
    return float(match[1]) if match else None


def summary(text: str) -> Dict[str, float]:
    """Milliseconds of the line 'GPU Compute Time' by name: min, max, mean, median, 90%, 95%, 99% (8.2: 99% alone)."""
    found: Dict[str, float] = {}
    match = re.search(r"GPU Compute Time:(.*)", text)
    if match:
        pairs = re.findall(rf"(\w+|percentile\((\d+)%\)) = ({_NUMBER}) ms", match[1])
        found = {f"{percent}%" if percent else name: float(value) for name, percent, value in pairs}
    return found


def deserialised_ms(text: str) -> float | None:
    """How long the engine took to load; None where the text does not say."""
    match = re.search(rf"Engine (?:deserialized|loaded) in ({_NUMBER}) sec", text)
    return round(1e3 * float(match[1]), 3) if match else None


def failing_node(text: str) -> str | None:
    """The node that a failed build names: without an implementation, or one that the parser does not take."""
    patterns = (
        r"Could not find any implementation for node (.*?)(?: due to insufficient workspace.*?)?\.?\)?\s*$",
        r"In node -?\d+ with name: (.*?) and operator:",
        r'While parsing node number \d+ \[[^\]]*\]:(?:.*\n){0,60}?.*^.*?name: "(.*)"\s*$',
        r"While parsing node number \d+ \[(.*?)\]",
        r"In node -?\d+ \((?:parseGraph|importModel)\): \w+: (.*)$",
    )
    for pattern in patterns:
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return visible(match[1].strip(), 300)
    return None


def told(text: str) -> str:
    """The errors of a log that say most, its first two and its last, else its last three lines: one line for people."""
    lines = [re.sub(r"^\[[\d/:-]+\] ", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("&&&&")]
    errors = list(dict.fromkeys(line[4:].strip() for line in lines if line.startswith("[E]")))
    chosen: Sequence[str] = errors[:2] + errors[2:][-1:] if errors else lines[-3:]
    return visible(" | ".join(chosen), 800)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_text(path), strict=False)  # names with control characters are names
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _amount(row: Any, key: str) -> float | None:
    """The number of 0 or more under ``key``; None for anything else."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _by_line(match: re.Match[str]) -> Json:
    """A layer of a file that is no JSON, as JSON would have it."""
    numbers = {key: float(match[key]) for key in ("averageMs", "medianMs") if match[key] is not None}
    return {"name": match["name"], **numbers}


def _unreadable(path: Path, why: str) -> AgentError:
    return AgentError(
        "worker", f"trtexec's {path.name} is not understood ({visible(why, 200)}): is the disk full?"
    )
