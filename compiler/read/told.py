"""What a model says of itself, in the recipe: settings that the user gave stand before those that the model tells."""

from __future__ import annotations

from edgec.compiler.read.recipe import Preprocessing, Recipe
from edgec.graph.errors import UsageError
from edgec.graph.read.told import Told
from edgec.graph.text import shortened, visible

_SHAPE = ("resize", "crop", "letterbox", "letterbox_at")
"""Settings that go together: who gives one of them means all."""


def with_told(recipe: Recipe, told: Told) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with what is told where it says nothing itself, and one line for the user."""
    if not told.by:
        return recipe, ()
    given = {key: getattr(recipe.preprocess, key) for key in recipe.preprocess.model_fields_set}
    said = dict(told.preprocess)
    if any(key in given for key in _SHAPE):
        said = {key: value for key, value in said.items() if key not in _SHAPE}
    new = {key: value for key, value in said.items() if key not in given}
    try:
        preprocess = Preprocessing(**{**new, **given})
    except (UsageError, ValueError) as error:
        why = visible(shortened(str(error).splitlines()[0], 120))
        return recipe, (f"{told.by} is left aside: {why}",)
    line = visible(str(told)) + (
        f"; your own settings stand: {', '.join(sorted(given))}" if given and told.preprocess else ""
    )
    return recipe.model_copy(update={"preprocess": preprocess}), (line,)
