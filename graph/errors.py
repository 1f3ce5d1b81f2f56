"""What can go wrong, in words a person can act on.

Every error that a user can cause is an :class:`EdgecError`. It says what happened, where (file, node, line), why, and
what to do; its class fixes the exit code of the command line (design section 7).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

from edgec.graph.text import shortened, visible

_LONGEST = 2000
"""Characters of one part of a message: a name in a file may have millions."""


class EdgecError(Exception):
    """Base of all errors of edgec: ``what`` happened, ``where``, ``why``, and a ``hint`` what to do."""

    exit_code: ClassVar[int] = 3

    def __init__(
        self, what: str, *, where: str | None = None, why: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        """The message in one line, and the hint in a second one; words from files are text in it, and bounded."""
        parts = (self.where, self.what, self.why)
        head = ": ".join(visible(shortened(part, _LONGEST)) for part in parts if part is not None)
        return head if self.hint is None else f"{head}\n{visible(shortened(self.hint, _LONGEST))}"


class UsageError(EdgecError):
    """The command, recipe, or option is wrong."""

    exit_code = 2


class WrongTypeError(UsageError, TypeError):
    """An argument of a Python call has a type that is not admitted there."""


class ModelError(EdgecError):
    """The model file is missing, damaged, or not a model."""


class UnsupportedError(ModelError):
    """The model is valid but holds something that edgec cannot take; ``where`` names the node."""


class DataError(EdgecError):
    """The calibration or evaluation data is missing, damaged, or does not fit the model."""


class PassError(EdgecError):
    """A pass could not do its work, or broke its contract; ``where`` names the pass and the node."""


class DeviceError(EdgecError):
    """The device cannot be reached, or the run on it failed."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a mistyped ``word``: the nearest known one first, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(
        word[:100], known, n=1, cutoff=0.5
    )  # a word from a file may have millions
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(known)}."


class RenamedOptionWarning(FutureWarning):
    """An option was given under the name that it had in an earlier release."""
