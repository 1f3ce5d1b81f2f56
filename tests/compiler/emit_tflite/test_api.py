"""The interface of the emitter: precisions, layouts, batches, refusals, splitting, determinism, what is in the file."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgec.compiler.emit.tflite import emit, split_unsupported, unsupported
from edgec.compiler.emit.tflite.file_cost import read_cost
from edgec.compiler.emit.tflite.layers import split_layers
from edgec.graph.errors import ModelError, UnsupportedError, UsageError
from edgec.graph.inputs import InputSpec
from edgec.graph.tflite.read import read

Build = Callable[..., ir.Model]

NET = """agraph (float[n,3,9,9] image) => (float[n,5] logits)
    <float[16,3,3,3] w, float[16] b, float[16,1,3,3] d, float[5,16] g, float[5] c> {
    h = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w, b) r = Relu(h)
    e = Conv<pads=[1,1,1,1], group=16>(r, d) p = GlobalAveragePool(e) f = Flatten(p) logits = Gemm<transB=1>(f, g, c) }"""


def test_same_bytes_twice(build: Build, quantise: Any) -> None:
    for model, precision in ((build(NET), "fp32"), (build(NET), "fp16"), (quantise(build(NET)), "int8")):
        assert emit(model, precision=precision) == emit(model.clone(), precision=precision)


def test_same_bytes_in_another_process(build: Build, tmp_path: Any) -> None:
    """Hash randomisation must not show in the file."""
    ir.save(build(NET), tmp_path / "net.onnx")
    code = (
        "import sys, hashlib, onnx_ir as ir; from edgec.compiler.emit.tflite import emit;"
        "print(hashlib.sha256(emit(ir.load(sys.argv[1]))).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "net.onnx")],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_the_model_is_left_alone(build: Build) -> None:
    model = build(NET)
    before = ir.to_proto(model).SerializeToString()
    emit(model, batch=4, io_layout="nhwc")
    assert ir.to_proto(model).SerializeToString() == before


def test_channels_last_interface(build: Build, feeds: Any, tflite: Any, onnx_run: Any) -> None:
    model = build(NET)
    given = feeds(model, count=1)
    data = emit(model, io_layout="nhwc")
    have = tflite(data, {"image": given["image"].transpose(0, 2, 3, 1)})["logits"]
    np.testing.assert_allclose(have, onnx_run(model, given)["logits"], atol=1e-5)
    file = read(data)
    assert file.edgec_metadata["axes"]["image"] == [0, 2, 3, 1]
    assert "TRANSPOSE" not in [op.code for op in file.operators]


def test_an_input_declared_channels_last_stays_so(build: Build) -> None:
    text = """agraph (float[n,8,8,3] image) => (float[n,8,8,16] y) <float[16,3,1,1] w> {
        t = Transpose<perm=[0,3,1,2]>(image) h = Conv(t, w) y = Transpose<perm=[0,2,3,1]>(h) }"""
    for layout in ("nchw", "nhwc"):
        file = read(emit(build(text), io_layout=layout))
        assert [op.code for op in file.operators] == ["CONV_2D"]
        assert file.tensors[file.inputs[0]].shape == (1, 8, 8, 3)
        assert file.tensors[file.outputs[0]].shape == (1, 8, 8, 16)


PREPARED = {
    "levels": "m = Mul(image, k) p = Sub(m, c)",
    "means": "p = Add(image, means)",
    "bounds and margin": "m = Max(image, lowest) p = Pad(m, pads)",
    "nothing": "p = Identity(image)",
}


@pytest.mark.parametrize("body", PREPARED.values(), ids=PREPARED)
def test_an_int8_network_that_prepares_its_pictures_lies_as_its_source_does(
    body: str, build: Build, quantise: Any, feeds: Any, tflite: Any, onnx_run: Any
) -> None:
    """Levels and means of Keras networks are codes behind a DequantizeLinear there: no reason to turn the axes once more."""
    text = f"""agraph (float[n,8,8,3] image) => (float[n,a,b,16] y)
        <float[16,3,3,3] w, float k = {{0.5}}, float c = {{1.0}}, float[3] means = {{1, 2, 3}}, float lowest = {{-1.0}},
         int64[8] pads = {{0, 1, 1, 0, 0, 1, 1, 0}}> {{
        {body} t = Transpose<perm=[0,3,1,2]>(p) h = Conv(t, w) r = Relu(h) y = Transpose<perm=[0,2,3,1]>(r) }}"""
    model = build(
        text.replace(
            "p = Identity(image) t = Transpose<perm=[0,3,1,2]>(p)", "t = Transpose<perm=[0,3,1,2]>(image)"
        )
    )
    small = quantise(model)
    assert InputSpec.of(small) == InputSpec.of(model)
    data = emit(small, precision="int8", io_layout="nhwc")
    assert read(data).tensors[read(data).inputs[0]].shape == (1, 8, 8, 3)
    given = feeds(model, count=1)
    want, have = onnx_run(model, given)["y"], tflite(data, given)["y"]
    assert np.square(have - want).sum() < 1e-3 * np.square(want).sum()


@pytest.mark.parametrize("engine", ["litert", "litert-builtin", "tflite-runtime"])
def test_open_batch_stays_open(engine: str, build: Build, feeds: Any, tflite: Any, onnx_run: Any) -> None:
    model = build(NET)
    data = emit(model)
    file = read(data)
    assert file.tensors[file.inputs[0]].signature == (-1, 3, 9, 9)
    assert file.tensors[file.outputs[0]].signature == (-1, 5)
    given = feeds(model, count=4)
    np.testing.assert_allclose(
        tflite(data, given, engine)["logits"], onnx_run(model, given)["logits"], atol=1e-5
    )


def test_fixed_batch(build: Build, feeds: Any, tflite: Any, onnx_run: Any) -> None:
    model = build(NET)
    file = read(data := emit(model, batch=2))
    assert file.tensors[file.inputs[0]].shape == file.tensors[file.inputs[0]].signature == (2, 3, 9, 9)
    given = feeds(model, count=2)
    np.testing.assert_allclose(tflite(data, given)["logits"], onnx_run(model, given)["logits"], atol=1e-5)
    with pytest.raises(UsageError, match="fixed at 1"):
        emit(build(NET.replace("float[n,", "float[1,")), batch=3)


def test_an_operator_that_bakes_the_batch_fixes_it(build: Build) -> None:
    text = "agraph (float[n,4,5,5] x) => (float[n,a,b,c] y) <float[4,2,3,3] w> { y = ConvTranspose<strides=[2,2]>(x, w) }"
    file = read(emit(build(text)))
    assert file.tensors[file.inputs[0]].signature == (1, 4, 5, 5)
    assert file.edgec_metadata["batch"] == 1


def test_half_precision_constants(build: Build, feeds: Any, tflite: Any, onnx_run: Any) -> None:
    model = build(NET)
    data = emit(model, precision="fp16")
    assert read(data).precision == "fp16"
    given = feeds(model, count=1)
    for engine in ("litert", "litert-builtin", "tflite-runtime"):
        have = tflite(data, given, engine)["logits"]
        np.testing.assert_allclose(have, onnx_run(model, given)["logits"], atol=5e-3)


def test_half_precision_keeps_what_would_overflow(
    build: Build, feeds: Any, tflite: Any, onnx_run: Any
) -> None:
    model = build("agraph (float[n,64] x) => (float[n,4] y) <float[64,4] g> { y = MatMul(x, g) }")
    weight = model.graph.initializers["g"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1e6, name="g")
    given = feeds(model, count=1)
    have = tflite(emit(model, precision="fp16"), given)["y"]
    np.testing.assert_allclose(have, onnx_run(model, given)["y"], rtol=1e-4)


def test_constants_are_shared_and_aligned(build: Build) -> None:
    text = """agraph (float[n,8,4,4] x) => (float[n,8,4,4] y) <float[8,8,1,1] w, float[8] b> {
        h = Conv(x, w, b) i = Conv(h, w, b) y = Conv(i, w, b) }"""
    data = emit(build(text), io_layout="nhwc")
    file = read(data)
    constants = [t for t in file.tensors if t.data is not None]
    assert len(constants) == 2
    base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    for tensor in constants:
        assert tensor.data is not None
        offset = data.find(tensor.data.tobytes())
        assert offset % 16 == 0, base


def test_metadata_and_names(build: Build) -> None:
    file = read(emit(build(NET), metadata={"edgec.preprocess": "{}"}))
    assert file.edgec_metadata["metadata"] == {"edgec.preprocess": "{}"}
    assert file.edgec_metadata["precision"] == "fp32"
    assert [file.tensors[i].name for i in (*file.inputs, *file.outputs)] == ["image", "logits"]
    assert len({t.name for t in file.tensors}) == len(file.tensors)
    assert {"r", "e"} <= {t.name for t in file.tensors}


def test_signature(build: Build) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    made = litert.Interpreter(model_content=emit(build(NET)))
    assert made.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    runner = made.get_signature_runner("serving_default")
    assert runner(image=np.zeros((1, 3, 9, 9), np.float32))["logits"].shape == (1, 5)


def test_an_output_that_is_an_input_or_two_outputs_in_one(build: Build, tflite: Any) -> None:
    text = """agraph (float[n,4] x) => (float[n,4] a, float[n,4] b, float[n,4] c) { a = Identity(x) b
        = Relu(x) c = Identity(b) }"""
    x = np.asarray([[-1, 2, -3, 4]], np.float32)
    have = tflite(emit(build(text)), {"x": x})
    np.testing.assert_array_equal(have["a"], x)
    np.testing.assert_array_equal(have["b"], np.maximum(x, 0))
    np.testing.assert_array_equal(have["c"], np.maximum(x, 0))


def test_precision_must_fit_the_model(build: Build, quantise: Any) -> None:
    with pytest.raises(UsageError, match="no QDQ pairs"):
        emit(build(NET), precision="int8")
    with pytest.raises(UsageError, match="is quantised"):
        emit(quantise(build(NET)), precision="fp32")
    with pytest.raises(UsageError, match="no precision"):
        emit(build(NET), precision="fp8")


REFUSED = """agraph (float[n,3,8,8] x) => (float[n,a,b,c] y, float[n,d,e,f] z) <float[4,3,3,3] w> {
    h = Conv(x, w) r = Relu(h) i = Erf(r) y = Conv(i, v) q = Det(i) s = Sigmoid(r) z = Abs(s) }""".replace(
    "float[4,3,3,3] w", "float[4,3,3,3] w, float[2,4,1,1] v"
).replace(" q = Det(i)", "")


def test_refusals_name_node_reason_and_way_out(build: Build) -> None:
    model = build(REFUSED)
    (only,) = unsupported(model)
    assert (only.op, only.node) == ("Erf", "Erf_2")
    assert only.why
    assert only.hint
    with pytest.raises(UnsupportedError, match="Erf_2") as error:
        emit(model)
    assert error.value.exit_code == 3
    assert unsupported(build(NET)) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("agraph (float[n,3,8,8,8] x) => (float[n,4,a,b,c] y) <float[4,3,1,1,1] w> { y = Conv(x, w) }", "three|3 spatial"),
        ("agraph (float[n,3,8,8] x, float[4,3,1,1] w) => (float[n,4,8,8] y) { y = Conv(x, w) }", "weight is computed"),
        ('''agraph (float[n,3,8,8] x) => (float[n,a,b,c] y) <int64[4] s = {1,3,8,9}> {
            y = Resize<mode="cubic">(x, , , s) }''', "cubic"),
        ("agraph (float[n,3,8,8] x, float[1] hi) => (float[n,3,8,8] y) { y = Clip(x, hi) }", "computed"),
        ("agraph (uint16[n,3] x) => (uint16[n,3] y) { y = Relu(x) }", "UINT16"),
        ("agraph (float[n,m,8] x) => (float[n,m,8] y) { y = Relu(x) }", "more than one open axis"),
    ],
)  # fmt: skip
def test_what_tflite_cannot_take(text: str, why: str, build: Build) -> None:
    with pytest.raises((UnsupportedError, UsageError)) as error:
        emit(build(text))
    import re

    assert re.search(why, str(error.value))
    assert "\n" in str(error.value)


def test_split_keeps_the_part_that_runs(build: Build, feeds: Any, tflite: Any, onnx_run: Any) -> None:
    model = build(REFUSED)
    split = split_unsupported(model)
    assert split.cut == ("r", "z")
    assert [r.op for r in split.refused] == ["Erf"]
    given = feeds(model, count=1)
    have = tflite(emit(split.model), given)
    model.graph.outputs.append(next(v for n in model.graph for v in n.outputs if v.name == "r"))
    want = onnx_run(model, given)
    np.testing.assert_allclose(have["r"], want["r"], atol=1e-5)
    np.testing.assert_allclose(have["z"], want["z"], atol=1e-5)
    with pytest.raises(UnsupportedError, match="Erf"):
        split_unsupported(build("agraph (float[n,3] x) => (float[n,3] y) { y = Erf(x) }"))


def test_old_runtimes_admit_the_file(build: Build, quantise: Any) -> None:
    """Versions are the lowest ones: 1 in float, 3 for int8 convolutions, 4 for int8 fully connected layers."""
    assert {op.version for op in read(emit(build(NET))).operators} == {1}
    versions = {op.code: op.version for op in read(emit(quantise(build(NET)), precision="int8")).operators}
    assert versions["CONV_2D"] == 3
    assert versions["DEPTHWISE_CONV_2D"] == 3
    assert versions["FULLY_CONNECTED"] == 4
    assert versions["QUANTIZE"] == 1


def test_quantisation_is_the_table_of_the_graph(build: Build, quantise: Any) -> None:
    model = quantise(build(NET))
    table = {
        node.inputs[0].name: (
            float(node.inputs[1].const_value.numpy()),
            int(node.inputs[2].const_value.numpy()) - 128,
        )
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    }
    file = read(emit(model, precision="int8"))
    tensors = {t.name: t for t in file.tensors if t.data is None and t.quantization is not None}
    scale, zero = table["r"]
    assert tensors["r"].quantization.scale == pytest.approx((scale,))
    assert tensors["r"].quantization.zero_point == (zero,)
    (op,) = (op for op in file.operators if op.code == "DEPTHWISE_CONV_2D")
    weight, bias = (file.tensors[i].quantization for i in op.inputs[1:])
    assert (weight.axis, bias.axis) == (3, 0)
    x = file.tensors[op.inputs[0]].quantization
    np.testing.assert_allclose(bias.scale, np.float32(x.scale[0]) * np.float32(weight.scale), rtol=1e-6)


def test_read_back_and_cost(build: Build) -> None:
    from edgec.graph.cost import cost

    model = build(NET)
    ours, precision = read_cost(emit(model, io_layout="nhwc"))
    theirs = cost(model)
    assert precision == "fp32"
    assert ours.macs == theirs.macs
    assert [n.kind for n in ours.nodes] == ["dense", "depthwise", "pool", "linear"]
    half, precision = read_cost(emit(model, precision="fp16", io_layout="nhwc"))
    assert precision == "fp16"
    assert half.macs == ours.macs
    assert half.weight_bytes < ours.weight_bytes


def test_layers_alone_compute_their_part(build: Build, quantise: Any, feeds: Any, tflite: Any) -> None:
    model = quantise(build(NET))
    data = emit(model, precision="int8", io_layout="nhwc", io_type="int8")
    layers = split_layers(data)
    assert [layer.op for layer in layers] == ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED"]
    assert sum(layer.macs for layer in layers) == read_cost(data)[0].macs
    x = np.random.default_rng(0).integers(-128, 127, (1, 9, 9, 3)).astype(np.int8)
    whole = next(iter(tflite(data, {"image": x}).values()))
    value = x
    for layer in layers:
        file = read(layer.data)
        value = next(iter(tflite(layer.data, {file.tensors[file.inputs[0]].name: value}).values()))
    np.testing.assert_array_equal(value, whole)


def test_damaged_files_are_errors_of_ours(build: Build) -> None:
    data = emit(build(NET))
    with pytest.raises(ModelError, match="not a TFLite file"):
        read(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read("/no/such/file.tflite")
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(data[: int(rng.integers(16, len(data)))] if rng.random() < 0.5 else data)
        for _ in range(4):
            broken[int(rng.integers(8, len(broken)))] = int(rng.integers(0, 256))
        try:
            read(bytes(broken))
        except ModelError:
            continue
    assert struct.unpack_from("<I", data)[0] < len(data)
    assert json.loads(read(data).metadata["edgec"])


def test_weights_that_are_halves_to_the_bit_are_stored_as_such(build: Build, tflite: Any, feeds: Any) -> None:
    """A source that stores float16 comes out no larger, and with the same numbers; others are left alone."""
    model = build(NET)
    plain = emit(model)
    assert "DEQUANTIZE" not in [op.code for op in read(plain).operators]
    weight = model.graph.initializers["w"]
    halves = weight.const_value.numpy().astype(np.float16).astype(np.float32)
    weight.const_value = ir.tensor(halves, name="w")
    kept = emit(model)
    stored = [t for t in read(kept).tensors if t.type.name == "FLOAT16"]
    assert [t.elements for t in stored] == [halves.size]
    assert len(kept) < len(plain) - halves.size
    given = {name: array[:1] for name, array in feeds(model).items()}
    for engine in ("litert", "litert-builtin"):
        want = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, given)[0]
        assert np.allclose(tflite(kept, given, engine)["logits"], want, atol=1e-5)
