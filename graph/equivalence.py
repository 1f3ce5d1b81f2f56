"""Does a transformed graph still compute the source model's function? Checked by running both on random input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.execute import Executor, session

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLES = 2
MOST_NOISE = 0.01
"""Of an output's range: where the last digits of the inputs decide more, nothing is allowed for them."""


class ChangedError(ModelError):
    """A graph does not compute what its source does."""


@dataclass(frozen=True)
class Reference:
    """Random inputs and what the source model makes of them, one run at a time."""

    inputs: tuple[dict[str, Array], ...]
    outputs: tuple[list[Array], ...]
    noise: float = 0.0
    """Of an output's range, what the last digits decide in the source itself: no other form can be held to less."""

    @staticmethod
    def of(source: onnx.ModelProto, *, fused: bool = True) -> Reference:
        """Run ``source`` on ``SAMPLES`` random inputs; without ``fused`` as it is written, not as the runtime rewrites it.

        Raises UnsupportedError where onnxruntime cannot, and for outputs that are no tensors.
        """
        runner = session(source, fused=fused)
        inputs = tuple(random_inputs(source.graph.input, seed) for seed in range(SAMPLES))
        try:
            outputs = tuple(list(runner.run(None, feeds)) for feeds in inputs)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            why = " ".join(str(error).split())[:300]
            raise UnsupportedError("onnxruntime cannot run the model", why=why) from error
        for sample in outputs:
            for value, got in zip(source.graph.output, sample, strict=True):
                if not isinstance(got, np.ndarray):  # a sequence, a map, or an optional one that is not there
                    kind = "nothing" if got is None else f"a {type(got).__name__}"
                    raise UnsupportedError(
                        "only tensors can be given out", where=f"output {value.name!r}", why=f"it is {kind}"
                    )
        return Reference(inputs, outputs)

    def with_noise(self, source: onnx.ModelProto) -> Reference:
        """The same, with what ``source`` makes of inputs that differ in their last digits.

        A Sigmoid may answer random numbers with 1e-5 everywhere; of that range the last digits of 1 are much.
        """
        runner, rng, apart = session(source, fused=False), np.random.default_rng(SAMPLES), 0.0
        for feeds, expected in zip(self.inputs, self.outputs, strict=True):
            got = runner.run(None, {name: moved(array, rng) for name, array in feeds.items()})
            apart = max(apart, *(worst_difference(a, b) for a, b in zip(expected, got, strict=True)))
        return replace(self, noise=noise_from(apart))

    def matches_batched(self, model: ir.Model, tolerance: float) -> bool:
        """Does ``model``, fed all samples as one batch, give the samples' outputs stacked?"""
        feeds = {name: np.concatenate([sample[name] for sample in self.inputs]) for name in self.inputs[0]}
        try:
            got = list(Executor(model).run(feeds).values())
        except (ModelError, UnsupportedError):
            return False
        for index, value in enumerate(got):
            parts = [sample[index] for sample in self.outputs]
            if value.ndim == 0 or any(part.shape[1:] != value.shape[1:] or not part.ndim for part in parts):
                return False
            if worst_difference(np.concatenate(parts), value) > max(tolerance, self.noise):
                return False
        return True

    def matches_singly(self, model: ir.Model, tolerance: float) -> bool:
        """Does ``model``, fed the samples of every reference batch one by one, give that batch?"""
        try:
            executor = Executor(model)
            found = [list(executor.run(feeds).values()) for feeds in self.inputs]
        except (ModelError, UnsupportedError):
            return False
        pairs = [
            pair
            for mine, theirs in zip(found, self.outputs, strict=True)
            for pair in zip(theirs, mine, strict=True)
        ]
        return all(worst_difference(theirs, mine) <= max(tolerance, self.noise) for theirs, mine in pairs)

    def with_batch(self) -> Reference:
        """The same with an axis of 1 in front of everything."""
        inputs = tuple({name: array[None] for name, array in sample.items()} for sample in self.inputs)
        outputs = tuple([array[None] for array in sample] for sample in self.outputs)
        return replace(self, inputs=inputs, outputs=outputs)

    def check(self, model: ir.Model, tolerance: float) -> None:
        """Raise ChangedError, naming the output and the difference, unless ``model`` gives the same sample by sample."""
        executor = Executor(model)
        for feeds, expected in zip(self.inputs, self.outputs, strict=True):
            got = executor.run(feeds)
            for (name, value), reference in zip(got.items(), expected, strict=True):
                # A fixed graph gives its samples an axis of their own: a scalar comes as one value of one sample.
                same = value.reshape(reference.shape) if value.size == reference.size else value
                difference = worst_difference(reference, same)
                if not difference <= max(tolerance, self.noise):
                    why = f"it differs by {difference:.2g} of its range from what the model gave before"
                    raise ChangedError("the function changed", where=f"output {name!r}", why=why)


def random_inputs(values: Any, seed: int) -> dict[str, Array]:
    """Random feeds for the inputs of an ONNX graph; open dimensions become 1."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.WhichOneof("value") == "dim_value" else 1 for dim in tensor.shape.dim]
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        except KeyError:
            raise UnsupportedError("its element type is unknown", where=f"input {value.name!r}") from None
        feeds[value.name] = _random(rng, shape, np.dtype(dtype))
    return feeds


def _random(rng: np.random.Generator, shape: list[int], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    raise UnsupportedError(f"inputs of type {dtype} are not supported")


def noise_from(apart: float) -> float:
    """What is allowed where answers to inputs that were `moved` lie ``apart``, of their range."""
    return 2 * apart if apart <= MOST_NOISE else 0.0


def moved(array: Array, rng: np.random.Generator) -> Array:
    """Each real number by a last digit, up or down."""
    if array.dtype.kind != "f":
        return array
    return np.asarray(np.nextafter(array, array + rng.choice([-1, 1], array.shape).astype(array.dtype)))


def worst_difference(reference: Array, value: Array) -> float:
    """The largest difference over the range of ``reference``; infinite where the shapes differ.

    Values that are not numbers must agree; of whole numbers and booleans the fraction that differs is given.
    """
    if reference.shape != value.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    if reference.dtype.kind != "f":
        return float(np.mean(reference != value))
    wide, got = reference.astype(np.float64), value.astype(np.float64)
    finite = np.isfinite(wide)
    same_special = np.array_equal(wide[~finite], got[~finite], equal_nan=True)
    if not same_special:
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(wide[finite]).max())
    return float(np.abs(wide[finite] - got[finite]).max()) / (scale or 1.0)
