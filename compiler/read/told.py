"""What a model says of itself, in the recipe: settings that the user gave stand before those that the model tells."""

from __future__ import annotations

import numpy as np

from edgec.compiler.read.recipe import Preprocessing, Recipe
from edgec.graph.errors import UsageError
from edgec.graph.read.told import Told
from edgec.graph.text import shortened, visible

_SHAPE = ("resize", "crop", "letterbox", "letterbox_at")
"""Settings that go together: who gives one of them means all."""
_NUMBERS = ("mean", "std", "scale")
"""Of ``(pixel * scale - mean) / std``: who gives another number than the model's has a formula of their own."""


def with_told(recipe: Recipe, told: Told) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with what is told where it says nothing itself, and one line for the user."""
    if not told.by:
        return recipe, ()
    given = {key: getattr(recipe.preprocess, key) for key in recipe.preprocess.model_fields_set}
    said = dict(told.preprocess)
    if any(key in given for key in _SHAPE):
        said = {key: value for key, value in said.items() if key not in _SHAPE}
    if any(key in given and not _same(given[key], said.get(key)) for key in _NUMBERS):
        said = {key: value for key, value in said.items() if key not in _NUMBERS}
    new = {key: value for key, value in said.items() if key not in given}
    try:
        preprocess = Preprocessing(**{**new, **given})
    except (UsageError, ValueError) as error:
        why = visible(shortened(str(error).splitlines()[0], 120))
        return recipe, (f"{told.by} is left aside: {why}",)
    line = visible(str(told))
    if given and told.preprocess:
        line += f"; your own settings stand: {', '.join(sorted(given))}"
    if aside := sorted(told.preprocess.keys() - new.keys() - given.keys()):
        line += f"; left aside beside them: {', '.join(aside)}"
    return recipe.model_copy(update={"preprocess": preprocess}), (line,)


def _same(mine: object, theirs: object) -> bool:
    """Whether two settings are the same numbers, as far as people write them out: 0.0039 is 1/255."""
    if mine is None or theirs is None:
        return mine is theirs
    one, other = (np.atleast_1d(np.asarray(each, np.float64)) for each in (mine, theirs))
    return (one.size == other.size or 1 in (one.size, other.size)) and bool(
        np.allclose(one, other, rtol=0.01)
    )
