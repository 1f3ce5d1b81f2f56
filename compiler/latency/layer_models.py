"""Single-operator models of an artifact, for times per layer where the runtime has no profiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.graph.scratch import scratch_folder, write_scratch

if TYPE_CHECKING:
    from edgec.runtime.bench import LayerModel


@contextmanager
def layer_models(artifact: Path) -> Iterator[tuple[LayerModel, ...]]:
    """One file per operator of a ``.tflite``, as long as the context lasts; nothing for ``.onnx``, which can be profiled."""
    if artifact.suffix != ".tflite":
        yield ()
        return
    from edgec.compiler.emit.tflite.layers import split_layers
    from edgec.runtime.bench import LayerModel

    with scratch_folder() as folder:
        models = []
        for index, layer in enumerate(split_layers(artifact)):
            path = folder / f"layer{index:04}.tflite"
            write_scratch(path, layer.data)
            models.append(LayerModel(layer.name, layer.op, path))
        yield tuple(models)
