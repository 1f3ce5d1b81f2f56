"""What may be given in Python, as types; none of them needs torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Union

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgec.graph.data import Dataset


class ArrayLike(Protocol):
    """A numpy array, or a tensor."""

    @property
    def shape(self) -> Any:
        """Sizes of the axes."""

    def __array__(self) -> Any:
        """The values, as numpy has them."""


class TorchModule(Protocol):
    """A ``torch.nn.Module``."""

    def eval(self) -> Any:
        """Set the module to infer."""

    def state_dict(self) -> Any:
        """The module's weights."""


class MapDataset(Protocol):
    """A torch ``Dataset`` whose samples have numbers."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """One sample: an array, ``(array, label)``, or a dict of arrays by input."""


class PreprocessOptions(TypedDict, total=False):
    """From pixels to the network's input; see docs/compile.md."""

    mean: float | str | Iterable[float]
    std: float | str | Iterable[float]
    scale: float | str
    layout: str
    resize: int | str | Iterable[int]
    crop: int | str | Iterable[int]
    channels: str
    letterbox: int | str
    letterbox_at: str


PathLike = str | os.PathLike[str]
ModelLike = Union[PathLike, TorchModule, "onnx.ModelProto", "ir.Model"]
DataLike = Union[PathLike, ArrayLike, Mapping[str, ArrayLike], "Dataset", MapDataset, Iterable[Any]]


def named(value: Any) -> str:
    """What somebody gave, in words: ``a list of str``, ``an int``, ``a DataLoader``."""
    kind = type(value).__name__
    words = f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
    if isinstance(value, (list, tuple)) and value:
        return f"{words} of {type(value[0]).__name__}"
    return f"an empty {kind}" if isinstance(value, (list, tuple)) else words


def is_array(value: Any) -> bool:
    """A numpy array or a tensor; a number is none."""
    return hasattr(value, "__array__") and hasattr(value, "shape")


def is_module(value: Any) -> bool:
    """A ``torch.nn.Module``: where there is one, torch is imported."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
