"""Activations on disk: what comes back is what went in, and a disk that refuses or cuts is said."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgec.graph.errors import EdgecError
from edgec.passes.incremental.executor import IncrementalExecutor, visits
from edgec.passes.incremental.spill import Spill
from edgec.passes.incremental.store import ActivationStore

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),  # not contiguous
    np.array([True, False]),
    np.zeros((0, 7), np.int8),
    np.float16(3.5) * np.ones(()),
    np.arange(5, dtype=np.int64)[::-1],
]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: the kernel cuts the write that does, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_arrays_come_back(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    for array in ARRAYS:
        spill.append(array)
    assert len(spill) == len(ARRAYS)
    for index in reversed(range(len(ARRAYS))):
        found = spill.read(index)
        assert found.dtype == ARRAYS[index].dtype
        assert found.shape == ARRAYS[index].shape
        np.testing.assert_array_equal(found, ARRAYS[index])
    spill.remove()
    assert not (tmp_path / "f").exists()
    spill.remove()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 5000, 39_999])
def test_a_write_that_does_not_fit_is_an_error(size: int, tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    with file_limit(size), pytest.raises(EdgecError, match=r"cannot write: the file is larger[\s\S]*TMPDIR"):
        spill.append(np.ones(10_000, np.float32))
    assert not (tmp_path / "f").exists()


def test_a_file_that_was_cut_or_removed_is_an_error(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    spill.append(np.ones(1000, np.float32))
    os.truncate(tmp_path / "f", 3996)
    with pytest.raises(EdgecError, match="cut short"):
        spill.read(0)
    with pytest.raises(EdgecError, match="cut short"):
        spill.append(np.ones(1000, np.float32))
    (tmp_path / "f").unlink()
    with pytest.raises(EdgecError, match="cannot read: no such"):
        spill.read(0)


NET = "net (float[N,4,16,16] x) => (float[N,4,16,16] y) <float[4,4,1,1] a, float[4,4,1,1] b> { t = Conv(x, a)  y = Conv(t, b) }"


def test_the_walks_that_spill_say_so(tmp_path: Path, canonical, noise) -> None:
    model = canonical(NET)
    data = noise(model, 32)
    with ActivationStore(tmp_path, 0) as store:
        walk = IncrementalExecutor(model, data.batches(4), store, 1)
        with file_limit(10_000), pytest.raises(EdgecError, match="cannot write"):
            list(walk.move(visits(model, ["t", "y"])[0]))
    store = ActivationStore(tmp_path, 0)
    with file_limit(20_000), pytest.raises(EdgecError, match="cannot write"):
        store.put("t", 0, np.ones(10_000, np.float32))
    store.clear()
    assert not any(tmp_path.iterdir())
