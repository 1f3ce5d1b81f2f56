"""Which inputs a report shows, and what it says of classes: by the errors, never by chance."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edgec.compiler.evaluate.samples import Watched, choose, classes, picture_of, strip
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.keypoints import Keypoints
from edgec.graph.data import open_data
from edgec.graph.inputs import InputSpec
from edgec.graph.preprocess import Preprocess


def test_changed_then_largest_then_typical() -> None:
    picked = choose([float(index) for index in range(40)], [index in (3, 39) for index in range(40)])
    by = {why: [index for index, one in picked if one == why] for why in ("typical", "changed", "largest")}
    assert by["changed"] == [39, 3]
    assert by["largest"] == [38, 37, 36, 35, 34, 33, 32, 31]
    assert by["typical"] == [16, 17, 18, 19, 20, 21, 22, 23]


def test_at_most_eight_of_each_and_none_twice() -> None:
    assert [why for _, why in choose([0.0] * 30, [True] * 30)] == ["changed"] * 8
    assert len(choose([0.5, 0.1], [False, False])) == 2
    assert choose([0.0, 0.0], [False, False]) == [(0, "typical"), (1, "typical")]


def test_classes_count_what_both_name_right() -> None:
    task = Classification(0, 3)
    watched = Watched("int8", task)
    eye = np.eye(3)
    watched("float", [eye[[0]]], [eye[[0]]])
    watched("int8", [eye[[1, 1, 2, 2, 1]]], [eye[[1, 2, 2, 2, 2]]])
    found = classes(watched, np.array([1, 1, 2, 2, 1]), ())
    assert found is not None
    assert found["rows"] == [
        {"label": 1, "name": "", "count": 3, "before": 3, "after": 1},
        {"label": 2, "name": "", "count": 2, "before": 2, "after": 2},
    ]
    assert found["confused"] == [{"label": 1, "answer": 2, "count": 2, "before": 0}]
    assert classes(watched, None, ()) is None
    assert classes(watched, np.array([1, 1]), ()) is None


def test_without_a_task_the_worst_output_counts() -> None:
    watched = Watched("int8", None)
    one, other = np.ones((2, 4)), np.full((2, 3), 2.0)
    moved = other.copy()
    moved[1] *= 1.1
    watched("int8", [one, other], [one, moved])
    assert watched.with_errors(None).errors == pytest.approx([0.0, 0.1])
    assert watched.changed == [False, False]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_picture_is_what_was_given(last: bool, channels: str) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :, 0], pixels[4:12, :, 2] = 200, 90
    steps = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.2, 0.3, 0.4), scale=1 / 255, channels=channels)  # type: ignore[arg-type]
    seen = steps.normalise(pixels[..., ::-1] if channels == "bgr" else pixels)
    spec = InputSpec("x", (16, 16, 3) if last else (3, 16, 16), np.dtype(np.float32), channels_last=last)
    text = picture_of({"x": spec.placed(seen)[None]}, (spec,), steps)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), int)
    assert np.abs(shown - pixels).mean() < 12


def test_what_is_no_picture_has_none() -> None:
    assert (
        picture_of({"x": np.zeros((1, 10))}, (InputSpec("x", (10,), np.dtype(np.float32)),), Preprocess())
        == ""
    )


def test_points_are_pixels_of_the_picture_that_each_network_takes(canonical, tmp_path) -> None:
    """The report draws an answer over the picture of the network that gave it."""
    source, made = (
        canonical(f"net (float[N,3,{side},{side}] x) => (float[N,3,{side},{side}] y) {{ y = Relu(x) }}")
        for side in (32, 16)
    )
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    pixels[:, 20:24, 8:12] = 255
    np.savez(tmp_path / "x.npz", x=pixels)
    data = open_data(tmp_path / "x.npz", source, Preprocess(scale=1 / 255))
    watched = Watched("int8", Keypoints((32, 32)), errors=[0.0, 0.5], changed=[False, True])
    found = strip(watched, source, made, data, Preprocess(scale=1 / 255), (), None)
    assert found is not None
    for one in found["inputs"]:
        before, after = (np.array(one[side]["keypoints"])[:, :2] for side in ("before", "after"))
        assert np.abs(before - (10, 22)).max() <= 2
        assert np.abs(after - (5, 11)).max() <= 1
