"""A metric of the caller's own, on the teacher and on the files that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.face.artifact import LoadedArtifact
from edgec.compiler.face.items import to_numpy
from edgec.compiler.face.kinds import is_array, named
from edgec.compiler.face.named_metric import metric_names, resolved
from edgec.compiler.face.samples import Samples, alone
from edgec.compiler.tasks.names import METRIC_NAMES
from edgec.graph.data import Dataset
from edgec.graph.errors import DataError, DeviceError, UsageError, WrongTypeError, did_you_mean
from edgec.graph.execute import Executor
from edgec.graph.labels import is_classifier
from edgec.graph.views import shape_of
from edgec.runtime.report.schema import IDENTICAL_DB

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]

LOWER = ("kl",)
_CLASSES = ("top1", "agreement", "kl")
_ADMITTED = "a number, a dict of numbers, or a pair (number, one number per sample)"


@dataclass(frozen=True)
class Value:
    """A metric's value on one network; ``each``: by sample, where the function gave that."""

    value: float
    each: Array | None = None


@dataclass(frozen=True)
class Judged:
    """One metric on the teacher and on each artifact by file name. ``errors``: standard error of the paired difference."""

    name: str
    samples: int
    teacher: float | None
    values: Mapping[str, float | None]
    errors: Mapping[str, float]
    lower_is_better: bool


class Metric:
    """A metric of one run: a name (also of a plug-in) or a function. The teacher comes first: what fails, fails early."""

    def __init__(self, metric: str | Callable[..., Any]) -> None:
        """Raises WrongTypeError for what is neither, UsageError for an unknown name."""
        if not isinstance(metric, str) and not callable(metric):
            raise WrongTypeError(
                f"metric: got {named(metric)}",
                why=f"admitted are a function, or one of {', '.join(METRIC_NAMES)}",
            )
        if isinstance(metric, str) and metric not in METRIC_NAMES:
            known = (*METRIC_NAMES, *metric_names())
            raise UsageError(f"unknown metric {metric!r}", hint=did_you_mean(metric, known))
        self._metric = metric
        self._teacher: dict[str, Value] = {}
        self._samples: Samples | None = None
        self._outputs: tuple[str, ...] = ()

    @classmethod
    def named(cls, text: str | None) -> Metric | None:
        """The one that a recipe names, if it names one. Raises UsageError."""
        found = resolved(text)
        return None if found is None else cls(found)

    def on_teacher(
        self, teacher: ir.Model, data: Dataset | None, targets: Any, offset: int, threads: int
    ) -> None:
        """Judge the source model. Raises UsageError where there is nothing to judge on; what a function raises goes through."""
        if data is None:
            raise UsageError("metric: nothing to judge on", hint="Give eval=, or data=.")
        if isinstance(self._metric, str):
            self._check_name(teacher, data)
            return
        runner = Executor(teacher, threads=threads)
        self._samples, self._outputs = Samples(data, targets, offset), runner.outputs
        inputs = runner.inputs
        self._teacher = self._call(lambda x: alone(runner.run(_feeds(x, inputs))))

    def on_files(
        self, files: Iterable[tuple[str, Path]], quality: Callable[[str], Mapping[str, Any]], like: ir.Model
    ) -> tuple[tuple[Judged, ...], tuple[str, ...]]:
        """(values, remarks) for artifacts by name and path; ``quality``: what is known by artifact, '' being the teacher.

        ``like``: a graph with the artifacts' inputs; where its picture has another size, the samples have it too.
        """
        if isinstance(self._metric, str):
            name = self._metric
            values = {file: _finite(quality(file).get(name)) for file, _ in files}
            teacher = quality("")
            images = int(teacher.get("images", 0))
            return (Judged(name, images, _finite(teacher.get(name)), values, {}, name in LOWER),), ()
        if self._samples is not None:
            self._samples = self._samples.at(like)
        found: dict[str, dict[str, Value]] = {}
        remarks = []
        for file, path in files:
            try:
                found[file] = self._on_file(path)
            except DeviceError as error:
                remarks.append(f"{file} was not judged by {self._name}: {error}")
        return tuple(self._judged(name, found) for name in self._teacher), tuple(remarks)

    def _on_file(self, path: Path) -> dict[str, Value]:
        loaded = LoadedArtifact(path)
        names = self._outputs

        def predict(x: Any) -> Any:
            values = loaded.run(_feeds(x, tuple(loaded.inputs)))
            return alone(dict(zip(names, values.values(), strict=True)))

        return self._call(predict)

    def _judged(self, name: str, found: Mapping[str, Mapping[str, Value]]) -> Judged:
        teacher = self._teacher[name]
        errors = {}
        for file, values in found.items():
            if name in values and teacher.each is not None and values[name].each is not None:
                moved = np.asarray(values[name].each) - teacher.each
                errors[file] = float(moved.std(ddof=1) / np.sqrt(len(moved))) if len(moved) > 1 else 0.0
        return Judged(
            name,
            len(self._samples or ()),
            teacher.value,
            {file: values[name].value if name in values else None for file, values in found.items()},
            errors,
            bool(getattr(self._metric, "lower_is_better", False)),
        )

    @property
    def _name(self) -> str:
        return str(getattr(self._metric, "__name__", type(self._metric).__name__))

    def _call(self, predict: Callable[[Any], Any]) -> dict[str, Value]:
        if isinstance(self._metric, str) or self._samples is None:
            return {}
        return _read(self._name, self._metric(predict, self._samples), len(self._samples))

    def _check_name(self, teacher: ir.Model, data: Dataset) -> None:
        if self._metric == "top1" and data.labels is None:
            raise UsageError(
                "metric: top1 needs labels", hint="Give eval= with labels, or metric='agreement'."
            )
        outputs = [shape_of(value) for value in teacher.graph.outputs]
        scores = len(outputs) == 1 and is_classifier(outputs[0])
        if self._metric in _CLASSES and not scores:
            raise UsageError(
                f"metric: {self._metric} is for one vector of scores", why=f"the outputs are {outputs}"
            )


def _read(name: str, result: Any, count: int) -> dict[str, Value]:
    """What a function returned. Raises WrongTypeError, and DataError where ``per sample`` is not."""
    if isinstance(result, Mapping):
        if not result:
            raise WrongTypeError(f"metric: {name} returned an empty dict", why=f"admitted are {_ADMITTED}")
        return {str(key): Value(_number(f"{name}[{key!r}]", one)) for key, one in result.items()}
    if isinstance(result, tuple) and len(result) == 2:
        each = np.asarray(to_numpy(result[1]) if is_array(result[1]) else result[1])
        if each.shape != (count,) or each.dtype.kind not in "fiub":
            why = f"{each.dtype} of shape {each.shape} for {count} samples"
            raise DataError(f"metric: {name} gave no number per sample", why=why)
        return {name: Value(_number(name, result[0]), each.astype(np.float64))}
    return {name: Value(_number(name, result))}


def _number(name: str, value: Any) -> float:
    if is_array(value) and np.size(to_numpy(value)) == 1:
        value = to_numpy(value).item()
    if isinstance(value, (int, float)):
        return float(value)
    raise WrongTypeError(f"metric: {name} returned {named(value)}", why=f"admitted are {_ADMITTED}")


def _finite(figure: float | None) -> float | None:
    """A figure as reports have it: the SQNR of equal outputs is infinite."""
    return None if figure is None else min(figure, IDENTICAL_DB)


def _feeds(x: Any, names: Sequence[str]) -> Feeds:
    """What a metric hands to ``predict``, by input."""
    if isinstance(x, Mapping):
        return {str(key): to_numpy(value) for key, value in x.items()}
    if not is_array(x) or len(names) != 1:
        raise WrongTypeError(f"predict: got {named(x)}", why=f"admitted are arrays of {', '.join(names)}")
    array = to_numpy(x)
    return {names[0]: array.astype(np.float32) if array.dtype.kind == "f" else array}
