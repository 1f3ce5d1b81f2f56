"""What this machine is: board, processor, system, and which engines really work on it."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict

from .base import VERSION, AgentError, Json
from .engines import TFLITE_RESOLVERS, made_up_feeds, open_engine, package_version
from .machine import Machine
from .trtexec import find
from .worker import own_command

# One ReLU over four floats, as ONNX (opset 12) and as TFLite: what an engine must run to count as installed.
_RELU_ONNX = (
    "CAcSADo7CgwKAXgSAXkiBFJlbHUSAWdaEwoBeBIOCgwIARIICgIIAQoCCARiEwoBeRIOCgwIARIICgIIAQoCCARCBAoAEAw="
)
_RELU_TFLITE = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA2AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "NAAAAAQAAADg////CAAAAAwAAAABAAAAeQAAAAIAAAABAAAABAAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAgAAAAEAAAAEAAAA"
    "AQAAABAAAAAMAAwACwAAAAAABAAMAAAAEwAAAAAAABM="
)
_CHECKED = ("onnxruntime", "litert", "tflite-runtime")
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd47": "Cortex-A710",
}
_X86_ISA = (
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
)


def info(root: str = "/") -> Json:
    """Every fact that a target describes or that a report should name."""
    machine = Machine(root)
    cores = machine.choose_cores(1, pause=0.0)
    cpuinfo = machine.read("/proc/cpuinfo")
    memory = dict(
        re.findall(r"^(MemTotal|SwapTotal):\s+(\d+) kB", machine.read("/proc/meminfo"), re.MULTILINE)
    )
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', machine.read("/etc/os-release"), re.MULTILINE))
    state = machine.state(cores or [0])
    return {
        "agent": VERSION,
        "board": board(machine),
        "arch": userland(platform.machine(), struct.calcsize("P") * 8),
        "kernel": platform.release(),
        "os": release.get("PRETTY_NAME") or f"{platform.system()} {platform.release()}",
        "os_id": release.get("ID", ""),
        "os_version": release.get("VERSION_ID", ""),
        "glibc": _glibc(),
        "page_size": os.sysconf("SC_PAGESIZE"),
        "python": platform.python_version(),
        "clusters": clusters(machine, cpuinfo),
        "isa": features(cpuinfo),
        "memory_mb": int(memory.get("MemTotal", 0)) // 1024 or None,
        "swap_mb": int(memory.get("SwapTotal", 0)) // 1024,
        "disk_free_mb": shutil.disk_usage(Path.home()).free // 2**20,
        "power_mode": _power_mode(machine),
        "jetson_linux": machine.read("/etc/nv_tegra_release").partition(", GCID")[0].lstrip("# ") or None,
        "vcgencmd": bool(shutil.which("vcgencmd")),
        "tensorrt": _tensorrt(),
        "numpy": package_version("numpy") or None,
        "engines": {name: check(name) for name in _CHECKED},
        "emulated": machine.emulated(),
        "state": state,
    }


def board(machine: Machine) -> str | None:
    """The device tree's model string, else what the firmware of a PC says."""
    for path in ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model"):
        if machine.read(path):
            return machine.read(path)
    vendor, name = (machine.read(f"/sys/class/dmi/id/{key}") for key in ("sys_vendor", "product_name"))
    return f"{vendor} {name}".strip() or None


def userland(machine: str, bits: int) -> str:
    """Architecture that wheels must have: a 32-bit system can sit on a 64-bit kernel (Pi OS does)."""
    if bits == 32 and machine in ("aarch64", "arm64", "armv8l"):
        return "armv7l"
    return {"arm64": "aarch64", "AMD64": "x86_64"}.get(machine, machine)


def clusters(machine: Machine, cpuinfo: str) -> list[Json]:
    """Kinds of cores as in a target file, fastest first: core, count, clock_mhz."""
    found: Dict[str, Json] = {}
    name = re.search(r"model name\s*:\s*(.*)", cpuinfo)
    for i, block in enumerate(re.findall(r"^processor\s*:\s*\d+\n(?:.+\n?)*", cpuinfo, re.MULTILINE)):
        part = re.search(r"CPU part\s*:\s*(\w+)", block)
        core = (
            _ARM_CORES.get(part.group(1), f"part {part.group(1)}")
            if part
            else (name.group(1) if name else "?")
        )
        khz = machine.number(f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq")
        entry = found.setdefault(
            core, {"core": core, "count": 0, "clock_mhz": int(khz / 1000) if khz else None}
        )
        entry["count"] += 1
    return sorted(found.values(), key=lambda entry: -(entry["clock_mhz"] or 0))


def features(cpuinfo: str) -> list[str]:
    """Instruction set features in the words of /proc/cpuinfo; of x86's only those that pick kernels."""
    arm = re.search(r"^Features\s*:\s*(.*)", cpuinfo, re.MULTILINE)
    if arm:
        return arm.group(1).split()
    flags = re.search(r"^flags\s*:\s*(.*)", cpuinfo, re.MULTILINE)
    return [flag for flag in _X86_ISA if flags and flag in flags.group(1).split()]


def _glibc() -> str | None:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").replace("glibc ", "") or None
    except (OSError, ValueError):  # not glibc
        return None


def _power_mode(machine: Machine) -> str | None:
    """Jetson's power mode: it decides clocks and how many cores are on."""
    match = re.search(r"NV Power Mode:\s*(\S+)", machine.tool("nvpmodel", "-q"))
    return match.group(1) if match else None


def _tensorrt() -> str | None:
    """Version of the TensorRT whose trtexec is here."""
    try:
        return find().name
    except AgentError:
        return None


def check(engine: str) -> Json:
    """Whether ``engine`` runs a ReLU here, in a process of its own: a broken wheel can end the process."""
    command = [*own_command(), "check-engine", engine]
    pipe = subprocess.PIPE
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return {"works": False, "why": "no answer within 120 s"}
    try:
        answer: Json = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
    except (ValueError, IndexError):
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return {"works": False, "why": f"the process ended with {done.returncode} {' '.join(tail)}".strip()}
    return answer


def check_engine(engine: str) -> int:
    """Body of the checking process: one JSON line."""
    tflite = engine in TFLITE_RESOLVERS
    content = base64.b64decode(_RELU_TFLITE if tflite else _RELU_ONNX)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("relu.tflite" if tflite else "relu.onnx")
        path.write_bytes(content)
        try:
            loaded = open_engine(str(path), engine, 1, {})
            loaded.feed(made_up_feeds(loaded))
            loaded.invoke()
        except AgentError as error:
            print(json.dumps({"works": False, "why": str(error)}))
            return 0
    facts: Json = {"works": True, "version": loaded.version, "delegate": loaded.delegate}
    if not tflite:
        facts["providers"] = sys.modules["onnxruntime"].get_available_providers()
    print(json.dumps(facts))
    return 0
