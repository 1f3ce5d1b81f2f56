"""What comes beside samples: class labels, or whatever the caller's own metric compares with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.compiler.face.items import to_numpy
from edgec.compiler.face.kinds import is_array, named
from edgec.graph.errors import DataError, WrongTypeError

Array = np.ndarray[Any, np.dtype[Any]]


def rows(y: Any, count: int, single: bool) -> list[Any]:
    """``y`` of one item, sample by sample. Raises WrongTypeError where it cannot be taken apart."""
    if single:
        return [to_numpy(y) if is_array(y) else y]
    if is_array(y):
        array = to_numpy(y)
        if array.ndim and len(array) == count:
            return list(array)
    elif isinstance(y, (list, tuple)) and len(y) == count:
        return [to_numpy(one) if is_array(one) else one for one in y]
    why = f"a batch of {count} samples came with {named(y)}"
    raise WrongTypeError("eval: labels do not fit the batch", why=why, hint="Give one entry for each sample.")


def class_labels(found: Sequence[Any]) -> Array | None:
    """Class indices, one for each sample; None where ``found`` are none."""
    if not found:
        return None
    try:
        array = np.asarray([np.asarray(one).reshape(-1) for one in found])
    except (TypeError, ValueError):
        return None
    if array.ndim != 2 or array.shape[1] != 1 or array.dtype.kind not in "iu":
        return None
    return array[:, 0].astype(np.int64)


def joined(found: Sequence[Any]) -> Any:
    """One array, where the entries are arrays or numbers of one shape; else a tuple of them."""
    try:
        arrays = [np.asarray(one) for one in found]
    except (TypeError, ValueError):
        return tuple(found)
    same = len({one.shape for one in arrays}) == 1 and all(one.dtype.kind in "fiub" for one in arrays)
    return np.stack(arrays) if same else tuple(found)


def check_complete(found: Sequence[Any], count: int) -> None:
    """Raise DataError where some samples have labels and others none."""
    if found and len(found) != count:
        raise DataError("eval: some samples have no label", why=f"{count} samples, {len(found)} labels")
