"""TFLite files as sources: sparse constants, damage, words, and the official files where they are."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgec.compiler.emit.tflite.program import Program
from edgec.compiler.emit.tflite.serialise import serialise
from edgec.graph.errors import EdgecError, ModelError, UnsupportedError
from edgec.graph.foreign import load as load_foreign
from edgec.graph.load import load
from edgec.graph.tflite.densify import dense
from edgec.graph.tflite.lift.model import to_onnx
from edgec.graph.tflite.read import OperatorInfo, TensorInfo, read
from edgec.graph.tflite.schema import TensorType
from edgec.graph.verify import verify

Array = np.ndarray[Any, np.dtype[Any]]
MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "models"
FLOAT, INT32 = TensorType.FLOAT32, TensorType.INT32


def level(size: int) -> dict[str, Any]:
    return {"format": 0, "dense_size": size, "array_segments": {}, "array_indices": {}}


def compressed(segments: list[int], indices: list[int], kind: str = "int32") -> dict[str, Any]:
    values = {"array_segments": segments, "array_indices": indices}
    return {"format": 1, "dense_size": 0} | {k: {"values": np.asarray(v, kind)} for k, v in values.items()}


def sparse(
    shape: tuple[int, ...], numbers: list[float], order: list[int], blocks: list[int], *levels: Any
) -> TensorInfo:
    data = np.asarray(numbers, np.float32).view(np.uint8)
    sparsity = {
        "traversal_order": np.asarray(order, np.int32),
        "block_map": np.asarray(blocks, np.int32) if blocks else None,
        "dim_metadata": list(levels),
    }
    return TensorInfo("w", FLOAT, shape, shape, None, data, sparsity)


@pytest.mark.parametrize("kind", ["int32", "uint16", "uint8"])
def test_compressed_rows(kind: str) -> None:
    tensor = sparse((3, 4), [1, 2, 3], [0, 1], [], level(3), compressed([0, 2, 2, 3], [0, 3, 1], kind))
    assert dense(tensor).tolist() == [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 0, 0]]


def test_columns_first() -> None:
    tensor = sparse((2, 3), [1, 2, 3], [1, 0], [], level(3), compressed([0, 1, 1, 3], [1, 0, 1]))
    assert dense(tensor).tolist() == [[0, 0, 2], [1, 0, 3]]


def test_blocks() -> None:
    """Two of the four 2 x 2 blocks of a 4 x 4 matrix."""
    numbers = [float(n) for n in range(1, 9)]
    rows = compressed([0, 1, 2], [1, 0])
    tensor = sparse((4, 4), numbers, [0, 1, 2, 3], [0, 1], level(2), rows, level(2), level(2))
    assert dense(tensor).tolist() == [[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]]


@pytest.mark.parametrize(
    "tensor",
    [
        sparse((3, 4), [1, 2], [0, 1], [], level(3), compressed([0, 2, 2, 3], [0, 3, 1])),
        sparse((3, 4), [1, 2, 3], [0, 1], [], level(3), compressed([0, 2, 2, 3], [0, 4, 1])),
        sparse((3, 4), [1, 2, 3], [0, 1], [], level(3), compressed([0, 2, 2, 3], [0, -1, 1])),
        sparse((3, 4), [1, 2, 3], [0, 1], [], level(3), compressed([0, 3, 2, 3], [0, 3, 1])),
        sparse((3, 4), [1, 2, 3], [0, 0], [], level(3), compressed([0, 2, 2, 3], [0, 3, 1])),
        sparse((3, 4), [1, 2, 3], [0, 1], [], level(1 << 30), compressed([0, 2, 2, 3], [0, 3, 1])),
        sparse((3, 4), [1, 2, 3], [0, 1], [], level(3), level(0)),
        sparse((1 << 16, 1 << 16), [1], [0, 1], [], level(1), level(1)),
    ],
    ids=["too few", "beyond", "before", "segments", "order", "huge level", "empty level", "huge"],
)
def test_a_sparse_constant_that_does_not_fit(tensor: TensorInfo) -> None:
    with pytest.raises(ValueError, match=r"w|segments|sparse"):
        dense(tensor)


def net(change: Callable[[Program], None] = lambda program: None) -> bytes:
    """Convolution, pool, product with a matrix; ``change`` damages it before it is written."""
    rng, program = np.random.default_rng(0), Program()
    x, h = program.tensor("x", FLOAT, (1, 6, 6, 3)), program.tensor("h", FLOAT, (1, 6, 6, 4))
    p, y = program.tensor("p", FLOAT, (1, 4)), program.tensor("y", FLOAT, (1, 5))
    parts = [
        program.constant("c", rng.standard_normal(s).astype(np.float32))
        for s in ((4, 3, 3, 3), (4,), (5, 4), (5,))
    ]
    window = {"padding": 0, "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    program.add("CONV_2D", [x, *parts[:2]], [h], window | {"fused_activation_function": 1})
    program.add("MEAN", [h, program.constant("a", np.asarray([1, 2], np.int32))], [p], {"keep_dims": False})
    program.add("FULLY_CONNECTED", [p, *parts[2:]], [y], {})
    program.inputs, program.outputs = [("x", x)], [("y", y)]
    change(program)
    return serialise(program, {})


def unwritten(program: Program) -> None:
    del program.operators[1]


def written_twice(program: Program) -> None:
    program.operators[1].outputs = program.operators[0].outputs


def without_operand(program: Program) -> None:
    program.operators[1].inputs = program.operators[1].inputs[:1]


def wrong_size(program: Program) -> None:
    weight = program.operators[0].inputs[1]
    assert weight is not None
    weight.shape = (4, 3, 3, 300)


def no_stride(program: Program) -> None:
    program.operators[0].options["stride_h"] = 0


def outside_axis(program: Program) -> None:
    program.operators[1].inputs[1] = program.constant("far", np.asarray([1, 9], np.int32))


def input_twice(program: Program) -> None:
    program.inputs *= 2


@pytest.mark.parametrize(
    "change", [unwritten, written_twice, without_operand, wrong_size, no_stride, outside_axis, input_twice]
)
def test_a_damaged_file_is_one_message(change: Callable[[Program], None], tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(net(change))
    with pytest.raises(ModelError, match="damaged") as caught:
        load(path)
    assert caught.value.exit_code == 3


def test_bytes_changed_at_random_end_in_a_model_or_in_one_message() -> None:
    rng, whole = random.Random(7), net()
    ends = {"read": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        try:
            to_onnx(read(bytes(data)))
            ends["read"] += 1
        except EdgecError:
            ends["refused"] += 1
    assert min(ends.values()) > 100


def test_custom_operators_are_refused_by_name() -> None:
    data = net()
    file = read(data)
    custom = OperatorInfo("CUSTOM:Landmarks2TransformMatrix", 1, (0,), file.operators[2].outputs, {})
    with pytest.raises(UnsupportedError, match="CUSTOM:Landmarks2TransformMatrix"):
        to_onnx(replace(file, operators=(custom,)))


@pytest.mark.parametrize(
    ("size", "out", "stride", "taps"), [(4, 8, 2, 2), (4, 8, 2, 3), (5, 5, 1, 3), (3, 7, 2, 3)]
)
def test_mediapipes_transposed_convolution_is_one(size: int, out: int, stride: int, taps: int) -> None:
    """Every pixel scatters its kernel, what lies outside is cut off, half of it in front; the bias comes once."""
    rng, program = np.random.default_rng(0), Program()
    x, y = program.tensor("x", FLOAT, (1, size, size, 3)), program.tensor("y", FLOAT, (1, out, out, 2))
    weight, bias = rng.standard_normal((2, taps, taps, 3)), rng.standard_normal(2)
    operands = [program.constant(name, a.astype(np.float32)) for name, a in (("w", weight), ("b", bias))]
    program.add("ADD", [x, *operands], [y], {})
    program.inputs, program.outputs = [("x", x)], [("y", y)]
    file = read(serialise(program, {}))
    (stand_in,) = file.operators
    options = struct.pack("<3i", 1, stride, stride)
    name = "CUSTOM:Convolution2DTransposeBias"
    op = replace(stand_in, code=name, options={}, custom=options)
    picture = rng.standard_normal((1, size, size, 3)).astype(np.float32)
    proto = to_onnx(replace(file, operators=(op,)))
    (made,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": picture})
    wide = np.zeros(((size - 1) * stride + taps, (size - 1) * stride + taps, 2))
    for i in range(size):
        for j in range(size):
            patch = np.einsum("oabc,c->abo", weight, picture[0, i, j])
            wide[i * stride : i * stride + taps, j * stride : j * stride + taps] += patch
    cut = max(len(wide) - out, 0) // 2
    assert np.allclose(made[0], wide[cut : cut + out, cut : cut + out] + bias, atol=1e-5)
    for broken in (b"", struct.pack("<3i", 1, 0, 2)):
        with pytest.raises(UnsupportedError, match=r"its options are missing|its strides are"):
            to_onnx(replace(file, operators=(replace(op, custom=broken),)))


def test_a_file_goes_through_the_child_process(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(net())
    model = load_foreign(path)
    verify(model)
    assert [node.op_type for node in model.graph][:3] == ["Transpose", "Conv", "Relu"]
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    with pytest.raises(ModelError, match="--input-shape does not fit"):
        load_foreign(path, input_shape=(8, 8, 3))


@pytest.mark.parametrize(
    "name",
    [
        "kws_dscnn_int8", "resnet8_cifar10_float", "resnet8_cifar10_int8", "vww_mobilenet_v1_0.25_96_float",
        "vww_mobilenet_v1_0.25_96_int8",
    ],
)  # fmt: skip
def test_official_files_give_what_litert_gives(name: str) -> None:
    path = MODELS / f"{name}.tflite"
    if not path.is_file():
        pytest.skip("the official files are not here")
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    import onnxruntime

    engine = runtime.Interpreter(str(path))
    engine.allocate_tensors()
    (given,), (answer,) = engine.get_input_details(), engine.get_output_details()
    proto = to_onnx(read(path))
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    rng = np.random.default_rng(2)
    for _ in range(4):
        codes, x = _smooth(rng, given)
        engine.set_tensor(given["index"], codes)
        engine.invoke()
        want = _real(answer, engine.get_tensor(answer["index"]))
        have = session.run(None, {session.get_inputs()[0].name: x})[0]
        step = answer["quantization"][0]
        assert np.abs(want - have).max() <= (4 * step if step else 1e-5)
    verify(load(path))


def _smooth(rng: np.random.Generator, detail: dict[str, Any]) -> tuple[Array, Array]:
    """A picture of squares over the whole range of the input: its codes, and the real numbers that they stand for."""
    _, height, width, channels = (int(d) for d in detail["shape"])
    low, high = (-2, 3) if detail["dtype"] == np.float32 else (-128, 128)
    squares = rng.integers(low, high, (1, -(-height // 8), -(-width // 8), channels))
    codes = np.kron(squares, np.ones((1, 8, 8, 1), int))[:, :height, :width].astype(detail["dtype"])
    return codes, _real(detail, codes).astype(np.float32)


def _real(detail: dict[str, Any], codes: Array) -> Array:
    scale, zero = detail["quantization"]
    real: Array = (codes.astype(np.float64) - zero) * scale if scale else codes.astype(np.float64)
    return real


def test_numbers_of_a_file_stay_where_they_were() -> None:
    """The weight of the convolution, turned to ONNX's order."""
    data = net()
    stored = read(data).tensors[1].array()
    model = ir.from_proto(to_onnx(read(data)))
    conv = next(node for node in model.graph if node.op_type == "Conv")
    weight = conv.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    np.testing.assert_array_equal(weight.const_value.numpy(), np.transpose(stored, (0, 3, 1, 2)))
