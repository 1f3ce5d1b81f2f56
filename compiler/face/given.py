"""Models and data of this process, written into the run's folder, so that its recipe runs again without the process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edgec.compiler.face import items as forms
from edgec.compiler.face import source, targets
from edgec.compiler.face.items import ALONE, Item
from edgec.compiler.face.kinds import is_module
from edgec.compiler.face.writer import NpzWriter
from edgec.compiler.read.brought import Brought
from edgec.compiler.read.recipe import DataSource, EvalSource, Recipe
from edgec.graph.data import InputSpec
from edgec.graph.disk import write_new
from edgec.graph.errors import DataError, UsageError
from edgec.graph.foreign import Loading, Pending, begin
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.metadata import require_size
from edgec.graph.stored import load_npy, load_npz

Array = np.ndarray[Any, np.dtype[Any]]

MODEL, DATA, EVAL = "source.onnx", "data.npz", "eval.npz"
FILES = (MODEL, DATA, EVAL)
"""What such a run keeps beside its artifacts."""


def unused_inputs(recipe: Recipe) -> tuple[str, ...]:
    """Of `FILES`, what a finished run's recipe (its paths as seen from the folder) does not name: left by an earlier run."""
    named = {recipe.model.path, *(one.path for one in (recipe.data, recipe.eval) if one is not None)}
    return tuple(name for name in FILES if name not in named)


_SINGLE = (1, 3)
"""Axes of what is one sample, where no model says so: a vector, a picture."""


@dataclass(frozen=True)
class Given:
    """What a call holds in memory; None: a path, which stands in the recipe."""

    model: Any = None
    example: Any = None
    data: Any = None
    evaluation: Any = None
    labels: Any = None
    any_targets: bool = False
    """Whether what comes beside the evaluation data may be other than classes: where a function judges."""

    def bring(self, recipe: Recipe, loading: Loading, folder: Path) -> Brought:
        """Write it into ``folder``. Raises EdgecError for what cannot be exported, or does not fit the model."""
        data = _Once("data", self.data, recipe.data.samples if recipe.data else None, recipe.seed)
        evaluation = _Once("eval", self.evaluation, None, recipe.seed)
        if self.model is not None:
            example = self._example(recipe, data, evaluation)
            write_new(folder / MODEL, source.model_bytes(self.model, example))
            model = recipe.model.model_copy(
                update={"path": str(folder / MODEL), "origin": source.origin_of(self.model)}
            )
            recipe = recipe.model_copy(update={"model": model})
            loading = Loading(
                loading.timeout, loading.memory, loading.trust, isolated=False
            )  # it is the caller's own
        pending = begin(
            recipe.model.path, loading, weights=recipe.model.weights, input_shape=recipe.model.input_shape
        )
        try:
            return self._with_data(recipe, pending, data, evaluation, folder)
        except BaseException:
            pending.close()
            raise

    def _with_data(
        self, recipe: Recipe, pending: Pending, data: _Once, evaluation: _Once, folder: Path
    ) -> Brought:
        specs: tuple[InputSpec, ...] = ()
        if data.given or evaluation.given:
            require_size(pending.model(), "samples are")
            specs = InputSpec.of(pending.model())
        update: dict[str, Any] = {}
        if data.given and recipe.data is not None:
            _write(folder / DATA, data, specs)
            update["data"] = DataSource(path=str(folder / DATA))
        found: Any = None
        if evaluation.given and recipe.eval is not None:
            beside, count = _write(
                folder / EVAL, evaluation, specs, labels=self.labels, classes=not self.any_targets
            )
            found = None if not beside else targets.joined(beside)
            targets.check_complete(beside, count)
            update["eval"] = EvalSource(path=str(folder / EVAL), label_offset=recipe.eval.label_offset)
        return Brought(recipe.model_copy(update=update), pending, found)

    def _example(self, recipe: Recipe, data: _Once, evaluation: _Once) -> tuple[Any, ...] | None:
        """One batch of a module's inputs: given, of a given shape, or the first of the data."""
        if not is_module(self.model):
            return None
        if self.example is not None:
            return source.example_of(self.example)
        if recipe.model.input_shape is not None:
            given = recipe.model.input_shape
            shapes = [sizes[1:] for sizes in given.values()] if isinstance(given, dict) else [given]
            return tuple(np.zeros((2, *sizes), np.float32) for sizes in shapes)
        for held, path in ((data, recipe.data), (evaluation, recipe.eval)):
            arrays = held.first() if held.given else None if path is None else _first_of_file(path.path)
            if arrays is not None:
                return _ordered(self.model, arrays, recipe.preprocess.build())
        return None


@dataclass
class _Once:
    """Data that may be gone through once only, whose first item can be looked at before that."""

    name: str
    value: Any
    samples: int | None
    seed: int
    _items: Iterator[Item] | None = field(default=None, repr=False)

    @property
    def given(self) -> bool:
        return self.value is not None

    def first(self) -> dict[str, Array]:
        """The arrays of the first item, as a batch. Raises DataError where there is none."""
        rest = iter(self.all())
        head = next(rest, None)
        if head is None:
            raise DataError(f"{self.name}: no samples")
        self._items = chain((head,), rest)
        single = not head.whole and next(iter(head.arrays.values())).ndim in _SINGLE
        return {key: array[None] if single else array for key, array in head.arrays.items()}

    def all(self) -> Iterable[Item]:
        """Every item."""
        if self._items is None:
            self._items = forms.items(self.name, self.value, self.samples, self.seed)
        return self._items


def _first_of_file(path: str) -> dict[str, Array] | None:
    """The first samples of an array file; None for what says no shape, such as a folder of pictures."""
    file = Path(path)
    if file.suffix == ".npy" and file.is_file():
        return {ALONE: load_npy(file)[:2]}
    if file.suffix == ".npz" and file.is_file():
        return {key: array[:2] for key, array in load_npz(file).items() if key != forms.LABELS}
    return None


def _ordered(model: Any, arrays: Mapping[str, Array], preprocess: Preprocess) -> tuple[Array, ...]:
    """Arrays as the arguments of ``forward``; whole numbers of pictures as the network gets them."""
    import inspect

    known = [name for name in inspect.signature(model.forward).parameters if name in arrays]
    names = known if len(known) == len(arrays) else list(arrays)
    return tuple(_as_input(arrays[name], preprocess) for name in names)


def _as_input(array: Array, preprocess: Preprocess) -> Array:
    if array.ndim != 4:
        return array
    if array.dtype.kind in "iu" and (preprocess.resize is not None or preprocess.crop is not None):
        raise UsageError(
            "a torch module needs an example of its input", why="the data is resized", hint=source.NO_EXAMPLE
        )
    last = preprocess.layout == "nhwc" or (
        preprocess.layout == "auto"
        and array.dtype == np.uint8
        and array.shape[-1] in (1, 3)
        and array.shape[1] not in (1, 3)
    )
    moved = array.transpose(0, 3, 1, 2) if last else array
    return moved.astype(np.float32) if array.dtype == np.uint8 else moved


def _write(
    path: Path, data: _Once, specs: tuple[InputSpec, ...], *, labels: Any = None, classes: bool = True
) -> tuple[list[Any], int]:
    """Write all samples, of ``data`` to ``data.samples``; (what came beside them, their number)."""
    beside: list[Any] = []
    keep = data.name == "eval"
    with NpzWriter(path, data.name) as writer:
        for item in data.all():
            left = None if data.samples is None else data.samples - writer.count
            if left is not None and left <= 0:
                break
            arrays, single = _batch(item, specs, data.name)
            count = len(next(iter(arrays.values())))
            if keep and item.y is not None:
                beside += targets.rows(item.y, count, single)
            writer.add({key: array[:left] for key, array in arrays.items()})
            if left is not None and count >= left:
                break  # a generator is not asked for more than is taken
        if not writer.count:
            raise DataError(f"{data.name}: no samples")
        if labels is not None:
            if beside:
                raise UsageError("labels beside data that has its own", hint="Leave labels= out.")
            beside = targets.rows(labels, writer.count, single=False)
        known = targets.class_labels(beside)
        if beside and known is None and classes:
            why = f"the first is {np.asarray(beside[0]).dtype} of shape {np.shape(beside[0])}"
            hint = "Give metric=, a function that compares with them, or data without labels."
            raise DataError("eval: what comes beside the samples is no class", why=why, hint=hint)
        writer.finish({} if known is None or len(known) != writer.count else {forms.LABELS: known})
        return beside, writer.count


def _batch(item: Item, specs: tuple[InputSpec, ...], name: str) -> tuple[dict[str, Array], bool]:
    """An item's arrays under the names they have in the file, samples first; whether it was one sample."""
    found: dict[str, Array] = {}
    for spec in specs:
        array = _of_input(item.arrays, spec, len(specs), name)
        found[ALONE if len(specs) == 1 else spec.name] = array
    single = not item.whole and all(
        array.ndim == len(spec.shape) for array, spec in zip(found.values(), specs, strict=True)
    )
    return ({key: array[None] for key, array in found.items()} if single else found), single


def _of_input(arrays: Mapping[str, Array], spec: InputSpec, inputs: int, name: str) -> Array:
    if spec.name in arrays:
        return arrays[spec.name]
    if inputs == 1 and (ALONE in arrays or len(arrays) == 1):
        return arrays[ALONE] if ALONE in arrays else next(iter(arrays.values()))
    given = "one array" if set(arrays) == {ALONE} else ", ".join(arrays)
    raise DataError(
        f"{name}: no array for the input {spec.name!r}",
        why=f"got {given}",
        hint="Give a dict of arrays by input.",
    )
