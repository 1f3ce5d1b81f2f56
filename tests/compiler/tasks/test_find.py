"""Which task outputs say: a list of the heads that people have, and what is asked where they say nothing."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.names import NAMES
from edgec.graph.errors import UsageError


def net(outputs: str, body: str, x: str = "float[N,3,64,64]", inner: str = "") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g ({x} x) => ({outputs}) <float[1] k = {{2}}, int64[1] a = {{1}}{inner and ", " + inner}> {{ {body} }}"""
    model = ir.from_onnx_text(text)
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


FOUND = {
    "logits": (net("float[N,1000] y", "y = Relu (x)"), "classification"),
    "a vector with axes of size 1": (net("float[N,1,10] y", "y = Relu (x)"), "classification"),
    "a vector as a map": (net("float[N,10,1,1] y", "y = Relu (x)"), "classification"),
    "logits and a vector": (
        net("float[N,10] y, float[N,64] e", "y = Relu (x) e = Relu (x)"),
        "classification",
    ),
    "a unit vector and logits": (
        net("float[N,64] e, float[N,10] y", "e = LpNormalization (x) y = Relu (x)"),
        "classification",
    ),
    "one probability": (net("float[N,1] y", "y = Sigmoid (x)"), "classification"),
    "many probabilities": (net("float[N,20] y", "y = Sigmoid (x)"), "multi-label"),
    "landmarks and the score that there are any": (
        net("float[N,63] y, float[N,1] s", "y = Relu (x) s = Sigmoid (x)"),
        "regression",
    ),
    "one number": (net("float[N,1] y", "y = Relu (x)"), "regression"),
    "a number for every pixel": (net("float[N,1,64,64] y", "y = Relu (x)"), "regression"),
    "a probability for every pixel": (net("float[N,1,64,64] y", "y = Sigmoid (x)"), "segmentation"),
    "class ids": (net("int64[N,64,64] y", "y = ArgMax <axis=1,keepdims=0> (x)"), "segmentation"),
    "class ids with an axis": (net("int64[N,1,64,64] y", "y = ArgMax <axis=1> (x)"), "segmentation"),
    "scores for every pixel": (net("float[N,21,64,64] y", "y = Relu (x)"), "segmentation"),
    "a softmax at an eighth": (net("float[N,21,8,8] y", "y = Softmax <axis=1> (x)"), "segmentation"),
    "a larger picture": (net("float[N,3,128,128] y", "y = Relu (x)"), "super-resolution"),
    "a vector that a convolution gives": (
        net(
            "float[N,10] y",
            "c = Conv <strides=[64,64]> (x, w) y = Flatten (c)",
            inner="float[10,3,1,1] w, float[N,10,1,1] c",
        ),
        "classification",
    ),
    "a unit vector": (net("float[N,128] y", "n = ReduceL2 (x, a) y = Div (x, n)"), "embedding"),
    "a clipped unit vector": (
        net("float[N,128] y", "n = ReduceL2 (x, a) m = Max (n, k) y = Div (x, m)"),
        "embedding",
    ),
    "boxes": (net("float[N,7,84] y", "y = Relu (x)"), "detection"),
}
OPEN = {
    "maps at a quarter: heatmaps or logits": net("float[N,17,16,16] y", "y = Relu (x)"),
    "a picture of the same size: restored, or three classes": net("float[N,3,64,64] y", "y = Relu (x)"),
    "tokens": net("float[N,50,384] y", "y = Relu (x)"),
    "letters along a line, as many as a detector has rows": net(
        "float[N,84,12] y", "y = Softmax <axis=2> (x)"
    ),
    "one logit for each anchor of each place": net(
        "float[N,512,1] y, float[N,512,4] b",
        "c = Conv <strides=[4,4]> (x, w) t = Transpose <perm=[0,2,3,1]> (c) y = Reshape (t, r) b = Relu (y)",
        inner="float[2,3,1,1] w, int64[3] r = {-1, 512, 1}, float[N,2,16,16] c, float[N,16,16,2] t",
    ),
    "their logarithms, classes first": net("float[N,7,84] y", "y = LogSoftmax <axis=1> (x)"),
}


@pytest.mark.parametrize("name", FOUND)
def test_outputs_that_can_be_one_thing_only(name: str) -> None:
    model, wanted = FOUND[name]
    found = find_task(model)
    assert found is not None
    assert found.name == wanted


@pytest.mark.parametrize("name", OPEN)
def test_outputs_that_can_be_several_are_none(name: str) -> None:
    assert find_task(OPEN[name]) is None


def test_what_the_metadata_says_stands_before_shapes_where_it_fits() -> None:
    maps = OPEN["maps at a quarter: heatmaps or logits"]
    for told, wanted in (
        ("pose", "keypoints"),
        ("Keypoint Detection", "keypoints"),
        ("segment", "segmentation"),
    ):
        found = find_task(maps, told)
        assert found is not None
        assert found.name == wanted
    line = find_task(OPEN["letters along a line, as many as a detector has rows"], "recognise")
    assert line is not None
    assert line.name == "text-recognition"
    found = find_task(FOUND["logits"][0], "segment")  # what it says is not so
    assert found is not None
    assert found.name == "classification"


def test_classes_by_a_softmax_stand_before_numbers_beside_them() -> None:
    """The refining networks of MTCNN: four offsets of a box, landmarks, and whether it is a face."""
    outputs, body = "float[N,4] b, float[N,10] l, float[N,2] y", "b = Relu (x) l = Relu (x) y = Softmax (x)"
    assert find_task(net(outputs, body)) == Classification(2, 2)


def test_the_probability_of_the_second_output_is_the_one() -> None:
    found = find_task(net("float[N,50,384] t, float[N,1] p", "t = Relu (x) p = Sigmoid (x)"))
    assert (found.output, found.binary) == (1, "probability")


def test_a_picture_with_channels_last() -> None:
    model = net(
        "float[N,64,64,5] y",
        "t = Transpose <perm=[0,3,1,2]> (x) y = Transpose <perm=[0,2,3,1]> (t)",
        "float[N,64,64,3]",
    )
    found = find_task(model)
    assert (found.name, found.axis, found.classes) == ("segmentation", 3, 5)


FITS = {
    "classification": {"logits", "many probabilities", "a unit vector", "one number"},
    "multi-label": {"logits", "many probabilities", "a unit vector"},
    "detection": {"boxes"},
    "segmentation": {"class ids", "scores for every pixel", "a larger picture"},
    "keypoints": {"scores for every pixel", "a larger picture"},
    "regression": {
        "logits",
        "many probabilities",
        "one number",
        "scores for every pixel",
        "a unit vector",
        "boxes",
        "a larger picture",
    },
    "super-resolution": {"scores for every pixel", "a larger picture"},
    "embedding": {"logits", "many probabilities", "a unit vector"},
    "text-recognition": {"boxes"},
}


@pytest.mark.parametrize("given", NAMES)
def test_a_given_task_is_taken_or_refused_in_one_sentence(given: str) -> None:
    for name in set().union(*FITS.values()):
        model = FOUND[name][0]
        if name in FITS[given]:
            assert find_task(model, "classify", given).name == given
        else:
            with pytest.raises(UsageError, match=f"--task {given} does not fit the outputs") as caught:
                find_task(model, "", given)
            assert "it takes" in str(caught.value)
