"""Scales and zero points, against exact arithmetic and onnxruntime's own QuantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.quantize.qparams import PROBABILITY, QParams, affine

finite = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(low=finite, high=finite)
def test_affine_represents_zero_exactly_and_covers_the_range(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    params = affine(low, high)
    assert params.dequantise(np.array([params.zero_point], np.int8))[0] == 0.0
    slack = params.scale * 0.51
    assert params.low <= min(low, 0.0) + slack
    assert params.high >= max(high, 0.0) - slack
    assert np.float32(params.scale) == params.scale


@given(high=st.floats(1e-6, 1e6))
def test_a_one_sided_range_never_reaches_beyond_its_end(high: float) -> None:
    """Else a Clip with these bounds would not be void behind the quantiser, and engines would keep it."""
    above, below = affine(0.0, high), affine(-high, 0.0)
    assert above.zero_point == -128
    assert 0.0 <= above.high <= high
    assert below.zero_point == 127
    assert -high <= below.low <= 0.0


@pytest.mark.parametrize(("low", "high", "zero"), [(0.0, 0.0, -128), (5.0, 5.0, -128), (-3.0, -3.0, 127)])
def test_constant_tensors_get_a_valid_scale(low: float, high: float, zero: int) -> None:
    params = affine(low, high)
    assert params.scale > 0
    assert params.zero_point == zero
    assert abs(params.dequantise(params.quantise(np.float32([low])))[0] - low) <= params.scale / 2 + 1e-6


def test_sixteen_bits_are_symmetric() -> None:
    params = affine(-2.0, 1.0, bits=16, symmetric=True)
    assert params.zero_point == 0
    assert params.scale == pytest.approx(2.0 / 32767)


@pytest.mark.parametrize(("scale", "zero"), [(0.0, 0), (float("nan"), 0), (-1.0, 0), (1.0, 128)])
def test_invalid_parameters_are_refused_with_the_value(scale: float, zero: int) -> None:
    with pytest.raises(ValueError, match=r"nan|0\.0|-1\.0|128"):
        QParams(scale, zero)


def test_probability_is_tflites() -> None:
    assert (PROBABILITY.scale, PROBABILITY.zero_point) == (1 / 256, -128)


@settings(max_examples=30)
@given(scale=st.floats(1e-4, 10), zero=st.integers(-128, 127), seed=st.integers(0, 2**31))
def test_quantise_is_onnxs(scale: float, zero: int, seed: int) -> None:
    from onnx.reference.ops.op_quantize_linear import (
        QuantizeLinear_19,
    )  # the reference implementation of ONNX

    params = QParams(float(np.float32(scale)), zero)
    x = (np.random.default_rng(seed).standard_normal(64) * 100 * scale).astype(np.float32)
    op = QuantizeLinear_19.__new__(QuantizeLinear_19)
    expected = op._run(x, np.float32(params.scale), np.int8(zero), axis=1, saturate=1)[0]
    np.testing.assert_array_equal(params.quantise(x), expected)
