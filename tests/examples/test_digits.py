"""The demo's network and data are what examples/README.md says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_network_is_small_and_good() -> None:
    file = EXAMPLES / "digits.onnx"
    assert file.stat().st_size < 500_000
    parameters = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(file).graph.initializer)
    assert 100_000 < parameters < 120_000
    held_out = np.load(EXAMPLES / "digits" / "eval.npz")
    logits = onnxruntime.InferenceSession(file).run(None, {"image": held_out["x"]})[0]
    assert (logits.argmax(axis=1) == held_out["y"]).mean() >= 0.98


def test_calibration_has_no_labels_and_shares_no_picture_with_evaluation() -> None:
    calib, held_out = np.load(EXAMPLES / "digits" / "calib.npz"), np.load(EXAMPLES / "digits" / "eval.npz")
    assert calib.files == ["x"]
    assert calib["x"].shape == (400, 1, 8, 8)
    assert held_out["x"].dtype == calib["x"].dtype == np.float32
    seen = {picture.tobytes() for picture in calib["x"]}
    assert not any(picture.tobytes() in seen for picture in held_out["x"])


def test_files_tell_nothing_about_the_machine_that_made_them() -> None:
    model = onnx.load(EXAMPLES / "digits.onnx")
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(EXAMPLES.parent).encode() not in (EXAMPLES / "digits.onnx").read_bytes()


def test_the_script_makes_the_data_again() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn makes the demo's data")
    spec = importlib.util.spec_from_file_location("digits_data", EXAMPLES / "digits_data.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    split = script.load_split()
    held_out = np.load(EXAMPLES / "digits" / "eval.npz")
    np.testing.assert_array_equal(split.eval_x, held_out["x"])
    np.testing.assert_array_equal(split.eval_y, held_out["y"])
    np.testing.assert_array_equal(split.train_x[:400], np.load(EXAMPLES / "digits" / "calib.npz")["x"])
