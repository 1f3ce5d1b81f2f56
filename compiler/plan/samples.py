"""The samples that a recipe names, opened for its model, and what the model makes of a few of them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgec.compiler.read.source import Source
from edgec.graph.annotations.open import open_evaluation
from edgec.graph.data import Dataset, open_data
from edgec.graph.errors import ModelError
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess

OUTPUT_SAMPLES = 4
"""So many are looked at before the work begins."""


@dataclass(frozen=True)
class Samples:
    """Calibration and evaluation data, where the recipe names them."""

    data: Dataset | None
    evaluation: Dataset | None


def open_samples(source: Source, preprocess: Preprocess) -> Samples:
    """Open both. Raises DataError for what cannot be read, ModelError where outputs are not those of single samples."""
    recipe, model = source.recipe, source.model
    data = evaluation = None
    if recipe.data is not None:
        named = recipe.data
        data = open_data(
            named.path, model, preprocess, samples=named.samples, seed=recipe.seed, skip_bad=named.skip_bad
        )
    if recipe.eval is not None:
        evaluation = open_evaluation(
            recipe.eval.path,
            model,
            preprocess,
            labels=recipe.eval.labels,
            names=source.told.labels,
            seed=recipe.seed,
        )
    for known in (data, evaluation):
        if known is not None:
            check_outputs(model, known, recipe.threads)
    return Samples(data, evaluation)


def check_outputs(model: ir.Model, data: Dataset, threads: int) -> None:
    """Raise ModelError where outputs cannot be compared sample by sample: from a few samples, what each of them holds."""
    feeds = next(data.batches(OUTPUT_SAMPLES))
    count = len(next(iter(feeds.values())))
    for name, array in Executor(model, threads=threads).run(feeds).items():
        rows = 1 if array.ndim == 0 else len(array)
        if not array.size or rows % count:
            why = f"of {count} samples it has the shape {array.shape}"
            hint = "Export the network without what selects among its results (NonMaxSuppression, NonZero)."
            raise ModelError("every sample needs its values", where=f"output {name!r}", why=why, hint=hint)
