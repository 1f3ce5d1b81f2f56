"""What a target file may say: typed, closed (unknown keys are errors), and with a source for every number.

A target is a class of device ("a Raspberry Pi 4"), not one board: what a board in hand really has is read by
``edgec targets check`` and compared with this description (:mod:`edgec.targets.check`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgec.graph.errors import UsageError
from edgec.targets.engines import Precision
from edgec.targets.jetpack import JETPACKS

Arch = Literal["aarch64", "armv7l", "x86_64"]
Engine = Literal["onnxruntime", "ai-edge-litert", "tflite-runtime", "tensorrt"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
Words = Annotated[str, Field(max_length=2000)]
Version = Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+!_-]*$", max_length=64)]
"""It becomes a word of a command line on the device."""
Cores = Annotated[int, Field(ge=1, le=1024, strict=True)]
Megahertz = Annotated[int, Field(ge=1, le=20_000, strict=True)]
Celsius = Annotated[float, Field(ge=-60, le=200, allow_inf_nan=False)]


class _Closed(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class CoreGroup(_Closed):
    """Cores of one kind; a big.LITTLE chip has several groups, fastest first."""

    core: Words
    count: Cores
    clock_mhz: Megahertz | None = None


class PrecisionSupport(_Closed):
    """Whether a numeric type runs, whether it is faster than fp32, and the sentence that says why."""

    supported: bool
    pays: bool = False
    why: Words

    @model_validator(mode="after")
    def _only_what_runs_pays(self) -> PrecisionSupport:
        if self.pays and not self.supported:
            raise ValueError("a precision that is not supported cannot pay")
        return self


class Precisions(_Closed):
    """Support per precision on the CPU (or on the accelerator that this belongs to)."""

    fp32: PrecisionSupport
    fp16: PrecisionSupport
    int8: PrecisionSupport

    def of(self, precision: Precision) -> PrecisionSupport:
        """The entry of ``precision``."""
        support: PrecisionSupport = getattr(self, precision)
        return support


class Accelerator(_Closed):
    """A GPU or NPU that a runtime can use instead of the CPU."""

    name: Words
    api: Literal["cuda", "vulkan", "rknn"]
    runtimes: tuple[Engine, ...] = ()
    precisions: Precisions
    note: Words = ""


class Runtime(_Closed):
    """An inference engine as it can be installed on one system: the newest version that really loads."""

    engine: Engine
    version: Version
    install: Literal["pip", "preinstalled"] = "pip"
    trap: Words = ""


class System(_Closed):
    """An operating system image: what pip may install there, and what it may not."""

    name: Name
    title: Words
    arch: Arch
    python: Annotated[str, Field(pattern=r"^3\.[0-9]{1,3}$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]{1,3}$")] | None
    runtimes: tuple[Runtime, ...] = ()
    traps: tuple[Words, ...] = ()
    source: Words

    def runtime(self, engine: str) -> Runtime | None:
        """The entry of ``engine``, or None where it cannot be installed on this system."""
        return next((r for r in self.runtimes if r.engine == engine), None)


class Throttle(_Closed):
    """When the device slows down, and where that can be read."""

    soft_c: Celsius | None = None
    hard_c: Celsius | None = None
    readings: tuple[Literal["vcgencmd", "thermal-zones", "cpufreq", "tegrastats", "nvpmodel"], ...]
    rules: tuple[Words, ...] = ()


class Target(_Closed):
    """A class of devices: what compiling, estimating, measuring, and deploying need to know of it."""

    name: Name
    title: Words
    arch: Arch
    soc: Words
    core_groups: Annotated[tuple[CoreGroup, ...], Field(min_length=1)]
    isa: tuple[Words, ...]
    memory_mb: Annotated[int, Field(ge=1, le=1 << 24, strict=True)] | None
    dialect: Literal["ort-x86", "ort-arm", "tensorrt"]
    jetpack: Annotated[str, Field(max_length=16)] | None = None
    """Of the boards that TensorRT runs on: the release that files are made for, unless another is asked for (`on`)."""
    jetpacks: tuple[Annotated[str, Field(max_length=16)], ...] = ()
    """Every release that runs on the board."""
    channel_multiple: Annotated[int, Field(ge=1, le=1024, strict=True)]
    threads: Cores
    precisions: Precisions
    accelerators: tuple[Accelerator, ...] = ()
    systems: tuple[System, ...] = ()
    throttle: Throttle
    default_engine: Engine = "onnxruntime"
    device_tree: tuple[Words, ...] = ()
    estimates_from: str | None = None
    notes: tuple[Words, ...] = ()
    sources: dict[str, Words]

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        if self.threads > self.cores:
            raise ValueError(f"threads is {self.threads}, but there are {self.cores} cores")
        known = set(type(self).model_fields) | {"clock_mhz", "cores"}
        if stray := sorted(set(self.sources) - known):
            raise ValueError(f"sources names {', '.join(stray)}, which is not a field")
        if self.jetpack is not None and self.jetpack not in self.jetpacks:
            raise ValueError(f"jetpack is {self.jetpack}, which is not among jetpacks")
        if unknown := [name for name in self.jetpacks if name not in JETPACKS]:
            raise ValueError(f"jetpacks: {unknown[0]} is none of {', '.join(JETPACKS)}")
        if self.dialect == "tensorrt" and self.jetpack is None:
            raise ValueError("the dialect tensorrt needs a jetpack: its rules depend on the release")
        numbers = {
            "jetpacks": bool(self.jetpacks),
            "cores": True,
            "clock_mhz": self.clock_mhz is not None,
            "memory_mb": self.memory_mb is not None,
            "channel_multiple": True,
            "threads": True,
            "dialect": True,
            "isa": True,
            "throttle": self.throttle.soft_c is not None or self.throttle.hard_c is not None,
        }
        if missing := sorted(k for k, stated in numbers.items() if stated and k not in self.sources):
            raise ValueError(
                f"sources lacks {', '.join(missing)}: every number needs one line that says where it is from"
            )
        return self

    @property
    def cores(self) -> int:
        """Number of CPU cores, of all kinds together."""
        return sum(group.count for group in self.core_groups)

    @property
    def clock_mhz(self) -> int | None:
        """Highest clock of the fastest cores in MHz; None when unknown."""
        return self.core_groups[0].clock_mhz

    @property
    def dot_product(self) -> bool:
        """Whether the CPU multiplies int8 in groups of four (Arm dotprod, x86 VNNI)."""
        return bool({"asimddp", "avx512_vnni", "avx_vnni"} & set(self.isa))

    def on(self, release: str | None) -> Target:
        """The same with another JetPack; None leaves it. Raises UsageError for one that it does not run."""
        if release is None or release == self.jetpack:
            return self
        if release not in self.jetpacks:
            runs = (
                f"{self.title} runs {', '.join(self.jetpacks)}"
                if self.jetpacks
                else f"{self.title} is no Jetson"
            )
            raise UsageError(f"no JetPack {release} here", where="--jetpack", why=runs)
        return self.model_copy(update={"jetpack": release})

    def system(self, name: str) -> System | None:
        """The system called ``name``, or None when this target does not run it."""
        return next((s for s in self.systems if s.name == name), None)
