"""What a task says of its answers decides how a network is quantised: outliers that change none saturate, layers that ruin them stay
float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import Executor
from edgec.passes.base import Context, PassResult
from edgec.passes.quantize.mixed import Sensitivity
from edgec.passes.quantize.quantiser import Quantize
from edgec.passes.quantize.rulers import ByAnswers
from edgec.passes.quantize.several import LEAST_DB, PROBE_SAMPLES, _telling, _too_coarse

NET = """net (float[N,2,8,8] x) => (float[N,1,8,8] y)
  <float[2,2,1,1] w = {1, 0, 0, 200}, float[1,2,1,1] head = {4, -100}, float[1] b = {-3}>
  { t = Conv(x, w)  h = Relu(t)  y = Conv(h, head, b) }"""
"""Logits between -3 and 1, but -20,000 where the second channel is 1: background that is none the more so for it."""


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -60, 60)))


@dataclass(frozen=True)
class Objects:
    """Pixels whose Sigmoid is above a half."""

    def energies(self, source, ours):
        a, b = (_sigmoid(one[0]).reshape(len(one[0]), -1) for one in (source, ours))
        return (a * a).sum(axis=1) + 0.25, ((a - b) ** 2).sum(axis=1)

    def kept(self, source, ours):
        wanted = source[0] > 0
        return int((wanted & (ours[0] > 0)).sum()), int(wanted.sum())

    def at(self, size):
        return self


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Few objects: most pixels of the first channel are low, some of the second are 1."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, 2, 8, 8), np.float32)
    x[:, 0] = rng.uniform(0, 0.7, (count, 8, 8)) + 0.3 * (rng.random((count, 8, 8)) < 0.03)
    x[:, 1] = rng.random((count, 8, 8)) < 0.05
    return x


@pytest.fixture
def model(canonical: Callable[..., ir.Model]) -> ir.Model:
    return canonical(NET)


def dataset(model: ir.Model, x: np.ndarray, folder: Path) -> Dataset:
    np.savez(folder / "x.npz", x=x)
    return open_data(folder / "x.npz", model)


def quantised(model: ir.Model, folder: Path, answers: Objects | None) -> PassResult:
    context = Context(model, folder, dataset(model, pictures(48), folder), answers=answers)
    return Quantize(correct="round").run(model.clone(), context)


def kept(model: ir.Model, made: ir.Model) -> float:
    x = {"x": pictures(200, seed=9)}
    outputs = [list(Executor(one).run(x).values()) for one in (model, made)]
    found, count = Objects().kept(*outputs)
    assert count > 20
    return found / count


def test_logits_that_mean_nothing_do_not_make_the_others_coarse(model: ir.Model, tmp_path: Path) -> None:
    plain, told = (quantised(model, tmp_path, answers) for answers in (None, Objects()))
    assert kept(model, plain.model) == 0.0
    assert kept(model, told.model) > 0.97
    assert plain.data["tensors"]["y"]["scale"] > 50
    assert told.data["tensors"]["y"]["scale"] < 0.2
    assert any("saturates" in note.text for note in told.notes)
    assert not any("stays float" in note.text for note in told.notes)
    assert told.data["agreement"] > 0.9
    assert plain.data["sqnr_db"] > 30  # which is why errors of the values say nothing of it


def test_samples_that_saturate_all_over_neither_teach_nor_judge(model: ir.Model, tmp_path: Path) -> None:
    x = pictures(48)
    x[::3, 1] = 1.0
    context = Context(model, tmp_path, dataset(model, x, tmp_path), answers=Objects())
    told = Quantize(correct="round").run(model.clone(), context)
    assert any("saturates" in note.text for note in told.notes)
    assert kept(model, told.model) > 0.9


def test_the_samples_with_the_most_answers_are_looked_at(model: ir.Model, tmp_path: Path) -> None:
    x = pictures(60)
    x[:, 0] *= 0.1
    full = [3, 17, 18, 25, 40, 41, 50, 59]
    x[full, 0, 2:6, 2:6] = 1.0
    context = Context(model, tmp_path, dataset(model, x, tmp_path), answers=Objects())
    assert context.data is not None
    assert list(_telling(model, context.data, context).indices) == full
    assert len(full) == PROBE_SAMPLES


def test_errors_of_layers_add_up() -> None:
    ranked = [Sensitivity(str(number), (str(number),), decibels) for number, decibels in enumerate([5.0, 18.0, 26.0, 26.0, 90.0])]  # fmt: skip
    assert [one.unit for one in _too_coarse(ranked, whole=True)] == ["0", "1"]
    many = [Sensitivity(str(number), (str(number),), 26.0) for number in range(12)]
    assert len(_too_coarse(many, whole=True)) == 9  # three of 26 dB leave 21.2, four 20.0
    assert _too_coarse(many[:3], whole=True) == ()
    assert len(_too_coarse(many, whole=False)) == 0
    assert many[0].sqnr_db > LEAST_DB


def test_without_answers_nothing_counts() -> None:
    ruler = ByAnswers(Objects())
    nothing = [np.full((3, 1, 2, 2), -9.0)]
    ruler.add(nothing, nothing, None)
    assert ruler.sqnr_db() == np.inf
    assert ruler.agreement() == (1.0, 0.0)
    ruler.add([np.full((1, 1, 2, 2), 3.0)], [np.array([[[[3.0, 3.0], [3.0, -3.0]]]])], None)
    assert ruler.agreement() == (0.75, 25.0)
    assert ruler.decibels().shape == (1, 4)
    assert ruler.decibels()[0, :3].tolist() == [100.0] * 3
