"""Joined outputs are taken apart by what is computed in them, however an exporter writes the join."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.execute import Executor
from edgec.graph.parts import parts_of

LEVELS = """
box8 = Conv (x, wb)
cls8 = Conv (x, wc)
small = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)
box16 = Conv (small, wb)
cls16 = Conv (small, wc)
"""
SHAPES = "int64[3] rows = {0, 12, 4}, int64[3] flat8 = {0, 7, 16}, int64[3] flat16 = {0, 7, 4}, "
SHAPES += (
    "int64[3] b8 = {0, 4, 16}, int64[3] b16 = {0, 4, 4}, int64[3] c8 = {0, 3, 16}, int64[3] c16 = {0, 3, 4}, "
)
SHAPES += "int64[3] last4 = {0, -1, 4}, int64[3] last3 = {0, -1, 3}, int64[2] bflat = {0, -1}, float[1] stride = {8}"


def network(body: str, outputs: str, inner: str) -> ir.Model:
    """A network of one input (N, 2, 4, 4) with box layers of 4 channels and class layers of 3; what ``body`` does with them."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N,2,4,4] x) => ({outputs})
    <float[4,2,1,1] wb = {{{",".join(str(k / 8) for k in range(8))}}},
     float[3,2,1,1] wc = {{{",".join(str(k / 4) for k in range(6))}}}, {SHAPES},
     float[N,4,4,4] box8, float[N,3,4,4] cls8, float[N,2,2,2] small, float[N,4,2,2] box16, float[N,3,2,2] cls16{", " * bool(inner)}{inner}>
    {{ {LEVELS} {body} }}"""
    return ir.from_onnx_text(text)


YOLOX = """
s8 = Sigmoid (cls8)
s16 = Sigmoid (cls16)
j8 = Concat <axis=1> (box8, s8)
j16 = Concat <axis=1> (box16, s16)
f8 = Reshape (j8, flat8)
f16 = Reshape (j16, flat16)
all = Concat <axis=2> (f8, f16)
y = Transpose <perm=[0,2,1]> (all)
"""
YOLO8 = """
r8 = Reshape (box8, b8)
r16 = Reshape (box16, b16)
k8 = Reshape (cls8, c8)
k16 = Reshape (cls16, c16)
boxes = Concat <axis=2> (r8, r16)
logits = Concat <axis=2> (k8, k16)
far = Mul (boxes, stride)
scores = Sigmoid (logits)
y = Concat <axis=1> (far, scores)
"""
RAW = "y = Concat <axis=1> (box8, cls8)"
LAST = """
t8 = Transpose <perm=[0,2,3,1]> (box8)
t16 = Transpose <perm=[0,2,3,1]> (box16)
u8 = Transpose <perm=[0,2,3,1]> (cls8)
u16 = Transpose <perm=[0,2,3,1]> (cls16)
r8 = Reshape (t8, last4)
r16 = Reshape (t16, last4)
k8 = Reshape (u8, last3)
k16 = Reshape (u16, last3)
p8 = Concat <axis=-1> (r8, k8)
p16 = Concat <axis=-1> (r16, k16)
joined = Concat <axis=1> (p8, p16)
y = Sigmoid (joined)
"""
SCALED_BEHIND = """
j8 = Concat <axis=1> (box8, cls8)
y = Mul (j8, stride)
"""
J = "float[N,7,4,4] j8, float[N,7,2,2] j16"
F = "float[N,7,16] f8, float[N,7,4] f16, float[N,7,20] all"
R = "float[N,4,16] r8, float[N,4,4] r16, float[N,3,16] k8, float[N,3,4] k16"
S = "float[N,3,4,4] s8, float[N,3,2,2] s16"
JOINED: Mapping[str, tuple[str, str, str, list[str]]] = {
    "YOLOX: by level, then levels, then rows": (
        YOLOX, "float[N,20,7] y", f"{S}, {J}, {F}", ["y[:, :, 0:4]", "y[:, :, 4:7]"],
    ),
    "YOLOv8: levels first, then boxes and scores": (
        YOLO8, "float[N,7,20] y",
        f"{R}, float[N,4,20] boxes, float[N,3,20] logits, float[N,4,20] far, float[N,3,20] scores",
        ["y[:, 0:4]", "y[:, 4:7]"],
    ),
    "one level, raw": (RAW, "float[N,7,4,4] y", "", ["y[:, 0:4]", "y[:, 4:7]"]),
    "NHWC rows, features last, Sigmoid over all": (
        LAST, "float[N,20,7] y",
        "float[N,4,4,4] t8, float[N,2,2,4] t16, float[N,4,4,3] u8, float[N,2,2,3] u16, "
        "float[N,16,4] r8, float[N,4,4] r16, float[N,16,3] k8, float[N,4,3] k16, "
        "float[N,16,7] p8, float[N,4,7] p16, float[N,20,7] joined",
        ["y[:, :, 0:4]", "y[:, :, 4:7]"],
    ),
    "arithmetic with constants behind": (
        SCALED_BEHIND, "float[N,7,4,4] y", "float[N,7,4,4] j8", ["y[:, 0:4]", "y[:, 4:7]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_boxes_and_scores_are_parts(name: str) -> None:
    body, outputs, inner, expected = JOINED[name]
    model = network(body, outputs, inner)
    assert [part.name for part in parts_of(model)] == expected


@pytest.mark.parametrize("name", JOINED)
def test_a_part_holds_what_its_layers_compute(name: str) -> None:
    """Another box layer moves the boxes alone, another class layer the scores alone."""
    body, outputs, inner, _ = JOINED[name]
    x = {"x": np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)}
    model = network(body, outputs, inner)
    before = list(Executor(model).run(x).values())
    for moved, weight in enumerate(("wb", "wc")):
        other = model.clone()
        tensor = other.graph.initializers[weight].const_value
        assert tensor is not None
        other.graph.initializers[weight].const_value = ir.tensor(tensor.numpy() + 0.5, name=weight)
        after = list(Executor(other).run(x).values())
        changed = [bool(np.any(part.of(before) != part.of(after))) for part in parts_of(model)]
        assert changed == [moved == 0, moved == 1]
        assert all(np.all(p.of(before) != p.of(after)) for p in [parts_of(model)[moved]])


def test_parts_cover_each_value_once() -> None:
    for body, outputs, inner, _ in JOINED.values():
        masks = [part.mask for part in parts_of(network(body, outputs, inner))]
        assert np.all(np.sum([np.asarray(mask) for mask in masks], axis=0) == 1)


WHOLE = {
    "levels of one kind": (
        "r8 = Reshape (box8, b8) r16 = Reshape (box16, b16) y = Concat <axis=2> (r8, r16)",
        "float[N,4,20] y", "float[N,4,16] r8, float[N,4,4] r16",
    ),
    "levels of one kind, flat (SSD)": (
        "t8 = Transpose <perm=[0,2,3,1]> (box8) t16 = Transpose <perm=[0,2,3,1]> (box16)"
        " r8 = Reshape (t8, bflat) r16 = Reshape (t16, bflat) y = Concat <axis=1> (r8, r16)",
        "float[N,80] y", "float[N,4,4,4] t8, float[N,2,2,4] t16, float[N,64] r8, float[N,16] r16",
    ),
    "one distribution over what is joined": (
        "j8 = Concat <axis=1> (box8, cls8) y = Softmax <axis=1> (j8)",
        "float[N,7,4,4] y", "float[N,7,4,4] j8",
    ),
    "a layer": ("y = Relu (box8)", "float[N,4,4,4] y", ""),
    "behind a product of two": (
        "j8 = Concat <axis=1> (box8, cls8) y = Mul (j8, j8)", "float[N,7,4,4] y", "float[N,7,4,4] j8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_of_one_kind_stays_whole(name: str) -> None:
    (part,) = parts_of(network(*WHOLE[name]))
    assert (part.name, part.mask) == ("y", None)


def test_outputs_are_parts_of_their_own() -> None:
    model = network(
        "y = Concat <axis=1> (box8, cls8) z = Relu (cls16)", "float[N,7,4,4] y, float[N,3,2,2] z", ""
    )
    assert [(part.name, part.output) for part in parts_of(model)] == [
        ("y[:, 0:4]", 0),
        ("y[:, 4:7]", 0),
        ("z", 1),
    ]
