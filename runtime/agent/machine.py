"""Live facts about the machine: clock, heat, throttling, swap, load, power, and cores to measure on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Sequence

from .base import Json

_CPU = "/sys/devices/system/cpu/cpu{}/"
_READ_MOST = 2**22  # bytes: /proc/cpuinfo of 256 cores has 0.4 MB
TOTAL, STEAL = -1, -2  # keys of busy_seconds beside the core numbers


class Machine:
    """Readings of this machine; ``root`` lets a test put a made-up /proc and /sys in their place."""

    def __init__(self, root: str = "/") -> None:
        self.root: Path = Path(root)

    def read(self, path: str) -> str:
        """Text of a file, at most 4 MB of it, stripped; '' when it is not there or not readable."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                text = file.read(_READ_MOST).decode("utf-8", "replace")
        except OSError:
            return ""
        return text.replace("\0", "").strip()

    def number(self, path: str) -> float | None:
        try:
            return float(self.read(path))
        except ValueError:
            return None

    def glob(self, pattern: str) -> list[str]:
        return sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob(pattern.lstrip("/")))

    def tool(self, *command: str) -> str:
        """Answer of a board's tool; '' when there is no such tool or it takes more than 2 s."""
        if str(self.root) != "/":
            return ""
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        try:
            done = subprocess.run(command, stdin=none, stdout=pipe, stderr=none, timeout=2, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace").strip()

    # -------------------------------------------------------------------------------- speed and heat

    def clock_mhz(self, cores: Sequence[int]) -> float | None:
        """Present clock of the given cores (the lowest), in MHz."""
        clocks = [self.number(_CPU.format(core) + "cpufreq/scaling_cur_freq") for core in cores]
        known = [clock / 1000.0 for clock in clocks if clock]
        if not known:
            known = [float(mhz) for mhz in re.findall(r"cpu MHz\s*:\s*([\d.]+)", self.read("/proc/cpuinfo"))]
        return round(min(known), 1) if known else None

    def gpu_mhz(self) -> float | None:
        """Present clock of a Jetson's GPU (devfreq), in MHz."""
        for device in self.glob("/sys/class/devfreq/*"):
            if re.search(r"gpu|ga10b|gv11b|gp10b|gm20b", device.rpartition("/")[2]):
                hertz = self.number(device + "/cur_freq")
                if hertz:
                    return round(hertz / 1e6, 1)
        return None

    def governor(self, cores: Sequence[int]) -> str | None:
        names = {self.read(_CPU.format(core) + "cpufreq/scaling_governor") for core in cores}
        return ",".join(sorted(names - {""})) or None

    def temperature_c(self) -> float | None:
        """Hottest processor zone; the firmware's reading where there is a vcgencmd (Linux's can be off)."""
        match = re.search(r"temp=([\d.]+)", self.tool("vcgencmd", "measure_temp"))
        if match:
            return float(match.group(1))
        zones = []
        for zone in self.glob("/sys/class/thermal/thermal_zone*"):
            degrees = self.number(zone + "/temp")
            if degrees is not None and 1000 < degrees < 150000:
                of_cpu = bool(re.search("cpu|soc|pkg|core", self.read(zone + "/type"), re.IGNORECASE))
                zones.append((of_cpu, degrees / 1000))
        return round(max(zones)[1], 1) if zones else None

    def throttle_bits(self) -> int | None:
        """Raspberry Pi firmware: bits 0-3 under-voltage, capped, throttled, soft limit; 16-19 since boot."""
        text = self.tool("vcgencmd", "get_throttled").partition("=")[2]
        if not text:
            for path in self.glob("/sys/devices/platform/soc*/*firmware/get_throttled"):
                text = self.read(path)
        try:
            return int(text, 16)
        except ValueError:
            return None

    def slowdowns(self) -> Json:
        """What else says 'slowed down': cooling devices at work, and event counters (x86, Jetson)."""
        cooling = 0
        for device in self.glob("/sys/class/thermal/cooling_device*"):
            if re.search("cpu|processor|gpu", self.read(device + "/type"), re.IGNORECASE):
                cooling += int(self.number(device + "/cur_state") or 0)
        events = self.glob("/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
        events += self.glob("/sys/class/hwmon/hwmon*/oc*_event_cnt")
        return {"cooling": cooling, "events": int(sum(self.number(path) or 0 for path in events))}

    def power_w(self) -> Json | None:
        """Watts per rail where the board has sensors (Jetson's INA3221, JetPack 4 to 6)."""
        rails: Json = {}
        for device in self.glob("/sys/class/hwmon/hwmon*"):
            if self.read(device + "/name") != "ina3221":
                continue
            for index in range(1, 5):
                label = self.read(f"{device}/in{index}_label")
                millivolt = self.number(f"{device}/in{index}_input")
                milliampere = self.number(f"{device}/curr{index}_input")
                if label and millivolt is not None and milliampere is not None:
                    rails[label] = round(millivolt * milliampere / 1e6, 3)
        for path in self.glob("/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-9]"):
            milliwatt = self.number(path.replace("rail_name_", "in_power") + "_input")
            if milliwatt is not None:
                rails[self.read(path)] = milliwatt / 1000.0
        return rails or None

    # -------------------------------------------------------------------------------- memory and load

    def swapped_pages(self) -> int | None:
        """Pages swapped in and out since boot."""
        found = re.findall(r"^pswp(?:in|out) (\d+)$", self.read("/proc/vmstat"), re.MULTILINE)
        return sum(int(pages) for pages in found) if found else None

    def available_mb(self) -> float | None:
        match = re.search(r"MemAvailable:\s+(\d+) kB", self.read("/proc/meminfo"))
        return round(int(match.group(1)) / 1024.0, 1) if match else None

    def busy_seconds(self) -> dict[int, float]:
        """CPU seconds used since boot per core, in all (TOTAL), and taken away by a hypervisor (STEAL)."""
        busy: dict[int, float] = {}
        tick = float(os.sysconf("SC_CLK_TCK"))
        for line in self.read("/proc/stat").splitlines():
            match = re.match(r"cpu(\d*) (.*)", line)
            if not match:
                continue
            jiffies = [float(text) for text in match.group(2).split()] + [0.0] * 8
            user, nice, system, _, _, irq, soft, steal = jiffies[:8]
            busy[int(match.group(1) or TOTAL)] = (user + nice + system + irq + soft + steal) / tick
            if not match.group(1):
                busy[STEAL] = steal / tick
        return busy

    def state(self, cores: Sequence[int]) -> Json:
        """One reading of everything that can spoil a measurement."""
        bits = self.throttle_bits()
        return {
            "clock_mhz": self.clock_mhz(cores),
            "gpu_mhz": self.gpu_mhz(),
            "governor": self.governor(cores),
            "temperature_c": self.temperature_c(),
            "throttled": None if bits is None else hex(bits),
            "swapped_pages": self.swapped_pages(),
            "available_mb": self.available_mb(),
            "loadavg": [float(text) for text in self.read("/proc/loadavg").split()[:3]] or None,
            "power_w": self.power_w(),
            **self.slowdowns(),
        }

    def emulated(self) -> bool:
        """Whether this is user-mode emulation (QEMU), whose times say nothing about any board."""
        real = self.read(
            "/proc/sys/kernel/arch"
        )  # Linux 6.1 or later; emulators hand the real kernel's through
        if real:
            return (real == "x86_64") != (platform.machine() in ("x86_64", "i686"))
        return "qemu-" in self.read(f"/proc/{os.getppid()}/cmdline")

    # -------------------------------------------------------------------------------- cores

    def choose_cores(self, threads: int, pause: float = 0.1) -> list[int]:
        """The idlest of the fastest cores, on distinct physical ones if possible; [] without a choice."""
        if not hasattr(os, "sched_getaffinity"):
            return []
        allowed = sorted(os.sched_getaffinity(0))
        fastest = [core for core in allowed if self._speed(core) == max(map(self._speed, allowed))]
        enough = len(fastest) >= threads
        pool = fastest if enough else sorted(allowed, key=self._speed, reverse=True)[:threads]
        before = self.busy_seconds()
        time.sleep(pause)
        after = self.busy_seconds()
        pool.sort(key=lambda core: (round(after.get(core, 0.0) - before.get(core, 0.0), 2), -core))
        chosen: list[int] = []
        siblings: set[str] = set()
        for core in pool:
            if str(core) not in siblings:
                chosen.append(core)
                together = self.read(_CPU.format(core) + "topology/thread_siblings_list")
                siblings.update(re.findall(r"\d+", together))
        chosen += [core for core in pool if core not in chosen]
        return sorted(chosen[:threads])

    def _speed(self, core: int) -> float:
        """Relative speed of a core: 0 where nothing is known, so that all are equal."""
        base = _CPU.format(core)
        return self.number(base + "cpu_capacity") or self.number(base + "cpufreq/cpuinfo_max_freq") or 0.0
