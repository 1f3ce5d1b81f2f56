"""normalise, fold, cast-fp16: what they change, and that the function stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.compiler.pipeline.checks import check_result
from edgec.graph.cost import cost
from edgec.graph.execute import Executor
from edgec.passes.cast_fp16 import CastFp16
from edgec.passes.fold import Fold
from edgec.passes.normalise import Normalise
from tests.conftest import parse

NET = (
    "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w, float[4] b>"
    "{ c = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(c)  y = Identity(r) }"
)


def test_fold_removes_identities_and_affines(context) -> None:
    text = NET.replace("r = Relu(c)", "k = Constant<value = float[1,4,1,1] {2,3,4,5}>()  r = Mul(c, k)")
    model = ir.from_proto(parse(text))
    from edgec.graph.tidy import infer_shapes

    infer_shapes(model)
    before = model.clone()
    result = Fold().run(model, context(before))
    assert [node.op_type for node in result.model.graph] == ["Conv"]
    check_result(Fold(), before, result)


def test_normalise_names_and_sorts(canonical, context) -> None:
    model = canonical(NET)
    for node in model.graph:
        node.name = None
    result = Normalise().run(model, context(model))
    assert all(node.name for node in result.model.graph)


def test_fp16_halves_the_weights_and_hardly_moves_the_output(canonical, context) -> None:
    model = canonical(NET)
    result = CastFp16().run(model.clone(), context(model))
    assert cost(result.model).weight_bytes == cost(model).weight_bytes // 2
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    a, b = Executor(model).run({"x": x})["y"], Executor(result.model).run({"x": x})["y"]
    assert 0 < np.abs(a - b).max() < 2e-3 * np.abs(a).max()


def test_fp16_leaves_what_overflows(canonical, context) -> None:
    model = canonical(NET)
    weight = next(iter(model.graph)).inputs[1]
    from edgec.graph.views import constant, set_constant

    set_constant(weight, constant(weight) * 1e6)
    result = CastFp16().run(model, context(model))
    assert any(note.level == "warning" and "overflows" in note.text for note in result.notes)
    assert not result.modified
