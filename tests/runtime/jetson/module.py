"""A stand-in for the ``tensorrt`` module: engines of the stand-in trtexec, computed by onnxruntime.

It has the interface of the version that it is: bindings up to 9, tensors from 8.5 on. ``VERSION`` and ``HERE`` are put in by the test.
"""

import ctypes
import enum
import json
from pathlib import Path

import numpy as np

VERSION = (8, 5, 2)
HERE = Path()
__version__ = ".".join(map(str, VERSION)) + (".30" if VERSION >= (10,) else ".2")


class DataType(enum.Enum):
    FLOAT = "float32"
    HALF = "float16"
    INT8 = "int8"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    UINT8 = "uint8"


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class Logger:
    ERROR = 1

    def __init__(self, level: int) -> None:
        assert level == Logger.ERROR


class Runtime:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> object:
        head, _, onnx = content.partition(b"\n")
        if head != f"standin {VERSION}".encode():
            return None
        return ICudaEngine(Tensors(onnx))


class Tensors:
    """The network in onnxruntime, and its inputs and outputs in order."""

    def __init__(self, onnx: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        named = {"float": "float32", "double": "float64"}
        self.all = [
            (value.name, place == 0, value.shape, named.get(kind := value.type[7:-1], kind))
            for place, values in enumerate((self.session.get_inputs(), self.session.get_outputs()))
            for value in values
        ]

    def shape(self, place: int, batch: int) -> tuple:
        return tuple(n if isinstance(n, int) else batch for n in self.all[place][2])

    def run(self, addresses: list) -> None:
        feeds, slots = {}, []
        for place, (name, is_input, _, kind) in enumerate(self.all):
            shape = self.shape(place, 1)
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            memory = (ctypes.c_char * size).from_address(addresses[place])
            array = np.frombuffer(memory, kind).reshape(shape)
            if is_input:
                feeds[name] = array.copy()
            else:
                slots.append((name, array))
        file = HERE / "behaviour.json"
        error = (json.loads(file.read_text()) if file.is_file() else {}).get("error", 0.0)
        for (_, array), value in zip(
            slots, self.session.run([name for name, _ in slots], feeds), strict=True
        ):
            array[...] = value + error * np.abs(value).max() if array.dtype.kind == "f" else value


class ICudaEngine:
    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        if VERSION < (10,):
            self.num_bindings = len(tensors.all)
        if VERSION >= (8, 5):
            self.num_io_tensors = len(tensors.all)

    def create_execution_context(self) -> "Context":
        return Context(self.tensors)

    # ------------------------------------------------------------ bindings, up to 9

    def get_binding_name(self, index: int) -> str:
        assert VERSION < (10,)
        return self.tensors.all[index][0]

    def binding_is_input(self, index: int) -> bool:
        return self.tensors.all[index][1]

    def get_binding_shape(self, index: int) -> tuple:
        return self.tensors.shape(index, -1)

    def get_binding_dtype(self, index: int) -> DataType:
        return DataType(self.tensors.all[index][3])

    # ------------------------------------------------------------ tensors, from 8.5 on

    def _at(self, name: str) -> int:
        assert VERSION >= (8, 5)
        return [one[0] for one in self.tensors.all].index(name)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors.all[index][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self.tensors.all[self._at(name)][1] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple:
        return self.tensors.shape(self._at(name), -1)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.tensors.all[self._at(name)][3])


class Context:
    """Both interfaces; which of them the engine's side offers decides which is used."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.names = [one[0] for one in tensors.all]
        self.fixed: dict = {}
        self.addresses: dict = {}

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        assert VERSION >= (8, 5)
        return self.set_binding_shape(self.names.index(name), shape)

    def set_binding_shape(self, index: int, shape: tuple) -> bool:
        self.fixed[index] = tuple(shape)
        return tuple(shape) == self.tensors.shape(index, 1)

    def get_tensor_shape(self, name: str) -> tuple:
        return self.get_binding_shape(self.names.index(name))

    def get_binding_shape(self, index: int) -> tuple:
        inputs = [place for place, one in enumerate(self.tensors.all) if one[1]]
        return self.tensors.shape(index, 1 if set(inputs) <= set(self.fixed) else -1)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert VERSION >= (8, 5)
        assert stream_handle == 77
        self.tensors.run([self.addresses[name] for name in self.names])
        return True

    def execute_async_v2(self, bindings: list, stream_handle: int) -> bool:
        assert VERSION < (8, 5)
        assert stream_handle == 77
        self.tensors.run(bindings)
        return True
