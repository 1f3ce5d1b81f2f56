"""Einsum becomes the ops that it stands for: the same numbers as numpy's, by every form of equation that has one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.canonicalise import canonicalise
from edgec.graph.einsum import Equation, parse
from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import Executor
from edgec.graph.views import is_constant

SIZES = {"b": 3, "n": 4, "m": 6, "h": 2, "d": 5, "e": 7, "c": 8, "i": 3, "j": 4, "x": 2, "y": 3}
COMPUTED = [
    "bnd,bmd->bnm", "bhnd,bhmd->bhnm", "bnhd,bmhd->bhnm", "bhnm,bmhd->bnhd", "bnd,bme->bnm",
    "bcij,bc->bcij", "bc,bcij->bijc", "bcij,bcij->bij", "bi,bj->bij", "bc,bc->b", "bcij,bnij->bcn",
    "bcxy,bdxy->bcd", "bnxd,bmyd->bnxmy", "bnd,bmd,bmc->bnc", "b...d,b...d->b...", "b...nd,b...md->b...nm", " bnd , bmd -> bnm ",
]  # fmt: skip
BY_CONSTANT = [
    ("bnd,de->bne", 1), ("bnd,ed->bne", 1), ("de,bnd->bne", 0), ("bcij,ec->beij", 1), ("bcij,c->bij", 1), ("...d,de->...e", 1),
    ("bnd,hde->bhne", 1), ("bnd,dhe->bhne", 1), ("bhnd,hde->bne", 1), ("bcij,cij->b", 1), ("bcij,cijd->bd", 1), ("bnd,nd->bnd", 1), ("bnd,de", 1),
]  # fmt: skip
ALONE = ["bnd->bdn", "bnd->bn", "bcij->bji", "bn...->b...n", "bnd"]


def _shape(term: str) -> list[int]:
    return [SIZES[letter] for letter in term.strip().replace("...", "xy" if term.strip() != "...d" else "bn")]


def _model(
    equation: str, arrays: list[np.ndarray], constant: int | None, batch: int | str
) -> onnx.ModelProto:
    names = [f"in{number}" for number in range(len(arrays))]
    nodes, inputs, stored = [], [], []
    for number, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if number == constant:
            stored.append(numpy_helper.from_array(array, name))
            continue
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *array.shape[1:]]))
        nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_s"]))
        names[number] = f"{name}_s"
    nodes.append(helper.make_node("Einsum", names, ["y"], name="product", equation=equation))
    out = np.einsum(equation, *arrays).shape
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(out))
    graph = helper.make_graph(nodes, "g", inputs, [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CASES: list[tuple[str, int | None, int | str]] = [
    *((equation, None, "N") for equation in COMPUTED + ALONE),
    *((equation, constant, "N") for equation, constant in BY_CONSTANT),
    *((equation, None, batch) for equation in ("bnhd,bmhd->bhnm", "bcxy,bdxy->bcd") for batch in (1, 3)),
]


@pytest.mark.parametrize(("equation", "constant", "batch"), CASES)
def test_an_einsum_is_written_out(equation: str, constant: int | None, batch: int | str) -> None:
    random = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    arrays = [random.standard_normal(_shape(term)).astype(np.float32) for term in terms]
    if batch == 1:
        arrays = [array if number == constant else array[:1] for number, array in enumerate(arrays)]
    try:
        model = canonicalise(_model(equation, arrays, constant, batch))
    except UnsupportedError as error:  # 1.23 fails at a sum whose rest is turned, 1.31 does not
        if "onnxruntime cannot run the model" in str(error):
            pytest.skip(str(error))
        raise
    assert "Einsum" not in {node.op_type for node in model.graph}
    feeds = {f"in{number}": array for number, array in enumerate(arrays) if number != constant}
    seen = [
        array if number == constant else 1 / (1 + np.exp(-array.astype(np.float64)))
        for number, array in enumerate(arrays)
    ]
    np.testing.assert_allclose(
        Executor(model).run(feeds)["y"], np.einsum(equation, *seen), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("equation", ["bnd,ed->bne", "ed,bnd->bne", "bcij,ec->beij"])
def test_a_constant_matrix_makes_a_layer_that_goes_by_the_name_of_the_einsum(equation: str) -> None:
    terms = equation.partition("->")[0].split(",")
    arrays = [np.ones(_shape(term), np.float32) for term in terms]
    constant = terms.index(min(terms, key=len))
    graph = canonicalise(_model(equation, arrays, constant, "N")).graph
    layers = [node for node in graph if node.op_type in ("MatMul", "Gemm", "Conv")]
    assert [node.name for node in layers] == ["product"]
    assert is_constant(layers[0].inputs[1])


def test_what_takes_a_diagonal_stays() -> None:
    arrays = [np.ones((3, 4, 4), np.float32)]
    model = canonicalise(_model("bnn->bn", arrays, None, "N"))
    assert [node.op_type for node in model.graph] == ["Sigmoid", "Einsum"]


@pytest.mark.parametrize(
    ("text", "ranks", "expected"),
    [
        ("ij,jk", [2, 2], Equation((("i", "j"), ("j", "k")), ("i", "k"))),
        ("...i,...i", [3, 2], Equation(((".2", ".1", "i"), (".1", "i")), (".2", ".1"))),
        ("a...->...a", [3], Equation((("a", ".2", ".1"),), (".2", ".1", "a"))),
        ("ii->i", [2], None),
        ("ij->ik", [2], None),
        ("ij", [3], None),
        ("ij,jk->ik", [2], None),
    ],
)
def test_equations_are_read(text: str, ranks: list[int], expected: Equation | None) -> None:
    assert parse(text, ranks) == expected
