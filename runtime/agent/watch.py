"""What the machine did while workers ran, and what that says about the validity of the numbers."""

from __future__ import annotations

import os
import time
from typing import Optional, Sequence

from .base import Json
from .machine import STEAL, TOTAL, Machine

BUSY = 0.1  # cores' worth of foreign work above which the host counts as busy
HOST_BUSY = "the host is busy"  # how that notice begins
STOLEN = 0.02  # cores' worth of stolen time above which that is said
_PARENT = os.getppid()  # who started the agent
STARTER = (
    "EDGEC_STARTER"  # says on this machine who did: it may have ended before that line above was reached
)
_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


class Watch:
    """Readings before, during, and after a run on ``cores``; at most one reading per ``period`` seconds."""

    def __init__(self, machine: Machine, cores: Sequence[int], period: float = 1.0) -> None:
        self.machine, self.cores, self.period = machine, list(cores) or [0], period
        self.before = self.after = machine.state(self.cores)
        self._low_bits = self._cooling = 0
        self._power: list[Json] = []
        self._busy = machine.busy_seconds()
        self._start = self._last = time.monotonic()
        self._own = own_cpu()

    def sample(self) -> bool:
        """Read the state again when the last reading is older than the period; whether that was so."""
        if time.monotonic() - self._last < self.period:
            return False
        if self.read()["power_w"]:
            self._power.append(self.after["power_w"])
        return True

    def read(self) -> Json:
        """Read the state now. Ends the run when nobody waits for it any more: the parent was killed outright."""
        if os.getppid() != _PARENT or not _is_alive(os.environ.get(STARTER)):
            raise KeyboardInterrupt
        self.after = self.machine.state(self.cores)
        if self.after["throttled"] is not None:
            self._low_bits |= int(self.after["throttled"], 16) & 0xF
        self._cooling = max(self._cooling, self.after["cooling"])
        self._last = time.monotonic()
        return self.after

    def power_w(self) -> Json | None:
        """Mean watts per rail of the readings during the run; None where the board has no sensors, or the run was too short."""
        rails = sorted({rail for reading in self._power for rail in reading})
        if not rails:
            return None
        found = {rail: [reading[rail] for reading in self._power if rail in reading] for rail in rails}
        return {rail: round(sum(watts) / len(watts), 3) for rail, watts in found.items()}

    def invalid(self) -> list[str]:
        """Reasons why the numbers must not be used; empty for a valid run."""
        reasons = []
        before, after = self.before, self.after
        if before["throttled"] is not None and after["throttled"] is not None:
            old, new = int(before["throttled"], 16), int(after["throttled"], 16)
            # Bits 16-19 stay set since boot: only those that appeared during the run count.
            bits = self._low_bits | (old & 0xF) | ((new & ~old) >> 16 & 0xF)
            said = [name for i, name in enumerate(_BITS) if bits >> i & 1]
            if said:
                reasons.append(f"throttled: {', '.join(said)} (the firmware says {after['throttled']})")
        if after["events"] > before["events"]:
            reasons.append(f"throttled: {after['events'] - before['events']} thermal or over-current events")
        if max(self._cooling, before["cooling"]) > 0:
            reasons.append("throttled: a cooling device held the processor back")
        pages = (after["swapped_pages"] or 0) - (before["swapped_pages"] or 0)
        if pages > 0:
            reasons.append(f"the machine swapped {pages} pages")
        return reasons

    def noise(self, worker_cpu: float) -> Json:
        """Work of others meanwhile, in cores: in all, on the measured cores, and taken by a hypervisor."""
        busy, wall = self.machine.busy_seconds(), max(1e-9, time.monotonic() - self._start)
        if TOTAL not in busy:
            return {"other_cores": None, "measured_cores": None, "steal": None}
        grown = {key: value - self._busy.get(key, 0.0) for key, value in busy.items()}
        ours = worker_cpu + own_cpu() - self._own
        here = sum(grown.get(core, 0.0) for core in self.cores) - worker_cpu
        values = {"other_cores": grown[TOTAL] - ours, "measured_cores": here, "steal": grown[STEAL]}
        return {key: round(max(0.0, value) / wall, 3) for key, value in values.items()}

    def notices(self, noise: Json) -> list[str]:
        """What a reader of the numbers should know although they are valid."""
        said = []
        other, here, steal = (noise[key] or 0.0 for key in ("other_cores", "measured_cores", "steal"))
        if other > BUSY:
            where = f", {here:.2f} of them on the measured cores" if here > 0.02 else ""
            said.append(f"{HOST_BUSY}: other processes used {other:.2f} cores during the run{where}")
        if steal > STOLEN:
            said.append(f"the hypervisor took {steal:.2f} cores away during the run")
        if self.after["governor"] in ("powersave", "conservative"):
            said.append(f"the governor is {self.after['governor']}: the clock may stay low")
        old, new = self.before["clock_mhz"], self.after["clock_mhz"]
        if self.after["governor"] and old and new and new < 0.9 * old:
            said.append(f"the clock fell from {old:.0f} to {new:.0f} MHz during the run")
        return said


def _is_alive(pid: Optional[str]) -> bool:
    """Whether that process is there; nobody is known to have ended where none is named."""
    if pid is None:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):  # another user's, or no process's name
        pass
    return True


def own_cpu() -> float:
    """CPU seconds of this process alone (its children that have ended are workers, counted by themselves)."""
    times = os.times()
    return times.user + times.system
