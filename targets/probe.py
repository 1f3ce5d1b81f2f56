"""What this machine is: the fields of the ``host`` target, read by the standard library alone."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgec.targets.engines import ENGINES

_CPUINFO = Path("/proc/cpuinfo")
_ARCH = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "armv7l"}
# Only what decides between kernels: a target shows these, not the hundred flags of an x86.
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
_READ = "read from this machine when the target is loaded"


def cpuinfo(text: str | None = None) -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is none (macOS)."""
    if text is None:
        try:
            text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return {}
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries.setdefault(key.strip(), value.strip())
    return entries


def available_cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory_mb() -> int | None:
    """Physical memory in MiB; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, OSError, ValueError):
        return None


def clock_mhz(entries: dict[str, str]) -> int | None:
    """Highest clock of core 0 in MHz: cpufreq's figure, else the one in /proc/cpuinfo, else None."""
    try:
        khz = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text(encoding="ascii")
        return int(khz) // 1000
    except (OSError, ValueError):
        pass
    try:
        return round(float(entries["cpu MHz"]))
    except (KeyError, ValueError):
        return None


def _precisions(arch: str, isa: tuple[str, ...]) -> dict[str, Any]:
    if arch == "x86_64":
        vnni = bool({"avx512_vnni", "avx_vnni"} & set(isa))
        int8 = (
            "pays: this machine has VNNI, the int8 dot product"
            if vnni
            else "pays a little: this processor has no int8 dot product (VNNI)"
        )
        half = "as storage only: half the file, computed in fp32"
        return {
            "fp32": {"supported": True, "why": "AVX"},
            "fp16": {"supported": True, "why": half},
            "int8": {"supported": True, "pays": True, "why": int8},
        }
    dot, fp16 = "asimddp" in isa, "asimdhp" in isa
    why_half = "computed in fp16 where the engine does" if fp16 else "as storage only: no fp16 arithmetic"
    why_int8 = "pays: this machine has the int8 dot product" if dot else "pays a little: no int8 dot product"
    return {
        "fp32": {"supported": True, "why": "NEON"},
        "fp16": {"supported": True, "pays": fp16, "why": why_half},
        "int8": {"supported": True, "pays": True, "why": why_int8},
    }


def host_fields(text: str | None = None, machine: str | None = None) -> dict[str, Any]:
    """Fields of the ``host`` target that depend on the machine.

    ``text`` and ``machine`` stand in for /proc/cpuinfo and ``platform.machine()``, for tests.
    """
    entries = cpuinfo(text)
    machine = machine or platform.machine()
    arch = _ARCH.get(machine, machine)
    if arch == "x86_64":
        flags = set(entries.get("flags", "").split())
        isa = tuple(f for f in _X86_ISA if f in flags)
        dialect = "ort-x86"
        multiple = 16 if "avx512f" in flags else 8
        why_multiple = "onnxruntime's blocked layout (NCHWc) has 16 channels with AVX-512, 8 with AVX2"
        why_dialect = "onnxruntime on x86 fuses U8S8 and leaves S8S8 half unfused, 2 to 10 times slower"
    else:
        isa = tuple(entries.get("Features", "fp asimd").split())
        dialect, multiple = "ort-arm", 8
        why_multiple = "XNNPACK and ruy fp32 NEON kernels compute 8 output channels at a time"
        why_dialect = "onnxruntime on Arm: S8S8 per-channel executes the fewest instructions"
    model = entries.get("model name") or entries.get("Model") or platform.processor() or "unknown"
    clock = clock_mhz(entries) if text is None else None
    group: dict[str, Any] = {"core": model, "count": available_cores(), "clock_mhz": clock}
    sources = dict.fromkeys(("cores", "clock_mhz", "isa", "memory_mb"), _READ)
    return {
        "arch": arch,
        "soc": model,
        "core_groups": [group],
        "isa": isa,
        "memory_mb": memory_mb(),
        "dialect": dialect,
        "channel_multiple": multiple,
        "precisions": _precisions(arch, isa),
        "systems": [_host_system(arch)],
        "sources": sources | {"channel_multiple": why_multiple, "dialect": why_dialect},
    }


def _host_system(arch: str) -> dict[str, Any]:
    libc, version = platform.libc_ver()
    release = ".".join(version.split(".")[:2]) if libc == "glibc" else ""
    return {
        "name": "host",
        "title": f"{platform.system()} {platform.release()}",
        "arch": arch,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "glibc": release or None,
        "runtimes": _installed(),
        "source": _READ,
    }


def _installed() -> list[dict[str, str]]:
    return [{"engine": one.package, "version": version(one.package)} for one in ENGINES if one.installed]
