"""An artifact that runs on arrays: in the engine that `edgec bench` measures, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.compiler.face.items import to_numpy
from edgec.compiler.face.kinds import is_array, named
from edgec.graph.errors import DataError, DeviceError, EdgecError, ModelError, WrongTypeError

Array = np.ndarray[Any, np.dtype[Any]]

_KINDS: Mapping[str, type[EdgecError]] = {"model": ModelError, "engine": DeviceError}
_HINT = "pip install onnxruntime (.onnx) or ai-edge-litert (.tflite)."


class LoadedArtifact:
    """A file of a run, ready to run: ``loaded(x)`` takes what the source model took and gives what it gave.

    Inputs are arrays with the samples first, in the layout of the source model (pictures: channels first), already
    preprocessed; one array, or a dict of them by input name. What the file wants instead (channels last, integer codes, a fixed
    batch) is done here and undone for the outputs, which come as float32: one array, or a dict by output name.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        """Load ``path`` (.onnx or .tflite). Raises ModelError for a file that cannot be loaded, DeviceError without an engine."""
        from edgec.runtime.agent.base import AgentError
        from edgec.runtime.agent.engines import open_engine

        self.path: Path = Path(path)
        try:
            self._engine = open_engine(str(path), None, threads, {})
        except AgentError as error:
            kind = _KINDS.get(error.kind, ModelError)
            raise kind(str(error), where=str(path), hint=_HINT if kind is DeviceError else None) from None
        self._axes = _axes(self.path)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each input, as the artifact takes it here (pictures: channels first)."""
        return {name: self._moved(name, shape)[1:] for name, shape, _ in self._engine.inputs}

    @property
    def engine(self) -> str:
        """Name and version of the engine that runs it."""
        return f"{self._engine.name} {self._engine.version}"

    def __call__(self, x: Any) -> Any:
        """Outputs for ``x``. Raises DataError for arrays that do not fit, WrongTypeError for what is no array."""
        found = self.run(self._by_name(x))
        return next(iter(found.values())) if len(found) == 1 else found

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name; inputs by name, or else in the file's order."""
        given = [
            feeds.get(name, value)
            for (name, _, _), value in zip(self._engine.inputs, feeds.values(), strict=True)
        ]
        coded = {
            name: self._encoded(name, kind, self._fitted(name, shape, array))
            for (name, shape, kind), array in zip(self._engine.inputs, given, strict=True)
        }
        parts = [self._invoked(coded, start) for start in range(0, len(given[0]), self._step())]
        count = len(given[0])
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    def _by_name(self, x: Any) -> dict[str, Array]:
        names = [name for name, _, _ in self._engine.inputs]
        if isinstance(x, Mapping):
            if set(x) != set(names):
                why = f"got {', '.join(map(str, x))}; it takes {', '.join(names)}"
                raise DataError("the inputs do not fit the artifact", where=self.path.name, why=why)
            return {name: to_numpy(x[name]) for name in names}
        if not is_array(x):
            raise WrongTypeError(
                f"{self.path.name}: got {named(x)}", why="admitted are an array, or a dict of arrays by input"
            )
        if len(names) > 1:
            raise DataError(
                f"the artifact has {len(names)} inputs",
                where=self.path.name,
                why=f"give a dict with {', '.join(names)}",
            )
        return {names[0]: to_numpy(x)}

    def _step(self) -> int:
        return max(1, self._engine.inputs[0][1][0])

    def _fitted(self, name: str, shape: tuple[int, ...], array: Array) -> Array:
        """``array`` in the file's layout."""
        wanted = self._moved(name, shape)
        if array.ndim != len(wanted) or array.shape[1:] != wanted[1:] or not len(array):
            why = f"an array of shape {array.shape}; it takes (N, {', '.join(map(str, wanted[1:]))})"
            raise DataError("the input does not fit the artifact", where=f"{self.path.name}: {name}", why=why)
        return np.transpose(array, self._axes.get(name, range(array.ndim)))

    def _encoded(self, name: str, kind: Any, array: Array) -> Array:
        if kind.kind in "iu" and name in self._engine.quantised:
            scale, zero = self._engine.quantised[name]
            limits = np.iinfo(kind)
            codes = np.clip(np.round(array / scale) + zero, limits.min, limits.max)
            return np.asarray(codes, kind)
        if kind.kind in "iub" and array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
            raise DataError(
                "the input takes whole numbers", where=f"{self.path.name}: {name}", why=f"its type is {kind}"
            )
        made: Array = array.astype(kind, copy=False)
        return made

    def _invoked(self, coded: Mapping[str, Array], start: int) -> dict[str, Array]:
        from edgec.runtime.agent.base import first_line

        step, feeds = self._step(), {}
        for name, array in coded.items():
            some = array[start : start + step]
            short = step - len(some)
            feeds[name] = np.ascontiguousarray(
                np.concatenate([some, some[-1:].repeat(short, axis=0)]) if short else some
            )
        try:
            self._engine.feed(feeds)
            self._engine.invoke()
            found = self._engine.outputs()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                "the artifact failed while running", where=self.path.name, why=first_line(error)
            ) from error
        return {name: self._decoded(name, np.array(value)) for name, value in found.items()}

    def _decoded(self, name: str, value: Array) -> Array:
        if value.dtype.kind in "iu" and name in self._engine.quantised:
            scale, zero = self._engine.quantised[name]
            value = (value.astype(np.float64) - zero) * scale
        real = value.astype(np.float32) if value.dtype.kind == "f" else value
        perm = self._axes.get(name)
        return real if perm is None else np.ascontiguousarray(real.transpose(np.argsort(perm)))

    def _moved(self, name: str, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape of the file in the source model's order of axes."""
        perm = self._axes.get(name)
        return tuple(shape) if perm is None else tuple(shape[i] for i in np.argsort(perm))


def _axes(path: Path) -> dict[str, tuple[int, ...]]:
    """By name of a TFLite file's input or output: which axis of the source model lies at each place."""
    if path.suffix != ".tflite":
        return {}
    from edgec.graph.tflite.read import read

    known = read(path).edgec_metadata.get("axes", {})
    return (
        {name: tuple(perm) for name, perm in known.items() if len(perm) > 1}
        if isinstance(known, dict)
        else {}
    )
