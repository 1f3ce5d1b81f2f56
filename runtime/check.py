"""How a live device differs from a target's description (`edgec targets check NAME --device ssh://...`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgec.targets.engines import agent_name

if TYPE_CHECKING:
    from edgec.runtime.replies import Info
    from edgec.targets import System, Target

_CLOCK_TOLERANCE = 0.05
_MEMORY_TOLERANCE = 0.15  # firmware and GPU keep some of what is sold


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the target says. ``serious``: artifacts or numbers for the target do not fit it."""

    what: str
    target: str
    device: str
    serious: bool = False
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """The device's system among those that the target knows (None: none fits), and all differences."""

    system: str | None
    differences: tuple[Difference, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing serious differs."""
        return not any(difference.serious for difference in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"fits": self.fits, **asdict(self)}


def check_target(info: Info, target: Target) -> Check:
    """Compare ``info`` (:func:`edgec.runtime.bench.device_info`) with ``target``."""
    system = matching_system(info, target)
    found = (*_hardware(info, target), *_software(info, target, system), *_condition(info, target))
    return Check(system.name if system else None, found)


def matching_system(info: Info, target: Target) -> System | None:
    """The operating system image of the target that has the device's architecture, Python, and C library."""
    python = ".".join(info.python.split(".")[:2])
    fitting = [s for s in target.systems if s.arch == info.arch and s.python == python]
    same_libc = [s for s in fitting if s.glibc in (None, info.glibc)]
    return next(iter(same_libc or fitting), None)


def _hardware(info: Info, target: Target) -> Iterator[Difference]:
    if info.arch != target.arch:
        advice = "Install the 64-bit system image." if info.arch == "armv7l" else "Choose another target."
        yield Difference("architecture", target.arch, info.arch, True, advice)
    board = info.board or "unknown"
    if target.device_tree and not any(board.startswith(model) for model in target.device_tree):
        yield Difference("board", " or ".join(target.device_tree), board)
    clusters = info.clusters
    kinds = " + ".join(f"{c.count} x {c.core}" for c in clusters)
    expected = " + ".join(f"{g.count} x {g.core}" for g in target.core_groups)
    if clusters and kinds != expected:
        yield Difference(
            "cores", expected, kinds, advice="Latencies scale with neither; measure on this board."
        )
    clock = clusters[0].clock_mhz if clusters else None
    if clock and target.clock_mhz and abs(clock / target.clock_mhz - 1) > _CLOCK_TOLERANCE:
        yield Difference("clock", f"{target.clock_mhz} MHz", f"{clock} MHz")
    missing = [feature for feature in target.isa if feature not in info.isa]
    if missing and info.isa:
        advice = "Engines pick other kernels here: estimates for the target do not hold."
        yield Difference("instruction set", ", ".join(missing), "not there", True, advice)
    memory = info.memory_mb
    if memory and target.memory_mb and memory < target.memory_mb * (1 - _MEMORY_TOLERANCE):
        yield Difference("memory", f"{target.memory_mb} MB", f"{memory} MB", True)


def _software(info: Info, target: Target, system: System | None) -> Iterator[Difference]:
    here = f"{info.os}, Python {info.python}, glibc {info.glibc}, {info.arch}"
    if system is None:
        known = ", ".join(s.name for s in target.systems)
        if known and target.name != "host":
            yield Difference("system", known, here, advice="Wheels may be missing; see the engines below.")
    else:
        for trap in system.traps:
            yield Difference("trap", system.name, trap)
    if system and (wanted := system.runtime("tensorrt")) and info.tensorrt != wanted.version:
        yield Difference("tensorrt", wanted.version, info.tensorrt or "none", advice=_tensorrt_advice(info))
    engines = info.engines
    if not any(engine.works for engine in engines.values()):
        why = "; ".join(f"{name}: {engine.why}" for name, engine in engines.items())
        yield Difference("engines", "one that works", "none", True, f"edgec deploy installs one. {why}")
    for runtime in system.runtimes if system else ():
        engine = engines.get(agent_name(runtime.engine) or "")
        if engine and engine.works and engine.version != runtime.version:
            yield Difference(runtime.engine, runtime.version, engine.version, advice=runtime.trap)


def _tensorrt_advice(info: Info) -> str:
    if info.tensorrt is None:
        return "Nothing runs on the GPU without it: sudo apt install tensorrt"
    return "Engines are built for the version that is there."


def _condition(info: Info, target: Target) -> Iterator[Difference]:
    state = info.state
    bits = int(state.throttled, 16) if state.throttled else 0
    if bits & 0xF:
        advice = "Check power supply and cooling; runs will be INVALID."
        yield Difference("throttling", "none", f"now ({state.throttled})", True, advice)
    elif bits:
        yield Difference(
            "throttling", "none", f"since boot ({state.throttled})", advice="Check the power supply."
        )
    governor, heat, soft = state.governor, state.temperature_c, target.throttle.soft_c
    if governor in ("powersave", "conservative"):
        yield Difference("governor", "ondemand or performance", governor, advice="The clock may stay low.")
    if heat is not None and soft is not None and heat > soft - 10:
        yield Difference("temperature", f"below {soft:.0f} C", f"{heat:.0f} C", advice="Let it cool first.")
    if info.emulated:
        yield Difference("hardware", "a real board", "emulated", advice="Its times are not latencies.")
