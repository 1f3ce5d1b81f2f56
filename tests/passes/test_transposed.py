"""Transposed convolutions are layers like others: what reads pruned channels is re-fitted, whatever its geometry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.compress import Compress
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.quantize.quantiser import Quantize
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.solvers.gram import targets_at

Noise = Callable[..., Dataset]
Around = Callable[..., Context]
Canonical = Callable[..., ir.Model]

NET = "agraph (float[n,4,{size}] x) => (float[n,o,{open}] y) <float[{weight}] w, float[{out}] b> {{ [up] y = ConvTranspose<{how}>(x, w, b) }}"
GEOMETRIES = {
    "stride 2, kernel 2": ("5,6", "4,3,2,2", 3, "strides=[2,2]"),
    "stride 2, kernel 3": ("5,6", "4,3,3,3", 3, "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]"),
    "stride 2, kernel 9": ("6,5", "4,3,9,9", 3, "strides=[2,2], pads=[4,4,4,4], output_padding=[1,1]"),
    "stride 1": ("5,6", "4,3,3,3", 3, "pads=[1,1,1,1]"),
    "uneven": ("5,6", "4,3,3,2", 3, "strides=[3,1], pads=[1,0,0,1], dilations=[1,2]"),
    "kernel smaller than the stride": ("4,4", "4,3,1,2", 3, "strides=[2,3]"),
    "groups": ("5,6", "4,3,4,4", 6, "strides=[2,2], pads=[1,1,1,1], group=2"),
    "depthwise": ("5,6", "4,1,4,4", 4, "strides=[2,2], pads=[1,1,1,1], group=4"),
    "by its output's size": ("5,6", "4,3,3,3", 3, "strides=[2,2], output_shape=[9,9]"),
    "the same size times the stride": ("5,6", "4,3,4,3", 3, 'strides=[2,2], auto_pad="SAME_LOWER"'),
    "a signal": ("7", "4,3,4", 3, "strides=[2], pads=[1,1]"),
}


@pytest.mark.parametrize("case", GEOMETRIES)
def test_rows_times_columns_are_what_the_engine_makes(case: str, canonical: Canonical) -> None:
    size, weight, out, how = GEOMETRIES[case]
    free = ",".join("hw"[: size.count(",") + 1])
    model = canonical(NET.format(size=size, weight=weight, out=out, how=how, open=free))
    layer = layers_of(model)["up"]
    x = np.random.default_rng(0).standard_normal((2, 4, *map(int, size.split(",")))).astype(np.float32)
    y = Executor(model).run({"x": x})["y"]
    assert layer.patches.out_shape(x.shape[2:]) == y.shape[2:]
    assert layer.rows == np.prod(y.shape[2:])
    rows = layer.patches.sample(x, 1.0, np.random.default_rng(0))
    target = targets_at(y, rows, layer.patches.group)
    for part, p in layer.patches.tiles(x, rows):
        np.testing.assert_allclose(p @ layer.columns(), target[:, part], rtol=1e-4, atol=1e-4)
    layer.set_columns(2 * layer.columns())
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], 2 * y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["pads=[3,3,3,3], strides=[2,2]", "strides=[2,2], output_shape=[12,14]"])
def test_what_cannot_be_written_so_is_no_layer(how: str, canonical: Canonical) -> None:
    model = canonical(NET.format(size="5,6", weight="4,3,3,3", out=3, how=how, open="h,w"))
    assert Layer.of(next(iter(model.graph))) is None


DECODER = """agraph (float[n,3,6,6] x) => (float[n,3,12,12] y) <float[16,3,3,3] w1, float[16] b1, float[16,3,5,5] w2, float[3] b2> {
    [inner] a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
    [up] y = ConvTranspose<strides=[2,2], pads=[2,2,2,2], output_padding=[1,1]>(r, w2, b2) }"""


@pytest.fixture
def decoder(canonical: Canonical) -> ir.Model:
    """Its inner channels 8 to 15 are multiples of the first eight: a re-fit makes up for them without loss."""
    model = canonical(DECODER)
    inner = layers_of(model)["inner"]
    columns = inner.columns()
    for copy in range(8, 16):
        columns[:, :, copy] = (1 + 0.1 * copy) * columns[:, :, copy - 8]
    inner.set_columns(columns)
    return model


@pytest.mark.parametrize("make", [PruneChannels, Compress])
def test_channels_that_only_a_transposed_convolution_reads_go(
    make: Callable[..., PruneChannels], decoder: ir.Model, noise: Noise, context: Around
) -> None:
    around = context(decoder, noise(decoder, 32))
    result = make(macs="51%").run(decoder.clone(), around)
    assert result.data["budget"]["met"]
    assert result.data["widths"]["inner"] == [16, 8]
    fresh = next(iter(noise(decoder, 8, seed=5).batches(8)))
    wanted = Executor(decoder).run(fresh)["y"]
    for model in (result.model, RecoverLsq().run(result.model, around).model):
        error = np.square(Executor(model).run(fresh)["y"] - wanted).sum() / np.square(wanted).sum()
        assert error < 1e-3


@pytest.mark.parametrize(("weight", "group"), [("8,8,4,4", 1), ("8,4,4,4", 2), ("8,1,4,4", 8)])
def test_int8_of_square_ones_is_near(
    weight: str, group: int, canonical: Canonical, noise: Noise, context: Around
) -> None:
    """Weights that look alike whichever axis counts outputs: in as many channels as out."""
    model = canonical(
        f"""agraph (float[n,3,6,6] x) => (float[n,4,12,12] y) <float[8,3,3,3] w1, float[8] b1, float[{weight}] w2, float[4,8,1,1] w3> {{
        a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a)
        u = ConvTranspose<strides=[2,2], pads=[1,1,1,1], group={group}>(r, w2) s = Relu(u) y = Conv(s, w3) }}"""
    )
    made = Quantize().run(model.clone(), context(model, noise(model, 24))).model
    fresh = next(iter(noise(model, 8, seed=5).batches(8)))
    wanted, found = (Executor(one).run(fresh)["y"] for one in (model, made))
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 25
