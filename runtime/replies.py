"""What a device may answer. Its words are data: the sizes bounded, the types checked, the texts made visible.

The agent is ours, and yet what arrives was written by another machine, through an engine that a foreign model fed. `parse` takes
nothing on trust: a reply that is not as described here is a DeviceError that names the field and what stood there.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgec.graph.errors import DeviceError
from edgec.graph.text import shortened, visible


def words(text: str, *, most: int = 1000) -> str:
    """Foreign words for people: at most ``most`` characters of them, all visible.

    ``most`` has a name since pydantic before 2.8 hands a second positional parameter its own facts about the field.
    """
    return visible(shortened(text, most))


REPLY_MOST = 8 * 2**20
"""Bytes of one answer. A sustained run of a day takes 3 MB."""
VALUES_MOST = 400_000
"""Values in one answer: each that is wrong costs the checker a kilobyte."""
ERRORS_MOST = 65536
"""Bytes of a job's stderr that are looked at: the last ones."""

Text = Annotated[str, AfterValidator(words)]
"""Words for people: shortened, and without what a terminal would obey."""
Name = Annotated[str, StringConstraints(max_length=4096)]
"""A name of the model's or of a file: used as it is, escaped where it is shown."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Amount = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e15)]
Time = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e9)]
"""Milliseconds of an inference: never 0, so that ratios exist."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Bits = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{1,16}$")]
Dtype = Annotated[
    str, StringConstraints(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128))$")
]
Shape = Annotated[tuple[Count, ...], Field(max_length=64)]
Tensors = Annotated[tuple[tuple[Name, Shape, Dtype], ...], Field(max_length=4096)]
Rails = Annotated[dict[Text, Number], Field(max_length=64)]
"""Watts by the name of the sensor."""
Texts = Annotated[tuple[Text, ...], Field(max_length=256)]


class Part(BaseModel):
    """Base of all parts: immutable and strict about types. Keys that it does not know are left out."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, strict=True, extra="ignore", protected_namespaces=()
    )


class Failure(Part):
    """The agent's own word that it could not."""

    error: Text
    kind: Literal["model", "data", "usage", "engine", "accelerator", "worker"]


class State(Part):
    """One reading of the machine: MHz, degrees Celsius, MB, watts per rail."""

    clock_mhz: Amount | None
    gpu_mhz: Amount | None = None
    governor: Text | None
    temperature_c: Number | None
    throttled: Bits | None
    swapped_pages: Count | None
    available_mb: Amount | None
    loadavg: Annotated[tuple[Amount, ...], Field(max_length=3)] | None
    power_w: Rails | None
    cooling: Count
    events: Count


class Window(Part):
    """One window of a sustained run, ``t`` seconds after its start."""

    t: Amount
    median_ms: Time
    p90_ms: Time
    runs: Count
    clock_mhz: Amount | None
    temperature_c: Number | None
    throttled: Bits | None
    power_w: Rails | None


class Noise(Part):
    """Work of others meanwhile, in cores."""

    other_cores: Amount | None
    measured_cores: Amount | None
    steal: Amount | None


class Record(Part):
    """One artifact's run: see `edgec.runtime.measurement.Measurement`."""

    bytes: Count
    sha256: Sha256
    engine: Text
    engine_version: Text
    delegate: Text
    threads: Annotated[int, Field(ge=1, le=2**20)]
    cores: Annotated[tuple[Count, ...], Field(max_length=2**16)]
    runs: Annotated[int, Field(ge=1, le=2**53)]
    seconds: Amount
    min_ms: Time
    p10_ms: Time
    median_ms: Time
    p90_ms: Time
    p99_ms: Time
    mean_ms: Time
    import_ms: Amount | None
    load_ms: Amount | None
    first_ms: Amount | None
    warmup_runs: Count | None
    warmup_seconds: Amount
    settled: bool
    engine_rss_mb: Amount | None
    peak_rss_mb: Amount
    hard_faults: Count
    valid: bool
    invalid: Texts
    notices: Texts
    emulated: bool
    noise: Noise
    before: State
    after: State
    inputs: Tensors
    power_w: Rails | None = None
    sustained: Annotated[tuple[Window, ...], Field(max_length=100_000)] | None = None
    samples_ms: Annotated[tuple[Amount, ...], Field(max_length=VALUES_MOST)] | None = None


class Ratio(Part):
    """Time of one side over that of the first."""

    ratio: Time
    p10: Time
    p90: Time
    rounds: Count


class Bench(Part):
    """Answer of ``bench``."""

    artifacts: Annotated[tuple[Record, ...], Field(max_length=1024)]
    ratios: Annotated[tuple[Ratio, ...], Field(max_length=1024)]


class Layer(Part):
    """Time of one layer, and its share of the sum. ``nodes``: of the model, as far as the engine says which are in it."""

    name: Text
    op: Text
    us: Amount
    share: Annotated[float, Field(ge=0, le=1)]
    nodes: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()


class Profile(Part):
    """Answer of ``profile``."""

    layers: Annotated[tuple[Layer, ...], Field(max_length=100_000)]


class Outputs(Part):
    """Answer of ``outputs``: what computed them, and (scale, zero point) of tensors that are integer codes."""

    engine: Text
    engine_version: Text
    delegate: Text
    inputs: Tensors
    outputs: Tensors
    quantised: Annotated[dict[Name, tuple[Number, int]], Field(max_length=4096)]
    notices: Texts
    rows: Annotated[dict[Name, Annotated[list[int], Field(max_length=1 << 20)]], Field(max_length=4096)] = {}
    """How many each sample has of an output whose number the data decides."""


class Engine(Part):
    """A TensorRT engine of one artifact on the board, or why there is none. ``seconds``: of its build."""

    artifact: Name
    engine: Text | None
    kind: Text | None
    seconds: Amount | None
    kept: bool
    why: Text | None


class Build(Part):
    """Answer of ``build``."""

    engines: Annotated[tuple[Engine, ...], Field(max_length=1024)]


class Cluster(Part):
    """Cores of one kind."""

    core: Text
    count: Annotated[int, Field(ge=1, le=2**16)]
    clock_mhz: Count | None


class EngineCheck(Part):
    """Whether an engine runs a model there, and if not, why."""

    works: bool
    version: Text = ""
    why: Text = ""


class Info(Part):
    """Answer of ``info``: what the device is (see :mod:`edgec.runtime.agent.probe`)."""

    board: Text | None
    arch: Text
    os: Text
    glibc: Text | None
    python: Annotated[str, StringConstraints(pattern=r"^\d{1,3}\.\d{1,3}[\w.+-]{0,32}$")]
    clusters: Annotated[tuple[Cluster, ...], Field(max_length=64)]
    isa: Annotated[tuple[Text, ...], Field(max_length=1024)]
    memory_mb: Count | None
    engines: Annotated[dict[Text, EngineCheck], Field(max_length=64)]
    tensorrt: Text | None = None
    """Its version, where the board has it."""
    emulated: bool
    state: State


class Tested(Part):
    """What the self-test found for one artifact."""

    artifact: Name
    precision: Text
    passed: bool
    skipped: bool
    result: Text
    accelerated: bool = False
    """Of a TensorRT engine on the GPU."""
    engine: Text | None = None
    delegate: Text | None = None
    bit_equal: bool | None = None
    worst: Amount | None = None
    samples: Count | None = None


class TestedPicture(Part):
    """Whether a PNG becomes the same input there as at compile time."""

    passed: bool
    skipped: bool
    result: Text


class SelfTest(Part):
    """What ``selftest.py --json`` prints."""

    artifacts: Annotated[tuple[Tested, ...], Field(max_length=1024)]
    picture: TestedPicture | None = None
    """None where the network takes no picture."""

    @property
    def passed(self) -> bool:
        """Whether every artifact that can run there agrees, one does, and a picture becomes the same input."""
        same_input = self.picture is None or self.picture.passed
        agree = all(one.passed for one in self.artifacts) and not all(one.skipped for one in self.artifacts)
        return agree and same_input


class _Head(Part):
    error: Any = None


Answer = TypeVar("Answer", bound=Part)


def parse(kind: type[Answer], line: str, device: str) -> Answer | Failure:
    """The answer in one line of JSON, or the failure that stands in its place. Raises DeviceError for anything else."""
    if len(line) > REPLY_MOST or line.count(",") > VALUES_MOST:
        raise not_understood(
            f"it is longer than {REPLY_MOST >> 20} MB or has over {VALUES_MOST} values", device
        )
    try:
        if _Head.model_validate_json(line).error is not None:
            return Failure.model_validate_json(line)
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise not_understood(_first(error), device) from None


def not_understood(why: str, device: str) -> DeviceError:
    """The error for an answer that is not what was asked for."""
    hint = "Is its disk or memory damaged, or does another program print there? Remove ~/.cache/edgec on it and try again."
    return DeviceError(
        "the device's answer is not understood",
        where=device,
        why=why,
        hint=None if device == "local" else hint,
    )


def said(data: bytes) -> str:
    """What a foreign program printed, its last part, with every line made visible."""
    lines = data[-ERRORS_MOST:].decode("utf-8", "replace").splitlines()
    return "\n".join(map(words, lines))


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return words(problem["msg"], most=200)
    field = words(".".join(str(step) for step in problem["loc"]), most=200)
    if problem["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {problem['msg'].replace('Input should', 'it should')}, not {_shown(problem['input'])}"


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple, dict)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return words(repr(value) if isinstance(value, str) else str(value), most=60)
