"""Real networks: the small ones here, all of them in bench/tflite_fidelity.py and bench/tflite_official.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.compiler.emit.tflite import emit
from edgec.compiler.emit.tflite.file_cost import read_cost
from edgec.graph.load import load
from edgec.graph.tflite.read import read

SMALL = ["kws_dscnn", "resnet8_cifar10", pytest.param("vww_mobilenet_v1_0.25_96", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", SMALL)
def test_small_network(
    name: str,
    shared: Path,
    feeds: Any,
    quantise: Any,
    tflite: Callable[..., Any],
    onnx_run: Any,
    in_codes: Any,
) -> None:
    models = shared / "data" / "models"
    model = load(models / f"{name}.onnx")
    output = model.graph.outputs[0].name
    given = feeds(model, count=1)
    want = onnx_run(model, given)[output]
    data = emit(model, io_layout="nchw")
    for engine in ("litert", "litert-builtin", "tflite-runtime"):
        np.testing.assert_allclose(tflite(data, given, engine)[output], want, atol=1e-4 * np.abs(want).max())
    coded = quantise(model)
    int8 = emit(coded, precision="int8", io_layout="nhwc", io_type="int8")
    assert not [op.code for op in read(int8).operators if op.code in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")]
    assert len(int8) <= (models / f"{name}_int8.tflite").stat().st_size
    assert read_cost(int8)[0].macs == read_cost(models / f"{name}_int8.tflite")[0].macs
    twin = onnx_run(coded, given)[output]
    steps = np.abs(tflite(emit(coded, precision="int8"), given)[output] - twin) / in_codes(coded)
    assert np.mean(steps <= 1.01) >= 0.98


def test_the_mark_of_another_converter(shared: Path) -> None:
    """The official files read back too."""
    file = read(shared / "data" / "models" / "mobilenet_v2_1.0_224_int8.tflite")
    assert file.precision == "int8"
    assert file.edgec_metadata == {}
    assert "SOFTMAX" in [op.code for op in file.operators]
    spent, precision = read_cost(shared / "data" / "models" / "person_detect_invalid.tflite")
    assert (precision, spent.macs) == ("int8", 7157888)
