"""From whatever a person brings to the canonical graph, in this process.

Sources: an ONNX or a TFLite file; a ``.pt2`` file of ``torch.export``; ``package.module:factory`` or ``file.py:factory`` for
a torch module, with ``weights`` holding its ``state_dict``. torch is needed for the last two only.

What comes from elsewhere is read through `graph.foreign`, which does this in a child process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from edgec.graph.boundary import reading
from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import ModelError, UsageError
from edgec.graph.external import MOST_BYTES, load_external
from edgec.graph.files import is_factory, open_regular
from edgec.graph.listener import READING, Listener
from edgec.graph.sizes import InputShape, OpenSizeError
from edgec.graph.tflite.lift.model import to_onnx
from edgec.graph.tflite.read import read as read_tflite
from edgec.graph.tflite.schema import FILE_IDENTIFIER

TORCH_SUFFIX = ".pt2"


def load(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    codes: bool = False,
    trust: bool = False,
    listener: Listener | None = None,
) -> ir.Model:
    """Read ``source`` and return its canonical graph (design section 2).

    ``input_shape`` (without the batch axis; or whole shapes by input name) fixes what a file leaves open, and is the input of a
    torch factory. Without it a picture's height and width may stay open (`graph.resolution.every_size`). ``codes``: a quantised
    network stays quantised. ``trust``: run the
    pickles and the Python that a ``.pt2`` holds. A hostile file can crash this process, or fill its memory:
    `graph.foreign.load` reads it in another. Raises ModelError or UnsupportedError for a model that cannot be taken, UsageError
    for a wrong call.
    """
    listener = listener or Listener()
    model = read(source, weights=weights, input_shape=input_shape, trust=trust, listener=listener)
    try:
        return canonicalise(model, input_shape=input_shape, codes=codes, listener=listener)
    except OpenSizeError as error:
        if input_shape is not None:
            raise
        from edgec.graph.resolution.every_size import (
            stood_in,
        )  # of few networks, and everybody waits for imports

        return stood_in(model, error, listener)


def read(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    trust: bool = False,
    listener: Listener | None = None,
) -> onnx.ModelProto:
    """Read ``source`` as it is, without canonicalising: the model that users brought, in ONNX."""
    listener = listener or Listener()
    text = os.fspath(source)
    listener.stage(READING)
    if is_factory(text):
        from edgec.graph.torch_source import from_factory

        return from_factory(text, weights, input_shape, trust=trust)
    if weights is not None:
        raise UsageError(
            "--weights goes with a factory only", where=text, hint="Write file.py:factory as MODEL."
        )
    path = Path(text)
    listener.size(check_file(path))
    with reading(where=str(path)):
        if path.suffix == TORCH_SUFFIX:
            from edgec.graph.torch_source import from_pt2

            return from_pt2(path, trust=trust, listener=listener)
        return _from_file(path, listener, input_shape)


def _refuse_keras(path: Path) -> None:
    """Raise ModelError, with the line that exports it, for a model of Keras or TensorFlow."""
    keras = path.suffix in (".keras", ".h5", ".hdf5")
    if not keras and not (path / "saved_model.pb").is_file():
        return
    line = (
        'KERAS_BACKEND=torch python -c "import keras; '
        f"keras.models.load_model('{path.name}').export('model.onnx', format='onnx')\""
        if keras
        else f"python -m tf2onnx.convert --saved-model {path.name} --output model.onnx"
    )
    what = "a model of Keras" if keras else "a SavedModel of TensorFlow"
    raise ModelError(f"this is {what}", where=str(path), hint=f"Export it: {line}")


def check_file(path: Path) -> int:
    """The size of a model file. Raises ModelError for what is no plain file, or above 2 GB; nothing of it is read."""
    where = str(path)
    _refuse_keras(path)
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        raise ModelError("no such file", where=where) from None
    except (OSError, ValueError) as error:
        if path.is_dir():
            raise ModelError("this is a folder, not a model file", where=where) from None
        why = getattr(error, "strerror", None) or str(error)
        raise ModelError("cannot be read", where=where, why=why) from error
    if size > MOST_BYTES:
        raise ModelError("models above 2 GB are not supported", where=where, why=f"{size} bytes")
    return size


def _from_file(path: Path, listener: Listener, input_shape: InputShape | None) -> onnx.ModelProto:
    if path.suffix in (".pt", ".pth", ".ckpt"):
        raise ModelError(
            "weights without a network cannot be compiled",
            where=str(path),
            hint=f"Name the function that builds the module: file.py:factory --weights {path.name}",
        )
    with open_regular(path) as stream:
        data = stream.read(MOST_BYTES)
    if not data:
        raise ModelError("the file is empty", where=str(path))
    if data[4:8] == FILE_IDENTIFIER:
        return _from_tflite(data, str(path), input_shape)
    return _from_onnx(data, path, listener)


def _from_tflite(data: bytes, where: str, input_shape: InputShape | None) -> onnx.ModelProto:
    """Every size of a TFLite file follows from its input's: another one needs another file."""
    file = read_tflite(data, where=where)
    model = to_onnx(file)
    shape = file.tensors[file.inputs[0]].shape
    given = (
        None if isinstance(input_shape, Mapping) else input_shape
    )  # those by name are checked with the graph
    if given is not None and tuple(given) != shape[1:]:
        why = f"the file is made for {shape[1:]}, --input-shape gives {tuple(given)}"
        raise ModelError(
            "--input-shape does not fit", where=where, why=why, hint="Convert the network at that size."
        )
    return model


def _from_onnx(data: bytes, path: Path, listener: Listener) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        why = "it does not parse; it may be truncated or of another format"
        raise ModelError("not an ONNX file", where=str(path), why=why) from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError("not an ONNX file", where=str(path), why="it holds no graph")
    load_external(model, path, listener)
    return model
