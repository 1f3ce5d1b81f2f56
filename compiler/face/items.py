"""Samples one after the other from whatever a Python program holds them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.compiler.face.kinds import is_array, named
from edgec.graph.data import Dataset
from edgec.graph.errors import DataError, WrongTypeError

Array = np.ndarray[Any, np.dtype[Any]]

ADMITTED = (
    "a path, an array, a dict of arrays by input, a torch Dataset or DataLoader, "
    "or an iterable of arrays (or of pairs with labels)"
)
LABELS, ALONE = "y", "x"
"""Names of the labels, and of the only input, as in an ``.npz``."""
_CHUNK = 64


@dataclass(frozen=True)
class Item:
    """A sample or a batch, by input (`ALONE`: the only one); ``y`` is what came beside it.

    ``whole``: a batch for certain; otherwise the number of axes tells.
    """

    arrays: Mapping[str, Array]
    y: Any = None
    whole: bool = False


def check_data(name: str, value: Any) -> None:
    """Raise WrongTypeError for what is no data in any form; nothing of it is consumed."""
    if isinstance(value, (str, bytes)):
        raise _wrong(name, value)
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not isinstance(key, str) or not is_array(one):
                raise WrongTypeError(
                    f"{name}: got a dict of {type(key).__name__} to {type(one).__name__}", why=_needs()
                )
        return
    if isinstance(value, (list, tuple)):
        if not value or not _is_item(value[0]):
            raise _wrong(name, value)
        return
    if not (is_array(value) or isinstance(value, (Dataset, Iterable)) or _is_numbered(value)):
        raise _wrong(name, value)


def items(name: str, value: Any, samples: int | None, seed: int) -> Iterator[Item]:
    """What ``value`` holds. Where samples have numbers, ``samples`` of them are chosen by ``seed``, as from a file; of what can
    only be gone through, the caller takes the first. Raises WrongTypeError for an item that is no array.
    """
    check_data(name, value)
    if _is_labelled(value):
        value = {ALONE: value[0], LABELS: value[1]}
    if is_array(value):
        value = {ALONE: value}
    if isinstance(value, Mapping):
        yield from _of_arrays(name, value, samples, seed)
    elif isinstance(value, Dataset):
        taken, done = value if samples is None else value.take(samples, seed), 0
        for feeds in taken.batches(_CHUNK):
            count = len(next(iter(feeds.values())))
            labels = None if taken.labels is None else taken.labels[done : done + count]
            yield Item(feeds, labels, whole=True)
            done += count
    elif _is_numbered(value) and not isinstance(value, (list, tuple)):
        for index in _chosen(len(value), samples, seed):
            yield _item(name, value[index])
    else:
        for one in value:
            yield _item(name, one)


def to_numpy(value: Any) -> Array:
    """An array or tensor as numpy has it, wherever it lies; types that numpy lacks (bfloat16) become float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.asarray(value.numpy())
    return np.asarray(value)


def _of_arrays(name: str, given: Mapping[str, Any], samples: int | None, seed: int) -> Iterator[Item]:
    arrays = {
        key: value if isinstance(value, np.ndarray) else to_numpy(value) for key, value in given.items()
    }
    counts = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    count = next(iter(counts.values()), 0)
    if not count or len(set(counts.values())) > 1:
        why = ", ".join(f"{key}: {each}" for key, each in counts.items()) or "no arrays"
        raise DataError(f"{name}: no samples, or not as many in each array", why=why)
    labels = arrays.pop(LABELS, None)
    if not arrays:
        raise DataError(f"{name}: there are labels and no inputs")
    rows = _chosen(count, samples, seed)
    for start in range(0, len(rows), _CHUNK):
        some: Any = rows[start : start + _CHUNK]
        if isinstance(some, range):
            some = slice(some.start, some.stop)  # a view, no copy
        yield Item(
            {key: array[some] for key, array in arrays.items()},
            None if labels is None else labels[some],
            whole=True,
        )


def _chosen(count: int, samples: int | None, seed: int) -> Sequence[int]:
    """As `graph.data.Dataset.take` chooses."""
    if samples is None or samples >= count:
        return range(count)
    return [int(one) for one in np.sort(np.random.default_rng(seed).permutation(count)[:samples])]


def _item(name: str, one: Any) -> Item:
    y = None
    if isinstance(one, (tuple, list)) and len(one) in (1, 2):
        one, y = one[0], one[1] if len(one) == 2 else None
    if isinstance(one, Mapping):
        rest = {key: value for key, value in one.items() if key != LABELS}
        y = one.get(LABELS, y)
        if rest and all(is_array(value) for value in rest.values()):
            return Item({key: to_numpy(value) for key, value in rest.items()}, y)
    elif is_array(one):
        return Item({ALONE: to_numpy(one)}, y)
    hint = (
        "Turn pictures into arrays first, such as with a transform of the Dataset."
        if hasattr(one, "getbands")
        else None
    )
    raise WrongTypeError(f"{name}: got {named(one)} as a sample", why=_needs(), hint=hint)


def _is_labelled(value: Any) -> bool:
    """A pair ``(x, y)`` of arrays, y holding a label for each of x."""
    if not (isinstance(value, tuple) and len(value) == 2 and all(map(is_array, value))):
        return False
    x, y = value
    return len(x.shape) > 1 and len(y.shape) == 1 and x.shape[0] == y.shape[0]


def _is_item(one: Any) -> bool:
    first: Any = one[0] if isinstance(one, (tuple, list)) and one else one
    return is_array(first) or isinstance(first, Mapping)


def _is_numbered(value: Any) -> bool:
    sized: Callable[..., Any] | None = getattr(value, "__len__", None)
    return sized is not None and hasattr(value, "__getitem__")


def _wrong(name: str, value: Any) -> WrongTypeError:
    return WrongTypeError(f"{name}: got {named(value)}", why=_needs())


def _needs() -> str:
    return f"admitted are {ADMITTED}"
