"""Peaks that an exact comparison picks say nothing of how well a network is quantised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.graph.picks import judged
from edgec.passes.base import Context
from edgec.passes.quantize.quantiser import Quantize

PEAKS = """net (float[N,3,16,16] x) => (float[N,2,16,16] y, float[N,4,16,16] boxes)
  <float[8,3,3,3] a, float[2,8,1,1] b, float[4,8,1,1] c>
  { t = Conv<pads = [1, 1, 1, 1]>(x, a)  r = Relu(t)  u = Conv(r, b)  h = Sigmoid(u)
    m = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h)  e = Equal(h, m)  k = Cast<to = 1>(e)
    y = Mul(h, k)  boxes = Conv(r, c) }"""
BARE = """net (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,3,8,8] y, float[N,3,8,8] t) <float[3,3,1,1] a>
  { t = Conv(x, a)  e = Equal(x, z)  y = Cast<to = 1>(e) }"""
PLAIN = """net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] a, float zero = {0}>
  { t = Conv(x, a)  e = Equal(t, zero)  k = Cast<to = 1>(e)  y = Add(t, k) }"""


def test_what_is_picked_from_is_judged(canonical: Callable[..., ir.Model]) -> None:
    model = canonical(PEAKS)
    made = judged(model)
    assert sorted(value.name or "" for value in made.graph.outputs) == ["boxes", "h", "m"]
    assert [value.name for value in model.graph.outputs] == ["y", "boxes"]


def test_a_comparison_with_a_constant_is_none(canonical: Callable[..., ir.Model]) -> None:
    model = canonical(PLAIN)
    assert judged(model) is model


def test_where_the_inputs_alone_are_compared_outputs_are_judged(canonical: Callable[..., ir.Model]) -> None:
    model = canonical(BARE)
    assert [value.name for value in judged(model).graph.outputs] == ["y", "t"]


def test_a_network_with_peaks_is_quantised(
    canonical: Callable[..., ir.Model], noise: Callable[..., Any], tmp_path: Path
) -> None:
    model = canonical(PEAKS)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model, 24))
    result = Quantize().run(model.clone(), context)
    layers = {node.name for node in model.graph if node.op_type == "Conv"}
    quantised = result.data["quantised_nodes"]
    assert isinstance(quantised, list)
    assert layers <= set(quantised)
    assert [value.name for value in result.model.graph.outputs] == ["y", "boxes"]
