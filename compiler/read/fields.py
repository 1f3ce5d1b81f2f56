"""The fields of a recipe, each with what it admits; read by the same readers as pass options and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator

from edgec.compiler.tasks.names import Name
from edgec.graph import preprocess, values
from edgec.graph.errors import UsageError
from edgec.graph.values import NotAdmitted, Range, several
from edgec.passes.options import AUTO, KEEP
from edgec.targets.engines import Precision
from edgec.targets.jetpack import jetpack

T = TypeVar("T")

LONGEST_NAME = 255
"""Bytes of a file's name, on every file system that edgec meets."""


def usage_as_value(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """``read``, whose UsageErrors become the ValueErrors that pydantic collects with their place."""

    def reading(raw: Any) -> T:
        try:
            return read(raw)
        except UsageError as error:
            raise ValueError(values.one_line(error)) from None

    return reading


def _words(kind: Any) -> BeforeValidator:
    return BeforeValidator(partial(values.word, words=get_args(kind)))


def _whole(within: Range) -> BeforeValidator:
    return BeforeValidator(partial(values.whole, within=within))


def read_path(raw: Any) -> str:
    """A path that a file system can be asked for."""
    if isinstance(raw, os.PathLike):
        raw = os.fspath(raw)
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise NotAdmitted(raw, "a path")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(raw).parts):
        raise NotAdmitted(raw, f"a path: names have {LONGEST_NAME} bytes at most")
    return raw


def read_metric(raw: Any) -> str:
    """A metric's name, or the function that computes one, as text."""
    found = values.text(raw).strip()
    name, colon, function = found.rpartition(":")
    if not found or "\0" in found or (colon and not (name and function.isidentifier())):
        raise NotAdmitted(raw, "a metric's name, or file.py:function")
    if found.endswith(".py"):
        raise NotAdmitted(raw, "file.py:function, with the name of the function in it")
    return found


def is_code(metric: str) -> bool:
    """Whether ``metric`` names a function of the user's own rather than a metric that is known by name."""
    return ":" in metric


def read_jetpack(raw: Any) -> str:
    """The name of a JetPack release that edgec knows."""
    found = values.text(raw).strip()
    try:
        return jetpack(found).name
    except UsageError as error:
        raise NotAdmitted(raw, "a JetPack release that edgec knows", error.hint or "") from None


def _listed(raw: Any) -> Any:
    return several(raw, lambda one: one) if isinstance(raw, str) else raw


Format = Literal["onnx", "tflite"]
IoLayout = Literal["nchw", "nhwc"]
IoType = Literal["float", "int8", "uint8"]
FORMATS: tuple[Format, ...] = get_args(Format)

PathField = Annotated[str, BeforeValidator(read_path)]
TaskField = Annotated[Name, _words(Name)]
MetricField = Annotated[str, BeforeValidator(read_metric)]
ShapeField = Annotated[tuple[int, ...] | dict[str, tuple[int, ...]], BeforeValidator(values.input_shape)]
SwitchField = Annotated[bool, BeforeValidator(values.switch)]
CountField = Annotated[int, _whole(values.COUNT)]
SeedField = Annotated[int, _whole(values.SEED)]
ThreadsField = Annotated[int, _whole(values.THREADS)]
OffsetField = Annotated[int, _whole(values.OFFSET)]
BatchField = Annotated[int, _whole(values.BATCH)]
ShareField = Annotated[float, BeforeValidator(values.share)]
MillisecondsField = Annotated[
    float, BeforeValidator(partial(values.number, within=Range(0, 1e9, above=True)))
]
PrecisionField = Annotated[Precision, _words(Precision)]
FormatsField = Annotated[tuple[Annotated[Format, _words(Format)], ...], BeforeValidator(_listed)]
JetpackField = Annotated[str, BeforeValidator(read_jetpack)]
IoLayoutField = Annotated[IoLayout, _words(IoLayout)]
IoTypeField = Annotated[IoType, _words(IoType)]


def read_resolution(raw: Any) -> str:
    """``keep``, ``auto``, or a size: 160 (the shorter side), 160x192."""
    text = raw.strip().lower() if isinstance(raw, str) else raw
    if text in (KEEP, AUTO):
        return str(text)
    try:
        return "x".join(map(str, values.sizes(text)))
    except NotAdmitted as error:
        raise NotAdmitted(raw, f"keep, auto, or {error.admitted}") from None


def read_time(raw: Any) -> str:
    """How long learning may take, as it is written: ``5m``; a number alone is seconds."""
    values.seconds(raw, values.TIME)
    return raw.strip() if isinstance(raw, str) else f"{raw}s"


def read_learn(raw: Any) -> str:
    """``off``, ``on`` or ``auto``; every spelling of true and false is read as one of the first two."""
    if isinstance(raw, bool) or (isinstance(raw, str) and raw.strip().lower() != "auto"):
        try:
            return "on" if values.switch(raw) else "off"
        except NotAdmitted as error:
            raise NotAdmitted(raw, "one of off, on, auto", error.hint) from None
    return values.word(raw, get_args(Learn))


Learn = Literal["off", "on", "auto"]
LearnField = Annotated[Learn, BeforeValidator(read_learn)]
TimeField = Annotated[str, BeforeValidator(read_time)]
ResolutionField = Annotated[str, BeforeValidator(read_resolution)]
NumbersField = tuple[float, ...]
MeanField = Annotated[NumbersField, BeforeValidator(preprocess.READERS["mean"])]
StdField = Annotated[NumbersField, BeforeValidator(preprocess.READERS["std"])]
ScaleField = Annotated[float, BeforeValidator(preprocess.READERS["scale"])]
LayoutField = Annotated[preprocess.Layout, BeforeValidator(preprocess.READERS["layout"])]
ResizeField = Annotated[tuple[int, ...], BeforeValidator(preprocess.READERS["resize"])]
CropField = Annotated[tuple[int, int], BeforeValidator(preprocess.READERS["crop"])]
ChannelsField = Annotated[preprocess.Channels, BeforeValidator(preprocess.READERS["channels"])]
PlaceField = Annotated[preprocess.Place, BeforeValidator(preprocess.READERS["letterbox_at"])]
GreyField = Annotated[int, BeforeValidator(preprocess.READERS["letterbox"])]


_KINDS = {
    "tuple_type": "a list",
    "string_type": "text",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "invalid_key": "text, as every key must be",
}


def text_as_list(raw: Any) -> Any:
    """One pipeline string stands for a list of it."""
    return (raw,) if isinstance(raw, str) else raw


def as_usage(problem: Any, known: Callable[[list[str]], list[str]]) -> tuple[str, str | None]:
    """(what, hint) of one of pydantic's errors: the key, what stood there, and what is admitted."""
    from edgec.graph.errors import did_you_mean

    keys = key_path(problem)
    dotted = ".".join(map(str, keys))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}", did_you_mean(
            str(keys[-1]), known([str(part) for part in keys[:-1]])
        )
    message = problem["msg"].removeprefix("Value error, ")
    given = values.shown(problem["input"])
    if problem["type"] == "missing":
        return f"{dotted} is missing", None
    if problem["type"] in _KINDS:
        message = f"{given} is not {_KINDS[problem['type']]}"
    elif problem["type"] != "value_error":  # pydantic's own words do not say what stood there
        message = f"{message}, not {given}"
    return (f"{dotted}: {message}" if dotted else message), None


def key_path(problem: Any) -> list[Any]:
    """Where in the recipe, without the names that pydantic gives to the branches of a union."""
    return [part for part in problem["loc"] if not (isinstance(part, str) and part in ("str", "PassSpec"))]
