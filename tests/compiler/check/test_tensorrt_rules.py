"""Every rule of TensorRT's form, broken by one change: found, by that rule, and nothing on the file before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.check.check import TENSORRT_RULES, check_file, check_onnx
from edgec.compiler.emit.onnx import emit
from edgec.graph.data import Dataset
from edgec.graph.errors import ModelError
from edgec.passes.base import Context
from edgec.passes.quantize import Quantize
from edgec.targets import target
from tests.compiler.check.broken import broken
from tests.conftest import parse

ORIN = target("jetson-orin-nano")
NET = """
g (float[N,3,16,16] x) => (float[N,32,16,16] y)
<float[32,3,3,3] w0, float[32] b0, float[32,32,3,3] w1, float[32] b1, float[32,32,3,3] w2, float[32] b2, float[32,32,1,1] w3> {
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(ra, w1, b1)
  rb = Relu(b)
  c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(rb, w2, b2)
  d = Add(c, ra)
  rd = Relu(d)
  y = Conv<kernel_shape=[1,1]>(rd, w3)
}
"""
FOUND = {
    # change -> (rule, level on JetPack 5.1, level on JetPack 6.2; None: no matter there)
    "opset": ("opset", "error", "error"),
    "zero_point": ("zero-point", "error", "error"),
    "unsigned": ("code-type", "error", "warning"),
    "no_zero_point": ("three-inputs", "error", None),
    "zero_point_size": ("zero-point-size", "error", "error"),
    "int8_weight": ("int8-weight", "error", None),
    "int32_weight": ("wide-codes", "error", "error"),
    "int32_bias": ("wide-codes", "error", "error"),
    "float_weight": ("half-quantised", "warning", "warning"),
    "axis": ("scale-axis", "error", "error"),
    "scale_count": ("scale-axis", "error", "error"),
    "scale_zero": ("scale-positive", "error", "error"),
    "scale_negative": ("scale-positive", "error", "error"),
    "computed_scale": ("scale-stored", "error", "error"),
    "half_scales": ("scale-type", "error", "error"),
    "activation_axis": ("one-per-tensor", "error", "error"),
    "lone_quantise": ("pairs", "error", "error"),
    "lone_dequantise": ("pairs", "error", "error"),
    "qlinear": ("quantised-op", "error", "error"),
    "foreign_domain": ("foreign-op", "error", "error"),
    "dynamic_quantize": ("quantised-op", "error", "error"),
    "branch": ("residual", "warning", "warning"),
    "float_skip": ("residual", "warning", "warning"),
    "concat": ("concat", "warning", "warning"),
    "pad": ("pad", "warning", "warning"),
    "depthwise_silu": ("depthwise-silu", "error", None),
    "narrow": ("narrow", "warning", "warning"),
    "dynamic": ("static", "warning", "warning"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return onnx.load_from_string(emit(quantised(tmp_path_factory.mktemp("base"), ORIN), opset=17, batch=1))


def quantised(folder: Path, device: object) -> ir.Model:
    from edgec.graph.canonicalise import canonicalise
    from edgec.graph.data import ArraySource, InputSpec
    from edgec.graph.preprocess import Preprocess

    model = canonicalise(parse(NET))
    arrays = {"x": np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)}
    data = Dataset(
        "noise", ArraySource(arrays, Preprocess(layout="nchw"), InputSpec.of(model)), tuple(range(8))
    )
    context = Context(teacher=model, scratch=folder, data=data, target=device)  # type: ignore[arg-type]
    return Quantize(correct="none", equalize="no").run(model.clone(), context).model


def test_every_change_has_its_expectation(base: onnx.ModelProto) -> None:
    assert set(broken(base)) == set(FOUND)


@pytest.mark.parametrize("release", ["4.6", "5.1", "6.0", "6.2", "7.1"])
def test_the_clean_file_has_no_finding(base: onnx.ModelProto, release: str) -> None:
    device = target("jetson-agx-xavier") if release == "4.6" else ORIN
    if release == "4.6":
        base = onnx.ModelProto.FromString(base.SerializeToString())
        base.opset_import[0].version = 13
    if release == "7.1":
        device = device.model_copy(update={"jetpacks": (*device.jetpacks, "7.1")})
    assert check_onnx(base, device.on(release)) == ()


@pytest.mark.parametrize("change", FOUND)
@pytest.mark.parametrize("release", ["5.1", "6.2"])
def test_a_broken_rule_is_found(base: onnx.ModelProto, change: str, release: str) -> None:
    rule, old, new = FOUND[change]
    level = old if release == "5.1" else new
    found = [one for one in check_onnx(broken(base)[change], ORIN.on(release)) if one.rule == rule]
    assert {one.level for one in found} == ({level} if level else set())
    if level and rule != "opset":
        assert all(one.node for one in found)


def test_every_rule_says_what_it_demands() -> None:
    names = [rule.name for rule in TENSORRT_RULES]
    assert len(set(names)) == len(names)
    assert all(rule.demand for rule in TENSORRT_RULES)


@pytest.mark.parametrize(
    ("dialect", "rules"),
    [
        ("host", {"zero-point", "int8-weight", "wide-codes"}),
        ("rpi4", {"zero-point", "int8-weight", "wide-codes"}),
    ],
)
def test_what_tensorrt_says_to_files_of_other_dialects(dialect: str, rules: set[str], tmp_path: Path) -> None:
    model = quantised(tmp_path, target(dialect))
    file = onnx.load_from_string(emit(model, opset=17, batch=1))
    found = {one.rule for one in check_onnx(file, ORIN.on("5.1")) if one.level == "error"}
    assert rules <= found
    assert not [one for one in check_onnx(file, target(dialect)) if one.level == "error"]


FOREIGN = {
    "a random generator": ("y = Unique(x)", "op"),
    "cubic": ('s = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() y = Resize<mode="cubic">(x, , s)', "op-form"),
    "indices": ("y, i = MaxPool<kernel_shape=[2,2]>(x)", "op-form"),
    "a computed weight": ("w = Relu(x) y = Conv(x, w)", "op-form"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files(case: str, tmp_path: Path) -> None:
    body, rule = FOREIGN[case]
    path = tmp_path / "foreign.onnx"
    onnx.save(parse(f"g (float[1,3,8,8] x) => (float[a,b,c,d] y) {{ {body} }}"), path)
    assert rule in {one.rule for one in check_file(path, ORIN.on("5.1"))}


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\xff"])
def test_what_is_no_file_is_said(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no ONNX file"):
        check_file(path, ORIN)


def test_a_release_that_a_board_does_not_run(
    edgec: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(parse(NET), path)
    code, _, err = edgec("inspect", path, "--target", "jetson-agx-xavier", "--jetpack", "6.2")
    assert code == 2
    assert "4.6, 5.0, 5.1" in err
    code, _, err = edgec("inspect", path, "--target", "rpi4", "--jetpack", "6.2")
    assert code == 2
    assert "no Jetson" in err
    code, _, err = edgec("inspect", path, "--jetpack", "6.2")
    assert code == 2


def test_inspect_says_it(
    edgec: Callable[..., tuple[int, str, str]], base: onnx.ModelProto, tmp_path: Path
) -> None:
    for name, model in {"clean": base, **broken(base)}.items():
        if name in ("clean", "int8_weight", "branch"):
            onnx.save(model, tmp_path / f"{name}.onnx")
    code, out, _ = edgec(
        "inspect", tmp_path / "clean.onnx", "--target", "jetson-orin-nano", "--jetpack", "5.1"
    )
    assert code == 0
    assert "nothing found" in out
    code, out, _ = edgec(
        "inspect", tmp_path / "int8_weight.onnx", "--target", "jetson-orin-nano", "--jetpack", "5.1"
    )
    assert code == 1
    assert "[int8-weight]" in out
    code, out, _ = edgec("inspect", tmp_path / "branch.onnx", "--target", "jetson-orin-nano", "--json")
    assert code == 0
    assert '"rule": "residual"' in out
