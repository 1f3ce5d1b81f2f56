"""The executor as a torch module: real networks, copies, names, what is learned, the way back into the graph."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from edgec.graph.batch import is_free
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec, noise
from edgec.graph.load import load
from edgec.passes.learned.executor import GraphModule, write_back
from edgec.passes.learned.parameters import homes
from tests.conftest import parse

NETWORKS = (
    "kws_dscnn", "mobilenet_v1_0.75_224", "nin_cifar10", "resnet20_cifar10", "resnet8_cifar10", "ultraface_rfb320",
    "vww_mobilenet_v1_0.25_96", "yolox_nano",
)  # fmt: skip
SMALL = (
    "net (float[N,3,8,8] x) => (float[N,5] y, float[N,4,8,8] u) <float[4,3,3,3] conv_weight, float[4] conv_bias, int64[2] axes = {2, 3}, float[4,4,1,1] w2, float[4,5] g, float[5] h>"
    "{ t = Conv<pads=[1,1,1,1]>(x, conv_weight, conv_bias)  r = Relu(t)  u = Conv(r, w2)  s = Add(u, r)"
    "  p = ReduceMean<keepdims=0>(s, axes)  m = MatMul(p, g)  y = Add(m, h) }"
)


def small(canonical) -> ir.Model:
    model = canonical(SMALL)
    for name in ("weight", "bias"):  # ONNX text knows no dots
        model.graph.initializers[f"conv_{name}"].name = f"conv.{name}"
    return model


def agree(model: ir.Model, feeds: dict[str, np.ndarray], tolerance: float) -> None:
    wanted = Executor(model).run(feeds)
    with torch.no_grad():
        found = GraphModule(model).run({name: torch.from_numpy(a) for name, a in feeds.items()}, list(wanted))
    for name, his in wanted.items():
        scale = float(np.abs(his).max())
        np.testing.assert_allclose(found[name].numpy() / scale, his / scale, atol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks(shared: Path, name: str) -> None:
    model = load(shared / "data" / "models" / f"{name}.onnx")
    rng, count = np.random.default_rng(0), 2 if is_free(model) else 1
    feeds = {one.name: noise(rng, (count, *one.shape), one.dtype) for one in InputSpec.of(model)}
    if name == "yolox_nano":  # takes bytes; on noise around 0 float32 itself is further off
        feeds = {one: 64 * np.abs(array) for one, array in feeds.items()}
    agree(model, feeds, 1e-4)


def test_any_values_from_any_values(canonical) -> None:
    model = small(canonical)
    module, x = GraphModule(model), np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    names = [node.outputs[0].name for node in model.graph if node.op_type in ("Relu", "Conv")]
    wanted = Executor(model, outputs=names).run({"x": x})
    found = module.run({"x": torch.from_numpy(x)}, names)
    for name in names:
        np.testing.assert_allclose(found[name].detach().numpy(), wanted[name], atol=1e-5)
    middle = next(node.outputs[0].name for node in model.graph if node.op_type == "Relu")
    behind = module.run({middle: torch.from_numpy(wanted[middle])}, ["y"])
    np.testing.assert_allclose(behind["y"].detach().numpy(), Executor(model).run({"x": x})["y"], atol=1e-5)


def test_weights_are_parameters_by_their_own_names(canonical) -> None:
    module = GraphModule(small(canonical))
    names = dict(module.named_parameters())
    assert names["conv.weight"].shape == (4, 3, 3, 3)
    assert {"conv.weight", "conv.bias", "w2", "g", "h"} == set(names)
    assert not dict(module.named_buffers())
    assert set(module.state_dict()) == set(names)


def test_no_name_hides_another() -> None:
    found = homes(
        ["a.weight", "a", "a.weight.b", "a/weight", "forward", "training.x", "", "x..y", "1", "größe"]
    )
    assert len(set(found.values())) == len(found)
    module = torch.nn.Module()
    from edgec.passes.learned.parameters import place

    for path in found.values():
        place(module, path, torch.zeros(1), learned=True)
    assert sorted(dict(module.named_parameters())) == sorted(found.values())
    assert module.training is True


def test_copies_stand_for_themselves(canonical) -> None:
    module = GraphModule(small(canonical))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    others = (copy.deepcopy(module), torch.load(stream, weights_only=False))
    before = module(x)[0].detach()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for other in others:
        torch.testing.assert_close(other(x)[0], before)
        assert other.extra_repr() == module.extra_repr()


def test_what_was_learned_comes_back(canonical) -> None:
    model = small(canonical)
    kept, module = model.clone(), GraphModule(model)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    module(x)[0].square().mean().backward()
    optimiser.step()
    assert all(parameter.grad is not None for parameter in module.parameters())
    write_back(module, model)
    agree(model, {"x": x.numpy()}, 1e-5)
    moved = Executor(model).run({"x": x.numpy()})["y"] - Executor(kept).run({"x": x.numpy()})["y"]
    assert np.abs(moved).max() > 1e-3


def test_a_shared_weight_is_one_parameter() -> None:
    text = "net (float[N,4] x) => (float[N,4] y) <float[4,4] w> { t = Gemm<transB=1>(x, w)  r = Relu(t)  y = Gemm<transB=1>(r, w) }"
    module = GraphModule(ir.from_proto(parse(text)))
    assert len(list(module.parameters())) == 1


def test_outputs_that_are_no_results() -> None:
    text = "net (float[N,4] x) => (float[N,4] x, float[4] c, float[N,4] y) <float[4] c> { y = Mul(x, c) }"
    module = GraphModule(ir.from_proto(parse(text)))
    x = torch.ones(2, 4)
    given, constant, product = module(x)
    torch.testing.assert_close(given * constant, product)
    assert not list(module.parameters())
