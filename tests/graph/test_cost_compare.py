"""Cost and comparison against counts and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.compare import Difference, cosine, kl_divergence, paired_probabilities, sqnr_db
from edgec.graph.cost import cost
from edgec.graph.errors import ModelError
from edgec.graph.execute import Executor, stream

TEXT = (
    "net (float[N,3,8,8] x) => (float[N,5] y) <float[4,3,3,3] w, float[4] b, float[4,1,3,3] d, float[8,4,1,1] p, float[5,8] g>"
    "{ c = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  e = Conv<group=4, pads=[1,1,1,1]>(r, d)"
    "  f = Conv(e, p)  m = GlobalAveragePool(f)  h = Flatten(m)  y = Gemm<transB=1>(h, g) }"
)


def test_cost_by_hand(canonical) -> None:
    nodes = {node.op + node.kind: node for node in cost(canonical(TEXT)).nodes}
    assert nodes["Convdense"].macs == 4 * 4 * 4 * 27
    assert nodes["Convdense"].params == 4 * 27 + 4
    assert nodes["Convdepthwise"].macs == 4 * 16 * 9
    assert nodes["Convpointwise"].macs == 8 * 16 * 4
    assert nodes["Gemmlinear"].macs == 40
    assert cost(canonical(TEXT)).weight_bytes == 4 * (4 * 27 + 4 + 36 + 32 + 40)
    # x, the widest moment: input (192) and the first output (64) live together.
    assert cost(canonical(TEXT)).peak_activation_bytes == 4 * (192 + 64)


def test_inner_values_can_be_read_and_fed(canonical, noise) -> None:
    model = canonical(TEXT)
    data = noise(model, 5)
    relu = next(node for node in model.graph if node.op_type == "Relu").outputs[0].name
    whole = np.concatenate([batch["y"] for batch in stream(model, data, ["y"], batch_size=2)])
    for feeds in data.batches(5):
        inner = Executor(model, outputs=[relu]).run(feeds)
        tail = Executor(model, inputs=[relu], outputs=["y", relu]).run(inner)
    np.testing.assert_allclose(tail["y"], whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tail[relu], inner[relu])


def test_a_part_that_is_not_bounded_is_refused(canonical) -> None:
    model = canonical(TEXT)
    relu = next(node for node in model.graph if node.op_type == "Relu").outputs[0].name
    with pytest.raises(ModelError, match="cannot be cut"):
        Executor(model, inputs=["nonsense", relu], outputs=["y"])


def test_figures_by_hand() -> None:
    a, b = np.array([3.0, 4.0]), np.array([3.0, 3.5])
    assert sqnr_db(a, b) == pytest.approx(10 * np.log10(25 / 0.25))
    assert cosine(a, 2 * a) == pytest.approx(1.0)
    assert sqnr_db(a, a) == float("inf")
    assert sqnr_db(a, np.array([np.nan, 1])) == float("-inf")
    p = np.array([[0.5, 0.5]])
    q = np.array([[0.9, 0.1]])
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-6)
    assert kl_divergence(np.log(p), np.log(q)) == pytest.approx(kl_divergence(p, q), rel=1e-6)


def test_codes_of_a_softmax_are_probabilities_as_the_source_says() -> None:
    """255/256 alone sums to 0.996: read as logits it would be 0.73 and 0.27."""
    p, codes = np.array([[0.999, 0.001], [0.5, 0.5]]), np.array([[255 / 256, 0.0], [0.5, 0.5]])
    assert kl_divergence(p, codes) == pytest.approx(
        0.5 * (0.999 * np.log(0.999) + 0.001 * np.log(1e9)), rel=1e-4
    )
    theirs, ours = paired_probabilities(p, codes)
    assert np.array_equal(theirs, p)
    assert np.array_equal(ours, [[1, 0], [0.5, 0.5]])
    logits = np.log([[0.2, 0.3, 0.5]])
    assert np.allclose(
        paired_probabilities(logits, np.array([[0.2, 0.3, 0.5]]))[1],
        np.exp([[0.2, 0.3, 0.5]]) / np.exp([0.2, 0.3, 0.5]).sum(),
    )


def test_difference_does_not_depend_on_the_batches() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 5))
    whole, parts = Difference("v"), Difference("v")
    whole.add(a, b)
    for i in range(0, 12, 5):
        parts.add(a[i : i + 5], b[i : i + 5])
    assert parts.sqnr_db == pytest.approx(whole.sqnr_db)
    assert parts.largest == whole.largest
