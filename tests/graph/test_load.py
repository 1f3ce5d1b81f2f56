"""Loading: what comes in, what is refused, and that the canonical graph computes what the file did."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.cost import cost
from edgec.graph.data import open_data
from edgec.graph.equivalence import ChangedError, Reference, worst_difference
from edgec.graph.errors import EdgecError, ModelError, UnsupportedError, UsageError
from edgec.graph.execute import Executor, session
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from tests.conftest import parse

CONV = "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }"
IMAGENET = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TF = Preprocess(scale=1 / 127.5, mean=(1.0,), crop=(224, 224))
REAL = {
    "kws_dscnn": ("kws/eval.npz", Preprocess()),
    "mobilenet_v1_0.75_224": ("imagenet/eval", TF),
    "mobilenet_v2_1.0_224_dequantised": ("imagenet/eval", TF),
    "nin_cifar10": ("cifar10/eval.npz", IMAGENET),
    "resnet20_cifar10": ("cifar10/eval.npz", IMAGENET),
    "resnet56_cifar10": ("cifar10/eval.npz", IMAGENET),
    "resnet8_cifar10": ("cifar10/eval.npz", Preprocess()),
    "ultraface_rfb320": ("detect/coco_val100", Preprocess(mean=(127,), std=(128,), resize=(240, 320))),
    "vww_mobilenet_v1_0.25_96": ("vww/eval.npz", Preprocess(scale=1 / 255)),
    "yolox_nano": ("detect/coco_val100", Preprocess(resize=(416, 416), letterbox=114, channels="bgr")),
}


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", REAL)
def test_real_networks_keep_their_function(name: str, shared: Path) -> None:
    file = shared / "data" / "models" / f"{name}.onnx"
    where, preprocess = REAL[name]
    model = load(file)
    ops = {node.op_type for node in model.graph}
    assert not ops & {"BatchNormalization", "Shape", "Expand", "Constant", "Identity"}
    samples = next(open_data(shared / "data" / where, model, preprocess, samples=5).batches(5))
    original = session(onnx.load(file))
    fed = original.get_inputs()[0]
    rows = [original.run(None, {fed.name: next(iter(samples.values()))[i : i + 1]}) for i in range(5)]
    got = list(Executor(model).run(samples).values())
    for index, value in enumerate(got):
        expected = np.concatenate([row[index] for row in rows])
        assert worst_difference(expected, value) < 1e-4


def test_batch_norm_affine_and_pads_fold() -> None:
    text = (
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] v>"
        "{ p = Constant<value = int64[8] {0,0,1,1,0,0,1,1}>()  t = Pad(x, p)  c = Conv(t, w)"
        "  y = BatchNormalization<epsilon=0.1>(c, s, b, m, v) }"
    )
    proto = parse(text)
    for tensor in proto.graph.initializer:
        if tensor.name == "v":
            tensor.CopyFrom(numpy_helper.from_array(np.full(4, 0.7, np.float32), "v"))
    from edgec.graph.canonicalise import canonicalise

    model = canonicalise(proto)
    assert [node.op_type for node in model.graph] == ["Conv"]


def far_below(middle: float) -> onnx.ModelProto:
    """A Sigmoid of logits around ``middle``, of which a part is folded into the layer."""
    proto = parse(
        "net (float[N,3,96,96] x) => (float[N,4,96,96] y) <float[4,3,1,1] w> "
        "{ c = Conv(x, w)  d = Div(c, third)  e = Sub(d, m)  y = Sigmoid(e) }"
    )
    values = {"third": np.array(0.3), "m": np.array(-middle)}
    proto.graph.initializer.extend(
        numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()
    )
    return proto


def test_a_graph_is_held_to_no_more_than_the_source_is_sure_of() -> None:
    """Of answers around 1e-5 the last digits of the logits are a thousandth: no form of the network gives them twice."""
    from edgec.graph.canonicalise import canonicalise

    source = far_below(-21.0)
    reference = Reference.of(source, fused=False)
    assert reference.noise == 0
    assert 1e-4 < reference.with_noise(source).noise < 1e-2
    model = canonicalise(source)
    assert [node.op_type for node in model.graph] == ["Conv", "Sigmoid"]
    with pytest.raises(ChangedError):
        reference.check(model, 1e-4)


def test_what_differs_by_more_than_noise_is_refused_all_the_same() -> None:
    from edgec.graph.canonicalise import canonicalise

    source = far_below(-21.0)
    other = canonicalise(far_below(-21.05))
    with pytest.raises(ChangedError):
        Reference.of(source, fused=False).with_noise(source).check(other, 1e-4)
    sure = parse(CONV)
    assert Reference.of(sure, fused=False).with_noise(sure).noise < 1e-5


def test_a_baked_batch_of_one_is_freed(canonical) -> None:
    model = canonical(
        "net (float[1,3,8,8] x) => (float[1,48] y) <float[3,3,1,1] w> "
        "{ t = Conv(x, w)  u = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)"
        "  s = Constant<value = int64[2] {1, 48}>()  y = Reshape(u, s) }"
    )
    assert Executor(model).run({"x": np.zeros((3, 3, 8, 8), np.float32)})["y"].shape == (3, 48)


def test_a_graph_that_mixes_its_batch_keeps_it(canonical) -> None:
    model = canonical(
        "net (float[1,4,8,8] x) => (float[1,4,8,8] y) { m = ReduceMax<keepdims=1>(x)  y = Sub(x, m) }"
    )
    assert model.graph.inputs[0].shape[0] == 1


def test_initialisers_as_inputs_are_constants(tmp_path: Path) -> None:
    proto = parse(CONV)
    proto.ir_version = 3
    weight = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims))
    model = load(save(proto, tmp_path / "m.onnx"))
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_unnamed_nodes_get_stable_names(canonical) -> None:
    names = [[node.name for node in canonical(CONV).graph] for _ in range(2)]
    assert names[0] == names[1]
    assert all(names[0])


def test_opaque_ops_stay(canonical) -> None:
    model = canonical(
        "net (float[N,3,8,8] x) => (float[N,3,8,8] y) { t = Relu(x)  y = LpNormalization<axis=1>(t) }"
    )
    assert [node.op_type for node in model.graph] == ["Relu", "LpNormalization"]


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    proto = parse(CONV)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert cost(load(tmp_path / "m.onnx")).params == 4 * 3 * 9


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(b"\0" * 432)
    proto = parse(CONV)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(folder / "m.onnx")


def broken_files(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    good = parse(CONV).SerializeToString()
    files = {
        "missing": (None, "no such file"),
        "empty": (b"", "empty"),
        "text": (b"hello, this is no model", "not an ONNX file"),
        "truncated": (good[: len(good) // 2], "not"),
        "tflite": (struct.pack("<I", 28) + b"TFL3" + b"\0" * 32, "TFLite"),
    }
    made = {}
    for name, (data, why) in files.items():
        path = tmp_path / f"{name}.onnx"
        if data is not None:
            path.write_bytes(data)
        made[name] = (path, why)
    return made


@pytest.mark.parametrize("name", ["missing", "empty", "text", "truncated", "tflite"])
def test_what_is_no_model_is_refused(name: str, tmp_path: Path) -> None:
    path, why = broken_files(tmp_path)[name]
    with pytest.raises(ModelError, match=why) as caught:
        load(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


REFUSED = {
    "custom op": (
        "net (float[N,3] x) => (float[N,3] y) { y = my.domain.Foo(x) }",
        "custom op",
    ),
    "recurrent": (
        "net (float[2,1,3] x) => (float[2,1,1,4] y) <float[1,16,3] w, float[1,16,4] r>"
        "{ y, h = LSTM<hidden_size=4>(x, w, r) }",
        "recurrent",
    ),
    "random": (
        "net (float[N,3] x) => (float[N,3] y) { n = RandomNormalLike(x)  y = Add(x, n) }",
        "random",
    ),
    "open length": ("net (float[N,3,L] x) => (float[N,3,L] y) { y = Relu(x) }", "no fixed size"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_name_the_place(text: str, why: str, tmp_path: Path) -> None:
    proto = parse(text)
    if "my.domain" in text:
        proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    with pytest.raises(UnsupportedError) as caught:
        load(save(proto, tmp_path / "m.onnx"))
    assert why in str(caught.value)
    assert caught.value.where


def test_input_shape_fixes_open_axes(tmp_path: Path) -> None:
    file = save(parse("net (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    assert list(load(file, input_shape=(3, 6, 5)).graph.inputs[0].shape)[1:] == [3, 6, 5]


def test_factory_with_weights_and_pt2(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = tmp_path / "net.py"
    source.write_text(
        "import torch.nn as nn\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))\n"
    )
    spec: dict[str, object] = {}
    exec(source.read_text(), spec)  # the same factory, to make weights with
    module = spec["make"]().eval()
    module[1].running_mean.uniform_(-1, 1)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = module(torch.from_numpy(x)).detach().numpy()
    model = load(f"{source}:make", weights=tmp_path / "w.pt", input_shape=(3, 8, 8))
    got = next(iter(Executor(model).run({model.graph.inputs[0].name: x}).values()))
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {
        "net.py",
        "w.pt",
    }  # no bytecode beside the user's file
    torch.export.save(torch.export.export(module, (torch.from_numpy(x),)), tmp_path / "m.pt2")
    again = load(tmp_path / "m.pt2")
    got = next(iter(Executor(again).run({again.graph.inputs[0].name: x}).values()))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("depth", [20, pytest.param(56, marks=pytest.mark.slow)])
def test_state_dict_through_a_factory(depth: int, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    models = shared / "data" / "models"
    factory = Path(__file__).parent / "resnet_cifar.py"
    weights = models / f"resnet{depth}_cifar10_state_dict.pt"
    model = load(f"{factory}:resnet{depth}", weights=weights, input_shape=(3, 32, 32))
    twin = load(models / f"resnet{depth}_cifar10.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    got = next(iter(Executor(model).run({model.graph.inputs[0].name: x}).values()))
    expected = next(iter(Executor(twin).run({twin.graph.inputs[0].name: x}).values()))
    assert worst_difference(expected, got) < 1e-4


@pytest.mark.parametrize(
    ("source", "error", "why"),
    [
        ("nosuchmodule_xyz:make", UsageError, "cannot be imported"),
        ("net.py:make", UsageError, "no such file"),
        ("json:no_such_function", UsageError, "no function"),
        ("json:dumps", UsageError, "factory failed"),
        ("builtins:dict", UsageError, "must return a torch.nn.Module"),
    ],
)
def test_wrong_factories(source: str, error: type[EdgecError], why: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(error, match=why):
        load(source, input_shape=(3, 8, 8))


@pytest.mark.parametrize("op", ["ReduceMean", "ArgMax"])
def test_a_switch_that_is_neither_0_nor_1_is_what_onnxruntime_takes_it_for(op: str, make_model) -> None:
    model = make_model(
        f"net (float[1,3,4,4] x) => ({'int64' if op == 'ArgMax' else 'float'}[1,4,4] y) <int64[1] a = {{1}}> "
        f"{{ y = {op}<{'axis=1, ' if op == 'ArgMax' else ''}keepdims=-1>(x{'' if op == 'ArgMax' else ', a'}) }}"
    )
    from edgec.graph.canonicalise import canonicalise

    (node,) = canonicalise(model).graph
    assert len(node.outputs[0].shape) == 3


@pytest.mark.parametrize(
    ("op", "rest"),
    [
        ('FusedConv<activation="Relu", kernel_shape=[3,3]>(x, w)', "f = GlobalAveragePool(h) y = Flatten(f)"),
        ("QuickGelu<alpha=1.7>(x)", "f = GlobalAveragePool(h) y = Flatten(f)"),
        ("BiasGelu(x, c)", "f = GlobalAveragePool(h) y = Flatten(f)"),
    ],
    ids=["fused", "an activation", "another"],
)  # fmt: skip
def test_what_onnxruntime_made_when_it_optimised_a_file_is_named(op: str, rest: str) -> None:
    from edgec.graph.canonicalise import canonicalise

    text = f"net (float[1,4,6,6] x) => (float[1,4] y) <float[4,4,3,3] w, float[6] c> {{ h = com.microsoft.{op}  {rest} }}"
    model = parse(text)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError, match="give the one that it was made from") as caught:
        canonicalise(model)
    assert op.split("<")[0].split("(")[0] in str(caught.value)
