"""A stand-in for cuda-python's runtime module: the GPU's memory is this process's."""

import ctypes
import enum

_TAKEN = {}
_STREAM = 77


class cudaMemcpyKind(enum.IntEnum):  # noqa: N801  (its name there)
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815


def cudaStreamCreate() -> tuple:  # noqa: N802
    return 0, _STREAM


def cudaStreamSynchronize(stream: int) -> tuple:  # noqa: N802
    return (0 if stream == _STREAM else 400,)


def cudaMalloc(size: int) -> tuple:  # noqa: N802
    memory = ctypes.create_string_buffer(size)
    address = ctypes.addressof(memory)
    _TAKEN[address] = memory
    return 0, address


def cudaMemcpyAsync(to: int, source: int, size: int, kind: cudaMemcpyKind, stream: int) -> tuple:  # noqa: N802
    assert isinstance(kind, cudaMemcpyKind)
    memory = _TAKEN.get(to if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else source)
    if memory is None or size > len(memory) or stream != _STREAM:
        return (1,)
    ctypes.memmove(to, source, size)
    return (0,)
