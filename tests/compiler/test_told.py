"""What a model, or a file beside it, says of its preprocessing, size, task and labels: every form, used and overridden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.compiler.read.recipe import Preprocessing, make_recipe
from edgec.compiler.read.told import with_told
from edgec.graph.read.told import Told, told_by

YOLO = {
    "description": "Ultralytics YOLOv8n model", "names": "{0: 'person', 1: \"dog's bed\"}", "stride": "32",
    "task": "detect", "imgsz": "[320, 416]", "batch": "1",
}  # fmt: skip
MODEL_API = {
    "model_info mean_values": "123.675 116.28 103.53", "model_info scale_values": "58.395 57.12 57.375",
    "model_info resize_type": "fit_to_window_letterbox", "model_info pad_value": "114",
    "model_info reverse_input_channels": "YES", "model_info labels": "cat hot_dog", "model_info model_type": "ssd",
}  # fmt: skip
RGB = {"scale": 1 / 255, "channels": "rgb"}
MEAN = (0.485, 0.456, 0.406)

BESIDE: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "vit": (
        {
            "preprocessor_config.json": {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 224, "width": 224}, "rescale_factor": 1 / 255},
            "config.json": {"architectures": ["ViTForImageClassification"], "id2label": {"0": "tench", "1": "cat"}},
        },
        {**RGB, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": (224, 224)}, 2,
    ),
    "old vit": (
        {"preprocessor_config.json": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224}},
        {**RGB, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": (224, 224)}, 0,
    ),
    "mobilenet": (
        {"preprocessor_config.json": {"do_center_crop": True, "crop_size": {"height": 224, "width": 200}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 256}}},
        {**RGB, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": (256,), "crop": (224, 200)}, 0,
    ),
    "convnext": (
        {"preprocessor_config.json": {"crop_pct": 0.875, "image_mean": MEAN, "image_std": [0.5] * 3, "size": {"shortest_edge": 224}}},
        {**RGB, "mean": MEAN, "std": (0.5,) * 3, "resize": (256,), "crop": (224, 224)}, 0,
    ),
    "raw": (
        {"preprocessor_config.json": {"do_normalize": False, "do_rescale": False, "do_resize": False, "image_mean": MEAN, "image_std": MEAN}},
        {"channels": "rgb"}, 0,
    ),
    "timm": (
        {"config.json": {"architecture": "x", "pretrained_cfg": {"input_size": [3, 192, 192], "mean": MEAN, "std": [0.2] * 3, "crop_pct": 0.9}}},
        {**RGB, "mean": MEAN, "std": (0.2,) * 3, "resize": (213,), "crop": (192, 192)}, 0,
    ),
    "nobody's": ({"config.json": {"threads": 4}}, {}, 0),
    "damaged": ({"config.json": "{", "preprocessor_config.json": [1]}, {}, 0),
}  # fmt: skip


def test_ultralytics() -> None:
    told = told_by(YOLO, None, (320, 416))
    assert told.preprocess == {**RGB, "resize": (320, 416), "letterbox": 114, "letterbox_at": "centre"}
    assert (told.size, told.task, told.labels) == ((320, 416), "detect", ("person", "dog's bed"))
    classes = told_by({**YOLO, "task": "classify", "imgsz": "224"}, None, ())
    assert classes.preprocess == {**RGB, "resize": (224,), "crop": (224, 224)}


def test_model_api() -> None:
    told = told_by(MODEL_API, None, (256, 320))
    assert told.preprocess == {
        "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "channels": "rgb",
        "resize": (256, 320), "letterbox": 114, "letterbox_at": "centre",
    }  # fmt: skip
    assert (told.task, told.labels) == ("ssd", ("cat", "hot dog"))
    other = {
        **MODEL_API,
        "model_info resize_type": "fit_to_window",
        "model_info reverse_input_channels": "NO",
    }
    steps = told_by(other, None, (256, 320)).preprocess
    assert (steps["letterbox_at"], steps["channels"]) == ("corner", "bgr")


def test_characters() -> None:
    told = told_by({"character": "a\nb\n "})
    assert told.labels == ("a", "b", " ")
    assert told.preprocess["channels"] == "bgr"


@pytest.mark.parametrize("name", BESIDE)
def test_files_beside(name: str, tmp_path: Path) -> None:
    files, steps, labels = BESIDE[name]
    for file, content in files.items():
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    told = told_by({}, tmp_path / "model.onnx")
    assert dict(told.preprocess) == steps
    assert len(told.labels) == labels
    Preprocessing(**told.preprocess)


@pytest.mark.parametrize(
    "bad",
    [
        {**YOLO, "names": "__import__('os').getcwd()"},
        {**YOLO, "names": "(" * 20000},
        {**YOLO, "names": "{0: 'a', 7: 'b'}"},
        {**YOLO, "imgsz": "[0, -3]"},
        {**YOLO, "imgsz": "'a'"},
        {**MODEL_API, "model_info mean_values": "a b c"},
    ],
)
def test_words_that_nobody_means_are_left_aside(bad: Mapping[str, str]) -> None:
    assert told_by(bad) == Told()


def test_own_settings_stand() -> None:
    told = told_by(YOLO, None, (320, 416))

    def after(**given: Any) -> Preprocessing:
        recipe, lines = with_told(make_recipe({"model": {"path": "m.onnx"}, "preprocess": given}), told)
        assert len(lines) == 1
        assert lines[0].startswith("Ultralytics' metadata says: scale 0.003922")
        return recipe.preprocess

    assert (after().letterbox, after().scale) == (114, 1 / 255)
    assert after(scale=1).scale == 1
    resized = after(resize=(64, 64))
    assert (resized.resize, resized.letterbox, resized.scale) == ((64, 64), None, 1 / 255)


def test_a_formula_of_ones_own_is_not_mixed_with_the_models() -> None:
    """PP-OCR divides by 0.5 at the end; pixels that were brought to -1 to 1 already came out as -2 to 2."""
    told = told_by({"character": "a\nb"})

    def after(**given: Any) -> tuple[Preprocessing, str]:
        recipe, (line,) = with_told(make_recipe({"model": {"path": "m.onnx"}, "preprocess": given}), told)
        return recipe.preprocess, line

    own, line = after(scale=1 / 127.5, mean=(1.0,))
    assert (own.scale, own.mean, own.channels) == (1 / 127.5, (1.0,), "bgr")
    assert own.build().std == (1.0,)
    assert line.endswith("; your own settings stand: mean, scale; left aside beside them: std")
    for same in ({"scale": 0.003922}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5,)}, {"resize": (48, 320)}):
        agreed, line = after(**same)
        assert agreed.build().std[0] == agreed.build().mean[0] == 0.5
        assert "left aside" not in line


def test_a_compiled_network_keeps_its_words_and_a_bundle_its_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ast

    from edgec.compiler.api import compile as compile_model
    from edgec.compiler.deploy.bundle import DeployOptions, make_bundle

    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,16,16] images) => (float[N,2,1,1] output0)
    <float[2,3,3,3] w> { c = Conv(images, w) r = Relu(c) output0 = GlobalAveragePool(r) }"""
    text = text.replace("<float[2,3,3,3] w>", "").replace(
        "{ c", "{ w = Constant <value = float[2,3,3,3] {%s}> () c"
    )
    model = onnx.parser.parse_model(text % ", ".join(["0.1"] * 54))
    words = {**YOLO, "imgsz": "[16, 16]", "own": "unknown to all"}
    onnx.helper.set_model_props(model, words)
    onnx.save(model, tmp_path / "m.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, (8, 24, 20, 3)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=pictures)
    report = compile_model(
        tmp_path / "m.onnx", tmp_path / "run", data=tmp_path / "data.npz", measure=False, threads=1
    )
    assert any(line.startswith("Ultralytics' metadata says") for line in report.warnings)
    assert "Ultralytics' metadata says" in capsys.readouterr().err
    kept = {one.key: one.value for one in onnx.load(tmp_path / "run" / "model.onnx").metadata_props}
    assert {key: kept[key] for key in words} == words
    assert ast.literal_eval(kept["names"])[1] == "dog's bed"
    bundle = make_bundle(tmp_path / "run", tmp_path / "bundle", DeployOptions(target="rpi4"))
    assert (bundle.path / "labels.txt").read_text() == "person\ndog's bed\n"
    steps = json.loads((bundle.path / "bundle.json").read_text())["preprocess"]
    assert (steps["letterbox"], steps["letterbox_at"], steps["resize"]) == (114, "centre", [16, 16])
