"""Another size of the picture: what a network exported at that size computes, or the node that forbids it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.execute import Executor
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import legality, resized, size_of, total_stride, why_not
from edgec.graph.resolution.restore import output_axes, same_places
from edgec.graph.tidy import infer_shapes
from edgec.graph.views import add_initializer, constant
from tests.graph.conftest import build

Make = Callable[[int], ir.Model]


def net(
    body: str, out: str, weights: str = "", grids: Callable[[int], dict[str, np.ndarray]] | None = None
) -> Make:
    """A maker of the network for pictures of ``s``: in ``body`` ``{h}`` is s/2, ``{q}`` s/4, ``{n}`` (s/4)^2, ``{r}`` rows."""

    def made(s: int) -> ir.Model:
        half, quarter = s // 2, s // 4
        sizes = {
            "s": s,
            "h": half,
            "q": quarter,
            "n": quarter**2,
            "r": half**2 + quarter**2,
            "c": 4 * quarter**2,
        }
        text = "g (float[N,3,S,S] x, float[4,3,3,3] w, float[4,4,3,3] v, WEIGHTS) => (float[OUT] y) {"
        text = (
            text.replace("S,S", f"{s},{s}")
            .replace("OUT", out)
            .replace(", WEIGHTS", weights and f", {weights}")
        )
        text += (
            "a = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w) b = Conv <strides=[2,2], pads=[1,1,1,1]> (a, v) "
        )
        for key, value in sizes.items():
            body_key = "{" + key + "}"
            text = text.replace(body_key, str(value))
        filled = body
        for key, value in sizes.items():
            filled = filled.replace("{" + key + "}", str(value))
        model = build(text + filled.replace("@", "{").replace("$", "}") + "}")
        for name, array in (grids or (lambda _: {}))(s).items():
            for node in model.graph:
                for index, value in enumerate(node.inputs):
                    if value is not None and value.name == name:
                        node.replace_input_with(index, add_initializer(model.graph, f"{name}_", array))
        infer_shapes(model)
        return model

    return made


def cells(s: int, scale: Callable[[int], float], offset: float = 0.5) -> np.ndarray:
    """(1, rows, 2): x and y of every place of two levels, times ``scale`` of the stride."""
    found = []
    for stride in (2, 4):
        y, x = np.mgrid[: s // stride, : s // stride]
        found.append((np.stack([x.ravel(), y.ravel()], 1) + offset) * scale(stride))
    return np.concatenate(found)[None].astype(np.float32)


def strides(s: int, scale: float = 1.0) -> np.ndarray:
    return np.concatenate([np.full((1, (s // k) ** 2, 1), k * scale, np.float32) for k in (2, 4)], axis=1)


def boxes(s: int) -> np.ndarray:
    """(1, rows, 4): centres in shares of the picture, and sides that are so many pixels."""
    sides = [np.full(((s // k) ** 2, 2), 3.0 * k / s) for k in (2, 4)]
    return np.concatenate([cells(s, lambda k: k / s)[0], np.concatenate(sides)], axis=1)[None].astype(
        np.float32
    )


ROWS = """
f = Constant <value_ints=[0,4,-1]> () l = Reshape (a, f) m = Reshape (b, f) j = Concat <axis=2> (l, m)
t = Transpose <perm=[0,2,1]> (j) """
TWO = """st = Constant <value_ints=[0]> () en = Constant <value_ints=[2]> () ax = Constant <value_ints=[2]> ()
p = Slice (t, st, en, ax) """
LEGAL: dict[str, Make] = {
    "global pool": net("p = GlobalAveragePool (b) f = Flatten (p) y = Gemm (f, k)", "N,5", "float[4,5] k"),
    "a pool as large as the map": net(
        "p = AveragePool <kernel_shape=[{q},{q}]> (b) f = Flatten (p) y = Gemm (f, k)", "N,5", "float[4,5] k"
    ),
    "a strided pool as large as the map": net(
        "p = MaxPool <kernel_shape=[{q},{q}], strides=[{q},{q}]> (b) f = Flatten (p) y = Gemm (f, k)", "N,5", "float[4,5] k"
    ),
    "mean over axes": net(
        "ax = Constant <value_ints=[2,3]> () p = ReduceMean <keepdims=0> (b, ax) y = Gemm (p, k)", "N,5", "float[4,5] k"
    ),
    "a resize to the size of another map": net(
        "z = Constant <value_ints=[{h},{h}]> () "
        "u = Resize <mode=\"nearest\", axes=[2,3]> (b, , , z) y = Add (u, a)", "N,4,{h},{h}"
    ),
    "a resize by a scale": net(
        "sc = Constant <value_floats=[1.0,1.0,2.0,2.0]> () u = Resize <mode=\"linear\"> (b, , sc) y = Concat <axis=1> (u, a)",
        "N,8,{h},{h}",
    ),
    "a resize of pooled features": net(
        "p = GlobalAveragePool (b) z = Constant <value_ints=[{q},{q}]> () u = Resize <mode=\"linear\", axes=[2,3]> (p, , , z) "
        "y = Concat <axis=1> (u, b)", "N,8,{q},{q}"
    ),
    "a transposed convolution": net(
        "u = ConvTranspose <strides=[2,2], pads=[1,1,1,1]> (b, k) y = Add (u, a)", "N,4,{h},{h}", "float[4,4,4,4] k"
    ),
    "depth to space": net("u = DepthToSpace <blocksize=2> (b) y = Neg (u)", "N,1,{h},{h}"),
    "tokens and back": net(
        "f = Constant <value_ints=[0,4,{n}]> () t = Reshape (b, f) p = Transpose <perm=[0,2,1]> (t) m = MatMul (p, k) "
        "o = Transpose <perm=[0,2,1]> (m) g = Constant <value_ints=[0,4,{q},{q}]> () u = Reshape (o, g) y = Add (u, b)",
        "N,4,{q},{q}", "float[4,4] k",
    ),
    "attention over places": net(
        "f = Constant <value_ints=[0,4,{n}]> () t = Reshape (b, f) p = Transpose <perm=[0,2,1]> (t) s = MatMul (p, t) "
        "o = Softmax (s) m = MatMul (o, p) ax = Constant <value_ints=[1]> () y = ReduceMean <keepdims=0> (m, ax)", "N,4"
    ),
    "a channel shuffle": net(
        "f = Constant <value_ints=[0,2,2,{q},{q}]> () t = Reshape (b, f) p = Transpose <perm=[0,2,1,3,4]> (t) "
        "g = Constant <value_ints=[0,4,{q},{q}]> () u = Reshape (p, g) y = Neg (u)", "N,4,{q},{q}"
    ),
    "every second place": net(
        "st = Constant <value_ints=[0,1]> () en = Constant <value_ints=[{h},{h}]> () ax = Constant <value_ints=[2,3]> () "
        "sp = Constant <value_ints=[2,2]> () u = Slice (a, st, en, ax, sp) y = Concat <axis=1> (u, b)", "N,8,{q},{q}"
    ),
    "rows of two levels": net(ROWS + "y = Neg (t)", "N,{r},4"),
    "a grid in pixels": net(
        ROWS + TWO + "y = Add (p, grid)", "N,{r},2", "float[1,{r},2] grid", lambda s: {"grid": cells(s, float)}
    ),
    "a grid in places": net(
        ROWS + TWO + "y = Add (p, grid)", "N,{r},2", "float[1,{r},2] grid", lambda s: {"grid": cells(s, lambda _: 1.0, 0.0)}
    ),
    "a grid in shares of the picture": net(
        ROWS + TWO + "y = Add (p, grid)", "N,{r},2", "float[1,{r},2] grid", lambda s: {"grid": cells(s, lambda k: k / s)}
    ),
    "strides": net(ROWS + "y = Mul (t, grid)", "N,{r},4", "float[1,{r},1] grid", lambda s: {"grid": strides(s)}),
    "strides in shares": net(ROWS + "y = Mul (t, grid)", "N,{r},4", "float[1,{r},1] grid", lambda s: {"grid": strides(s, 1 / s)}),
    "anchors in shares": net(ROWS + "y = Add (t, grid)", "N,{r},4", "float[1,{r},4] grid", lambda s: {"grid": boxes(s)}),
    "pixels made shares": net(
        ROWS + "y = Div (t, grid)", "N,{r},4", "float[4] grid", lambda s: {"grid": np.full(4, s, np.float32)}
    ),
    "shares by a factor": net(
        ROWS + "y = Mul (t, grid)", "N,{r},4", "float[1] grid", lambda s: {"grid": np.full(1, 1 / s, np.float32)}
    ),
    "coordinates from end to end": net(
        "y = Mul (b, grid)", "N,4,{q},{q}", "float[1,1,1,{q}] grid",
        lambda s: {"grid": np.linspace(-1, 1, s // 4, dtype=np.float32).reshape(1, 1, 1, -1)},
    ),
    "a mask of ones": net(
        "y = Mul (b, grid)", "N,4,{q},{q}", "float[1,1,{q},{q}] grid", lambda s: {"grid": np.ones((1, 1, s // 4, s // 4), np.float32)}
    ),
    "a class token": net(
        "f = Constant <value_ints=[0,4,{n}]> () t = Reshape (b, f) p = Transpose <perm=[0,2,1]> (t) k = GlobalAveragePool (b) "
        "e = Constant <value_ints=[0,1,4]> () c = Reshape (k, e) j = Concat <axis=1> (c, p) q = MatMul (j, j2) "
        "z = Constant <value_int=0> () y = Gather <axis=1> (q, z)", "N,4", "float[4,4] j2"
    ),
}  # fmt: skip


def outputs(model: ir.Model, s: int) -> np.ndarray:
    x = np.random.default_rng(s).standard_normal((2, 3, s, s)).astype(np.float32)
    return next(iter(Executor(model).run({"x": x}).values()))


@pytest.mark.parametrize("size", [16, 24, 48], ids=lambda size: f"to {size}")
@pytest.mark.parametrize("kind", LEGAL)
def test_it_computes_what_the_network_made_for_that_size_does(kind: str, size: int) -> None:
    made, wanted = resized(LEGAL[kind](32), (size, size)), LEGAL[kind](size)
    assert size_of(made) == (size, size)
    assert [value.shape[1:] for value in made.graph.outputs] == [
        value.shape[1:] for value in wanted.graph.outputs
    ]
    np.testing.assert_allclose(outputs(made, size), outputs(wanted, size), rtol=1e-4, atol=1e-4)


def test_sides_follow_each_its_own() -> None:
    made = resized(LEGAL["a pool as large as the map"](32), (16, 24))
    pool = next(node for node in made.graph if node.op_type == "AveragePool")
    assert pool.attributes["kernel_shape"].value == (4, 6)


def test_a_number_that_may_be_either_side_is_refused() -> None:
    make = LEGAL["shares by a factor"]
    assert "of which side is not known" in str(why_not(make(32), (16, 24)))
    pixels = resized(LEGAL["pixels made shares"](32), (16, 24))
    div = next(node for node in pixels.graph if node.op_type == "Div")
    assert constant(div.inputs[1]).tolist() == [24, 16, 24, 16]


def test_the_source_stays_as_it_is() -> None:
    model = LEGAL["tokens and back"](32)
    before = ir.to_proto(model).SerializeToString()
    resized(model, (16, 16))
    assert ir.to_proto(model).SerializeToString() == before


REFUSED: dict[str, tuple[Make, str, str]] = {
    "a flattened map": (
        net("f = Flatten (b) y = Gemm (f, k)", "N,5", "float[{c},5] k"), "gemm", "256 values of a flattened map: 4 x 8 x 8",
    ),
    "a kernel as large as the map": (
        net("y = Conv (b, k)", "N,5,1,1", "float[5,4,{q},{q}] k"), "conv_2", "its 8x8 kernel covers the whole map",
    ),
    "a position embedding": (net("y = Add (b, k)", "N,4,{q},{q}", "float[1,4,{q},{q}] k"), "add", "position embedding"),
    "mixing of tokens": (
        net("f = Constant <value_ints=[0,4,{n}]> () t = Reshape (b, f) y = MatMul (t, k)", "N,4,7", "float[{n},7] k"),
        "matmul", "64 values of a flattened map: 8 x 8",
    ),
    "windows": (
        net("f = Constant <value_ints=[0,4,1,8,1,8]> () t = Reshape (b, f) "
            "p = Transpose <perm=[0,2,4,3,5,1]> (t) z = Constant <value_ints=[0,2,4,2,4,4]> () y = Reshape (b, z)", "N,2,4,2,4,4"),
        "reshape", "it cuts an axis of 8 pixels into 2 x 4",
    ),
    "maps that no longer meet": (
        net("m = Conv <strides=[2,2], pads=[1,1,1,1]> (b, v) sc = Constant <value_floats=[1.0,1.0,2.0,2.0]> () "
            "u = Resize <mode=\"nearest\"> (m, , sc) y = Add (u, b)", "N,4,{q},{q}"),
        "add", "maps of 6 and 5 meet here",
    ),
    "a crop": (
        net("st = Constant <value_ints=[1]> () en = Constant <value_ints=[7]> () ax = Constant <value_ints=[2]> () "
            "y = Slice (b, st, en, ax)", "N,4,6,{q}"),
        "slice", "it cuts a fixed part",
    ),
    "a norm over the map": (
        net("y = LayerNormalization <axis=2> (b, k)", "N,4,{q},{q}", "float[{q},{q}] k"), "layernormalization", "every place",
    ),
    "an op that is not known": (net("y = Det (b)", "N,4"), "det", "not known"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_made_for_one_size_is_refused_by_the_nodes_name(kind: str) -> None:
    make, node, why = REFUSED[kind]
    error = why_not(make(32), (20, 20))
    assert error is not None
    assert f"'{node}" in str(error)
    assert why in str(error)
    with pytest.raises(SizeError):
        resized(make(32), (20, 20))


def test_some_sizes_are_legal_and_others_not() -> None:
    found = legality(REFUSED["maps that no longer meet"][0](32), [(16, 16), (20, 20), (24, 24)])
    assert found.stride == 8
    assert found.legal == ((16, 16), (24, 24))
    assert [size for size, _ in found.refused] == [(20, 20)]


def test_a_map_that_vanishes_is_refused() -> None:
    make = net("c = Conv (b, v) y = Conv (c, v)", "N,4,4,4")
    assert "nothing of the map is left" in str(why_not(make(32), (12, 12)))


def test_what_has_no_picture_says_so() -> None:
    model = build("g (float[N,8] x, float[8,3] k) => (float[N,3] y) { y = Gemm (x, k) }")
    assert "no input is known to be the picture" in str(why_not_any(model))


def why_not_any(model: ir.Model) -> SizeError:
    with pytest.raises(SizeError) as caught:
        size_of(model)
    return caught.value


def test_the_total_stride_counts_what_goes_down_not_what_comes_up_again() -> None:
    assert total_stride(LEGAL["a resize by a scale"](32)) == 4
    assert total_stride(LEGAL["global pool"](32)) == 4


def test_pictures_that_lie_channels_last_are_followed_too() -> None:
    model = build(
        "g (float[N,16,24,3] x, float[4,3,3,3] w) => (float[N,4,8,12] y) "
        "{ t = Transpose <perm=[0,3,1,2]> (x) y = Conv <strides=[2,2], pads=[1,1,1,1]> (t, w) }"
    )
    assert size_of(model) == (16, 24)
    assert list(resized(model, (8, 12)).graph.inputs[0].shape)[1:] == [8, 12, 3]


def test_rows_of_levels_are_laid_over_those_of_the_source() -> None:
    """What rises in a plane over each level does so after it was brought back."""
    model = LEGAL["rows of two levels"](32)
    axes = output_axes(model, (16, 16))
    small, large = cells(16, lambda k: 2.0 * k), cells(32, float)
    (back,) = same_places([np.concatenate([small, small], axis=2)], axes)
    assert back.shape == (1, 320, 4)
    inside = np.concatenate([large, large], axis=2)
    level = slice(0, 256)
    kept = (inside[0, level].min(axis=1) > 2) & (inside[0, level].max(axis=1) < 30)
    np.testing.assert_allclose(back[0, level][kept], inside[0, level][kept], atol=1e-4)
