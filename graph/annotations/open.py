"""Evaluation data with what is right beside it, in the forms that people have.

=========================== =============================================================================================
``instances.json``          COCO: pictures lie where their names say, seen from the json or from a folder beside it
``data.yaml``               YOLO: the ``val`` pictures, labels in ``labels/`` where the pictures are in ``images/``
folder, labels ``x.json``   COCO, of the pictures in the folder
folder, labels a folder     a mask (class numbers) or a picture for each picture, of the same name
anything else               as `graph.data.open_data`
=========================== =============================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.graph.annotations import coco, pairs, yolo
from edgec.graph.annotations.boxes import TrueBoxes
from edgec.graph.data import Dataset, InputSpec, checked, open_data
from edgec.graph.errors import DataError
from edgec.graph.preprocess import Preprocess
from edgec.graph.sources import PictureSource
from edgec.graph.text import visible


def open_evaluation(
    path: str, model: ir.Model, preprocess: Preprocess, *, labels: str | None, names: Sequence[str], seed: int
) -> Dataset:
    """Open ``path``, with ``labels`` where they are given apart; ``names``: the network's classes, where they are known.

    Raises DataError, naming the file, for what is not of the form that it looks like.
    """
    specs = InputSpec.of(model)
    place, apart = Path(path), None if labels is None else Path(labels)
    if place.suffix == ".json":
        return _pictures(place, coco.read(place, None, names, preprocess), preprocess, specs)
    if place.suffix in (".yaml", ".yml"):
        return _pictures(place, yolo.read(place, names, preprocess), preprocess, specs)
    if apart is not None and apart.suffix == ".json":
        return _pictures(place, coco.read(apart, place, names, preprocess), preprocess, specs)
    if apart is not None and apart.is_dir():
        data = open_data(path, model, preprocess, seed=seed)
        if not isinstance(data.source, PictureSource):
            raise DataError("a folder of labels is for a folder of pictures", where=path)
        truth = [pairs.Pair(one, preprocess) for one in pairs.paired(data.source.paths, place, apart)]
        return Dataset(data.name, data.source, data.indices, skipped=data.skipped, all_truth=truth)
    return open_data(path, model, preprocess, seed=seed, labels=labels, any_truth=True)


def _pictures(
    place: Path,
    found: list[tuple[Path, TrueBoxes]],
    preprocess: Preprocess,
    specs: tuple[InputSpec, ...],
) -> Dataset:
    if not found:
        raise DataError("no pictures in it", where=str(place))
    if len(specs) > 1 or len(specs[0].shape) != 3:
        why = f"the model takes {', '.join(f'{one.name} {one.shape}' for one in specs)}"
        raise DataError("pictures do not fit this model", where=str(place), why=why)
    source = PictureSource(tuple(path for path, _ in found), preprocess, specs[0])
    truth: list[Any] = [boxes for _, boxes in found]
    return checked(Dataset(visible(place.name), source, tuple(range(len(found))), all_truth=truth))
