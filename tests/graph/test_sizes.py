"""Open axes: given by order or by name, told by the model itself, or asked for in a sentence that is true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import pytest

from edgec.graph.errors import EdgecError
from edgec.graph.sizes import fix_shapes
from edgec.graph.values import NotAdmitted, input_shape

ONE = "g (float[N,3,h,w] x) => (float[N,3,h,w] y) { y = Relu(x) }"
TWO = "g (float[N,3,h,w] x, float[N,c,h,w] z) => (float[N,3,h,w] y) { y = Add(x, z) }"
RANKLESS = "g (float x, float[N,5] z) => (float[N,5] y) { y = Add(x, z) }"


def shapes(text: str, given: Any, words: Mapping[str, str] | None = None) -> dict[str, list[Any]]:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    onnx.helper.set_model_props(model, dict(words or {}))
    fix_shapes(model, given)
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }


YOLO = {"names": "{0: 'a'}", "stride": "32", "task": "detect", "imgsz": "[64, 96]"}


@pytest.mark.parametrize(
    ("text", "given", "words", "found"),
    [
        (ONE, (3, 8, 9), {}, {"x": ["N", 3, 8, 9]}),
        (ONE, {"x": (1, 3, 8, 9)}, {}, {"x": ["N", 3, 8, 9]}),
        (ONE, None, YOLO, {"x": ["N", 3, 64, 96]}),
        (ONE, (3, 8, 9), YOLO, {"x": ["N", 3, 8, 9]}),
        (TWO, {"z": (1, 4, 8, 9)}, {}, {"x": ["N", 3, 8, 9], "z": ["N", 4, 8, 9]}),
        (TWO, {"x": (1, 3, 8, 9), "z": (1, 1, 8, 9)}, {}, {"x": ["N", 3, 8, 9], "z": ["N", 1, 8, 9]}),
    ],
)
def test_sizes(text: str, given: Any, words: Mapping[str, str], found: Mapping[str, Any]) -> None:
    assert shapes(text, given, words) == found


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (ONE, None, "--input-shape 3,224,224"),
        (ONE, {"X": (1, 3, 8, 8)}, "no input 'X'"),
        (ONE, {"x": (3, 8, 8)}, "has 4 axes, --input-shape gives 3"),
        (ONE, (8, 8), "has 4 axes, --input-shape gives 2 and the batch"),
        (TWO, (3, 8, 8), "--input-shape z:1xSIZEx8x8"),
    ],
)
def test_what_is_missing_is_asked_for(text: str, given: Any, said: str) -> None:
    with pytest.raises(EdgecError) as info:
        shapes(text, given)
    assert said in str(info.value)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("3,224,224", (3, 224, 224)),
        ("3x224x224", (3, 224, 224)),
        ([3, 8, 8], (3, 8, 8)),
        ("a:b:1x3x8x8", {"a:b": (1, 3, 8, 8)}),
        (["x:1,3,8,8", "y:1x5"], {"x": (1, 3, 8, 8), "y": (1, 5)}),
        ({"x": [1, 3, 8, 8]}, {"x": (1, 3, 8, 8)}),
    ],
)
def test_shapes_are_read(raw: Any, found: Any) -> None:
    assert input_shape(raw) == found


@pytest.mark.parametrize("raw", ["x:", "x:a", ["3,8,8", "y:1x5"], [(3, 8, 8), (3, 8, 8)], {"x": 0.5}, ""])
def test_other_shapes_are_refused(raw: Any) -> None:
    with pytest.raises(NotAdmitted):
        input_shape(raw)
