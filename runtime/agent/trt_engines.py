"""TensorRT engines: built once on the board that runs them, kept beside the ONNX file, built again when anything changes.

An engine is good for one file, one TensorRT, one device and one system. All four, and the options of the build, stand in its
record (``engines/<file>.json``), and their digest in its name; what does not agree is not used.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from pathlib import Path
from typing import List

from .base import AgentError, Json, say, visible
from .machine import Machine
from .trt_output import failing_node, told
from .trtexec import Ended, Trtexec, find

FOLDER = "engines"
NO_INT8 = ("tegra210", "tegra186")
"""Jetson Nano, TX1 and TX2: compute capability 5.3 and 6.2, without the int8 instructions that TensorRT needs (6.1, 7.2 on)."""
NEEDED_MB = 1000
"""Free memory that a build needs besides the network: CUDA and the builder's kernels load 500 to 900 MB (logs in
NVIDIA/TensorRT#3747 and others, 'MemUsageChange'), and the processor and the GPU of a Jetson share one memory."""
_WORKSPACE_MOST = 2048
_SECONDS = 3 * 3600.0


class Board:
    """What an engine depends on besides its file: the device, its system, its memory."""

    def __init__(self, machine: Machine) -> None:
        compatible = machine.read("/proc/device-tree/compatible") or machine.read(
            "/sys/firmware/devicetree/base/compatible"
        )
        self.model: str = machine.read("/proc/device-tree/model") or machine.read(
            "/sys/firmware/devicetree/base/model"
        )
        self.identity: str = (
            f"{self.model}|{compatible}|{machine.read('/etc/nv_tegra_release').partition(', GCID')[0]}"
        )
        self.has_int8: bool = (
            not any(chip in compatible for chip in NO_INT8) and "Jetson Nano" not in self.model
        )
        self.available_mb = machine.available_mb()
        total = re.search(r"MemTotal:\s+(\d+) kB", machine.read("/proc/meminfo"))
        # By the memory that is there, not by what is free just now: the options are part of the engine's identity.
        self.workspace_mb: int = min(_WORKSPACE_MOST, int(total[1]) // 4096) if total else 256

    @property
    def slug(self) -> str:
        """The model as part of a file's name."""
        words = re.sub(r"NVIDIA|Developer Kit|Engineering Reference", "", self.model)
        return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40] or "device"


class Built:
    """One engine: its file, what it is of, and whether it was there already. ``seconds``: of the build."""

    def __init__(self, path: Path, record: Json, kept: bool) -> None:
        self.path, self.record, self.kept = path, record, kept

    @property
    def kind(self) -> str:
        """'int8 + fp16', 'fp16', or 'as typed' for TensorRT 11 and later."""
        return str(self.record["kind"])


def engine_of(onnx: Path, machine: Machine, shapes: Json, force: bool = False) -> Built:
    """The engine of ``onnx`` for this board, built where it is not there yet. Raises AgentError where that cannot be."""
    tool, board = find(), Board(machine)
    quantised = is_quantised(onnx)
    if quantised and not board.has_int8:
        why = "the GPU of this board has no int8: run this file on the CPU, and the float file on the GPU"
        raise AgentError("accelerator", f"{onnx.name}: {why}")
    options = tool.build(board.workspace_mb, quantised)
    if shapes:
        given = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        options.append(f"--shapes={given}")
    wanted: Json = {
        "onnx": digest_of(onnx),
        "tensorrt": tool.name,
        "device": board.identity,
        "options": options,
        "kind": _kind(tool, quantised),
    }
    found = kept(onnx)
    if found is not None and not force and differs(found, wanted) is None:
        return Built(found.path, found.record, True)
    return _build(onnx, tool, board, wanted)


def kept(onnx: Path) -> Built | None:
    """The engine that was built of ``onnx``, whole, whatever for; None where there is none."""
    try:
        record = json.loads(_record_of(onnx).read_text(encoding="utf-8"))
        path = onnx.parent / FOLDER / str(record["file"])
        whole = path.parent == onnx.parent / FOLDER and digest_of(path) == record["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Built(path, record, True) if whole else None


def differs(engine: Built, wanted: Json) -> str | None:
    """Why an engine is not what is ``wanted``; None where all that is asked for agrees."""
    words = {
        "onnx": "of another file",
        "device": "for another device or system",
        "options": "with other options",
    }
    for key, value in wanted.items():
        if engine.record.get(key) != value:
            was = visible(str(engine.record.get(key)), 40)
            return (
                f"it was built by TensorRT {was}, here is {value}"
                if key == "tensorrt"
                else f"it was built {words[key]}"
            )
    return None


def is_quantised(onnx: Path) -> bool:
    """Whether the file has Q/DQ: the name of the operator stands in it as it is."""
    last = b""
    with onnx.open("rb") as file:
        for piece in iter(lambda: file.read(2**20), b""):
            if b"uantizeLinear" in last[-16:] + piece:  # of Q and of DQ
                return True
            last = piece
    return False


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def build_all(paths: List[str], machine: Machine, force: bool) -> List[Json]:
    """One row per file: the engine, or why there is none. Raises AgentError where the board has no TensorRT."""
    find()
    rows = []
    for text in paths:
        path = Path(text)
        row: Json = {
            "artifact": path.name,
            "engine": None,
            "kind": None,
            "seconds": None,
            "kept": False,
            "why": None,
        }
        try:
            built = engine_of(path, machine, {}, force)
        except AgentError as error:
            say(f"no engine: {error}")
            rows.append({**row, "why": str(error)})
            continue
        except OSError as error:
            raise _disk(error) from error
        say(
            f"{path.name}: {built.kind} engine {'is there already' if built.kept else 'built'}: {built.path.name}"
        )
        told_of = {
            "engine": built.path.name,
            "kind": built.kind,
            "seconds": built.record["seconds"],
            "kept": built.kept,
        }
        rows.append({**row, **told_of})
    return rows


def _build(onnx: Path, tool: Trtexec, board: Board, wanted: Json) -> Built:
    folder = onnx.parent / FOLDER
    folder.mkdir(exist_ok=True)
    size = onnx.stat().st_size
    _check_room(onnx, size, folder, board)
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"{onnx.stem}.{board.slug}.trt{tool.name}.{key}.engine"
    part, log = folder / (path.name + ".part"), folder / (onnx.name + ".log")
    cache = folder / f"timing.{hashlib.sha256((board.identity + tool.name).encode()).hexdigest()[:12]}.cache"
    say(f"{onnx.name}: building an engine ({wanted['kind']}, TensorRT {tool.name}); this takes minutes")
    files = [f"--onnx={onnx}", f"--saveEngine={part}", f"--timingCacheFile={cache}"]
    start = time.monotonic()
    try:
        ended = tool.run([*files, *wanted["options"]], log, lambda: None, _SECONDS)
        if ended.code != 0 or not part.is_file() or part.stat().st_size == 0:
            raise _failed(onnx, tool, ended, log, folder)
        record = {
            **wanted,
            "file": path.name,
            "sha256": digest_of(part),
            "seconds": round(time.monotonic() - start, 1),
        }
        part.replace(path)
    except OSError as error:
        raise _disk(error) from error
    finally:
        if part.exists():
            part.unlink()
    _keep(onnx, path, record)
    return Built(path, record, False)


def _keep(onnx: Path, path: Path, record: Json) -> None:
    """Write the record by rename; then what it replaces can go."""
    record_part = _record_of(onnx).with_name(_record_of(onnx).name + ".part")
    try:
        record_part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        record_part.replace(_record_of(onnx))
    except OSError as error:
        raise _disk(error) from error
    for old in path.parent.glob("*.engine"):
        if old != path and old.name.startswith(onnx.stem + ".") and not _is_recorded(old):
            old.unlink()


def _is_recorded(engine: Path) -> bool:
    """Whether a record in the folder is of this engine: model.engine and model.int8.engine begin alike."""
    for record in engine.parent.glob("*.json"):
        try:
            if json.loads(record.read_text(encoding="utf-8")).get("file") == engine.name:
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _check_room(onnx: Path, size: int, folder: Path, board: Board) -> None:
    """Refuse a build that would end by the system's hand: too little free memory or disk."""
    needed = NEEDED_MB + 4 * size // 2**20
    if board.available_mb is not None and board.available_mb < needed:
        why = f"{board.available_mb:.0f} MB of memory are free, and building takes about {needed} MB"
        how = "close the desktop for it (sudo systemctl isolate multi-user.target) or what else runs"
        raise AgentError("accelerator", f"{onnx.name}: {why}; {how}")
    free, least = shutil.disk_usage(str(folder)).free, 2 * size + 2**26
    if free < least:
        why = f"no space left on device: {free >> 20} MB are free in {folder}"
        raise AgentError("accelerator", f"{onnx.name}: {why}, and the engine needs about {least >> 20} MB")


def _failed(onnx: Path, tool: Trtexec, ended: Ended, log: Path, folder: Path) -> AgentError:
    if ended.killed:
        return AgentError(
            "accelerator", f"{onnx.name}: the build was killed (out of memory?); close what else runs there"
        )
    if shutil.disk_usage(str(folder)).free < 2**20 or "No space left" in ended.text:
        return AgentError("accelerator", f"{onnx.name}: no space left on device for the engine in {folder}")
    node = failing_node(ended.text)
    where = f" at node {node}" if node else ""
    code = f"exit code {ended.code}" if ended.code >= 0 else f"signal {-ended.code}"
    text = f"TensorRT {tool.name} builds no engine{where}: {told(ended.text) or code}"
    return AgentError("model", f"{onnx.name}: {text}; the whole log is {log}")


def _disk(error: OSError) -> AgentError:
    return AgentError("accelerator", f"{error.filename or 'the disk'}: {error.strerror}")


def _kind(tool: Trtexec, quantised: bool) -> str:
    flags = [flag[2:] for flag in tool.precisions(quantised)]
    return " + ".join(flags) or ("int8, as typed" if quantised else "as typed")


def _record_of(onnx: Path) -> Path:
    return onnx.parent / FOLDER / (onnx.name + ".json")
