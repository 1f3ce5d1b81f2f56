"""Inference engines behind one small interface: load, feed, invoke, read the outputs."""

from __future__ import annotations

import mmap
import os
import platform
import re
import zipfile
import zlib
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

# From 1.29 on onnxruntime's wheels start telemetry (a thread, a data base) unless told not to, before import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from .base import AgentError, Json, first_line
from .engine import CODES_KEY, TENSORRT, Engine, codes_said, concrete_shape
from .machine import Machine

ORT_PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
TFLITE_RESOLVERS = {
    "litert": ("ai_edge_litert", "AUTO"),
    "litert-builtin": ("ai_edge_litert", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    "litert-reference": ("ai_edge_litert", "BUILTIN_REF"),
    "tflite-runtime": ("tflite_runtime", "AUTO"),
    "tflite-runtime-builtin": ("tflite_runtime", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    "tflite-runtime-reference": ("tflite_runtime", "BUILTIN_REF"),
}
PREFERRED = {".onnx": ["onnxruntime"], ".tflite": ["litert", "tflite-runtime"]}
_ORT_TYPES = {"float": "float32", "double": "float64"}
_INTEGER = (b"QuantizeLinear", b"QLinear", b"ConvInteger", b"MatMulInteger")
_CODES = ("tensor(int8)", "tensor(uint8)")


def engine_names() -> list[str]:
    return [*ORT_PROVIDERS, TENSORRT, *TFLITE_RESOLVERS]


def saturates(machine: str, cpuinfo: str) -> bool:
    """Whether onnxruntime's U8S8 kernels saturate here: x86 without VNNI adds two products in 16 bits."""
    return machine in ("x86_64", "AMD64", "i686") and "vnni" not in cpuinfo


def has_codes(path: str) -> bool:
    """Whether an ONNX file computes in integers somewhere: it names one of their ops."""
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(word) >= 0 for word in _INTEGER)


class OnnxRuntime(Engine):
    """onnxruntime through an I/O binding, so that no array is copied in the timed call."""

    def __init__(self, name: str, path: str, threads: int, shapes: Json, profile: str | None = None) -> None:
        numpy, ort = _import("onnxruntime")
        self.name, self.version, self.notices = name, ort.__version__, []
        provider = ORT_PROVIDERS[name]
        if provider not in ort.get_available_providers():
            have = ", ".join(ort.get_available_providers())
            raise AgentError("engine", f"onnxruntime {self.version} here has no {provider}; it has {have}")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        if has_codes(path) and saturates(platform.machine(), Machine().read("/proc/cpuinfo")):
            options.add_session_config_entry("session.x64quantprecision", "1")
            self.notices.append(
                "no VNNI here: int8 is kept exact, and slower, by session.x64quantprecision=1"
            )
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        try:
            self.session = ort.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # onnxruntime raises a dozen classes with no common base but Exception
            text = f"onnxruntime {self.version} cannot load it: {first_line(error)}"
            raise AgentError("model", text) from error
        self.delegate = self.session.get_providers()[0].replace("ExecutionProvider", "")
        self.inputs = []
        for value in self.session.get_inputs():
            kind = re.sub(r"tensor\((\w+)\)", r"\1", value.type)
            shape = concrete_shape(value.name, value.shape, shapes)
            self.inputs.append((value.name, shape, numpy.dtype(_ORT_TYPES.get(kind, kind))))
        self.output_names = [value.name for value in self.session.get_outputs()]
        self.quantised = self._codes()
        self.binding = self.session.io_binding()

    def _codes(self) -> Dict[str, Tuple[float, int]]:
        """What a file of edgec says of ends that take or give codes; other files have none, or their own words."""
        values = [*self.session.get_inputs(), *self.session.get_outputs()]
        coded = {value.name for value in values if value.type in _CODES}
        said = codes_said(self.session.get_modelmeta().custom_metadata_map.get(CODES_KEY, "{}"))
        return {name: pair for name, pair in said.items() if name in coded}

    def feed(self, feeds: Json) -> None:
        self.kept = feeds  # the binding points into these arrays
        self.binding.clear_binding_inputs()
        for name, array in feeds.items():
            self.binding.bind_cpu_input(name, array)
        self.binding.clear_binding_outputs()
        for name in self.output_names:
            self.binding.bind_output(name)

    def invoke(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def outputs(self) -> Json:
        return dict(zip(self.output_names, self.binding.copy_outputs_to_cpu()))


class TfLite(Engine):
    """LiteRT (ai_edge_litert) or tflite_runtime: the same interface, and kernels that differ much."""

    def __init__(self, name: str, path: str, threads: int, shapes: Json) -> None:
        package, resolver = TFLITE_RESOLVERS[name]
        numpy, module = _import(package + ".interpreter")
        self.name, self.version, self.notices = name, package_version(package), []
        kernels = getattr(module.OpResolverType, resolver)
        try:
            self.interpreter = module.Interpreter(
                model_path=path, num_threads=threads, experimental_op_resolver_type=kernels
            )
            for detail in self.interpreter.get_input_details():
                if detail["name"] in shapes:
                    self.interpreter.resize_tensor_input(detail["index"], shapes[detail["name"]])
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = f"{package} {self.version} cannot load it: {first_line(error)}"
            raise AgentError("model", text) from error
        except (SystemError, AttributeError, ImportError) as error:
            # tflite_runtime 2.14 imports under numpy 2 and only then fails, here, with a bare SystemError.
            text = (
                f"{package} {self.version} does not work with numpy {numpy.__version__} ({first_line(error)})"
            )
            raise AgentError("engine", text + "; install 'numpy<2'") from error
        self.details = self.interpreter.get_input_details()
        self.inputs = [
            (detail["name"], tuple(int(n) for n in detail["shape"]), numpy.dtype(detail["dtype"]))
            for detail in self.details
        ]
        self.quantised = {
            detail["name"]: (float(detail["quantization"][0]), int(detail["quantization"][1]))
            for detail in [*self.details, *self.interpreter.get_output_details()]
            if detail["quantization"][0] != 0
        }
        operators = [op["op_name"] for op in self.interpreter._get_ops_details()]
        self.delegate = "XNNPACK" if "DELEGATE" in operators else "none (built-in kernels)"
        if resolver == "AUTO" and self.delegate != "XNNPACK" and platform.machine() == "x86_64":
            self.notices.append(
                f"{package} {self.version} runs this model without XNNPACK on x86: "
                "slower than LiteRT on the same file, and no guide to Arm"
            )

    def feed(self, feeds: Json) -> None:
        for detail in self.details:
            self.interpreter.set_tensor(detail["index"], feeds[detail["name"]])

    def invoke(self) -> None:
        self.interpreter.invoke()

    def outputs(self) -> Json:
        details = self.interpreter.get_output_details()
        return {detail["name"]: self.interpreter.get_tensor(detail["index"]) for detail in details}


def _import(module: str) -> tuple[Any, Any]:
    """numpy and the engine's module."""
    try:
        return import_module("numpy"), import_module(module)
    except (ImportError, AttributeError) as error:  # a build for numpy 1 dies in either way under numpy 2
        raise AgentError(
            "engine", f"{module.split('.')[0]} is not usable here: {first_line(error)}"
        ) from error


def package_version(package: str) -> str:
    """Installed version of the distribution of an import package; '' where none is recorded."""
    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return ""


def open_engine(
    path: str, engine: str | None, threads: int, shapes: Json, profile: str | None = None
) -> Engine:
    """The named engine, or the first that works for the file's type, with the model loaded into it."""
    if not Path(path).is_file():
        raise AgentError("model", f"no such file: {path}")
    suffix = Path(path).suffix
    names = [engine] if engine else PREFERRED.get(suffix, [])
    if not names:
        raise AgentError("usage", f"{path}: not an .onnx or .tflite file")
    failures = []
    for name in names:
        if (name in TFLITE_RESOLVERS) != (suffix == ".tflite"):
            raise AgentError("usage", f"{name} does not read {suffix} files")
        try:
            if name in TFLITE_RESOLVERS:
                return TfLite(name, path, threads, shapes)
            if name == TENSORRT:
                from .trt_run import TensorRt

                return TensorRt(path, shapes)
            return OnnxRuntime(name, path, threads, shapes, profile)
        except AgentError as error:
            if error.kind == "model":
                raise AgentError("model", f"{Path(path).name}: {error}") from error
            if error.kind != "engine":
                raise
            failures.append(str(error))
    raise AgentError("engine", "; ".join(failures))


def made_up_feeds(engine: Engine) -> Json:
    """Seeded inputs of the right shape and type: normal floats, all codes of 8-bit types, else zeros."""
    numpy = import_module("numpy")
    random = numpy.random.RandomState(0)
    feeds = {}
    for name, shape, dtype in engine.inputs:
        if dtype.kind == "f":
            feeds[name] = random.standard_normal(shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            codes = numpy.iinfo(dtype)
            feeds[name] = random.randint(codes.min, codes.max + 1, shape).astype(dtype)
        else:
            feeds[name] = numpy.zeros(shape, dtype)
    return feeds


def read_feeds(path: str, engine: Engine) -> Iterator[Json]:
    """Feeds of one sample each from an .npz: one array per input, samples along the first axis."""
    numpy = import_module("numpy")
    try:
        archive = numpy.load(path, allow_pickle=False)
        if isinstance(archive, numpy.ndarray):
            raise ValueError("one bare array; save it with numpy.savez")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise AgentError("data", f"{path}: {first_line(error)}") from error
    if len(engine.inputs) == 1 and len(arrays) == 1:
        arrays = {
            engine.inputs[0][0]: next(iter(arrays.values()))
        }  # the only input needs no name in the file
    for name, shape, dtype in engine.inputs:
        if name not in arrays:
            raise AgentError(
                "data", f"{path}: no array for input {name!r}; it has {', '.join(sorted(arrays))}"
            )
        array = arrays[name]
        # A leading axis of 1 is the batch; any other is one that a file was fixed at, or belongs to the sample.
        one = shape[1:] if shape[:1] == (1,) or array.ndim == len(shape) else shape
        if tuple(array.shape[1:]) != one or array.dtype != dtype:
            want = f"{dtype} [{', '.join(['N', *map(str, one)])}]"
            raise AgentError(
                "data", f"{path}: input {name!r} must be {want}, not {array.dtype} {list(array.shape)}"
            )
    count = min(arrays[name].shape[0] if arrays[name].ndim else 0 for name, _, _ in engine.inputs)
    if count == 0:
        raise AgentError("data", f"{path}: it has no samples")
    for i in range(count):
        yield {name: _sample(arrays[name], i, shape) for name, shape, _ in engine.inputs}


def _sample(array: Any, index: int, shape: tuple[int, ...]) -> Any:
    """One sample as the engine takes it: with a batch axis of 1, or without one where the file has none."""
    numpy = import_module("numpy")
    one = numpy.ascontiguousarray(array[index : index + 1])
    # reshape, because ascontiguousarray makes a scalar an array of one
    return one if array.ndim == len(shape) else one.reshape(shape)
