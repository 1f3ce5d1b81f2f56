"""What a network lost at another size, in the terms of the task that it does, not of the shape that its outputs have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.search.loss import Reference
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.multi_label import MultiLabel
from edgec.compiler.tasks.task import Task
from edgec.graph.data import Dataset, open_data

BODY = "<float[4,3] w, float[4] c> { y = Gemm<transB=1>(x, w, c) }"
TWO = (
    "two (float[N,3] x) => (float[N,4] y, float[N,4] z) <float[4,3] w, float[4] c>"
    "{ y = Gemm<transB=1>(x, w, c)  z = Neg(y) }"
)


@pytest.fixture
def network(canonical) -> ir.Model:
    return canonical(f"net (float[N,3] x) => (float[N,4] y) {BODY}")


def moved(model: ir.Model, *, factor: float = 1.0, shift: float = 0.0) -> ir.Model:
    """All scores times ``factor``, and the first class's higher by ``shift``."""
    made = model.clone()
    for name, value in made.graph.initializers.items():
        array = value.const_value.numpy() * np.float32(factor)
        if name == "c":
            array = array + np.float32(shift) * np.eye(4, dtype=np.float32)[0]
        value.const_value = ir.tensor(array, name=name)
    return made


def losses(model: ir.Model, other: ir.Model, task: Task | None) -> np.ndarray:
    return Reference.of(model, task, samples(model), 1).losses(other)


def samples(model: ir.Model) -> Dataset:
    return open_data("random", model, samples=24)


def test_a_classifier_that_is_only_less_sure_lost_nothing(network: ir.Model) -> None:
    """Half the scores are the same answers: one temperature makes them equal."""
    assert losses(network, moved(network, factor=0.5), Classification(classes=4)).mean() < 1e-4
    assert losses(network, moved(network, shift=3.0), Classification(classes=4)).mean() > 0.01


@pytest.mark.parametrize("task", [None, MultiLabel(classes=4, threshold=0.0)], ids=["unknown", "multi-label"])
def test_as_many_numbers_that_are_no_classes_are_compared_as_numbers(
    network: ir.Model, task: Task | None
) -> None:
    """Each label has its own threshold: half the score is another answer, and a shift of all scores too."""
    assert losses(network, moved(network, factor=0.5), task).mean() > 0.1
    assert Reference.of(network, task, samples(network), 1).measure == "relative squared error"


@pytest.mark.parametrize("binary", ["logit", "probability"])
def test_one_number_for_yes(binary: str, canonical) -> None:
    """A softmax over one number is 1 whatever it is: yes and no are two classes."""
    sigmoid = (
        "z = Gemm<transB=1>(x, w, c)  y = Sigmoid(z)"
        if binary == "probability"
        else "y = Gemm<transB=1>(x, w, c)"
    )
    text = f"net (float[N,3] x) => (float[N,1] y) <float[1,3] w, float[1] c> {{ {sigmoid} }}"
    model = canonical(text)
    other = model.clone()
    value = other.graph.initializers["w"]
    value.const_value = ir.tensor(-value.const_value.numpy(), name="w")
    task = Classification(classes=2, binary=binary)
    assert losses(model, model.clone(), task).mean() < 1e-6
    assert losses(model, other, task).mean() > 0.01


def test_of_twins_the_worse_one_counts(canonical) -> None:
    model = canonical(TWO)
    other = model.clone()
    next(node for node in other.graph if node.op_type == "Neg").op_type = "Identity"
    task = Classification(classes=4, twins=(1,))
    assert losses(model, other, task).mean() > 0.01
    assert losses(model, other, Classification(classes=4)).mean() < 1e-6
