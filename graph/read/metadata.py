"""What a model file says of itself: its properties travel with the graph, and with them what reading it found worth a note."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
import onnx_ir as ir

_OWN = "edgec."
"""Keys that edgec writes itself, anew for each artifact."""
_NOTES = "edgec.notes"


def keep_words(source: onnx.ModelProto, graph: ir.Model, notes: Sequence[str]) -> None:
    """Give ``graph`` the properties of ``source``, and ``notes`` for the user."""
    for entry in source.metadata_props:
        if not entry.key.startswith(_OWN):
            graph.metadata_props[entry.key] = entry.value
    if notes:
        graph.metadata_props[_NOTES] = json.dumps(list(notes))


def source_metadata(model: ir.Model) -> dict[str, str]:
    """The properties that came with the model, unknown ones too: an artifact carries them on."""
    return {key: value for key, value in model.metadata_props.items() if not key.startswith(_OWN)}


def notes_of(model: ir.Model) -> tuple[str, ...]:
    """What reading the model found worth telling."""
    return tuple(map(str, json.loads(model.metadata_props.get(_NOTES, "[]"))))
