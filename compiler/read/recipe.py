"""The recipe: everything that decides what a run makes, as typed YAML.

``edgec compile`` writes the resolved recipe beside the artifacts; ``edgec compile --recipe`` runs it again. Unknown keys are
errors that name the file, the line and the key. Paths are relative to the recipe's folder.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from edgec.compiler.read import fields
from edgec.graph.errors import UsageError
from edgec.graph.files import is_factory
from edgec.graph.preprocess import Preprocess
from edgec.graph.yaml_file import read_yaml, write_yaml
from edgec.passes.base import Pass
from edgec.passes.budget import parse_budget
from edgec.passes.options import AUTO, KEEP, kebab, paths_of
from edgec.passes.pipeline_string import make_pass, parse_pipeline, print_pass


class _Closed(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSource(_Closed):
    """What to load. ``sha256`` is of the file (of the weights for a torch factory); a recipe with another file is refused."""

    path: fields.PathField
    weights: fields.PathField | None = None
    input_shape: fields.ShapeField | None = None
    sha256: str | None = None
    origin: str | None = None
    """What the file was written from, where a Python program gave the model itself."""

    @property
    def file(self) -> Path | None:
        """The model's file; None where the path names a factory, which is Python code."""
        return None if is_factory(self.path) else Path(self.path)


class DataSource(_Closed):
    """Unlabelled calibration inputs; ``random`` as path asks for noise."""

    path: fields.PathField
    samples: fields.CountField | None = None
    skip_bad: fields.SwitchField = False
    fingerprint: str | None = None


class EvalSource(_Closed):
    """Inputs for scoring, with labels where there are some. ``label_offset`` is added to each label."""

    path: fields.PathField
    labels: fields.PathField | None = None
    label_offset: fields.OffsetField = 0
    fingerprint: str | None = None


class Preprocessing(_Closed):
    """See `graph.preprocess.Preprocess`."""

    mean: fields.MeanField = (0.0,)
    std: fields.StdField = (1.0,)
    scale: fields.ScaleField = 1.0
    layout: fields.LayoutField = "auto"
    resize: fields.ResizeField | None = None
    crop: fields.CropField | None = None
    channels: fields.ChannelsField = "rgb"
    letterbox: fields.GreyField | None = None
    letterbox_at: fields.PlaceField = "corner"

    @model_validator(mode="after")
    def _fits_together(self) -> Preprocessing:
        fields.usage_as_value(lambda _: self.build())(None)
        return self

    def build(self) -> Preprocess:
        """The settings, ready to be used. Raises UsageError."""
        return Preprocess(**self.model_dump())


class Gates(_Closed):
    """Conditions on the result; a run that misses one ends with exit code 1 and keeps its artifacts."""

    max_drop: fields.ShareField | None = None
    """Of the run's metric against the source's: the recipe's own, else the task's (`evaluate.gates`), as a fraction."""


class Timing(_Closed):
    """What a latency budget on this machine was measured against, so that the recipe chooses the same widths again.

    ``source_ms``: the model that came in; ``artifact_ms``: the same network in the run's engine and precision, corrected by
    what the first choice of widths really took (then ``settled``). ``of`` names model, engine, precision, and processor; for
    others it does not count.
    """

    of: str
    source_ms: fields.MillisecondsField
    artifact_ms: fields.MillisecondsField
    settled: fields.SwitchField = False


class PassSpec(_Closed):
    """A pass as a mapping, for those who prefer it to the one-line form."""

    name: str
    options: dict[str, Any] = {}


def _built(item: str | PassSpec) -> tuple[Pass, ...]:
    """The passes of one entry. Raises UsageError."""
    return parse_pipeline(item) if isinstance(item, str) else (make_pass(item.name, item.options),)


def _buildable(item: str | PassSpec) -> str | PassSpec:
    _built(item)
    return item


def _budget(text: str) -> str:
    parse_budget(text)
    return text


class Recipe(_Closed):
    """One run."""

    model: ModelSource
    data: DataSource | None = None
    eval: EvalSource | None = None
    task: fields.TaskField | None = None
    """None: as the model's metadata or its outputs say."""
    metric: fields.MetricField | None = None
    """A name, or ``file.py:function``: Python code, which running the recipe runs."""
    preprocess: Preprocessing = Preprocessing()
    target: fields.PathField = "host"
    jetpack: fields.JetpackField | None = None
    """Of a Jetson: the release that its files are made for; None: the one that its card names."""
    budget: Annotated[str, AfterValidator(fields.usage_as_value(_budget))] | None = None
    precision: fields.PrecisionField = "fp32"
    """The least: where the passes end in another one, that is the run's."""
    formats: Annotated[fields.FormatsField, AfterValidator(lambda found: tuple(dict.fromkeys(found)))] = (
        "onnx",
    )
    passes: (
        Annotated[
            tuple[Annotated[str | PassSpec, AfterValidator(fields.usage_as_value(_buildable))], ...],
            BeforeValidator(fields.text_as_list),
        ]
        | None
    ) = None
    """None: the default pipeline for the budget and the precision."""
    resolution: fields.ResolutionField = KEEP
    """Of the input: keep the model's, a size, or auto: whichever meets the budget with the least loss."""
    portfolio: fields.SwitchField = False
    """Compare forms of `compress` under the budget, and keep the one that loses least."""
    learn: fields.LearnField = "off"
    """Distil behind the closed forms (`refine`): auto where they lost much, and torch is there."""
    time: fields.TimeField | None = None
    """That learning may take; None: the default of `refine`."""
    gates: Gates = Gates()
    seed: fields.SeedField = 0
    threads: fields.ThreadsField = 1
    keep_quantized: fields.SwitchField = False
    """A source that came quantised keeps its scales: `quantize{scales=source}`."""
    io_layout: fields.IoLayoutField = "nhwc"
    io_type: fields.IoTypeField = "float"
    """Of quantised inputs and outputs of int8 files: real numbers, or codes."""
    batch: fields.BatchField | None = None
    split_unsupported: fields.SwitchField = False
    """Where TFLite cannot take a node: emit the part before it instead of stopping."""
    timing: Timing | None = None
    edgec: str | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if not self.formats:
            raise ValueError(f"formats: at least one of {', '.join(fields.FORMATS)}")
        if "tflite" not in self.formats:
            tflite = {
                "io_layout": self.io_layout != "nhwc",
                "batch": self.batch,
                "split_unsupported": self.split_unsupported,
            }
            for key, given in tflite.items():
                if given:
                    why = f"{key} is about TFLite files, and the formats are {', '.join(self.formats)}"
                    raise ValueError(f"{why}. Add tflite to the formats, or leave it out")
        if self.resolution == AUTO and self.budget is None and self.passes is None:
            raise ValueError(
                "resolution: auto takes part in a budget, and there is none. Add budget, or name a size"
            )
        if self.portfolio and self.budget is None and self.passes is None:
            raise ValueError(
                "portfolio: compares forms of compression under a budget, and there is none. Add budget"
            )
        if self.gates.max_drop is not None and self.data is None and self.eval is None:
            raise ValueError("gates.max_drop has nothing to judge on. Add data or eval")
        return self

    def build_passes(self) -> tuple[Pass, ...] | None:
        """The passes, or None where the default pipeline is wanted. Raises UsageError."""
        if self.passes is None:
            return None
        return tuple(one for item in self.passes for one in _built(item))

    def to_yaml(self) -> str:
        """The recipe's text."""
        values = self.model_dump(mode="json", exclude_none=True)
        return write_yaml(values)


def make_recipe(values: Any) -> Recipe:
    """The recipe that ``values`` (a mapping, nested) describe. Raises UsageError with the key and what it admits."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, None, None) from None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; its relative paths become relative to the current folder. Raises UsageError with file, line and key."""
    path = Path(path)
    values, tree = read_yaml(path, "a recipe")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, path, tree) from None
    return _rebased(recipe, path.parent)


def relative_to(recipe: Recipe, folder: Path, part: Path | None = None) -> Recipe:
    """The recipe with its paths as seen from ``folder``; what is in ``part`` now will lie in ``folder`` itself."""
    return _with_paths(
        recipe, lambda text: os.path.relpath(text, part if Path(text).parent == part else folder)
    )


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
    if recipe.metric is not None and fields.is_code(recipe.metric):
        update["metric"] = path(recipe.metric)
    if recipe.data is not None:
        update["data"] = recipe.data.model_copy(update={"path": path(recipe.data.path)})
    if recipe.eval is not None:
        new = {"path": path(recipe.eval.path), "labels": path(recipe.eval.labels)}
        update["eval"] = recipe.eval.model_copy(update=new)
    if recipe.passes is not None:
        update["passes"] = tuple(_moved(item, path) for item in recipe.passes)
    return recipe.model_copy(update=update)


def _moved(item: str | PassSpec, path: Any) -> str | PassSpec:
    """An entry of the passes with its files moved."""
    built = [
        replace(one, **{name: path(text) for name, text in paths_of(one).items()}) for one in _built(item)
    ]
    if not any(map(paths_of, built)):
        return item
    if isinstance(item, str):
        return " ".join(map(print_pass, built))
    options = {kebab(name): text for name, text in paths_of(built[0]).items()}
    return item.model_copy(update={"options": {**item.options, **options}})


def _explain(error: ValidationError, path: Path | None, tree: yaml.Node | None) -> UsageError:
    """The first thing that is wrong, with its place, and how many more there are."""
    problems = error.errors(include_url=False)
    keys = fields.key_path(problems[0])
    what, hint = fields.as_usage(problems[0], _known_keys)
    others = {tuple(map(str, fields.key_path(one))) for one in problems} - {tuple(map(str, keys))}
    if others:
        what += f" (and {len(others)} more: {', '.join(sorted('.'.join(one) for one in others)[:3])})"
    line = _line(tree, keys)
    where = None if path is None else (f"{path}:{line}" if line else str(path))
    return UsageError(what, where=where, hint=hint)


def _known_keys(parents: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSource, "data": DataSource, "eval": EvalSource, "preprocess": Preprocessing, "gates": Gates,
        "passes": PassSpec, "timing": Timing,
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
