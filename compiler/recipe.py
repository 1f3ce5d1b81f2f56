"""The recipe: everything that decides what a run makes, as typed YAML.

``edgec compile`` writes the resolved recipe beside the artifacts; ``edgec compile --recipe`` runs it again. Unknown keys are
errors that name the file, the line and the key. Paths are relative to the recipe's folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgec.graph.errors import ModelError, UsageError, did_you_mean
from edgec.graph.preprocess import Preprocess
from edgec.graph.yaml_file import read_yaml
from edgec.passes.base import Pass
from edgec.passes.pipeline_string import make_pass, parse_pipeline

Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["onnx", "tflite"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSource(_Closed):
    """What to load. ``sha256`` is of the file (of the weights for a torch factory); a recipe with another file is refused."""

    path: str
    weights: str | None = None
    input_shape: tuple[int, ...] | None = None
    sha256: str | None = None


class DataSource(_Closed):
    """Unlabelled calibration inputs; ``random`` as path asks for noise."""

    path: str
    samples: int | None = Field(default=None, ge=1)
    skip_bad: bool = False
    fingerprint: str | None = None


class EvalSource(_Closed):
    """Inputs for scoring, with labels where there are some. ``label_offset`` is added to each label."""

    path: str
    labels: str | None = None
    label_offset: int = 0
    fingerprint: str | None = None


class Preprocessing(_Closed):
    """See `graph.preprocess.Preprocess`."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    resize: tuple[int, ...] | None = None
    crop: tuple[int, int] | None = None
    channels: Literal["rgb", "bgr", "gray"] = "rgb"
    letterbox: int | None = None

    def build(self) -> Preprocess:
        return Preprocess(**self.model_dump())


class Gates(_Closed):
    """Conditions on the result; a run that misses one ends with exit code 1 and keeps its artifacts."""

    max_drop: float | None = Field(default=None, ge=0, le=1)
    """Of top-1 against the teacher (of agreement, without labels), as a fraction."""


class Timing(_Closed):
    """What a latency budget on this machine was measured against, so that the recipe chooses the same widths again.

    ``source_ms``: the model that came in; ``artifact_ms``: the same network in the run's engine and precision, corrected by
    what the first choice of widths really took (then ``settled``). ``of`` names model, engine, precision, and processor; for
    others it does not count.
    """

    of: str
    source_ms: float = Field(gt=0)
    artifact_ms: float = Field(gt=0)
    settled: bool = False


class PassSpec(_Closed):
    """A pass as a mapping, for those who prefer it to the one-line form."""

    name: str
    options: dict[str, Any] = {}


class Recipe(_Closed):
    """One run."""

    model: ModelSource
    data: DataSource | None = None
    eval: EvalSource | None = None
    preprocess: Preprocessing = Preprocessing()
    target: str = "host"
    budget: str | None = None
    precision: Precision = "fp32"
    formats: tuple[Format, ...] = ("onnx",)
    passes: tuple[str | PassSpec, ...] | None = None
    """None: the default pipeline for the budget and the precision."""
    gates: Gates = Gates()
    seed: int = 0
    threads: int = Field(default=1, ge=1)
    io_layout: Literal["nchw", "nhwc"] = "nhwc"
    batch: int | None = Field(default=None, ge=1)
    split_unsupported: bool = False
    """Where TFLite cannot take a node: emit the part before it instead of stopping."""
    timing: Timing | None = None
    edgec: str | None = None
    versions: dict[str, str] = {}

    @field_validator("formats")
    @classmethod
    def _some_format(cls, value: tuple[Format, ...]) -> tuple[Format, ...]:
        if not value:
            raise ValueError("at least one of onnx, tflite")
        return tuple(dict.fromkeys(value))

    def build_passes(self) -> tuple[Pass, ...] | None:
        """The passes, or None where the default pipeline is wanted. Raises UsageError."""
        if self.passes is None:
            return None
        built: list[Pass] = []
        for item in self.passes:
            built.extend(
                parse_pipeline(item) if isinstance(item, str) else [make_pass(item.name, item.options)]
            )
        return tuple(built)

    def to_yaml(self) -> str:
        """The recipe's text."""
        values = self.model_dump(mode="json", exclude_none=True)
        return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; its relative paths become relative to the current folder. Raises UsageError with file, line and key."""
    path = Path(path)
    values, tree = read_yaml(path, "a recipe")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, path, tree) from None
    return _rebased(recipe, path.parent)


def relative_to(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its paths as seen from ``folder``."""
    return _with_paths(recipe, lambda text: os.path.relpath(text, folder))


def check_model(recipe: Recipe, sha256: str) -> None:
    """Raise ModelError when the recipe was made for another file."""
    if recipe.model.sha256 not in (None, sha256):
        why = f"sha256 {sha256[:12]}..., the recipe was made for {str(recipe.model.sha256)[:12]}..."
        hint = "Bring the old file, or delete `sha256` from the recipe to accept the new one."
        raise ModelError("this is not the recipe's model", where=recipe.model.path, why=why, hint=hint)


def _rebased(recipe: Recipe, folder: Path) -> Recipe:
    def move(text: str) -> str:
        return text if Path(text).is_absolute() else os.path.normpath(folder / text)

    return _with_paths(recipe, move)


def _with_paths(recipe: Recipe, move: Any) -> Recipe:
    def path(text: str | None) -> str | None:
        if text is None or text == "random":
            return text
        head, colon, function = text.rpartition(":")
        if colon and not os.path.exists(text):  # noqa: PTH110 - False for any text that can be no path
            return f"{move(head)}:{function}" if head.endswith(".py") else text
        return str(move(text))

    model = recipe.model.model_copy(
        update={"path": path(recipe.model.path), "weights": path(recipe.model.weights)}
    )
    update: dict[str, Any] = {"model": model}
    if recipe.data is not None:
        update["data"] = recipe.data.model_copy(update={"path": path(recipe.data.path)})
    if recipe.eval is not None:
        new = {"path": path(recipe.eval.path), "labels": path(recipe.eval.labels)}
        update["eval"] = recipe.eval.model_copy(update=new)
    return recipe.model_copy(update=update)


def _explain(error: ValidationError, path: Path, tree: yaml.Node | None) -> UsageError:
    problem = error.errors()[0]
    keys = [part for part in problem["loc"] if not (isinstance(part, str) and part in ("str", "PassSpec"))]
    line = _line(tree, keys)
    dotted = ".".join(str(part) for part in keys)
    where = f"{path}:{line}" if line else str(path)
    if problem["type"] == "extra_forbidden":
        known = _known_keys([str(part) for part in keys[:-1]])
        return UsageError(f"unknown key {dotted!r}", where=where, hint=did_you_mean(str(keys[-1]), known))
    message = problem["msg"].removeprefix("Value error, ")
    return UsageError(f"{dotted}: {message}", where=where)


def _known_keys(parents: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSource, "data": DataSource, "eval": EvalSource, "preprocess": Preprocessing, "gates": Gates,
        "passes": PassSpec,
    }  # fmt: skip
    cls = sections.get(parents[0], Recipe) if parents else Recipe
    return list(cls.model_fields)


def _line(node: yaml.Node | None, keys: list[Any]) -> int | None:
    """The line of the key that ``keys`` leads to, or of the deepest part of the way that exists."""
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode)}
            if str(key) not in pairs:
                break
            found, node = pairs[str(key)]
            line = found.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
