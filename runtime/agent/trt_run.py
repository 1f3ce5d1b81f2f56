"""A TensorRT engine run from Python: NVIDIA's own module, which JetPack installs for the system's Python, and `cuda`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, List, Tuple

from .base import AgentError, Json
from .cuda import TO_DEVICE, TO_HOST, Cuda
from .engine import TENSORRT, Engine, concrete_shape
from .machine import Machine
from .system_module import import_system
from .trt_engines import Board, differs, digest_of, kept

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class TensorRt(Engine):
    """The engine that was built of an ONNX file, through either of the module's interfaces: tensors (8.5 on) or bindings."""

    def __init__(self, path: str, shapes: Json) -> None:
        numpy, trt = import_module("numpy"), import_tensorrt()
        self.name, self.version, self.notices = TENSORRT, ".".join(trt.__version__.split(".")[:3]), []
        built = usable(Path(path), self.version)
        self.delegate: str = f"GPU, {built.kind}"
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(built.path.read_bytes())
        if engine is None:
            raise AgentError(
                "accelerator", f"{built.path.name} does not load: build it again (./build.sh --force)"
            )
        context = engine.create_execution_context()
        if context is None:
            raise AgentError("accelerator", f"{built.path.name} does not start: is the memory full?")
        self._kept = (runtime, engine, context)  # the module frees what nobody holds
        self._tensors = hasattr(engine, "num_io_tensors")
        self.cuda, self.quantised = Cuda(), {}
        self.inputs, self._places = [], []
        self._address: List[int] = []
        for place, (name, is_input, shape, kind) in enumerate(self._slots(engine)):
            dtype = numpy.dtype(_type_of(name, kind))
            if is_input:
                shape = concrete_shape(name, [None if n < 0 else n for n in shape], shapes)
                self._fix(context, place, name, shape)
                self.inputs.append((name, shape, dtype))
            self._places.append((place, name, dtype, is_input))
        self._arrays: Json = {}
        for place, name, dtype, _ in self._places:
            shape = context.get_tensor_shape(name) if self._tensors else context.get_binding_shape(place)
            array = numpy.zeros(tuple(shape), dtype)
            self._arrays[name] = array
            self._address.append(self.cuda.take(array.nbytes))
            if self._tensors:
                context.set_tensor_address(name, self._address[place])

    def _slots(self, engine: Any) -> List[Tuple[str, bool, Tuple[int, ...], str]]:
        """Name, whether it is an input, shape, and type of every tensor that goes in or out, in the engine's order."""
        if self._tensors:
            names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
            return [
                (name, _word(engine.get_tensor_mode(name)) == "INPUT", tuple(engine.get_tensor_shape(name)),
                 _word(engine.get_tensor_dtype(name)))
                for name in names
            ]  # fmt: skip
        return [
            (engine.get_binding_name(i), engine.binding_is_input(i), tuple(engine.get_binding_shape(i)),
             _word(engine.get_binding_dtype(i)))
            for i in range(engine.num_bindings)
        ]  # fmt: skip

    def _fix(self, context: Any, place: int, name: str, shape: Tuple[int, ...]) -> None:
        fixed = (
            context.set_input_shape(name, shape) if self._tensors else context.set_binding_shape(place, shape)
        )
        if not fixed:
            raise AgentError("usage", f"the engine takes no {name!r} of shape {list(shape)}")

    def feed(self, feeds: Json) -> None:
        for place, name, _, is_input in self._places:
            if is_input:
                self._arrays[name][...] = feeds[name]
                array = self._arrays[name]
                self.cuda.copy(self._address[place], array.ctypes.data, array.nbytes, TO_DEVICE)
        self.cuda.wait()

    def invoke(self) -> None:
        context = self._kept[2]
        done = (
            context.execute_async_v3(self.cuda.stream)
            if self._tensors
            else context.execute_async_v2(self._address, self.cuda.stream)
        )
        if not done:
            raise AgentError("accelerator", "TensorRT does not run the engine")
        self.cuda.wait()

    def outputs(self) -> Json:
        found = {}
        for place, name, _, is_input in self._places:
            if not is_input:
                array = self._arrays[name]
                self.cuda.copy(array.ctypes.data, self._address[place], array.nbytes, TO_HOST)
                found[name] = array
        self.cuda.wait()
        return {name: array.copy() for name, array in found.items()}


def _type_of(name: str, kind: str) -> str:
    """Of a tensor that goes in or out. Raises AgentError for BF16, FP8 and others that numpy has no type for."""
    if kind not in _TYPES:
        known = ", ".join(_TYPES)
        raise AgentError(
            "accelerator", f"{name!r} of the engine is {kind}; what goes in and out may be {known}"
        )
    return _TYPES[kind]


def usable(onnx: Path, version: str) -> Any:
    """The engine of ``onnx``, where it is one for this very file, device and TensorRT. Raises AgentError for any other."""
    built = kept(onnx)
    if built is None:
        raise AgentError("accelerator", f"no TensorRT engine of {onnx.name} here: run ./build.sh")
    wanted = {
        "tensorrt": version,
        "device": Board(Machine()).identity,
        "onnx": digest_of(onnx),
    }
    why = differs(built, wanted)
    if why is not None:
        raise AgentError(
            "accelerator", f"the TensorRT engine of {onnx.name} is not for here ({why}): run ./build.sh"
        )
    return built


def import_tensorrt() -> Any:
    """NVIDIA's module. JetPack installs it for its own Python (3.6, 3.8, 3.10, 3.12), outside of every virtual environment."""
    module = import_system("tensorrt")
    if module is None:
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        why = f"no tensorrt module for Python {here} (JetPack's is python3-libnvinfer, for the system's python3)"
        raise AgentError("accelerator", why)
    return module


def _word(value: Any) -> str:
    """'FLOAT' of DataType.FLOAT, 'INPUT' of TensorIOMode.INPUT."""
    return str(value).rpartition(".")[2]
