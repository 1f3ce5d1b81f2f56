"""distill-convex: what is emitted computes the formula, regions that cannot go say why, the guard, and the pipeline around it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.cost import cost
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import EdgecError, PassError, UnsupportedError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.graph.provenance import mark
from edgec.graph.verify import verify
from edgec.graph.views import ConvView
from edgec.passes.base import Progress
from edgec.passes.blocks.gated import block
from edgec.passes.blocks.gated.parts import parts_of
from edgec.passes.distill_convex import DistillConvex
from edgec.passes.pipeline_string import parse_pipeline, print_pass
from edgec.passes.refine import Refine
from edgec.passes.solvers.signs import signs

NET = """net (float[batch,3,8,8] x) => (float[batch,4] y)
<float[8,3,3,3] w0, float[8] b0, float[8,8,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[8,8,3,3] w4,
 float[12,8,3,3] w5, float[12,12,3,3] w6, float[12,8,1,1] ws, float[12,12,3,3] w7, float[12,12,3,3] w8, float[12,4] wy> {
    s = Conv<pads=[1,1,1,1]>(x, w0, b0)
    a = Relu(s)
    c1 = Conv<pads=[1,1,1,1]>(a, w1)
    r1 = Relu(c1)
    c2 = Conv<pads=[1,1,1,1]>(r1, w2)
    j1 = Add(c2, a)
    a1 = Relu(j1)
    c3 = Conv<pads=[1,1,1,1]>(a1, w3)
    r3 = Relu(c3)
    c4 = Conv<pads=[1,1,1,1]>(r3, w4)
    j2 = Add(c4, a1)
    a2 = Relu(j2)
    c5 = Conv<pads=[1,1,1,1], strides=[2,2]>(a2, w5)
    r5 = Relu(c5)
    c6 = Conv<pads=[1,1,1,1]>(r5, w6)
    p = Conv<strides=[2,2]>(a2, ws)
    j3 = Add(c6, p)
    a3 = Relu(j3)
    c7 = Conv<pads=[1,1,1,1]>(a3, w7)
    r7 = Relu(c7)
    c8 = Conv<pads=[1,1,1,1]>(r7, w8)
    j4 = Add(c8, a3)
    a4 = Relu(j4)
    g = GlobalAveragePool(a4)
    f = Flatten(g)
    y = MatMul(f, wy)
}"""

FAST = {"sweeps": 3, "follow": 3, "limit": 3000, "refine": 0}


@pytest.fixture
def net(canonical) -> ir.Model:
    return canonical(NET)


@pytest.fixture
def told(net, noise, context):
    return context(net.clone(), noise(net, 40))


def blocks_of(model: ir.Model) -> list[str]:
    from edgec.graph.regions import regions

    return [block.name for block in regions(model)]


def values(model: ir.Model, data: Dataset, *names: str) -> list[np.ndarray]:
    found = Executor(model, outputs=names).run(next(iter(data.batches(100))))
    return [found[name] for name in names]


def patches(z: np.ndarray, stride: int) -> np.ndarray:
    """(n, h, w, c, 3, 3), zero padded."""
    padded = np.pad(z.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5)


def formula(model: ir.Model, name: str, z: np.ndarray, stride: int) -> np.ndarray:
    """``C3( C2(z) * Clip(C1(z), 0, 1) )`` of the block ``name``, in float64."""
    views = {node.name: ConvView(node) for node in model.graph if node.op_type == "Conv"}
    p = patches(z, stride)

    def conv(role: str) -> np.ndarray:
        view = views[f"{name}/{role}"]
        return np.einsum("nhwcij,ocij->nhwo", p, view.weight.astype(np.float64)) + view.bias

    gated = f"{name}/gate" in views
    inner = conv("value") * np.clip(conv("gate"), 0, 1) if gated else np.maximum(conv("value"), 0)
    out = views[f"{name}/out"]
    return (
        np.einsum("nhwk,ok->nohw", inner, out.weight[:, :, 0, 0].astype(np.float64)) + out.bias[:, None, None]
    )


def test_a_block_computes_the_formula(net, told):
    result = DistillConvex(region="block2", **FAST).run(net.clone(), told)
    assert result.modified
    verify(result.model)
    z, made = values(result.model, told.data, "a1", "j2")
    np.testing.assert_allclose(made, formula(result.model, "block2", z, 1) + z, rtol=1e-5, atol=1e-5)
    ops = [node.op_type for node in result.model.graph if (node.name or "").startswith("block2/")]
    assert ops == ["Conv", "Conv", "Clip", "Mul", "Conv", "Add"]


def test_a_relu_block_computes_the_formula(net, told):
    result = DistillConvex(region="block2", lower="relu", width=12, **FAST).run(net.clone(), told)
    z, made = values(result.model, told.data, "a1", "j2")
    np.testing.assert_allclose(made, formula(result.model, "block2", z, 1) + z, rtol=1e-5, atol=1e-5)
    ops = [node.op_type for node in result.model.graph if (node.name or "").startswith("block2/")]
    assert ops == ["Conv", "Relu", "Conv", "Add"]


def test_a_strided_region_keeps_the_skip_it_had(net, told):
    result = DistillConvex(region="block3..block4", blocks=2, **FAST).run(net.clone(), told)
    verify(result.model)
    z, made, skip = values(result.model, told.data, "a2", "j3", "p")
    np.testing.assert_allclose(made, formula(result.model, "block3", z, 2) + skip, rtol=1e-5, atol=1e-5)
    a3, made = values(result.model, told.data, "a3", "j4")
    np.testing.assert_allclose(made, formula(result.model, "block4", a3, 1) + a3, rtol=1e-5, atol=1e-5)


def test_a_skip_that_several_blocks_share_is_projected(net, told):
    (part,) = parts_of(net, "block2..block3", 1)
    assert part.projected
    result = DistillConvex(region="block2..block3", **FAST | {"refine": 2}).run(net.clone(), told)
    verify(result.model)
    z, made = values(result.model, told.data, "a1", "j3")
    view = next(ConvView(node) for node in result.model.graph if node.name == "block2-block3/skip")
    skip = np.einsum("nchw,oc->nohw", z[:, :, ::2, ::2], view.weight[:, :, 0, 0]) + view.bias[:, None, None]
    expected = formula(result.model, "block2-block3", z, 2) + skip
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_the_gate_is_counted(net, told):
    gated = DistillConvex(region="block2", **FAST).run(net.clone(), told)
    relu = DistillConvex(region="block2", lower="relu", **FAST).run(net.clone(), told)
    pixels, taps = 64, 9 * 8
    assert cost(gated.model).macs - cost(relu.model).macs == pixels * taps * 8
    assert any("cost more" in note.text for note in gated.notes)


def test_a_region_that_a_relu_block_made_is_matched(canonical, noise, context):
    text = """net (float[batch,4,6,6] x) => (float[batch,4,6,6] y) <float[6,4,3,3] w, float[6] b, float[4,6,1,1] v> {
        c = Conv<pads=[1,1,1,1]>(x, w, b)
        r = Relu(c)
        d = Conv(r, v)
        y = Add(d, x)
    }"""
    model = canonical(text)
    told = context(model.clone(), noise(model, 60))
    result = DistillConvex(region="block1", lower="relu", width=6, follow=60, ridge=1e-6).run(
        model.clone(), told
    )
    assert result.data["error"] < 1e-3
    assert result.data["error"] < 0.1 * result.data["removal_error"]


def test_several_blocks_match_the_sums_between(net, told):
    result = DistillConvex(region="block1..block2", blocks=2, width=16, **FAST).run(net.clone(), told)
    assert [part["name"] for part in result.data["parts"]] == ["block1", "block2"]
    assert len(result.layers) == 2
    assert all(layer.error_after < layer.error_before for layer in result.layers)
    names = {value.name for node in result.model.graph for value in node.outputs}
    assert {"j1", "a1", "j2", "a2"} <= names


def test_joint_steps_lower_the_error_of_the_fitted_run(net, noise, context):
    told = context(net.clone(), noise(net, 200))
    plain = DistillConvex(region="block1..block2", blocks=2, lower="relu", **FAST).run(net.clone(), told)
    joint = DistillConvex(region="block1..block2", blocks=2, lower="relu", **FAST | {"refine": 12}).run(
        net.clone(), told
    )
    assert joint.data["error"] < plain.data["error"]


def test_blocks_behind_a_skip_that_computes_are_not_moved_together_and_it_says_so(net, told):
    result = DistillConvex(region="block2..block3", blocks=2, **FAST | {"refine": 4}).run(net.clone(), told)
    (note,) = [note for note in result.notes if "not moved together" in note.text]
    assert note.node == "block3"
    single = DistillConvex(region="block2", **FAST | {"refine": 4}).run(net.clone(), told)
    assert not any("not moved together" in note.text for note in single.notes)


def test_a_quantised_model_is_refused(net, told):
    for one in parse_pipeline("quantize"):
        quantised = one.run(net.clone(), told).model
    with pytest.raises(PassError, match="quantised already"):
        DistillConvex(region="block2").requires(quantised)


@pytest.mark.parametrize("penalty", ["nuclear", "group-lasso", "ridge"])
def test_the_convex_solver_leaves_a_certificate(net, told, penalty):
    one = DistillConvex(
        region="block2", solver="convex", gates="patches", gate_count=4, penalty=penalty, **FAST
    )
    result = one.run(net.clone(), told)
    assert result.data["parts"][0]["gap"] <= 1e-4
    assert any("relative duality gap" in note.text for note in result.notes)
    z, made = values(result.model, told.data, "a1", "j2")
    np.testing.assert_allclose(made, formula(result.model, "block2", z, 1) + z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gates", ["patches", "teacher"])
def test_filters_of_the_convex_solution_point_where_their_gates_are_open(gates, net, told, monkeypatch):
    """Singular vectors come with any sign, and a ReLU block is not the same with the other one."""
    options = {"solver": "convex", "lower": "relu", "gates": gates, "gate_count": 8, **FAST}

    def error() -> float:
        return DistillConvex(region="block2", **options).run(net.clone(), told).data["parts"][0]["hard"]

    right = error()
    monkeypatch.setattr(block, "signs", lambda vectors, row: -signs(vectors, row))
    assert right < 0.95 * error()


def test_an_unsolved_problem_is_taken_back_with_its_gap(net, told):
    result = DistillConvex(region="block2", solver="convex", limit=2, tolerance=1e-12).run(net.clone(), told)
    assert not result.modified
    assert [note.level for note in result.notes] == ["reverted"]
    assert "after 2 iterations" in result.notes[0].text
    assert result.data["gap"] > 1e-12
    assert [node.name for node in result.model.graph] == [node.name for node in net.graph]


def test_a_convex_problem_that_is_too_large_says_how_many_gates_fit(net, told):
    one = DistillConvex(region="block2", solver="convex", gate_count=500)
    with pytest.raises(PassError, match="gate-count=164"):
        one.run(net.clone(), told)


def test_max_error_takes_it_back(net, told):
    result = DistillConvex(region="block2", max_error=1e-9, **FAST).run(net.clone(), told)
    assert not result.modified
    assert any(note.level == "reverted" and "max-error" in note.text for note in result.notes)
    assert [node.name for node in result.model.graph] == [node.name for node in net.graph]


GRAFT = {"graft": "auto", "steps": 40}


def untouched(model: ir.Model, net: ir.Model) -> bool:
    """Whether all that both hold is the same."""
    mine, old = (
        {name: one.const_value.numpy() for name, one in each.graph.initializers.items()}
        for each in (model, net)
    )
    return all(np.array_equal(mine[name], old[name]) for name in mine.keys() & old.keys())


def lost(model: ir.Model, net: ir.Model, data: Dataset) -> float:
    mine, right = (values(each, data, "y")[0] for each in (model, net))
    return float(np.square(mine - right).sum())


def test_a_graft_moves_the_new_blocks_alone_and_comes_nearer_to_the_source(net, noise, context):
    pytest.importorskip("torch")
    around, fresh = context(net.clone(), noise(net, 200)), noise(net, 200, seed=5)
    closed = DistillConvex(region="block2", width=2, **FAST).run(net.clone(), around)
    result = DistillConvex(region="block2", width=2, graft="yes", steps=150, **FAST).run(net.clone(), around)
    assert result.modified
    assert untouched(result.model, net)
    assert lost(result.model, net, fresh) < 0.9 * lost(closed.model, net, fresh)
    assert result.data["settled"] == {"steps": 150}


def test_a_graft_goes_on_where_the_convex_problem_was_not_solved(net, told):
    pytest.importorskip("torch")
    one = DistillConvex(region="block2", solver="convex", limit=2, tolerance=1e-12, **GRAFT)
    result = one.run(net.clone(), told)
    assert result.modified
    assert any(note.level == "warning" and "was not solved" in note.text for note in result.notes)
    assert untouched(result.model, net)


def test_a_closed_form_that_is_kept_is_not_grafted_by_itself(net, told):
    pytest.importorskip("torch")
    plain, auto = (
        DistillConvex(region="block2", **FAST, **more).run(net.clone(), told) for more in ({}, GRAFT)
    )
    assert plain.modified
    np.testing.assert_array_equal(*(values(each.model, told.data, "y")[0] for each in (plain, auto)))


def test_what_a_graft_does_not_mend_is_taken_back_too(net, told):
    pytest.importorskip("torch")
    result = DistillConvex(region="block2", max_error=1e-9, **FAST, **GRAFT).run(net.clone(), told)
    assert not result.modified
    assert any(note.level == "reverted" and "max-error" in note.text for note in result.notes)


def test_refine_may_learn_in_what_one_pass_made_only(net, told):
    pytest.importorskip("torch")
    made = DistillConvex(region="block2", width=2, **FAST).run(net.clone(), told).model
    with pytest.raises(PassError, match="no pass made any"):
        Refine(only="distill-convex", steps=3).run(net.clone(), told)
    mark(net, made, "distill-convex")
    with pytest.raises(PassError, match="those that made some: distill-convex"):
        Refine(only="compress", steps=3).run(made.clone(), told)
    result = Refine(only="distill-convex", steps=60).run(made.clone(), told)
    assert result.modified
    assert untouched(result.model, net)
    assert lost(result.model, net, told.data) < lost(made, net, told.data)


@pytest.mark.parametrize("graft", ["auto", "yes"])
def test_a_graft_needs_torch(net, graft, monkeypatch):
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=f"graft={graft}.* needs torch"):
        DistillConvex(region="block2", graft=graft).complete()
    with pytest.raises(UsageError, match="needs torch"):
        DistillConvex(region="block2", graft=graft).requires(net)


@pytest.mark.parametrize("gates", ["teacher", "patches", "gaussian"])
def test_every_source_of_gates_is_reproducible(net, told, gates):
    one = DistillConvex(region="block2", gates=gates, **FAST)
    first, second = (one.run(net.clone(), told).model for _ in range(2))
    np.testing.assert_array_equal(*(values(model, told.data, "y")[0] for model in (first, second)))
    other = DistillConvex(region="block2", gates=gates, seed=5, **FAST).run(net.clone(), told).model
    assert not np.array_equal(values(first, told.data, "y")[0], values(other, told.data, "y")[0])


def test_the_soft_edge_is_reported(net, told):
    result = DistillConvex(region="block2", edge=0.5, **FAST).run(net.clone(), told)
    (part,) = result.data["parts"]
    assert part["soft"] != part["hard"]
    assert any("soft edge" in note.text for note in result.notes)


def test_few_rows_are_noted(net, noise, context):
    told = context(net.clone(), noise(net, 40))
    result = DistillConvex(region="block2", rows=50, **FAST).run(net.clone(), told)
    assert any("fewer rows" in note.text for note in result.notes)


def test_nodes_and_values_name_a_region(net):
    nodes = {node.outputs[0].name: node.name for node in net.graph}
    (by_node,) = parts_of(net, f"{nodes['c3']}..{nodes['a2']}", 1)
    (by_value,) = parts_of(net, "a1..j2", 1)
    (by_block,) = parts_of(net, "block2", 1)
    assert {(one.input, one.output, one.skip) for one in (by_node, by_value, by_block)} == {("a1", "j2", ())}


@pytest.mark.parametrize(
    ("region", "blocks", "why"),
    [
        ("blok2", 1, "Did you mean 'block2'"),
        ("block2..blok3", 1, "Did you mean 'block3'"),
        ("r1..j2", 1, "one input and one output"),
        ("s..c1", 1, "one input and one output"),
        ("a2..a1", 1, "does not depend on"),
        ("block1..block2", 3, "holds 2 residual blocks"),
    ],
)
def test_regions_that_cannot_go_say_why(net, region, blocks, why):
    with pytest.raises(UsageError) as error:
        parts_of(net, region, blocks)
    assert why in str(error.value)


def test_a_flat_end_is_refused(net):
    with pytest.raises(UnsupportedError, match="no feature maps"):
        parts_of(net, "a4..y", 1)


def test_a_region_that_data_does_not_reach(canonical):
    text = """net (float[batch,4,6,6] x) => (float[batch,4,6,6] y) <float[4,4,3,3] w, float[4,4,1,1] v> {
        c = Conv<pads=[1,1,1,1]>(x, w)
        r = Relu(c)
        y = Conv(r, v)
    }"""
    model = canonical(text)
    dead = ir.Value(name="dead", shape=model.graph.outputs[0].shape, type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.append(
        ir.Node("", "Relu", [next(n for n in model.graph).outputs[0]], outputs=[dead], name="dead_relu")
    )
    with pytest.raises(UsageError, match="no data reaches it"):
        parts_of(model, "c..dead", 1)


def test_constant_activations_are_refused(net, context):
    spec = InputSpec.of(net)
    zeros = {"x": np.zeros((10, 3, 8, 8), np.float32)}
    data = Dataset("zeros", ArraySource(zeros, Preprocess(layout="nchw"), spec), tuple(range(10)))
    model = net.clone()
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) > 2 and node.inputs[2] is not None:
            ConvView(node).set(bias=np.zeros(ConvView(node).out_channels, np.float32))
    with pytest.raises(PassError, match="nothing to match"):
        DistillConvex(region="block2").run(model, context(model.clone(), data))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "region"),
        ({"region": "block1", "blocks": 0}, "blocks"),
        ({"region": "block1", "ridge": 0.0}, "ridge"),
        ({"region": "block1", "edge": 1.0}, "edge"),
    ],
)
def test_options_are_checked(options, word):
    with pytest.raises(UsageError, match=word):
        DistillConvex(**options)


def test_without_data_it_refuses(net, context):
    with pytest.raises(EdgecError, match="calibration data"):
        DistillConvex(region="block2").run(net, context(net.clone()))


def test_pipeline_string_round_trip():
    text = "distill-convex{region=block19..block27 blocks=3 solver=convex lower=relu ridge=0.01 gate-count=4} recover-lsq"
    assert " ".join(map(print_pass, parse_pipeline(text))) == text


def test_interruption_goes_through(net, told):
    from dataclasses import replace

    class Stop(Progress):
        def step(self, label: str, done: int, total: int) -> None:
            if "gates follow" in label:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DistillConvex(region="block2", **FAST).run(net.clone(), replace(told, progress=Stop()))


def test_int8_has_plain_ops_only(net, told):
    """The gate saturates in the convolution's own output codes: CONV_2D, MUL and ADD are all that the block needs."""
    from edgec.compiler.emit.tflite import emit
    from edgec.graph.tflite.read import read

    model = DistillConvex(region="block2", **FAST).run(net.clone(), told).model
    wanted = values(model, told.data, "y")[0]
    for one in parse_pipeline("quantize"):
        model = one.run(model, told).model
    data = emit(model, precision="int8", batch=1)
    names = {op.code for op in read(data).operators}
    assert names <= {
        "QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "CONV_2D", "MUL", "ADD", "MINIMUM", "MAXIMUM", "RELU",
        "AVERAGE_POOL_2D", "MEAN", "RESHAPE", "FULLY_CONNECTED", "PAD",
    }  # fmt: skip
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    made = litert.Interpreter(model_content=data, num_threads=1)
    made.allocate_tensors()
    found = []
    for x in next(iter(told.data.batches(40)))["x"]:
        made.set_tensor(made.get_input_details()[0]["index"], x[None])
        made.invoke()
        found.append(made.get_tensor(made.get_output_details()[0]["index"])[0])
    error = np.square(np.array(found) - wanted).sum() / np.square(wanted).sum()
    assert error < 0.01
