"""The few CUDA calls that a TensorRT engine needs from Python: memory, copies, a stream.

Through cuda-python where it is installed, else through the runtime library itself, which JetPack always has. Nothing to compile.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path
from typing import Any, Callable

from .base import AgentError, first_line
from .system_module import import_system

_PLACES = (
    "usr/local/cuda/lib64/libcudart.so*",
    "usr/local/cuda/targets/*/lib/libcudart.so*",
    "usr/local/cuda-*/lib64/libcudart.so*",
    "usr/lib/*/libcudart.so*",
)
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
Call = Callable[..., Any]


class Cuda:
    """One stream, and memory; both are given back when the process ends, as the engine is."""

    def __init__(self) -> None:
        self._call = _cuda_python() or _library()
        self.stream: int = self._call("cudaStreamCreate")

    def take(self, size: int) -> int:
        """Address of ``size`` bytes of the GPU's memory."""
        address: int = self._call("cudaMalloc", max(size, 1))
        return address

    def copy(self, to: int, source: int, size: int, kind: int) -> None:
        """Copy bytes in the stream; `wait` tells when they are there."""
        self._call("cudaMemcpyAsync", to, source, size, kind, self.stream)

    def wait(self) -> None:
        """Until all that was given to the stream is done."""
        self._call("cudaStreamSynchronize", self.stream)


def _cuda_python() -> Call | None:
    """Calls of cuda-python, whose module moved in 12.8."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        module = import_system(name)
        if module is not None:
            return _caller(module)
    return None


def _caller(module: Any) -> Call:
    def call(name: str, *given: Any) -> Any:
        values = [
            module.cudaMemcpyKind(value) if name == "cudaMemcpyAsync" and i == 3 else value
            for i, value in enumerate(given)
        ]
        code, *found = getattr(module, name)(*values)
        _check(name, int(code))
        return int(found[0]) if found else None

    return call


def _library() -> Call:
    """Calls of libcudart by ctypes."""
    found = ctypes.util.find_library("cudart")
    paths = [str(path) for place in _PLACES for path in sorted(Path("/").glob(place))]
    failures = []
    for path in [found, *paths] if found else paths:
        try:
            return _bound(ctypes.CDLL(path))
        except (OSError, AttributeError) as error:
            failures.append(first_line(error))
    raise AgentError(
        "accelerator", f"no CUDA runtime here: {failures[0] if failures else 'libcudart.so is not found'}"
    )


def _bound(library: Any) -> Call:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    made = {"cudaMalloc", "cudaStreamCreate"}
    kinds = {
        "cudaMalloc": [ctypes.POINTER(pointer), size],
        "cudaMemcpyAsync": [pointer, pointer, size, ctypes.c_int, pointer],
        "cudaStreamCreate": [ctypes.POINTER(pointer)],
        "cudaStreamSynchronize": [pointer],
    }
    for name, arguments in kinds.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = ctypes.c_int

    def call(name: str, *given: Any) -> Any:
        result = pointer()
        code = getattr(library, name)(*([ctypes.byref(result)] if name in made else []), *given)
        _check(name, code)
        return result.value if name in made else None

    return call


def _check(name: str, code: int) -> None:
    if code != 0:
        why = {2: "out of memory", 35: "the driver is older than CUDA", 100: "no GPU"}.get(
            code, f"error {code}"
        )
        raise AgentError("accelerator", f"{name}: {why}")
