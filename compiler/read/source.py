"""The first step of a run: from a recipe to the model that it names."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.read.asked import asked
from edgec.compiler.read.brought import Brought
from edgec.compiler.read.recipe import Recipe, check_model
from edgec.compiler.read.told import told_of, with_told
from edgec.graph.files import identity, is_factory
from edgec.graph.foreign import Loading, begin
from edgec.graph.load import check_file
from edgec.graph.read.told import Told
from edgec.passes.base import Pass

if TYPE_CHECKING:
    from edgec.targets import Target


@dataclass(frozen=True)
class Source:
    """A recipe, what it asks for, and its model, read."""

    recipe: Recipe
    """With what the model tells of its preprocessing, where nobody else says it."""
    passes: tuple[Pass, ...]
    target: Target
    model: ir.Model
    sha256: str
    bytes: int
    told: Told = field(default_factory=Told)
    """What the model says of itself."""
    remarks: tuple[str, ...] = ()
    """What was made of it, for the user."""
    targets: Any = None
    """What a Python program brought beside its evaluation data."""


def read(brought: Brought, loading: Loading) -> Source:
    """Check what the recipe asks for, then read its model; where its loading was begun already, it is closed here.

    Raises UsageError for what cannot be asked, ModelError for a model that is not the recipe's, or cannot be read.
    """
    recipe, pending = brought.recipe, brought.pending
    with ExitStack() as stack:
        if pending is not None:
            stack.enter_context(pending)
        found = asked(recipe)
        named = recipe.model
        if pending is None:
            begun = begin(named.path, loading, weights=named.weights, input_shape=named.input_shape)
            pending = stack.enter_context(begun)
        if not is_factory(named.path):
            check_file(Path(named.path))  # before all of it is read for its hash
        sha256, size = identity(named.path, named.weights)
        check_model(recipe, sha256)
        model = pending.model()
    told = told_of(recipe, model)
    recipe, remarks = with_told(found.recipe, told)
    return Source(recipe, found.passes, found.target, model, sha256, size, told, remarks, brought.targets)
