"""Quantised graphs in torch: the executor rounds as onnxruntime does, and `refine-quantized` learns codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

import edgec
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import constant
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.judge import Score
from edgec.passes.learned.latent import latent_form, write_codes
from edgec.passes.learned.training import Training
from edgec.passes.order import check_order
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.quantize import Quantize
from edgec.passes.refine_quantized import RefineQuantized
from edgec.targets import target
from tests.conftest import parse

NET = (
    "net (float[N,3,8,8] x) => (float[N,6] y) <float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] d, float[8,8,1,1] w2, float[6,8] g, float[6] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  e = Conv<pads=[1,1,1,1], group=8>(r, d)  h = Relu(e)  u = Conv(h, w2)"
    "  a = Add(u, r)  s = Relu(a)  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)
GATES = (  # squeeze-excite
    "net (float[N,3,8,8] x) => (float[N,6] y) <float[8,3,3,3] w1, float[8,8,1,1] e, float[8] o, float[6,8] g>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1)  r = Relu(t)  m = GlobalAveragePool(r)  k = Conv(m, e, o)  q = HardSigmoid(k)  z = Mul(r, q)"
    "  p = GlobalAveragePool(z)  f = Flatten(p)  v = Gemm<transB=1>(f, g)  y = Softmax(v) }"
)
UP = (
    "net (float[N,3,8,8] x) => (float[N,2,16,16] y) <float[8,3,3,3] w1, float[8,2,2,2] w2>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1)  r = Clip(t, low, high)  y = ConvTranspose<strides=[2,2]>(r, w2) }"
).replace("float[8,2,2,2] w2>", "float[8,2,2,2] w2, float low = {0}, float high = {6}>")
NETS = {"depthwise": NET, "squeeze-excite": GATES, "transposed": UP}


@pytest.fixture
def quantised(canonical, context, noise):
    """(the source, its int8 network, the context behind quantize)."""

    def build(text: str, board: str | None = None, coarse: bool = False, small: float = 1.0, **options):
        source = canonical(text)
        first = source.graph.initializers["w1"]
        shares = np.ones((8, 1, 1, 1), np.float32)
        shares[0] = small  # of one channel's weights, as folding a norm may leave them
        first.const_value = ir.tensor(shares * constant(first), name="w1")
        if coarse:  # the largest weight far from the others: codes of the rest are few
            for name in ("w1", "w2"):
                array = constant(source.graph.initializers[name]).copy()
                array.reshape(len(array), -1)[:, 0] *= 25
                source.graph.initializers[name].const_value = ir.tensor(array, name=name)
        begun = context(source, noise(source, 96), None if board is None else target(board))
        model = Quantize(**options).run(source.clone(), begun).model
        return source, model, replace(begun, reference=source, task="classification" if text != UP else "")

    return build


def codes_of(model: ir.Model) -> dict[str, bytes]:
    return {name: v.const_value.numpy().tobytes() for name, v in model.graph.initializers.items()}


@pytest.mark.parametrize("latent", [False, True], ids=["codes", "latent"])
@pytest.mark.parametrize("board", [None, "rpi4", "jetson-orin-nano"])
@pytest.mark.parametrize("name", NETS)
def test_the_executor_rounds_as_onnxruntime_does(
    quantised, name: str, board: str | None, latent: bool
) -> None:
    _, model, _ = quantised(NETS[name], board)
    x = np.random.default_rng(3).standard_normal((32, 3, 8, 8)).astype(np.float32)
    ends = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    wanted = Executor(model).run({"x": x})["y"]
    module = GraphModule(latent_form(model)[0] if latent else model)
    found = module(torch.from_numpy(x)).detach().numpy()
    scale = float(constant(ends[-1].inputs[1]).max())
    # A code that falls on the other side of a half in one layer moves what follows by a code or two.
    assert np.abs(found - wanted).max() <= 2.01 * scale
    assert (np.abs(found - wanted) > 0.51 * scale).mean() < 0.02


def test_gradients_go_straight_through(quantised) -> None:
    _, model, _ = quantised(NET)
    made, latents = latent_form(model)
    module = GraphModule(made)
    module(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    held = dict(module.named_parameters())
    assert len(latents) >= 7
    for one in latents:
        assert float(held[module.homes[one.name]].grad.abs().sum()) > 0


def test_what_did_not_move_keeps_its_codes_and_none_leaves_its_range(quantised) -> None:
    _, model, _ = quantised(NET, reduce_range="yes")
    made, latents = latent_form(model)
    module = GraphModule(made)
    before = codes_of(model)
    assert write_codes(module, latents, model) == 0
    assert codes_of(model) == before
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    assert write_codes(module, latents, model) > 0
    kernels = [
        model.graph.initializers[one.name].const_value.numpy()
        for one in latents
        if one.codes.dtype == np.int8
    ]
    assert kernels
    assert all(np.abs(codes).max() <= 63 for codes in kernels)


@pytest.mark.parametrize("board", [None, "jetson-orin-nano"])
def test_a_network_that_answers_as_the_source_does_is_left_as_it_is(quantised, board: str | None) -> None:
    _, model, begun = quantised(NET, board)
    before = [(node.op_type, node.name) for node in model.graph], codes_of(model)
    result = RefineQuantized(steps=3, above="50%").run(model, begun)
    assert not result.modified
    assert "left as it is" in result.notes[0].text
    assert result.data["lost"] <= 0.5
    assert ([(node.op_type, node.name) for node in result.model.graph], codes_of(result.model)) == before


@pytest.mark.parametrize("board", [None, "jetson-orin-nano"])
def test_it_brings_a_coarse_network_nearer(quantised, board: str | None) -> None:
    source, model, begun = quantised(
        NET, board, coarse=True, per_channel=False, correct="none", equalize="no"
    )
    result = RefineQuantized(steps=80, batch=16, rate=0.005, held_out=0.3).run(
        model.clone(), replace(begun, task="")
    )
    assert result.modified, result.notes
    x = np.random.default_rng(3).standard_normal((64, 3, 8, 8)).astype(np.float32)
    y, old, new = (Executor(one).run({"x": x})["y"] for one in (source, model, result.model))
    assert np.square(new - y).sum() < 0.9 * np.square(old - y).sum()
    same, different = codes_of(model), codes_of(result.model)
    assert same.keys() == different.keys()
    assert [node.op_type for node in model.graph] == [node.op_type for node in result.model.graph]


def test_what_makes_it_worse_is_taken_back(quantised) -> None:
    _, model, begun = quantised(NET)
    result = RefineQuantized(steps=4, batch=16, rate=1.0).run(model.clone(), begun)
    assert not result.modified
    assert result.notes[0].level == "reverted"
    assert codes_of(result.model) == codes_of(model)


def test_threads_change_no_byte_and_seeds_do(quantised) -> None:
    _, model, begun = quantised(NET, coarse=True, per_channel=False, correct="none", equalize="no")
    one, two, other = (
        codes_of(
            RefineQuantized(steps=12, batch=16, rate=0.005)
            .run(model.clone(), replace(begun, threads=threads, seed=seed))
            .model
        )
        for threads, seed in ((1, 0), (3, 0), (1, 1))
    )
    assert one == two
    assert one != other


def test_it_stands_behind_quantize_and_needs_a_quantised_network(quantised) -> None:
    check_order(parse_pipeline("quantize refine-quantized"))
    with pytest.raises(UsageError, match="quantize"):
        check_order(parse_pipeline("refine-quantized"))
    source, _, begun = quantised(NET)
    with pytest.raises(PassError, match="no quantised layer"):
        RefineQuantized(steps=2).run(source.clone(), begun)


def test_both_emitters_take_what_it_made(tmp_path: Path) -> None:
    onnx.save(parse(NET), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32))
    report = edgec.compile(
        tmp_path / "net.onnx", tmp_path / "out", data=tmp_path / "x.npz", formats=("onnx", "tflite"), quiet=True, measure=False,
        passes="quantize{correct=none equalize=no per-channel=false} refine-quantized{steps=30 batch=16 rate=0.005}",
    )  # fmt: skip
    assert {"model.int8.onnx", "model.int8.tflite"} <= {one.path for one in report.artifacts}


def test_a_step_is_a_share_of_codes_whatever_the_size_of_a_channel(quantised, monkeypatch) -> None:
    """In three steps of 0.2% no weight moves by half a code: none in a channel of a thousandth of the others' size either."""
    seen: list[dict[str, np.ndarray]] = []

    def look(training: Training, start: Score) -> str:
        seen.append({name: one.detach().numpy().copy() for name, one in training.student.named_parameters()})
        return ""

    monkeypatch.setattr(Training, "_look", look)
    _, model, begun = quantised(NET, small=1e-3)
    RefineQuantized(steps=3, batch=16, rate=0.002).run(model, begun)
    made, latents = latent_form(model)
    homes = GraphModule(made).homes
    for one in latents:
        moved = np.abs(seen[-1][homes[one.name]] - one.codes)
        assert 0 < moved.max() < 0.0065 * one.size
        if one.codes.dtype == np.int8:
            assert moved.max() < 0.5


def test_a_bias_moves_by_a_share_of_the_sums_that_it_is_added_to(quantised) -> None:
    """Within a factor of three of those sums, also where a channel of no weights leaves its bias millions of codes."""
    for small in (1.0, 1e-6):
        _, model, _ = quantised(NET, small=small)
        latents = {one.name: one for one in latent_form(model)[1]}
        rng = np.random.default_rng(0)
        compared = 0
        for node in model.graph:
            if node.op_type != "Conv" or len(node.inputs) < 3 or node.inputs[2] is None:
                continue
            weight, bias = (node.inputs[place].producer().inputs[0] for place in (1, 2))
            codes = constant(weight).astype(np.float64).reshape(len(constant(bias)), -1)
            sums = np.abs(rng.normal(0, 32, (4096, codes.shape[1]))) @ codes.T
            assert 1 / 3 < latents[bias.name].size / sums.std() < 3
            compared += 1
        assert compared
