"""The size of the picture that a run asks for: can the network take it, and does the data's preparation say how?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.compiler.read.recipe import ModelSource
from edgec.compiler.read.source import Source
from edgec.graph.equivalence import worst_difference
from edgec.graph.errors import EdgecError
from edgec.graph.execute import Executor
from edgec.graph.foreign import Loading, begin
from edgec.graph.inputs import InputSpec, noise
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.metadata import require_size
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import resized, size_of, why_not
from edgec.graph.sizes import has_open_size
from edgec.passes.base import Pass
from edgec.passes.resize_input import ResizeInput, shown, size_for

Size = tuple[int, int]
TOLERANCE = 1e-4
"""Of an output's range: what rounding may change where the model itself takes the size, too."""


def asked_size(passes: Sequence[Pass], model: ir.Model) -> Size | None:
    """The size that the passes make the network for; None where they keep it."""
    named = next((one for one in passes if isinstance(one, ResizeInput)), None)
    return None if named is None else size_for(named.size, size_of(model))


def check_open_size(source: Source, passes: Sequence[Pass]) -> None:
    """Raise OpenSizeError, with what asks for one size, where the network's picture has none of its own."""
    recipe = source.recipe
    asking = (
        (recipe.data is not None or recipe.eval is not None, "samples are"),
        ("tflite" in recipe.formats, "a TFLite file is"),
        (source.target.dialect == "tensorrt", "an engine of TensorRT is"),
        (source.selection is not None, "what selects boxes inside the network is read"),
        (
            recipe.resolution == "auto" or asked_size(passes, source.model) is not None,
            "--resolution starts from a network",
        ),
    )
    for asks, what in asking:
        if asks:
            require_size(source.model, what)


def check_size(
    passes: Sequence[Pass], model: ir.Model, source: ModelSource, preprocess: Preprocess, loading: Loading
) -> None:
    """Raise SizeError, naming the node, for a size that the network cannot take; UsageError where pictures cannot be prepared.

    A model whose height and width are open is read at that size as well: what was made of it must compute the same.
    """
    size = asked_size(passes, model)
    if size is None:
        return
    refusal = why_not(model, size)
    if refusal is not None:
        raise refusal
    preprocess.at(size_of(model), size)
    difference = difference_from_source(model, source, size, loading)
    if difference is not None and not difference <= TOLERANCE:
        why = f"the model, whose sizes are open, gives others there: they differ by {difference:.2g} of their range"
        raise SizeError(f"the network cannot be made for {shown(size)} px", where=source.path, why=why)


def difference_from_source(
    model: ir.Model, source: ModelSource, size: Size, loading: Loading
) -> float | None:
    """Of the outputs at ``size`` from those of the file read at that size; None where its height and width are fixed."""
    if not has_open_size(Path(source.path)):
        return None
    made = resized(model, size)
    try:
        with begin(source.path, loading, input_shape=_shapes(made)) as pending:
            other = pending.model()
    except EdgecError:
        return None  # only some of its axes are open
    rng = np.random.default_rng(0)
    feeds = {one.name: noise(rng, (1, *one.shape), one.dtype) for one in InputSpec.of(made)}
    ours, theirs = Executor(made).run(feeds), Executor(other).run(feeds)
    return max(worst_difference(*pair) for pair in zip(theirs.values(), ours.values(), strict=True))


def _shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {
        value.name or "": tuple(size if isinstance(size, int) else 1 for size in value.shape or ())
        for value in model.graph.inputs
    }
