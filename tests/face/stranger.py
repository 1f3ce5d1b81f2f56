"""Every public name, as another typed program uses it: `make types` reads this, nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

import edgec

Array = np.ndarray[Any, np.dtype[np.float32]]


def batches(x: Array) -> Iterator[tuple[Array, Array]]:
    yield x, x


def accuracy(predict: Any, samples: Any) -> float:
    return float((predict(samples.x).argmax(axis=1) == samples.y).mean())


def every_model(proto: onnx.ModelProto, graph: ir.Model, x: Array) -> None:
    edgec.compile("net.onnx", "out", data="images", precision="int8", formats=("onnx", "tflite"))
    edgec.compile(
        Path("net.onnx"),
        Path("out"),
        data=Path("images"),
        eval="images",
        labels="labels.csv",
        formats="onnx,tflite",
    )
    edgec.compile(proto, "out", data=x, eval=(x, x), labels=[1, 2], metric="top1", max_drop="1%")
    edgec.compile(
        graph,
        "out",
        data={"x": x},
        eval=batches(x),
        metric=accuracy,
        quiet=True,
        load_memory="2G",
        load_timeout="90s",
    )
    edgec.compile(
        proto, "out", data=[x, x], preprocess={"mean": (0.5, 0.5, 0.5), "scale": "1/255"}, example_input=x
    )


def a_recipe(recipe: edgec.Recipe, target: edgec.Target, data: edgec.Dataset) -> edgec.Report:
    edgec.compile(
        recipe.model.path, "out", target=target, data=data, passes=["quantize", *(recipe.passes or ())]
    )
    return edgec.compile(recipe, "out", metric=accuracy, force=True)


def a_report(report: edgec.Report, x: Array) -> float | None:
    assert report.passed
    report.show()
    folder: Path = report.folder
    again = edgec.Report.open(folder)
    found: Any = again.load("int8", threads=2)(x)
    shapes: dict[str, tuple[int, ...]] = again.load().inputs
    teacher = report.quality["teacher"].top1 if shapes and found is not None else None
    return report.metrics[0].values[report.artifacts[0].path] if teacher is None else teacher


def errors() -> int:
    try:
        graph: ir.Model = edgec.load("net.onnx", input_shape=(3, 8, 8))
        edgec.bench(["net.onnx"], threads=1)[0].median_ms.is_integer()
        return len(graph.graph)
    except (edgec.WrongTypeError, edgec.UnsupportedError, edgec.PassError, edgec.DeviceError) as error:
        return error.exit_code
    except (edgec.UsageError, edgec.ModelError, edgec.DataError, edgec.EdgecError) as error:
        return len(error.hint or edgec.__version__)
