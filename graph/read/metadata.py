"""What a model file says of itself: its properties travel with the graph, and with them what reading it found worth a note."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
import onnx_ir as ir

from edgec.graph.sizes import GIVE_SIZE, OpenSizeError

_OWN = "edgec."
"""Keys that edgec writes itself, anew for each artifact."""
_NOTES = "edgec.notes"
_OPEN = "edgec.open"
_SIMPLIFIER = "onnxsim."
"""What onnxsim writes about its own work, which is not the user's."""


def keep_words(source: onnx.ModelProto, graph: ir.Model, notes: Sequence[str]) -> None:
    """Give ``graph`` the properties of ``source``, the name of what wrote it, and ``notes`` for the user."""
    graph.producer_name = source.producer_name or None
    for key in [key for key in graph.metadata_props if key.startswith(_SIMPLIFIER)]:
        del graph.metadata_props[key]
    for entry in source.metadata_props:
        if not entry.key.startswith(_OWN):
            graph.metadata_props[entry.key] = entry.value
    if notes:
        graph.metadata_props[_NOTES] = json.dumps(list(notes))


def add_notes(source: onnx.ModelProto, notes: Sequence[str]) -> None:
    """Leave ``notes`` in a model that edgec wrote itself, for who canonicalises it."""
    if notes:
        source.metadata_props.add(key=_NOTES, value=json.dumps(list(notes)))


def notes_in(source: onnx.ModelProto) -> list[str]:
    """What `add_notes` left. Only a door of edgec writes it: in a file from elsewhere it is a word like any other."""
    found = next((entry.value for entry in source.metadata_props if entry.key == _NOTES), "[]")
    try:
        notes = json.loads(found)
    except ValueError:
        return []
    return [str(note) for note in notes] if isinstance(notes, list) else []


def source_metadata(model: ir.Model) -> dict[str, str]:
    """The properties that came with the model, unknown ones too: an artifact carries them on."""
    return {key: value for key, value in model.metadata_props.items() if not key.startswith(_OWN)}


def notes_of(model: ir.Model) -> tuple[str, ...]:
    """What reading the model found worth telling."""
    return tuple(map(str, json.loads(model.metadata_props.get(_NOTES, "[]"))))


def add_note(model: ir.Model, note: str) -> None:
    """One more note for the user."""
    model.metadata_props[_NOTES] = json.dumps([*notes_of(model), note])


def mark_open(model: ir.Model, sides: str) -> None:
    """Say that ``sides`` ("h", "w", "hw") of the picture have a size that stands in for all."""
    model.metadata_props[_OPEN] = sides


def open_sides(model: ir.Model) -> str:
    """What `mark_open` said; empty for a network whose picture has a size."""
    return model.metadata_props.get(_OPEN, "")


def require_size(model: ir.Model, what: str) -> None:
    """Raise OpenSizeError where the picture has no size of its own, and ``what`` (with its verb) for one size."""
    if open_sides(model):
        why = f"{what} for one size"
        raise OpenSizeError("the height or width of its input is open", why=why, hint=GIVE_SIZE)
