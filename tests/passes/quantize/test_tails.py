"""What no kernel can tell apart gets no codes, and what a network answers in one tensor gets no common scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.passes.quantize.calibrate import Calibration, ranges
from edgec.passes.quantize.dialects import TFLITE, TFLITE_16X8, Dialect
from edgec.passes.quantize.histogram import Histogram
from edgec.passes.quantize.plan import make_plan
from edgec.passes.quantize.planned import Plan
from edgec.passes.quantize.qparams import affine

LIMIT = np.log(511)


def network(body: str, inner: str = "") -> ir.Model:
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N,2,4,4] x) => (float[N,2,4,4] y)
    <float[2,2,1,1] w = {{1,2,3,4}}, float[2,2,1,1] v = {{1,2,3,4}}, float[N,2,4,4] h, float[N,2,4,4] s,
     float[N,2,4,4] m{", " * bool(inner)}{inner}> {{ h = Conv (x, w) {body} }}""")
    for number, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{number}"
    return model


def useful(plan: Plan, name: str) -> tuple[float, float]:
    return next(group.useful for group in plan.groups if name in group.members)


READERS = {
    "Sigmoid alone": ("s = Sigmoid (h) y = Conv (s, v)", (-LIMIT, LIMIT)),
    "SiLU": ("s = Sigmoid (h) m = Mul (h, s) y = Conv (m, v)", (-LIMIT, np.inf)),
    "SiLU, gate first": ("s = Sigmoid (h) m = Mul (s, h) y = Conv (m, v)", (-LIMIT, np.inf)),
    "HardSwish": ("m = HardSwish (h) y = Conv (m, v)", (-3.0, np.inf)),
    "HardSwish and Sigmoid": ("s = Sigmoid (h) m = HardSwish (h) y = Add (s, m)", (-LIMIT, np.inf)),
    "HardSwish and a layer": ("s = HardSwish (h) m = Conv (h, v) y = Add (s, m)", (-np.inf, np.inf)),
    "a gate of another": ("s = Sigmoid (x) m = Mul (h, s) y = Conv (m, v)", (-np.inf, np.inf)),
    "a layer beside": ("s = Sigmoid (h) m = Conv (h, v) y = Add (s, m)", (-np.inf, np.inf)),
    "an output": ("s = Relu (h) y = Add (s, h)", (-np.inf, np.inf)),
}


@pytest.mark.parametrize("name", READERS)
def test_only_what_readers_tell_apart_needs_codes(name: str) -> None:
    body, expected = READERS[name]
    assert useful(make_plan(network(body), TFLITE), "h") == pytest.approx(expected)


@pytest.mark.parametrize("dialect", [TFLITE, TFLITE_16X8], ids=lambda one: one.name)
def test_beyond_the_useful_range_a_sigmoid_gives_the_same_codes(dialect: Dialect) -> None:
    """Sigmoid, and x * Sigmoid(x), of values held at the limit round to what they round to without it."""
    fixed = dialect.rules["Sigmoid"].fixed
    assert fixed is not None
    limit = useful(make_plan(network(READERS["Sigmoid alone"][0]), dialect), "h")[1]
    far = np.linspace(limit, 40, 400)
    for values in (far, -far):
        held = np.clip(values, -limit, limit)
        codes = [fixed.quantise(1 / (1 + np.exp(-one))) for one in (values, held)]
        assert np.abs(codes[0].astype(int) - codes[1].astype(int)).max() <= 1
    assert np.all(fixed.dequantise(fixed.quantise(1 / (1 + np.exp(far * 1.001)))) == 0)


def test_the_range_ends_where_values_stop_to_count() -> None:
    """Outliers at -12320 cost the others no codes, by every method."""
    plan = make_plan(network(READERS["SiLU"][0]), TFLITE)
    counted = {}
    for name in plan.sources:
        counted[name] = Histogram()
        counted[name].add(np.array([-12320.0, -3.0, 2.7] * 50, np.float32))
    for method in ("minmax", "mse", "percentile", "entropy"):
        low, high = ranges(Calibration(counted, 1, ()), plan, method)["h"]
        assert -LIMIT - 4 <= low < 0
        assert affine(low, high).scale < 20 / 255


def test_a_clipped_histogram_counts_every_value() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(-100, 50, 1001).astype(np.float32))
    held = histogram.clipped(-10.0, 20.0)
    assert (held.low, held.high) == (-10.0, 20.0)
    assert held.total == histogram.total
    assert held.quantile(0.5) == pytest.approx(-10, abs=0.1)
    assert histogram.clipped(-200.0, 200.0) is histogram


def test_joined_answers_keep_their_own_scales() -> None:
    """YOLOv8's order: boxes and scores are joined, made rows, split again, and the boxes are a mean over a Softmax."""
    body = """
    k = Conv (x, v)
    j = Concat <axis=1> (h, k)
    rows = Reshape (j, shape)
    b, c = Split <axis=1, num_outputs=2> (rows)
    wide = Reshape (b, four)
    p = Softmax <axis=1> (wide)
    d = Conv (p, mean)
    low = Reshape (d, three)
    sc = Sigmoid (c)
    y = Concat <axis=1> (low, sc)
    """
    inner = """float[1,2,1,1] mean = {0, 1}, int64[3] shape = {0, 4, 16}, int64[4] four = {0, 2, 1, 16}, int64[3] three = {0, 1, 16},
    float[N,2,4,4] k, float[N,4,4,4] j, float[N,4,16] rows, float[N,2,16] b, float[N,2,16] c, float[N,2,1,16] wide,
    float[N,2,1,16] p, float[N,1,1,16] d, float[N,1,16] low, float[N,2,16] sc"""
    plan = make_plan(network(body, inner), TFLITE)
    assert list(plan.nodes) == ["Conv_0", "Conv_1"]
    assert plan.floats["Concat_2"] == "it joins outputs"
    assert plan.floats["Conv_7"] == "it takes the mean of a distribution"
    assert [group.members for group in plan.groups if "h" in group.members] == [("h",)]


def test_a_join_in_front_of_layers_shares_one_scale() -> None:
    body = "k = Conv (x, v) j = Concat <axis=1> (h, k) y = Conv (j, u)"
    model = network(body, "float[N,2,4,4] k, float[N,4,4,4] j, float[2,4,1,1] u = {1,2,3,4,5,6,7,8}")
    plan = make_plan(model, TFLITE)
    assert {"h", "k", "j"} <= set(next(group.members for group in plan.groups if "j" in group.members))
