"""The verbs of the package, for Python: what the command line does, with the same defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from edgec.compiler.driver import compile_recipe
from edgec.compiler.face.given import DATA, EVAL, MODEL, Given
from edgec.compiler.face.items import check_data
from edgec.compiler.face.kinds import (
    ArrayLike,
    DataLike,
    ModelLike,
    PathLike,
    PreprocessOptions,
    is_array,
    named,
)
from edgec.compiler.face.metric import Metric
from edgec.compiler.face.named_metric import resolved
from edgec.compiler.face.report import Report
from edgec.compiler.face.source import check_model_type
from edgec.compiler.pipeline.workspace import Settings
from edgec.compiler.read.fields import Format, IoLayout, IoType, Learn, read_path
from edgec.compiler.read.recipe import PassSpec, Recipe, make_recipe
from edgec.compiler.tasks.names import Name as Task
from edgec.graph.errors import UsageError, WrongTypeError
from edgec.graph.foreign import Loading
from edgec.graph.values import NotAdmitted
from edgec.targets.engines import Precision

if TYPE_CHECKING:
    from edgec.runtime.measurement import Measurement
    from edgec.targets import Target


@overload
def compile(  # noqa: A001
    model: Recipe,
    out: PathLike,
    *,
    metric: str | Callable[..., Any] | None = None,
    force: bool = False,
    resume: bool = False,
    measure: bool = True,
    quiet: bool = False,
    trust: bool = False,
    load_timeout: float | str | None = None,
    load_memory: int | str | None = None,
    isolated: bool = True,
) -> Report: ...


@overload
def compile(  # noqa: A001
    model: ModelLike,
    out: PathLike,
    *,
    weights: PathLike | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    example_input: ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike] | None = None,
    data: DataLike | None = None,
    samples: int | None = None,
    skip_bad: bool = False,
    eval: DataLike | None = None,
    labels: PathLike | ArrayLike | Sequence[int] | None = None,
    label_offset: int = 0,
    task: Task | None = None,
    metric: str | Callable[..., Any] | None = None,
    preprocess: PreprocessOptions | None = None,
    target: PathLike | Target = "host",
    jetpack: str | None = None,
    budget: str | None = None,
    resolution: str | int | tuple[int, int] = "keep",
    portfolio: bool = False,
    learn: Learn | bool = "off",
    time: str | float | None = None,
    precision: Precision = "fp32",
    formats: Format | str | Sequence[Format] = ("onnx",),
    passes: str | Sequence[str | PassSpec] | None = None,
    max_drop: float | str | None = None,
    seed: int = 0,
    threads: int | None = None,
    keep_quantized: bool = False,
    io_layout: IoLayout = "nhwc",
    io_type: IoType = "float",
    batch: int | None = None,
    split_unsupported: bool = False,
    force: bool = False,
    resume: bool = False,
    measure: bool = True,
    quiet: bool = False,
    trust: bool = False,
    load_timeout: float | str | None = None,
    load_memory: int | str | None = None,
    isolated: bool = True,
) -> Report: ...


def compile(  # noqa: A001  (the verb of the product)
    model: ModelLike | Recipe,
    out: PathLike,
    *,
    weights: PathLike | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    example_input: ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike] | None = None,
    data: DataLike | None = None,
    samples: int | None = None,
    skip_bad: bool = False,
    eval: DataLike | None = None,  # noqa: A002  (as on the command line)
    labels: PathLike | ArrayLike | Sequence[int] | None = None,
    label_offset: int = 0,
    task: Task | None = None,
    metric: str | Callable[..., Any] | None = None,
    preprocess: PreprocessOptions | None = None,
    target: PathLike | Target = "host",
    jetpack: str | None = None,
    budget: str | None = None,
    resolution: str | int | tuple[int, int] = "keep",
    portfolio: bool = False,
    learn: Learn | bool = "off",
    time: str | float | None = None,
    precision: Precision = "fp32",
    formats: Format | str | Sequence[Format] = ("onnx",),
    passes: str | Sequence[str | PassSpec] | None = None,
    max_drop: float | str | None = None,
    seed: int = 0,
    threads: int | None = None,
    keep_quantized: bool = False,
    io_layout: IoLayout = "nhwc",
    io_type: IoType = "float",
    batch: int | None = None,
    split_unsupported: bool = False,
    force: bool = False,
    resume: bool = False,
    measure: bool = True,
    quiet: bool = False,
    trust: bool = False,
    load_timeout: float | str | None = None,
    load_memory: int | str | None = None,
    isolated: bool = True,
) -> Report:
    """Compile ``model`` into the folder ``out``; docs/python.md tells what each argument takes.

    ``model``: a path, a ``torch.nn.Module`` (exported with ``example_input``, else with the first of the data), an
    ``onnx.ModelProto``, an ``onnx_ir.Model``, or a whole `Recipe`, which has the other answers in itself.
    ``data``, ``eval``: a path, an array, a dict of arrays, a torch Dataset or DataLoader, an iterable of arrays; with labels
    beside them for ``eval``. What is given in memory is written into ``out``, so that its ``recipe.yaml`` runs again.
    ``metric``: a name, ``file.py:function``, or ``func(predict, samples) -> float | dict | (float, per sample)``; on the source
    model and every artifact, and what ``max_drop`` is of.
    The other arguments are the recipe's keys and the command line's options of the same names; ``threads``: None is
    all cores.

    A model file is read in a child process that may take ``load_timeout`` seconds and ``load_memory`` bytes (None: by its size
    and the free memory), or in this one (``isolated=False``); ``trust`` runs what a ``.pt2`` holds.

    Progress shows in a terminal and in a notebook; ``quiet`` silences it. Raises EdgecError, of which a `WrongTypeError` is a
    TypeError too; gates that fail are in the report (``report.passed``).
    """
    values: dict[str, Any] = {
        "task": task, "target": target, "jetpack": jetpack, "budget": budget, "resolution": resolution,
        "portfolio": portfolio, "learn": learn, "time": time, "precision": precision, "formats": formats,
        "passes": passes, "seed": seed, "io_layout": io_layout, "io_type": io_type, "batch": batch,
        "split_unsupported": split_unsupported, "keep_quantized": keep_quantized,
    }  # fmt: skip
    beside: dict[str, Any] = {
        "weights": weights, "input_shape": input_shape, "example_input": example_input, "data": data, "samples": samples,
        "skip_bad": skip_bad, "eval": eval, "labels": labels, "label_offset": label_offset, "preprocess": preprocess,
        "max_drop": max_drop, "threads": threads,
    }  # fmt: skip
    folder = _path("out", out)
    name = metric if isinstance(metric, str) else None
    metric = resolved(metric)
    own = None if metric is None else Metric(metric)
    if isinstance(model, Recipe):
        _check_alone({**values, **beside})
        recipe, given = model, None
    else:
        recipe = _recipe(model, values, beside)
        given = _given(model, beside, any_targets=callable(metric))
    if name is not None:
        recipe = recipe.model_copy(update={"metric": name})
    loading = Loading(load_timeout, load_memory, trust, isolated)  # type: ignore[arg-type]  # it reads texts too
    with _progress(quiet) as progress:
        settings = Settings(
            Path(folder),
            force=force,
            resume=resume,
            measure=measure,
            loading=loading,
            progress=progress,
            given=given,
        )
        return Report.of(compile_recipe(recipe, settings, own), folder)


_DEFAULTS: Mapping[str, Any] = {
    "target": "host", "resolution": "keep", "learn": "off", "precision": "fp32", "formats": ("onnx",), "seed": 0,
    "io_layout": "nhwc", "io_type": "float", "label_offset": 0,
}  # fmt: skip


def _check_alone(values: Mapping[str, Any]) -> None:
    """Raise UsageError for options beside a recipe, which has its own."""
    given = [
        key
        for key, value in values.items()
        if value is not None and value is not False and not _is_default(key, value)
    ]
    if given:
        why = f"{', '.join(given)} given too"
        raise UsageError("a whole recipe and options beside it", why=why, hint="Change the recipe instead.")


def _is_default(key: str, value: Any) -> bool:
    return key in _DEFAULTS and type(value) is type(_DEFAULTS[key]) and bool(value == _DEFAULTS[key])


def _recipe(model: Any, values: dict[str, Any], beside: dict[str, Any]) -> Recipe:
    """What the call says, with the names of the files that what is in memory will be written to."""
    if not _is_path(model):
        check_model_type(model)
    recipe: dict[str, Any] = {
        **values,
        "target": _target(values["target"]),
        "threads": (os.cpu_count() or 1) if beside["threads"] is None else beside["threads"],
        "model": _present({
            "path": _path("model", model) if _is_path(model) else MODEL,
            "weights": beside["weights"],
            "input_shape": beside["input_shape"],
        }),
    }  # fmt: skip
    if beside["preprocess"] is not None:
        recipe["preprocess"] = beside["preprocess"]
    if beside["max_drop"] is not None:
        recipe["gates"] = {"max_drop": beside["max_drop"]}
    for key, file, options in (
        ("data", DATA, ("samples", "skip_bad")), ("eval", EVAL, ("labels", "label_offset"))
    ):  # fmt: skip
        value = beside[key]
        given = {
            name: beside[name] for name in options if beside[name] is not None and beside[name] is not False
        }
        if given.get("label_offset") == 0:
            del given["label_offset"]
        if value is None:
            if given:
                raise UsageError(f"{next(iter(given))} without {key}")
            continue
        if not _is_path(value):
            check_data(key, value)
        if key == "eval":
            _check_labels(given.get("labels"), _is_path(value))
        if not _is_path(value):
            given.pop("labels", None)
        recipe[key] = {"path": _path(key, value) if _is_path(value) else file, **given}
    return make_recipe(_present(recipe))


def _check_labels(labels: Any, path: bool) -> None:
    """Labels come as the samples do: a table beside files, an array beside arrays."""
    if labels is None or (_is_path(labels) if path else _is_numbers(labels)):
        return
    admitted = (
        "a path, because eval is one"
        if path
        else "an array, or a list of whole numbers, because eval is no path"
    )
    raise WrongTypeError(f"labels: got {named(labels)}", why=f"admitted is {admitted}")


def _given(model: Any, beside: Mapping[str, Any], any_targets: bool) -> Given | None:
    """What stands in memory only; None where everything is a path."""

    def held(value: Any) -> Any:
        return None if _is_path(value) else value

    if held(model) is None and beside["example_input"] is not None:
        raise UsageError(
            "example_input without a torch module", hint="A path says its inputs itself; see input_shape=."
        )
    found = Given(
        held(model),
        beside["example_input"],
        held(beside["data"]),
        held(beside["eval"]),
        _labels(beside["labels"]),
        any_targets,
    )
    return None if found.model is None and found.data is None and found.evaluation is None else found


def _labels(labels: Any) -> Any:
    return None if labels is None or _is_path(labels) else labels if is_array(labels) else list(labels)


def _is_numbers(value: Any) -> bool:
    return is_array(value) or (
        isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value)
    )


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _target(value: Any) -> str:
    if _is_path(value):
        return _path("target", value)
    from edgec.targets import Target, target

    if not isinstance(value, Target):
        raise WrongTypeError(
            f"target: got {named(value)}", why="admitted are a name, a path, or an edgec.Target"
        )
    if target(value.name) != value:
        raise UsageError(
            f"target: {value.name!r} is not as the known one of that name", hint="Give the path of its file."
        )
    return value.name


def _path(name: str, value: Any) -> str:
    """Raises WrongTypeError for what is no path, UsageError for one that no file can have."""
    if not _is_path(value):
        raise WrongTypeError(f"{name}: got {named(value)}", why="admitted is a path")
    try:
        return read_path(value)
    except NotAdmitted as error:
        raise UsageError(f"{name}: {error}") from None


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _progress(quiet: bool) -> Any:
    from edgec.compiler.cli.output import progress

    return progress(quiet)


def bench(
    artifacts: PathLike | Iterable[PathLike], *, device: str = "local", threads: int = 1
) -> tuple[Measurement, ...]:
    """Measure artifacts one by one on a device: ``local`` or ``ssh://user@host``. Raises EdgecError."""
    from edgec.runtime.bench import BenchOptions
    from edgec.runtime.bench import bench as run
    from edgec.runtime.devices import open_device

    options = BenchOptions(threads=threads)
    listed = [artifacts] if isinstance(artifacts, (str, os.PathLike)) else artifacts
    if not isinstance(listed, Iterable):
        raise WrongTypeError(
            f"artifacts: got {named(artifacts)}", why="admitted are a path, or an iterable of paths"
        )
    paths = [Path(_path("artifacts", one)) for one in listed]
    if not paths:
        raise UsageError("no artifacts", hint="Give the paths of .onnx or .tflite files.")
    with open_device(device) as opened:
        return run(paths, options, opened)
