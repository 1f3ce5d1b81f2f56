"""Networks that come quantised, by onnxruntime's own quantiser: what is left of each form in float, against both ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edgec.graph.canonicalise import canonicalise
from edgec.graph.compare import sqnr_db
from edgec.graph.errors import EdgecError, UnsupportedError
from edgec.graph.execute import Executor, session
from edgec.graph.read.dequantise import QUANTISED
from edgec.graph.read.metadata import notes_of
from tests.conftest import parse

NET = """net (float[N,3,16,16] x) => (float[N,10] y) {
  c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], group=8>(r1, w2)           r2 = Clip(c2, low, high)
  a = Add(r1, r2)   m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)   k = Concat<axis=1>(m, m)
  s = Sigmoid(k)    p = Mul(k, s)    g = GlobalAveragePool(p)   f = Flatten(g)   y = Gemm<transB=1>(f, w3, b3) }"""


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(1).random((16, 3, 16, 16), np.float32)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (10, 16), "b3": (10,)}
    constants = {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}
    proto = parse(NET)
    for name, array in {**constants, "low": np.array(0.0), "high": np.array(6.0)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", 17))
    return proto


class Reader(CalibrationDataReader):
    def __init__(self, samples: np.ndarray) -> None:
        self.rest = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        one = next(self.rest, None)
        return None if one is None else {"x": one[None]}


def _static(form: QuantFormat, **options: object) -> Callable[[Path, Path, np.ndarray], None]:
    def run(source: Path, result: Path, samples: np.ndarray) -> None:
        quantize_static(source, result, Reader(samples), quant_format=form, **options)

    return run


def _dynamic(kind: QuantType) -> Callable[[Path, Path, np.ndarray], None]:
    return lambda source, result, samples: quantize_dynamic(source, result, weight_type=kind)


QDQ, QOP = QuantFormat.QDQ, QuantFormat.QOperator
U8, S8, S16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QInt16
FORMS = {
    "qdq": _static(QDQ),
    "qdq per channel": _static(QDQ, per_channel=True),
    "qdq s8s8": _static(QDQ, activation_type=S8, weight_type=S8),
    "qdq u8u8": _static(QDQ, activation_type=U8, weight_type=U8),
    "qdq 16 bit": _static(QDQ, activation_type=S16, extra_options={"UseQDQContribOps": True}),
    "qdq symmetric": _static(QDQ, activation_type=S8, extra_options={"ActivationSymmetric": True}),
    "qoperator": _static(QOP, activation_type=U8, weight_type=U8),
    "qoperator per channel": _static(QOP, activation_type=U8, weight_type=S8, per_channel=True),
    "qoperator s8": _static(QOP, activation_type=S8, weight_type=S8),
    "dynamic u8": _dynamic(U8),
    "dynamic s8": _dynamic(S8),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_network_becomes_the_float_one_that_it_was(
    form: str, network: onnx.ModelProto, samples: np.ndarray, tmp_path: Path
) -> None:
    onnx.save(network, tmp_path / "f.onnx")
    logging.disable(logging.WARNING)
    try:
        FORMS[form](tmp_path / "f.onnx", tmp_path / "q.onnx", samples)
    finally:
        logging.disable(logging.NOTSET)
    quantised = onnx.load(tmp_path / "q.onnx")
    model = canonicalise(quantised)
    ops = [node.op_type for node in model.graph]
    assert not set(ops) & set(QUANTISED)
    assert all(value.dtype.name == "FLOAT" for node in model.graph for value in node.outputs)
    assert ops.count("Conv") == 2
    assert ops.count("Mul") == 1, "a scale was left behind"
    assert any("dequantised" in note for note in notes_of(model))
    got = Executor(model).run({"x": samples})["y"]
    before = session(network).run(None, {"x": samples})[0]
    # Coded weights are all that is left of the quantiser; its ranges are of these very samples.
    assert sqnr_db(before, got) > 28


def test_weights_alone_in_codes_by_channel_and_by_block() -> None:
    rng = np.random.default_rng(0)
    codes, scale = rng.integers(-127, 128, (4, 8)).astype(np.int8), rng.random((4, 2)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=4),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(codes, "q"), numpy_helper.from_array(scale, "s")],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = rng.random((3, 8), np.float32)
    expected = x @ (codes * np.repeat(scale, 4, axis=1)).T
    model = canonicalise(source)
    assert [node.op_type for node in model.graph] == ["Gemm"]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], expected, rtol=1e-4)


def test_codes_at_the_ends() -> None:
    """An input of codes stays one; an output of codes becomes the numbers that they stand for."""
    source = parse(
        "net (uint8[N,4] x) => (uint8[N,4] y) <float s = {0.5}, uint8 z = {10}, float t = {0.25}, uint8 u = {128}>"
        "{ f = DequantizeLinear(x, s, z)  g = Tanh(f)  y = QuantizeLinear(g, t, u) }"
    )
    model = canonicalise(source)
    x = np.array([[8, 10, 12, 255]], np.uint8)
    got = Executor(model).run({"x": x})["y"]
    np.testing.assert_allclose(got, np.tanh((x.astype(np.float32) - 10) * 0.5), atol=1e-6)


def test_what_reads_codes_and_is_not_known_is_refused_by_name() -> None:
    source = parse(
        "net (float[N,4] x) => (float[N,4] y) <float s = {0.5}, uint8 z = {10}>"
        "{ q = QuantizeLinear(x, s, z)  n = BitwiseNot(q)  y = DequantizeLinear(n, s, z) }"
    )
    with pytest.raises(UnsupportedError, match="BitwiseNot"):
        canonicalise(source)


ROWS, COLUMNS, BLOCK = 40, 6, 16
"""Three blocks, of which the last is half empty, and a byte in which one zero point of four bits is none."""


def packed_product(
    bits: int, zeros: str, kind: int = TensorProto.FLOAT, bias: bool = False
) -> onnx.ModelProto:
    """A MatMulNBits with random codes, as onnxruntime's quantiser of weights leaves it."""
    rng = np.random.default_rng(bits)
    blocks, real = -(-ROWS // BLOCK), helper.tensor_dtype_to_np_dtype(kind)
    held = {
        "codes": rng.integers(0, 256, (COLUMNS, blocks, BLOCK * bits // 8), np.uint8),
        "scales": rng.uniform(0.01, 0.1, COLUMNS * blocks).astype(real),
    }
    if zeros == "packed":
        held["zeros"] = rng.integers(0, 256, COLUMNS * -(-blocks * bits // 8), np.uint8)
    elif zeros == "real":
        held["zeros"] = rng.uniform(0, 2**bits - 1, COLUMNS * blocks).astype(real)
    if bias:
        held["bias"] = rng.normal(0, 1, COLUMNS).astype(real)
    given = ["x", "codes", "scales", "zeros" if zeros else "", "", "bias" if bias else ""]
    node = helper.make_node(
        "MatMulNBits", given, ["y"], domain="com.microsoft", K=ROWS, N=COLUMNS, bits=bits, block_size=BLOCK
    )
    ends = [
        helper.make_tensor_value_info(name, kind, ["N", size]) for name, size in (("x", ROWS), ("y", COLUMNS))
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def unpacked(proto: onnx.ModelProto, bits: int, zeros: str) -> np.ndarray:
    """Its weight, number by number."""
    held = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    blocks, each = -(-ROWS // BLOCK), 8 // bits
    weight = np.zeros((ROWS, COLUMNS))
    for row in range(ROWS):
        for column in range(COLUMNS):
            block, place = divmod(row, BLOCK)
            code = int(held["codes"][column, block, place // each]) >> bits * (place % each) & 2**bits - 1
            zero = 2.0 ** (bits - 1)
            if zeros == "packed":
                byte = held["zeros"].reshape(COLUMNS, -1)[column, block // each]
                zero = int(byte) >> bits * (block % each) & 2**bits - 1
            elif zeros == "real":
                zero = held["zeros"][column * blocks + block]
            weight[row, column] = (code - zero) * held["scales"][column * blocks + block]
    return weight


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("zeros", ["", "packed", "real"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_several_codes_in_a_byte(bits: int, zeros: str, bias: bool) -> None:
    proto = packed_product(bits, zeros, bias=bias)
    x = np.random.default_rng(0).normal(0, 1, (5, ROWS)).astype(np.float32)
    wanted = x @ unpacked(proto, bits, zeros)
    if bias:
        wanted = wanted + numpy_helper.to_array(proto.graph.initializer[-1])
    found = Executor(canonicalise(proto)).run({"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    if bits == 4:  # the other widths are not in every onnxruntime
        theirs = session(proto).run(None, {"x": x})[0]
        np.testing.assert_allclose(found, theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max())


def test_several_codes_in_a_byte_beside_half_precision() -> None:
    x = np.random.default_rng(0).normal(0, 1, (5, ROWS)).astype(np.float16)
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
    one, other = (
        Executor(canonicalise(packed_product(4, "packed", kind))).run({"x": x.astype(real)})["y"]
        for kind, real in kinds.items()
    )
    assert sqnr_db(one, other) > 50


def reordered(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(ROWS, np.int32), "order"))
    proto.graph.node[0].input[4] = "order"


def told(name: str, value: int) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        next(one for one in proto.graph.node[0].attribute if one.name == name).i = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (reordered, "the rows of its weight are reordered"),
        (told("bits", 0), "its weights have 0 bits"),
        (told("bits", 3), "its weights have 3 bits"),
        (told("block_size", 0), "block_size = 0 is impossible"),
        (told("K", 100), "operand 1 has 144 numbers where 336 are said"),
        (told("N", -1), "its weight is 40 x -1"),
    ],
)
def test_what_is_not_as_it_says_is_refused(change: Callable[[onnx.ModelProto], None], why: str) -> None:
    proto = packed_product(4, "")
    change(proto)
    with pytest.raises(EdgecError, match=why):
        canonicalise(proto)
