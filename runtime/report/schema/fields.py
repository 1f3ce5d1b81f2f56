"""What the parts of a report are made of: kinds of figures, and the base of all parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue

IDENTICAL_DB = 200.0
"""What an SQNR of this height or more is stored as: the outputs are the same to the last float32 bit."""


def plain(value: Any) -> Any:
    """``value`` in JSON types: numpy, tuples, and paths are converted; what is not finite becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, str):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def _decibels(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else min(value, IDENTICAL_DB) if value > 0 else plain(value)
    return value


def _relative(path: Any) -> Any:
    if not isinstance(path, str):
        return path  # refused by its type
    if (
        not path
        or PurePosixPath(path).is_absolute()
        or PureWindowsPath(path).drive
        or ".." in PurePosixPath(path).parts
    ):
        raise ValueError(f"{path!r} is not a path inside the run folder")
    return path


Figure = Annotated[float | None, BeforeValidator(plain)]
Decibels = Annotated[float | None, BeforeValidator(_decibels)]
Options = Annotated[dict[str, JsonValue], BeforeValidator(plain)]
RunPath = Annotated[str, BeforeValidator(_relative)]


class Part(BaseModel):
    """Base of all parts: immutable, and strict about unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=()
    )
