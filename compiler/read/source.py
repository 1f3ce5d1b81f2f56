"""The first step of a run: from a recipe to the model that it names."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.read.asked import asked
from edgec.compiler.read.brought import Brought
from edgec.compiler.read.recipe import Recipe
from edgec.compiler.read.selecting import beside_selection
from edgec.compiler.read.told import with_told
from edgec.graph.errors import ModelError
from edgec.graph.files import identity
from edgec.graph.foreign import Loading, begin
from edgec.graph.inputs import picture_size
from edgec.graph.load import check_file
from edgec.graph.read.metadata import source_metadata
from edgec.graph.read.told import Told, told_by
from edgec.graph.selection import Selection, parted
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
    selection: Selection | None = None
    """What selects among the answers of ``model``, which ends in front of it; None for most networks."""


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
        if named.file is not None:
            check_file(named.file)  # before all of it is read for its hash
        sha256, size = identity(named.path, named.weights)
        if named.sha256 not in (None, sha256):
            why = f"sha256 {sha256[:12]}..., the recipe was made for {str(named.sha256)[:12]}..."
            hint = "Bring the old file, or delete `sha256` from the recipe to accept the new one."
            raise ModelError("this is not the recipe's model", where=named.path, why=why, hint=hint)
        model = pending.model()
    network, selection = parted(model) or (model, None)
    told = told_by(source_metadata(network), named.file, picture_size(network))
    said = () if selection is None else beside_selection(found, network, selection)
    recipe, remarks = with_told(found.recipe, told)
    return Source(
        recipe=recipe,
        passes=found.passes,
        target=found.target,
        model=network,
        sha256=sha256,
        bytes=size,
        told=told,
        remarks=(*said, *remarks, *found.remarks),
        targets=brought.targets,
        selection=selection,
    )
