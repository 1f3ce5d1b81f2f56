"""What a TFLite file says of itself in words: its description, and the names in TFLite Metadata.

TFLite Metadata is a flatbuffer of its own inside the file
(https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs); label files lie in a zip
behind it and are left there.
"""

from __future__ import annotations

from edgec.graph.tflite.read import DAMAGE, TfliteFile, read_table

_ENTRY = "TFLITE_METADATA"
_MARK = b"M001"
_FIELDS = {
    "name": (0, "string", None),
    "description": (1, "string", None),
    "version": (2, "string", None),
    "author": (4, "string", None),
    "license": (5, "string", None),
}
_OWN = "edgec"
"""The description that the emitter writes."""


def words_of(file: TfliteFile) -> dict[str, str]:
    """By key, what is there: ``name``, ``description``, ``version``, ``author``, ``license``."""
    words = {} if file.description in ("", _OWN) else {"description": file.description}
    data = file.metadata.get(_ENTRY, b"")
    if data[4:8] != _MARK:
        return words
    try:
        found = read_table(data, _FIELDS)
    except DAMAGE:  # words are no part of the network: without them it is the same
        return words
    return words | {key: value for key, value in found.items() if value}
