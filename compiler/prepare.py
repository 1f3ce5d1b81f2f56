"""Load and check everything that a recipe names, before anything is written."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

import edgec
from edgec.compiler.artifacts import NAMES
from edgec.compiler.defaults import resolve_passes
from edgec.compiler.recipe import PassSpec, Recipe, check_model
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.errors import UsageError
from edgec.graph.foreign import Loading, Pending, begin
from edgec.passes.base import Pass
from edgec.passes.pipeline_string import options_of, print_pass
from edgec.targets import target as find_target

if TYPE_CHECKING:
    from edgec.targets import Target


@dataclass(frozen=True)
class Prepared:
    """A recipe whose parts are all there: loaded, opened, resolved."""

    recipe: Recipe
    model: ir.Model
    source_bytes: int
    sha256: str
    data: Dataset | None
    evaluation: Dataset | None
    target: Target
    passes: tuple[Pass, ...]


def prepare(recipe: Recipe, loading: Loading, begun: Pending | None = None) -> Prepared:
    """Load and check everything that the recipe names, and resolve its passes; nothing is written.

    ``begun``: the model, where its loading was begun already; it is closed here.
    """
    passes = resolve_passes(recipe)
    target = find_target(recipe.target)
    check_precision(recipe, target)
    source = recipe.model
    with begun or begin(
        source.path, loading, weights=source.weights, input_shape=source.input_shape
    ) as pending:
        sha256, size = _source_identity(source.path, source.weights)
        check_model(recipe, sha256)
        model = pending.model()
    preprocess = recipe.preprocess.build()
    data = evaluation = None
    if recipe.data is not None:
        spec = recipe.data
        data = open_data(
            spec.path, model, preprocess, samples=spec.samples, seed=recipe.seed, skip_bad=spec.skip_bad
        )
    if recipe.eval is not None:
        evaluation = open_data(
            recipe.eval.path, model, preprocess, seed=recipe.seed, labels=recipe.eval.labels
        )
    resolved = _resolved(recipe, passes, sha256, data, evaluation)
    return Prepared(resolved, model, size, sha256, data, evaluation, target, passes)


def check_precision(recipe: Recipe, target: Target) -> None:
    """Raise UsageError where the target has no arithmetic for the recipe's precision."""
    support = target.precisions.of(recipe.precision)
    if not support.supported:
        raise UsageError(
            f"{target.title} does not run {recipe.precision}", where="--precision", why=support.why
        )


def _resolved(
    recipe: Recipe, passes: tuple[Pass, ...], sha256: str, data: Dataset | None, evaluation: Dataset | None
) -> Recipe:
    """The recipe with nothing left open: hashes, fingerprints, every pass with its options, versions."""
    update: dict[str, Any] = {
        "model": recipe.model.model_copy(update={"sha256": sha256}),
        "passes": tuple(PassSpec(name=one.name, options=options_of(one)) for one in passes),
        "edgec": edgec.__version__,
        "versions": versions(),
    }
    if recipe.data is not None and data is not None:
        update["data"] = recipe.data.model_copy(update={"fingerprint": data.fingerprint})
    if recipe.eval is not None and evaluation is not None:
        update["eval"] = recipe.eval.model_copy(update={"fingerprint": evaluation.fingerprint})
    return recipe.model_copy(update=update)


def _source_identity(path: str, weights: str | None) -> tuple[str, int]:
    """(sha256, bytes) of the model file; of the weights for a torch factory; of the name where there is no file."""
    file = Path(weights or path)
    if not file.is_file():
        return hashlib.sha256(path.encode()).hexdigest(), 0
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest(), file.stat().st_size


def versions() -> dict[str, str]:
    """Versions of what can change an artifact's bytes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in (
        "numpy",
        "scipy",
        "onnx",
        "onnx-ir",
        "onnxscript",
        "onnxruntime",
        "onnxsim",
        "flatbuffers",
        "torch",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def dry_run(recipe: Recipe, loading: Loading, begun: Pending | None = None) -> dict[str, Any]:
    """What a run would do: the resolved recipe and the source model's cost. Writes nothing."""
    ready = prepare(recipe, loading, begun)
    spent = cost(ready.model)
    return {
        "model": {
            "path": recipe.model.path,
            "macs": spent.macs,
            "params": spent.params,
            "sha256": ready.sha256,
        },
        "target": ready.target.name,
        "data": None if ready.data is None else {"name": ready.data.name, "samples": len(ready.data)},
        "passes": [print_pass(one) for one in ready.passes],
        "artifacts": _planned(ready.recipe),
        "recipe": json.loads(ready.recipe.model_dump_json(exclude_none=True)),
    }


def _planned(recipe: Recipe) -> list[str]:
    precisions = ["fp32"] + ([recipe.precision] if recipe.precision != "fp32" else [])
    return [NAMES[file_format, precision] for file_format in recipe.formats for precision in precisions]
