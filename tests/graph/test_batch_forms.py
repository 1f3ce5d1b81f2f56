"""Every form of batch that a file may have: how it is read, and how N samples are then run, against onnxruntime by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgec.graph.batch import SampleBySample, is_free
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import open_data
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec

RNG = np.random.default_rng(0)

# One network, as exporters and people write it: conv, tokens, a linear layer on them, mean, head.
TOKENS_FIRST = """
  c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
  r = Reshape(c, to_tokens)
  t = Transpose<perm = [2, 0, 1]>(r)
  m = MatMul(t, v)
  a = Relu(m)
  s = ReduceMean<keepdims = 0>(a, axis)
  y = Gemm(s, u)
"""
MERGED = """
  c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
  r = Reshape(c, to_tokens)
  t = Transpose<perm = [0, 2, 1]>(r)
  f = Reshape(t, merged)
  g = Gemm(f, v)
  a = Relu(g)
  k = Reshape(a, split)
  s = ReduceMean<keepdims = 0>(k, axis)
  y = Gemm(s, u)
"""
PLAIN = """
  c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
  g = GlobalAveragePool(c)
  f = Reshape(g, flat)
  y = Gemm(f, u)
"""
UNBATCHED = """
  b = Unsqueeze(x, front)
  c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(b, w)
  g = GlobalAveragePool(c)
  f = Reshape(g, flat)
  h = Gemm(f, u)
  y = Squeeze(h, front)
"""


def network(body: str, shape: str, outputs: str, batch: int = 1, inputs: str = "") -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : 18]> g (float[{shape}] x{inputs}) => (float[{outputs}] y) {{{body}}}'
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.standard_normal((6, 3, 2, 2)).astype(np.float32),
        "v": rng.standard_normal((6, 6)).astype(np.float32),
        "u": rng.standard_normal((6, 5)).astype(np.float32),
        "e": rng.standard_normal((4, 6)).astype(np.float32),
        "to_tokens": np.array([batch, 6, 16]),
        "merged": np.array([batch * 16, 6]),
        "split": np.array([batch, 16, 6]),
        "flat": np.array([batch, 6]),
        "front": np.array([0]),
        "axis": np.array([0 if body is TOKENS_FIRST else 1]),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, n) for n, a in constants.items() if n in used
    )
    return model


def source_answers(model: onnx.ModelProto, feeds: dict[str, np.ndarray], batch: int) -> np.ndarray:
    """The source in onnxruntime, ``batch`` samples at a time; 0: it has no batch axis."""
    runner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rank = {value.name: len(value.shape) for value in runner.get_inputs()}
    step, found = max(batch, 1), []
    for start in range(0, len(feeds["x"]), step):
        part = {}
        for name, array in feeds.items():
            rows = array[start : start + step]
            part[name] = rows[0] if rank[name] < array.ndim else rows
        answer = runner.run(None, part)[0]
        found.append(answer if batch else answer[None])
    return np.concatenate(found)


FORMS = {
    "open": (network(PLAIN.replace("f = Reshape(g, flat)", "f = Flatten(g)"), "N, 3, 8, 8", "N, 5"), 1, True),
    "fixed at 1": (network(PLAIN, "1, 3, 8, 8", "1, 5"), 1, True),
    "fixed at 2": (network(PLAIN, "2, 3, 8, 8", "2, 5", 2), 2, True),
    "fixed at 4": (network(PLAIN, "4, 3, 8, 8", "4, 5", 4), 4, True),
    "none": (network(UNBATCHED, "3, 8, 8", "5"), 0, True),
    "none, merged tokens": (
        network(
            "x1 = Unsqueeze(x, front)" + MERGED.replace("(x, w)", "(x1, w)"),
            "3, 8, 8",
            "1, 5",
        ),
        0,
        False,
    ),
    "moved": (network(TOKENS_FIRST, "1, 3, 8, 8", "1, 5"), 1, False),
    "moved, fixed at 2": (network(TOKENS_FIRST, "2, 3, 8, 8", "2, 5", 2), 2, False),
    "merged": (network(MERGED, "1, 3, 8, 8", "1, 5"), 1, False),
    "merged, fixed at 4": (network(MERGED, "4, 3, 8, 8", "4, 5", 4), 4, False),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_batch_form_is_read_and_runs_n_samples(form: str) -> None:
    source, batch, free = FORMS[form]
    model = canonicalise(source)
    x = RNG.standard_normal((8, 3, 8, 8)).astype(np.float32)
    wanted = source_answers(source, {"x": x}, batch).reshape(8, 5)
    assert InputSpec.of(model)[0].shape == (3, 8, 8)
    assert is_free(model) == free
    (got,) = Executor(model).run({"x": x}).values()
    np.testing.assert_allclose(got.reshape(8, 5), wanted, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_can_be_cut_at_any_value(form: str) -> None:
    model = canonicalise(FORMS[form][0])
    x = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
    name = model.graph.outputs[0].name or ""
    whole = Executor(model).run({"x": x})[name]
    for node in list(model.graph)[:-1]:
        cut = node.outputs[0].name or ""
        inner = Executor(model, outputs=[cut]).run({"x": x})
        behind = Executor(model, inputs=[cut], outputs=[name]).run(inner)[name]
        np.testing.assert_allclose(behind, whole, atol=1e-5, err_msg=f"cut at {cut}")


@pytest.mark.parametrize(
    "zero", [0, 1], ids=["a -1 beside the batch", "a -1 beside the batch, as dynamo writes it"]
)
def test_a_reshape_that_says_minus_one_elsewhere_is_freed(zero: int) -> None:
    body = f"""
      c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
      r = Reshape<allowzero = {zero}>(c, view)
      a = Softmax<axis = -1>(r)
      y = Reshape<allowzero = {zero}>(a, back)
    """
    source = network(body, "1, 3, 8, 8", "1, 6, 4, 4")
    arrays = {"view": np.array([1, -1, 3, 16]), "back": np.array([1, 6, 4, 4])}
    source.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    model = canonicalise(source)
    assert is_free(model)
    x = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        Executor(model).run({"x": x})["y"], source_answers(source, {"x": x}, 1), atol=1e-6
    )


def test_shape_arithmetic_of_an_open_batch_is_folded_where_the_batch_stays_free() -> None:
    body = """
      c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
      s = Shape<start = 0, end = 1>(c)
      t = Concat<axis = 0>(s, rest)
      y = Reshape(c, t)
    """
    source = network(body, "N, 3, 8, 8", "N, 96")
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([96]), "rest"))
    model = canonicalise(source)
    assert is_free(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Reshape"]


def test_inputs_that_are_whole_numbers_or_scalars_are_data_of_every_sample(tmp_path: Path) -> None:
    body = PLAIN.replace(
        "y = Gemm(f, u)", "i = Gather(e, id)\n j = Add(f, i)\n k = Mul(j, gain)\n y = Gemm(k, u)"
    )
    body = body.replace("f = Reshape(g, flat)", "f = Flatten(g)")
    source = network(body, "N, 3, 8, 8", "N, 5", inputs=", int64[N] id, float gain")
    model = canonicalise(source)
    feeds = {
        "x": RNG.standard_normal((6, 3, 8, 8)).astype(np.float32),
        "id": RNG.integers(0, 4, 6),
        "gain": RNG.random(6).astype(np.float32),
    }
    np.savez(tmp_path / "data.npz", **feeds)
    assert [spec.shape for spec in InputSpec.of(model)] == [(3, 8, 8), (), ()]
    (read,) = open_data(tmp_path / "data.npz", model).batches(6)
    assert read["id"].dtype == np.int64
    runner = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [
        runner.run(None, {"x": x[None], "id": i[None], "gain": np.asarray(g)})[0]
        for x, i, g in zip(*feeds.values(), strict=True)
    ]
    np.testing.assert_allclose(Executor(model).run(read)["y"], np.concatenate(wanted), atol=1e-5)


@pytest.mark.parametrize("size", [1, 7])
def test_samples_at_the_ends_are_apart_and_inside_behind_each_other(size: int) -> None:
    held = SampleBySample(frozenset({"y"}))
    parts = [np.full((4, 2), i, np.float32) for i in range(size)]
    assert held.together("y", parts).shape == (size, 4, 2)
    assert held.together("inner", parts).shape == (size * 4, 2)
    for name in ("y", "inner"):
        together = held.together(name, parts)
        assert held.count({name: together}, {name: [4, 2]}) == size
        for index, part in enumerate(parts):
            np.testing.assert_array_equal(held.one(together, index, size, 2), part)


def test_one_input_shape_closes_axes_of_that_name_everywhere() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (float[N, 3, h, w] rgb, float[N, 3, h, w] depth) => (float[N, 3, h, w] y) { y = Add(rgb, depth) }"""
    model = canonicalise(onnx.parser.parse_model(text), input_shape=(3, 4, 6))
    assert [spec.shape for spec in InputSpec.of(model)] == [(3, 4, 6), (3, 4, 6)]
